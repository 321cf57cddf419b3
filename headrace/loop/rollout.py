"""How a model's versions take over: a pure state machine over verdicts, the same for who switches and who only follows.

    made, state = step(rollout, state, verdict)        # what it leads to, and the state after it was carried out
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field

from headrace.config import Config
from headrace.control import Verdict

PENDING_MAX = 20
"""Blessed versions of a model that may wait for an approval; of more, the oldest is forgotten."""
START: Mapping[str, Any] = {"champion": None, "previous": None, "challenger": None, "pending": {}, "low": 0, "since": 0}
"""The state of a model of which nothing is known. JSON values."""


class GuardConfig(Config):
    """When the version in charge gives way to the one before it, by itself."""

    measure: str = Field("auc", description="The measure of a performance verdict that is watched.")
    below: float = Field(description="Roll back when it is less than this …")
    windows: int = Field(1, ge=1, description="… in so many verdicts in a row.")
    within: int = Field(10, ge=1, description="Only in this many verdicts after a switch; later a retraining is due.")


class RolloutConfig(Config):
    """How a blessed version of one model takes over."""

    approval: Literal["none", "required"] = Field(
        "none", description="required: it waits until a person says `headrace models approve`.")
    mode: Literal["full", "canary", "shadow"] = Field(
        "full", description="full: at once. canary: it serves `share` of the keys first. shadow: it is asked beside.")
    share: float = Field(0.1, gt=0, lt=1, description="Of a canary: the part of the keys it serves.")
    guard: GuardConfig | None = Field(None, description="Automatic rollback; none, if left out.")


class Move(NamedTuple):
    """What a verdict leads to: this version, in this mode, for this reason; `trigger` is the retraining it came of."""

    to: str
    mode: str
    reason: str
    trigger: str | None
    previous: str | None


def step(rollout: RolloutConfig, state: Mapping[str, Any] | None,
         verdict: Verdict) -> tuple[Move | None, dict[str, Any]]:
    """One verdict on the model whose state it is."""
    held: dict[str, Any] = {**START, **(state or {})}
    held["pending"] = dict(held["pending"])
    made = _wanted(verdict, held, rollout)
    if made is None:
        return None, held
    to, mode, reason = made
    move = Move(to, mode, reason, verdict.trigger or held["pending"].get(to), held["champion"])
    _carry_out(held, to, mode)
    if rollout.guard and verdict.about in ("performance", "rollback"):
        held["since"] = rollout.guard.within  # the guard rests: the version before is the one that was just left
    return move, held


def _wanted(verdict: Verdict, state: dict[str, Any], rollout: RolloutConfig) -> tuple[str, str, str] | None:
    """(version, mode, reason) of the switch to make, if any."""
    because = "; ".join(verdict.reasons)
    match verdict.about:
        case "gate" if verdict.ok and verdict.version:
            if rollout.approval == "required":
                waiting = [*state["pending"].items(), (verdict.version, verdict.trigger)]
                state["pending"] = dict(waiting[-PENDING_MAX:])
                return None
            first = state["champion"] is None  # nothing is there for a canary to stand beside
            return verdict.version, "full" if first else rollout.mode, because
        case "approve" if verdict.ok and verdict.version in state["pending"]:
            first = state["champion"] is None
            return str(verdict.version), "full" if first else rollout.mode, f"approved by {verdict.by}: {because}"
        case "promote" if verdict.version:
            return verdict.version, "full", f"promoted by {verdict.by}: {because}"
        case "rollback" if to := verdict.version or state["previous"]:
            return to, "full", f"rolled back by {verdict.by}: {because}"
        case "experiment" if state["challenger"] and verdict.version == state["challenger"]:
            return state["challenger"], "full" if verdict.ok else "off", because
        case "performance" if rollout.guard:
            return _guarded(verdict, state, rollout.guard)
    return None


def _guarded(verdict: Verdict, state: dict[str, Any], guard: GuardConfig) -> tuple[str, str, str] | None:
    """Back to the version before, when the guard's measure of the one in charge has been too low too often."""
    value = verdict.measures.get(guard.measure)
    if value is None or verdict.version != state["champion"] or state["since"] >= guard.within:
        return None
    state["since"] += 1
    state["low"] = state["low"] + 1 if value < guard.below else 0
    if state["low"] < guard.windows or not state["previous"]:
        return None
    return state["previous"], "full", (f"guard: {guard.measure} {value:.4f} of version {verdict.version} is below "
                                       f"{guard.below:g} in {state['low']} window{'s' * (state['low'] > 1)}")


def _carry_out(state: dict[str, Any], to: str, mode: str) -> None:
    if mode == "off":
        state["challenger"] = None
    elif mode in ("canary", "shadow"):
        state["challenger"] = to
    else:
        if to != state["champion"]:
            state["previous"] = state["champion"]
        state |= {"champion": to, "challenger": None, "low": 0, "since": 0}
    state["pending"].pop(to, None)
