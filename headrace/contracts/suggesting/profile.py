"""A profile of data: what its columns and pairs of columns hold, from one pass over any number of batches.

Memory is bounded by the constants in tallies, relations and shapes, whatever the number of rows; where a bound was met
the profile says so. But for the last digits of means, it does not depend on where batches end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.suggesting.relations import Key, Keys, Ordered, Pairs, Same, Unique
from headrace.contracts.suggesting.shapes import LITERAL_MIN, Form, Shapes
from headrace.contracts.suggesting.tallies import Counts, Moments, Order, Sample
from headrace.errors import UserError


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """What one column holds. Numbers, times and texts are looked at; of other types only nulls are counted. Values are
    plain Python ones; a NaN counts as missing, as it does for Great Expectations."""

    name: str
    type: pa.DataType
    nullable: bool
    """What the schema says."""
    rows: int
    nulls: int
    nans: int
    distinct: int = 0
    distinct_exact: bool = True
    """Otherwise there are more than `distinct` values."""
    common: tuple[tuple[Any, int], ...] = ()
    """The most common values with their counts, most common first; with more than VALUES_MAX values, counts may be too
    low. All values, if there are at most COMMON_MAX."""
    last_new: int = 0
    """The row (from 0) in which a value came that had not come before, for the last time; if distinct_exact."""
    least: Any = None
    greatest: Any = None
    mean: float | None = None
    stdev: float | None = None
    """Of numbers, with one degree of freedom less than values."""
    quantiles: Mapping[float, Any] = field(default_factory=dict)
    """Values of a sample of SAMPLE_MAX rows that depends on nothing but their number (from all, if no more)."""
    lengths: tuple[int, int] | None = None
    """The least and the greatest number of characters of a text."""
    increasing: str = ""
    """“strictly”, or “weakly” (no value is less than the one before), or nothing."""
    unique: bool | None = None
    """None: not known."""
    form: Form | None = None

    @property
    def missing(self) -> int:
        return self.nulls + self.nans

    @property
    def values(self) -> int:
        return self.rows - self.missing


@dataclass(frozen=True, slots=True)
class Profile:
    rows: int
    columns: tuple[ColumnProfile, ...]
    ordered: tuple[Ordered, ...]
    equal: tuple[Same, ...]
    keys: tuple[Key, ...]

    def column(self, name: str) -> ColumnProfile:
        return next(c for c in self.columns if c.name == name)


def profile(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Profile:
    """The profile of batches that have the columns of `schema`, by name. Raises UserError: no columns, two of one
    name, or a batch without one of them."""
    _refuse(schema)
    columns = [_Column(f) for f in schema]
    kinds = {f.name: _kind(f.type) for f in schema}
    keys = Keys([n for n, kind in kinds.items() if kind in _HASHED])
    pairs = Pairs(_alike(schema, kinds))
    rows = 0
    for at, batch in enumerate(batches, 1):
        lacking = [f.name for f in schema if batch.schema.get_field_index(f.name) < 0]
        if lacking:
            raise UserError(f"batch {at} has no column “{lacking[0]}”", hint=f"it has {', '.join(batch.schema.names)}")
        clean = {c.name: c.add(batch.column(c.name), rows) for c in columns}
        keys.add(clean, batch.num_rows)
        pairs.add(clean)
        rows += batch.num_rows
    done = tuple(c.done() for c in columns)
    samples = {c.name: c.sample.values for c in columns if c.sample.values is not None}
    return Profile(rows, done, pairs.ordered(samples), pairs.equal(), keys.found({c.name for c in done if c.unique}))


def _refuse(schema: pa.Schema) -> None:
    if not schema.names:
        raise UserError("the data has no columns", hint="a profile needs at least one column")
    twice = [n for n in schema.names if schema.names.count(n) > 1]
    if twice:
        raise UserError(f"two columns are called “{twice[0]}”", hint="rename one")


_HASHED = ("whole", "decimal", "time", "text", "boolean")
_KINDS = (("whole", pa.types.is_integer), ("decimal", pa.types.is_decimal128),
          ("float", lambda t: pa.types.is_float32(t) or pa.types.is_float64(t)),
          ("time", lambda t: pa.types.is_timestamp(t) or pa.types.is_date32(t)), ("boolean", pa.types.is_boolean),
          ("text", lambda t: pa.types.is_string(t) or pa.types.is_large_string(t)))


def _kind(type_: pa.DataType) -> str:
    """How a column is looked at; “other”: only its nulls are."""
    return next((kind for kind, test in _KINDS if test(type_)), "other")


def _alike(schema: pa.Schema, kinds: Mapping[str, str]) -> Sequence[tuple[Sequence[str], bool]]:
    """Columns of the same type, and whether they have an order worth asking about."""
    groups: dict[pa.DataType, list[str]] = {}
    for f in schema:
        if kinds[f.name] not in ("other", "boolean"):
            groups.setdefault(f.type, []).append(f.name)
    return [(names, _kind(type_) != "text") for type_, names in groups.items()]


class _Column:
    """What has been seen of one column."""

    def __init__(self, described: pa.Field) -> None:
        self.field, self.name, self.kind = described, described.name, _kind(described.type)
        self.rows = self.nulls = self.nans = 0
        self.counts, self.unique, self.shapes = Counts(), Unique(), Shapes()
        self.sample, self.moments, self.order = Sample(), Moments(), Order()
        self.least: Any = None
        self.greatest: Any = None
        self.lengths: tuple[int, int] | None = None

    def add(self, array: pa.Array, start: int) -> pa.Array:
        """The array of a batch that begins at row `start`. Returns it with NaN as null and without -0.0."""
        self.rows += len(array)
        self.nulls += array.null_count
        if self.kind == "float":
            nans = pc.fill_null(pc.is_nan(array), False)
            self.nans += nans.true_count
            array = pc.add(pc.if_else(nans, pa.scalar(None, array.type), array), pa.scalar(0.0, array.type))
        if self.kind == "other" or array.null_count == len(array):
            return array
        at = np.arange(start, start + len(array))
        values = array
        if array.null_count:
            at = at[pc.is_valid(array).to_numpy(zero_copy_only=False)]
            values = array.drop_null()
        self._values(values, at)
        return array

    def _values(self, values: pa.Array, at: np.ndarray[Any, Any]) -> None:
        values = values.cast(pa.large_string()) if self.kind == "text" else values
        found = pa.table({"value": values, "at": at}).group_by("value", use_threads=False).aggregate(
            [("at", "count"), ("at", "min")]).combine_chunks()
        self.counts.add(found.rename_columns(["value", "count", "first"]))
        if found.num_rows < len(values) or (self.counts.exact and self.counts.repeats):
            self.unique.repeats()
        if self.kind in _HASHED:
            self.unique.add(values)
        self._extremes(pc.min_max(values))
        if self.kind != "boolean":
            self.order.add(values)
        if self.kind == "text":
            distinct = found["value"].combine_chunks()
            lengths = pc.min_max(pc.utf8_length(distinct))
            self.lengths = _widened(self.lengths, lengths["min"].as_py(), lengths["max"].as_py())
            self.shapes.add(distinct, found["at_count"].combine_chunks())
            return
        if self.kind == "boolean":
            return
        self.sample.add(values, at)
        if self.kind != "time":
            self.moments.add(pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False))

    def _extremes(self, found: Any) -> None:
        least, greatest = found["min"], found["max"]
        self.least = least if self.least is None or pc.less(least, self.least).as_py() else self.least
        self.greatest = greatest if self.greatest is None or pc.less(self.greatest, greatest).as_py() else self.greatest

    def done(self) -> ColumnProfile:
        out = ColumnProfile(self.name, self.field.type, self.field.nullable, self.rows, self.nulls, self.nans)
        if self.least is None:
            return out
        unique = self._unique()
        form = self.shapes.form(grows=bool(unique), literal=self.counts.distinct >= LITERAL_MIN)
        return replace(
            out, distinct=self.counts.distinct, distinct_exact=self.counts.exact, last_new=self.counts.last_new,
            common=tuple((_python(v), n) for v, n in self.counts.common()),
            least=_python(self.least), greatest=_python(self.greatest),
            mean=self.moments.mean, stdev=self.moments.stdev,
            quantiles={q: _python(v) for q, v in self.sample.quantiles().items()}, lengths=self.lengths,
            increasing=self.order.kind, unique=unique, form=form)

    def _unique(self) -> bool | None:
        if self.counts.exact:
            return not self.counts.repeats
        if self.order.kind == "strictly":
            return True
        return self.unique.verdict()


def _widened(had: tuple[int, int] | None, least: int, greatest: int) -> tuple[int, int]:
    return (least, greatest) if had is None else (min(had[0], least), max(had[1], greatest))


def _python(scalar: pa.Scalar) -> Any:
    """A plain Python value; a time to the microsecond, or None where Python's calendar ends."""
    if pa.types.is_timestamp(scalar.type) and scalar.type.unit == "ns":
        scalar = pc.floor_temporal(scalar, unit="microsecond").cast(pa.timestamp("us", scalar.type.tz))
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        return None
