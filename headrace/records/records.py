"""n records of one topic and one structure, in columns. A poll is a few of them: mostly one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.batch import Index
from headrace.errors import UserError
from headrace.records.shape import Shape, shape_of

Header = tuple[str, Any, Shape | None]
"""(name, plain value, its shape)"""


@dataclass(frozen=True, slots=True)
class Column:
    """Keys or values. Without a shape they are schemaless, as JSON is: then all of them have exactly the fields of
    their Arrow type, and a null field is one that is there, and null."""

    values: pa.Array
    shape: Shape | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Index) -> Column:
        return Column(self.values.take(pa.array(index)), self.shape)

    @classmethod
    def of_rows(cls, rows: pa.RecordBatch, *, name: str | None = None) -> Column:
        """Rows as structs, with the shape their Arrow schema implies."""
        values = rows.to_struct_array()
        return cls(values, shape_of(values.type, optional=False, name=name))

    @classmethod
    def nothing(cls, n: int) -> Column:
        """No key, n times."""
        return cls(pa.nulls(n))


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Records of one topic and one structure. Every column is as long as the others.

    `index` is each record's place in the poll it came with: what is dropped, split or routed keeps it.
    """

    topic: str
    value: Column
    key: Column
    index: Index
    timestamps_ms: Index
    """-1 is none."""
    headers: Sequence[Sequence[Header]] | None = None
    """Of each record; None where no record has any."""
    partitions: Index | None = None
    """Where each record was read; None of a source's, whose partition Kafka's producer picks."""
    offsets: Index | None = None

    def __len__(self) -> int:
        return len(self.index)

    def take(self, index: Index) -> Records:
        """The records at these positions (of this, not of the poll), in that order."""
        def some(column: Any) -> Any:
            return None if column is None else column[index]

        headers = None if self.headers is None else [self.headers[at] for at in index.tolist()]
        return replace(self, value=self.value.take(index), key=self.key.take(index), index=self.index[index],
                       timestamps_ms=self.timestamps_ms[index], headers=headers, partitions=some(self.partitions),
                       offsets=some(self.offsets))

    def but(self, **changes: Any) -> Records:
        """The same, changed."""
        return replace(self, **changes)

    def rows(self) -> pa.RecordBatch:
        """The values as rows. Raises UserError where they are no structs, or some are null (tombstones)."""
        if not pa.types.is_struct(self.value.values.type):
            raise UserError(f"the values of {self.topic} are {self.value.values.type}, and no records with fields",
                            hint="is `value.converter` right? HoistField makes a record of a bare value")
        if self.value.values.null_count:
            raise UserError(f"{self.value.values.null_count} records of {self.topic} have no value")
        return pa.RecordBatch.from_struct_array(self.value.values)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one record of a poll goes no further. `index` is its place in the poll."""

    index: int
    stage: str
    """Kafka Connect's name of it: KEY_CONVERTER, VALUE_CONVERTER, HEADER_CONVERTER, TRANSFORMATION, TASK_PUT …"""
    by: str
    """The class that failed, by its Java name where it has one."""
    reason: str


def one(topic: str, value: Column, *, key: Column | None = None, timestamps_ms: Index | None = None) -> Records:
    """Records of a source, in the order of the poll."""
    n = len(value)
    return Records(topic=topic, value=value, key=key or Column.nothing(n), index=np.arange(n),
                   timestamps_ms=np.full(n, -1, np.int64) if timestamps_ms is None else timestamps_ms)
