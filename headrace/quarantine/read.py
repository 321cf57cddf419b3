"""The records of a quarantine topic, with what their headers say, and how many there are of what."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Message

from headrace.batch import Headers, Span, read_lineage
from headrace.connectors.quarantine import FLOW, REASONS, STEP, TIME
from headrace.errors import ConfigError
from headrace.peek import first_records, scan, span_of
from headrace.settings import Settings

SUFFIX = ".quarantine"
"""Topics with this ending count as quarantines wherever no flow of the project says so."""


@dataclass(frozen=True, slots=True)
class Held:
    """A record held back: `at` is where it lies, `source` where it came from, `time` when it was held (ISO 8601)."""

    at: Span
    source: Span | None
    flow: str | None
    step: str | None
    reasons: tuple[str, ...]
    time: str | None
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = field(repr=False)

    @property
    def ids(self) -> list[str]:
        """The ids of its reasons."""
        return [reason.partition(":")[0] for reason in self.reasons]


def held(message: Message) -> Held:
    """One record of a quarantine topic. What is not in its headers, or not as it should be, is None or empty."""
    headers: Headers = [(name, value) for name, value in message.headers() or []]
    said = {name: value.decode("utf-8", "replace") for name, value in headers if isinstance(value, bytes)}
    try:
        reasons = tuple(map(str, json.loads(said.get(REASONS, "[]"))))
    except (ValueError, TypeError):
        reasons = (said[REASONS],)
    key, value = message.key(), message.value()
    return Held(span_of(message), read_lineage(headers), said.get(FLOW), said.get(STEP), reasons, said.get(TIME),
                message.timestamp()[1], key if isinstance(key, bytes) else None,
                value if isinstance(value, bytes) else None, headers)


def every(settings: Settings, topic: str) -> Iterator[list[Held]]:
    """All of a quarantine topic, in batches. Raises UserError when there is no such topic, BrokerError."""
    for messages in scan(settings, topic, batch_max=1_000):
        yield list(map(held, messages))


def one(settings: Settings, topic: str, partition: int, offset: int) -> Held | None:
    """The record at a position; None when there is none."""
    found = first_records(settings, [(topic, partition, offset)]).get((topic, partition, offset))
    return held(found) if found is not None and found.offset() == offset else None


@dataclass(slots=True)
class Summary:
    """A quarantine topic in numbers. A record with several reasons counts once under each."""

    topic: str
    records: int = 0
    replayed: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    by_step: Counter[str] = field(default_factory=Counter)
    by_flow: Counter[str] = field(default_factory=Counter)
    oldest: str | None = None
    newest: str | None = None

    def as_json(self) -> dict[str, Any]:
        counts = {name: dict(getattr(self, name).most_common()) for name in ("by_reason", "by_step", "by_flow")}
        return {"topic": self.topic, "records": self.records, "replayed": self.replayed,
                "waiting": self.records - self.replayed, **counts, "oldest": self.oldest, "newest": self.newest}


def summary(settings: Settings, topic: str, done: Collection[tuple[int, int]]) -> Summary:
    """Counts over a whole topic; `done` are the (partition, offset) sent back already. Reads all of it."""
    out = Summary(topic)
    for batch in every(settings, topic):
        out.records += len(batch)
        for record in batch:
            out.by_reason.update(dict.fromkeys(record.ids, 1))
            out.by_step[record.step or "?"] += 1
            out.by_flow[record.flow or "?"] += 1
        out.replayed += sum((r.at.partition, r.at.offset_first) in done for r in batch)
        times = [r.time for r in batch if r.time]
        if times:
            out.oldest = min(times) if out.oldest is None else min(out.oldest, *times)
            out.newest = max(times) if out.newest is None else max(out.newest, *times)
    return out


def topics(settings: Settings, existing: Mapping[str, int]) -> list[str]:
    """The quarantine topics there are: sinks of the project's flows, and those whose name ends in `.quarantine`."""
    from headrace import flow

    named = {name for name in existing if name.endswith(SUFFIX)}
    for each in flow.names(settings.project):
        try:
            spec = flow.load(flow.find(each, settings.project))
        except ConfigError:
            continue  # a flow that does not lint hides no other flow's quarantine
        named |= {name for name, sink in spec.sinks.items() if sink.kind == "quarantine" and name in existing}
    return sorted(named)
