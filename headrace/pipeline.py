"""One batch through a plan: decode, the steps in order, encode. Pure but for the processors' own state; no broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from operator import methodcaller
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.batch import Batch, Frames, Message, Meta, Outgoing, Rejects, Span, gather
from headrace.codec import AvroSchema, Decoded, Decoder
from headrace.connectors.kafka import KafkaSink, sink_for
from headrace.connectors.quarantine import QuarantineSink, join, too_large
from headrace.errors import HeadraceError, Retriable, UserError
from headrace.plan import DRIFT, Edge, Plan, SourcePlan, StepPlan
from headrace.processor import Context, Partition, SmallState
from headrace.retry import Retries
from headrace.schemadrift.watch import Sighting, Watch, events
from headrace.settings import Settings
from headrace.state import View

HEAD_BYTES = 5
"""Of a framed record: a zero, and the schema id."""
Counts = dict[tuple[str, str, str], int]


@dataclass(slots=True)
class Outputs:
    """What one batch of source records became."""

    records_in: int
    spans: list[Span] = field(default_factory=list)
    """What it read: one span a partition."""
    sinks: dict[str, Outgoing] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    """(step, metric, label) → n, e.g. ("check", "expectation", "tailnum_not_null") → 12."""
    sightings: list[Sighting] = field(default_factory=list)
    """Writers' schemas that the flow had not seen; counted as (source, "new_schema", severity)."""
    frames: list[Frames] = field(default_factory=list)
    """What it was made of: see `release`."""

    @staticmethod
    def joined(parts: Sequence[Outputs], records_in: int, spans: list[Span]) -> Outputs:
        """Outputs of parts of a batch, in their order, as those of the whole."""
        out = Outputs(records_in, spans)
        sent: dict[str, list[Outgoing]] = {}
        for part in parts:
            for name, outgoing in part.sinks.items():
                sent.setdefault(name, []).append(outgoing)
            for at, n in part.counts.items():
                out.add(*at, n)
            out.sightings += part.sightings
            out.frames += part.frames
        out.sinks = {name: join(outgoings) for name, outgoings in sent.items()}
        return out

    def add(self, step: str, metric: str, label: str, n: int) -> None:
        if n:
            at = (step, metric, label)
            self.counts[at] = self.counts.get(at, 0) + n

    def release(self) -> None:
        """Let go of what was picked, then of what it was picked from. So the objects of a batch die in the order they
        came, and its memory is there in one piece for the next. Would those of some records die first, the others'
        would be scattered over the gaps, and after some dozens of batches every list costs twice its time."""
        self.sinks.clear()
        self.frames.clear()


def _no_state(step: str, partition: Partition) -> Any:
    raise AssertionError(f"step {step} asked for state of {partition}, and this runner keeps none")


def _no_state_to_retry(step: str, partition: Partition) -> Any:
    raise UserError(f"{step} keeps state, and has a `retry`: a step that is tried again row by row cannot",
                    hint="keep the state in another step")


class Pipeline:
    """A plan made ready to run.

    `writers` gives the writer schema of a registry id; `sink_ids` the id to frame each Kafka sink's records with;
    `bytes_max` each topic's max.message.bytes; `state(step, partition)` the small state, `store` the keyed one;
    `partitions()` the numbers of those that are ours; `timed(step)` wraps a step.
    """

    def __init__(self, plan: Plan, *, writers: Callable[[int], AvroSchema], sink_ids: Mapping[str, int],
                 bytes_max: Mapping[str, int] | None = None, now_ms: Callable[[], int] = lambda: 0,
                 state: Callable[[str, Partition], SmallState] = _no_state,
                 store: Callable[[str, Partition], View] = _no_state,
                 partitions: Callable[[], Sequence[int]] = lambda: (), settings: Settings | None = None,
                 timed: Callable[[str], AbstractContextManager[Any]] = lambda step: nullcontext()) -> None:
        self.plan, self.timed, self._writers = plan, timed, writers
        self.decoders = {source.name: Decoder(source.schema, writers) for source in plan.sources}
        self._watches = {} if state is _no_state else {source.name: Watch(
            plan, source, writers=writers, state=partial(state, source.name), partitions=partitions)
            for source in plan.sources}
        self.stateful = any(step.processor.stateful for step in plan.steps)
        self.ticking = [step for step in plan.steps if step.processor.ticks]
        self.at = ""
        """What is or was at work: a step, “decode” or “encode”."""
        self._bytes_max = bytes_max or {}
        self._dead = QuarantineSink(plan.dead_letter.name, plan.flow, now_ms=now_ms)
        self._kafka: dict[str, KafkaSink] = {}
        self._quarantine: dict[str, QuarantineSink] = {}
        for sink in plan.sinks:
            if sink.kind == "quarantine":
                self._quarantine[sink.name] = QuarantineSink(sink.name, plan.flow, now_ms=now_ms)
            else:
                assert sink.schema is not None, "a Kafka sink has a schema once it is planned"
                self._kafka[sink.name] = sink_for(sink.name, sink.schema, sink.rows, sink_ids[sink.name],
                                                  sink.config.key, self._bytes_max.get(sink.name, 1_048_588))
        self._outputs: Outputs | None = None
        self._retries = {step.name: Retries(step) for step in plan.steps if step.retry}
        self._contexts = {step.name: Context(
            plan.flow, step.name, plan.project,
            state=partial(_no_state_to_retry if step.retry else state, step.name), store=partial(store, step.name),
            partitions=partitions, settings=settings, owner=plan.owner or "", control=plan.spec.control, now_ms=now_ms,
            count=partial(self._count, step.name)) for step in plan.steps}

    def _count(self, step: str, metric: str, label: str, n: int) -> None:
        assert self._outputs is not None, "a step counts while it processes"
        self._outputs.add(step, metric, label, n)

    def open(self) -> None:
        for step in self.plan.steps:
            step.processor.open(self._contexts[step.name])

    def close(self) -> None:
        for step in self.plan.steps:
            step.processor.close()

    def revoked(self, partitions: Sequence[Partition]) -> None:
        for step in self.plan.steps:
            step.processor.revoked(partitions)

    def run(self, messages: Sequence[Message]) -> Outputs:
        """Every record of `messages`, which are of the sources' topics and in order within each partition."""
        out = self._outputs = Outputs(len(messages))
        at: dict[Edge, Batch] = {}
        rejects: list[Rejects] = []
        self.at = "decode"
        with self.timed("decode"):
            for source, frames in self._split(messages):
                out.frames.append(frames)
                spans = frames.spans()
                out.spans += spans
                decoded = self.decoders[source.name].decode(frames.values)
                at[Edge(source.name, "success")], refused = self._decoded(source, frames, decoded, out)
                rejects += refused
                if (watch := self._watches.get(source.name)) and (seen := watch.look(frames, spans, decoded.groups)):
                    at[Edge(source.name, DRIFT)] = self._seen(source, seen, out)
        for step in self.plan.steps:
            given = [None if batch is None or not len(batch) else batch for batch in map(at.get, step.inputs)]
            if any(batch is not None for batch in given):
                self.at = step.name
                with self.timed(step.name):
                    self._put(at, step, self._results(step, given))
        self.at = "encode"
        with self.timed("encode"):
            self._encode(at, rejects, out)
        self._outputs = None
        return out

    def _results(self, step: StepPlan, given: Sequence[Batch | None]) -> Mapping[str, Batch]:
        ctx = self._contexts[step.name]
        if (retries := self._retries.get(step.name)) is None:
            return step.processor.process_many(given, ctx)
        assert given[0] is not None, "a step with `retry` reads one output"
        return retries.process(given[0], ctx)

    def settled(self) -> None:
        """The batch need not come again: what is remembered of its tries is forgotten."""
        for retries in self._retries.values():
            retries.settled()

    def tick(self) -> Outputs:
        """What steps have to say without a record having come; the steps below them get it as rows of theirs."""
        out = self._outputs = Outputs(0)
        at: dict[Edge, Batch] = {}
        for step in self.plan.steps:
            given = [None if batch is None or not len(batch) else batch for batch in map(at.get, step.inputs)]
            if any(batch is not None for batch in given):
                self._put(at, step, step.processor.process_many(given, self._contexts[step.name]))
            if step in self.ticking:
                said = step.processor.tick(self._contexts[step.name])
                for relationship, batch in said.items():
                    before = at.get(Edge(step.name, relationship))
                    at[Edge(step.name, relationship)] = gather([before, batch]) if before else batch
        self._encode(at, [], out)
        self._outputs = None
        return out

    def _put(self, at: dict[Edge, Batch], step: StepPlan, results: Mapping[str, Batch]) -> None:
        for relationship, result in results.items():
            assert relationship in step.outputs, f"{step.name} gave {relationship}, which it never declared"
            at[Edge(step.name, relationship)] = result

    def _split(self, messages: Sequence[Message]) -> Iterator[tuple[SourcePlan, Frames]]:
        """The messages of each source, in order."""
        if len(self.plan.sources) == 1:
            yield self.plan.source, Frames(messages, self.plan.source.config.topic)
            return
        topics = list(map(methodcaller("topic"), messages))
        for source in self.plan.sources:
            mine = list(compress(messages, map(source.config.topic.__eq__, topics)))
            if mine:
                yield source, Frames(mine, source.config.topic)

    def unreadable(self, messages: Sequence[Message]) -> dict[Partition, int]:
        """The partitions with a record whose writer's schema cannot be asked for now, each with its first offset here.
        """
        firsts: dict[Partition, int] = {}
        ids: dict[Partition, set[bytes]] = {}
        read = Frames(messages)
        places = zip(read.topics, read.partitions.tolist(), strict=True)
        for at, offset, value in zip(places, read.offsets.tolist(), read.values, strict=True):
            firsts.setdefault(at, offset)
            if value is not None and len(value) >= HEAD_BYTES and not value[0]:
                ids.setdefault(at, set()).add(value[1:HEAD_BYTES])
        away = {raw for raw in set().union(*ids.values()) if self._away(int.from_bytes(raw))}
        return {at: firsts[at] for at, named in ids.items() if named & away}

    def _away(self, schema_id: int) -> bool:
        try:
            self._writers(schema_id)
        except Retriable:
            return True
        except HeadraceError:  # then its records are rejects
            return False
        return False

    def _seen(self, source: SourcePlan, sightings: list[Sighting], out: Outputs) -> Batch:
        """Sightings as rows, for those who read `<source>.drift`."""
        out.sightings += sightings
        for each in sightings:
            out.add(source.name, "new_schema", each.drift.severity, 1)
        return events(sightings, self.plan, source.name)

    def _decoded(self, source: SourcePlan, frames: Frames, decoded: Decoded,
                 out: Outputs) -> tuple[Batch, list[Rejects]]:
        batch = Batch(decoded.rows, Meta(frames, decoded.index))
        refused = decoded.rejects
        if refused and source.config.tombstones == "drop":
            values = frames.values
            out.add(source.name, "dropped", "tombstone", sum(values[i] is None for i, _ in refused))
            refused = [(i, why) for i, why in refused if values[i] is not None]
        if not refused:
            return batch, []
        index = np.array([i for i, _ in refused], dtype=np.int64)
        return batch, [Rejects(Meta(frames, index), [[why] for _, why in refused], source.name)]

    def _encode(self, at: Mapping[Edge, Batch], rejects: list[Rejects], out: Outputs) -> None:
        for sink in self.plan.sinks:
            parts = []
            for edge in sink.inputs:
                batch = at.get(edge)
                if batch is None or not len(batch):
                    continue
                if sink.name in self._quarantine:
                    batch = self._fitting(sink.name, batch, edge.step, rejects)
                    if len(batch):
                        parts.append(self._quarantine[sink.name].hold(batch, edge.step))
                else:
                    outgoing, refused = self._kafka[sink.name].encode(batch)
                    parts.append(outgoing)
                    rejects += refused
            if parts:
                out.sinks[sink.name] = join(parts)
        for part in rejects:
            for why in part.reasons:
                out.add(part.step, "reject", why[0].partition(":")[0], 1)
            if part.dead:
                self._bury(part, out)
            elif self.plan.rejects:
                held = self._without_large(part, self.plan.rejects, out)
                self._add(self.plan.rejects, self._quarantine[self.plan.rejects].reject(held), out)

    def _fitting(self, sink: str, batch: Batch, step: str, rejects: list[Rejects]) -> Batch:
        """What a quarantine takes of a batch; what is too large for it is a dead letter."""
        large = too_large(batch.meta, self._bytes_max.get(sink, 1 << 60))
        if large is None:
            return batch
        reasons = [[]] * len(large) if batch.reasons is None else batch.reasons.take(pa.array(large)).to_pylist()
        rejects.append(_oversized(batch.meta.take(large), reasons, sink, step))
        fits = np.ones(len(batch), np.bool_)
        fits[large] = False
        return batch.take(pa.array(fits))

    def _without_large(self, part: Rejects, sink: str, out: Outputs) -> Rejects:
        """What a quarantine takes of rejects; what is too large for it is buried."""
        large = too_large(part.meta, self._bytes_max.get(sink, 1 << 60))
        if large is None:
            return part
        fits, of = np.setdiff1d(np.arange(len(part.meta)), large), part.reasons.__getitem__
        self._bury(_oversized(part.meta.take(large), list(map(of, large.tolist())), sink, part.step), out)
        return Rejects(part.meta.take(fits), list(map(of, fits.tolist())), part.step)

    def bury(self, messages: Sequence[Message], steps: Sequence[str], reasons: Sequence[str], out: Outputs) -> None:
        """Records that broke these steps, as dead letters."""
        for message, step, reason in zip(messages, steps, reasons, strict=True):
            out.add(step, "dead_letter", "poison", 1)
            self._bury(Rejects(Meta(Frames([message])), [[reason]], step, dead=True), out)

    def _bury(self, part: Rejects, out: Outputs) -> None:
        """Raises UserError for what even the dead-letter topic cannot take: then nothing goes on."""
        topic = self.plan.dead_letter.name
        if (large := too_large(part.meta, self._bytes_max.get(topic, 1 << 60))) is not None:
            at = part.meta.take(large[:1])
            raise UserError(f"{at.topics()[0]}/{at.partitions()[0]}@{at.offsets()[0]} cannot be processed "
                            f"({part.reasons[large[0]][0]}), and is too large for {topic}",
                            hint=f"raise max.message.bytes of {topic} (kafka-configs --alter), and start again")
        self._add(topic, self._dead.reject(part), out)

    def _add(self, topic: str, more: Outgoing, out: Outputs) -> None:
        before = out.sinks.get(topic)
        if len(more):
            out.sinks[topic] = join([before, more]) if before else more


def _oversized(meta: Meta, reasons: Sequence[Sequence[str]], sink: str, step: str) -> Rejects:
    """Records that a quarantine would have to take, and cannot."""
    said = f"oversized: too large for {sink}"
    return Rejects(meta, [[said, *each] for each in reasons], step, dead=True)
