"""What Java writes where Python and Arrow write otherwise: numbers as text, and the order of a HashMap."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.lean import numbers_of

PLAIN_FROM, PLAIN_TO = 1e-3, 1e7
"""Between these (the second exclusive) Java writes a float without an exponent."""


def floats(values: pa.Array) -> pa.StringArray:
    """Float.toString or Double.toString of each: 1.0, 1.0E7, NaN. Nulls stay null."""
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    text = values.cast(pa.string())
    whole = pc.invert(pc.match_substring_regex(text, "[^-0-9]"))
    text = pc.if_else(whole, pc.binary_join_element_wise(text, ".0", ""), text)
    size = np.abs(values.to_numpy(zero_copy_only=False))
    odd = np.flatnonzero(~((size >= PLAIN_FROM) & (size < PLAIN_TO) | (size == 0) | np.isnan(size)
                           ) | (np.isnan(size) & values.is_valid().to_numpy(zero_copy_only=False)))
    if not len(odd):
        return text
    mask = np.zeros(len(values), np.bool_)
    mask[odd] = True
    kind = numbers_of(values.type).type
    written = [_scientific(kind(each)) for each in values.take(pa.array(odd)).to_pylist()]
    return pc.replace_with_mask(text, pa.array(mask), pa.array(written, pa.string()))


def _scientific(value: np.floating) -> str:
    """A float that needs an exponent, or is no number."""
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    text: str = np.format_float_scientific(value, unique=True, trim="0", exp_digits=1)
    mantissa, _, exponent = text.partition("e")
    if len(mantissa.lstrip("-")) == 3 and mantissa.endswith(".0"):  # of two digits, Java takes those nearest
        mantissa, _, exponent = np.format_float_scientific(value, precision=1, unique=False, exp_digits=1
                                                           ).partition("e")
    return f"{mantissa}E{int(exponent)}"


@lru_cache(maxsize=65536)
def string_hash(text: str) -> int:
    """String.hashCode, as an unsigned number."""
    units = text.encode("utf-16-be", "surrogatepass")
    found = 0
    for at in range(0, len(units), 2):
        found = (31 * found + (units[at] << 8 | units[at + 1])) & 0xFFFFFFFF
    return found


def _table(n: int) -> int:
    """The size of a HashMap's table once n entries were put into it."""
    size = 16
    while n * 4 > size * 3:
        size *= 2
    return size


@lru_cache(maxsize=4096)
def _order(names: tuple[str, ...]) -> tuple[int, ...]:
    mask = _table(len(names)) - 1
    hashes = [string_hash(name) for name in names]
    return tuple(sorted(range(len(names)), key=lambda at: (hashes[at] ^ hashes[at] >> 16) & mask))


def order(names: Sequence[str]) -> tuple[int, ...]:
    """Positions in the order in which a HashMap that these were put into one by one gives them."""
    return _order(tuple(names))


def entries_order(keys: pa.Array, counts: np.ndarray) -> np.ndarray | None:
    """Positions of the entries of many maps, each map's in a HashMap's order; None where the keys have no hash here.

    `keys`: of all maps, one after another; `counts`: how many each map has.
    """
    hashes = _hashes(keys)
    if hashes is None:
        return None
    masks = np.array([_table(each) - 1 for each in range(int(counts.max(initial=0)) + 1)], np.int64)[counts]
    bucket = (hashes ^ hashes >> 16) & np.repeat(masks, counts)
    return np.lexsort((bucket, np.repeat(np.arange(len(counts)), counts)))


def _hashes(keys: pa.Array) -> np.ndarray | None:
    """hashCode of each key, as an unsigned number: of text, integers and booleans."""
    kind = keys.type
    if keys.null_count:
        return None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        coded = keys.dictionary_encode()
        known = np.array([string_hash(each) for each in coded.dictionary.to_pylist()], np.int64)
        found: np.ndarray = known[coded.indices.to_numpy()] if len(keys) else np.zeros(0, np.int64)
        return found
    if pa.types.is_boolean(kind):
        return np.where(keys.to_numpy(zero_copy_only=False).astype(bool), 1231, 1237)
    if pa.types.is_signed_integer(kind):
        number: np.ndarray = keys.cast(pa.int64()).to_numpy()
        return (number ^ (number >> 32 if kind == pa.int64() else 0)) & 0xFFFFFFFF
    return None
