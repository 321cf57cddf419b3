"""Rows in memory to look things up in, by key, or by key and the latest time before another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count, repeat
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.errors import UserError
from headrace.eventtime import Ints, event_times
from headrace.keying import Keys

NOWHERE = -1


class Table:
    """Rows, each under an id of its own: what is put under an id again takes the place of what was there.

    `keys` says by which columns rows are found; of several rows of one key the last put counts, or with `time`, the
    column of their time, the latest that is not after the time asked for. At most `rows_max` rows, else UserError.
    """

    def __init__(self, shape: pa.Schema, key: Sequence[str], time: str | None = None,
                 rows_max: int = 5_000_000) -> None:
        self.shape, self.key, self.time, self.rows_max = shape, key, time, rows_max
        self.rows: pa.Table = shape.empty_table()
        self._keys = Keys(key, shape)
        self._raw: list[bytes] = []
        self._row_of: dict[bytes, int] = {}
        self._found: dict[bytes, int] = {}
        self._by_time: tuple[dict[bytes, int], Any] | None = None

    def __len__(self) -> int:
        return len(self._row_of)

    def put(self, ids: Sequence[bytes], rows: pa.RecordBatch, gone: Iterable[bytes] = ()) -> None:
        """Rows under their ids, all different; `gone` are ids whose rows go."""
        twins = len(self._found) < len(self._row_of)
        lost = [self._forget(each) for each in (*gone, *(ids if self._row_of else ()))]
        if twins and any(lost):  # a row that was behind the one that went is found again
            alive = sorted(self._row_of.values())
            self._found = dict(zip(map(self._raw.__getitem__, alive), alive, strict=True))
        first = len(self._raw)
        raw = self._keys.of(rows)
        self._raw += raw
        self._row_of.update(zip(ids, count(first)))
        self._found.update(zip(raw, count(first)))
        self.rows = pa.concat_tables([self.rows, pa.Table.from_batches([rows], self.shape)])
        self._by_time = None
        if len(self) > self.rows_max:
            raise UserError(f"the table to look up in has {len(self):,} rows; its bound is {self.rows_max:,}",
                            hint="it is held in memory; a wider `rows_max` allows more")
        if len(self._raw) > 2 * len(self) + 1_000 or self.rows.column(0).num_chunks > 64:
            self._compact()

    def _forget(self, each: bytes) -> bool:
        """Whether it was the row that its key found."""
        row = self._row_of.pop(each, None)
        shown = row is not None and self._found.get(self._raw[row]) == row
        if row is not None and shown:
            del self._found[self._raw[row]]
        return shown

    def _compact(self) -> None:
        """Leave out the rows that went."""
        order = sorted(self._row_of.items(), key=itemgetter(1))
        alive = [row for _, row in order]
        self.rows = self.rows.take(pa.array(alive, pa.int64())).combine_chunks()
        self._raw = list(map(self._raw.__getitem__, alive))
        self._row_of = dict(zip((each for each, _ in order), count()))
        self._found = dict(zip(self._raw, count()))

    def doubles(self) -> Mapping[str, Any] | None:
        """One key that several rows have, if there is one."""
        if len(self._found) == len(self._raw):
            return None
        at = next(at for at, raw in enumerate(self._raw) if self._found[raw] != at)
        said: dict[str, Any] = self.rows.select(list(self.key)).slice(at, 1).to_pylist()[0]
        return said

    def find(self, keys: Sequence[bytes]) -> Ints:
        """The row of each key, NOWHERE where there is none."""
        return np.fromiter(map(self._found.get, keys, repeat(NOWHERE)), np.int64, len(keys))

    def find_as_of(self, keys: Sequence[bytes], ms: Ints, within_ms: int | None) -> Ints:
        """The latest row of each key that is not after the time given, nor more than `within_ms` before it."""
        import polars as pl

        groups, timed = self._by_time = self._by_time or self._timed()
        group = np.fromiter(map(groups.get, keys, repeat(NOWHERE)), np.int64, len(keys))
        asked = pl.DataFrame({"group": group, "ms": ms, "at": np.arange(len(keys))}).sort("ms")
        found = asked.join_asof(timed, on="ms", by="group", strategy="backward", tolerance=within_ms,
                                check_sortedness=False).sort("at")
        rows: Ints = found["row"].fill_null(NOWHERE).to_numpy()
        return rows

    def _timed(self) -> tuple[dict[bytes, int], Any]:
        """(a number for each key, the rows by key and time), in order of time."""
        import polars as pl

        assert self.time is not None, "a table without times has no rows as of one"
        alive = np.fromiter(sorted(self._row_of.values()), np.int64, len(self))
        raw = list(map(self._raw.__getitem__, alive.tolist()))
        groups = dict(zip(dict.fromkeys(raw), count()))
        column = self.rows.column(self.time).combine_chunks()
        timed, ms = event_times(column.chunk(0) if isinstance(column, pa.ChunkedArray) else column)
        frame = pl.DataFrame({"group": list(map(groups.__getitem__, raw)), "ms": ms[alive], "row": alive},
                             schema={"group": pl.Int64, "ms": pl.Int64, "row": pl.Int64})
        return groups, frame.filter(pl.Series(timed[alive], dtype=pl.Boolean)).sort("ms", maintain_order=True)
