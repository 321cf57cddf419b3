"""What a flow has seen of its source's schemas. A schema that is new to it is a sighting.

The ids seen are small state: they ride with the offsets, partition by partition, so that a sighting is made once for
each, in the transaction that reads the record, and not again after a crash. Another worker of the flow may see the same
schema in a partition of its own: the event's id is the same then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from headrace.batch import Batch, Frames, Index, Span
from headrace.codec import AvroSchema, UnknownSchema
from headrace.control import Verdict, digest
from headrace.errors import RegistryError, Retriable, SchemaError
from headrace.loop.steps import Said, batch_of, shape
from headrace.plan import Plan, SourcePlan
from headrace.processor import Partition, SmallState
from headrace.schemadrift.diff import Change
from headrace.schemadrift.drift import Changed, Drift
from headrace.schemadrift.effects import effects, touched, unreadable
from headrace.schemadrift.uses import uses

SCHEMAS = "schemas"
KEPT = 16
"""Ids remembered of a partition: small state has few characters. One that is forgotten is told of again, by the same
event id."""
REASONS_MAX = 100
Groups = Sequence[tuple[int, Index | None]]
"""A batch by writer's schema: (id, positions of its records, None for all)."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A record of a schema that the flow had not seen in the topic; `before` is the id it saw last."""

    at: Span
    timestamp_ms: int
    schema_id: int
    before: int
    drift: Drift

    def told(self) -> dict[str, Any]:
        """For the log."""
        return {"record": str(self.at), "schema_id": self.schema_id, "schema_id_before": self.before,
                "severity": self.drift.severity, "changes": self.drift.texts}

    def event(self, flow: str, source: str, owner: str) -> Verdict:
        """On `headrace.verdicts`; not ok where records are held back for it."""
        return Verdict(
            id=digest(flow, source, SCHEMAS, self.at.topic, self.schema_id), about="schema", flow=flow, step=source,
            at=datetime.fromtimestamp(max(self.timestamp_ms, 0) / 1000, UTC), owner=owner,
            ok=self.drift.severity != "critical", topic=self.at.topic, partition=self.at.partition,
            offset_first=self.at.offset_first, offset_last=self.at.offset_last, reasons=_cut(self.drift.texts),
            measures={"schema_id": float(self.schema_id), "schema_id_before": float(self.before),
                      "changes": float(len(self.drift.changes))})


class Watch:
    """The schemas of one source. `writers` is the decoder's; `state(partition)` small state of the source;
    `partitions()` the numbers of those that are ours."""

    def __init__(self, plan: Plan, source: SourcePlan, *, writers: Callable[[int], AvroSchema],
                 state: Callable[[Partition], SmallState], partitions: Callable[[], Sequence[int]]) -> None:
        self.plan, self.source, self.writers, self.state, self.partitions = plan, source, writers, state, partitions

    def look(self, frames: Frames, spans: Sequence[Span], groups: Groups) -> list[Sighting]:
        """The schemas that are new in a batch, in order. What it costs where none is new: a look at the state of each
        partition in it. An id that the registry does not have is not seen yet."""
        fresh: list[tuple[int, Partition, int]] = []
        for span in spans:
            at = (span.topic, span.partition)
            seen = self.state(at).get(SCHEMAS, ())
            for schema_id, which in groups:
                if schema_id not in seen and (first := _first(frames, span.partition, which)) is not None:
                    fresh.append((first, at, schema_id))
        return list(self._sightings(frames, sorted(fresh)))

    def _sightings(self, frames: Frames, fresh: Sequence[tuple[int, Partition, int]]) -> Iterator[Sighting]:
        for position, at, schema_id in fresh:
            known = self._known(at)
            try:
                new = self._schema(schema_id)
            except UnknownSchema:
                continue
            drift = self._drift(known[-1], new) if known and schema_id not in known else None
            state = self.state(at)
            state[SCHEMAS] = [*state.get(SCHEMAS, ()), schema_id][-KEPT:]
            if drift is not None:
                offset = int(frames.offsets[position])
                yield Sighting(Span(*at, offset, offset), frames.timestamps_ms[position], schema_id, known[-1], drift)

    def _known(self, at: Partition) -> list[int]:
        """The ids seen in the topic's partitions that are ours, this one's last."""
        others = [(at[0], number) for number in self.partitions() if number != at[1]]
        return [schema_id for each in (*others, at) for schema_id in self.state(each).get(SCHEMAS, ())]

    def _schema(self, schema_id: int) -> AvroSchema | Drift:
        """An id's schema, asked of a registry that has just given it; of one that is no Avro what that means. Raises
        UnknownSchema."""
        try:
            return self.writers(schema_id)
        except SchemaError as error:
            return Drift("", f"schema {schema_id}", (error.what,))

    def _drift(self, before: int, new: AvroSchema | Drift) -> Drift:
        if isinstance(new, Drift):
            return replace(new, old=f"schema {before}")
        try:
            return judged(self.plan, self.source, self.writers(before), new)
        except (UnknownSchema, SchemaError, Retriable, RegistryError):  # a report is no reason to stand still
            lost = Changed(Change("", "name", f"schema {before}, which the registry does not give", str(new)), ())
            return Drift(f"schema {before}", str(new), unreadable(self.source.schema, new), (lost,))


def judged(plan: Plan, source: SourcePlan, old: AvroSchema, new: AvroSchema) -> Drift:
    """What changes for a flow. Plans its steps anew for each column in which something changes."""
    concerned = uses(plan, source.name, sorted(touched(old, new, source.schema)))
    return effects(old, new, source.schema, concerned.suite, concerned.used,
                   lost="go to the quarantine" if plan.rejects else "are dropped")


def _first(frames: Frames, partition: int, which: Index | None) -> int | None:
    """The first of these records that is of the partition."""
    mine = frames.partitions == partition
    found = np.flatnonzero(mine) if which is None else which[mine[which]]
    return int(found[0]) if len(found) else None


def events(sightings: Sequence[Sighting], plan: Plan, source: str) -> Batch:
    """The sightings as rows of `<source>.drift`."""
    said = [(each.event(plan.flow, source, plan.owner or ""), each.at) for each in sightings]
    return batch_of([Said(verdict, verdict.key(), at) for verdict, at in said], shape(Verdict))


def _cut(texts: Sequence[str]) -> list[str]:
    more = [f"… and {len(texts) - REASONS_MAX} more"] if len(texts) > REASONS_MAX else []
    return [*texts[:REASONS_MAX], *more]
