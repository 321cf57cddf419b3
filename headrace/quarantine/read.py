"""The records of a quarantine topic, with what their headers say, and how many there are of what."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from confluent_kafka import Message

from headrace.batch import Headers, Span, read_lineage
from headrace.connectors.quarantine import FLOW, REASONS, STEP, TIME
from headrace.peek import first_records, scan, span_of
from headrace.settings import Settings

SUFFIXES = (".quarantine", ".dead-letter")
"""Topics with these endings count as quarantines wherever no flow of the project says so."""


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
        return list(map(_id, self.reasons))


def held(message: Message) -> Held:
    """One record of a quarantine topic. What is not in its headers, or not as it should be, is None or empty."""
    headers: Any = message.headers() or []
    said = dict(headers)
    key, value = message.key(), message.value()
    return Held(span_of(message), read_lineage(headers), _text(said.get(FLOW)), _text(said.get(STEP)),
                _reasons(said.get(REASONS)), _text(said.get(TIME)), message.timestamp()[1],
                key if isinstance(key, bytes) else None, value if isinstance(value, bytes) else None, headers)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


@lru_cache(maxsize=4096)
def _reasons(value: bytes | None) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(value or b"[]")))
    except (ValueError, TypeError):
        return (_text(value) or "",)


def _id(reason: str) -> str:
    return reason.partition(":")[0]


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
    kinds: Counter[tuple[bytes | None, ...]] = Counter()  # as they are on the wire: there are few, each is read once
    times: set[bytes] = set()
    for messages in scan(settings, topic):
        said: list[dict[str, Any]] = [dict(message.headers() or []) for message in messages]
        out.records += len(messages)
        out.replayed += sum((m.partition(), m.offset()) in done for m in messages) if done else 0
        kinds.update((one.get(FLOW), one.get(STEP), one.get(REASONS)) for one in said)
        times |= {one[TIME] for one in said if one.get(TIME)}
    for (flow, step, reasons), n in kinds.items():
        out.by_flow[_text(flow) or "?"] += n
        out.by_step[_text(step) or "?"] += n
        out.by_reason.update(dict.fromkeys(map(_id, _reasons(reasons)), n))
    out.oldest, out.newest = (_text(min(times)), _text(max(times))) if times else (None, None)
    return out


def topics(settings: Settings, existing: Mapping[str, int]) -> list[str]:
    """The quarantine topics there are: quarantine sinks and dead letters of the project's flows, and those whose name
    ends in one of SUFFIXES."""
    from headrace import flow

    named = {name for name in existing if name.endswith(SUFFIXES)}
    for each in flow.names(settings.project):
        spec, _ = flow.examine(flow.find(each, settings.project))  # findings are lint's affair
        if spec is not None:
            quarantines = (name for name, sink in spec.sinks.items() if sink.kind == "quarantine")
            named |= {*quarantines, spec.dead_letters} & existing.keys()
    return sorted(named)
