"""Plans that write records: rows of an Arrow schema as records of an Avro schema, column by column.

`Compiler().value(rows, target, "")` finds every reason why such rows do not fit (`problems`) before any row is seen.
What only a value can tell (a null where one is required, a symbol that the enum lacks) marks its record.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.codec import wire_write as ink
from headrace.codec.decode import entry
from headrace.codec.leaves import leaf
from headrace.codec.types import MISSING, Field, Type, default_array
from headrace.codec.wire import I64, Rows, Verdicts
from headrace.codec.wire_write import Out, Piece

Measure = Callable[[Verdicts, pa.Array, Rows], Piece]
is_ = pa.types


class Compiler:
    """Makes the plan for one pair of schemas. `problems`: why rows do not fit; `texts`: what a value can do wrong."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.texts: list[str] = []

    def fault(self, text: str) -> int:
        """The number of a new fault."""
        self.texts.append(text)
        return len(self.texts)

    def problem(self, path: str, why: str) -> Measure:
        self.problems.append(f"{path}: {why}")
        return lambda v, column, row: ink.NOTHING

    def value(self, source: pa.DataType, target: Type, path: str) -> Measure:
        """The plan for a value; nulls in it mark their record unless the target is nullable."""
        if is_.is_dictionary(source):
            inner = self.value(source.value_type, target, path)
            return lambda v, column, row: inner(v, column.dictionary_decode(), row)
        if target.kind == "union":
            return self.union(source, target, path)
        if target.kind == "null":
            return lambda v, column, row: ink.NOTHING
        if is_.is_null(source):
            return self.problem(path, f"the column has no values, and {target.label} wants one")
        match target.kind:
            case "record":
                inner = self.record(source, target, path)
            case "array" | "map":
                inner = self.collection(source, target, path)
            case _:
                inner = leaf(self, source, target, path)
        null = self.fault(f"null_value: {path} is null, and the schema has no null there")

        def measure(v: Verdicts, column: pa.Array, row: Rows) -> Piece:
            if column.null_count:
                v.mark(_nulls(column), row, null)
            return inner(v, column, row)
        return measure

    # Unions

    def union(self, source: pa.DataType, target: Type, path: str) -> Measure:
        branches = target.branches
        null = next((i for i, b in enumerate(branches) if b.kind == "null"), None)
        if is_.is_null(source) and null is not None:
            return lambda v, column, row: ink.constant(bytes([2 * null]))
        if len(target.some) > 1 and is_.is_struct(source) and {f.name for f in source} <= set(target.members):
            return self.members(source, target, null, path)
        chosen, inner = self.branch(source, target, path)
        missing = self.fault(f"null_value: {path} is null, and the union has no null")

        def measure(v: Verdicts, column: pa.Array, row: Rows) -> Piece:
            if not column.null_count:
                return ink.scattered([(None, chosen, inner(v, column, row))], len(column))
            absent = _nulls(column)
            if null is None:
                v.mark(absent, row, missing)
            which = np.flatnonzero(~absent)
            part = inner(v, column.take(pa.array(which)), which if row is None else row[which])
            return ink.scattered([(which, chosen, part), (np.flatnonzero(absent), null or 0, ink.NOTHING)], len(column))
        return measure

    def branch(self, source: pa.DataType, target: Type, path: str) -> tuple[int, Measure]:
        """The first branch that values of `source` fit, exact types before wider ones."""
        order = sorted(target.some, key=lambda b: b.arrow != source)
        tried: list[str] = []
        for branch in order:
            attempt = Compiler()
            attempt.texts = self.texts
            measure = attempt.value(source, branch, path)
            if not attempt.problems:
                return target.branches.index(branch), measure
            tried.extend(attempt.problems)
        if len(order) > 1:
            return 0, self.problem(path, f"{source} fits no branch of {target.label}")
        self.problems += tried
        return 0, lambda v, column, row: ink.NOTHING

    def members(self, source: pa.DataType, target: Type, null: int | None, path: str) -> Measure:
        """A general union from a struct of which one member is set."""
        plans = [(target.branches.index(b), self.value(source.field(n).type, b, f"{path}.{n}"), n)
                 for b, n in zip(target.some, target.members, strict=True) if source.get_field_index(n) >= 0]
        none = self.fault(f"null_value: {path} is null, and the union has no null")
        two = self.fault(f"ambiguous_union: {path} has more than one member set")

        def measure(v: Verdicts, column: pa.Array, row: Rows) -> Piece:
            columns = dict(zip([f.name for f in source], column.flatten(), strict=True))
            valid = [~_nulls(columns[name]) for _, _, name in plans]
            many = np.sum(valid, axis=0)
            if (many > 1).any():
                v.mark(many > 1, row, two)
            if null is None and not many.all():
                v.mark(many == 0, row, none)
            parts: list[tuple[I64 | None, int, Piece]] = []
            taken = np.zeros(len(column), np.bool_)
            for (branch, inner, name), here in zip(plans, valid, strict=True):
                which = np.flatnonzero(here & ~taken)
                taken |= here
                if len(which):
                    part = inner(v, columns[name].take(pa.array(which)), which if row is None else row[which])
                    parts.append((which, branch, part))
            return ink.scattered([*parts, (np.flatnonzero(~taken), null or 0, ink.NOTHING)], len(column))
        return measure

    # Records, arrays, maps

    def record(self, source: pa.DataType, target: Type, path: str) -> Measure:
        if not is_.is_struct(source):
            return self.problem(path or "the record", f"{source} is no {target.label}")
        under = f"{path}." if path else ""
        plans = [self.field(source, f, f"{under}{f.name}") for f in target.fields]

        def measure(v: Verdicts, column: pa.Array, row: Rows) -> Piece:
            columns = column.flatten()
            return ink.chain([plan if isinstance(plan, Piece) else plan[1](v, columns[plan[0]], row) for plan in plans])
        return measure

    def field(self, source: pa.DataType, target: Field, path: str) -> Piece | tuple[int, Measure]:
        """The column of a field, or the bytes of its default where there is none."""
        names = [f.name for f in source]
        found = [names.index(n) for n in (target.name,) if n in names]
        if found:
            return found[0], self.value(source.field(found[0]).type, target.type, path)
        if target.default is MISSING and not target.type.nullable:
            return 0, self.problem(path, "no such column, and the field has no default")
        default = None if target.default is MISSING else target.default
        one = pa.array([None], target.type.arrow) if default is None else default_array(target.type, default)
        verdicts = Verdicts(1)
        piece = self.value(one.type, target.type, path)(verdicts, one, None)
        return ink.constant(to_bytes(piece, 1).tobytes())

    def collection(self, source: pa.DataType, target: Type, path: str) -> Measure:
        listed = is_.is_list(source) or is_.is_large_list(source) or is_.is_fixed_size_list(source)
        if not (listed or (target.kind == "map" and is_.is_map(source))):
            return self.problem(path, f"{source} is no {target.label}")
        inner_type = pa.struct([source.key_field, source.item_field]) if is_.is_map(source) else source.value_type
        if target.kind == "map" and (not is_.is_struct(inner_type) or inner_type.num_fields != 2):
            return self.problem(path, f"{source} is no {target.label}")
        one = entry(target)
        if target.kind == "map":
            inner_type = pa.struct([inner_type.field(0).with_name("key"), inner_type.field(1).with_name("value")])
        inner = self.value(inner_type, one, f"{path}{'[]' if target.kind == 'array' else '{}'}")

        def measure(v: Verdicts, column: pa.Array, row: Rows) -> Piece:
            if is_.is_fixed_size_list(column.type):
                column = column.cast(pa.list_(column.type.value_type))
            wide = np.int64 if is_.is_large_list(column.type) else np.int32
            offsets = _buffer(column, 1, wide, len(column) + 1).astype(np.int64)
            count, low, high = np.diff(offsets), int(offsets[0]), int(offsets[-1])
            if is_.is_map(column.type):
                items = pa.StructArray.from_arrays([column.keys, column.items], fields=list(inner_type))
            else:
                items = column.values
                if target.kind == "map":
                    items = pa.StructArray.from_arrays(items.flatten(), fields=list(inner_type))
            rows = np.arange(len(column)) if row is None else row
            return ink.blocks(count, inner(v, items.slice(low, high - low), np.repeat(rows, count)))
        return measure


def _nulls(column: pa.Array) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = pc.is_null(column).to_numpy(zero_copy_only=False)
    return mask


def _buffer(column: pa.Array, number: int, kind: npt.DTypeLike, length: int) -> npt.NDArray[np.int64]:
    """`length` elements of a column's buffer from the column's own first one; zeros where Arrow left the buffer out."""
    raw = column.buffers()[number]
    if raw is None:
        return np.zeros(length, kind)
    return np.frombuffer(raw, kind, length, column.offset * np.dtype(kind).itemsize)


def to_bytes(piece: Piece, n: int) -> npt.NDArray[np.uint8]:
    """The values of a piece one after another."""
    size = np.broadcast_to(np.asarray(piece.size, np.int64), (n,))
    end = np.cumsum(size)
    out = Out(int(end[-1]) if n else 0)
    piece.write(out, end - size)
    return out.buf[:out.size]
