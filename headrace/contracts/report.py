"""What a contract says of a batch: which rows break what, and why, and Great Expectations' own result of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.kernels import Column
from headrace.contracts.results import holds, map_verdict, suite_result
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict

if TYPE_CHECKING:
    from headrace.contracts.contract import Check, Contract

Index = np.ndarray[Any, np.dtype[np.int64]]
SHOWN_MAX = 100
"""Characters of a value that a reason shows."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A batch, and the rows of it that a row_condition keeps."""

    whole: pa.RecordBatch
    rows: pa.RecordBatch
    mask: pa.BooleanArray | None = None
    index: np.ndarray[Any, np.dtype[np.int64]] | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found of one expectation on one batch."""

    check: Check
    kept: Kept
    mask: pa.BooleanArray | None = None
    """Which of the rows kept are unexpected; None: none is, or it is no verdict about rows."""
    judged: int = 0
    """How many of them it judges: what `mostly` is a share of."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """Place in the batch → what was raised on that row alone."""
    raised: str | None = None
    """What was raised on the batch: there is no verdict then."""
    told: Verdict | None = None
    """Great Expectations' own verdict, where it judged."""

    def unexpected(self) -> pa.BooleanArray | None:
        """Which rows of the whole batch are unexpected; None when none is."""
        if self.mask is None or self.kept.index is None:
            return self.mask
        all_ = np.zeros(self.kept.whole.num_rows, dtype=bool)
        all_[self.kept.index] = _numpy(self.mask)
        return pa.array(all_)


@dataclass(frozen=True, slots=True)
class Broken:
    """An expectation that some rows of a batch break: which, and what was raised on rows it could not judge."""

    check: Check
    mask: pa.BooleanArray
    raised: Mapping[int, str]


def _holds(each: Judged) -> bool:
    """Its success, without the rest of its verdict where that is not needed."""
    if each.told is not None or each.raised is not None or each.check.kernel is None:
        return _verdict(each).success
    bad = 0 if each.mask is None else each.mask.true_count
    return holds(each.check.expectation, each.judged, bad)


def _verdict(each: Judged) -> Verdict:
    if each.told is not None:
        return each.told
    if each.raised is not None:
        return Verdict(False, {}, each.raised)
    if each.check.aggregate is not None:
        return each.check.aggregate.judge(each.kept.rows)
    return map_verdict(each.check.expectation, each.kept.rows, each.mask, each.judged, index=each.kept.index,
                       whole=each.kept.whole)


class Report:
    """The verdicts on one batch. What is not asked for is not computed."""

    def __init__(self, contract: Contract, rows: pa.RecordBatch, judged: Sequence[Judged]) -> None:
        self._contract, self._rows, self.judged = contract, rows, judged

    @cached_property
    def _broken(self) -> list[Broken]:
        found = ((each, each.unexpected()) for each in self.judged)
        return [Broken(each.check, mask, each.errors) for each, mask in found if mask is not None]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Unexpected rows per expectation id, every id of the suite."""
        counts = dict.fromkeys((c.expectation.id for c in self._contract.checks), 0)
        return counts | {b.check.expectation.id: int(b.mask.true_count) for b in self._broken}

    @cached_property
    def row_mask(self) -> pa.BooleanArray:
        """Rows that no critical expectation about rows rejects; never null."""
        return self.passing(self._critical)

    def passing(self, ids: Collection[str]) -> pa.BooleanArray:
        """Rows that break none of these expectations about rows; never null."""
        bad = [b.mask for b in self._broken if b.check.kind == "row" and b.check.expectation.id in ids]
        if not bad:
            return pa.repeat(True, self._rows.num_rows)
        return pc.invert(pc.fill_null(reduce(pc.or_kleene, bad), False))

    @property
    def _critical(self) -> frozenset[str]:
        return frozenset(c.expectation.id for c in self._contract.checks if c.expectation.severity == "critical")

    def tags(self, ids: Collection[str]) -> pa.StringArray | None:
        """A text a row: which of these expectations it breaks, joined by commas, in the suite's order; null for none.
        None when no row breaks any."""
        broken = [b for b in self._broken if b.check.expectation.id in ids and b.mask.true_count]
        if not broken:
            return None
        masks = np.array([_numpy(b.mask) for b in broken])
        index = np.flatnonzero(masks.any(axis=0))
        parts = [pc.if_else(pa.array(mask[index]), b.check.expectation.id, pa.scalar(None, pa.string()))
                 for b, mask in zip(broken, masks, strict=True)]
        said = pc.binary_join_element_wise(*parts, ",", null_handling="skip")
        place = np.full(self._rows.num_rows, -1)
        place[index] = np.arange(len(index))
        return said.take(pa.array(place, mask=place < 0))

    @cached_property
    def success(self) -> bool:
        """Great Expectations' verdict on the batch: every expectation, of whatever severity, holds; on at least its
        `mostly` of the rows it judges. It depends on where the batch ends, which `row_mask` never does."""
        return all(map(_holds, self.judged))

    @cached_property
    def verdicts(self) -> list[tuple[Expectation, Verdict]]:
        """Every expectation with its verdict, in the suite's order."""
        return [(each.check.expectation, _verdict(each)) for each in self.judged]

    def to_gx(self) -> dict[str, Any]:
        """An ExpectationSuiteValidationResult as Great Expectations serialises it, so that its Data Docs render it."""
        return suite_result(self._contract.suite, self.verdicts, meta={})

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

    def reasons(self, index: Index | Sequence[int], ids: Collection[str] | None = None) -> pa.Array:
        """`list<string>` for these rows (ascending): why each is rejected, "<id>: <what is wrong>", in the suite's
        order. Of these expectations only, None for the critical ones; a row that none rejects has an empty list."""
        ids = self._critical if ids is None else ids
        index = np.asarray(index, dtype=np.int64)
        chosen = pa.array(index)
        texts, owners = [], []
        for broken in self._broken:
            e = broken.check.expectation
            if e.id not in ids:
                continue
            owner = np.flatnonzero(_numpy(broken.mask.take(chosen)))
            mine = index[owner]
            said = self._texts((f"{e.id}: ", *_says(broken.check)), mine)
            if broken.raised:
                told = pa.array([broken.raised.get(at) for at in mine.tolist()], pa.string())
                said = pc.coalesce(pc.binary_join_element_wise(said, told, " – "), said)
            texts.append(said)
            owners.append(owner)
        owner = np.concatenate(owners) if owners else np.zeros(0, np.int64)
        order = np.argsort(owner, kind="stable")
        flat = pa.concat_arrays(texts) if texts else pa.array([], pa.string())
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(index)))]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), flat.take(pa.array(order)))

    def _texts(self, says: Sequence[str | Column], index: Index) -> pa.Array:
        """A text a row, columns' values filled in."""
        at = pa.array(index)
        if not len(index) or all(isinstance(s, str) for s in says):
            return pa.repeat("".join(s for s in says if isinstance(s, str)), len(index))
        parts = chain.from_iterable([s] if isinstance(s, str) else _shown(self._rows.column(s.name).take(at))
                                    for s in says)
        return pc.binary_join_element_wise(*parts, "")


_FAILURES = pa.schema([("row", pa.int64()), *((n, pa.string()) for n in (
    "expectation_id", "expectation_type", "column", "severity", "observed"))])


def _numpy(mask: pa.BooleanArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    sure = pc.fill_null(mask, False) if mask.null_count else mask
    filled: np.ndarray[Any, np.dtype[np.bool_]] = sure.to_numpy(zero_copy_only=False)
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


def _shown(array: pa.Array) -> list[pa.Array | str]:
    """Values as text: text in quotes and cut, null as null, nested values as Python shows them. In parts to be joined:
    each kernel costs more than what it does to a few rows."""
    type_ = array.type
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        if not array.null_count and pc.max(pc.binary_length(array)).as_py() <= SHOWN_MAX:
            return ["“", array.cast(pa.string()), "”"]
        cut = pc.utf8_slice_codeunits(array.cast(pa.string()), 0, SHOWN_MAX)
        more = pc.if_else(pc.greater(pc.utf8_length(array), SHOWN_MAX), "…”", "”")
        text = pc.binary_join_element_wise("“", cut, more, "")
    elif pa.types.is_nested(type_) or pa.types.is_binary(type_) or pa.types.is_fixed_size_binary(type_):
        text = pa.array([None if v is None else str(v)[:SHOWN_MAX] for v in array.to_pylist()], pa.string())
    else:
        text = array.cast(pa.string())
    return [pc.fill_null(text, "null") if text.null_count else text]
