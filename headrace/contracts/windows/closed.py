"""A closed window as the event that says what was found."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headrace.contracts.results import suite_result
from headrace.contracts.suite import Expectation, Suite
from headrace.contracts.verdict import Verdict
from headrace.contracts.windows.held import Held
from headrace.contracts.windows.watches import Told
from headrace.contracts.windows.windowed import ESTIMATE


@dataclass(frozen=True, slots=True)
class Closed:
    """A window that will get no more records, and every verdict on it."""

    held: Held
    suite: Suite
    judged: Sequence[tuple[Expectation, Verdict]]
    told: Sequence[Told]

    @property
    def ok(self) -> bool:
        """Nothing critical fails."""
        return (all(v.success or e.severity != "critical" for e, v in self.judged)
                and all(t.success or t.watch.severity != "critical" for t in self.told))

    def reasons(self) -> list[str]:
        """One for each that fails, of whatever severity: “<id> (<severity>): <what was found>”."""
        return [f"{e.id} ({e.severity}): {why(v)}" for e, v in self.judged if not v.success] + [
            f"{t.watch.name} ({t.watch.severity}): {t.says}" for t in self.told if not t.success]

    def measures(self) -> dict[str, float]:
        """Id → the observed value, or the share of unexpected records in percent, where it is a number."""
        found = [(e.id, _number(v)) for e, v in self.judged] + [(t.watch.name, t.observed) for t in self.told]
        return {name: float(number) for name, number in found if number is not None}

    def detail(self, *, run: str, asset: str, at: datetime) -> dict[str, Any]:
        """Great Expectations' validation result; the checks beside the suite are in its meta."""
        return suite_result(self.suite, self.judged, meta={
            "run_id": {"run_name": run, "run_time": at.isoformat()}, "batch_spec": {"data_asset_name": asset},
            "headrace": {"checks": [told.to_json() for told in self.told]}})


def why(verdict: Verdict) -> str:
    """What a failed verdict found, in a few words."""
    if verdict.raised is not None:
        return f"raised {verdict.raised}"
    found = verdict.result
    if found.get("observed_value") is not None:
        return f"{'about ' if found.get(ESTIMATE) else ''}{found['observed_value']} was observed"[:_CHARS_MAX]
    if "unexpected_count" not in found:
        return "nothing was observed"
    bad, share = found["unexpected_count"], found.get("unexpected_percent")
    some = ", ".join(map(str, found.get("partial_unexpected_list", [])[:5]))
    return (f"{bad:,} unexpected{f' ({share:.3g} %)' if share is not None else ''}{f': {some}' if some else ''}"
            )[:_CHARS_MAX]


_CHARS_MAX = 500


def _number(verdict: Verdict) -> float | None:
    found = verdict.result
    value = found["observed_value"] if "observed_value" in found else found.get("unexpected_percent")
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def text(detail: dict[str, Any]) -> str:
    return json.dumps(detail, ensure_ascii=False, separators=(",", ":"))
