"""Java's SimpleDateFormat the other way: text to milliseconds since 1970, as leniently as Java reads.

The usual texts are taken apart by one regular expression over the whole array; what it does not match is read one by
one, and both ways end in the same arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.transforms.dates import DAYS, MONTHS, Calendar, Ints, Token, days_of, tokens

UNREAD = "uwWFY"
"""Letters that can be written and are not read here."""
DIGITS = frozenset("yMLdHkKhmsSDwWFYu")
ZONES = {"utc": 0, "gmt": 0, "coordinated universal time": 0, "greenwich mean time": 0}
WORDS: Mapping[str, Mapping[str, int]] = {
    "M": {form.lower(): at + 1 for at, name in enumerate(MONTHS) for form in (name, name[:3])},
    "E": {form.lower(): at for at, name in enumerate(DAYS) for form in (name, name[:3])},
    "G": {"bc": 0, "ad": 1, "before christ": 0, "anno domini": 1}, "a": {"am": 0, "pm": 1}}
DEFAULTS = {"y": 1970, "M": 1, "d": 1, "D": 0, "H": 0, "h": 0, "m": 0, "s": 0, "S": 0, "a": 0, "G": 1, "E": 0,
            "zone": 0, "short": 0}
SAME = {"L": "M", "k": "H", "K": "h"}
"""Letters that say the same thing."""


class Unreadable(ValueError):
    """A text that does not match the pattern."""


@dataclass(frozen=True)
class Reader:
    """A pattern that reads. `century_start_ms` is where two-digit years begin: 80 years before now."""

    pattern: str
    century_start_ms: int

    @cached_property
    def parts(self) -> tuple[tuple[Token, bool], ...]:
        """(token, whether it takes exactly as many digits as it has letters)"""
        found = tokens(self.pattern)
        return tuple((token, coming is not None and numeric(coming))
                     for token, coming in zip(found, (*found[1:], None), strict=True))

    @cached_property
    def order(self) -> str:
        """The letters, one for each token, by what they say."""
        return "".join(SAME.get(token.letter, token.letter) for token, _ in self.parts)

    def read(self, texts: pa.Array) -> tuple[pa.Array, dict[int, str]]:
        """Milliseconds since 1970, null where the text is; and the rows that cannot be read, with the reason."""
        n, wrong = len(texts), dict[int, str]()
        found: dict[str, Ints] = {}
        left = np.asarray(texts.is_valid())
        fast = fast_of(self)
        if fast is not None:
            matched, found = fast.read(texts, self)
            left = left & ~matched
        if left.any():
            found = {name: found.get(name, np.full(n, default, np.int64)) for name, default in DEFAULTS.items()}
            held = texts.to_pylist()
            for at in np.flatnonzero(left).tolist():
                try:
                    for name, value in slow(held[at], self).items():
                        found[name][at] = value
                except Unreadable as error:
                    wrong[at] = str(error)
        if not found:
            return pa.nulls(n, pa.int64()), wrong
        made = self._instants({**{name: np.full(n, value, np.int64) for name, value in DEFAULTS.items()
                                  if name not in found}, **found})
        return pa.array(made, mask=np.asarray(texts.is_null()) if texts.null_count else None), wrong

    def _instants(self, of: dict[str, Ints]) -> Ints:
        start = Calendar(np.array([self.century_start_ms])).date[0][0]
        ambiguous = (of["short"] == 1) & (of["y"] == start % 100)
        year = np.where(of["short"] == 1, of["y"] + start // 100 * 100 + np.where(of["y"] < start % 100, 100, 0),
                        of["y"])
        made = self._at(of, year)
        again = ambiguous & (made < self.century_start_ms)
        return np.where(again, self._at(of, year + 100), made) if again.any() else made

    def _at(self, of: dict[str, Ints], year: Ints) -> Ints:
        letters, year = self.order, np.where(of["G"] == 0, 1 - year, year)
        half = max(letters.rfind("h"), letters.rfind("a")) if "h" in letters and "a" in letters else -1
        if "H" not in letters and ("h" in letters or "a" in letters):
            half = len(letters)
        hours = of["h"] + 12 * of["a"] if half > letters.rfind("H") else of["H"]
        # Hours beyond a day's are days before Java asks which calendar they are of.
        late, rest = np.divmod(hours * 3_600_000 + of["m"] * 60_000 + of["s"] * 1000 + of["S"], 86_400_000)
        if letters.rfind("D") > letters.rfind("d"):
            one = np.ones_like(year)
            nth = of["D"] + late
            day = np.where(year == 1582, days_of(year, one, one) + nth - 1, days_of(year, one, nth))
        else:
            day = days_of(year, of["M"], of["d"] + late)
        return day * 86_400_000 + rest - of["zone"]


def readable(pattern: str) -> None:
    """Raises ValueError, naming the letter, for a pattern that cannot be read with, or is none."""
    letters = "".join(token.letter for token in tokens(pattern))
    for letter in UNREAD:
        if letter in letters:
            raise ValueError(f"the letter “{letter}” can be written, and not read")
    if "E" in letters and not set("dD") & set(letters):
        raise ValueError("the letter “E” alone says no date: a day (“d”) must stand beside it")


def numeric(token: Token) -> bool:
    """Whether the token before this one must obey its count, as digits follow digits."""
    return token.letter in DIGITS and (token.letter not in "ML" or token.count <= 2)


def slow(text: str, reader: Reader) -> dict[str, int]:
    """One text, read as Java reads it."""
    at, found = 0, {}
    for token, obey in reader.parts:
        if not token.letter:
            if not text.startswith(token.text, at):
                raise Unreadable(f"“{text}” does not match the pattern {reader.pattern}")
            at += len(token.text)
            continue
        start = at
        while at < len(text) and text[at] in " \t":
            at += 1
        if at >= len(text):
            raise Unreadable(f"“{text}” is too short for the pattern {reader.pattern}")
        made, end = _one(text, start, at, token, obey)
        if end < 0:
            raise Unreadable(f"“{text}” does not match the pattern {reader.pattern} at “{text[at:at + 12]}”")
        found.update(made)
        at = end
    return found


def _one(text: str, start: int, at: int, token: Token, obey: bool) -> tuple[dict[str, int], int]:
    """(what is found, where it ends); -1 where nothing is. From `start` to `at` there are blanks, which words do not
    take, and which count among the digits that a token takes."""
    letter = token.letter
    if letter in "zZX":
        return _zone(text, start, at, token)
    if letter in "GEa" or (letter in "ML" and token.count >= 3):
        words = WORDS[SAME.get(letter, letter)]
        low = text[start:start + 30].lower()
        best = max((word for word in words if low.startswith(word)), key=len, default="")
        return ({SAME.get(letter, letter): words[best]}, start + len(best)) if best else ({}, -1)
    if obey and start + token.count > len(text):
        return {}, -1
    digits = re.compile(r"-?\d+").match(text, at, start + token.count if obey else len(text))
    if not digits:
        return {}, -1
    value = _int(int(digits[0]))
    made = {SAME.get(letter, letter): _meant(letter, value)}
    if letter == "y":
        made["short"] = int(token.count <= 2 and digits.end() - at == 2 and digits[0].isdigit())
    return made, digits.end()


def _int(value: int) -> int:
    """`Number.intValue` of what DecimalFormat reads: a Long, or beyond that a Double."""
    if -2**63 <= value < 2**63:
        return (value + 2**31) % 2**32 - 2**31
    return 2**31 - 1 if value > 0 else -2**31


def _meant(letter: str, value: int) -> int:
    """24 o'clock is 0 where hours go from 1 to 24, 12 where they go from 1 to 12."""
    return 0 if (letter, value) in (("k", 24), ("h", 12)) else value


def _zone(text: str, start: int, at: int, token: Token) -> tuple[dict[str, int], int]:
    char = text[at]
    if token.letter == "X":
        if char == "Z":
            return {"zone": 0}, at + 1
        return _offset(text, at, token.count, token.count == 3) if char in "+-" else ({}, -1)
    if char in "+-":
        return _offset(text, at, 0, False)
    low = text[at:at + 40].lower()
    if low.startswith("gmt") and start == at:
        return _offset(text, at + 3, 0, True) if text[at + 3:at + 4] in ("+", "-") else ({"zone": 0}, at + 3)
    best = max((name for name in ZONES if low.startswith(name)), key=len, default="")
    return ({"zone": ZONES[best]}, at + len(best)) if best else ({}, -1)


def _offset(text: str, at: int, count: int, colon: bool) -> tuple[dict[str, int], int]:
    """A sign, hours and, but for a count of 1, minutes. One digit of hours will do in GMT+h:mm only."""
    hours = r"(\d{1,2})" if colon and count == 0 else r"(\d{2})"
    minutes = "" if count == 1 else (r":(\d{2})" if colon else r"(\d{2})")
    found = re.compile(r"([+-])" + hours + minutes, re.ASCII).match(text, at)
    if not found or int(found[2]) > 23 or (minutes and int(found[3]) > 59):
        return {}, -1
    size = int(found[2]) * 60 + (int(found[3]) if minutes else 0)
    return {"zone": size * (60_000 if found[1] == "+" else -60_000)}, found.end()


@dataclass(frozen=True)
class _Fast:
    """A regular expression for the texts that hold what the pattern says and no surprises."""

    regex: str
    groups: tuple[tuple[str, Token], ...]

    def read(self, texts: pa.Array, reader: Reader) -> tuple[Any, dict[str, Ints]]:
        """(which texts match, what they hold)"""
        taken = pc.extract_regex(texts, self.regex)
        matched = np.asarray(taken.is_valid())
        if not matched.any():
            return matched, {}
        found: dict[str, Ints] = {}
        for name, token in self.groups:
            text = pc.struct_field(taken, name)
            held = self._values(text, token)
            letter = "zone" if token.letter in "XZ" else SAME.get(token.letter, token.letter)
            found[letter] = np.asarray(held.fill_null(DEFAULTS[letter])).astype(np.int64)
            if token.letter == "y" and token.count <= 2:
                found["short"] = np.asarray(pc.fill_null(pc.equal(pc.binary_length(text), 2), False)).astype(np.int64)
        return matched, found

    def _values(self, text: pa.Array, token: Token) -> pa.Array:
        letter = token.letter
        if letter in "XZ":
            digits = pc.replace_substring(text, ":", "")
            digits = pc.if_else(pc.equal(text, "Z"), "+0000", digits)
            hours = pc.cast(pc.utf8_slice_codeunits(digits, 1, 3), pa.int64())
            minutes = pc.cast(pc.utf8_rpad(pc.utf8_slice_codeunits(digits, 3, 5), 2, "0"), pa.int64())
            size = pc.multiply(pc.add(pc.multiply(hours, 60), minutes), 60_000)
            return pc.if_else(pc.starts_with(digits, "-"), pc.negate(size), size)
        if letter in "aG" or (letter in "ML" and token.count >= 3):
            words = WORDS[SAME.get(letter, letter)]
            index = pc.index_in(pc.utf8_lower(text), pa.array(list(words)))
            return pa.array(list(words.values())).take(index)
        value = pc.cast(text, pa.int64())
        if letter in "kh":
            value = pc.if_else(pc.equal(value, 24 if letter == "k" else 12), 0, value)
        return value


@lru_cache(maxsize=64)
def fast_of(reader: Reader) -> _Fast | None:
    """None for patterns that say a thing twice, or what an expression cannot hold."""
    said = [letter for letter in reader.order if letter]
    glued = any(token.letter and not obey and token.letter in DIGITS and after.text[:1].isdigit()
                for (token, obey), (after, _) in zip(reader.parts, reader.parts[1:], strict=False))
    if not said or glued or len(set(said)) < len(said) or set(said) & set("zDE" + UNREAD):
        return None
    groups: list[tuple[str, Token]] = []
    regex = "".join(_expressions(reader, groups))
    return _Fast(f"(?s)^{regex}.*$" if not regex.endswith("]{1,9})") else f"(?s)^{regex}(?:[^0-9].*)?$", tuple(groups))


def _expressions(reader: Reader, groups: list[tuple[str, Token]]) -> Iterator[str]:
    for at, (token, obey) in enumerate(reader.parts):
        letter, name = token.letter, f"g{at}"
        if not letter:
            yield re.escape(token.text).replace("\\ ", " ")
            continue
        groups.append((name, token))
        if letter == "X":
            each = {1: "[+-](?:[01][0-9]|2[0-3])", 2: "[+-](?:[01][0-9]|2[0-3])[0-5][0-9]",
                    3: "[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]"}[token.count]
            yield f"(?P<{name}>Z|{each})"
        elif letter == "Z":
            yield f"(?P<{name}>[+-](?:[01][0-9]|2[0-3])[0-5][0-9])"
        elif letter in "aG" or (letter in "ML" and token.count >= 3):
            words = sorted(WORDS[SAME.get(letter, letter)], key=len, reverse=True)
            yield f"(?P<{name}>(?i:{'|'.join(words)}))"
        else:
            yield f"(?P<{name}>[0-9]{{{token.count}}})" if obey else f"(?P<{name}>[0-9]{{1,9}})"
