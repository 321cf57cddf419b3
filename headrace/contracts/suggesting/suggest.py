"""A suite suggested from a profile: an ordinary Great Expectations suite, with the evidence of each expectation.

Every expectation is true of the data that was profiled. Few are better than many: what chance, or the mere passing of
time, would break is left out. docs/contracts-suggest.md says what is suggested and why.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.contracts.suggesting.profile import ColumnProfile, Profile
from headrace.contracts.suggesting.relations import CHANCE_MIN
from headrace.contracts.suggesting.sensible import at_most, between, share
from headrace.errors import UserError

GX_VERSION = "1.24.1"
VALUES_MIN = 100
"""Values of a column, or rows of a pair, before anything but nulls is spoken of."""
FACT_MIN = 1000
"""Values before what none of them breaks counts as a fact."""
GIVEN_MIN = 0.05
"""Of a column with a smaller share of values, a window may well have none."""
TEXTS_MAX, WHOLES_MAX, SEEN_MIN, TEXT_LENGTH_MAX = 50, 6, 5, 64
"""A set has at most so many texts, or whole numbers; each came so often, and is no longer than that."""
ABOVE_MIN, ABOVE_MIN_UNNAMED = 0.05, 0.25
"""Chance of being above that a pair must have and yet never is: for times and names that share a word, and others."""
NUMBER_MAX = 1e15
"""Greater numbers are ids, hashes or moments, not quantities."""
SEVERITIES: Mapping[str, Mapping[str, str]] = {
    "loose": {"certain": "critical", "fact": "warning", "guess": "warning", "window": "warning"},
    "normal": {"certain": "critical", "fact": "critical", "guess": "warning", "window": "warning"},
    "strict": {"certain": "critical", "fact": "critical", "guess": "critical", "window": "warning"}}
"""Strictness → severity of: what the schema says; what no row breaks; what has a number that was guessed; what is a
verdict over many records."""
_ID = re.compile(r"(^|_)(id|key|uuid|guid|pk|sk)$|[a-z](Id|ID|Key)$|^(Id|ID)$", re.ASCII)
_FORMS = {"time": "times", "UUID": "UUIDs", "e-mail": "e-mail addresses", "JSON": "JSON", "hexadecimal": "hexadecimal"}
_EPOCHS = tuple((946_684_800 * n, 4_102_444_800 * n) for n in (1, 10**3, 10**6, 10**9))
"""The years 2000 to 2100 in seconds since 1970, and in milli-, micro- and nanoseconds."""


@dataclass(frozen=True, slots=True)
class _Found:
    """An expectation before it is written down. `what` is the end of its id; `about` is how sure it is: a key of
    SEVERITIES' rows; `numbers` go into meta beside the sentence of evidence."""

    what: str
    type: str
    kwargs: Mapping[str, Any]
    about: str
    evidence: str
    numbers: Mapping[str, Any]


def suggest(profile: Profile, *, name: str, source: str, margin: float = 0.25,
            strictness: str = "normal") -> dict[str, Any]:
    """A suite file's data, called `name`. `source` says in the evidence where the rows are from. `margin` is how much
    further than seen a bound lies, as a share of the distance from the median to the extreme. `strictness` is loose,
    normal or strict: which expectations hold records back. Raises UserError: no rows, or a wrong argument."""
    if not profile.rows:
        raise UserError(f"{source}: there are no rows, and so nothing to suggest",
                        hint="take a file or a topic that has some; a few thousand make good evidence")
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < math.inf:
        raise UserError(f"margin is {margin!r}", hint="a share of 0 or more, e.g. 0.25")
    if strictness not in SEVERITIES:
        raise UserError(f"“{strictness}” is no strictness", hint=f"one of {', '.join(SEVERITIES)}")
    severities = SEVERITIES[strictness]
    found = [f for c in profile.columns for f in _column(c, margin)] + [*_pairs(profile), *_keys(profile)]
    ids: set[str] = set()
    return {"name": name, "expectations": [_written(f, _id(f.what, ids), severities, source) for f in found],
            "meta": {"great_expectations_version": GX_VERSION,
                     "headrace": {"suggested_from": source, "rows": profile.rows, "margin": margin,
                                  "strictness": strictness}}}


def _id(wanted: str, taken: set[str]) -> str:
    """The id wanted, numbered from the second on."""
    out, number = wanted, 1
    while out in taken:
        number += 1
        out = f"{wanted}_{number}"
    taken.add(out)
    return out


def _written(found: _Found, id_: str, severities: Mapping[str, str], source: str) -> dict[str, Any]:
    evidence = found.evidence.replace("{source}", source)
    return {"id": id_, "type": f"expect_{found.type}", "kwargs": dict(found.kwargs),
            "meta": {"headrace": {"evidence": evidence, **found.numbers}}, "severity": severities[found.about]}


def _fact(values: int) -> str:
    return "fact" if values >= FACT_MIN else "guess"


def _column(c: ColumnProfile, margin: float) -> Iterator[_Found]:
    """About one column: nulls; then the one thing that says most of its values; and whether it is a key."""
    yield from _nulls(c, margin)
    if c.values < VALUES_MIN:
        return
    if c.distinct > 1 or not c.distinct_exact:
        yield from _first(_time(c), _form(c, common=True), _set(c), _form(c, common=False), _bounds(c, margin),
                          _lengths(c, margin))
    if _is_key(c):
        yield _Found(f"{c.name}_unique", "column_values_to_be_unique", {"column": c.name}, "window",
                     f"{_seen(c)}: no value twice", {"values": c.values})


def _first(*of: Iterator[_Found]) -> Iterator[_Found]:
    yield from next((found for found in map(list, of) if found), [])


def _seen(c: ColumnProfile) -> str:
    """How much was seen of a column."""
    return f"{c.values:,} values in {c.rows:,} rows of {{source}}" if c.missing else f"{c.rows:,} rows of {{source}}"


def _told(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,.6g}"


def _nulls(c: ColumnProfile, margin: float) -> Iterator[_Found]:
    """Not null where none was; else a least share of values. Nothing of a column that is nearly always null."""
    kwargs: dict[str, Any] = {"column": c.name}
    numbers = {"rows": c.rows, "null": c.missing}
    if not c.missing:
        about = _fact(c.rows) if c.nullable else "certain"
        schema = "" if c.nullable else ", and the schema allows none"
        yield _Found(f"{c.name}_given", "column_values_to_not_be_null", kwargs, about,
                     f"{c.rows:,} rows of {{source}}: 0 null{schema}", numbers)
    elif c.values >= GIVEN_MIN * c.rows and c.rows >= VALUES_MIN:
        lack = c.missing / c.rows
        yield _Found(f"{c.name}_mostly_given", "column_proportion_of_non_null_values_to_be_between",
                     {**kwargs, "min_value": share(c.values, c.rows, margin)}, "window",
                     f"{c.rows:,} rows of {{source}}: {c.missing:,} null ({lack:.2%})", numbers)


def _time(c: ColumnProfile) -> Iterator[_Found]:
    """A time has a lower bound, which catches 1970 and the like; the first of January, a margin of a year or so."""
    if not isinstance(c.least, dt.date):
        return
    year = c.least.year if (c.least.month, c.least.day) > (1, 31) else c.least.year - 1
    if year <= 1970 or (c.greatest is not None and c.greatest.year > 2200):
        return
    first = f"{year:04}-01-01"
    if isinstance(c.least, dt.datetime):
        first += "T00:00:00" + ("Z" if c.type.tz else "")
    yield _Found(f"{c.name}_not_before_{year}", "column_values_to_be_between", {"column": c.name, "min_value": first},
                 "guess", f"{_seen(c)}: the earliest is {c.least.isoformat()}", {"min": c.least.isoformat()})


def _set(c: ColumnProfile) -> Iterator[_Found]:
    """A closed set: few values, each seen a few times, and all of them known after half of the rows."""
    text = isinstance(c.least, str)
    whole = isinstance(c.least, int) and not isinstance(c.least, bool)
    if not (text or whole) or not c.distinct_exact or c.distinct > (TEXTS_MAX if text else WHOLES_MAX):
        return
    rarest, values = c.common[-1], sorted(v for v, _ in c.common)
    too_long = text and c.lengths is not None and c.lengths[1] > TEXT_LENGTH_MAX
    too_great = whole and max(map(abs, values)) >= NUMBER_MAX
    if rarest[1] < SEEN_MIN or c.last_new > c.rows / 2 or too_long or too_great or (whole and _grows(c)):
        return
    yield _Found(f"{c.name}_known", "column_values_to_be_in_set", {"column": c.name, "value_set": values},
                 _fact(c.values),
                 f"{_seen(c)}: {c.distinct} values, the last new one in row {c.last_new + 1:,}, the rarest "
                 f"({rarest[0]!r}) {rarest[1]:,} times", {"distinct": c.distinct, "rarest": rarest[1]})


def _form(c: ColumnProfile, *, common: bool) -> Iterator[_Found]:
    """A form that nearly all values have. `common`: one that is known far and wide (times, UUIDs, JSON, e-mail)."""
    form = c.form
    if form is None or common != (form.kind not in ("shape", "hexadecimal")):
        return
    type_, key = {"time": ("match_strftime_format", "strftime_format"), "JSON": ("be_json_parseable", "")}.get(
        form.kind, ("match_regex", "regex"))
    kwargs: dict[str, Any] = {"column": c.name} | ({key: form.written} if key else {})
    others, evidence = c.values - form.matching, f"{_seen(c)}: all are {_FORMS.get(form.kind, 'of this shape')}"
    if others:
        evidence = f"{_seen(c)}: {others:,} do not match"
        kwargs["mostly"] = math.floor(form.matching / c.values * 1000) / 1000
    yield _Found(f"{c.name}_form", f"column_values_to_{type_}", kwargs,
                 "window" if others else _fact(c.values), evidence, {"values": c.values, "not_matching": others})


def _grows(c: ColumnProfile) -> bool:
    """Whether time alone would break a bound: ids, counters, moments as numbers."""
    unique = c.unique and isinstance(c.least, int)  # that measurements differ says nothing
    return bool(c.increasing or unique or _ID.search(c.name) or _moments(c))


def _moments(c: ColumnProfile) -> bool:
    """Whether the numbers look like seconds since 1970, or parts of seconds."""
    return any(low <= c.least and c.greatest <= high for low, high in _EPOCHS)


def _bounds(c: ColumnProfile, margin: float) -> Iterator[_Found]:
    """A range for a quantity."""
    if isinstance(c.least, bool | str | dt.date) or not all(
            v is not None and abs(v) < NUMBER_MAX for v in (c.least, c.greatest)) or _grows(c):
        return
    whole = isinstance(c.least, int)
    least, greatest, median = ((int if whole else float)(v) for v in (c.least, c.greatest, c.quantiles[0.5]))
    low, high = between(least, median, greatest, margin)
    low = math.nextafter(low, -math.inf) if low > c.least else low  # a decimal's bound is a float
    high = math.nextafter(high, math.inf) if high < c.greatest else high
    yield _Found(f"{c.name}_plausible", "column_values_to_be_between",
                 {"column": c.name, "min_value": low, "max_value": high}, "guess",
                 f"{_seen(c)}: {_told(least)} to {_told(greatest)}, half of them up to {_told(median)}",
                 {"min": least, "median": median, "max": greatest})


def _lengths(c: ColumnProfile, margin: float) -> Iterator[_Found]:
    """The length of a text that has neither set nor form: one, or a range; at least 1 where none is empty."""
    if c.lengths is None:
        return
    least, greatest = c.lengths
    told = f"{_seen(c)}: {least:,} to {greatest:,} characters"
    numbers = {"min_length": least, "max_length": greatest}
    if least == greatest:
        yield _Found(f"{c.name}_length", "column_value_lengths_to_equal", {"column": c.name, "value": least},
                     _fact(c.values), f"{_seen(c)}: all of {least:,} characters", numbers)
        return
    low = {"min_value": 1} if least else {}
    yield _Found(f"{c.name}_length", "column_value_lengths_to_be_between",
                 {"column": c.name, **low, "max_value": at_most(greatest, margin)}, "guess", told, numbers)


def _is_key(c: ColumnProfile) -> bool:
    """Whether no value comes twice, and that is no accident: by its name or its form, or since as many whole numbers
    of its range would by chance have met. Measurements and moments never are keys."""
    if not c.unique or c.missing or isinstance(c.least, float | dt.date | bool):
        return False
    form = "" if c.form is None else c.form.kind
    if c.values >= FACT_MIN and (_ID.search(c.name) or form == "UUID" or (form == "shape" and c.increasing)):
        return True
    if not isinstance(c.least, int) or _moments(c):
        return False
    return bool(c.values * (c.values - 1) / 2 / (c.greatest - c.least + 1) >= CHANCE_MIN)


def _pairs(profile: Profile) -> Iterator[_Found]:
    """Columns that are equal, or one never above the other, by more than chance."""
    for same in profile.equal:
        c = profile.column(same.a)
        if same.rows >= VALUES_MIN and c.distinct > 1:
            kwargs = {"column_A": same.a, "column_B": same.b}
            if not same.nulls_alike:
                kwargs["ignore_row_if"] = "either_value_is_missing"
            yield _Found(f"{same.a}_equals_{same.b}", "column_pair_values_to_be_equal", kwargs,
                         _fact(same.rows), f"{same.rows:,} rows of {{source}} with both: all equal",
                         {"rows": same.rows})
    for pair in profile.ordered:
        low = profile.column(pair.low)
        if _ID.search(pair.low) or _ID.search(pair.high):
            continue
        near = isinstance(low.least, dt.date) or _words(pair.low) & _words(pair.high)
        if pair.rows >= VALUES_MIN and pair.chance >= (ABOVE_MIN if near else ABOVE_MIN_UNNAMED):
            yield _Found(f"{pair.low}_at_most_{pair.high}", "column_pair_values_a_to_be_greater_than_b",
                         {"column_A": pair.high, "column_B": pair.low, "or_equal": True,
                          "ignore_row_if": "either_value_is_missing"}, _fact(pair.rows),
                         f"{pair.rows:,} rows of {{source}} with both: never above; by chance in {pair.chance:.0%}",
                         {"rows": pair.rows, "by_chance": round(pair.chance, 4)})


def _words(name: str) -> set[str]:
    return {w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def _keys(profile: Profile) -> Iterator[_Found]:
    """One compound key, where no column is a key by itself."""
    if profile.keys and not any(_is_key(c) for c in profile.columns):
        key = profile.keys[0]
        yield _Found("_".join((*key.columns, "unique")), "compound_columns_to_be_unique",
                     {"column_list": list(key.columns)}, "window",
                     f"{profile.rows:,} rows of {{source}}: no two alike; by chance {key.chance:,.0f} pairs",
                     {"rows": profile.rows, "by_chance": round(key.chance, 1)})
