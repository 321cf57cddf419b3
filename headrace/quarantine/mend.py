"""Which records are sent back, and with what changes. Pure: records held in, payloads out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Index
from headrace.codec import AvroSchema, Decoder, Encoder
from headrace.errors import ExpressionError, UserError
from headrace.expressions import Expressions, compile_expression, compile_many
from headrace.marked import nearest
from headrace.payloads import Reader, Written
from headrace.quarantine.read import Held

SQL_TYPES: tuple[tuple[Callable[[Any], bool], Callable[[Any], str]], ...] = (
    (pa.types.is_boolean, lambda t: "BOOLEAN"), (pa.types.is_int32, lambda t: "INTEGER"),
    (pa.types.is_int64, lambda t: "BIGINT"), (pa.types.is_float32, lambda t: "FLOAT"),
    (pa.types.is_float64, lambda t: "DOUBLE"), (pa.types.is_string, lambda t: "VARCHAR"),
    (pa.types.is_date32, lambda t: "DATE"), (pa.types.is_decimal128, lambda t: f"DECIMAL({t.precision}, {t.scale})"),
    (pa.types.is_timestamp, lambda t: "TIMESTAMPTZ" if t.tz else "TIMESTAMP"),
)
"""Arrow type of a column → the SQL type that an expression of another type is cast to."""


@dataclass(frozen=True, slots=True)
class Mend:
    """What to send back: those with a reason `reason`, at `at` (partition, offset), for which `where` is true.

    `sets` are column → expression, each over the record as it was held. With `schema` records are read as, and sent
    with, that schema instead of their writer's own. `raw` sends those that cannot be read, byte for byte.
    """

    where: str | None = None
    sets: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None
    at: tuple[int, int] | None = None
    schema: AvroSchema | None = None
    raw: bool = False

    def selects(self, record: Held) -> bool:
        """By reason and position; `where` needs the record's content."""
        if self.at is not None and (record.at.partition, record.at.offset_first) != self.at:
            return False
        return self.reason is None or self.reason in record.ids


Ready = tuple[Held, bytes | None]
"""A record and the payload to send for it."""
Left = tuple[Held, str]
"""A record that is not sent, and why."""


class Mender:
    """Applies a Mend; compiles its expressions once for each schema that records were written with.

    `ids(topic, schema)` gives the registry's id of a schema for the records of a topic.
    """

    def __init__(self, mend: Mend, reader: Reader, ids: Callable[[str, AvroSchema], int]) -> None:
        self.mend, self.reader, self.ids = mend, reader, ids
        self._compiled: dict[int, _Compiled] = {}

    def apply(self, records: Sequence[Held]) -> tuple[list[Ready], list[Left]]:
        """What to send, in order, and what is left with its reason; those `where` does not choose are in neither.

        Raises ExpressionError and UserError (an expression that does not fit a schema), RegistryError.
        """
        given = [r.value for r in records]
        found, failed = self._read(given)
        ready: dict[int, bytes | None] = {}
        left: dict[int, str] = {}
        if self.mend.raw and self.mend.where is None:
            ready = {at: given[at] for at in failed}
        else:
            left = dict(failed)
        for written in found:
            self._mend(written, records, ready, left)
        return [(records[at], ready[at]) for at in sorted(ready)], [(records[at], left[at]) for at in sorted(left)]

    def _read(self, values: Sequence[bytes | None]) -> tuple[list[Written], dict[int, str]]:
        if self.mend.schema is None:
            return self.reader.read(values)
        decoded = Decoder(self.mend.schema, self.reader.writers).decode(values)
        index = np.arange(len(values)) if decoded.index is None else decoded.index
        return [Written(0, self.mend.schema, index, decoded.rows)] if len(index) else [], dict(decoded.rejects)

    def _mend(self, written: Written, records: Sequence[Held], ready: dict[int, bytes | None],
              left: dict[int, str]) -> None:
        """One writer's records: chosen, changed, encoded; into `ready` or `left` by their place in `records`."""
        compiled = self._compiled.get(written.id) or _Compiled(self.mend, written.schema)
        self._compiled[written.id] = compiled
        rows, index = written.rows, written.index
        if compiled.where is not None:
            rows, index = _take(rows, index, _places(compiled.where.evaluate(rows)))
        if not self.mend.sets and self.mend.schema is None:
            ready |= {at: records[at].value for at in index.tolist()}  # nothing to change: the very same bytes
            return
        rows, index = compiled.change(rows, index, left)
        targets = np.array([_target(records[at]) for at in index.tolist()], dtype=object)
        for topic in dict.fromkeys(targets.tolist()):
            mine = np.flatnonzero(targets == topic)
            number = written.id if self.mend.schema is None else self.ids(topic, self.mend.schema)
            chosen, _ = _take(rows, index, mine)
            values, kept, refused = Encoder(written.schema, rows.schema, number).encode_checked(chosen)
            left |= {int(index[mine[i]]): why for i, why in refused}
            ready |= zip(index[mine if kept is None else mine[kept]].tolist(), values, strict=True)


def _places(mask: Any) -> Index:
    """Where a mask is true."""
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))


def _take(rows: pa.RecordBatch, index: Index, places: Index) -> tuple[pa.RecordBatch, Index]:
    return rows.take(pa.array(places, pa.int64())), index[places]


def _target(record: Held) -> str:
    return record.source.topic if record.source else ""


class _Compiled:
    """The expressions of a Mend for rows of one schema. Raises ExpressionError, UserError."""

    def __init__(self, mend: Mend, schema: AvroSchema) -> None:
        self.schema = schema
        columns = schema.arrow
        self.where = None
        if mend.where is not None:
            self.where = compile_expression(mend.where, columns, where="--where")
            if not pa.types.is_boolean(self.where.type):
                raise ExpressionError(f"--where gives {self.where.type}, not true or false: {mend.where}")
        for name in mend.sets:
            if name not in columns.names:
                raise UserError(f"--set {name}: {schema} has no such column{nearest(name, columns.names)}")
        self.sets: Expressions | None = None
        if mend.sets:
            texts = {name: _fitted(name, text, columns) for name, text in mend.sets.items()}
            self.sets = compile_many(texts, columns)

    def change(self, rows: pa.RecordBatch, index: Index, left: dict[int, str]) -> tuple[pa.RecordBatch, Index]:
        """The rows with their new values; one whose CAST failed goes to `left` with its reason."""
        if self.sets is None:
            return rows, index
        done = self.sets.evaluate(rows)
        arrays = [pc.cast(done.arrays[f.name], f.type, safe=False) if f.name in done.arrays else rows.column(f.name)
                  for f in rows.schema]
        fields = [f.with_nullable(True) if f.name in done.arrays else f for f in rows.schema]
        changed = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
        if done.failed is None:
            return changed, index
        whys: Any = done.reasons().to_pylist()
        left |= {int(at): f"cast: {'; '.join(why)}" for at, why in zip(index[_places(done.failed)], whys, strict=True)}
        return _take(changed, index, _places(pc.invert(done.failed)))


def _fitted(name: str, text: str, columns: pa.Schema) -> str:
    """The expression, cast to its column's type where it has another. Raises ExpressionError, UserError."""
    wanted = columns.field(name).type
    given = compile_expression(text, columns, where=f"--set {name}").type
    if given in (wanted, pa.null()):
        return text
    for is_kind, sql in SQL_TYPES:
        if is_kind(wanted):
            return f"CAST(({text}) AS {sql(wanted)})"
    raise UserError(f"--set {name}: the expression gives {given}, the column holds {wanted}",
                    hint="a column of this type can be set to null, or to another column of the same type")


