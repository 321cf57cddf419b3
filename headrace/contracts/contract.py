"""A contract: a suite compiled for a schema, and the report it gives on a batch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts import kinds, parameters
from headrace.contracts.actions import BY_SEVERITY, WORDS, Action
from headrace.contracts.aggregates import Aggregate
from headrace.contracts.blame import Index, halve
from headrace.contracts.borrowed import MetricRaised, borrow
from headrace.contracts.compilers import compiled
from headrace.contracts.conditions import Condition, compile_condition, keep
from headrace.contracts.kernels import Kernel, some
from headrace.contracts.report import Judged, Kept, Report
from headrace.contracts.settled import settle
from headrace.contracts.suite import Expectation, Suite
from headrace.contracts.verdict import Verdict
from headrace.contracts.whole import Whole

OPEN = "open"
"""The tier of an expectation whose parameters have no values yet."""
THREADED_ROWS = 50_000
"""In fewer, threads cost more than they save."""
ALL = ""
"""The condition that keeps every row."""


@dataclass(frozen=True, slots=True)
class Check:
    """How one expectation is judged: `compiled` (Arrow), `borrowed` (Great Expectations' own metric function), `whole`
    (Great Expectations on the batch), `schema` (settled before any record comes) or `open` (its parameters have no
    values yet)."""

    expectation: Expectation
    kind: str
    """row, batch, aggregate or schema: what the verdict is about."""
    tier: str
    why: str
    kernel: Kernel | None = None
    aggregate: Aggregate | None = None
    condition: Condition | None = None

    @property
    def rows(self) -> str:
        """Which rows it judges, as a key that equal conditions share."""
        return ALL if self.condition is None else json.dumps(self.expectation.kwargs["row_condition"], sort_keys=True)


class Contract:
    """A suite compiled for a schema; `check` judges batches of that schema."""

    def __init__(self, suite: Suite, schema: pa.Schema, checks: Sequence[Check], whole: Whole | None) -> None:
        self.suite, self.schema, self.checks, self._whole = suite, schema, tuple(checks), whole
        self._open = any(check.tier == OPEN for check in checks)

    def filled(self, values: Mapping[str, Any]) -> Contract:
        """With the values of its parameters; itself, if it has none that are open. Raises SuiteError for one that is
        not there."""
        return compile_suite(parameters.filled(self.suite, values), self.schema) if self._open else self

    def check(self, rows: pa.RecordBatch, values: Mapping[str, Any] | None = None) -> Report:
        """The report on a batch. `rows` has the columns of the schema, by name; `values` are those of parameters that
        got none before (they are compiled anew: for many batches, take `filled`)."""
        if self._open:
            return self.filled(values or {}).check(rows)
        whole = self._whole.judge(rows) if self._whole is not None else {}
        kept: dict[str, Kept] = {ALL: Kept(rows, rows)}
        for check in self.checks:
            if check.condition is not None and check.rows not in kept:
                kept[check.rows] = _kept(check.condition, rows)

        def judge(check: Check) -> Judged:
            if check.expectation.id in whole:
                return self._told(check, rows, whole[check.expectation.id])
            return _judged(check, kept[check.rows])
        asked = [c for c in self.checks if c.expectation.id in whole or c.kernel is not None or c.aggregate is not None]
        judged = _together(judge, asked) if rows.num_rows >= THREADED_ROWS else [judge(check) for check in asked]
        return Report(self, rows, judged)

    def _told(self, check: Check, rows: pa.RecordBatch, told: Verdict) -> Judged:
        """By Great Expectations; a row on which it raises would cost the whole batch its verdict, and is bad alone."""
        settled = check.kind == "schema" and "unexpected_index_list" not in told.result
        if check.kind == "aggregate" or self._whole is None or settled or (check.kind != "row" and told.raised):
            return Judged(check, Kept(rows, rows), told=told)
        index, errors = self._whole.blame(check.expectation.id, rows, told)
        mask = np.zeros(rows.num_rows, dtype=bool)
        mask[index] = True
        return Judged(check, Kept(rows, rows), pa.array(mask) if len(index) else None, rows.num_rows, errors, told=told)

    def only(self, checks: Sequence[Check]) -> Contract:
        """With some of its checks alone."""
        whole = [c.expectation for c in checks if c.tier == "whole"]
        suite = replace(self.suite, expectations=tuple(c.expectation for c in checks))
        return Contract(suite, self.schema, checks, Whole(whole) if whole else None)

    @property
    def tiers(self) -> list[tuple[str, str, str]]:
        """(id, tier, why) of every expectation, in the suite's order."""
        return [(c.expectation.id, c.tier, c.why) for c in self.checks]

    def explain(self) -> list[dict[str, Any]]:
        """What `headrace contracts explain` prints: one record an expectation."""
        return [{"id": c.expectation.id, "type": c.expectation.type, "columns": list(c.expectation.columns),
                 "severity": c.expectation.severity, "kind": c.kind, "tier": c.tier, "why": c.why}
                for c in self.checks]

    def notes(self, actions: Mapping[str, Action] | None = None) -> list[str]:
        """Remarks for lint. `actions` are those by expectation id; left out, those of the severities."""
        out = []
        for check in self.checks:
            e = check.expectation
            if check.tier == "whole":
                out.append(f"{e.id} runs in Great Expectations itself, some 15 ms a batch and expectation: {check.why}")
            if e.mostly < 1 and check.kind == "row":
                action = (actions or {}).get(e.id, BY_SEVERITY[e.severity])
                out.append(f"{e.id} says mostly {e.mostly}: in a stream each record is judged alone, so every record "
                           f"that breaks it is {WORDS[action]}"
                           + ("; severity “warning” would only tag them" if action == "quarantine" else ""))
        return out


def _together(judge: Callable[[Check], Judged], checks: Sequence[Check]) -> list[Judged]:
    """Compiled expectations on all cores, which Arrow's kernels let; the others, which are Great Expectations' and
    pandas' code, one after the other. A stream's batches are smaller, and its other cores have the broker to serve."""
    with ThreadPoolExecutor(os.cpu_count()) as cores:
        sent = {check.expectation.id: cores.submit(judge, check) for check in checks if check.tier == "compiled"}
        return [sent[check.expectation.id].result() if check.expectation.id in sent else judge(check)
                for check in checks]


def _kept(condition: Condition, rows: pa.RecordBatch) -> Kept:
    mask = condition(rows)
    return Kept(rows, keep(rows, mask), mask, np.flatnonzero(mask.to_numpy(zero_copy_only=False)))


def _judged(check: Check, kept: Kept) -> Judged:
    """A verdict on a row alone is asked of the whole batch, one that compares rows of those that are kept."""
    if check.kernel is None:
        return Judged(check, kept)
    alone = check.kind == "row" or check.tier == "borrowed"
    try:
        mask = check.kernel.bad(kept.whole if alone else kept.rows)
        n = check.kernel.judged(kept.whole if check.tier == "borrowed" else kept.rows)
    except MetricRaised as error:
        return _blamed(check, kept, str(error))
    if mask is not None and alone and kept.mask is not None:
        mask = some(pc.fill_null(mask, False).filter(kept.mask))
    raises = check.kernel.raises
    return Judged(check, kept, mask, n, raised=raises(kept.rows) if raises is not None and mask is not None else None)


def _blamed(check: Check, kept: Kept, raised: str) -> Judged:
    """Where a metric raises there is no verdict on the batch; each row still has its own, where it can have one."""
    if check.kind != "row" or check.kernel is None:
        return Judged(check, kept, raised=raised)
    bad, rows = check.kernel.bad, kept.whole

    def part(start: int, size: int) -> Index | str:
        try:
            mask = bad(rows.slice(start, size))
        except MetricRaised as error:
            return str(error)
        return np.array([], np.int64) if mask is None else np.flatnonzero(mask.to_numpy(zero_copy_only=False))
    index, errors = halve(rows.num_rows, raised, part)
    mask = np.zeros(rows.num_rows, dtype=bool)
    mask[index] = True
    return Judged(check, Kept(rows, rows), pa.array(mask) if len(index) else None, rows.num_rows, errors, raised)


def compile_suite(suite: Suite, schema: pa.Schema, values: Mapping[str, Any] | None = None, *,
                  stream: bool = False) -> Contract:
    """Compiles a suite for rows of `schema`; `values` are those of its parameters.

    With `stream` every verdict is a row's own or the schema's, since nobody knows where a batch ends: other
    expectations are refused, those about the schema are settled here, and every parameter must have its value. Without
    it, a parameter may get its value when rows are judged. Raises SuiteError, naming file, expectation and column, for
    a column that is not there and arguments that cannot be; and MissingExtra where Great Expectations itself is needed
    and not installed.
    """
    suite = parameters.filled(suite, values or {}, partly=not stream)
    checks = [_check(e, schema, stream) for e in suite.expectations]
    if stream:
        settle([c.expectation for c in checks if c.kind == "schema"], schema)
    whole = [c.expectation for c in checks if c.tier == "whole"]
    return Contract(suite, schema, checks, Whole(whole) if whole else None)


def _check(e: Expectation, schema: pa.Schema, stream: bool) -> Check:
    kind = kinds.kind_of(e)
    if asked := parameters.of(e):
        return Check(e, kind, OPEN, f"its parameter {', '.join(asked)} has no value yet")
    if stream and kind not in ("row", "schema"):
        kinds.refuse_unfit(e)
    if stream and kind == "schema":
        return Check(e, kind, "schema", "the schema settles it")
    if kind in ("row", "batch") or e.columns:
        _columns(e, schema, kind)
    condition: Condition | None = None
    if e.kwargs.get("row_condition") is not None:
        read = compile_condition(e, schema)
        if isinstance(read, str):
            return Check(e, kind, "whole", read)
        condition = read
    made = compiled(e, schema)
    if isinstance(made, Kernel):
        return Check(e, kind, "compiled", "Arrow kernels", kernel=made, condition=condition)
    if isinstance(made, Aggregate):
        return Check(e, kind, "compiled", "Arrow kernels", aggregate=made, condition=condition)
    if kind in ("row", "batch"):
        lent = borrow(e, schema)
        if isinstance(lent, Kernel):
            return Check(e, kind, "borrowed", made, kernel=lent, condition=condition)
    return Check(e, kind, "whole", made)


def _columns(e: Expectation, schema: pa.Schema, kind: str) -> None:
    if not e.columns:
        e.wrong("it names no column", "e.g. \"kwargs\": {\"column\": \"tailnum\"}")
    if kind == "schema":
        return  # a column that is not there is their very verdict
    for column in e.columns:
        if column not in schema.names:
            e.wrong(f"there is no column “{column}”", f"there are {', '.join(schema.names)}")
