"""A contract: a suite compiled for a schema, and the report it gives on a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts import kernels, kinds, pairs
from headrace.contracts.kernels import Column, Compiler, Kernel
from headrace.contracts.suite import Expectation, Suite
from headrace.contracts.whole import Whole, samples

Index = np.ndarray[Any, np.dtype[np.int64]]
SHOWN_MAX = 100
"""Characters of a value that a reason shows."""

COMPILERS: Mapping[str, Compiler] = {
    "expect_column_values_to_be_null": kernels.nullity, "expect_column_values_to_not_be_null": kernels.nullity,
    "expect_column_values_to_be_between": kernels.between,
    "expect_column_values_to_be_in_set": kernels.in_set, "expect_column_values_to_not_be_in_set": kernels.in_set,
    "expect_column_values_to_match_regex": kernels.regex, "expect_column_values_to_not_match_regex": kernels.regex,
    "expect_column_values_to_match_regex_list": kernels.regex,
    "expect_column_values_to_not_match_regex_list": kernels.regex,
    "expect_column_value_lengths_to_equal": kernels.lengths,
    "expect_column_value_lengths_to_be_between": kernels.lengths,
    "expect_column_values_to_match_strftime_format": kernels.parseable,
    "expect_column_values_to_be_json_parseable": kernels.parseable,
    "expect_column_values_to_match_json_schema": kernels.parseable,
    "expect_column_pair_values_to_be_equal": pairs.pair,
    "expect_column_pair_values_a_to_be_greater_than_b": pairs.pair,
    "expect_multicolumn_values_to_be_equal": pairs.equal_values,
    "expect_select_column_values_to_be_unique_within_record": pairs.different_values,
    "expect_multicolumn_sum_to_equal": pairs.sum_equals}

_COMMON = {
    "column", "column_A", "column_B", "column_list", "mostly", "min_value", "max_value", "strict_min", "strict_max",
    "value_set", "regex", "regex_list", "match_on", "value", "strftime_format", "json_schema", "or_equal",
    "ignore_row_if", "sum_total", "row_condition", "condition_parser", "result_format", "catch_exceptions", "meta",
    "notes", "description", "batch_id", "windows"}
"""Arguments a kernel knows or may ignore; with any other, Great Expectations is asked what it makes of it."""


@dataclass(frozen=True, slots=True)
class Check:
    """How one expectation is judged: `compiled` (a kernel), `whole` (Great Expectations) or `schema` (settled)."""

    expectation: Expectation
    tier: str
    why: str
    kernel: Kernel | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """An expectation that some rows of a batch break: which, and what was raised on rows it could not judge."""

    check: Check
    mask: pa.BooleanArray
    raised: Mapping[int, str]


class Report:
    """The verdicts on one batch. What is not asked for is not computed."""

    def __init__(self, contract: Contract, rows: pa.RecordBatch, broken: Sequence[Broken]) -> None:
        self._contract, self._rows, self._broken = contract, rows, broken

    @cached_property
    def counts(self) -> dict[str, int]:
        """Unexpected rows per expectation id, every id of the suite."""
        counts = dict.fromkeys((c.expectation.id for c in self._contract.checks), 0)
        return counts | {b.check.expectation.id: int(b.mask.true_count) for b in self._broken}

    @cached_property
    def row_mask(self) -> pa.BooleanArray:
        """Rows that no critical expectation rejects; never null."""
        mask = pa.repeat(True, self._rows.num_rows)
        for broken in self._broken:
            if broken.check.expectation.severity == "critical":
                mask = pc.and_not(mask, pc.fill_null(broken.mask, False))
        return mask

    @cached_property
    def success(self) -> bool:
        """Great Expectations' verdict on the batch: every expectation, of whatever severity, holds on at least its
        `mostly` of the rows it judges. It depends on where the batch ends, which `row_mask` never does."""
        for broken in self._broken:
            judged = self._judged(broken)
            if judged and (judged - broken.mask.true_count) / judged < broken.check.expectation.mostly:
                return False
        return True

    def _judged(self, broken: Broken) -> int:
        kernel = broken.check.kernel
        return int(self._rows.num_rows) if kernel is None else kernel.judged(self._rows)

    @cached_property
    def failures(self) -> pa.Table:
        """A row per row and expectation it breaks: row, expectation_id, expectation_type, column, severity, observed
        (the values, as text). Ordered by expectation, then row."""
        parts: list[list[pa.Array]] = [[] for _ in _FAILURES]
        for broken in self._broken:
            e, index = broken.check.expectation, _index(broken.mask)
            seen = self._texts(_joined([Column(c) for c in e.columns]), index)
            constant = (e.id, e.type, ", ".join(e.columns), e.severity)
            for part, array in zip(parts, (pa.array(index), *(pa.repeat(c, len(index)) for c in constant), seen),
                                   strict=True):
                part.append(array.cast(pa.string()) if part is not parts[0] else array)
        return pa.Table.from_arrays([pa.chunked_array(p, type=f.type) for p, f in zip(parts, _FAILURES, strict=True)],
                                    schema=_FAILURES)

    def reasons(self, index: Index | Sequence[int]) -> pa.Array:
        """`list<string>` for these rows (ascending): why each is rejected, "<id>: <what is wrong>", in the suite's
        order. Critical expectations only; a row that none rejects has an empty list."""
        index = np.asarray(index, dtype=np.int64)
        wanted = np.zeros(self._rows.num_rows, dtype=bool)
        wanted[index] = True
        texts, owners = [], []
        for broken in self._broken:
            e = broken.check.expectation
            if e.severity != "critical":
                continue
            mine = np.flatnonzero(_numpy(broken.mask) & wanted)
            said = self._texts((f"{e.id}: ", *_says(broken.check)), mine)
            if broken.raised:
                told = pa.array([broken.raised.get(at) for at in mine.tolist()], pa.string())
                said = pc.coalesce(pc.binary_join_element_wise(said, told, " – "), said)
            texts.append(said)
            owners.append(mine)
        owner = np.concatenate(owners) if owners else np.zeros(0, np.int64)
        order = np.argsort(owner, kind="stable")
        flat = pa.concat_arrays(texts) if texts else pa.array([], pa.string())
        counts = np.bincount(owner, minlength=self._rows.num_rows)[index]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), flat.take(pa.array(order)))

    def _texts(self, says: Sequence[str | Column], index: Index) -> pa.Array:
        """A text a row, columns' values filled in."""
        rows = self._rows.take(pa.array(index))
        if not says:
            return pa.repeat("", len(index)).cast(pa.string())
        parts = [pa.repeat(s, len(index)).cast(pa.string()) if isinstance(s, str) else _shown(rows.column(s.name))
                 for s in says]
        return pc.binary_join_element_wise(*parts, "") if len(index) else pa.array([], pa.string())


_FAILURES = pa.schema([("row", pa.int64()), *((n, pa.string()) for n in (
    "expectation_id", "expectation_type", "column", "severity", "observed"))])


def _numpy(mask: pa.BooleanArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    filled: np.ndarray[Any, np.dtype[np.bool_]] = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
    return filled


def _index(mask: pa.BooleanArray) -> Index:
    return np.flatnonzero(_numpy(mask)).astype(np.int64)


def _joined(columns: Sequence[Column]) -> list[str | Column]:
    out: list[str | Column] = []
    for column in columns:
        out += [", ", column] if out else [column]
    return out


def _says(check: Check) -> Sequence[str | Column]:
    if check.kernel is not None:
        return check.kernel.says
    e = check.expectation
    named: list[str | Column] = []
    for name in e.columns:
        named += [", " if named else "", f"{name} ", Column(name)]
    return [*named, f" breaks {e.type}"]


def _shown(array: pa.Array) -> pa.Array:
    """Values as text: text in quotes and cut, null as null, nested values as Python shows them."""
    type_ = array.type
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        cut = pc.utf8_slice_codeunits(array.cast(pa.string()), 0, SHOWN_MAX)
        more = pc.if_else(pc.greater(pc.utf8_length(array), SHOWN_MAX), "…”", "”")
        text = pc.binary_join_element_wise("“", cut, more, "")
    elif pa.types.is_nested(type_) or pa.types.is_binary(type_) or pa.types.is_fixed_size_binary(type_):
        text = pa.array([None if v is None else str(v)[:SHOWN_MAX] for v in array.to_pylist()], pa.string())
    else:
        text = array.cast(pa.string())
    return pc.fill_null(text, "null")


class Contract:
    """A suite compiled for a schema; `check` judges batches of that schema."""

    def __init__(self, suite: Suite, schema: pa.Schema, checks: Sequence[Check], whole: Whole | None) -> None:
        self.suite, self.schema, self.checks, self._whole = suite, schema, tuple(checks), whole

    def check(self, rows: pa.RecordBatch) -> Report:
        """The report on a batch. `rows` has the columns of the schema, by name."""
        whole = self._whole.check(rows) if self._whole is not None and rows.num_rows else {}
        broken = []
        for check in self.checks:
            if check.kernel is not None:
                mask = check.kernel.bad(rows)
                if mask is not None:
                    broken.append(Broken(check, mask, {}))
            elif check.expectation.id in whole:
                index, raised = whole[check.expectation.id]
                if len(index):
                    hit = np.zeros(rows.num_rows, dtype=bool)
                    hit[index] = True
                    broken.append(Broken(check, pa.array(hit), raised))
        return Report(self, rows, broken)

    @property
    def tiers(self) -> list[tuple[str, str, str]]:
        """(id, tier, why) of every expectation, in the suite's order."""
        return [(c.expectation.id, c.tier, c.why) for c in self.checks]

    def explain(self) -> list[dict[str, Any]]:
        """What `headrace contracts explain` prints: one record an expectation."""
        return [{"id": c.expectation.id, "type": c.expectation.type, "columns": list(c.expectation.columns),
                 "severity": c.expectation.severity, "tier": c.tier, "why": c.why} for c in self.checks]

    def notes(self) -> list[str]:
        """Remarks for lint."""
        out = []
        for check in self.checks:
            e = check.expectation
            if check.tier == "whole":
                out.append(f"{e.id} runs in Great Expectations itself, some 15 ms a batch and expectation: {check.why}")
            if e.mostly < 1:
                out.append(f"{e.id} says mostly {e.mostly}: in a stream each record is judged alone, so every record "
                           f"that breaks it is {'held back' if e.severity == 'critical' else 'counted'}"
                           + ("; severity “warning” would only count them" if e.severity == "critical" else ""))
        return out


def compile_suite(suite: Suite, schema: pa.Schema) -> Contract:
    """Compiles a suite for rows of `schema`. Raises SuiteError, naming file, expectation and column: for a verdict
    that is not a row's own, a column that is not there, arguments that cannot be; and MissingExtra where Great
    Expectations itself is needed and not installed."""
    checks: list[Check] = []
    for e in suite.expectations:
        kinds.refuse_unfit(e)
        if e.type in kinds.SCHEMA:
            checks.append(Check(e, "schema", "the schema settles it"))
            continue
        _columns(e, schema)
        made = _compiled(e, schema)
        checks.append(Check(e, "whole", made) if isinstance(made, str) else
                      Check(e, "compiled", "Arrow kernels", made))
    settled = [c.expectation for c in checks if c.tier == "schema"]
    if settled:
        _settle(Whole(settled), schema)
    whole = [c.expectation for c in checks if c.tier == "whole"]
    return Contract(suite, schema, checks, Whole(whole) if whole else None)


def _columns(e: Expectation, schema: pa.Schema) -> None:
    if not e.columns:
        e.wrong("it names no column", "e.g. \"kwargs\": {\"column\": \"tailnum\"}")
    for column in e.columns:
        if column not in schema.names:
            e.wrong(f"there is no column “{column}”", f"there are {', '.join(schema.names)}")


def _compiled(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """The kernel, or why there is none."""
    compiler = COMPILERS.get(e.type)
    if compiler is None:
        return "there is no kernel for this type"
    if e.kwargs.get("row_condition") is not None:
        return "it has a row_condition"
    unknown = [k for k, v in e.kwargs.items() if k not in _COMMON and v is not None]
    if unknown:
        return f"it has {', '.join(unknown)}"
    return compiler(e, schema)


def _settle(whole: Whole, schema: pa.Schema) -> None:
    """Has Great Expectations judge what depends on the schema alone, once, on batches with and without nulls."""
    plain, nulls = (whole.verdicts(rows) for rows in samples(schema))
    for e, without, with_ in zip(whole.expectations, plain, nulls, strict=True):
        if without and with_:
            continue
        if without or with_:
            e.wrong("its verdict would change with every batch that has a null: pandas then holds the column in "
                    "another type", "leave it out, since the Avro schema already fixes the type, or list both types")
        types = ", ".join(f"{c} is {schema.field(c).type}" for c in e.columns if c in schema.names)
        e.wrong(f"the schema does not fulfil it{f': {types}' if types else ''}", "mend the expectation or the schema")
