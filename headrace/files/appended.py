"""One file that grows. Beside it stands `.<name>.headrace`: how long it is up to the last put, and where to go on.

Lines are appended and synced; then the note is replaced. What the file has beyond the note was not finished, and is cut
off by the next who writes: so every line is there once, even if several tasks write to the one file.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.errors import UserError
from headrace.files.disk import locked, make_folder, write_whole
from headrace.files.formats import csv_text, json_lines, text_lines
from headrace.files.places import Place, beyond
from headrace.records import Records

log = logging.getLogger("headrace.connect")


@dataclass(frozen=True, slots=True)
class Note:
    """What the note says: bytes, offsets of each connector as {"topic/partition": next}, a CSV file's columns."""

    length: int
    offsets: dict[str, dict[str, int]]
    columns: list[str]

    def of(self, connector: str, places: Collection[Place]) -> dict[Place, int]:
        mine = self.offsets.get(connector, {})
        return {place: mine[_key(place)] for place in places if _key(place) in mine}

    def moved(self, connector: str, ends: Mapping[Place, int]) -> dict[str, dict[str, int]]:
        """The offsets, as they are behind a put: forwards only."""
        mine = dict(self.offsets.get(connector, {}))
        for place, end in ends.items():
            mine[_key(place)] = max(end, mine.get(_key(place), -1))
        return {**self.offsets, connector: mine}


@dataclass(frozen=True, slots=True)
class Appended:
    """A file of lines: text, jsonl or csv."""

    path: Path
    format: str
    connector: str

    def open(self, places: Collection[Place]) -> dict[Place, int]:
        """Where each goes on."""
        make_folder(self.path.parent)
        with locked(self._lock):
            return self._note().of(self.connector, places)

    def put(self, records: Sequence[Records], ends: Mapping[Place, int]) -> None:
        """Raises UserError for a CSV file that has other columns."""
        with locked(self._lock):
            note = self._note()
            stored = note.of(self.connector, list(ends))
            fresh = [each for each in (beyond(one, stored, ends) for one in records) if len(each)]
            moved = note.moved(self.connector, ends)
            if moved == note.offsets:
                return
            length, columns = note.length, note.columns
            if fresh:
                lines, columns = self._lines(fresh, note)
                length = self._append(lines, note.length)
            self._write(Note(length, moved, columns))

    def alter(self, positions: Mapping[Place, int | None]) -> None:
        """Other offsets; None forgets a partition's."""
        with locked(self._lock):
            note = self._note()
            mine: dict[str, Any] = {**note.offsets.get(self.connector, {}),
                                    **{_key(place): at for place, at in positions.items()}}
            kept = {place: at for place, at in mine.items() if at is not None}
            self._write(Note(note.length, {**note.offsets, self.connector: kept}, note.columns))

    def _lines(self, records: Sequence[Records], note: Note) -> tuple[bytes, list[str]]:
        if self.format != "csv":
            return (text_lines if self.format == "text" else json_lines)(records), []
        batches = [each.rows() for each in records]
        columns = note.columns or list(dict.fromkeys(name for rows in batches for name in rows.schema.names))
        more = {name for rows in batches for name in rows.schema.names if name not in columns}
        if more:
            raise UserError(f"{self.path} has no column {', '.join(sorted(more))}",
                            hint="drop it with the transform ReplaceField, or write parts: set `folder`, not `file`")
        lines = b""
        for rows in batches:  # a structure at a time, for a column may be of another type in each
            cells = pa.table({name: rows.column(name) if name in rows.schema.names else pa.nulls(len(rows))
                              for name in columns})
            lines += csv_text(cells, header=not note.length and not lines)
        return lines, columns

    def _append(self, lines: bytes, at: int) -> int:
        """Behind `at`, whatever the file has there; the new length."""
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            file.truncate(at)
            file.seek(at)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def _note(self) -> Note:
        """As it is: the file may have been taken away, or cut, by whoever rotates logs. Without a note the file is as
        long as it is; the note is then written at once, to tell an unfinished line from one that was there."""
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            found = json.loads(self._beside.read_bytes())
            note = Note(found["length"], found["offsets"], found["columns"])
        except FileNotFoundError:
            note = Note(size, {}, [])
            self._write(note)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._beside} is no note of ours: {error}", hint="remove it, to begin anew") from error
        if size < note.length:
            log.warning("the file is shorter than it was", extra={"file": str(self.path), "bytes": size})
            return Note(size, note.offsets, note.columns if size else [])
        return note

    def _write(self, note: Note) -> None:
        text = json.dumps({"length": note.length, "offsets": note.offsets, "columns": note.columns})
        write_whole(self._beside, lambda stream: stream.write(text.encode()))

    @property
    def _beside(self) -> Path:
        return self.path.with_name(f".{self.path.name}.headrace")

    @property
    def _lock(self) -> Path:
        return self.path.with_name(f".{self.path.name}.lock")


def _key(place: Place) -> str:
    return f"{place[0]}/{place[1]}"
