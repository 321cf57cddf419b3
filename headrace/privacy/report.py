"""Where each tagged field of a flow goes: the steps that read it, the topics it arrives in, and how it stands there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace.plan import Edge, Plan, StepPlan
from headrace.privacy.arrivals import Arrival, arrivals
from headrace.privacy.lineage import MAY, Tagged, Trace, column
from headrace.rules import given
from headrace.schemadrift.uses import less, planned


@dataclass(frozen=True, slots=True)
class Reading:
    """A step that reads a field. `sure` is False where only its running would tell."""

    step: str
    kind: str
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A tagged field: who reads it and where it arrives; nowhere is nowhere."""

    field: Tagged
    read_by: tuple[Reading, ...]
    arrives: tuple[Arrival, ...]

    @property
    def open(self) -> bool:
        return any(one.open for one in self.arrives)

    def as_json(self) -> dict[str, Any]:
        one = self.field
        return {"source": one.source, "topic": one.topic, "path": one.path, "tag": one.tag, "in_clear": self.open,
                "read_by": [{"step": r.step, "kind": r.kind, "sure": r.sure} for r in self.read_by],
                "arrives": [{"topic": a.topic, "kind": a.kind, "at": a.at, "how": a.how, "accepted": a.accepted}
                            for a in self.arrives]}


def report(plan: Plan) -> list[Whereabouts]:
    """Every tagged field of the flow's sources, in the order of their schemas."""
    there = [*arrivals(plan.sources, plan.steps, [*plan.sinks, plan.dead_letter], plan.traces, plan.rejects),
             *_changelog(plan)]
    fields = dict.fromkeys(trace.field for source in plan.sources
                           for edge, traces in plan.traces.items() if edge.step == source.name for trace in traces)
    return [Whereabouts(field, tuple(_readings(plan, field)),
                        tuple(dict.fromkeys(one for one in there if one.field == field))) for field in fields]


def _given(plan: Plan, step: StepPlan) -> Iterator[tuple[int, Trace]]:
    """(place in `from`, trace) of what a step is given."""
    for at, edge in enumerate(step.inputs):
        yield from ((at, trace) for trace in plan.traces.get(edge, ()))


def _readings(plan: Plan, field: Tagged) -> Iterator[Reading]:
    for step in plan.steps:
        mine = {(at, column(trace.at)) for at, trace in _given(plan, step) if trace.field == field}
        if any(_needs(plan, step, at, name) for at, name in mine):
            yield Reading(step.name, step.kind)
        elif mine and any(trace.field == field and trace.how == MAY for name in step.outputs
                          for edge, traces in plan.traces.items() if (edge.step, edge.relationship) == (step.name, name)
                          for trace in traces):
            yield Reading(step.name, step.kind, sure=False)


def _needs(plan: Plan, step: StepPlan, at: int, name: str) -> bool:
    """Whether a step reads a column: its suite names it, or it cannot be planned without it."""
    suite = getattr(step.processor, "suite", None)
    if suite is not None:
        return any(name in one.columns for one in suite.expectations)
    shapes = [_shape(plan, edge) for edge in step.inputs]
    shapes[at] = less(shapes[at], name)
    return planned(plan, step, shapes) is None


def _shape(plan: Plan, edge: Edge) -> pa.Schema:
    source = next((one for one in plan.sources if one.name == edge.step), None)
    if source is None:
        return plan.step(edge.step).outputs[edge.relationship]
    return given(plan.spec, source.name, source.schema.arrow)[edge.relationship]


def _changelog(plan: Plan) -> Iterator[Arrival]:
    """What keyed state keeps, and its changelog with it: a join the rows whole, other steps what they read."""
    for step in plan.steps:
        if step.processor.stateful:
            for at, trace in _given(plan, step):
                if step.kind == "join" or _needs(plan, step, at, column(trace.at)):
                    yield Arrival(f"headrace.{plan.flow}.state", "changelog", trace.field, f"state of {step.name}",
                                  trace.how)
