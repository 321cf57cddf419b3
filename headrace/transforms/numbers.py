"""Numbers and text as Java has them: parsing, narrowing, and what `toString` says."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

import numpy as np

BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
_WHOLE = re.compile(r"[+-]?\d+")
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_FLOAT = re.compile(r"([+-]?)(?:(NaN)|(Infinity)|((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[fFdD]?|"
                    r"(0[xX](?:[0-9a-fA-F]+\.?|[0-9a-fA-F]*\.[0-9a-fA-F]+)[pP][+-]?[0-9]+)[fFdD]?)")
SPACE = "".join(map(chr, range(33)))
"""What Java's `trim` takes away."""


def wrapped(value: int, bits: int) -> int:
    """The low bits of a whole number, as Java's narrowing keeps them."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def big_decimal(text: str) -> Decimal | None:
    """`new BigDecimal(text)`; None where Java would throw."""
    return Decimal(text) if _DECIMAL.fullmatch(text) else None


def parse_whole(text: str, kind: str) -> int | None:
    """`Byte.parseByte` … `Long.parseLong`; None where Java would throw."""
    if not _WHOLE.fullmatch(text):
        return None
    value = int(text)
    return value if wrapped(value, BITS[kind]) == value else None


def parse_float(text: str) -> float | None:
    """`Double.parseDouble`; None where Java would throw."""
    found = _FLOAT.fullmatch(text.strip(SPACE))
    if not found:
        return None
    sign, nan, infinity, decimal, hexadecimal = found.groups()
    if nan:
        return math.nan
    try:
        size = math.inf if infinity else float(decimal) if decimal else float.fromhex(hexadecimal)
    except OverflowError:
        size = math.inf
    return -size if sign == "-" else size


def float_text(value: float, *, single: bool) -> str:
    """`Double.toString`, or `Float.toString` of a `single`: the shortest digits that read back the same, two at
    least."""
    if math.isnan(value):
        return "NaN"
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    value = abs(value)
    if math.isinf(value):
        return sign + "Infinity"
    if value == 0:
        return sign + "0.0"
    digits, power = _shortest(value, single)
    if 1e-3 <= value < 1e7:
        if power < 0:
            return f"{sign}0.{'0' * (-power - 1)}{digits}"
        whole, rest = digits[:power + 1].ljust(power + 1, "0"), digits[power + 1:]
        return f"{sign}{whole}.{rest or '0'}"
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{power}"


def _shortest(value: float, single: bool) -> tuple[str, int]:
    """(digits, power of ten of the first)."""
    kind: Any = np.float32 if single else np.float64
    text = np.format_float_scientific(kind(value), unique=True, trim="-", exp_digits=1)
    mantissa, _, exponent = text.partition("e")
    digits = mantissa.replace(".", "").rstrip(".")
    if len(digits) == 1:  # of those with two digits, Java takes the nearest
        better, _, power = f"{value:.1e}".partition("e")
        with np.errstate(over="ignore", under="ignore"):
            if kind(float(f"{value:.1e}")) == kind(value):
                return better.replace(".", "").rstrip("0") or "0", int(power)
    return digits, int(exponent)
