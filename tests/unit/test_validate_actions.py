"""validate's actions: what is held back, what is tagged, what only counts; and tags on their way through a flow."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.batch import TAGS_HEADER, Batch, Frames, Headers, Meta, gather, read_lineage
from headrace.connectors.quarantine import QuarantineSink
from headrace.contracts.blame import halve
from headrace.errors import MissingExtra, SuiteError
from headrace.joining.kept import Shelf
from headrace.plan import lint
from headrace.processor import Context
from headrace.processors.validate import Validate
from headrace.testing import Record
from tests.unit.flowkit import FLOW, write

pytestmark = pytest.mark.unit

SCHEMA = pa.schema([pa.field("a", pa.int64()), pa.field("b", pa.int64()), pa.field("s", pa.string())])
ROWS: list[dict[str, Any]] = [
    {"a": 1, "b": 1, "s": "x"}, {"a": None, "b": 1, "s": "x"}, {"a": 1, "b": -1, "s": "x"},
    {"a": 1, "b": -1, "s": None}, {"a": None, "b": -1, "s": None}, {"a": 1, "b": 1, "s": None}]


def expectation(id_: str, severity: str, column: str) -> dict[str, Any]:
    type_ = "between" if column == "b" else "not_be_null"
    kwargs = {"column": column, **({"min_value": 0} if column == "b" else {})}
    return {"id": id_, "severity": severity, "type": f"expect_column_values_to_{'be_' * (column == 'b')}{type_}",
            "kwargs": kwargs}


SUITE = [expectation("b_positive", "warning", "b"), expectation("a_given", "critical", "a"),
         expectation("s_given", "warning", "s"), expectation("s_nice", "info", "s")]


def batch(headers: list[Headers | None] | None = None, rows: list[dict[str, Any]] = ROWS) -> Batch:
    frames = Frames([Record(b"%d" % at, "t", 0, 10 + at, headers_=(headers or [None] * len(rows))[at])
                     for at in range(len(rows))], "t")
    return Batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA), Meta(frames))


def step(folder: Path, expectations: list[dict[str, Any]] | None = None, **config: Any) -> Validate:
    file = folder / "s.json"
    file.write_text(json.dumps({"expectations": SUITE if expectations is None else expectations}))
    made = Validate(Validate.Config.model_validate({"suite": "s.json", **config}), project=folder)
    assert set(made.outputs(SCHEMA)) == {"success", "failure"}
    return made


def run(made: Validate, given: Batch | None = None) -> tuple[dict[str, Batch], Counter[str]]:
    """What leaves, and the counts of expectations; checked that the batch given is as it was."""
    counted: Counter[str] = Counter()
    context = Context("flow", "step", made.project, count=lambda name, label, n: counted.update({label: n}))
    given = given or batch()
    rows, headers = given.rows.to_pylist(), given.meta.headers()
    out = dict(made.process(given, context))
    assert (given.rows.to_pylist(), given.meta.headers()) == (rows, headers)
    assert sorted(o for left in out.values() for o in left.meta.offsets().tolist()) == given.meta.offsets().tolist()
    return out, counted


def tags(some: Batch) -> dict[int, str | None]:
    """Offset → the tags that an output made of the row carries."""
    said = [dict(headers).get(TAGS_HEADER) for headers in some.meta.headers()]
    return {at: None if each is None else each.decode()
            for at, each in zip(some.meta.offsets().tolist(), said, strict=True)}


def reasons(some: Batch) -> list[list[str]]:
    assert some.reasons is not None
    return [[why.partition(":")[0] for why in row] for row in some.reasons.to_pylist()]


def test_by_severity_where_nothing_is_said(tmp_path: Path) -> None:
    out, counted = run(step(tmp_path))
    assert tags(out["success"]) == {10: None, 12: "b_positive", 13: "b_positive,s_given", 15: "s_given"}
    assert reasons(out["failure"]) == [["a_given"], ["a_given"]], "what rejected it, and no warnings"
    assert tags(out["failure"]) == {11: None, 14: None}
    assert counted == {"b_positive": 3, "a_given": 2, "s_given": 3, "s_nice": 3}


ACTIONS = [
    ({"warning": "quarantine"}, {10: None}, [["a_given"], ["b_positive"], ["b_positive", "s_given"],
                                             ["b_positive", "a_given", "s_given"], ["s_given"]]),
    ({"warning": "count", "critical": "tag"},
     {10: None, 11: "a_given", 12: None, 13: None, 14: "a_given", 15: None}, []),
    ({"warning": "quarantine", "b_positive": "tag", "a_given": "count"},
     {10: None, 11: None, 12: "b_positive"}, [["s_given"]] * 3),
    ({"info": "tag", "s_given": "count"}, {10: None, 12: "b_positive", 13: "b_positive,s_nice", 15: "s_nice"},
     [["a_given"]] * 2),
    ({"critical": "count", "warning": "count"}, dict.fromkeys(range(10, 16)), [])]


@pytest.mark.parametrize(("actions", "passed", "held"), ACTIONS, ids=[str(each[0]) for each in ACTIONS])
def test_a_flow_overrides_and_an_id_comes_before_a_severity(
        tmp_path: Path, actions: dict[str, str], passed: dict[int, str | None], held: list[list[str]]) -> None:
    out, counted = run(step(tmp_path, actions=actions))
    assert tags(out["success"]) == passed
    assert (reasons(out["failure"]) if "failure" in out else []) == held
    assert counted == {"b_positive": 3, "a_given": 2, "s_given": 3, "s_nice": 3}, "all are counted, whatever is done"


def test_every_failing_row_has_every_reason(tmp_path: Path) -> None:
    """No cap: Great Expectations lists 200."""
    rows = [{"a": None, "b": -1, "s": None}] * 1_000
    out, counted = run(step(tmp_path, actions={"warning": "quarantine", "info": "quarantine"}), batch(rows=rows))
    assert reasons(out["failure"]) == [["b_positive", "a_given", "s_given", "s_nice"]] * 1_000
    assert set(counted.values()) == {1_000}


def test_a_batch_without_tags_goes_on_as_it_is(tmp_path: Path) -> None:
    clean = batch(rows=ROWS[:1] * 3)
    assert run(step(tmp_path), clean)[0]["success"] is clean
    counting = batch(rows=ROWS[5:])
    assert run(step(tmp_path, actions={"warning": "count"}), counting)[0]["success"] is counting


def test_tags_join_those_of_an_earlier_step_and_of_an_earlier_flow(tmp_path: Path) -> None:
    came: list[Headers | None] = [[("own", b"1"), (TAGS_HEADER, "früher,s_given".encode())] for _ in ROWS]
    first = run(step(tmp_path, actions={"critical": "count"}), batch(came))[0]["success"]
    again = [expectation("späte", "warning", "s"), expectation("b_positive", "warning", "b")]
    out = run(step(tmp_path, again), first)[0]["success"]
    old = "früher,s_given"
    assert tags(out) == {10: old, 11: old, 12: f"{old},b_positive", 13: f"{old},b_positive,späte",
                         14: f"{old},b_positive,späte", 15: f"{old},späte"}
    for headers, at in zip(out.meta.headers(), range(10, 16), strict=True):
        assert Counter(name for name, _ in headers) == {"own": 1, "headrace.src": 1, TAGS_HEADER: 1}
        assert str(read_lineage(headers)) == f"t/0@{at}"


def test_a_quarantine_writes_a_record_as_it_came(tmp_path: Path) -> None:
    """Tags of this flow are not a quarantined record's; what it came with is."""
    came: list[Headers | None] = [[(TAGS_HEADER, b"before")], *[None] * 5]
    first = run(step(tmp_path, actions={"critical": "count"}), batch(came))[0]["success"]
    out = run(step(tmp_path, actions={"warning": "quarantine"}), first)[0]["failure"]
    everything = gather([out, run(step(tmp_path, [expectation("a", "critical", "s")]), first)[0]["failure"]])
    for held in (QuarantineSink("q", "f", now_ms=lambda: 0).hold(each, "step") for each in (out, everything)):
        assert all(TAGS_HEADER not in dict(headers) for headers in held.headers)
    clean = first.take(pa.array([True] + [False] * 5)).with_reasons(pa.array([["x: y"]]))
    assert dict(QuarantineSink("q", "f", now_ms=lambda: 0).hold(clean, "s").headers[0])[TAGS_HEADER] == b"before"


MASKS = st.lists(st.sampled_from([None, "x", "y", "x,y"]), min_size=6, max_size=6)


@given(MASKS, MASKS, st.lists(st.booleans(), min_size=6, max_size=6))
def test_tags_stay_with_their_rows(one: list[str | None], two: list[str | None], mask: list[bool]) -> None:
    wanted = {10 + at: ",".join(dict.fromkeys(",".join(filter(None, pair)).split(","))) or None
              for at, pair in enumerate(zip(one, two, strict=True))}
    made = batch().with_tags(pa.array(one, pa.string())).with_tags(pa.array(two, pa.string()))
    assert tags(made) == wanted
    kept, rest = made.take(pa.array(mask)), made.take(pa.array([not m for m in mask]))
    assert tags(kept.with_rows(kept.rows.select(["a"]))) == {10 + at: wanted[10 + at] for at in range(6) if mask[at]}
    plain = batch()
    put = gather([kept, plain, rest])
    said = [dict(headers).get(TAGS_HEADER) for headers in put.meta.headers()]
    assert [each and each.decode() for each in said] == [*tags(kept).values(), *[None] * 6, *tags(rest).values()]
    assert tags(plain) == dict.fromkeys(range(10, 16)), "the headers of the frames are as they were"


def test_rows_that_wait_in_a_join_keep_their_tags() -> None:
    shelf = Shelf(SCHEMA)
    waiting = batch().with_tags(pa.array(["x", None, None, None, None, "y"]))
    items = shelf.items(waiting, np.zeros(6, np.int64), np.zeros(6, bool))
    assert tags(shelf.batch(items, np.zeros(6, np.int64))) == {10: "x", 11: None, 12: None, 13: None, 14: None, 15: "y"}


@pytest.mark.parametrize(("actions", "said"), [
    ({"warnings": "tag"}, "“warnings” is neither a severity nor an expectation .* did you mean “warning”"),
    ({"a_givn": "tag"}, "did you mean “a_given”")])
def test_an_unknown_key(tmp_path: Path, actions: dict[str, str], said: str) -> None:
    with pytest.raises(SuiteError, match=said) as caught:
        step(tmp_path, actions=actions)
    assert caught.value.hint


def test_an_id_with_a_comma_cannot_be_tagged(tmp_path: Path) -> None:
    written = [expectation("a,b", "warning", "b")]
    with pytest.raises(SuiteError, match=r"s.json: a,b \(b\): its id has a comma"):
        step(tmp_path, written)
    out, counted = run(step(tmp_path, written, actions={"a,b": "count"}))
    assert counted == {"a,b": 3}
    assert set(tags(out["success"]).values()) == {None}


@pytest.mark.parametrize("config", [{"actions": {"warning": "drop"}}, {"shadow": 1.5}, {"shadow": -0.1}])
def test_a_config_that_cannot_be_meant(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        step(tmp_path, **config)


def test_lint_says_it_all_with_the_line(tmp_path: Path) -> None:
    line = "  check:  {validate: {suite: departure}}"
    at = FLOW.splitlines().index(line) + 1
    for config, said in (("{far_enoug: tag}", "did you mean “far_enough”"), ("{warning: tagg}", "quarantine")):
        path = write(tmp_path, FLOW.replace(line, f"  check:  {{validate: {{suite: departure, actions: {config}}}}}"))
        found = [f for f in lint(path, tmp_path) if f.severity == "error"]
        assert [f.line for f in found] == [at]
        assert said in found[0].message


def test_notes_say_what_happens_to_a_record(tmp_path: Path) -> None:
    some = {**expectation("b_mostly", "warning", "b")}
    some["kwargs"]["mostly"] = 0.9
    for actions, said in (({}, "is tagged"), ({"b_mostly": "quarantine"}, "is held back"),
                          ({"warning": "count"}, "is counted")):
        assert step(tmp_path, [some], actions=actions).notes(SCHEMA)[0].partition(";")[0].endswith(said)


def test_shadow_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "great_expectations", None)
    step(tmp_path)
    with pytest.raises(MissingExtra, match=r"shadow: 0.01 needs the extra “gx”"):
        step(tmp_path, shadow=0.01)


@given(st.data(), st.integers(1, 70))
def test_the_rows_that_raise_and_no_others_are_to_blame(data: st.DataObject, size: int) -> None:
    raising = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
    bad = data.draw(st.sets(st.integers(0, size - 1)))

    def part(start: int, n: int) -> Any:
        here = range(start, start + n)
        guilty = [at for at in here if at in raising]
        return f"row {guilty[0]}" if guilty else np.array([at - start for at in here if at in bad], np.int64)
    found, errors = halve(size, f"row {min(raising)}", part)
    assert found.tolist() == sorted(raising | bad)
    assert errors == {at: f"row {at}" for at in raising}, "each with what it raises by itself"


def test_what_is_not_told_apart_in_so_many_runs_is_bad_and_little_of_it() -> None:
    raising, runs = set(range(0, 20_000, 700)), list[int]()

    def part(start: int, n: int) -> Any:
        runs.append(n)
        return "no" if any(at in raising for at in range(start, start + n)) else np.array([], np.int64)
    found, errors = halve(20_000, "no", part, runs_max=400)
    assert len(runs) <= 401
    assert raising <= set(errors) == set(found.tolist())
    assert len(errors) < 1_000
