"""What texts look like: a kind of text that all values are (dates, UUIDs, JSON, …), or the few shapes that they have.

A shape is a text with A for each capital letter, a for each small one and 0 for each digit, but for a letter in
first place, which stays: N725MQ has the shape N000AA. Every value passes by once; what is said holds for all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby, takewhile

import pyarrow as pa
import pyarrow.compute as pc

SHAPES_MAX = 1000
"""Shapes kept of a column; one with more has no pattern."""
LENGTH_MAX = 64
"""A column with a longer text has no pattern."""
SEQUENCES_MAX = 3
"""Alternatives that a pattern may have."""
RARE, RARE_TOGETHER = 1e-4, 1e-3
"""A shape of a smaller share of the values is left out of the pattern, as long as all left out are few."""
WORD_MAX = 8
"""Capitals in a row that still are a code; small letters of any number are words, unless all are as many."""
LITERAL_MIN = 20
"""Distinct values that a column must have before what they all begin with is written into its pattern."""
_CLASSES = {"A": "[A-Z]", "a": "[a-z]", "0": r"\d", "X": r"[A-Z\d]", "x": r"[A-Za-z\d]"}


@dataclass(frozen=True, slots=True)
class Form:
    """What the values of a text column look like."""

    kind: str
    """shape, time, UUID, e-mail, hexadecimal or JSON."""
    written: str
    """The strftime form of a time, nothing for JSON, else a regular expression."""
    matching: int
    """Values that are known to match: all of them, but for rare shapes."""


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    written: str
    regex: str
    """For all values, by RE2; then `asks`, of all values."""
    asks: Callable[[pa.Array], bool] = lambda values: True


def _casts(type_: pa.DataType) -> Callable[[pa.Array], bool]:
    def asks(values: pa.Array) -> bool:
        try:
            pc.cast(values, type_)
        except pa.ArrowInvalid:
            return False
        return not pc.any(pc.starts_with(values, "0000"), min_count=0).as_py()  # Python knows no year 0
    return asks


def _json(values: pa.Array) -> bool:
    try:
        for value in values.to_pylist():
            json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


def _times() -> Iterable[_Kind]:
    yield _Kind("time", "%Y-%m-%d", r"^\d{4}-\d\d-\d\d$", _casts(pa.date32()))
    for between in ("T", " "):
        for fraction, digits in (("", ""), (".%f", r"\.\d{1,6}")):
            for zone, type_ in (("", pa.timestamp("us")), ("Z", pa.timestamp("us", "UTC"))):
                yield _Kind("time", f"%Y-%m-%d{between}%H:%M:%S{fraction}{zone}",
                            rf"^\d{{4}}-\d\d-\d\d{between}\d\d:\d\d:\d\d{digits}{zone}$", _casts(type_))


_H, _MAIL = "[0-9a-fA-F]", "^[^@ ]+@[^@ ]+[.][^@ ]+$"
_UUID = f"^{_H}{{8}}-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}$"
_KINDS = (*_times(), _Kind("UUID", _UUID, _UUID), _Kind("e-mail", _MAIL, _MAIL),
          _Kind("JSON", "", r"^[ \t\r\n]*[\[{]", _json), _Kind("hexadecimal", "", "^[0-9a-f]{8,}$"))


class Shapes:
    """The shapes of a text column, and the kinds that every value so far is of. Memory is bounded by SHAPES_MAX."""

    def __init__(self) -> None:
        self._kinds = list(_KINDS)
        self._seen: dict[str, tuple[int, str, str]] | None = {}  # shape → count, least value, greatest value
        self._lengths: set[int] = set()
        self._values = 0

    def add(self, values: pa.Array, counts: pa.Array) -> None:
        """Distinct values of a batch, large_string without nulls, and how often each came."""
        self._values += pc.sum(counts).as_py() or 0
        self._kinds = [k for k in self._kinds if _all(values, k.regex) and k.asks(values)]
        if not len(values):
            return
        longest = pc.min_max(pc.utf8_length(values))
        ends = (*self._lengths, longest["min"].as_py(), longest["max"].as_py())
        self._lengths = {min(ends), max(ends)}
        if self._seen is None or longest["max"].as_py() > LENGTH_MAX:
            self._seen = None
            return
        table = pa.table({"shape": _shapes(values), "value": values, "count": counts})
        found = table.group_by("shape").aggregate([("count", "sum"), ("value", "min"), ("value", "max")])
        for shape, count, least, most in zip(*(found[c].to_pylist() for c in (
                "shape", "count_sum", "value_min", "value_max")), strict=True):
            had = self._seen.get(shape, (0, least, most))
            self._seen[shape] = had[0] + count, min(had[1], least), max(had[2], most)
        if len(self._seen) > SHAPES_MAX:
            self._seen = None

    def form(self, *, grows: bool, literal: bool) -> Form | None:
        """What the values look like, or None. `grows`: numbers in them may get longer (ids do). `literal`: letters that
        all begin with stay what they are."""
        if not self._values:
            return None
        for kind in self._kinds:
            if kind.name != "hexadecimal":
                return Form(kind.name, kind.written, self._values)
        found = _pattern(self._seen, "", grows, literal) if self._seen else None
        if found is None and self._kinds and len(self._lengths) == 1:
            return Form("hexadecimal", f"^[0-9a-f]{{{min(self._lengths)}}}$", self._values)
        for collapse in ("upper", "any"):
            found = found or (_pattern(self._seen, collapse, grows, False) if self._seen else None)
        return found


def _all(values: pa.Array, regex: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, regex), min_count=0).as_py())


def _shapes(values: pa.Array) -> pa.Array:
    """The shape of each value."""
    first, rest = pc.utf8_slice_codeunits(values, 0, 1), pc.utf8_slice_codeunits(values, 1)
    first = pc.replace_substring_regex(first, "[0-9]", "0")
    for of, letter in (("[A-Z]", "A"), ("[a-z]", "a"), ("[0-9]", "0")):
        rest = pc.replace_substring_regex(rest, of, letter)
    return pc.binary_join_element_wise(first, rest, pa.scalar("", first.type))


def _classes(shape: str) -> str:
    """The shape with its first letter as a class, too."""
    first = shape[:1]
    return ("A" if "A" <= first <= "Z" else "a" if "a" <= first <= "z" else first) + shape[1:]


def _pattern(seen: dict[str, tuple[int, str, str]], collapse: str, grows: bool, literal: bool) -> Form | None:
    """A regular expression for nearly all values. `collapse`: letters (upper, or any) and digits become one class, for
    codes in which they mix; texts without digits are no such codes."""
    total, left_out, kept = sum(c for c, _, _ in seen.values()), 0, dict(seen)
    for shape, (count, _, _) in sorted(seen.items(), key=lambda item: (item[1][0], item[0])):
        left_out += count
        if count > RARE * total or left_out > RARE_TOGETHER * total:
            break
        del kept[shape]
    if "" in kept or any(not c.isprintable() for shape in kept for c in shape):
        return None
    if collapse and sum("0" in shape for shape in kept) < len(kept) / 2:
        return None
    regex = _regex(kept, collapse, grows, literal)
    if regex is None:
        return None
    fits = re.compile(regex).search
    return Form("shape", regex, sum(n for n, least, most in seen.values() if fits(least) and fits(most)))


def _regex(kept: dict[str, tuple[int, str, str]], collapse: str, grows: bool, literal: bool) -> str | None:
    """One alternative per sequence of classes, or None where they are too many or say too little. A shape's values
    all match where the least and the greatest of them do: between these two, all begin as both do."""
    groups: dict[str, list[str]] = {}
    for shape in kept:
        groups.setdefault("".join(c for c, _ in _runs(_collapsed(_classes(shape), collapse))), []).append(shape)
    if not 0 < len(groups) <= SEQUENCES_MAX:
        return None
    alternatives = []
    for shapes in groups.values():
        prefix = _beginning(min(kept[s][1] for s in shapes), max(kept[s][2] for s in shapes)) if literal else ""
        written = _alternative([_collapsed(_classes(s), collapse) for s in shapes], prefix, grows)
        if written is None:
            return None
        alternatives.append(written)
    alternatives.sort()
    return f"^{alternatives[0]}$" if len(alternatives) == 1 else f"^({'|'.join(alternatives)})$"


def _beginning(least: str, most: str) -> str:
    """What two texts, and so all between them, begin with, up to the first digit."""
    same = takewhile(lambda pair: pair[0] == pair[1] and not "0" <= pair[0] <= "9", zip(least, most, strict=False))
    return "".join(a for a, _ in same)


def _collapsed(classes: str, collapse: str) -> str:
    """Letters and digits as one class: capitals only, or all."""
    if not collapse:
        return classes
    return re.sub("[A0]", "X", classes) if collapse == "upper" else re.sub("[Aa0]", "x", classes)


def _runs(classes: str) -> list[tuple[str, int]]:
    return [(c, len(list(run))) for c, run in groupby(classes)]


def _literal(text: str) -> str:
    """A text as a regular expression; unlike `re.escape`, spaces and hyphens stay as they are."""
    return re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", text)


def _alternative(shapes: list[str], prefix: str, grows: bool) -> str | None:
    """A regular expression for shapes of one sequence of classes, or None where it would be about words."""
    rests = [_runs(s[len(prefix):]) for s in shapes]
    if len({tuple(c for c, _ in runs) for runs in rests}) > 1:
        prefix, rests = "", [_runs(s) for s in shapes]
    out, digits = _literal(prefix), False
    for runs in zip(*rests, strict=True):
        class_, least, most = runs[0][0], min(n for _, n in runs), max(n for _, n in runs)
        digits = digits or class_ in "0Xx"
        if least < most and (class_ in "ax" or (class_ == "A" and most > WORD_MAX)):
            return None
        times = "+" if grows and class_ == "0" and least < most else "" if most == 1 else (
            f"{{{most}}}" if least == most else f"{{{least},{most}}}")
        out += (_CLASSES.get(class_) or _literal(class_)) + times
    lower = any(c == "a" for runs in rests for c, _ in runs) or any("a" <= c <= "z" for c in prefix)
    return None if lower and not digits else out
