"""What a reader gives: a bounded piece of a file as rows, what could not become rows, and where to go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from headrace.batch import Index

Position = Mapping[str, int]
"""Where a reader goes on; JSON. Text: `byte` and `line`; Parquet and Avro: `record`."""


@dataclass(frozen=True, slots=True)
class Bad:
    """One record that is no row of the schema. `at` is its line (text) or its number (Parquet, Avro), from 1."""

    at: int
    raw: bytes
    """The original line without its line end; for Parquet and Avro the record as JSON."""
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """At most as many records as were asked for, in the file's order."""

    rows: pa.RecordBatch
    at: Index
    """The line or record number of each row, from 1."""
    raw: Callable[[int], bytes] = field(repr=False)
    """The original bytes of row i, as in `Bad.raw`."""
    bad: tuple[Bad, ...]
    position: Position

    def __len__(self) -> int:
        return int(self.rows.num_rows) + len(self.bad)


@dataclass(frozen=True, slots=True)
class Options:
    """How text becomes values."""

    delimiter: str = ","
    nulls: tuple[str, ...] = ("", "NA")
    """CSV cells that are null, where the schema has null; elsewhere they are what they say."""


class Reader(Protocol):
    """An open file. `read` gives None when there is nothing more, or, of a file that grows, nothing yet."""

    @property
    def unused(self) -> Sequence[str]:
        """Columns of the file that the schema has no field for: they are passed over, and whoever opens it says so."""
        ...

    def read(self, records_max: int) -> Piece | None: ...

    def share(self) -> float:
        """How much of the file is read, 0 … 1; 0 where its size is not known."""
        ...

    def close(self) -> None: ...
