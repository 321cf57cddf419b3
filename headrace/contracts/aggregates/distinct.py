"""Expectations about the distinct values of a column: how many, which, and which is the most common."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from headrace.contracts.aggregates import tally
from headrace.contracts.aggregates.aggregate import Aggregate
from headrace.contracts.aggregates.bounds import bounds, count, number, quoted, shown
from headrace.contracts.aggregates.columns import Column, column
from headrace.contracts.aggregates.fold import Fold
from headrace.contracts.aggregates.tally import SHOWN, Tally
from headrace.contracts.kernels import is_number
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict

_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d{6}|\.\d{3})?(Z|[+-]\d\d:\d\d)?)?")
"""Times that dateutil and Python read alike."""


def uniqueness(e: Expectation, schema: pa.Schema) -> Aggregate | str:
    """The number of distinct values, or their share of all values that are there."""
    found = column(e, schema)
    if isinstance(found, str):
        return found
    share = "proportion" in e.type
    held = bounds(e, number if share else count)
    if isinstance(held, str):
        return held

    def say(made: Tally) -> Verdict:
        value: float = tally.distinct(made)
        if share:
            value = value / (made.rows - made.nulls) if made.rows > made.nulls else 0
            value = min(value, 1.0) if made.lossy else value
        return Verdict(held.hold(value), {"observed_value": value})

    told = "share of distinct values in" if share else "number of distinct values in"
    return _aggregate(found, say, f"the {told} {quoted(found.name)} is {{}}, not {shown(e, held)}")


def most_common(e: Expectation, schema: pa.Schema) -> Aggregate | str:
    found, members = column(e, schema), _members(e)
    if isinstance(found, str) or isinstance(members, str):
        return found if isinstance(found, str) else str(members)
    ties = e.kwargs.get("ties_okay") or False
    if not isinstance(ties, bool):
        return f"ties_okay is {ties!r}"
    if found.kind == "time" and not all(isinstance(m, str) for m in members):
        return "a value_set of other than text for timestamps"
    wanted = set(members)

    def say(made: Tally) -> Verdict:
        top = tally.common(made, found)
        values = _datetime64(top) if found.kind == "time" else top.to_pylist()
        hits = 0 if found.kind == "time" else len(wanted.intersection(values))
        return Verdict(hits > 0 if ties else len(values) == 1 and hits == 1, {"observed_value": values})

    says = f"the most common {quoted(found.name)} is {{}}, not in {_listed(members)}"
    return _aggregate(found, say, says, frequent=True)


def _datetime64(top: pa.Array) -> list[str]:
    """Great Expectations leaves these as numpy's times, of which it makes texts of their own and which equal nothing
    in a value_set."""
    return [str(v) for v in top.view(pa.int64()).to_numpy().view(f"M8[{top.type.unit}]")]


def value_set(e: Expectation, schema: pa.Schema) -> Aggregate | str:
    """Distinct values within a set, containing it, or equal to it."""
    found, members = column(e, schema), _members(e)
    if isinstance(found, str) or isinstance(members, str):
        return found if isinstance(found, str) else str(members)
    inside, contains = "_be_in_" in e.type or "_equal_" in e.type, "_contain_" in e.type or "_equal_" in e.type
    if not members and not contains:
        e.wrong("value_set is empty", "name the values it may hold")
    expected = _expected(found, members)
    if isinstance(expected, str):
        return expected

    def say(made: Tally) -> Verdict:
        return _compared(made, found, expected if len(made.values) or made.lossy else _set(members), inside,
                         contains)

    told = "within" if not contains else "equal to" if inside else "around"
    return _aggregate(found, say, f"the values of {quoted(found.name)} are not {told} the set {_listed(members)}",
                      keep=_kept(found, expected), exact=not inside)


def _compared(made: Tally, found: Column, expected: dict[Any, Any], inside: bool, contains: bool) -> Verdict:
    values, _ = tally.held(made)
    seen = _plain(values, found)
    odd = values.filter(pa.array([v not in expected for v in seen], pa.bool_()))
    unexpected = len(odd) + tally.distinct(made) - len(values)
    lost = [v for v in expected if v not in set(seen)] if contains else []
    result: dict[str, Any] = {"observed_value": None}
    if inside:
        result["unexpected_count"] = unexpected
    if contains:
        result["missing_count"] = len(lost)
    if inside:
        result["partial_unexpected_list"] = _plain(tally.smallest(odd, made.least), found)
    if contains:
        result["partial_missing_list"] = lost[:SHOWN]
    return Verdict(not (inside and unexpected) and not lost, result)


def _plain(values: pa.Array, found: Column) -> list[Any]:
    if found.kind == "time":
        return [found.moment(v) for v in values.view(pa.int64()).to_pylist()]
    return list(values.to_pylist())


def _set(members: list[Any]) -> dict[Any, Any]:
    """As Python's sets have it (1, 1.0 and true are one), in the order written."""
    return dict.fromkeys(members)


def _members(e: Expectation) -> list[Any] | str:
    """The value_set, or why Great Expectations must judge."""
    members = e.kwargs.get("value_set")
    if not isinstance(members, list):
        e.wrong(f"value_set is {members!r}", "value_set is a list")
    odd = [m for m in members if not (m is None or isinstance(m, str | bool) or is_number(m))]
    return f"value_set holds {odd[0]!r}" if odd else members


def _expected(found: Column, members: list[Any]) -> dict[Any, Any] | str:
    """The members as the column's values can equal them: texts are read as times for a column of times."""
    if found.kind not in ("time", "date"):
        return _set(members)
    if not all(isinstance(m, str) and _ISO.fullmatch(m) for m in members):
        return "a value_set for times with members in unusual forms"
    try:
        read = [dt.datetime.fromisoformat(m) for m in members]
    except ValueError as error:
        return f"a value_set for times: {error}"
    return _set([r.date() for r in read] if found.kind == "date" else read)


def _kept(found: Column, expected: dict[Any, Any]) -> pa.Array:
    """The members a column could hold, which a tally never lets go."""
    fits: Callable[[Any], bool] = {
        "text": lambda m: isinstance(m, str), "float": lambda m: isinstance(m, int | float),
        "whole": lambda m: isinstance(m, int | float) and m == int(m), "date": lambda m: True,
        "time": lambda m: (m.tzinfo is None) == (found.type.tz is None)}.get(found.kind, lambda m: False)
    of: Callable[[Any], Any] = {"whole": int, "float": float}.get(found.kind, lambda m: m)
    out = []
    for member in [m for m in expected if fits(m)]:
        try:
            out.append(pa.array([of(member)], found.type))
        except (pa.ArrowInvalid, OverflowError):  # beyond the type: no value of the column equals it
            continue
    return pa.concat_arrays(out) if out else pa.array([], found.type)


def _aggregate(found: Column, say: Callable[[Tally], Verdict], says: str, keep: pa.Array | None = None,
               frequent: bool = False, exact: bool = False) -> Aggregate:
    def measure(rows: pa.RecordBatch) -> Tally:
        return tally.tally(found, rows)

    fold = Fold(lambda rows: tally.spilled(measure(rows), keep, frequent),
                lambda a, b: tally.join(a, b, keep, frequent), say, tally.dump, tally.load, estimate=not exact,
                rough=lambda made: made.lossy and not exact)
    return Aggregate(lambda rows: say(measure(rows)), says, fold)


def _listed(members: list[Any]) -> str:
    return quoted("(" + ", ".join(map(str, members[:8])) + (", …" if len(members) > 8 else "") + ")")

