"""validate and Great Expectations itself: the shadow that compares them, and what becomes of rows that make it fail."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.batch import Batch, Frames, Meta
from headrace.contracts import Contract, Shadow, compile_suite, compilers, parse
from headrace.contracts.kernels import Kernel, between
from headrace.contracts.suite import Expectation
from headrace.processor import Context
from headrace.processors.validate import Validate
from headrace.testing import Record
from tests.contract.gx_cases.batches import COLUMNS, batch

pytestmark = pytest.mark.contract

BETWEEN = "expect_column_values_to_be_between"
SCHEMA = "expect_column_values_to_match_json_schema"
LATER = {"type": "comparison", "column": {"name": "i64"}, "operator": ">", "parameter": 0}
UNREAD = {"row_condition": 'col("n") >= 0 or so', "condition_parser": "great_expectations"}
SUITE: list[dict[str, Any]] = [
    {"id": "given", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "s"}},
    {"id": "low", "severity": "warning", "type": BETWEEN, "kwargs": {"column": "f64", "min_value": 0, "max_value": 5}},
    {"id": "later", "type": BETWEEN, "kwargs": {"column": "i32", "max_value": 1, "row_condition": LATER}},
    {"id": "known", "type": "expect_column_values_to_be_in_set", "kwargs": {"column": "s", "value_set": ["a", "1"]}},
    {"id": "equal", "severity": "info", "type": "expect_column_pair_values_to_be_equal",
     "kwargs": {"column_A": "i32", "column_B": "i64"}},
    {"id": "dated", "type": "expect_column_values_to_be_dateutil_parseable", "kwargs": {"column": "s"}}]


class Bench:
    """A validate step, what it counts, and what it logs."""

    def __init__(self, folder: Path, expectations: list[dict[str, Any]], schema: pa.Schema, **config: Any) -> None:
        (folder / "s.json").write_text(json.dumps({"expectations": expectations}))
        self.step = Validate(Validate.Config.model_validate({"suite": "s.json", **config}), project=folder)
        self.step.outputs(schema)
        self.counted: Counter[tuple[str, str]] = Counter()
        self.context = Context("flow", "check", folder, count=lambda name, label, n: self.counted.update(
            {(name, label): n}))

    def run(self, rows: pa.RecordBatch, first: int = 100) -> dict[str, list[int]]:
        """Relationship → the rows that leave by it."""
        frames = Frames([Record(b"", "t", 3, first + at) for at in range(rows.num_rows)], "t")
        out = self.step.process(Batch(rows, Meta(frames)), self.context)
        return {name: (left.meta.offsets() - first).tolist() for name, left in out.items()}

    def shadowed(self) -> dict[str, int]:
        return {label: n for (name, label), n in self.counted.items() if name == "shadow"}


def blind(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """A kernel that finds nothing unexpected: the mistake to be found."""
    made = between(e, schema)
    return made if isinstance(made, str) else replace(made, bad=lambda rows: None)


def test_shadow_finds_no_difference_where_there_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(6)
    some = [batch(rng, list(COLUMNS), [0, 1, 30]) for _ in range(12)]
    bench = Bench(tmp_path, SUITE, some[0].schema, shadow=1)
    assert any("shadow: 1 of the batches" in note for note in bench.step.notes(some[0].schema))
    for rows in some:
        bench.run(rows)
    assert bench.shadowed() == {"same": len(SUITE) * sum(rows.num_rows > 0 for rows in some)}
    assert sum(n for (name, _), n in bench.counted.items() if name == "expectation") > 50
    assert not caplog.records


def test_shadow_finds_a_broken_kernel(tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compilers.COMPILERS, BETWEEN, blind)
    schema = pa.schema([("f", pa.float64()), ("s", pa.string())])
    rows = pa.record_batch([pa.array([1.0, None, 9.0, 8.0]), pa.array(["a", None, "a", "a"])], schema=schema)
    suite = [{"id": "low", "type": BETWEEN, "kwargs": {"column": "f", "max_value": 5}},
             {"id": "given", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "s"}}]
    bench = Bench(tmp_path, suite, schema, shadow=1)
    assert bench.run(rows) == {"success": [0, 2, 3], "failure": [1]}, "records go by our own verdict"
    assert bench.shadowed() == {"same": 1, "different": 1}
    (said,) = caplog.records
    assert (said.levelno, said.name, said.getMessage()) == (logging.ERROR, "headrace.validate", "verdicts differ")
    told = {k: vars(said)[k] for k in ("flow", "step", "expectation", "record", "headrace", "great_expectations",
                                       "records", "unexpected", "unexpected_gx")}
    assert told == {"flow": "flow", "step": "check", "expectation": "low", "record": "t/3@102", "headrace": "expected",
                    "great_expectations": "unexpected", "records": 2, "unexpected": 0, "unexpected_gx": 2}


def test_shadow_passes_over_rows_on_which_great_expectations_raises(tmp_path: Path) -> None:
    schema = pa.schema([("doc", pa.string())])
    rows = pa.record_batch([pa.array(["1", "{no", '"a"', None, "nor this"])], schema=schema)
    bench = Bench(tmp_path, [{"type": SCHEMA, "kwargs": {"column": "doc", "json_schema": {"type": "integer"}}}], schema,
                  shadow=1)
    assert bench.run(rows) == {"success": [0, 3], "failure": [1, 2, 4]}
    assert bench.shadowed() == {"same": 1}


def test_shadow_takes_its_share_of_the_batches_by_position(tmp_path: Path) -> None:
    schema = pa.schema([("s", pa.string())])
    suite = parse({"expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "s"}}]}, "s")
    contract = compile_suite(suite, schema, stream=True)
    places = [f"flights/{partition}@{offset}" for partition in range(4) for offset in range(0, 100_000, 20)]
    shadows = {share: Shadow(contract, share) for share in (0.01, 0.1)}
    due = {share: set(filter(shadow.due, places)) for share, shadow in shadows.items()}
    assert len(places) == 20_000
    assert 140 <= len(due[0.01]) <= 260
    assert 1_800 <= len(due[0.1]) <= 2_200
    assert due[0.01] < due[0.1]
    bench = Bench(tmp_path, [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "s"}}], schema,
                  shadow=0.1)
    rows = pa.record_batch([pa.array(["x"])], schema=schema)
    for first in range(100):
        bench.run(rows, first)
    assert bench.shadowed() == {"same": sum(shadows[0.1].due(f"t/3@{at}") for at in range(100))}


def documents(rng: random.Random, size: int) -> pa.RecordBatch:
    """Documents as bytes, which no kernel reads; Great Expectations raises on what is no JSON."""
    pool = [b"1", b"22", b'"a"', None, b"{no", b"\xff", b""]
    docs = rng.choices(pool, [20, 20, 3, 3, 1, 1, 1], k=size)
    return pa.record_batch([pa.array(docs, pa.binary()), pa.array([rng.randint(-5, 20) for _ in docs])],
                           names=["doc", "n"])


def reads(document: bytes | None) -> bool | None:
    """Whether it is a JSON integer; None where it cannot be told."""
    try:
        return document is None or isinstance(json.loads(document), int)
    except ValueError:
        return None


def judging(schema: pa.Schema, **more: Any) -> Contract:
    suite = parse({"expectations": [{"id": "doc", "type": SCHEMA, "kwargs": {
        "column": "doc", "json_schema": {"type": "integer"}, **more}}]}, "s.json")
    return compile_suite(suite, schema, stream=True)


@pytest.mark.parametrize(("tier", "more", "size"), [
    ("borrowed", {}, 400), ("whole", UNREAD, 60),
    ("borrowed", {"row_condition": {**LATER, "column": {"name": "n"}, "operator": ">="}}, 400)])
def test_where_a_metric_raises_only_the_rows_that_raise_are_rejected(tier: str, more: dict[str, Any],
                                                                     size: int) -> None:
    """And those that break the expectation, as they would alone; wherever a batch ends."""
    rows = documents(random.Random(size), size)
    contract = judging(rows.schema, **more)
    assert contract.checks[0].tier == tier
    alone = [reads(doc) if not more or n >= 0 else True
             for doc, n in zip(rows["doc"].to_pylist(), rows["n"].to_pylist(), strict=True)]
    assert alone.count(None) >= 3
    for step in (size, size // 3):
        passed: list[bool] = []
        for start in range(0, size, step):
            part = rows.slice(start, step)
            report = contract.check(part)
            passed += report.row_mask.to_pylist()
            wanted = alone[start:start + step]
            for (why,), found in zip(report.reasons([at for at, ok in enumerate(wanted) if not ok]).to_pylist(),
                                     filter(lambda ok: not ok, wanted), strict=True):
                assert why.startswith("doc: doc b'")
                assert (" – " in why) == (found is None), f"{why}: what was raised, and nothing else"
        assert passed == [bool(ok) for ok in alone]
