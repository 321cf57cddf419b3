"""Reading Avro's bytes a column at a time: one numpy pass reads the same field of every record of a batch.

The payloads of a batch lie one after another in one buffer. A pass takes the position of each record's next byte
(`at`), and gives the values and the positions after them. Nothing here raises for bad bytes: the record is marked with
a fault, its position stays inside the buffer, and the passes go on over what is garbage for that record alone.

Positions only grow, so a record that ends exactly where its payload ends was inside its own bytes all the time: one
comparison at the end finds every truncated and every over-long payload.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]
Rows = I64 | None
"""Which record each position belongs to; None: position i belongs to record i."""

PAD = 32
"""Zero bytes after the last payload, so that a whole word can be read at any position."""

FAULTS = {
    1: "corrupt: a varint is longer than 64 bits",
    2: "corrupt: a length or an item count is negative or reaches past the end of the record",
    3: "corrupt: a union's branch number is out of range",
    4: "corrupt: an enum's symbol number is out of range",
    5: "corrupt: a string is not UTF-8",
    6: "corrupt: a number is out of the range of its type",
    7: "corrupt: a block's size is not the size of its items",
    8: "corrupt: more than 1,000 items that take no bytes",
    9: "incompatible_schema: the symbol is not in the schema that is read with",
    10: "corrupt: the record ends before its last field",
    11: "trailing_bytes: there are bytes after the record's last field",
}
VARINT, LENGTH, BRANCH, SYMBOL, TEXT, RANGE, BLOCK, EMPTY_ITEMS, UNKNOWN_SYMBOL, TRUNCATED, TRAILING = FAULTS
OWN_FAULTS = 32
"""Faults from here on are a plan's own: `plan.texts[fault - OWN_FAULTS]`."""

_ONE, _HIGH = np.uint64(1), np.uint64(0x8080808080808080)
_GROUPS = tuple((np.uint64(low), np.uint64(high), np.uint64(shift)) for low, high, shift in (
    (0x007F007F007F007F, 0x7F007F007F007F00, 1), (0x00003FFF00003FFF, 0x3FFF00003FFF0000, 2),
    (0x000000000FFFFFFF, 0x0FFFFFFF00000000, 4)))
_SMALL = np.array([(z >> 1) ^ -(z & 1) for z in range(256)], np.int64)


class Verdicts:
    """The first fault found in each record of a batch; 0 for none."""

    def __init__(self, n: int) -> None:
        self.fault = np.zeros(n, np.uint16)

    def mark(self, which: npt.NDArray[Any], row: Rows, fault: int) -> None:
        """Records at `which` (a mask or positions into the pass) have this fault, unless they have one already."""
        rows = (np.flatnonzero(which) if which.dtype == np.bool_ else which) if row is None else row[which]
        rows = rows[self.fault[rows] == 0]
        self.fault[rows] = fault


class Payloads(Verdicts):
    """The bytes of a batch: `buf` (padded by PAD), the end of each record, and the fault of each."""

    def __init__(self, data: pa.Buffer, limit: int, end: I64) -> None:
        """`data` has at least PAD bytes after `limit`, the end of the last payload."""
        assert data.size >= limit + PAD, "a buffer without its padding"
        self.data = data
        self.buf: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8)
        self.limit = limit
        self.beyond = limit + 1
        self.end = end
        super().__init__(len(end))

    def window(self, kind: str) -> npt.NDArray[Any]:
        """A view in which element i is the `kind` ("<u8", "<f4", …) that begins at byte i."""
        width = np.dtype(kind).itemsize
        return np.ndarray((self.buf.size - width + 1,), kind, self.data, 0, (1,))

    @cached_property
    def words(self) -> U64:
        return self.window("<u8")

    @cached_property
    def stops(self) -> I64:
        """The positions of bytes below 128, which end every varint."""
        return np.flatnonzero(self.buf[:self.limit] < 128)

    def ends(self, row: Rows) -> I64:
        return self.end if row is None else self.end[row]

    def within(self, at: I64) -> I64:
        """The same positions, held inside the buffer but past the end of every record; in place."""
        return np.minimum(at, self.beyond, out=at)


def read_varint(p: Payloads, at: I64, row: Rows) -> tuple[I64, I64]:
    """Zig-zag varints: values, and the positions after them."""
    first = p.buf[at]
    more = first > 127
    if not more.any():
        return _SMALL[first], p.within(at + 1)
    second = p.buf[at + 1]
    if not (more & (second > 127)).any():
        wide = (first & 127) | (second.astype(np.uint16) << 7) * more
        return (wide >> 1).astype(np.int64) ^ -(wide & 1).astype(np.int64), p.within(at + 1 + more)
    return _read_long(p, at, row)


def _read_long(p: Payloads, at: I64, row: Rows) -> tuple[I64, I64]:
    """Eight bytes at once: the first byte without its high bit ends it, then the groups of seven bits are joined."""
    word = p.words[at]
    stop = ~word & _HIGH
    below = (stop & (~stop + _ONE)) - _ONE  # all bits below the lowest stop bit; all ones without a stop
    z = word & below & ~_HIGH
    for low, high, shift in _GROUPS:
        z = (z & low) | ((z & high) >> shift)
    size = (np.bitwise_count(below).astype(np.int64) + 1) >> 3
    if not stop.all():
        long = np.flatnonzero(stop == 0)
        ninth, tenth = (p.buf[at[long] + k].astype(np.uint64) for k in (8, 9))
        two = ninth > 127
        p.mark(long[two & (tenth > 1)], row, VARINT)
        z[long] |= (ninth & np.uint64(127)) << np.uint64(56) | np.where(two, tenth << np.uint64(63), 0)
        size[long] = 9 + two
    return (z >> _ONE).view(np.int64) ^ -(z & _ONE).view(np.int64), p.within(at + size)


def read_span(p: Payloads, at: I64, row: Rows) -> tuple[tuple[I64, I64], I64]:
    """A length and that many bytes: their starts and ends, and the positions after them."""
    size, start = read_varint(p, at, row)
    over = size.view(np.uint64) > np.maximum(p.ends(row) - start, 0).view(np.uint64)  # negative ones are huge here
    if over.any():
        p.mark(over, row, LENGTH)
        size[over] = 0
    end = start + size
    return (start, end), end


def read_fixed(p: Payloads, at: I64, row: Rows, size: int) -> tuple[I64, I64]:
    """`size` bytes: their starts (0 where the record is too short), and the positions after them."""
    end = at + size
    over = end > p.ends(row)
    if over.any():
        p.mark(over, row, TRUNCATED)
        at = np.where(over, 0, at)
    return at, p.within(end)


def cut(p: Payloads, start: I64, end: I64) -> pa.Array:
    """The bytes between `start` and `end` as a binary array, copied together by Arrow.

    The offsets are start₀ end₀ start₁ end₁ …, and every second slice is taken.
    """
    n = len(start)
    offsets = np.empty(2 * n + 1, np.int32)
    offsets[0:-1:2], offsets[1:-1:2], offsets[-1] = start, end, p.data.size
    both = pa.Array.from_buffers(pa.binary(), 2 * n, [None, pa.py_buffer(offsets), p.data])
    return both.take(pa.array(np.arange(0, 2 * n, 2)))
