"""When to retrain: verdicts in, at most one decision out. A pure state machine; its clock is the event time.

    state, decision = decide(spec, state, verdict)

A verdict is a mapping with the fields of `control.Verdict` (see `plain`): of a window (about: quality, drift,
performance), of a gate, or of a training that failed. A window is weighed once, when all that is expected of it has
come or been waited for, and windows are weighed in order. What makes a trigger:

    opportunity   inputs are another regime in k of the last n good windows
    performance   labels say that the champion was bad in k of the last n good windows
    age           the champion's data ended long ago (only if `age_max_days` is said)

and, for each of them, enough new labels of both classes since the last training: drift of an input alone never
triggers. Bad windows neither count nor are trained on: their times are in the decision's `excluded`. A decision's id
is derived from model, rule and window, so that the same cause has the same id however often it is met.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import Field, model_validator

from headrace.config import Config

DAY_MS = 86_400_000
WINDOW_KINDS = ("quality", "drift", "performance")
OPEN_MAX, EXCLUDED_MAX = 64, 400
"""Windows that may be incomplete at a time, and stretches of bad data remembered; the oldest go first."""


class PolicySpec(Config):
    """When a model is retrained."""

    model: str = Field(min_length=1, description="The model's name in the model registry.")
    expects: tuple[str, ...] = Field(WINDOW_KINDS, min_length=1, description="What is said of every window: quality, "
                                     "drift, performance. It is weighed when all of it is there.")
    patience_days: float = Field(7, ge=0, description="How long past a window's end, by event time, the missing is "
                                 "waited for.")
    windows_bad: int = Field(2, ge=1, description="k: so many …")
    windows_seen: int = Field(3, ge=1, description="… of the last n good windows must speak for it.")
    labels_min: int = Field(20_000, ge=1, description="New labels there must be since the last training.")
    labels_per_class_min: int = Field(1_000, ge=1, description="New labels of each class.")
    age_max_days: float | None = Field(None, gt=0, description="Retrain when the last training is so long ago.")
    cool_down_days: float = Field(21, ge=0, description="No other trigger for so long, by event time.")
    rejected_cool_down_days: float | None = Field(None, ge=0, description="The same after a rejection, if different.")
    triggers_per_day_max: int = Field(1, ge=1, description="Budget of a day, by event time, UTC.")
    triggers_max: int | None = Field(None, ge=0, description="Budget in all.")
    in_flight_max_days: float | None = Field(
        None, gt=0, description="A request unanswered for so long, by event time, is given up. Without: never, which "
        "is right for a replay, whose event time runs faster than a training.")
    failures_max: int = Field(3, ge=1, description="After so many failed trainings in a row the policy rests …")
    rest_days: float = Field(7, ge=0, description="… for so long, by event time.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.windows_bad > self.windows_seen:
            raise ValueError(f"{self.windows_bad} of {self.windows_seen} windows is never reached")
        strange = sorted(set(self.expects) - set(WINDOW_KINDS))
        if strange:
            raise ValueError(f"of a window there are {', '.join(WINDOW_KINDS)}, and not {', '.join(strange)}")
        return self


@dataclass(frozen=True, slots=True)
class PolicyState:
    """All a policy remembers; JSON values only. `open`: verdicts of windows not weighed yet, by window and kind.
    `windows`: the good ones since the last training, at most n. `weighed`, `ends_ms`: the last window weighed and
    where it ends. `since_ms`: the end of the last training's data."""

    open: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    windows: tuple[Mapping[str, Any], ...] = ()
    excluded: tuple[tuple[int, int], ...] = ()
    weighed: int | None = None
    ends_ms: int = 0
    now_ms: int = 0
    since_ms: int | None = None
    labels: int = 0
    positives: int = 0
    in_flight: Mapping[str, Any] | None = None
    last_ms: int | None = None
    rest_until_ms: int = 0
    day: int | None = None
    day_count: int = 0
    count: int = 0
    failures: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, held: Mapping[str, Any]) -> Self:
        return cls(**{**held, "windows": tuple(held.get("windows", ())),
                      "excluded": tuple((first, end) for first, end in held.get("excluded", ()))})


@dataclass(frozen=True, slots=True)
class Decision:
    """Retrain `model` on labels known as of `as_of_ms`, leaving out the `excluded` stretches of event time (from,
    until). `causes` are ids of verdicts. `since_ms`: where the last training's data ended, None for the first."""

    id: str
    model: str
    rule: str
    reason: str
    causes: tuple[str, ...]
    window: int
    as_of_ms: int
    since_ms: int | None
    excluded: tuple[tuple[int, int], ...]
    labels: int
    positives: int
    attempt: int


def decide(spec: PolicySpec, state: PolicyState, verdict: Mapping[str, Any]) -> tuple[PolicyState, Decision | None]:
    """The state after a verdict, and what it led to. Repeats and verdicts on windows weighed before change nothing."""
    about = verdict["about"]
    if about in ("gate", "failed"):
        return _answered(spec, state, verdict), None
    if about not in spec.expects or (state.weighed is not None and verdict["window"] <= state.weighed):
        return state, None
    key = str(verdict["window"])
    entry = {**state.open.get(key, {}), about: _kept(verdict)}
    kept = sorted({**state.open, key: entry}.items(), key=lambda each: int(each[0]))[-OPEN_MAX:]
    state = replace(state, open=dict(kept), now_ms=max(state.now_ms, int(verdict["end_ms"])))
    decision = None
    for window in _ripe(spec, state):
        state = _weigh(state, window)
        state, found = _consider(spec, state, window)
        decision = decision or found
    return state, decision


def asked(spec: PolicySpec, state: PolicyState, verdict: Mapping[str, Any]) -> tuple[PolicyState, Decision | None]:
    """The state after a person asked for a training, as of the verdict's `at`, or of the last window's end if that is
    earlier; nothing when one is in flight, or no window has been weighed. It counts towards the budgets."""
    if state.in_flight is not None or not state.ends_ms:
        return state, None
    at = min(int(verdict["at"]), state.ends_ms)
    identity = hashlib.sha256("\0".join((spec.model, "asked", str(verdict["id"]))).encode()).hexdigest()
    reason = "; ".join((f"{verdict.get('by') or 'somebody'} asked for it", *(verdict.get("reasons") or ())))
    decision = Decision(identity, spec.model, "asked", reason, (verdict["id"],), state.weighed or 0, at, state.since_ms,
                        state.excluded, state.labels, state.positives, state.count + 1)
    return _triggered(state, decision), decision


def started(state: PolicyState, as_of_ms: int) -> PolicyState:
    """The state of a policy whose first champion was trained, by hand, on what was known at that time."""
    return replace(state, since_ms=as_of_ms, last_ms=as_of_ms, now_ms=max(state.now_ms, as_of_ms))


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A decoded `control.Verdict` as JSON: times in milliseconds, `window_start` as `start_ms`, `window_end` as
    `end_ms` (or `at` where there is no window)."""
    made = {name: _ms(value) for name, value in record.items()}
    made["end_ms"] = made["window_end"] if made.get("window_end") is not None else made["at"]
    made["start_ms"] = made["window_start"] if made.get("window_start") is not None else made["end_ms"]
    return made


def _ms(value: Any) -> Any:
    return round(value.timestamp() * 1000) if isinstance(value, datetime) else value


def _kept(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What is remembered of a window's verdict."""
    measures = verdict.get("measures") or {}
    return {"id": verdict["id"], "ok": bool(verdict["ok"]), "start_ms": int(verdict["start_ms"]),
            "end_ms": int(verdict["end_ms"]), "labels": int(verdict.get("labels") or measures.get("labels") or 0),
            "positives": int(measures.get("positives") or 0), "reasons": list(verdict.get("reasons") or ())[:3]}


def _ripe(spec: PolicySpec, state: PolicyState) -> Iterator[int]:
    """The windows that can be weighed now, in order: a later one waits for an earlier one."""
    for window, entry in sorted(((int(key), entry) for key, entry in state.open.items()), key=lambda each: each[0]):
        waited = state.now_ms >= max(each["end_ms"] for each in entry.values()) + spec.patience_days * DAY_MS
        if not waited and any(kind not in entry for kind in spec.expects):
            return
        yield window


def _weigh(state: PolicyState, window: int) -> PolicyState:
    """A window is closed: a bad one is excluded, a good one's labels count and it joins the last n."""
    entry = state.open[str(window)]
    rest = {key: each for key, each in state.open.items() if key != str(window)}
    start, end = min(e["start_ms"] for e in entry.values()), max(e["end_ms"] for e in entry.values())
    state = replace(state, open=rest, weighed=window, ends_ms=end)
    if not entry.get("quality", {"ok": True})["ok"]:
        return replace(state, excluded=(*state.excluded, (start, end))[-EXCLUDED_MAX:])
    seen = entry.get("performance", {"labels": 0, "positives": 0})
    flat = {"window": window, "end_ms": end, "labels": seen["labels"], "positives": seen["positives"],
            **{kind: {"id": each["id"], "ok": each["ok"], "reasons": each["reasons"]} for kind, each in entry.items()}}
    return replace(state, windows=(*state.windows, flat), labels=state.labels + seen["labels"],
                   positives=state.positives + seen["positives"])


def _consider(spec: PolicySpec, state: PolicyState, window: int) -> tuple[PolicyState, Decision | None]:
    """Whether the windows now speak for a training, and nothing speaks against it."""
    state = replace(state, windows=state.windows[-spec.windows_seen:])
    at = state.windows[-1]["end_ms"] if state.windows and state.windows[-1]["window"] == window else None
    if at is None:
        return state, None
    state = _given_up(spec, state, at)
    rule = next(_rules(spec, state, at), None)
    if rule is None or any(_against(spec, state, at)):
        return state, None
    name, why, causes = rule
    identity = hashlib.sha256("\0".join((spec.model, name, str(window))).encode()).hexdigest()
    reason = (f"{why}; {state.labels} new labels, {state.positives} of them positive, since "
              f"{'the beginning' if state.since_ms is None else _date(state.since_ms)}")
    decision = Decision(identity, spec.model, name, reason, causes, window, at, state.since_ms, state.excluded,
                        state.labels, state.positives, state.count + 1)
    return _triggered(state, decision), decision


def _triggered(state: PolicyState, decision: Decision) -> PolicyState:
    """The state once a decision is made: it is in flight, and its labels are spent."""
    at, day = decision.as_of_ms, decision.as_of_ms // DAY_MS
    flight = {"id": decision.id, "at_ms": at, "labels": state.labels, "positives": state.positives}
    return replace(state, in_flight=flight, last_ms=at, day=day, count=state.count + 1, labels=0, positives=0,
                   day_count=state.day_count + 1 if state.day == day else 1, windows=())


def _rules(spec: PolicySpec, state: PolicyState, at: int) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(rule, reason, ids of the verdicts) of every rule that is met, the strongest first."""
    texts = {"performance": "the champion was bad", "drift": "inputs were another regime"}
    for kind, rule in (("performance", "performance"), ("drift", "opportunity")):
        bad = [window for window in state.windows if not window.get(kind, {"ok": True})["ok"]]
        if len(bad) >= spec.windows_bad:
            said = next((reason for reason in bad[-1][kind]["reasons"]), "")
            yield (rule, f"{texts[kind]} in {len(bad)} of the last {len(state.windows)} windows"
                   + (f" ({said})" if said else ""), tuple(window[kind]["id"] for window in bad))
    if spec.age_max_days and state.since_ms is not None and at - state.since_ms >= spec.age_max_days * DAY_MS:
        newest = state.windows[-1]
        yield ("age", f"the last training is {(at - state.since_ms) / DAY_MS:.0f} days old",
               tuple(newest[kind]["id"] for kind in WINDOW_KINDS if kind in newest))


def _against(spec: PolicySpec, state: PolicyState, at: int) -> Iterator[bool]:
    """What forbids a trigger, each as a truth."""
    yield state.in_flight is not None
    yield state.labels < spec.labels_min
    yield min(state.positives, state.labels - state.positives) < spec.labels_per_class_min
    yield state.last_ms is not None and at - state.last_ms < spec.cool_down_days * DAY_MS
    yield at < state.rest_until_ms
    yield state.day == at // DAY_MS and state.day_count >= spec.triggers_per_day_max
    yield spec.triggers_max is not None and state.count >= spec.triggers_max


def _given_up(spec: PolicySpec, state: PolicyState, at: int) -> PolicyState:
    flight, most = state.in_flight, spec.in_flight_max_days
    if flight is None or most is None or at - flight["at_ms"] < most * DAY_MS:
        return state
    return _failed(spec, state, at)


def _answered(spec: PolicySpec, state: PolicyState, verdict: Mapping[str, Any]) -> PolicyState:
    """What came of the request in flight; answers to others, and repeats, change nothing."""
    flight = state.in_flight
    if flight is None or verdict.get("trigger") != flight["id"]:
        return state
    if verdict["about"] == "failed":
        return _failed(spec, state, flight["at_ms"])
    state = replace(state, in_flight=None, failures=0)
    if verdict["ok"]:
        return replace(state, since_ms=flight["at_ms"], windows=())
    wait = spec.rejected_cool_down_days
    return state if wait is None else replace(
        state, rest_until_ms=max(state.rest_until_ms, flight["at_ms"] + round(wait * DAY_MS)))


def _failed(spec: PolicySpec, state: PolicyState, at: int) -> PolicyState:
    """A training came to nothing: its labels count again, and after a row of them there is a rest."""
    flight, failures = state.in_flight or {}, state.failures + 1
    tired = failures >= spec.failures_max
    return replace(state, in_flight=None, failures=0 if tired else failures,
                   labels=state.labels + flight["labels"], positives=state.positives + flight["positives"],
                   rest_until_ms=max(state.rest_until_ms, at + round(spec.rest_days * DAY_MS)) if tired
                   else state.rest_until_ms)


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
