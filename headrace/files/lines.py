"""Text as lines, each a string: what Kafka Connect's FileStreamSource reads, a block at a time.

A line ends with a line feed, a carriage return, or both. Empty lines are lines. One that is longer than
RECORD_BYTES_MAX, or not UTF-8, is bad by itself, and its neighbours go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace.batch import Index
from headrace.errors import UserError
from headrace.ingest import Bad
from headrace.ingest.text import BLOCK_BYTES, KEPT_BYTES, RECORD_BYTES_MAX

NEWLINE, RETURN = 10, 13


@dataclass(frozen=True, slots=True)
class Lines:
    """Some lines of a file. `at` is the byte each begins at, and `bad` has the same in its `at`."""

    values: pa.Array
    at: Index
    bad: tuple[Bad, ...]
    byte: int
    """Where the next line begins."""
    raw: Callable[[int], bytes] = field(repr=False)


class LineReader:
    """Reads a file's lines from a byte on. `grows`: what has no line end yet is no line yet."""

    def __init__(self, path: Path, *, byte: int = 0, grows: bool = False) -> None:
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        self.path, self.grows = path, grows
        self.byte = byte
        self._check_size()
        self.stream = path.open("rb")
        self.stream.seek(byte)
        self._load(b"", last=False)

    def _check_size(self) -> None:
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < self.byte:
            raise UserError(f"{self.path} has {size:,} bytes, and {self.byte:,} were read before: it is another file "
                            "now", hint="--reset begins at its start")

    def _load(self, data: bytes, *, last: bool) -> None:
        """`data` begins at the next line; `last`: nothing comes after it, and its rest is a line, too."""
        self._data, self._from, self._at = data, 0, 0
        buffer = np.frombuffer(data, dtype=np.uint8)
        ends = np.flatnonzero(buffer == NEWLINE) + 1
        if b"\r" in data:
            returns = np.flatnonzero(buffer == RETURN) + 1
            if len(returns) and returns[-1] == len(data) and not last:
                returns = returns[:-1]  # its \n may be yet to come
            alone = returns[buffer[np.minimum(returns, len(buffer) - 1)] != NEWLINE]
            ends = np.union1d(ends, alone)
        if last and data and (not len(ends) or ends[-1] < len(data)):
            ends = np.append(ends, len(data))
        self._ends = ends

    def read(self, records_max: int) -> Lines | None:
        """The next lines; None at the end or, where the file grows, when there is no whole one yet. Raises UserError
        for a file that is shorter now."""
        while self._at >= len(self._ends):
            rest = self._data[self._from:]
            block = self.stream.read(BLOCK_BYTES)
            if block:
                self._load(rest + block, last=False)
                if not len(self._ends) and len(self._data) > RECORD_BYTES_MAX:
                    return self._endless()
            elif self.grows or not rest:
                if self.grows:
                    self._check_size()
                return None
            else:
                self._load(rest, last=True)
        return self._cut(records_max)

    def _cut(self, records_max: int) -> Lines:
        ends = self._ends[self._at:self._at + records_max].astype(np.int64)
        starts = np.concatenate(([self._from], ends[:-1]))
        buffer = np.frombuffer(self._data, dtype=np.uint8)
        stops = ends - (buffer[ends - 1] == NEWLINE)
        stops = stops - ((stops > starts) & (buffer[np.maximum(stops - 1, 0)] == RETURN))
        data, at, before = self._data, self.byte + starts - self._from, self._from
        self._at += len(ends)
        self.byte += int(ends[-1]) - self._from
        self._from = int(ends[-1])
        offsets = np.concatenate(([0], np.cumsum(stops - starts))).astype(np.int32)
        text = data[before:self._from].translate(None, b"\r\n")  # every one of them is part of a line end
        values = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(text))

        def raw(i: int) -> bytes:
            return data[int(starts[i]):int(stops[i])]

        try:
            values.validate(full=True)
            return Lines(values, at, (), self.byte, raw)
        except pa.ArrowInvalid:
            reasons = {i: why for i in range(len(ends)) if (why := _not_text(raw(i)))}
        good = np.setdiff1d(np.arange(len(ends)), list(reasons))
        bad = tuple(Bad(int(at[i]), raw(i), (why,)) for i, why in reasons.items())
        return Lines(values.take(pa.array(good)), at[good], bad, self.byte, lambda i: raw(int(good[i])))

    def _endless(self) -> Lines:
        """Gives up on one line, and goes on with the next."""
        rest, begun = self._data, self.byte
        kept = rest[:KEPT_BYTES]
        while not (ends := [at for at in (rest.find(b"\n"), rest.find(b"\r")) if at >= 0]):
            self.byte += len(rest)
            rest = self.stream.read(BLOCK_BYTES)
            if not rest:
                break
        end = min(ends) + 1 if ends else 0
        end += rest[end - 1:end + 1] == b"\r\n"
        self.byte += end
        self._load(rest[end:], last=False)
        bad = Bad(begun, kept, (f"a line that does not end within {RECORD_BYTES_MAX:,} bytes",))
        none = np.array([], dtype=np.int64)
        return Lines(pa.array([], pa.string()), none, (bad,), self.byte, lambda i: b"")

    def close(self) -> None:
        self.stream.close()


def _not_text(raw: bytes) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte {error.start + 1}"
    return ""
