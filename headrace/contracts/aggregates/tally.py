"""How often each value of a column occurs: exactly up to `EXACT` distinct values, by sketches beyond.

The sketches are Apache DataSketches' HyperLogLog (how many values, 0.8 % standard error) and frequent items (the most
common ones). Both depend on nothing but what they are fed, so that a state is the same wherever it is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.aggregates.columns import Column, present
from headrace.contracts.aggregates.fold import pack, unpack
from headrace.errors import MissingExtra

EXACT = 10_000
"""Distinct values a tally keeps."""
SHOWN = 20
"""How many values Great Expectations lists."""
HLL_LOG2, FREQUENT_LOG2 = 14, 14


@dataclass(frozen=True, slots=True)
class Tally:
    """Values and their counts, in the order they came. `counted` and `frequent` are sketches of the values that were
    let go, and `least` the smallest of these."""

    floats: bool
    """Whether pandas holds the whole numbers as 64-bit floats."""
    rows: int
    nulls: int
    values: pa.Array
    counts: pa.Int64Array
    counted: bytes = b""
    frequent: bytes = b""
    least: pa.Array | None = None

    @property
    def lossy(self) -> bool:
        return bool(self.counted)


def tally(found: Column, rows: pa.RecordBatch) -> Tally:
    array, floats = found.take(rows)
    there = present(array)
    seen = there.value_counts()
    return Tally(floats, int(rows.num_rows), int(rows.num_rows) - len(there), seen.field(0), seen.field(1))


def join(a: Tally, b: Tally, keep: pa.Array | None, frequent: bool, exact: int = EXACT) -> Tally:
    """Both; past the limit only values in `keep` stay, the others go to the sketches."""
    both = _grouped(pa.concat_arrays(_alike(a.values, b.values)), pa.concat_arrays([a.counts, b.counts]))
    made = Tally(a.floats or b.floats, a.rows + b.rows, a.nulls + b.nulls, *both)
    if a.lossy or b.lossy:
        made = replace(made, counted=_hll([], [a.counted, b.counted]), least=smallest(a.least, b.least),
                       frequent=_frequent([], [], [a.frequent, b.frequent]) if frequent else b"")
    return spilled(made, keep, frequent, exact)


def spilled(made: Tally, keep: pa.Array | None, frequent: bool, exact: int = EXACT) -> Tally:
    """With what is beyond the limit let go."""
    if len(made.values) <= exact and not made.lossy:
        return made
    stays = pa.repeat(False, len(made.values)) if keep is None else pc.is_in(
        made.values, value_set=keep.cast(made.values.type, safe=False))
    gone, counts = made.values.filter(pc.invert(stays)), made.counts.filter(pc.invert(stays))
    if not len(gone):
        return made
    keys = _keys(gone)
    return replace(made, values=made.values.filter(stays), counts=made.counts.filter(stays),
                   counted=_hll(keys, [made.counted]), least=smallest(made.least, gone),
                   frequent=_frequent(keys, counts.to_pylist(), [made.frequent]) if frequent else b"")


def held(made: Tally) -> tuple[pa.Array, pa.Array]:
    """Values and counts as pandas tells values apart: whole numbers that it holds as floats may fall together."""
    if not made.floats or not pa.types.is_integer(made.values.type):
        return made.values, made.counts
    return _grouped(made.values.cast(pa.float64(), safe=False), made.counts)


def distinct(made: Tally) -> int:
    """How many distinct values there are."""
    return len(held(made)[0]) + (round(_sketch().deserialize(made.counted).get_estimate()) if made.lossy else 0)


def common(made: Tally, found: Column) -> pa.Array:
    """The most common values, in order."""
    values, counts = held(made)
    if made.frequent:
        return _common(made, found)
    top = values.filter(pc.equal(counts, pc.max(counts)))
    return top.take(pc.array_sort_indices(top))


def dump(made: Tally) -> bytes:
    facts = [made.floats, made.rows, made.nulls, made.least is not None]
    return pack(facts, [_ipc(made.values, made.counts), made.counted, made.frequent,
                        b"" if made.least is None else _ipc(made.least)])


def load(data: bytes) -> Tally:
    (floats, rows, nulls, least), (counted_values, counted, frequent, least_values) = unpack(data)
    values, counts = _arrays(counted_values)
    return Tally(floats, rows, nulls, values, counts, counted, frequent, _arrays(least_values)[0] if least else None)


def _grouped(values: pa.Array, counts: pa.Array) -> tuple[pa.Array, pa.Array]:
    made = pa.table({"value": values, "count": counts}).group_by("value", use_threads=False).aggregate(
        [("count", "sum")])
    return made["value"].combine_chunks(), made["count_sum"].combine_chunks()


def _alike(*arrays: pa.Array) -> list[pa.Array]:
    """Of one type: whole numbers that came as floats in some batches are floats in all."""
    if len({a.type for a in arrays}) == 1:
        return list(arrays)
    return [a.cast(pa.float64(), safe=False) for a in arrays]


def smallest(*some: pa.Array | None) -> pa.Array:
    """The first few of several arrays' values, in order."""
    values = pa.concat_arrays(_alike(*[s for s in some if s is not None])).unique()
    return values.take(pc.array_sort_indices(values)[:SHOWN])


def _ipc(*arrays: pa.Array) -> bytes:
    batch = pa.record_batch(list(arrays), names=[str(at) for at in range(len(arrays))])
    with pa.BufferOutputStream() as sink:
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return bytes(sink.getvalue())


def _arrays(data: bytes) -> list[pa.Array]:
    return list(pa.ipc.open_stream(data).read_next_batch().columns)


def _sketches() -> Any:
    try:
        import datasketches
    except ImportError as error:
        raise MissingExtra("gx", f"a window of more than {EXACT:,} distinct values (datasketches)") from error
    return datasketches


def _sketch() -> Any:
    return _sketches().hll_sketch


def _keys(values: pa.Array) -> list[Any]:
    """Values as the sketches take them: whole numbers, floats or texts."""
    type_ = values.type
    if pa.types.is_temporal(type_):
        values = values.view(pa.int32() if type_.bit_width == 32 else pa.int64())
    return [str(v) for v in values.to_pylist()] if pa.types.is_uint64(type_) else list(values.to_pylist())


def _hll(keys: list[Any], sketches: list[bytes]) -> bytes:
    library = _sketches()
    union = library.hll_union(HLL_LOG2)
    for data in filter(None, sketches):
        union.update(library.hll_sketch.deserialize(data))
    for key in keys:
        union.update(key)
    return bytes(union.get_result(library.tgt_hll_type.HLL_8).serialize_compact())


def _frequent(keys: list[Any], counts: list[int], sketches: list[bytes]) -> bytes:
    library = _sketches()
    made = library.frequent_strings_sketch(FREQUENT_LOG2)
    for data in filter(None, sketches):
        made.merge(library.frequent_strings_sketch.deserialize(data))
    for key, number in zip(keys, counts, strict=True):
        made.update(key if isinstance(key, str) else repr(key), number)
    return bytes(made.serialize())


def _common(made: Tally, found: Column) -> pa.Array:
    """The values with the highest estimate."""
    library = _sketches()
    sketch = library.frequent_strings_sketch.deserialize(made.frequent)
    items = sketch.get_frequent_items(library.frequent_items_error_type.NO_FALSE_NEGATIVES)
    top = max((item[1] for item in items), default=0)
    texts = [item[0] for item in items if item[1] == top]
    if found.kind == "text":
        values = pa.array(texts, found.type)
    elif found.kind == "float" or (found.kind == "whole" and made.floats):
        values = pa.array([float(t) for t in texts], found.type if found.kind == "float" else pa.float64())
    else:
        whole = pa.array([int(t) for t in texts], pa.int64() if found.kind == "time" else found.type
                         if found.kind == "whole" else pa.int32())
        values = whole if found.kind == "whole" else whole.view(found.type)
    return values.take(pc.array_sort_indices(values))


