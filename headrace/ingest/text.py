"""Text cut into records: lines, or, where quotes hold line ends together, the records of a CSV file.

Cutting is bounded: a record of more than RECORD_BYTES_MAX is bad by itself, and what follows it goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import methodcaller
from typing import BinaryIO

import numpy as np

from headrace.batch import Index
from headrace.ingest.piece import Bad

BLOCK_BYTES = 4 << 20
RECORD_BYTES_MAX = 16 << 20
KEPT_BYTES = 1000
"""So much of an endless record is kept, to show."""
BOM = b"\xef\xbb\xbf"
NEWLINE, RETURN, SPACES = 10, 13, (32, 9, 11, 12, 13)


@dataclass(frozen=True, slots=True)
class Cut:
    """Whole records of one block, blank lines left out: record i is data[starts[i]:ends[i]], without its line end."""

    data: bytes
    starts: Index
    ends: Index
    lines: Index
    """The line each begins on, from 1."""
    bad: tuple[Bad, ...]
    byte: int
    """Where in the file the next record begins."""
    line: int
    """The line it begins on."""

    def __len__(self) -> int:
        return len(self.starts)

    def raw(self, i: int) -> bytes:
        return self.data[int(self.starts[i]):int(self.ends[i])]

    def raws(self) -> list[bytes]:
        return list(map(self.data.__getitem__, map(slice, self.starts.tolist(), self.ends.tolist())))

    def block(self) -> bytes:
        """The records with one line end each, ready for a parser."""
        if len(self) and (self.starts[1:] == self.ends[:-1] + 1).all():  # nothing left out, no carriage returns
            return self.data[int(self.starts[0]):int(self.ends[-1])] + b"\n"
        return b"\n".join([*self.raws(), b""])


def record_pattern(delimiter: str) -> re.Pattern[bytes]:
    """One CSV record with its line end. A quote opens a cell only at the cell's start, as in RFC 4180."""
    d = re.escape(delimiter.encode())
    cell = rb'(?:"(?:[^"]++|"")*+"[^%b\n]*+|[^"%b\n][^%b\n]*+|)' % (d, d, d)
    return re.compile(rb"%b(?:%b%b)*+\n" % (cell, d, cell))


class Cutter:
    """Cuts a stream from a byte on, by lines or by `pattern`. `grows`: what has no line end yet is no record yet."""

    def __init__(self, stream: BinaryIO, *, byte: int = 0, line: int = 1, pattern: re.Pattern[bytes] | None = None,
                 grows: bool = False) -> None:
        self.pattern, self.grows = pattern, grows
        self.read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)  # what is there, without waiting
        self.byte, self.line = byte, line  # of the next record; the two of a Position
        self._load(b"")

    def _load(self, data: bytes) -> None:
        """`data` begins at the next record, self.byte."""
        self._data, self._from, self._at = data, 0, 0
        buffer = np.frombuffer(data, dtype=np.uint8)
        self._newlines = np.flatnonzero(buffer == NEWLINE)
        if self.pattern is None or b'"' not in data:
            self._ends = self._newlines + 1
        else:
            matches = iter(self.pattern.scanner(data).match, None)  # type: ignore[attr-defined]
            self._ends = np.fromiter(map(methodcaller("end"), matches), dtype=np.int64)

    def next(self, records_max: int) -> Cut | None:
        """Up to `records_max` records; None at the end, or, where the stream grows, when there is no whole one yet."""
        while self._at >= len(self._ends):
            rest = self._data[self._from:]
            block = self.read(BLOCK_BYTES)
            if block:
                self._load(rest + block)
                if not len(self._ends) and len(self._data) > RECORD_BYTES_MAX:
                    return self._endless(f"a record that does not end within {RECORD_BYTES_MAX:,} bytes")
            elif self.grows or not rest:
                return None
            else:
                self._load(rest + b"\n")
                if not len(self._ends):
                    self._load(rest)
                    return self._endless("a quote that is never closed")
                self._data = rest  # the line end was not there: nothing of it may count
                self._ends[-1] = len(rest)
        return self._cut(records_max)

    def _cut(self, records_max: int) -> Cut:
        ends = self._ends[self._at:self._at + records_max]
        starts = np.concatenate(([self._from], ends[:-1]))
        lines = self.line + np.searchsorted(self._newlines, starts) - np.searchsorted(self._newlines, self._from)
        self._at += len(ends)
        self.byte += int(ends[-1]) - self._from
        self.line += int(np.searchsorted(self._newlines, ends[-1]) - np.searchsorted(self._newlines, self._from))
        self._from = int(ends[-1])
        buffer = np.frombuffer(self._data, dtype=np.uint8)
        stops = ends - (buffer[ends - 1] == NEWLINE)
        stops = stops - ((stops > starts) & (buffer[np.maximum(stops - 1, 0)] == RETURN))
        kept = stops > starts
        if self.pattern is None:  # a line of spaces is as blank as an empty one
            spaced = np.flatnonzero(kept & np.isin(buffer[np.minimum(starts, len(buffer) - 1)], SPACES)).tolist()
            kept[[i for i in spaced if not self._data[starts[i]:stops[i]].strip()]] = False
        return Cut(self._data, starts[kept], stops[kept], lines[kept], (), self.byte, self.line)

    def _endless(self, reason: str) -> Cut:
        """Gives up on one line, and goes on with the next."""
        rest = self._data[self._from:]
        raw, line = rest[:KEPT_BYTES].partition(b"\n")[0].rstrip(b"\r"), self.line
        while (end := rest.find(b"\n") + 1) == 0:
            self.byte += len(rest)
            rest = self.read(BLOCK_BYTES)
            if not rest:
                break
        self.byte += end
        self.line += 1
        self._load(rest[end:])
        none = np.array([], dtype=np.int64)
        return Cut(b"", none, none, none, (Bad(line, raw, (reason,)),), self.byte, self.line)
