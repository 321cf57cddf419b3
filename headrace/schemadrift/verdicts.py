"""What the expectations of a suite will make of a column whose values changed."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from headrace.contracts import compile_suite, kinds
from headrace.contracts.suite import Expectation, Suite
from headrace.errors import UserError
from headrace.schemadrift.drift import Effect

NULL, NOT_NULL = "expect_column_values_to_be_null", "expect_column_values_to_not_be_null"


def of_values(suite: Suite, column: pa.Field, what: str, values: pa.Array | None, some: bool) -> Iterator[Effect]:
    """`values` are all that the column will be, or with `some` all that is new, of the column's type; None when that is
    not known. They are judged where a value can be judged by itself, by the contract as it is compiled for records."""
    for e in _on(suite, column.name):
        bad = None if values is None else _broken_by(e, column, values)
        if values is None or bad is None:
            yield _effect(e, f"now sees {what}", "warning")
        elif not bad and values.null_count == len(values) and e.type != NULL:
            yield _effect(e, "judges nothing now: null is passed over", "warning")
        elif not bad:
            yield _effect(e, f"holds for {what}", "info")
        elif some:
            yield _effect(e, f"fails for {', '.join(str(values[at]) for at in bad)}", "warning")
        else:
            yield _all(e)


def of_nulls(suite: Suite, column: str) -> Iterator[Effect]:
    """Nulls come. What judges one value leaves them out, but for the expectations about nulls."""
    for e in _on(suite, column):
        if e.type == NOT_NULL:
            yield _effect(e, "can fail now", "warning")
        elif e.type != NULL and not (e.type in kinds.ROWS and len(e.columns) == 1):
            yield _effect(e, "now sees nulls", "warning")


def of_no_nulls(suite: Suite, column: str) -> Iterator[Effect]:
    """Nulls no longer come."""
    for e in _on(suite, column):
        if e.type == NOT_NULL:
            yield _effect(e, "can no longer fail", "info")
        elif e.type == NULL:
            yield _all(e)


def _on(suite: Suite, column: str) -> list[Expectation]:
    """Those on the column. What the schema settles is settled by the flow's own, which stays as it is."""
    return [e for e in suite.expectations if column in e.columns and e.type not in kinds.SCHEMA]


def _broken_by(e: Expectation, column: pa.Field, values: pa.Array) -> list[int] | None:
    """The positions of the values that break it; None where it does not judge a value by itself, or where Great
    Expectations itself would have to be asked."""
    if e.type not in kinds.ROWS or len(e.columns) > 1 or e.kwargs.get("row_condition") is not None:
        return None
    schema = pa.schema([column])
    try:
        contract = compile_suite(Suite("drift", e.file, (e,)), schema)
    except UserError:
        return None
    if any(tier != "compiled" for _, tier, _ in contract.tiers):
        return None
    report = contract.check(pa.RecordBatch.from_arrays([values], schema=schema))
    broken: list[int] = report.failures["row"].to_pylist()
    return broken


def _all(e: Expectation) -> Effect:
    critical = e.severity == "critical"
    return _effect(e, "fails for every record" + (", and holds it back" if critical else ", which is counted"),
                   "critical" if critical else "warning")


def _effect(e: Expectation, what: str, severity: str) -> Effect:
    return Effect("expectation", f"expectation {e.id} on {', '.join(e.columns)} {what}", severity, e.id)
