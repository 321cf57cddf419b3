"""What is kept of an open window: rows added up by whole blocks, those kept for verdicts that need all of them, and the
rows since the last block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headrace.contracts.windows.windowed import KEPT_MAX, Windowed
from headrace.state import View

BLOCK = 4_096
"""Rows are added up by so many, counted from the window's first: so the same rows give the same numbers, to the last
bit, in whatever batches they come."""
PIECE_BYTES_MAX = 1 << 20
"""A value of the state is no longer; a longer one takes several."""
HEAD, KEPT = b"w", b"k"
_ABOVE = 1 << 62
"""Added to a window's number, so that windows before 1970 come first."""


@dataclass(slots=True)
class Held:
    """An open window of one partition."""

    window: int
    rows: int = 0
    first: int = -1
    """The offset of its first record, -1 before there is one; likewise `last`, and `newest` its latest timestamp."""
    last: int = -1
    newest: int = 0
    found: dict[str, Any] = field(default_factory=dict)
    """What is known otherwise of it, in JSON."""
    blocks: int = 0
    """How many blocks of kept rows stand in the state."""
    state: dict[str, bytes] = field(default_factory=dict)
    """Of the whole blocks, none before the first."""
    rest: pa.RecordBatch | None = None
    _fresh: list[pa.RecordBatch] = field(default_factory=list)
    """Blocks that the state does not have yet."""

    def take(self, rows: pa.RecordBatch, offset_first: int, offset_last: int, newest: int, by: Windowed) -> None:
        """More of its rows, in order; they have the columns that `by` reads."""
        self.rows += rows.num_rows
        self.first = offset_first if self.first < 0 else min(self.first, offset_first)
        self.last, self.newest = max(self.last, offset_last), max(self.newest, newest)
        rows = rows.select(list(by.columns)) if by.columns else rows.slice(0, 0)
        if self.rest is not None:
            rows = pa.concat_batches([self.rest, rows])
        at = 0
        while rows.num_rows - at >= BLOCK:
            self._fold(rows.slice(at, BLOCK), by)
            at += BLOCK
        self.rest = rows.slice(at) if at < rows.num_rows else None

    def _fold(self, rows: pa.RecordBatch, by: Windowed) -> None:
        state = by.of(rows)
        self.state = by.merge(self.state, state) if self.state else state
        if by.kept_columns and self.rows <= KEPT_MAX:
            self._fresh.append(rows.select(list(by.kept_columns)))

    def closed(self, view: View, by: Windowed) -> tuple[dict[str, bytes], pa.RecordBatch | None]:
        """The state of all its rows, and the rows kept, None if they were too many."""
        if self.rest is not None:
            self._fold(self.rest, by)
            self.rest = None
        state = self.state or by.of(_none(by))
        return state, self._kept(view, by) if self.rows <= KEPT_MAX else None

    def _kept(self, view: View, by: Windowed) -> pa.RecordBatch:
        raw = [b"".join(piece for _, piece in view.scan(KEPT + place(self.window) + at.to_bytes(4, "big")))
               for at in range(self.blocks)]
        parts = [pa.ipc.open_stream(each).read_next_batch() for each in raw] + self._fresh
        if not parts:
            return _none(by).select(list(by.kept_columns))
        return pa.concat_batches(parts)

    def write(self, view: View) -> None:
        head = {"rows": self.rows, "first": self.first, "last": self.last, "newest": self.newest, "found": self.found,
                "blocks": self.blocks + len(self._fresh), "states": [[k, len(v)] for k, v in self.state.items()]}
        text = json.dumps(head, ensure_ascii=False).encode()
        raw = b"".join((len(text).to_bytes(4, "big"), text, *self.state.values(),
                        b"" if self.rest is None else _stream(self.rest)))
        _put(view, HEAD + place(self.window), raw)
        for at, rows in enumerate(self._fresh, self.blocks):
            _put(view, KEPT + place(self.window) + at.to_bytes(4, "big"), _stream(rows))
        self.blocks, self._fresh = self.blocks + len(self._fresh), []

    def forget(self, view: View) -> None:
        for prefix in (HEAD, KEPT):
            view.delete([key for key, _ in view.scan(prefix + place(self.window))])


def place(window: int) -> bytes:
    """Where a window stands among those that `opened` gives."""
    return (window + _ABOVE).to_bytes(8, "big")


def read(view: View, window: int) -> Held:
    """A window as it is kept; new, when nothing is."""
    pieces = [piece for _, piece in view.scan(HEAD + place(window))]
    return _from_bytes(window, b"".join(pieces)) if pieces else Held(window)


def opened(view: View, before: int) -> list[int]:
    """The windows that are kept and are before this one, in order."""
    found = (key for key, _ in view.scan(HEAD, end=place(before)))
    return list(dict.fromkeys(int.from_bytes(key[len(HEAD):len(HEAD) + 8], "big") - _ABOVE for key in found))


def _put(view: View, key: bytes, raw: bytes) -> None:
    """In pieces, the last of which is shorter than the others; what an older, longer value had beyond is deleted."""
    pieces = list(_pieces(raw))
    keys = [key + at.to_bytes(2, "big") for at in range(len(pieces))]
    view.delete([old for old, _ in view.scan(key) if old > keys[-1]])
    view.put(keys, pieces)


def _pieces(raw: bytes) -> Iterator[bytes]:
    for at in range(0, max(1, len(raw)), PIECE_BYTES_MAX):
        yield raw[at:at + PIECE_BYTES_MAX]


def _none(by: Windowed) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=by.contract.schema)


def _stream(rows: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_batch(rows)
    raw: bytes = sink.getvalue().to_pybytes()
    return raw


def _from_bytes(window: int, raw: bytes) -> Held:
    at = 4 + int.from_bytes(raw[:4], "big")
    head = json.loads(raw[4:at])
    state = {}
    for name, size in head.pop("states"):
        state[name] = raw[at:at + size]
        at += size
    rest = pa.ipc.open_stream(raw[at:]).read_next_batch() if at < len(raw) else None
    return Held(window, state=state, rest=rest, **head)
