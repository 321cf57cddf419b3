"""Plans that read records: a writer's schema resolved against the reader's, once, into passes over columns.

`Compiler().read(writer, reader)` gives a function from (payloads, positions, rows) to (Arrow array, positions after).
With `reader` None the bytes are passed over. Resolution is that of the Avro specification: fields by name or by the
reader's alias, defaults for what the writer lacks, promotions, enum defaults. What cannot be resolved raises
`Incompatible`; inside a union it condemns only the records that carry that branch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.codec.build import builder
from headrace.codec.step import Misstep, Walk, stepper, walk
from headrace.codec.types import MISSING, Field, Type, default_array
from headrace.codec.wire import (
    BLOCK,
    BRANCH,
    EMPTY_ITEMS,
    I64,
    LENGTH,
    OWN_FAULTS,
    SYMBOL,
    UNKNOWN_SYMBOL,
    Payloads,
    Rows,
    read_fixed,
    read_span,
    read_varint,
)

Read = Callable[[Payloads, I64, Rows], tuple[pa.Array | None, I64]]

EMPTY_ITEMS_MAX = 1000
COMPANY = 32
"""Collections that make a pass over all of them worth while: fewer are walked one by one."""
ALIAS = "an alias in the reader would make it so"
PROMOTIONS = {"int": {"long", "float", "double"}, "long": {"float", "double"}, "float": {"double"},
              "string": {"bytes"}, "bytes": {"string"}}


class Incompatible(Exception):
    """The reader's schema cannot read what the writer's wrote; says which field and why."""


class Compiler:
    """Makes the plan for one pair of schemas; `texts` are the faults that only this plan can find."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def read(self, writer: Type, reader: Type | None, path: str = "") -> Read:
        """The pass that reads `writer`'s bytes as `reader`. Raises Incompatible."""
        if writer.kind == "union":
            return self.union(writer, reader, path)
        if reader is not None and reader.kind == "union":
            return self.into_union(writer, reader, path)
        if reader is not None and writer.kind != reader.kind and reader.kind not in PROMOTIONS.get(writer.kind, ()):
            raise Incompatible(f"{path or 'the record'}: written as {writer.label}, read as {reader.label}")
        match writer.kind:
            case "record":
                return self.record(writer, reader, path)
            case "array" | "map":
                return self.collection(writer, reader, path)
            case "enum":
                return self.enum(writer, reader, path)
        return self.leaf(writer, reader, path)

    def leaf(self, writer: Type, reader: Type | None, path: str) -> Read:
        scan = SCANS[writer.kind] if writer.kind != "fixed" else _fixed(writer.size)
        if reader is None:
            return lambda p, at, row: (None, scan(p, at, row)[1])
        self.same_fixed(writer, reader, path)
        build, arrow = builder(writer, reader), reader.arrow

        def read(p: Payloads, at: I64, row: Rows) -> tuple[pa.Array, I64]:
            raw, after = scan(p, at, row)
            if writer.size > p.data.size:  # a fixed that no record can have: there are no bytes to build from
                return pa.nulls(len(at), arrow), after
            return build(p, raw, row), after
        return read

    def same_fixed(self, writer: Type, reader: Type, path: str) -> None:
        """What two leaves must share beside their kind."""
        where = path or "the record"
        if writer.kind == "fixed" and writer.size != reader.size:
            raise Incompatible(f"{where}: fixed of {writer.size} bytes, read as one of {reader.size}")
        if writer.kind == "fixed" and not same_name(writer, reader):
            raise Incompatible(f"{where}: fixed {writer.name} is not {reader.name}; {ALIAS}")
        if writer.logical == reader.logical == "decimal" and writer.scale != reader.scale:
            raise Incompatible(f"{where}: decimal of scale {writer.scale}, read with scale {reader.scale}")

    def enum(self, writer: Type, reader: Type | None, path: str) -> Read:
        if reader is None:
            return lambda p, at, row: (None, read_varint(p, at, row)[1])
        if not same_name(writer, reader):
            raise Incompatible(f"{path or 'the value'}: enum {writer.name} is not {reader.name}; {ALIAS}")
        known = [s if s in reader.symbols else reader.default for s in writer.symbols]
        beyond = writer.default if writer.default in reader.symbols else None  # as the reference package reads it
        symbols = pa.array([*known, beyond], pa.string())
        last, lost = len(known), np.array([s is None for s in known] + [False])

        def read(p: Payloads, at: I64, row: Rows) -> tuple[pa.Array, I64]:
            index, after = read_varint(p, at, row)
            outside = (index < 0) | (index >= last)
            if outside.any():
                p.mark(outside if beyond is None else index < 0, row, SYMBOL)
                index = np.where(outside, last, index)
            if lost.any():
                p.mark(lost[index], row, UNKNOWN_SYMBOL)
            return symbols.take(pa.array(index)), after
        return read

    def record(self, writer: Type, reader: Type | None, path: str) -> Read:
        if reader is None:
            skips = [self.read(f.type, None) for f in writer.fields]
            return lambda p, at, row: (None, _chain(skips, p, at, row))
        if not same_name(writer, reader):
            raise Incompatible(f"{path or 'the record'}: record {writer.name} is not {reader.name}; {ALIAS}")
        slots = slots_of(writer, reader)
        under = f"{path}." if path else ""
        steps = [(self.read(f.type, reader.fields[slot].type if slot is not None else None, f"{under}{f.name}"), slot)
                 for f, slot in zip(writer.fields, slots, strict=True)]
        absent = [i for i in range(len(reader.fields)) if i not in slots]
        for i in absent:
            if reader.fields[i].default is MISSING:
                raise Incompatible(f"{under}{reader.fields[i].name}: not in the writer's schema, and without a default")
        constants = [(i, default_array(reader.fields[i].type, reader.fields[i].default)) for i in absent]
        fields = list(reader.arrow)

        def read(p: Payloads, at: I64, row: Rows) -> tuple[pa.Array, I64]:
            n = len(at)
            columns: list[pa.Array | None] = [None] * len(fields)
            for step, slot in steps:
                column, at = step(p, at, row)
                if slot is not None:
                    columns[slot] = column
            for slot, one in constants:
                columns[slot] = one.take(pa.array(np.zeros(n, np.int64)))
            if not fields:
                return pa.array([{}] * n, pa.struct([])), at
            return pa.StructArray.from_arrays(columns, fields=fields), at
        return read

    def union(self, writer: Type, reader: Type | None, path: str) -> Read:
        """Branch by branch: the records that carry it are read together, then put back in order."""
        reads = [self.branch(b, reader, path) for b in writer.branches]
        arrow = None if reader is None else reader.arrow

        def read(p: Payloads, at: I64, row: Rows) -> tuple[pa.Array | None, I64]:
            branch, at = read_varint(p, at, row)
            wrong = (branch < 0) | (branch >= len(reads))
            if wrong.any():
                p.mark(wrong, row, BRANCH)
            parts: list[tuple[I64, pa.Array]] = []
            for i, inner in enumerate(reads):
                here = branch == i
                count = np.count_nonzero(here)
                if count == len(at) and count:
                    return inner(p, at, row)
                if count:
                    which = np.flatnonzero(here)
                    part, at[which] = inner(p, at[which], which if row is None else row[which])
                    if part is not None and writer.branches[i].kind != "null":
                        parts.append((which, part))
            return (None if arrow is None else merge(parts, len(at), arrow)), at
        return read

    def branch(self, writer: Type, reader: Type | None, path: str) -> Read:
        """A branch of the writer's union; one the reader cannot take condemns the records that carry it."""
        try:
            return self.read(writer, reader, path)
        except Incompatible as error:
            assert reader is not None
            skip, arrow = self.read(writer, None), reader.arrow
            self.texts.append(f"incompatible_schema: {error}")
            fault = OWN_FAULTS + len(self.texts) - 1

        def read(p: Payloads, at: I64, row: Rows) -> tuple[pa.Array, I64]:
            p.mark(np.arange(len(at)), row, fault)
            return pa.nulls(len(at), arrow), skip(p, at, row)[1]
        return read

    def into_union(self, writer: Type, reader: Type, path: str) -> Read:
        """A plain type read as a union: the branch that is the same type, else the first that it promotes to."""
        if writer.kind == "null" and reader.nullable:
            return lambda p, at, row: (pa.nulls(len(at), reader.arrow), at)
        same = [b for b in reader.some if b.kind == writer.kind]
        exact = [b for b in same if b.logical == writer.logical and (not b.name or b.name == writer.name)]
        for branch in [*exact, *same, *reader.some]:
            try:
                inner = self.read(writer, branch, path)
            except Incompatible:
                continue
            return inner if len(reader.some) == 1 else _wrapped(inner, reader, reader.some.index(branch))
        raise Incompatible(f"{path or 'the record'}: written as {writer.label}, read as {reader.label}")

    def collection(self, writer: Type, reader: Type | None, path: str) -> Read:
        """Arrays, and maps as arrays of key and value: where items begin is found first, then all are read at once."""
        one = entry(writer)
        skip = self.read(one, None)
        inside = path + ("[]" if writer.kind == "array" else "{}")
        inner = None if reader is None else self.read(one, entry(reader), inside)
        step = Step(least_bytes(one), fixed_bytes(one), varint_count(one), skip, stepper(one))
        arrow = None if reader is None else reader.arrow

        def read(p: Payloads, at: I64, row: Rows) -> tuple[pa.Array | None, I64]:
            rows = np.arange(len(at)) if row is None else row
            owner, start, after = find_items(p, at, rows, step, jump=inner is None)
            if inner is None:
                if step.fixed is None:
                    skip(p, start, rows[owner])  # those that were found by other means have not been looked at
                return None, after
            items, _ = inner(p, start, rows[owner])
            offsets = np.zeros(len(at) + 1, np.int32)
            np.cumsum(np.bincount(owner, minlength=len(at)), out=offsets[1:])
            assert items is not None
            assert arrow is not None
            if not pa.types.is_map(arrow):
                return pa.ListArray.from_arrays(pa.array(offsets), items, type=arrow), after
            return pa.MapArray.from_arrays(pa.array(offsets), items.field(0), items.field(1), type=arrow), after
        return read


def _chain(skips: Sequence[Read], p: Payloads, at: I64, row: Rows) -> I64:
    for skip in skips:
        _, at = skip(p, at, row)
    return at


def _fixed(size: int) -> Callable[[Payloads, I64, Rows], tuple[I64, I64]]:
    return lambda p, at, row: read_fixed(p, at, row, size)


SCANS: dict[str, Callable[[Payloads, I64, Rows], tuple[object, I64]]] = {
    "null": lambda p, at, row: (at, at), "boolean": _fixed(1), "int": read_varint, "long": read_varint,
    "float": _fixed(4), "double": _fixed(8), "bytes": read_span, "string": read_span,
}
"""Avro type → what finds its bytes; the builder makes the column of them."""


def same_name(writer: Type, reader: Type) -> bool:
    """Named types match by their name without namespace, or by one of the reader's aliases."""
    return writer.name.rpartition(".")[2] == reader.name.rpartition(".")[2] or writer.name in reader.aliases


def slots_of(writer: Type, reader: Type) -> list[int | None]:
    """For each field of the writer, where it stands in the reader; None: it is passed over."""
    by_name = {f.name: i for i, f in enumerate(reader.fields)}
    written = {f.name for f in writer.fields}
    for i, f in enumerate(reader.fields):
        alias = next((a for a in f.aliases if a in written), None)
        if f.name not in written and alias is not None:
            by_name.setdefault(alias, i)
    return [by_name.get(f.name) for f in writer.fields]


def _wrapped(inner: Read, reader: Type, chosen: int) -> Read:
    """A column as one member of a general union's struct."""
    fields = list(reader.arrow)

    def read(p: Payloads, at: I64, row: Rows) -> tuple[pa.Array, I64]:
        column, at = inner(p, at, row)
        members = [column if i == chosen else pa.nulls(len(at), f.type) for i, f in enumerate(fields)]
        return pa.StructArray.from_arrays(members, fields=fields), at
    return read


def merge(parts: Sequence[tuple[npt.NDArray[np.int64], pa.Array]], n: int, arrow: pa.DataType) -> pa.Array:
    """One column of `n` rows from the rows of its parts; rows of no part are null."""
    if not parts:
        return pa.nulls(n, arrow)
    where, absent, base = np.zeros(n, np.int64), np.ones(n, np.bool_), 0
    for which, _ in parts:
        where[which] = np.arange(base, base + len(which))
        absent[which] = False
        base += len(which)
    column = parts[0][1] if len(parts) == 1 else pa.concat_arrays([part for _, part in parts])
    return column.take(pa.array(where, mask=absent if absent.any() else None))


# Items of arrays and maps


@dataclass(frozen=True, slots=True)
class Step:
    """How to come from one item to the next: all have `fixed` bytes, or `varints` numbers each; else by passes of
    `skip` over all collections together, or by `alone` through each."""

    least: int
    fixed: int | None
    varints: int
    skip: Read
    alone: Walk


def entry(type_: Type) -> Type:
    """The item of an array; of a map, a record of key and value, which is the same bytes."""
    if type_.kind == "array":
        return type_.item
    return Type("record", fields=(Field("key", Type("string")), Field("value", type_.item)))


def least_bytes(type_: Type) -> int:
    """The fewest bytes a value takes."""
    match type_.kind:
        case "null":
            return 0
        case "float" | "double" | "fixed":
            return {"float": 4, "double": 8}.get(type_.kind, type_.size)
        case "record":
            return sum(least_bytes(f.type) for f in type_.fields)
        case "union":
            return 1 + min(map(least_bytes, type_.branches))
    return 1


def fixed_bytes(type_: Type) -> int | None:
    """The bytes every value takes, or None where they vary."""
    if type_.kind in ("null", "boolean", "float", "double", "fixed"):
        return 1 if type_.kind == "boolean" else least_bytes(type_)
    if type_.kind == "record":
        sizes = [fixed_bytes(f.type) for f in type_.fields]
        return None if None in sizes else sum(s for s in sizes if s is not None)
    return None


def varint_count(type_: Type) -> int:
    """The varints a value is made of, 0 where it has anything else."""
    if type_.kind == "record":
        counts = [varint_count(f.type) for f in type_.fields]
        return sum(counts) if all(counts) else 0
    return int(type_.kind in ("int", "long", "enum"))


def find_items(p: Payloads, at: I64, rows: I64, step: Step, *, jump: bool) -> tuple[I64, I64, I64]:
    """Where each item begins: (owner, start) in order of owner, and the positions after the collections.

    A block is a count and its items; a negative count is followed by the block's size in bytes, which `jump` uses to
    pass over it. A block of count 0 ends the collection.
    """
    n = len(at)
    at, left, until, seen = at.copy(), np.zeros(n, np.int64), np.full(n, -1, np.int64), np.zeros(n, np.int64)
    who = np.flatnonzero(p.fault[rows] == 0)
    owners: list[I64] = []
    starts: list[I64] = []
    while len(who):
        fresh = who[left[who] == 0]
        if len(fresh):
            ended = _open_blocks(p, at, rows, fresh, (left, until, seen), step, jump)
            left[ended] = -1
            who = who[(left[who] >= 0) & (p.fault[rows[who]] == 0)]
            if jump and len(who) and not left[who].all():
                continue  # blocks that were jumped over are followed by another header
        if not len(who):
            break
        owner, start = _take(p, at, rows, who, left, step)
        owners.append(owner)
        starts.append(start)
        who = who[p.fault[rows[who]] == 0]
    if not owners:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), at
    owner, start = np.concatenate(owners), np.concatenate(starts)
    order = np.argsort(owner, kind="stable")
    return owner[order], start[order], at


def _open_blocks(p: Payloads, at: I64, rows: I64, fresh: I64, state: tuple[I64, I64, I64], step: Step,
                 jump: bool) -> I64:
    """Read the block headers of the collections `fresh`; returns those that a count of 0 ends."""
    left, until, seen = state
    p.mark((until[fresh] >= 0) & (at[fresh] != until[fresh]), rows[fresh], BLOCK)
    row = rows[fresh]
    count, after = read_varint(p, at[fresh], row)
    sized = np.flatnonzero(count < 0)
    until[fresh] = -1
    if len(sized):
        size, after[sized] = read_varint(p, after[sized], row[sized])
        room = p.end[row[sized]] - after[sized]
        least = np.negative(count[sized]) * step.least if step.least else size
        p.mark((size < 0) | (size > room) | (size < least) | ((step.least == 0) & (size != 0)), row[sized], BLOCK)
        until[fresh[sized]] = after[sized] + size
        count = np.abs(count)
    seen[fresh] += count
    room = p.end[row] - after
    if step.least:
        over = (count < 0) | (count > room // step.least)
        p.mark(over, row, LENGTH)
    else:
        over = (count < 0) | (seen[fresh] > EMPTY_ITEMS_MAX)
        p.mark(over, row, EMPTY_ITEMS)
    count[over] = 0
    at[fresh], left[fresh] = after, count
    if jump and len(sized):
        good = sized[p.fault[row[sized]] == 0]
        at[fresh[good]], left[fresh[good]] = until[fresh[good]], 0
        until[fresh[good]] = -1
        ended: I64 = fresh[(count == 0) & ~np.isin(np.arange(len(fresh)), good)]
        return ended
    none: I64 = fresh[count == 0]
    return none


def _take(p: Payloads, at: I64, rows: I64, who: I64, left: I64, step: Step) -> tuple[I64, I64]:
    """The next item of each collection in `who`, or all that are left where arithmetic finds them."""
    if step.fixed is None and not step.varints:
        longest = int(left[who].max())
        if longest > 1 and int(left[who].sum()) < COMPANY * longest:
            return _take_alone(p, at, rows, who, left, step)
        start = at[who]
        _, at[who] = step.skip(p, start, rows[who])
        left[who] -= 1
        p.mark(at[who] > p.end[rows[who]], rows[who], LENGTH)
        return who, start
    count = left[who]
    left[who] = 0
    if step.fixed is not None:
        owner, nth = _spread(who, count)
        start = at[owner] + nth * step.fixed
        at[who] += count * step.fixed
        return owner, start
    first = np.searchsorted(p.stops, at[who])
    over = first + count * step.varints > len(p.stops)
    if over.any():
        p.mark(over, rows[who], LENGTH)
        who, count, first = who[~over], count[~over], first[~over]
    owner, nth = _spread(who, count)
    before = np.repeat(first, count) + nth * step.varints - 1  # the stop byte of the item before
    start = np.where(nth == 0, at[owner], p.stops[before] + 1)
    at[who] = p.stops[first + count * step.varints - 1] + 1
    return owner, start


def _take_alone(p: Payloads, at: I64, rows: I64, who: I64, left: I64, step: Step) -> tuple[I64, I64]:
    """All items that are left, one collection after the other: quicker when only a few are long."""
    data = p.buf.data  # not p.data, whose bytes are signed
    owners: list[int] = []
    starts: list[int] = []
    for i in who.tolist():
        try:
            found, after = walk(step.alone, data, int(at[i]), int(p.end[rows[i]]), int(left[i]))
        except Misstep:
            p.mark(np.array([i]), rows, LENGTH)
            continue
        owners += [i] * len(found)
        starts += found
        at[i], left[i] = after, 0
    return np.array(owners, np.int64), np.array(starts, np.int64)


def _spread(who: I64, count: I64) -> tuple[I64, I64]:
    """Each of `who` as often as its count says, and the number of each repetition."""
    owner = np.repeat(who, count)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
