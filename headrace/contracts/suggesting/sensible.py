"""Bounds that a person would write: a margin beyond what was seen, rounded outwards, zero and known scales kept."""

from __future__ import annotations

import math
from decimal import Decimal

SCALES = {(0, 6), (1, 7), (1, 12), (0, 23), (1, 24), (1, 31), (0, 59), (1, 52), (1, 53), (1, 365), (1, 366), (0, 100),
          (-90, 90), (-180, 180)}
"""Ranges that end by themselves, when both ends were seen: days, months, hours, minutes, weeks, per cent, degrees."""
CLOCK_ENDS = {2359: 2400, 2400: 2400, 235959: 240000, 240000: 240000}
"""The last minute, or second, of a day written as one number, and what midnight may be written as."""


def between(least: float, median: float, greatest: float, margin: float) -> tuple[float, float]:
    """A lower and an upper bound. Each lies beyond the extreme by `margin` of its distance from the median (or of a
    twentieth of the range, if that is more), and is rounded outwards to a multiple of 1, 2 or 5 times a power of ten
    that is no greater than this. Towards zero the margin is a share of the extreme at most, and no bound crosses zero;
    a count that begins at 1 stays one. Whole for whole numbers."""
    if (least, greatest) in SCALES:
        return least, greatest
    whole = isinstance(least, int) and isinstance(greatest, int)
    if not whole and least >= 0 and 0.9 <= greatest <= 1:
        return 0, 1
    spread = (greatest - least) / 20
    first, last = least == 0 or (whole and least == 1), greatest == 0 or (least >= 0 and greatest in CLOCK_ENDS)
    low = least if first else _beyond(least, margin * max(median - least, spread), -1, margin, whole)
    if last:
        return low, CLOCK_ENDS.get(int(greatest), 0)
    return low, _beyond(greatest, margin * max(greatest - median, spread), 1, margin, whole)


def at_most(greatest: int, margin: float) -> int:
    """An upper bound for a number of things, of which `greatest` was seen."""
    return int(_beyond(greatest, margin * greatest, 1, margin, True))


def _beyond(end: float, by: float, way: int, margin: float, whole: bool) -> float:
    """A number beyond `end` in the direction `way`, on its side of zero."""
    if end * way < 0:  # towards zero
        by = min(by, abs(end) - abs(end) / (1 + margin))
    if not by > 0 or not math.isfinite(by):
        return end
    step = _step(by)
    if whole:
        step = max(step, Decimal(1))
    count = (Decimal(end) + way * Decimal(by)) / step
    bound = (count.to_integral_value("ROUND_CEILING" if way > 0 else "ROUND_FLOOR")) * step
    out: float = int(bound) if whole or bound == bound.to_integral_value() else float(bound)
    return out if (out - end) * way >= 0 else end


def _step(by: float) -> Decimal:
    """The greatest of 1, 2 and 5 times a power of ten that is not above `by`."""
    power = Decimal(10) ** math.floor(math.log10(by))
    return next((n * power for n in (5, 2) if n * power <= Decimal(by)), power)


def share(values: int, rows: int, margin: float) -> float:
    """The least share of values, where of `rows` some, not all, were `values`: 1 + 4 margins as many nulls are allowed,
    or as many times fewer values, whichever asks for more; to two digits of the lesser part."""
    factor = 1 + 4 * Decimal(margin)
    lack = 1 - _rounded((rows - values) * factor / rows, "ROUND_CEILING")
    kept = _rounded(values / factor / rows, "ROUND_FLOOR")
    return min(float(max(lack, kept)), values / rows)


def _rounded(value: Decimal, how: str) -> Decimal:
    """To two significant digits."""
    digits = Decimal(1).scaleb(value.adjusted() - 1)
    return (value / digits).to_integral_value(how) * digits
