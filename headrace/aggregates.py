"""Aggregates as values: partial results of rows, which can be added up in any portions, and what comes of them.

An entry is a partial result of one group: where its rows came from, how many they were, and the partial columns of
every measure. A row is an entry too (`lift`), and entries of equal groups become one (`fold`), strictly one after the
other in the order given; so the sums of floats are the same to the last bit however rows are cut into batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.codec import Decoder, Encoder, from_arrow
from headrace.errors import ExpressionError
from headrace.eventtime import Ints
from headrace.keying import physical, physical_type

DISTINCT_HELD_MAX = 2048
"""Hashes of distinct values that an entry holds, the smallest. Fewer are a count; as many make an estimate, of which
one sigma is 2.2 %."""
HASH_BYTES = 8
Columns = list[pa.Array]


@dataclass(frozen=True, slots=True)
class Measure:
    """One aggregate: `partials` are the types of its partial columns, `type` that of its result."""

    call: str
    type: pa.DataType
    nullable: bool
    partials: tuple[pa.DataType, ...]
    lift: Callable[[pa.Array, Ints, float], Columns]
    """(values, event times, pivot) → partial columns of each row."""
    fold: Callable[[Columns, Ints, int], Columns]
    """(partial columns, group of each, number of groups) → partial columns of each group."""
    result: Callable[[Columns], pa.Array]
    pivots: bool = False
    """Whether `lift` wants a pivot: a typical value, the same for all entries that will ever meet."""


def measure(call: str, held: pa.DataType, *, distinct: bool = False, where: str = "") -> Measure:
    """The aggregate `call` of values of type `held`. Raises ExpressionError where it is not for such values."""
    if call == "count":
        if distinct:
            return Measure(call, pa.int64(), False, (pa.binary(),), _lift_hashes, _fold_hashes, _distinct)
        return Measure(call, pa.int64(), False, (pa.int64(),), _lift_count, _add, lambda columns: columns[0])
    if call in ("sum", "avg", "stddev"):
        return _numeric(call, held, where)
    if pa.types.is_nested(held):
        raise ExpressionError(f"{where}: {call} takes plain values, and this is {held}")
    kept = physical_type(held)
    if call in ("min", "max"):
        return Measure(call, held, True, (kept,), lambda values, times, pivot: [_as(physical(values), kept)],
                       partial(_extreme, call == "max"), lambda columns: _back(columns[0], held))
    return Measure(call, held, True, (kept, pa.int64()),
                   lambda values, times, pivot: [_as(physical(values), kept), pa.array(times)],
                   partial(_timed, call == "last"), lambda columns: _back(columns[0], held))


def _numeric(call: str, held: pa.DataType, where: str) -> Measure:
    whole = pa.types.is_integer(held) or pa.types.is_boolean(held)
    if not whole and not pa.types.is_floating(held):
        raise ExpressionError(f"{where}: {call} takes numbers, and this is {held}", hint="CAST(… AS double) makes a "
                              "number of a decimal" if pa.types.is_decimal(held) else "count, min and max take any")
    summed = pa.int64() if whole else pa.float64()
    if call == "stddev":
        two = (pa.int64(), pa.float64(), pa.float64())
        return Measure(call, pa.float64(), True, two, _lift_squares, _add, _stddev, pivots=True)
    result = _sum if call == "sum" else _avg
    return Measure(call, summed if call == "sum" else pa.float64(), True, (pa.int64(), summed),
                   lambda values, times, pivot: [_valid(values), _as(values, summed).fill_null(0)], _add, result)


def _as(column: pa.Array, to: pa.DataType) -> pa.Array:
    return column if column.type == to else pc.cast(column, to)


def _back(column: pa.Array, held: pa.DataType) -> pa.Array:
    return column.view(held) if pa.types.is_temporal(held) else _as(column, held)


def _valid(values: pa.Array) -> pa.Array:
    return pc.cast(values.is_valid(), pa.int64())


# sums: whole numbers exactly (beyond 64 bits they wrap), floats one after the other

def _lift_count(values: pa.Array, times: Ints, pivot: float) -> Columns:
    return [_valid(values)]


def _lift_squares(values: pa.Array, times: Ints, pivot: float) -> Columns:
    apart = pc.subtract(_as(values, pa.float64()), pivot).fill_null(0.0)
    return [_valid(values), apart, pc.multiply(apart, apart)]


def _add(columns: Columns, which: Ints, n: int) -> Columns:
    out = []
    for column in columns:
        values = column.to_numpy(zero_copy_only=False)
        total = np.zeros(n, values.dtype)
        np.add.at(total, which, values)
        out.append(pa.array(total))
    return out


def _where(good: Any, values: Any) -> pa.Array:
    return pa.array(values, mask=~good)


def _sum(columns: Columns) -> pa.Array:
    count, total = (c.to_numpy() for c in columns)
    return _where(count > 0, total)


def _avg(columns: Columns) -> pa.Array:
    count, total = (c.to_numpy() for c in columns)
    return _where(count > 0, total / np.maximum(count, 1))


def _stddev(columns: Columns) -> pa.Array:
    """Of a sample, as SQL's stddev: null for fewer than two values."""
    count, apart, squares = (c.to_numpy() for c in columns)
    several = np.maximum(count, 2)
    return _where(count > 1, np.sqrt(np.maximum(squares - apart * apart / several, 0) / (several - 1)))


# values that are picked: of those that are not null

def _picked(order: Ints, which: Ints, n: int) -> pa.Array:
    """For each group the last row in `order` that is of it, null where none is."""
    at = np.full(n, -1, np.int64)
    at[which[order]] = order  # of repeated indices the last assignment stands
    return pa.array(at, mask=at < 0)


def _extreme(greatest: bool, columns: Columns, which: Ints, n: int) -> Columns:
    order = pc.sort_indices(columns[0]).to_numpy().astype(np.int64)
    order = order[:len(order) - columns[0].null_count]
    return [columns[0].take(_picked(order if greatest else order[::-1], which, n))]


def _timed(last: bool, columns: Columns, which: Ints, n: int) -> Columns:
    """At one time the row that came first is the first, and the one that came last the last."""
    order = np.argsort(columns[1].fill_null(0).to_numpy(), kind="stable")
    order = order[columns[0].is_valid().to_numpy(zero_copy_only=False)[order]]
    at = _picked(order if last else order[::-1], which, n)
    return [column.take(at) for column in columns]


# distinct values: their smallest hashes, which say how many there are while they are few, and about, when they are many

def _lift_hashes(values: pa.Array, times: Ints, pivot: float) -> Columns:
    encoded = pc.dictionary_encode(values)
    digest = partial(hashlib.blake2b, digest_size=HASH_BYTES)
    texts = _bytes(encoded.dictionary).to_pylist()
    hashes = pa.array(list(map(methodcaller("digest"), map(digest, texts))), pa.binary())
    taken = hashes.take(encoded.indices)
    return [taken.fill_null(b"")]


def _bytes(values: pa.Array) -> pa.Array:
    """Each value as bytes of its own."""
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        return values
    if pa.types.is_floating(values.type):
        values = pc.add(values, 0.0)  # -0 and 0 are one number
    return pc.cast(pc.cast(values, pa.string()), pa.binary())


def _fold_hashes(columns: Columns, which: Ints, n: int) -> Columns:
    packed = columns[0]
    sizes = pc.binary_length(packed).to_numpy().astype(np.int64) // HASH_BYTES
    hashes = np.frombuffer(b"".join(packed.to_pylist()), ">u8").astype(np.uint64)
    group = np.repeat(which, sizes)
    order = np.lexsort((hashes, group))
    group, hashes = group[order], hashes[order]
    fresh = np.ones(len(group), bool)
    fresh[1:] = (group[1:] != group[:-1]) | (hashes[1:] != hashes[:-1])
    group, hashes = group[fresh], hashes[fresh]
    starts = np.searchsorted(group, np.arange(n))
    few = np.arange(len(group)) - starts[group] < DISTINCT_HELD_MAX
    group, hashes = group[few], hashes[few]
    ends = np.searchsorted(group, np.arange(n), side="right") * HASH_BYTES
    offsets = np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)])
    data = hashes.astype(">u8").tobytes()
    return [pa.Array.from_buffers(pa.binary(), n, [None, pa.py_buffer(offsets), pa.py_buffer(data)])]


def _distinct(columns: Columns) -> pa.Array:
    held: list[bytes] = columns[0].to_pylist()
    return pa.array(list(map(_distinct_of, held)), pa.int64())


def _distinct_of(held: bytes) -> int:
    n = len(held) // HASH_BYTES
    if n < DISTINCT_HELD_MAX:
        return n
    greatest = int.from_bytes(held[-HASH_BYTES:], "big")
    return round((n - 1) * float(1 << 64) / (greatest + 1))


class Table:
    """Entries of groups by `by`, with their measures: record batches of the columns `schema` names.

    `end` is where an entry's stretch of time ends, milliseconds; `topic`, `first` and `last` are its rows' offsets (of
    rows of several topics, those of the topic that comes first by name); `rows` is how many they are.
    """

    FIXED: tuple[tuple[str, pa.DataType], ...] = (
        ("end", pa.int64()), ("topic", pa.string()), ("first", pa.int64()), ("last", pa.int64()), ("rows", pa.int64()))

    def __init__(self, by: Sequence[pa.Field], measures: Mapping[str, Measure]) -> None:
        self.by, self.measures = tuple(by), dict(measures)
        fields = [pa.field(name, held, nullable=False) for name, held in self.FIXED]
        self.groups = [f"g{at}" for at in range(len(by))]
        fields += [pa.field(f"g{at}", physical_type(field.type)) for at, field in enumerate(by)]
        self._at: dict[str, slice] = {}
        for number, (name, made) in enumerate(self.measures.items()):
            self._at[name] = slice(len(fields), len(fields) + len(made.partials))
            always = made.fold in (_add, _fold_hashes)
            fields += [pa.field(f"m{number}_{at}", held, nullable=not always) for at, held in enumerate(made.partials)]
        self.schema = pa.schema(fields)
        avro = from_arrow(self.schema, name="entry")
        self._encoder, self._decoder = Encoder(avro, self.schema, 0), Decoder(avro, lambda number: avro)

    def pack(self, entries: pa.RecordBatch) -> list[bytes]:
        """Each entry as bytes."""
        return self._encoder.encode(entries)

    def unpack(self, values: Sequence[bytes]) -> pa.RecordBatch:
        """What `pack` made."""
        found = self._decoder.decode(values)
        assert not found.rejects, f"the state is not what this step wrote: {found.rejects[0]}"
        return pa.RecordBatch.from_arrays(found.rows.columns, schema=self.schema)

    def lift(self, ends: Ints, topics: pa.Array, offsets: Ints, by: Columns, values: Mapping[str, pa.Array],
             times: Ints, pivots: Mapping[str, float]) -> pa.RecordBatch:
        """An entry a row."""
        columns = [pa.array(ends), topics, pa.array(offsets), pa.array(offsets), pa.array(np.ones(len(ends), np.int64))]
        columns += [_as(physical(column), self.schema.field(name).type)
                    for name, column in zip(self.groups, by, strict=True)]
        for name, made in self.measures.items():
            columns += made.lift(values[name], times, pivots.get(name, 0.0))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def fold(self, entries: pa.RecordBatch, which: Ints, n: int) -> pa.RecordBatch:
        """Entries of equal groups as one: `which` is the group of each, 0 … n - 1; all of a group are of one `by`."""
        first = np.empty(n, np.int64)
        first[which[::-1]] = np.arange(len(which))[::-1]
        one = pa.array(first)
        held = entries.columns
        columns = [held[0].take(one), *_spans(held[1:4], which, n), *_add([held[4]], which, n)]
        columns += [entries.column(name).take(one) for name in self.groups]
        for name, made in self.measures.items():
            columns += made.fold(held[self._at[name]], which, n)
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def results(self, entries: pa.RecordBatch) -> dict[str, pa.Array]:
        """The group's columns, then each measure's result, by name."""
        out = {field.name: _back(entries.column(name), field.type)
               for name, field in zip(self.groups, self.by, strict=True)}
        for name, made in self.measures.items():
            out[name] = _as(made.result(entries.columns[self._at[name]]), made.type)
        return out


def _spans(columns: Columns, which: Ints, n: int) -> Columns:
    """First and last offset of each group, of its topic that comes first by name."""
    topics, first, last = columns[0], columns[1].to_numpy(), columns[2].to_numpy()
    encoded = pc.dictionary_encode(topics)
    names = sorted(encoded.dictionary.to_pylist())
    if len(names) > 1:
        rank = pc.index_in(topics, pa.array(names, topics.type)).to_numpy().astype(np.int64)
        least = np.full(n, len(names), np.int64)
        np.minimum.at(least, which, rank)
        mine = rank == least[which]
        which, first, last = which[mine], first[mine], last[mine]
        named = pa.array(names, topics.type).take(pa.array(least))
    else:
        named = pa.array(names, topics.type).take(pa.array(np.zeros(n, np.int64)))
    low, high = np.full(n, np.iinfo(np.int64).max), np.full(n, -1)
    np.minimum.at(low, which, first)
    np.maximum.at(high, which, last)
    return [named, pa.array(low), pa.array(high)]
