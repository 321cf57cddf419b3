"""`dedupe`: the first of a key goes on, exactly, whatever the batches; what is too late is said."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.errors import SchemaError
from headrace.processors.dedupe import Dedupe, DedupeConfig
from tests.unit.statekit import Driven, Row, cut, made, records

pytestmark = pytest.mark.unit
SCHEMA = pa.schema([pa.field("at", pa.timestamp("ms", "UTC")), pa.field("k", pa.string()), pa.field("n", pa.int32())])
HOUR = {"key": ["k", "n"], "within": "1h", "on": "at"}
MINUTE = 60_000


def rows(*written: tuple[int | None, str | None, int | None], partition: int = 0) -> list[Row]:
    """(minute, k, n) each."""
    return [(partition, {"at": None if m is None else m * MINUTE, "k": k, "n": n}) for m, k, n in written]


def run(config: dict[str, Any], given_: list[Row], cuts: list[int] | None = None, key: str | None = None) -> Driven:
    driven = Driven(made(Dedupe, config, SCHEMA), SCHEMA)
    for part in cut(records(given_, key), cuts or []):
        driven.feed(part)
    return driven


def minutes(driven: Driven, relationship: str) -> list[tuple[int, Any]]:
    return [(int(dict(row[0])["at"].timestamp()) // 60, dict(row[0])["k"]) for row in driven.got.get(relationship, [])]


def test_the_first_goes_on_and_the_next_window_begins_with_a_record_after_it() -> None:
    driven = run(HOUR, rows((0, "a", 1), (59, "a", 1), (59, "a", 2), (60, "a", 1), (61, "a", 1), (90, "b", 1)))
    assert minutes(driven, "success") == [(0, "a"), (59, "a"), (60, "a"), (90, "b")]
    assert minutes(driven, "duplicate") == [(59, "a"), (61, "a")]
    assert set(driven.got) == {"success", "duplicate"}
    assert driven.counts == {"duplicate": 2, "late": 0}


def test_null_is_a_value_in_columns_and_no_key_in_a_record() -> None:
    driven = run(HOUR, rows((0, None, 1), (1, None, 1), (1, "", 1), (2, None, None)))
    assert len(driven.got["success"]) == 3
    driven = run({"within": "1h", "on": "at"}, rows((0, None, 1), (1, "a", 1), (2, "a", 2), (None, "a", 3)), key="k")
    assert (len(driven.got["success"]), len(driven.got["duplicate"]), len(driven.got["failure"])) == (1, 1, 2)


def test_failures_say_why() -> None:
    driven = Driven(made(Dedupe, {"within": "1h", "on": "at"}, SCHEMA), SCHEMA)
    out = driven.feed(records(rows((0, None, 1), (None, "a", 1)), "k"))
    assert out["failure"].reasons is not None
    assert out["failure"].reasons.to_pylist() == [["no_key: the record has no key"], ["no_time: at is null"]]
    assert set(out) == {"failure"}


def test_what_is_too_far_behind_goes_to_late_and_is_not_remembered() -> None:
    driven = run({**HOUR, "late": "10m"}, rows((100, "a", 1), (90, "b", 1), (89, "c", 1), (100, "c", 1), (89, "a", 1)))
    assert minutes(driven, "success") == [(100, "a"), (90, "b"), (100, "c")]
    assert minutes(driven, "late") == [(89, "c"), (89, "a")]


def test_a_record_before_the_one_that_went_on_is_a_duplicate_too() -> None:
    driven = run(HOUR, rows((100, "a", 1), (41, "a", 1), (161, "x", 1), (159, "a", 1), (160, "a", 1)))
    assert minutes(driven, "duplicate") == [(41, "a"), (159, "a")]
    assert minutes(driven, "success") == [(100, "a"), (161, "x"), (160, "a")]


def test_partitions_are_apart() -> None:
    driven = run(HOUR, [*rows((0, "a", 1)), *rows((0, "a", 1), partition=1)])
    assert len(driven.got["success"]) == 2


def test_what_is_aborted_was_not_seen() -> None:
    driven = Driven(made(Dedupe, HOUR, SCHEMA), SCHEMA)
    placed = records(rows((0, "a", 1)))
    driven.feed(placed, commit=False)
    assert set(driven.feed(placed)) == {"success"}
    assert set(driven.feed(placed)) == {"duplicate"}


def test_state_shrinks_as_time_passes() -> None:
    driven = run(HOUR, rows(*((m, f"k{m}", 1) for m in range(2_000))), cuts=list(range(0, 2_000, 20)))
    left = sum(1 for _ in driven.state.view(0, "step").scan())
    assert 60 <= left <= 2 * 60 + 2_000 // 64 + 20


def test_within_records_goes_by_offsets() -> None:
    given_ = rows(*((0, k, 1) for k in "abaca"))
    driven = run({"key": ["k"], "within_records": 4}, given_, cuts=[2])
    assert [k for _, k in minutes(driven, "success")] == ["a", "b", "c", "a"]
    assert set(made(Dedupe, {"key": ["k"], "within_records": 4}, SCHEMA).outputs(SCHEMA)) == {"success", "duplicate"}


def judged(given_: list[Row], within: int, late: int) -> list[str]:
    """The rules read literally, a record at a time."""
    out, highest, seen = list[str](), dict[int, int](), dict[Any, int]()
    for partition, columns in given_:
        at = columns["at"]
        if at is None:
            out.append("failure")
            continue
        highest[partition] = max(at, highest.get(partition, at))
        name = (partition, columns["k"], columns["n"])
        if at < highest[partition] - late:
            out.append("late")
        elif name in seen and at < seen[name] + within:
            out.append("duplicate")
        else:
            out.append("success")
            seen[name] = at
    return out


ROWS = st.lists(st.tuples(st.integers(0, 1), st.one_of(st.none(), st.integers(-50, 400)),
                          st.sampled_from(["a", "", None]), st.sampled_from([1, None])), max_size=60)


@given(ROWS, st.lists(st.integers(0, 60), max_size=8), st.sampled_from([60, 30, 0]))
@example([(0, 0, "a", 1), (0, 59, "a", 1), (0, 60, "a", 1), (0, 1, "a", 1)], [1, 2, 3], 60)
def test_equals_the_rules_whatever_the_batches(written: list[Any], cuts: list[int], late: int) -> None:
    given_: list[Row] = [(p, {"at": None if m is None else m * MINUTE, "k": k, "n": n}) for p, m, k, n in written]
    driven = run({**HOUR, "late": f"{late}m"}, given_, cuts)
    wanted = judged(given_, 60 * MINUTE, late * MINUTE)
    place = [record.timestamp_ms for record, _ in records(given_)]
    for relationship in ("success", "duplicate", "late", "failure"):
        expected = [(p, place[at]) for at, ((p, _), to) in enumerate(zip(given_, wanted, strict=True))
                    if to == relationship]
        got = [(row[3].partition, row[2]) for row in driven.got.get(relationship, [])]
        assert got == expected, relationship


@pytest.mark.parametrize(("config", "told"), [
    ({"key": ["k"]}, "say `within"), ({"within": "1h"}, "needs `on`"), ({"within": "0h", "on": "at"}, "above zero"),
    ({"within": "1h", "on": "at", "within_records": 3}, "say `within"),
    ({"within_records": 3, "on": "at"}, "belong to"),
    ({"within": "1h", "on": "at", "late": "2h"}, "at most `within`"), ({"key": [], "within_records": 3}, "at least 1"),
])
def test_configs_that_are_refused(config: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DedupeConfig.model_validate(config)


@pytest.mark.parametrize("config", [{**HOUR, "key": ["x"]}, {**HOUR, "on": "x"}, {**HOUR, "on": "k"}])
def test_columns_that_are_not_there_or_no_times(config: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        made(Dedupe, config, SCHEMA)
