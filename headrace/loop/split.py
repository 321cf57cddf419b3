"""Who is served by which arm: a salted hash of the key, the same on every machine, in every version, for ever.

    arms = assign(rows["tailnum"], "flight-delay/7", {"champion": 0.9, "challenger": 0.1})

The hash is FNV-1a of 64 bits over salt, NUL and key, finished by MurmurHash3's mixer: Python's, Polars' and Arrow's own
hashes differ between versions. A pass of numpy reads one byte of all keys at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import SchemaError, UserError

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
KEY_BYTES_MAX = 1024
"""Bytes beyond these do not count, so that one huge key cannot stall a batch."""

_BASIS, _PRIME = 0xCBF29CE484222325, np.uint64(0x100000001B3)
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_SHIFT = np.uint64(33)


def assign(keys: pa.Array | pa.ChunkedArray, salt: str, shares: Mapping[str, float]) -> pa.Array:
    """An arm's name a row; null where the key is null: such a row sticks to nothing and belongs in no test.

    `shares` are fractions that add up to 1, the champion first. Its part lies between the others', so that with two or
    three arms a changed share moves only keys of the arms that shrink to the arms that grow, and as few as possible.
    Another salt deals anew. Whole numbers are equal at any width; text and number are not equal to each other.
    Raises UserError (shares that are none), SchemaError (keys of a type that cannot be one).
    """
    names, ends = _ends(shares)
    part = np.searchsorted(ends, points(keys, salt), side="right")
    codes = pa.array(part, pa.int32(), mask=pc.is_null(keys).to_numpy(zero_copy_only=False))
    return pa.DictionaryArray.from_arrays(codes, pa.array(names)).cast(pa.string())


def points(keys: pa.Array | pa.ChunkedArray, salt: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Where in [0, 1) each key lies: float64, a number a row, multiples of 2^-53. Null lies somewhere, too."""
    state = fnv1a(keys, int(_fnv_bytes(salt.encode() + b"\0")))
    for factor in _MIX:
        state ^= state >> _SHIFT
        state *= factor
    state ^= state >> _SHIFT
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def fnv1a(keys: pa.Array | pa.ChunkedArray, start: int = _BASIS) -> Hashes:
    """FNV-1a of each key's bytes: text in UTF-8, whole numbers as eight bytes, little-endian. Raises SchemaError."""
    data, starts, lengths = _bytes(keys)
    state = np.full(len(starts), start, dtype=np.uint64)
    order = np.argsort(-lengths, kind="stable")  # long ones first: who still has a byte is then a prefix
    starts, lengths = starts[order], lengths[order]
    longest = int(lengths[0]) if len(lengths) else 0
    alive = np.searchsorted(-lengths, -np.arange(longest), side="left")
    for at, n in enumerate(alive.tolist()):
        state[:n] = (state[:n] ^ data[starts[:n] + at]) * _PRIME
    out = np.empty_like(state)
    out[order] = state
    return out


def _fnv_bytes(raw: bytes) -> np.uint64:
    return np.uint64(fnv1a(pa.array([raw], pa.binary()))[0])


def _bytes(keys: pa.Array | pa.ChunkedArray) -> tuple[Any, Any, Any]:
    """(all bytes, where each key starts, how long it is)."""
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    if pa.types.is_dictionary(keys.type):
        keys = keys.dictionary_decode()
    if pa.types.is_integer(keys.type):
        whole = pc.fill_null(keys, 0).to_numpy(zero_copy_only=False)
        wide = whole.astype("<u8" if keys.type == pa.uint64() else "<i8")
        return wide.view(np.uint8), np.arange(len(wide), dtype=np.int64) * 8, np.full(len(wide), 8, dtype=np.int64)
    try:
        raw = pc.cast(keys, pa.large_binary())
    except pa.ArrowException as error:
        raise SchemaError(f"a key of type {keys.type} cannot be split by",
                          hint="take text, bytes or whole numbers; `derive` can make one of other columns") from error
    _, offsets, data = raw.buffers()
    edges = np.frombuffer(offsets, dtype=np.int64, count=len(raw) + 1, offset=8 * raw.offset)
    held = np.frombuffer(data, dtype=np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    return held, edges[:-1], np.minimum(np.diff(edges), KEY_BYTES_MAX)


def _ends(shares: Mapping[str, float]) -> tuple[list[str], list[float]]:
    """The arms in their order on the line, and where each but the last ends. Raises UserError."""
    if not shares or not all(math.isfinite(s) and 0 <= s <= 1 for s in shares.values()) \
            or abs(math.fsum(shares.values()) - 1) > 1e-9:
        said = ", ".join(f"{name} {share}" for name, share in shares.items()) or "none"
        raise UserError(f"shares are fractions that add up to 1, not {said}", hint="e.g. champion 0.9, challenger 0.1")
    champion, *others = shares
    names = [*others[1:], champion, *others[:1]]
    return names, [math.fsum(shares[n] for n in names[:at]) for at in range(1, len(names))]
