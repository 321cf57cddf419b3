"""Parts of a folder: `<topic>/<partition>/<first>-<next>.<suffix>` has a partition's records from offset first to next.

A part is there whole or not at all, and the highest says where to go on. So what is put again is left out, whoever put
it, and nothing else has to be remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from headrace.files.disk import TEMPORARY, locked, make_folder, write_whole
from headrace.files.formats import SUFFIXES, WRITERS, json_lines, lots, text_lines
from headrace.files.places import Place, beyond
from headrace.records import Records

NAME = re.compile(r"(\d{19})-(\d{19})\.\w+")
LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Parts:
    """All parts below a folder. `format` is one of SUFFIXES."""

    folder: Path
    format: str

    def of(self, place: Place) -> Path:
        return self.folder / place[0] / str(place[1])

    def open(self, place: Place) -> int | None:
        """Where the partition goes on. What was not finished is removed."""
        folder = self.of(place)
        if not folder.is_dir():
            return None
        with locked(folder / LOCK):
            for left in folder.glob(f"{TEMPORARY}*"):
                left.unlink()
            return self._next(folder)

    def put(self, place: Place, records: Sequence[Records], end: int) -> None:
        """Records of one partition, up to the offset `end`, but for those that are in a part already."""
        folder = self.of(place)
        make_folder(folder)
        with locked(folder / LOCK):
            stored = self._next(folder)
            if stored is not None:
                records = [beyond(each, {place: stored}, {place: end}) for each in records]
            records = [each for each in records if len(each)]
            if not records or (stored is not None and stored >= end):
                return
            starts = [int(each.offsets.min()) for each in records if each.offsets is not None]
            first = min(starts) if stored is None else stored
            if self.format not in WRITERS:
                lines = (text_lines if self.format == "text" else json_lines)(records)
                self._part(folder, first, end, lambda stream: stream.write(lines))
                return
            for lot in lots(records, end):
                self._part(folder, first, lot.next, partial(WRITERS[self.format], rows=lot.rows, shape=lot.shape,
                                                            topic=place[0]))
                first = lot.next

    def _part(self, folder: Path, first: int, next_: int, write: Callable[[BinaryIO], object]) -> None:
        write_whole(folder / f"{first:019}-{next_:019}{SUFFIXES[self.format]}", write)

    def _next(self, folder: Path) -> int | None:
        ends = [int(found[2]) for path in folder.iterdir() if (found := NAME.fullmatch(path.name))]
        return max(ends, default=None)
