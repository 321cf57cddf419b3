"""Bounds on a metric, read as Great Expectations reads them and held against the metric as it does."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.contracts.aggregates.columns import NAT, Column
from headrace.contracts.kernels import is_number
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?")
Read = Callable[[Expectation, Any], Any]
"""A bound as Great Expectations holds it. Raises ValueError for a form it must read itself, SuiteError for one that
can only ever be an error."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`low` and `high` are None where there is none; `above` and `below` say whether they are strict."""

    low: Any = None
    high: Any = None
    above: bool = False
    below: bool = False

    def hold(self, value: Any) -> bool:
        """Compared in numpy where the metric is numpy's: a 32-bit float meets its bound as a 32-bit float."""
        with np.errstate(all="ignore"):
            over = self.low is None or (value > self.low if self.above else value >= self.low)
            under = self.high is None or (value < self.high if self.below else value <= self.high)
        return bool(over and under)

    @property
    def told(self) -> str:
        parts = [("above " if self.above else "at least ") + str(self.low)] if self.low is not None else []
        parts += [("below " if self.below else "at most ") + str(self.high)] if self.high is not None else []
        if len(parts) == 2 and not (self.above or self.below):
            return f"between {self.low} and {self.high}"
        return " and ".join(parts) or "a value at all"


def verdict(bounds: Bounds, value: Any, column: Column) -> Verdict:
    """On a metric of a column; None is no value. Timestamps come in the column's unit."""
    if value is None or value != value:
        if column.kind == "time":  # a NaT passes for a timestamp, so that only bounds can fail it
            return Verdict(bounds.low is None and bounds.high is None, {"observed_value": NAT})
        return Verdict(False, {"observed_value": None})
    held = int(value) * column.scale if column.kind == "time" else value
    return Verdict(bounds.hold(held), {"observed_value": column.plain(value)})


def bounds(e: Expectation, read: Read) -> Bounds | str:
    """The expectation's bounds, or why Great Expectations itself must read them."""
    strict = [e.kwargs.get(k) or False for k in ("strict_min", "strict_max")]
    if not all(isinstance(s, bool) for s in strict):
        return "strict_min or strict_max is not true or false"
    try:
        low, high = (None if e.kwargs.get(k) is None else read(e, e.kwargs[k]) for k in ("min_value", "max_value"))
    except ValueError as error:
        return f"a bound is in an unusual form: {error}"
    return Bounds(low, high, *strict)


def shown(e: Expectation, held: Bounds) -> str:
    """The bounds as the file has them."""
    return Bounds(e.kwargs.get("min_value"), e.kwargs.get("max_value"), held.above, held.below).told


def quoted(text: str) -> str:
    """Text that is safe in a sentence that `format` is called on."""
    return text.replace("{", "{{").replace("}", "}}")


def number(e: Expectation, bound: Any) -> float:
    """Bounds of numbers are 64-bit floats."""
    if not is_number(bound):
        if isinstance(bound, str) and not _reads(bound):
            e.wrong(f"a bound is the text “{bound}”", "bounds of a number are numbers")
        raise ValueError(repr(bound))
    return float(bound)


def count(e: Expectation, bound: Any) -> int:
    """Bounds of a count are cut down to whole numbers."""
    return int(bound) if is_number(bound) and isinstance(bound, int) else int(number(e, bound))


def day(e: Expectation, bound: Any) -> dt.date:
    if not isinstance(bound, str) or _MOMENT.fullmatch(bound):
        e.wrong(f"the column holds dates, and the bound {bound!r} is not one", "write it as \"2013-02-08\"")
    if not _DAY.fullmatch(bound):
        raise ValueError(repr(bound))
    return dt.date.fromisoformat(bound)


def moment(zoned: bool) -> Read:
    """Bounds of timestamps with or without a time zone, as microseconds since 1970."""
    end = "Z" if zoned else ""

    def read(e: Expectation, bound: Any) -> int:
        if not isinstance(bound, str) or _DAY.fullmatch(bound):
            e.wrong(f"the column holds timestamps, and the bound {bound!r} is none", f"write it as "
                    f"\"2013-02-08T00:00:00{end}\"")
        if not _MOMENT.fullmatch(bound):
            raise ValueError(repr(bound))
        value = dt.datetime.fromisoformat(bound)
        if (value.tzinfo is not None) != zoned:
            e.wrong(f"the column {'has' if zoned else 'has no'} time zone, and the bound “{bound}” "
                    f"{'has none' if zoned else 'has one'}", "end it in Z" if zoned else "leave the zone out")
        start = dt.datetime(1970, 1, 1, tzinfo=dt.UTC if zoned else None)
        return (value - start) // dt.timedelta(microseconds=1)
    return read


def text(e: Expectation, bound: Any) -> Any:
    if is_number(bound):
        e.wrong(f"the column is text, and the bound is {bound}", "Great Expectations' bounds of text are dates")
    raise ValueError(f"{bound!r} for a column of text")


def reader(column: Column) -> Read:
    """How bounds of a column's own values are read."""
    if column.kind == "time":
        return moment(column.type.tz is not None)
    return {"date": day, "text": text}.get(column.kind, number)


def _reads(bound: str) -> bool:
    try:
        float(bound)
    except ValueError:
        return False
    return True
