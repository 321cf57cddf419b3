"""What the loop has said so far, put in order: weeks with their measures, retrainings from cause to end, switches.

`note` takes control events as they are heard and gives back what is worth a line; the live view draws the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from headrace.control import ControlEvent, Retrain, RetrainResult, Switch, Verdict

ANSWERS = ("gate", "failed")


@dataclass(slots=True)
class Week:
    """A window, as the monitors judged it. `bad` has the kinds of verdicts that were not ok."""

    start: datetime
    auc: float | None = None
    baseline: float | None = None
    version: str | None = None
    bad: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Retraining:
    """One request, and how it stands: asked, trained, blessed, rejected or failed."""

    request: Retrain
    state: str = "asked"
    result: RetrainResult | None = None
    answer: Verdict | None = None


@dataclass(slots=True)
class Told:
    """All of it. `retrainings` by trigger, in the order in which they were asked for."""

    weeks: dict[int, Week] = field(default_factory=dict)
    retrainings: dict[str, Retraining] = field(default_factory=dict)
    switches: list[Switch] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    verdicts: int = 0
    results: int = 0

    @property
    def open(self) -> list[Retraining]:
        """Those that no gate has answered yet."""
        return [each for each in self.retrainings.values() if each.answer is None]

    @property
    def in_charge(self) -> str | None:
        return self.switches[-1].to if self.switches else None

    def note(self, event: ControlEvent) -> str | None:
        """Remember it; a line about it, where it is worth one."""
        match event:
            case Verdict(about=about) if about in ANSWERS:
                self.verdicts += 1
                return self._answered(event)
            case Verdict():
                self.verdicts += 1
                self._window(event)
            case Retrain():
                self.retrainings[event.id] = Retraining(event)
                return f"TRIGGER {event.at:%d %B}, {event.measure}: {event.reason}"
            case RetrainResult():
                self.results += 1
                return self._trained(event)
            case Switch():
                self.switches.append(event)
                gone = f", in place of version {event.previous}" if event.previous else ""
                return f"SWITCH {event.at:%d %B}: version {event.to} is in charge{gone}"
        return None

    def _window(self, verdict: Verdict) -> None:
        if verdict.window is None or verdict.window_start is None:
            return
        week = self.weeks.setdefault(verdict.window, Week(verdict.window_start))
        if not verdict.ok:
            week.bad.append(verdict.about)
        if verdict.about == "performance":
            week.version = verdict.version
            week.auc, week.baseline = verdict.measures.get("auc"), verdict.measures.get("baseline")

    def _trained(self, result: RetrainResult) -> str | None:
        if result.status == "started":
            return None
        asked = self.retrainings.get(result.trigger)
        if asked is not None:
            asked.state, asked.result = "trained" if result.status == "succeeded" else "failed", result
        if result.status != "succeeded":
            self.failures.append(f"the training of {result.trigger[:16]} {result.status}: {result.reason}")
            return f"training {result.status}: {result.reason}"
        made = ", ".join(f"{name} as version {version}" for name, version in result.candidates.items())
        return f"trained in {result.cpu_s or 0:.0f} s of processor time: {made}"

    def _answered(self, verdict: Verdict) -> str:
        asked = self.retrainings.get(verdict.trigger or "")
        state = "failed" if verdict.about == "failed" else "blessed" if verdict.ok else "rejected"
        if asked is not None:
            asked.state, asked.answer = state, verdict
        if state == "blessed":
            return f"BLESSED version {verdict.version}: {verdict.reasons[0] if verdict.reasons else ''}"
        return f"{state.upper()}: {'; '.join(verdict.reasons)}"
