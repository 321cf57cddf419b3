"""The topics that tagged fields arrive in, and what lint has to say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.marked import Place
from headrace.privacy.lineage import CLEAR, MAY, OPEN, Tagged, Trace, Traces, column

if TYPE_CHECKING:
    from headrace.plan import Edge, SinkPlan, SourcePlan, StepPlan


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A tagged field in a topic of the flow: as what, and how it stands there."""

    topic: str
    kind: str
    """kafka, quarantine, dead_letter or changelog."""
    field: Tagged
    at: str
    """Its path in the records; “key” where it is in their keys, “payload” where they are as they came."""
    how: str
    accepted: bool = False
    """Whether the sink says that it may be there in clear (`pii_accepted`)."""

    @property
    def open(self) -> bool:
        """Whether it is there for all to read, or what was made of it, and nobody said so."""
        return self.how in OPEN and not self.accepted


def arrivals(sources: Sequence[SourcePlan], steps: Sequence[StepPlan], sinks: Sequence[SinkPlan],
             traces: Mapping[Edge, Traces], rejects: str | None) -> Iterator[Arrival]:
    """What arrives in each sink, in their order."""
    by_name = {step.name: step for step in steps}
    for sink in sinks:
        said = sink.config.pii_accepted
        if sink.schema is None:  # payloads as they came, whatever the steps above did
            above = {name for edge in sink.inputs for name in _origins(edge, by_name)}
            found = [("payload", Trace(one.field, one.at)) for source in sources for one in _of(source)
                     if source.name in above or sink.name == rejects or sink.kind == "dead_letter"]
        else:
            known = sink.schema.arrow.names
            found = [(one.at, one) for edge in sink.inputs for one in traces.get(edge, ()) if column(one.at) in known]
            found += [("key", one) for one in _in_key(sink, sources, traces)]
        for at, trace in dict.fromkeys(found):
            yield Arrival(sink.name, sink.kind, trace.field, at, trace.how, said)


def _of(source: SourcePlan) -> Traces:
    return tuple(Trace(Tagged(source.name, source.config.topic, path, tag), path)
                 for path, tag in source.schema.pii.items())


def _origins(edge: Edge, steps: Mapping[str, StepPlan]) -> set[str]:
    """The sources whose records come over an edge."""
    step = steps.get(edge.step)
    return {edge.step} if step is None else {name for each in step.inputs for name in _origins(each, steps)}


def _in_key(sink: SinkPlan, sources: Sequence[SourcePlan], traces: Mapping[Edge, Traces]) -> Iterator[Trace]:
    """What is in the keys: of a column, or of the source records' keys, which go along untouched by any step."""
    if sink.config.key is not None:
        for edge in sink.inputs:
            yield from (one for one in traces.get(edge, ()) if column(one.at) == sink.config.key)
        return
    for source in sources:
        for one in _of(source):
            if source.config.key is None or source.config.key == column(one.at):
                yield Trace(one.field, one.at, MAY if source.config.key is None else CLEAR)


def remarks(found: Sequence[Arrival]) -> Iterator[tuple[Place, str]]:
    """One for each sink that has personal data in the open: what, and what to do."""
    for topic, kind in dict.fromkeys((one.topic, one.kind) for one in found):
        there = [one for one in found if one.topic == topic and one.open]
        if not there:
            continue
        where = {one: "" if one.at in (one.field.path, "payload") else f" in {one.at}" for one in there}
        what = ", ".join(dict.fromkeys(f"{one.field.path} ({one.field.tag}){where[one]}" for one in there))
        do = "a `mask` step protects it, `select` drops it"
        if kind == "quarantine":
            do = "a quarantine holds payloads as they came, so keep it short, and let few read it"
        yield ("sinks", topic), f"personal data leaves in clear: {what}; {do}; `pii_accepted: true` says it is meant"
