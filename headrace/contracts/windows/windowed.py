"""A contract over many batches: what is known of a window is kept small, added up, and judged when the window closes.

Row-level expectations count, and aggregates keep what their Partial keeps: a state is a mapping of expectation id →
bytes. Where a verdict compares each row with the others (unique, order, outliers), or is Great Expectations' own, the
window's values are kept, of the columns it reads, and judged as one batch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.contract import OPEN, Check, Contract
from headrace.contracts.report import Judged
from headrace.contracts.results import count_verdict, holds
from headrace.contracts.settled import settle
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict

EXAMPLES_MAX, EXAMPLE_CHARS_MAX = 20, 200
"""Unexpected values kept of a window, the first ones, and how much of each."""
State = Mapping[str, bytes]
ESTIMATE = "headrace_estimate"
"""In a result whose observed value is an estimate."""


class Windowed:
    """A contract for windows, which keeps values of the columns `also` besides those it needs itself. Raises SuiteError
    where the schema does not fulfil what is about it alone, and for a parameter without its value."""

    def __init__(self, contract: Contract, also: Collection[str] = ()) -> None:
        self.contract = contract.filled({})
        self.checks = [check for check in self.contract.checks if check.kind != "schema"]
        settle([c.expectation for c in self.contract.checks if c.kind == "schema"], contract.schema)
        self._summed = self.contract.only([check for check in self.checks if _is_summed(check)])
        self._kept = self.contract.only([check for check in self.checks if not _is_summed(check)])
        names = contract.schema.names
        self.kept_columns = tuple(name for name in names if name in also or name in _columns(self._kept))
        self.columns = tuple(name for name in names if name in self.kept_columns or name in _columns(self._summed))

    def of(self, rows: pa.RecordBatch) -> dict[str, bytes]:
        """The state of some rows, which have at least `columns`."""
        return {each.check.expectation.id: _state(each) for each in self._summed.check(rows).judged}

    def merge(self, left: State, right: State) -> dict[str, bytes]:
        """The state of both, in this order."""
        return {check.expectation.id: _merged(check, left[check.expectation.id], right[check.expectation.id])
                for check in self._summed.checks}

    def verdicts(self, state: State, kept: pa.RecordBatch | None) -> list[tuple[Expectation, Verdict]]:
        """Of a window, in the suite's order. `kept` are its rows, with the columns kept; None if they were too many."""
        found = {check.expectation.id: _verdict(check, state[check.expectation.id]) for check in self._summed.checks}
        if self._kept.checks:
            found |= {c.expectation.id: _TOO_MANY for c in self._kept.checks} if kept is None else {
                e.id: _short(verdict) for e, verdict in self._kept.check(kept).verdicts}
        return [(check.expectation, found[check.expectation.id]) for check in self.checks]

    def notes(self) -> list[str]:
        """Remarks for lint."""
        estimates = [check.expectation.id for check in self._summed.checks if is_estimate(check)]
        kept = [check.expectation.id for check in self._kept.checks]
        return [f"{id_} may be an estimate, of windows with very many distinct values" for id_ in estimates] + [
            f"{id_} is judged on the window's own rows, which are kept until it closes: at most {KEPT_MAX:,}"
            for id_ in kept]


KEPT_MAX = 1_000_000
"""Rows of a window that are kept, where a verdict needs them."""
_TOO_MANY = Verdict(False, {}, f"the window has more than {KEPT_MAX:,} rows, too many to keep: make it shorter")


def is_estimate(check: Check) -> bool:
    """Whether a window's verdict may be an estimate."""
    return check.aggregate is not None and check.aggregate.partial is not None and check.aggregate.partial.estimate


def _is_summed(check: Check) -> bool:
    assert check.tier != OPEN, "a window has no more parameters to give"
    if check.kind == "row":
        return check.tier != "whole"
    return check.kind == "aggregate" and check.aggregate is not None and check.aggregate.partial is not None


def _columns(contract: Contract) -> tuple[str, ...]:
    """The columns its checks read, in the schema's order; one at least, so that there are rows to count."""
    named: set[str] = set()
    for check in contract.checks:
        named |= set(check.expectation.columns)
        if check.condition is not None:
            named |= set(check.condition.columns)
        elif check.expectation.kwargs.get("row_condition") is not None:
            named |= set(contract.schema.names)  # only Great Expectations knows which it reads
    if contract.checks and not named:
        named = {contract.schema.names[0]}
    return tuple(name for name in contract.schema.names if name in named)


def _state(each: Judged) -> bytes:
    aggregate = each.check.aggregate
    if aggregate is not None:
        assert aggregate.partial is not None
        return aggregate.partial.of(each.kept.rows)
    bad = 0 if each.mask is None else int(each.mask.true_count)
    return _written({"element_count": each.kept.rows.num_rows, "judged": each.judged, "bad": bad,
                     "examples": _examples(each) if bad else [], "raised": each.raised})


def _examples(each: Judged) -> list[Any]:
    """The first unexpected values, as text; a list for several columns."""
    some = each.kept.rows.filter(each.mask).slice(0, EXAMPLES_MAX)
    columns = [_texts(some.column(name)) for name in each.check.expectation.columns]
    return columns[0] if len(columns) == 1 else [list(row) for row in zip(*columns, strict=True)]


def _texts(column: pa.Array) -> list[str | None]:
    type_ = column.type
    if pa.types.is_nested(type_) or pa.types.is_binary(type_) or pa.types.is_fixed_size_binary(type_):
        values = [None if value is None else str(value) for value in column.to_pylist()]
    else:
        values = pc.cast(column, pa.string(), safe=False).to_pylist()
    return [None if value is None else value[:EXAMPLE_CHARS_MAX] for value in values]


def _merged(check: Check, left: bytes, right: bytes) -> bytes:
    if check.aggregate is not None:
        assert check.aggregate.partial is not None
        return check.aggregate.partial.merge(left, right)
    a, b = json.loads(left), json.loads(right)
    return _written({**{key: a[key] + b[key] for key in ("element_count", "judged", "bad")},
                     "examples": (a["examples"] + b["examples"])[:EXAMPLES_MAX], "raised": a["raised"] or b["raised"]})


def _verdict(check: Check, state: bytes) -> Verdict:
    if check.aggregate is not None:
        partial = check.aggregate.partial
        assert partial is not None
        verdict = _short(partial.verdict(state))
        return replace(verdict, result={**verdict.result, ESTIMATE: True}) if partial.estimated(state) else verdict
    found = json.loads(state)
    n, judged, bad = found["element_count"], found["judged"], found["bad"]
    if found["raised"] is not None:
        return Verdict(False, {}, found["raised"])
    e = check.expectation
    return Verdict(holds(e, judged, bad), count_verdict(e, n, judged, bad, found["examples"]))


def _short(verdict: Verdict) -> Verdict:
    """Without the lists of rows, and with lists of values no longer than an event should carry."""
    result = {key: _cut(value) for key, value in verdict.result.items()
              if "index" not in key and key not in ("unexpected_list", "partial_unexpected_counts")}
    return Verdict(verdict.success, result, verdict.raised)


def _cut(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return value[:EXAMPLE_CHARS_MAX]
    if isinstance(value, Mapping) and depth < _DEPTH_MAX:
        return {key: _cut(each, depth + 1) for key, each in value.items()}
    if isinstance(value, Sequence) and depth < _DEPTH_MAX:
        return [_cut(each, depth + 1) for each in value[:LISTED_MAX]]
    return value


LISTED_MAX, _DEPTH_MAX = 100, 4
"""Values of an observed list that a verdict on a window carries."""


def _written(state: Mapping[str, Any]) -> bytes:
    return json.dumps(state, ensure_ascii=False, separators=(",", ":")).encode()
