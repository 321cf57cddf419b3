"""Writing Avro's bytes a column at a time: first every value's size, then one numpy pass per field over all records.

A `Piece` is one field of all records: the bytes each value takes, and what writes them at given positions into a buffer
of zeros. Pieces nest as the schema does, and a record's size is the sum of its pieces' sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.codec.wire import I64, PAD

U8 = npt.NDArray[np.uint8]
Size = I64 | int
"""Bytes per value; one number where all are alike."""

LONG_BYTES = 256
"""From this length on a value is copied by itself; shorter ones word by word, all records at once."""


class Out:
    """A buffer of zeros for `size` bytes, with room after it to write whole words."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.buf: U8 = np.zeros(size + PAD, np.uint8)

    def window(self, kind: str) -> npt.NDArray[Any]:
        """A view in which element i is the `kind` that begins at byte i."""
        width = np.dtype(kind).itemsize
        return np.ndarray((self.buf.size - width + 1,), kind, self.buf.data, 0, (1,))


@dataclass(frozen=True, slots=True)
class Piece:
    """`write(out, at)` puts the values at these positions; the caller knows from `size` where they end."""

    size: Size
    write: Callable[[Out, I64], None]


NOTHING = Piece(0, lambda out, at: None)


def total(sizes: Sequence[Size]) -> Size:
    """The sum, position by position; the plain numbers are added first."""
    many = [s for s in sizes if not isinstance(s, int)]
    plain = sum(s for s in sizes if isinstance(s, int))
    if not many:
        return plain
    first = many[0] + plain
    for more in many[1:]:
        first += more
    return first


def constant(value: bytes) -> Piece:
    """The same bytes in every record."""
    def write(out: Out, at: I64) -> None:
        for k, byte in enumerate(value):
            if byte:
                out.buf[at + k] = byte
    return Piece(len(value), write)


def chain(pieces: Sequence[Piece]) -> Piece:
    """One piece after another."""
    def write(out: Out, at: I64) -> None:
        for piece in pieces:
            piece.write(out, at)
            at = at + piece.size
    return Piece(total([p.size for p in pieces]), write)


def bytes_column(values: npt.NDArray[Any]) -> Piece:
    """One byte each."""
    def write(out: Out, at: I64) -> None:
        out.buf[at] = values
    return Piece(1, write)


def wide_column(values: npt.NDArray[Any]) -> Piece:
    """Numbers of four or eight bytes, little-endian."""
    kind = values.dtype.newbyteorder("<").str

    def write(out: Out, at: I64) -> None:
        out.window(kind)[at] = values
    return Piece(values.dtype.itemsize, write)


def varint_column(values: npt.NDArray[Any]) -> Piece:
    """Zig-zag varints."""
    long = values.astype(np.int64, copy=False)
    z: npt.NDArray[Any] = ((long << 1) ^ (long >> 63)).view(np.uint64)
    top = int(z.max()) if len(z) else 0
    if top < 1 << 7:
        return bytes_column(z.astype(np.uint8))
    if top < 1 << 14:
        return _two_bytes(z.astype(np.uint16))
    if top < 1 << 32:
        z = z.astype(np.uint32)
    size = np.ones(len(z), np.int64)
    longest = 1
    while longest < 10 and top >> (7 * longest):
        size += z >= z.dtype.type(1 << (7 * longest))
        longest += 1

    def write(out: Out, at: I64) -> None:
        for k in range(longest):
            which = np.flatnonzero(size > k) if k else slice(None)
            byte = (z[which] >> z.dtype.type(7 * k)).astype(np.uint8) & 127
            out.buf[at[which] + k] = byte | ((size[which] > k + 1).view(np.uint8) << 7)
    return Piece(size, write)


def _two_bytes(z: npt.NDArray[np.uint16]) -> Piece:
    """Varints of one or two bytes, which most are."""
    more = z > 127
    size = more + np.int64(1)

    def write(out: Out, at: I64) -> None:
        out.buf[at] = (z & 127).astype(np.uint8) | (more.view(np.uint8) << 7)
        if more.all():
            out.buf[at + 1] = (z >> 7).astype(np.uint8)
        else:
            which = np.flatnonzero(more)
            out.buf[at[which] + 1] = (z[which] >> 7).astype(np.uint8)
    return Piece(size, write)


def spans_column(data: U8, start: I64, size: I64) -> Piece:
    """A length and that many bytes of `data` each."""
    length = varint_column(size)

    def write(out: Out, at: I64) -> None:
        length.write(out, at)
        copy_spans(out, at + length.size, data, start, size)
    return Piece(size + length.size, write)


def fixed_column(data: U8, start: I64, size: int) -> Piece:
    """`size` bytes of `data` each."""
    return Piece(size, lambda out, at: copy_spans(out, at, data, start, np.full(len(at), size, np.int64)))


def copy_spans(out: Out, at: I64, data: U8, start: I64, size: I64) -> None:
    """Copy `size` bytes from data[start] to out[at], for all positions: whole words first, then single bytes."""
    longest = int(size.max()) if len(size) else 0
    if longest > LONG_BYTES:
        long = size > LONG_BYTES
        for a, s, n in zip(at[long].tolist(), start[long].tolist(), size[long].tolist(), strict=True):
            out.buf[a:a + n] = data[s:s + n]
        at, start, size = at[~long], start[~long], size[~long]
        longest = int(size.max()) if len(size) else 0
    shortest = int(size.min()) if len(size) else 0
    if longest >= 8:
        source = np.ndarray((data.size - 7,), np.uint64, data, 0, (1,))
        target = out.window("=u8")
        for k in range(0, longest - 7, 8):
            if shortest >= k + 8:
                target[at + k] = source[start + k]
            else:
                which = np.flatnonzero(size >= k + 8)
                target[at[which] + k] = source[start[which] + k]
    done = size & ~7
    rest = size - done
    at, start = at + done, start + done
    least, most = (int(rest.min()), int(rest.max())) if len(rest) else (0, 0)
    for k in range(most):
        if least > k:
            out.buf[at + k] = data[start + k]
        else:
            which = np.flatnonzero(rest > k)
            out.buf[at[which] + k] = data[start[which] + k]


def scattered(parts: Sequence[tuple[I64 | None, int, Piece]], n: int) -> Piece:
    """A union: each part has the records that carry it (None: all), its branch number and its values."""
    size = np.ones(n, np.int64)
    for which, _, piece in parts:
        if which is None:
            size = size + piece.size
        else:
            size[which] += piece.size

    def write(out: Out, at: I64) -> None:
        for which, branch, piece in parts:
            there = at if which is None else at[which]
            if branch:
                out.buf[there] = 2 * branch
            piece.write(out, there + 1)
    return Piece(size, write)


def blocks(count: I64, items: Piece) -> Piece:
    """Arrays and maps: the count, the items, which stand one after another in `items`, and a zero."""
    some = np.flatnonzero(count)
    header = varint_column(count[some])
    before = np.zeros(len(count) + 1, np.int64)
    np.cumsum(count, out=before[1:])
    each = np.full(int(before[-1]), items.size, np.int64) if isinstance(items.size, int) else items.size
    upto = np.zeros(len(each) + 1, np.int64)
    np.cumsum(each, out=upto[1:])
    size = 1 + upto[before[1:]] - upto[before[:-1]]
    size[some] += header.size

    def write(out: Out, at: I64) -> None:
        header.write(out, at[some])
        base = at.copy()
        base[some] += header.size
        items.write(out, np.repeat(base - upto[before[:-1]], count) + upto[:-1])
    return Piece(size, write)
