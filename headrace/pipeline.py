"""One batch through a plan: decode, the steps in order, encode. Pure but for the processors' own state; no broker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from headrace.batch import Batch, Frames, Message, Meta, Outgoing, Rejects, Span
from headrace.codec import AvroSchema, Decoder
from headrace.connectors.kafka import KafkaSink, sink_for
from headrace.connectors.quarantine import QuarantineSink, join
from headrace.plan import Edge, Plan
from headrace.processor import Context, Partition, SmallState

SOURCE = "source"
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

    def add(self, step: str, metric: str, label: str, n: int) -> None:
        if n:
            at = (step, metric, label)
            self.counts[at] = self.counts.get(at, 0) + n


def _no_state(step: str, partition: Partition) -> SmallState:
    raise AssertionError(f"step {step} asked for state of {partition}, and this runner keeps none")


class Pipeline:
    """A plan made ready to run.

    `writers` gives the writer schema of a registry id; `sink_ids` the id to frame each Kafka sink's records with;
    `bytes_max` each topic's max.message.bytes; `state(step, partition)` the small state; `timed(step)` wraps a step.
    """

    def __init__(self, plan: Plan, *, writers: Callable[[int], AvroSchema], sink_ids: Mapping[str, int],
                 bytes_max: Mapping[str, int] | None = None, now_ms: Callable[[], int] = lambda: 0,
                 state: Callable[[str, Partition], SmallState] = _no_state,
                 timed: Callable[[str], AbstractContextManager[Any]] = lambda step: nullcontext()) -> None:
        self.plan, self.timed = plan, timed
        self.decoder = Decoder(plan.source.schema, writers)
        self._tombstones = plan.source.config.tombstones
        self._kafka: dict[str, KafkaSink] = {}
        self._quarantine: dict[str, QuarantineSink] = {}
        for sink in plan.sinks:
            if sink.kind == "quarantine":
                self._quarantine[sink.name] = QuarantineSink(sink.name, plan.flow, now_ms=now_ms)
            else:
                assert sink.schema is not None, "a Kafka sink has a schema once it is planned"
                self._kafka[sink.name] = sink_for(sink.name, sink.schema, sink.rows, sink_ids[sink.name],
                                                  sink.config.key, (bytes_max or {}).get(sink.name, 1_048_588))
        self._outputs: Outputs | None = None
        self._contexts = {step.name: Context(plan.flow, step.name, plan.project, partial(state, step.name), now_ms,
                                             partial(self._count, step.name)) for step in plan.steps}

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
        """Every record of `messages`, which are of the source's topic and in order within each partition."""
        frames = Frames(messages, self.plan.source.config.topic)
        out = self._outputs = Outputs(len(messages), frames.spans())
        with self.timed("decode"):
            batch, rejects = self._decode(frames, out)
        at: dict[Edge, Batch] = {Edge(SOURCE, "success"): batch}
        for step in self.plan.steps:
            given = at.get(step.input)
            if given is not None and len(given):
                with self.timed(step.name):
                    for relationship, result in step.processor.process(given, self._contexts[step.name]).items():
                        assert relationship in step.outputs, f"{step.name} gave {relationship}, which it never declared"
                        at[Edge(step.name, relationship)] = result
        with self.timed("encode"):
            self._encode(at, rejects, out)
        self._outputs = None
        return out

    def _decode(self, frames: Frames, out: Outputs) -> tuple[Batch, list[Rejects]]:
        decoded = self.decoder.decode(frames.values)
        batch = Batch(decoded.rows, Meta(frames, decoded.index))
        refused = decoded.rejects
        if refused and self._tombstones == "drop":
            values = frames.values
            out.add(SOURCE, "dropped", "tombstone", sum(values[i] is None for i, _ in refused))
            refused = [(i, why) for i, why in refused if values[i] is not None]
        if not refused:
            return batch, []
        index = np.array([i for i, _ in refused], dtype=np.int64)
        return batch, [Rejects(Meta(frames, index), [[why] for _, why in refused], SOURCE)]

    def _encode(self, at: Mapping[Edge, Batch], rejects: list[Rejects], out: Outputs) -> None:
        for sink in self.plan.sinks:
            parts = []
            for edge in sink.inputs:
                batch = at.get(edge)
                if batch is None or not len(batch):
                    continue
                if sink.name in self._quarantine:
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
            if self.plan.rejects:
                held = self._quarantine[self.plan.rejects].reject(part)
                before = out.sinks.get(self.plan.rejects)
                out.sinks[self.plan.rejects] = join([before, held]) if before else held
