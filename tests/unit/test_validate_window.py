"""`validate_window`: what it says of a window and when; that batches, aborts and replays change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.contracts.windows import held
from headrace.errors import SchemaError, SuiteError
from headrace.processors.validate_window import ValidateWindow, ValidateWindowConfig
from headrace.testing import Record
from tests.unit.statekit import Driven, Row, cut, records

pytestmark = pytest.mark.unit
MINUTE = 60_000
SCHEMA = pa.schema([pa.field("at", pa.timestamp("ms", "UTC")), pa.field("k", pa.string()), pa.field("n", pa.int32()),
                    pa.field("x", pa.float64())])
HOURLY = {"time": "1h", "on": "at"}


def one(type_: str, /, **kwargs: Any) -> dict[str, Any]:
    severity = {"severity": kwargs.pop("severity")} if "severity" in kwargs else {}
    return {"type": f"expect_{type_}", "kwargs": kwargs, **severity}


SUITE = [
    one("column_values_to_not_be_null", column="k"),
    one("column_mean_to_be_between", column="n", min_value=0, max_value=10),
    one("table_row_count_to_be_between", min_value=2),
    one("column_values_to_be_unique", column="k", severity="warning"),
    one("column_stdev_to_be_between", column="x", max_value=3.0, severity="warning"),
    one("column_unique_value_count_to_be_between", column="k", max_value=3, severity="info"),
    one("column_values_to_be_between", column="n", min_value=0, mostly=0.5,
        row_condition={"type": "comparison", "column": {"name": "x"}, "operator": ">", "parameter": 0.5}),
    one("column_values_to_be_increasing", column="n", severity="info"),
    one("column_to_exist", column="k")]


def step(tmp: Path, config: dict[str, Any], suite: list[dict[str, Any]] | None = None) -> ValidateWindow:
    (tmp / "schemas").mkdir(exist_ok=True)
    (tmp / "schemas/s.expectations.json").write_text(json.dumps({"name": "s", "expectations": SUITE if suite is None
                                                                 else suite}))
    made = ValidateWindow(ValidateWindowConfig.model_validate(config), project=tmp)
    made.outputs(SCHEMA)
    return made


def rows(*written: tuple[int, str | None, int | None], partition: int = 0) -> list[Row]:
    """(minute, k, n) each."""
    return [(partition, {"at": m * MINUTE, "k": k, "n": n, "x": None if n is None else n / 3}) for m, k, n in written]


def run(made: ValidateWindow, given_: list[Row], cuts: list[int] | None = None) -> Driven:
    driven = Driven(made, SCHEMA)
    for part in cut(records(given_), cuts or []):
        driven.feed(part)
    return driven


def said(driven: Driven) -> list[dict[str, Any]]:
    out = [dict(row) for row, *_ in driven.got.get("verdict", [])]
    for row in out:
        row["detail"] = json.loads(row["detail"])
        row["measures"] = dict(row["measures"])
    return out


def test_a_closed_window_has_a_verdict_with_reasons_measures_and_great_expectations_result(tmp_path: Path) -> None:
    driven = run(step(tmp_path, {"suite": "s", "window": HOURLY}), rows(
        (0, "a", 1), (10, "a", 50), (20, None, -2), (59, "b", 3), (60, "c", 1), (70, "d", 2), (130, "e", 1)))
    first, second = said(driven)
    assert (first["rows"], first["offset_first"], first["offset_last"], first["ok"]) == (4, 0, 3, False)
    assert (first["window_start"].minute, first["window_end"].hour, first["at"]) == (0, 1, first["window_end"])
    assert first["about"] == "contract"
    assert first["reasons"] == [
        "column_values_to_not_be_null__k (critical): 1 unexpected (25 %): None",
        "column_mean_to_be_between__n (critical): 13.0 was observed",
        "column_values_to_be_unique__k (warning): 2 unexpected (66.7 %): a, a",
        "column_stdev_to_be_between__x (warning): 8.250701429216432 was observed",
        "column_values_to_be_increasing__n (info): 1 unexpected (25 %): -2"]
    assert first["measures"]["column_mean_to_be_between__n"] == 13.0
    assert first["measures"]["table_row_count_to_be_between"] == 4
    results = first["detail"]["results"]
    assert [r["expectation_config"]["meta"]["headrace_id"] for r in results][:2] == [
        "column_values_to_not_be_null__k", "column_mean_to_be_between__n"]
    assert first["detail"]["statistics"]["unsuccessful_expectations"] == 5
    assert second["ok"]
    assert second["reasons"] == []
    assert driven.counts == {"late": 0, "without_time": 0, "ok": 1, "not ok": 1}


def test_warnings_are_told_and_a_window_is_well_all_the_same(tmp_path: Path) -> None:
    [told] = said(run(step(tmp_path, {"suite": "s", "window": HOURLY}),
                      rows((0, "a", 1), (1, "a", 2), (2, "b", 3), (61, "a", 1))))
    assert told["ok"]
    assert [r.split(" ")[0] for r in told["reasons"]] == ["column_values_to_be_unique__k"]


def test_windows_of_a_number_of_records_close_with_their_last(tmp_path: Path) -> None:
    made = step(tmp_path, {"suite": "s", "window": {"records": 3}})
    driven = run(made, rows(*((0, f"k{i}", i) for i in range(8))), cuts=[2, 5])
    assert [(v["window"], v["offset_first"], v["offset_last"], v["window_start"]) for v in said(driven)] == [
        (0, 0, 2, None), (1, 3, 5, None)]


CHECKS = [{"unique": ["k"]}, {"order": "n", "severity": "warning"}, {"volume": {"min": 2, "max": 3, "change_max": 0.5}},
          {"freshness": "15m", "id": "fresh"}]


def test_the_checks_of_our_own(tmp_path: Path) -> None:
    made = step(tmp_path, {"checks": CHECKS, "window": {"time": "1h", "on": "at", "late": "10m"}})
    placed = records(rows((0, "a", 5), (30, "a", 4), (40, None, 6), (65, "b", 7), (55, "c", 1), (70, "d", 8),
                          (250, "e", 9)))
    late = [Record(b"", "t", 0, r.offset(), None, timestamp_ms=columns["at"] + (40 * MINUTE if at == 1 else 0))
            for at, (r, columns) in enumerate(placed)]
    driven = Driven(made, SCHEMA)
    for each in zip(late, [columns for _, columns in placed], strict=True):
        driven.feed([each])
    first, second, third, fourth = said(driven)
    assert [(v["window"], v["rows"], v["ok"]) for v in (first, second, third, fourth)] == [
        (0, 4, False), (1, 2, False), (2, 0, False), (3, 0, False)]
    assert first["reasons"] == [
        "unique__k (critical): 1 record repeats another one's k",
        "order__n (warning): 1 record has a n below an earlier one",
        "volume (critical): 4 records; at most 3 are expected",
        "fresh (critical): the newest data were up to 4,200 s old; at most 900 s are allowed"]
    told = {c["id"]: c for c in first["detail"]["meta"]["headrace"]["checks"]}
    assert told["unique__k"]["examples"] == ["a: 2 times"]
    assert told["order__n"]["examples"] == ["4 at offset 1"]
    assert told["fresh"]["observed"] == 70 * MINUTE
    assert second["reasons"][0] == "order__n (warning): 1 record has a n below an earlier one"
    assert third["reasons"] == ["volume (critical): 0 records; at least 2 are expected, and the 2 windows before had "
                                "3 on average"]
    assert third["offset_first"] is None


def test_a_change_of_suite_or_schema_begins_anew(tmp_path: Path) -> None:
    driven = Driven(step(tmp_path, {"suite": "s", "window": HOURLY}), SCHEMA)
    placed = records(rows((0, "a", 1), (10, "b", 2), (61, "c", 3)))
    driven.feed(placed[:2])
    driven.step = step(tmp_path, {"suite": "s", "window": HOURLY}, SUITE[:1])
    driven.feed(placed[2:])
    assert said(driven) == []
    driven.feed(records(rows((0, "a", 1), (0, "a", 1), (0, "a", 1), (130, "d", 4)))[3:])
    assert [(v["window"], v["rows"]) for v in said(driven)] == [(1, 1)]


def test_what_is_aborted_was_never_there(tmp_path: Path) -> None:
    placed = records(rows((0, "a", 1), (10, "b", 50), (20, None, 2), (61, "c", 3)))
    whole = run(step(tmp_path, {"suite": "s", "checks": CHECKS, "window": HOURLY}), [(0, c) for _, c in placed])
    driven = Driven(step(tmp_path, {"suite": "s", "checks": CHECKS, "window": HOURLY}), SCHEMA)
    for at in range(4):
        driven.feed(placed[at:], commit=False)
        driven.feed(placed[at:at + 1])
    assert driven.got == whole.got


ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 200), st.sampled_from(["a", "b", None]),
                          st.integers(-3, 12) | st.none()), min_size=1, max_size=60)


@given(ROWS, st.lists(st.integers(0, 60), max_size=8), st.sampled_from(["0s", "30m", "2h"]), st.booleans())
def test_any_batches_give_the_same(tmp_path_factory: pytest.TempPathFactory, given_: Any, cuts: list[int], late: str,
                                   by_records: bool) -> None:
    tmp = tmp_path_factory.mktemp("s")
    window = {"records": 5} if by_records else {**HOURLY, "late": late}
    checks = CHECKS[:3] if by_records else CHECKS
    config = {"suite": "s", "checks": checks, "window": window}
    all_ = [row for p, m, k, n in given_ for row in rows((m, k, n), partition=p)]
    whole, parts = run(step(tmp, config), all_), run(step(tmp, config), all_, cuts)
    assert parts.by_partition() == whole.by_partition()


def test_blocks_are_folded_wherever_batches_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than a block has: states are added up, kept rows put together, long values cut into pieces."""
    monkeypatch.setattr(held, "BLOCK", 16)
    monkeypatch.setattr(held, "PIECE_BYTES_MAX", 100)
    given_ = rows(*((i // 4, f"k{i % 90}", i * 7 % 11) for i in range(600)))
    config = {"suite": "s", "checks": CHECKS, "window": HOURLY}
    whole = run(step(tmp_path, config), given_)
    assert said(whole)[0]["rows"] == 240
    assert said(whole)[0]["detail"]["results"][3]["result"]["unexpected_count"] == 240
    for cuts in ([3, 50, 51, 300, 333], list(range(0, 600, 7))):
        assert run(step(tmp_path, config), given_, cuts).got == whole.got


def test_too_many_rows_to_keep_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "KEPT_MAX", 10)
    given_ = rows(*((i, f"k{i}", 1) for i in range(12)), (60, "a", 1))
    [told] = said(run(step(tmp_path, {"suite": "s", "checks": CHECKS[:1], "window": HOURLY}), given_, [4, 8]))
    reasons = " | ".join(told["reasons"])
    assert "column_values_to_be_unique__k (warning): raised the window has more than" in reasons
    assert "unique__k (critical): cannot be judged" in reasons


def test_an_estimate_is_said_to_be_one(tmp_path: Path) -> None:
    suite = [one("column_median_to_be_between", column="n", max_value=1)]
    given_ = rows(*((0, "a", i) for i in range(9_000)), (61, "a", 1), (122, "b", 1))
    first, second = said(run(step(tmp_path, {"suite": "s", "window": HOURLY}, suite), given_))
    assert first["reasons"][0].startswith("column_median_to_be_between__n (critical): about 4")
    assert first["detail"]["results"][0]["result"]["headrace_estimate"] is True
    assert "headrace_estimate" not in second["detail"]["results"][0]["result"]
    assert "may be an estimate" in step(tmp_path, {"suite": "s", "window": HOURLY}, suite).notes(SCHEMA)[0]


def test_two_topics_of_one_flow_are_apart(tmp_path: Path) -> None:
    driven = Driven(step(tmp_path, {"checks": [{"volume": {}}], "window": {"records": 2}}), SCHEMA)
    columns = rows((0, "a", 1))[0][1]
    driven.feed([(Record(b"", topic, 0, at, timestamp_ms=1), columns) for at in range(2) for topic in "tu"])
    assert sorted((v["topic"], v["offset_last"]) for v in said(driven)) == [("t", 1), ("u", 1)]


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"window": HOURLY}, ValidationError, "nothing is judged"),
    ({"suite": "s", "window": {"time": "1h"}}, ValidationError, "go together"),
    ({"suite": "s", "window": {"records": 2, "time": "1h", "on": "at"}}, ValidationError, "say `time`"),
    ({"suite": "s", "window": {**HOURLY, "late": "8h"}}, ValidationError, "at most seven windows"),
    ({"checks": [{"unique": ["k"], "order": "n"}], "window": HOURLY}, ValidationError, "say one of"),
    ({"checks": [{"order": "n", "severity": "bad"}], "window": HOURLY}, ValidationError, "no severity"),
    ({"checks": [{"order": "m"}], "window": HOURLY}, SchemaError, "“m” is no column"),
    ({"checks": [{"order": "k"}], "window": HOURLY}, SchemaError, "k is string"),
    ({"checks": [{"order": "n"}, {"order": "n"}], "window": HOURLY}, SchemaError, "two checks have the name"),
    ({"checks": [{"freshness": "1m"}], "window": {"records": 3}}, SchemaError, "needs the records' event time"),
    ({"suite": "s", "window": {"time": "1h", "on": "k"}}, SchemaError, "must be a timestamp")]


@pytest.mark.parametrize(("config", "error", "why"), REFUSED, ids=[r[2] for r in REFUSED])
def test_refused(tmp_path: Path, config: dict[str, Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        step(tmp_path, config)


@pytest.mark.parametrize(("expectation", "why"), [
    (one("column_to_exist", column="kk"), "the schema does not fulfil it"),
    (one("column_mean_to_be_between", column="kk", min_value=1), "there is no column “kk”"),
    (one("column_mean_to_be_between", column="n", min_value={"$PARAMETER": "low"}), "“low” has no value")])
def test_a_suite_that_cannot_be_judged_is_refused(tmp_path: Path, expectation: dict[str, Any], why: str) -> None:
    with pytest.raises(SuiteError, match=why):
        step(tmp_path, {"suite": "s", "window": HOURLY}, [expectation])


def test_parameters_have_their_values_from_the_flow(tmp_path: Path) -> None:
    suite = [one("column_mean_to_be_between", column="n", min_value={"$PARAMETER": "low"})]
    made = step(tmp_path, {"suite": "s", "window": HOURLY, "parameters": {"low": 2}}, suite)
    assert [v["ok"] for v in said(run(made, rows((0, "a", 1), (61, "b", 5), (130, "c", 1))))] == [False, True]
