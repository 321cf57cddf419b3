"""Verdicts in words: what was found, which values broke an expectation, how often and on which rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts import Expectation
from headrace.contracts.suite import SEVERITIES
from headrace.contracts.verdict import Verdict

SHOWN_MAX = 100
"""Characters of a value that are shown."""
RAISED_MAX = 300
PICTURES = {code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421} | dict.fromkeys(
    (*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD)
"""Control characters as pictures of themselves, those that turn text around as unknown: a value must steer nothing."""


@dataclass(frozen=True, slots=True)
class Example:
    """A value that breaks an expectation; how often, and the first rows it stands on, where these are known."""

    value: str
    count: int | None = None
    rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """One expectation and what was said of it, with the most frequent values that break it."""

    expectation: Expectation
    verdict: Verdict
    examples: tuple[Example, ...]
    says: str | None = None
    """What was found, where it is said already."""

    @property
    def word(self) -> str:
        return "holds" if self.verdict.success else "fails" if self.verdict.raised is None else "cannot be judged"

    @property
    def found(self) -> str:
        """The unexpected rows, or the observed value, or what was raised."""
        result = self.verdict.result
        if self.says is not None:
            return self.says
        if self.verdict.raised is not None:
            return shown_text(self.verdict.raised, RAISED_MAX)
        if "unexpected_count" in result:
            share, mostly = result.get("unexpected_percent"), self.expectation.kwargs.get("mostly")
            return (f"{result['unexpected_count']:,} unexpected" + (f" ({percent(share)})" if share else "")
                    + (f", mostly {shown(mostly)}" if mostly is not None else ""))
        return f"observed {shown(result['observed_value'])}" if "observed_value" in result else ""


def judged(verdicts: Sequence[tuple[Expectation, Verdict]], failures: pa.Table, *, values_max: int,
           rows_max: int) -> list[Judged]:
    """The verdicts, each with up to `values_max` distinct values that break it, and up to `rows_max` rows of each.

    `failures` is that of a Report: row, expectation_id, observed, ….
    """
    return [Judged(e, v, () if v.raised is not None else _examples(e, v, failures, values_max, rows_max))
            for e, v in verdicts]


def failing(all_: Sequence[Judged]) -> dict[str, int]:
    """Severity → how many expectations of it do not hold; every severity."""
    return {s: sum(j.expectation.severity == s and not j.verdict.success for j in all_) for s in SEVERITIES}


def why(all_: Sequence[Judged], unread_count: int, unit: str) -> str:
    """Why the suite holds, or does not: “2 of 7 expectations fail (1 critical, 1 warning)”."""
    lost = failing(all_)
    parts = ", ".join(f"{n} {severity}" for severity, n in lost.items() if n)
    said = (f"{sum(lost.values())} of {many(len(all_), 'expectation')} fail ({parts})" if parts else
            f"{many(len(all_), 'expectation')}, none fails")
    if parts and not lost["critical"]:
        said += ", which is shown and makes no suite fail"
    unread = f"; {many(unread_count, unit)} could not be read" if unread_count else ""
    return said + unread


def holds(all_: Sequence[Judged], unread_count: int) -> bool:
    """No critical expectation fails, and everything could be read."""
    return not failing(all_)["critical"] and not unread_count


def _examples(e: Expectation, verdict: Verdict, failures: pa.Table, values_max: int, rows_max: int,
              ) -> tuple[Example, ...]:
    mine = failures.filter(pc.equal(failures["expectation_id"], e.id)).select(["row", "observed"])
    if not mine.num_rows:
        values = verdict.result.get("partial_unexpected_list") or ()
        return tuple(Example(shown(value)) for value in values[:values_max])
    groups = mine.group_by("observed", use_threads=False).aggregate([("row", "count"), ("row", "min")])
    first = groups.sort_by([("row_count", "descending"), ("row_min", "ascending")]).slice(0, values_max).to_pylist()
    return tuple(Example(shown_text(group["observed"]), group["row_count"], tuple(
        mine.filter(pc.equal(mine["observed"], group["observed"]))["row"].slice(0, rows_max).to_pylist()))
        for group in first)


def shown(value: Any) -> str:
    """A value as people read it: text in quotes, what is nested as JSON."""
    if isinstance(value, str):
        return f"“{shown_text(value)}”"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "null"
    return shown_text(json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, Mapping | list | tuple)
                      else str(value))


def shown_text(text: str, chars_max: int = SHOWN_MAX) -> str:
    """Text without control characters, cut."""
    return text[:chars_max].translate(PICTURES) + ("…" if len(text) > chars_max else "")


def many(count: int, noun: str) -> str:
    """“1 line”, “1,234 lines”."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(share: float) -> str:
    """A percentage that is never rounded to all or nothing."""
    if 99.9 < share < 100:
        return "over 99.9 %"
    return "under 0.001 %" if 0 < share < 0.001 else f"{share:.3g} %"
