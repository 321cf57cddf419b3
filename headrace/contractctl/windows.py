"""Windows that were held against a contract, as their events tell of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from headrace.contractctl.judged import Example, Judged, shown, shown_text
from headrace.contracts import Expectation
from headrace.contracts import verdict as gx
from headrace.contracts.suite import SEVERITIES
from headrace.control import Verdict

ABOUT = "contract"
EXAMPLES_MAX = 20
Series = tuple[str, str, str, int]
"""(flow, step, topic, partition): windows that follow one another."""


@dataclass(frozen=True)
class Window:
    """One event, and what its `detail` has. Nothing that it says wrongly is raised: `unreadable` says what it is."""

    event: Verdict

    @property
    def series(self) -> Series:
        return self.event.flow, self.event.step, self.event.topic or "", self.event.partition or 0

    @property
    def subject(self) -> str:
        """What was judged: topic/partition."""
        return f"{self.event.topic}/{self.event.partition}"

    @property
    def when(self) -> str:
        """“2013-02-08 17:00 to 18:00 UTC”; of so many records “window 12, until 2013-02-08 17:30:01 UTC”."""
        start, end = self.event.window_start, self.event.window_end
        if start is None or end is None:
            return f"window {self.event.window}, until {self.event.at:%Y-%m-%d %H:%M:%S} UTC"
        form = "%Y-%m-%d %H:%M:%S" if start.second or end.second else "%Y-%m-%d %H:%M"
        to = f"{end:{form[9:]}}" if start.date() == end.date() else f"{end:{form}}"
        return f"{start:{form}} to {to} UTC"

    @property
    def name(self) -> str:
        """A file's name, without an ending: readable, and of this window only."""
        e = self.event
        return re.sub(r"[^A-Za-z0-9._-]", "_", f"{(e.topic or '')[:150]}-{e.partition}-{e.window}-{e.id[:8]}")

    @cached_property
    def detail(self) -> dict[str, Any] | None:
        """Great Expectations' validation result, as it is; None without one, or where it is no JSON object."""
        try:
            found = json.loads(self.event.detail or "null")
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    @cached_property
    def _read(self) -> tuple[tuple[Judged, ...], str | None]:
        if self.event.detail is None:
            return (), None
        if self.detail is None:
            return (), "its detail is no JSON object"
        try:
            return tuple(_judged(self.detail)), None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return (), f"its detail is no validation result: {type(error).__name__}: {error}"

    @property
    def judged(self) -> tuple[Judged, ...]:
        """Every expectation, then every check beside the suite."""
        return self._read[0]

    @property
    def unreadable(self) -> str | None:
        return self._read[1]

    @property
    def suite(self) -> str:
        """The suite's name, or the step's."""
        return str((self.detail or {}).get("suite_name") or self.event.step)

    @property
    def failed(self) -> list[str]:
        """Ids of what fails, of whatever severity; by the reasons, where there is no detail."""
        if self.judged:
            return [each.expectation.id for each in self.judged if not each.verdict.success]
        return [reason.partition(" (")[0] for reason in self.event.reasons]

    def as_json(self) -> dict[str, Any]:
        """The event, `detail` parsed where it can be."""
        plain: dict[str, Any] = json.loads(self.event.to_json())
        return plain if self.detail is None else {**plain, "detail": self.detail}


def windows(events: Iterable[Verdict], *, flow: str | None = None, step: str | None = None,
            topic: str | None = None) -> list[Window]:
    """Those of contracts, of this flow, step and topic, oldest first; a repeated event counts once."""
    first: dict[str, Verdict] = {}
    for event in events:
        if event.about == ABOUT and flow in (None, event.flow) and step in (None, event.step) and (
                topic in (None, event.topic)):
            first.setdefault(event.id, event)
    return sorted(map(Window, first.values()), key=lambda w: (w.event.at, w.series, w.event.window or 0))


def by_series(found: Sequence[Window]) -> dict[Series, list[Window]]:
    """The windows that follow one another, in their order."""
    out: dict[Series, list[Window]] = {}
    for window in sorted(found, key=lambda w: (w.series, w.event.window or 0)):
        out.setdefault(window.series, []).append(window)
    return out


def _judged(detail: Mapping[str, Any]) -> Iterable[Judged]:
    for result in detail["results"]:
        yield _told(_expectation(result["expectation_config"]), result)
    beside = (detail.get("meta") or {}).get("headrace") or {}
    for check in beside.get("checks") or ():
        low, high = check.get("range") or (None, None)
        e = Expectation(str(check["id"]), str(check["type"]), {"column_list": list(check.get("columns") or ()),
                        "min_value": low, "max_value": high}, _severity(check), "")
        examples = tuple(Example(shown_text(str(each))) for each in (check.get("examples") or ())[:EXAMPLES_MAX])
        yield Judged(e, gx.Verdict(bool(check["success"]), {}), examples, shown_text(str(check["says"])))


def _expectation(config: Mapping[str, Any]) -> Expectation:
    """With the id of the suite file: the one in the result must be a UUID, and may be made up."""
    kwargs, meta = dict(config.get("kwargs") or {}), dict(config.get("meta") or {})
    kwargs.pop("batch_id", None)
    id_ = str(meta.pop("headrace_id", None) or config.get("id") or config["type"])
    return Expectation(id_, str(config["type"]), kwargs, _severity(config), "", meta)


def _severity(said: Mapping[str, Any]) -> str:
    word = said.get("severity") or "critical"
    if word not in SEVERITIES:
        raise ValueError(f"“{word}” is no severity")
    return str(word)


def _told(e: Expectation, result: Mapping[str, Any]) -> Judged:
    raised = (result.get("exception_info") or {}).get("exception_message")
    raised = None if raised is None else str(raised)
    verdict = gx.Verdict(bool(result["success"]), dict(result.get("result") or {}), raised)
    values = () if verdict.success or raised else verdict.result.get("partial_unexpected_list") or ()
    counts = Counter(shown(value) for value in values[:EXAMPLES_MAX])
    made = Judged(e, verdict, tuple(Example(value, count) for value, count in counts.most_common()))
    _ = made.found, e.columns, e.mostly  # what is wrong with them comes to light here, not on a page
    return made
