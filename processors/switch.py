"""`switch`: verdicts in, and out of them the one order in which versions take over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from headrace.batch import Batch, Span
from headrace.config import Config
from headrace.control import Switch, Verdict, digest
from headrace.errors import SchemaError
from headrace.loop.steps import Said, batch_of, events_of, read, shape, store, write
from headrace.processor import Context, Processor
from headrace.state import View

PENDING_MAX = 20
"""Blessed versions of a model that may wait for an approval; of more, the oldest is forgotten."""


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


class SwitchConfig(Config):
    """The models that are governed here."""

    models: dict[str, RolloutConfig] = Field(description="By name.", min_length=1)


class SwitchStep(Processor):
    """Reads `headrace.verdicts`, which has one partition, and is the one writer of a model's switches.

    gate, blessed          takes over as `mode` says, or waits for its approval
    experiment             a canary that won takes over; one that lost ends
    approve · promote      a person's word: the waiting version, or any version, takes over
    rollback               the version before takes over again; so it does when the guard's measure falls
    """

    Config: ClassVar[type[Config]] = SwitchConfig
    main: ClassVar[str] = "switch"
    stateful: ClassVar[bool] = True

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        if missing := [name for name in ("about", "model", "version", "ok") if name not in schema.names]:
            raise SchemaError(f"these are no verdicts: they lack {', '.join(missing)}",
                              hint="read headrace.verdicts with the schema control/verdicts")
        self._shape = shape(Switch)
        return {"switch": self._shape}

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        config: SwitchConfig = self.config
        view = store(ctx)
        said = []
        for verdict, at in events_of(batch, Verdict):
            if verdict.model in config.models:
                switch = self._judge(verdict, at, view, ctx)
                ctx.count("switch", switch.mode if switch else "none", 1)
                if switch:
                    said.append(Said(switch, switch.model.encode(), at))
        return {"switch": batch_of(said, self._shape)} if said else {}

    def _judge(self, verdict: Verdict, at: Span, view: View, ctx: Context) -> Switch | None:
        """What one verdict leads to; the model's state follows."""
        assert verdict.model is not None
        rollout = self.config.models[verdict.model]
        state: dict[str, Any] = read(view, verdict.model) or {
            "champion": None, "previous": None, "challenger": None, "pending": {}, "low": 0, "since": 0}
        made = self._wanted(verdict, state, rollout)
        switch = None
        if made is not None:
            to, mode, reason = made
            switch = Switch(
                id=digest(ctx.flow, ctx.step, verdict.id), at=verdict.at, flow=ctx.flow, step=ctx.step, topic=at.topic,
                partition=at.partition, window=verdict.window or 0, offset_first=at.offset_first,
                offset_last=at.offset_last, window_start=verdict.window_start, window_end=verdict.window_end,
                measure=verdict.about, condition=None, rows=verdict.rows, matched=verdict.labels, observed=1.0,
                threshold=1.0, model=verdict.model, to=to, reason=reason, mode=mode,
                share=rollout.share if mode == "canary" else 1.0, previous=state["champion"],
                trigger=verdict.trigger or state["pending"].get(to), verdict=verdict.id, by=verdict.by)
            _carry_out(state, to, mode)
        write(view, verdict.model, state)
        return switch

    def _wanted(self, verdict: Verdict, state: dict[str, Any], rollout: RolloutConfig) -> tuple[str, str, str] | None:
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
            case "approve" if verdict.version in state["pending"]:
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
