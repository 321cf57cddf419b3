"""Java's SimpleDateFormat, in UTC and English, on whole arrays: milliseconds since 1970 to text.

The calendar is Java's: Gregorian from 15 October 1582 on, Julian before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Ints = np.ndarray[Any, np.dtype[np.int64]]
DAY_MS = 86_400_000
CUTOVER_DAY = -141_427
"""15 October 1582, the first day of the Gregorian calendar, in days since 1970."""
LETTERS = "GyYMLwWDdFEuaHkKhmsSzZX"
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")
DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
ISO_TIME, ISO_DATE, ISO_FULL = "HH:mm:ss.SSS'Z'", "yyyy-MM-dd", "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'"


@dataclass(frozen=True, slots=True)
class Token:
    """A run of one letter, or text that stands for itself (`letter` is empty)."""

    letter: str
    count: int
    text: str = ""


@lru_cache(maxsize=256)
def tokens(pattern: str) -> tuple[Token, ...]:
    """The parts of a pattern. Raises ValueError, naming the letter that means nothing."""
    found: list[Token] = []
    at, quoted, text = 0, False, ""
    while at < len(pattern):
        char = pattern[at]
        if char == "'":
            if pattern[at + 1:at + 2] == "'":
                text, at = text + "'", at + 1
            else:
                quoted = not quoted
        elif quoted or not (char.isascii() and char.isalpha()):
            text += char
        else:
            if text:
                found.append(Token("", 0, text))
                text = ""
            count = len(pattern[at:]) - len(pattern[at:].lstrip(char))
            found.append(_token(char, count))
            at += count - 1
        at += 1
    if quoted:
        raise ValueError("a quote is not closed")
    return (*found, Token("", 0, text)) if text else tuple(found)


def _token(letter: str, count: int) -> Token:
    if letter not in LETTERS:
        hint = "; put letters that stand for themselves between single quotes" if letter in "T" else ""
        raise ValueError(f"the letter “{letter}” means nothing in a SimpleDateFormat pattern{hint}")
    if letter == "X" and count > 3:
        raise ValueError("the letter “X” stands three times at most")
    return Token(letter, count)


def days_of(year: Ints, month: Ints, day: Ints) -> Ints:
    """Days since 1970 of a date that may have any month and day (13 is January of the next year), as Java's lenient
    calendar counts them. The year 0 is 1 BC."""
    told = year  # it says which calendar, even if the month leads out of it
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    shifted = year - (month <= 2)
    before = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    gregorian = 365 * shifted + shifted // 4 - shifted // 100 + shifted // 400 + before - 719_468
    julian = 365 * shifted + shifted // 4 + before - 719_470
    return np.where((told >= 1582) & (gregorian >= CUTOVER_DAY), gregorian, julian)


class Calendar:
    """The fields of instants, in UTC, each computed when it is asked for."""

    def __init__(self, milliseconds: Ints) -> None:
        self.milliseconds = milliseconds
        self.day, self.of_day = np.divmod(milliseconds, DAY_MS)

    @cached_property
    def date(self) -> tuple[Ints, Ints, Ints]:
        """Year (0 is 1 BC), month and day."""
        gregorian = self.day >= CUTOVER_DAY
        since = self.day + 719_468
        era = since // 146_097
        rest = since - era * 146_097
        of_era = (rest - rest // 1460 + rest // 36_524 - rest // 146_096) // 365
        year, into = of_era + era * 400, rest - (365 * of_era + of_era // 4 - of_era // 100)
        if not gregorian.all():
            since = self.day + 719_470
            fours, rest = np.divmod(since, 1461)
            of_four = np.minimum(rest // 365, 3)
            year = np.where(gregorian, year, fours * 4 + of_four)
            into = np.where(gregorian, into, rest - 365 * of_four)
        month = (5 * into + 2) // 153
        day = into - (153 * month + 2) // 5 + 1
        month = np.where(month < 10, month + 3, month - 9)
        return year + (month <= 2), month, day

    @cached_property
    def weekday(self) -> Ints:
        """0 is Sunday."""
        return (self.day + 4) % 7

    @cached_property
    def of_month(self) -> Ints:
        """Which day of its month it is, counted: October 1582 has 21."""
        year, month, _ = self.date
        return self.day - days_of(year, month, np.ones_like(year)) + 1

    @cached_property
    def day_of_year(self) -> Ints:
        year = self.date[0]
        first = days_of(year, np.ones_like(year), np.ones_like(year))
        return self.day - first + 1

    @cached_property
    def week(self) -> tuple[Ints, Ints]:
        """(week year, week of it): weeks begin on Sunday, the first is the one with 1 January, as in the USA."""
        year, one = self.date[0], np.ones_like(self.day)
        first, coming = days_of(year, one, one), days_of(year + 1, one, one)
        number = (self.day_of_year - 1 + (first + 4) % 7) // 7 + 1
        late = self.day >= coming - (coming + 4) % 7
        return year + late, np.where(late, 1, number)

    def number(self, letter: str) -> Ints:
        """The value of a letter that is written in digits."""
        return NUMBERS[letter](self)


NUMBERS: Mapping[str, Callable[[Calendar], Ints]] = {
    "y": lambda c: np.where(c.date[0] > 0, c.date[0], 1 - c.date[0]), "Y": lambda c: c.week[0],
    "M": lambda c: c.date[1], "L": lambda c: c.date[1], "d": lambda c: c.date[2], "D": lambda c: c.day_of_year,
    "w": lambda c: c.week[1], "W": lambda c: (c.of_month - 1 + (c.weekday - c.of_month + 1) % 7) // 7 + 1,
    "F": lambda c: (c.of_month - 1) // 7 + 1, "u": lambda c: (c.weekday + 6) % 7 + 1,
    "H": lambda c: c.of_day // 3_600_000, "k": lambda c: (c.of_day // 3_600_000 + 23) % 24 + 1,
    "K": lambda c: c.of_day // 3_600_000 % 12, "h": lambda c: (c.of_day // 3_600_000 + 11) % 12 + 1,
    "m": lambda c: c.of_day // 60_000 % 60, "s": lambda c: c.of_day // 1000 % 60, "S": lambda c: c.of_day % 1000}


def format_ms(pattern: str, milliseconds: pa.Array) -> pa.Array:
    """Instants as text; null stays null."""
    held = milliseconds.fill_null(0) if milliseconds.null_count else milliseconds
    calendar = Calendar(held.to_numpy(zero_copy_only=False).astype(np.int64, copy=False))
    parts = [_written(token, calendar) for token in tokens(pattern)]
    if not any(isinstance(part, pa.Array) for part in parts):
        made = pa.repeat(pa.scalar("".join(map(str, parts)), pa.string()), len(held))
    else:
        made = pc.binary_join_element_wise(*(pa.scalar(p) if isinstance(p, str) else p for p in parts), "")
    return pc.if_else(milliseconds.is_valid(), made, pa.scalar(None, pa.string())) if milliseconds.null_count else made


def _written(token: Token, calendar: Calendar) -> pa.Array | str:
    letter, count = token.letter, token.count
    if letter in NAMES and (letter not in "ML" or count >= 3):
        short, long, index = NAMES[letter]
        return pa.array(long if count >= 4 else short).take(pa.array(index(calendar)))
    if letter == "z":
        return "Coordinated Universal Time" if count >= 4 else "UTC"
    fixed = {"": token.text, "Z": "+0000", "X": "Z"}.get(letter)
    if fixed is not None:
        return fixed
    value = calendar.number(letter)
    return _digits(np.fmod(value, 100) if letter in "yY" and count == 2 else value, count)


def _digits(values: Ints, width: int) -> pa.Array:
    """Whole numbers with zeros before them."""
    def digits(value: int) -> str:
        return ("-" if value < 0 else "") + str(abs(value)).zfill(width)

    if len(values) == 0:
        return pa.array([], pa.string())
    low, high = int(values.min()), int(values.max())
    if high - low < 10_000:
        table = pa.array([digits(each) for each in range(low, high + 1)])
        return table.take(pa.array(values - low))
    return pa.array([digits(each) for each in values.tolist()])


NAMES: Mapping[str, tuple[Any, Any, Callable[[Calendar], Ints]]] = {
    "G": (("BC", "AD"), ("BC", "AD"), lambda c: (c.date[0] > 0).astype(np.int64)),
    "M": ([each[:3] for each in MONTHS], MONTHS, lambda c: c.date[1] - 1),
    "L": ([each[:3] for each in MONTHS], MONTHS, lambda c: c.date[1] - 1),
    "E": ([each[:3] for each in DAYS], DAYS, lambda c: c.weekday),
    "a": (("AM", "PM"), ("AM", "PM"), lambda c: c.of_day // 43_200_000)}
"""Letter → (short, long, which)."""


def iso(milliseconds: pa.Array) -> pa.Array:
    """As Kafka Connect writes a date of which it knows nothing: before the second day of 1970 a time of day, at
    midnight a date, else both."""
    short = pc.less(milliseconds, DAY_MS)
    whole = pa.array(milliseconds.fill_null(0).to_numpy(zero_copy_only=False) % DAY_MS == 0)
    full = format_ms(ISO_FULL, milliseconds)
    made = pc.if_else(whole, pc.utf8_slice_codeunits(full, 0, -14), full) if pc.any(whole).as_py() else full
    if pc.any(short).as_py():
        made = pc.if_else(short, format_ms(ISO_TIME, milliseconds), made)
    return made
