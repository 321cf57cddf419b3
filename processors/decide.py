"""`decide`: verdicts in, requests to retrain out, by each model's policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from headrace.batch import Batch, Span
from headrace.config import Config
from headrace.control import Retrain, Verdict, to_ranges
from headrace.errors import SchemaError
from headrace.loop.policy import Decision, PolicySpec, PolicyState, asked, decide, plain
from headrace.loop.rollout import RolloutConfig, step
from headrace.loop.steps import Said, batch_of, events_of, expect, read, shape, store, write
from headrace.loop.training import ModelSpec
from headrace.processor import Context, Processor

WINDOWS_MAX = 400
"""Windows of a model whose offsets are remembered one by one; older ones are trained on as one stretch."""


class GovernedConfig(Config):
    """A model, and when it is retrained."""

    learn: dict[str, Any] = Field(description="What it is: target, features, times (`headrace.loop.training."
                                  "ModelSpec`, without its name).")
    policy: dict[str, Any] = Field(default_factory=dict, description="When it is retrained (`headrace.loop.policy."
                                   "PolicySpec`, without its name).")
    rollout: RolloutConfig = Field(default_factory=RolloutConfig.model_construct, description="How its versions take "
                                   "over: to know which is in charge.")
    priority: int = Field(0, description="Of its requests, where several models wait: higher goes first.")

    def of(self, name: str) -> tuple[ModelSpec, PolicySpec]:
        return (ModelSpec.model_validate({"name": name, **self.learn}),
                PolicySpec.model_validate({"model": name, **self.policy}))


class DecideConfig(Config):
    """The models decided on here."""

    models: dict[str, GovernedConfig] = Field(description="By name.", min_length=1)


class Decide(Processor):
    """Reads `headrace.verdicts`, which has one partition. What it knows is in its state, so each cause has one request.

    A request names the offsets of every window so far that the policy calls good; it may know labels up to its time,
    when the last of them was judged. A person's `retrain` verdict asks for one at once.
    """

    Config: ClassVar[type[Config]] = DecideConfig
    own_rows: ClassVar[bool] = True
    main: ClassVar[str] = "retrain"
    stateful: ClassVar[bool] = True

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        """Raises SchemaError for rows that are no verdicts, and for declarations that do not hold."""
        expect(Verdict, schema, ("about", "model", "window", "ok"))
        self._models: dict[str, tuple[ModelSpec, PolicySpec]] = {}
        for name, model in self.config.models.items():
            try:
                self._models[name] = model.of(name)
            except ValueError as error:  # pydantic's
                raise SchemaError(f"the model {name}: {error}") from error
        self._shape = shape(Retrain)
        return {"retrain": self._shape}

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        view, said = store(ctx), []
        for verdict, at in events_of(batch, Verdict):
            if verdict.model not in self._models:
                continue
            _, policy = self._models[verdict.model]
            held: dict[str, Any] = read(view, verdict.model) or {"policy": None, "windows": {}, "rollout": None}
            state = PolicyState.from_json(held["policy"]) if held["policy"] else PolicyState()
            _note(held, verdict)
            _, held["rollout"] = step(self.config.models[verdict.model].rollout, held["rollout"], verdict)
            move = asked if verdict.about == "retrain" else decide
            state, decision = move(policy, state, plain(verdict.to_record()))
            held["policy"] = state.to_json()
            write(view, verdict.model, held)
            ctx.count("decide", decision.rule if decision else "none", 1)
            if decision is not None and (request := self._request(decision, verdict, at, held, ctx)):
                said.append(Said(request, request.model.encode(), at))
        return {"retrain": batch_of(said, self._shape)} if said else {}

    def _request(self, decision: Decision, verdict: Verdict, at: Span, held: dict[str, Any], ctx: Context) -> Retrain:
        spans = _spans(held["windows"], decision)
        whole = spans[-1] if spans else at
        model, _ = self._models[decision.model]
        until = datetime.fromtimestamp(decision.as_of_ms / 1000, UTC)
        moment = datetime.fromtimestamp(_judged(held["windows"], decision) / 1000, UTC)
        since = None if decision.since_ms is None else datetime.fromtimestamp(decision.since_ms / 1000, UTC)
        return Retrain(
            id=decision.id, at=moment, flow=ctx.flow, step=ctx.step, topic=whole.topic,
            partition=whole.partition, window=decision.window, offset_first=whole.offset_first,
            offset_last=whole.offset_last, window_start=since, window_end=until, measure=decision.rule, condition=None,
            rows=decision.labels, matched=decision.positives, observed=float(decision.attempt), threshold=0.0,
            model=decision.model, reason=decision.reason, ranges=to_ranges(spans), champion=held["rollout"]["champion"],
            spec=model.model_dump_json(), priority=self.config.models[decision.model].priority,
            causes=list(decision.causes))


def _note(held: dict[str, Any], verdict: Verdict) -> None:
    """Where a window's records are."""
    if verdict.window is not None and verdict.offset_first is not None and verdict.window_start and verdict.window_end:
        held["windows"][str(verdict.window)] = [
            verdict.topic, verdict.partition, verdict.offset_first, verdict.offset_last,
            round(verdict.window_start.timestamp() * 1000), round(verdict.window_end.timestamp() * 1000),
            round(verdict.at.timestamp() * 1000)]
        while len(held["windows"]) > WINDOWS_MAX:
            first, second = sorted(held["windows"], key=int)[:2]
            old, kept = held["windows"].pop(first), held["windows"][second]
            held["windows"][second] = [*kept[:2], min(old[2], kept[2]), max(old[3], kept[3]), old[4], *kept[5:]]


def _judged(windows: Mapping[str, Any], decision: Decision) -> int:
    """When the last window of a decision was judged: where rows may come late, that is after its end, and by then its
    stretch of the topic has labels of the next window, too. Milliseconds since 1970."""
    at: int = max([each[6] for each in windows.values() if each[5] <= decision.as_of_ms], default=decision.as_of_ms)
    return max(at, decision.as_of_ms)


def _spans(windows: Mapping[str, Any], decision: Decision) -> list[Span]:
    """The offsets of all windows up to the decision's but for the excluded ones; neighbours as one. Where windows
    overlap, because rows came late, what lies in an excluded one's stretch is left out of its neighbours'."""
    good: list[Span] = []
    bad: list[Span] = []
    joins = False
    for window in sorted(map(int, windows)):
        topic, partition, first, last, start_ms, end_ms, _ = windows[str(window)]
        span = Span(topic, partition, first, last)
        if any(a < end_ms and start_ms < b for a, b in decision.excluded):
            bad.append(span)
            joins = False  # what comes next is not the neighbour of what came before
        elif end_ms <= decision.as_of_ms:
            if joins and (good[-1].topic, good[-1].partition) == (topic, partition):
                before = good.pop()
                span = Span(topic, partition, min(before.offset_first, first), max(before.offset_last, last))
            good.append(span)
            joins = True
    return [left for span in good for left in _without(span, bad)]


def _without(span: Span, bad: Sequence[Span]) -> list[Span]:
    """What is left of a span."""
    left = [span]
    for out in bad:
        if (out.topic, out.partition) == (span.topic, span.partition):
            left = [part for each in left for part in (
                replace(each, offset_last=min(each.offset_last, out.offset_first - 1)),
                replace(each, offset_first=max(each.offset_first, out.offset_last + 1)))
                if part.offset_first <= part.offset_last]
    return left
