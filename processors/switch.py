"""`switch`: verdicts in, and out of them the one order in which versions take over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pyarrow as pa
from pydantic import Field

from headrace.batch import Batch, Span
from headrace.config import Config
from headrace.control import Switch, Verdict, digest
from headrace.loop.rollout import RolloutConfig, step
from headrace.loop.steps import Said, batch_of, events_of, expect, read, shape, store, write
from headrace.processor import Context, Processor
from headrace.state import View


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
    own_rows: ClassVar[bool] = True
    main: ClassVar[str] = "switch"
    stateful: ClassVar[bool] = True

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        expect(Verdict, schema, ("about", "model", "version", "ok"))
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
        move, state = step(rollout, read(view, verdict.model), verdict)
        write(view, verdict.model, state)
        if move is None:
            return None
        return Switch(
            id=digest(ctx.flow, ctx.step, verdict.id), at=verdict.at, flow=ctx.flow, step=ctx.step, topic=at.topic,
            partition=at.partition, window=verdict.window or 0, offset_first=at.offset_first,
            offset_last=at.offset_last, window_start=verdict.window_start, window_end=verdict.window_end,
            measure=verdict.about, condition=None, rows=verdict.rows, matched=verdict.labels, observed=1.0,
            threshold=1.0, model=verdict.model, to=move.to, reason=move.reason, mode=move.mode,
            share=rollout.share if move.mode == "canary" else 1.0, previous=move.previous, trigger=move.trigger,
            verdict=verdict.id, by=verdict.by)
