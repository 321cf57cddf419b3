"""Which writers' schemas stand in a topic, as far as the beginning and the end of each partition show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from headrace.batch import Message
from headrace.codec.decoder import HEADER_BYTES
from headrace.peek import bounds, scan
from headrace.settings import Settings

RECORDS_MAX = 2_000


@dataclass(slots=True)
class Stands:
    """One schema's records among those looked at."""

    schema_id: int
    records: int = 0
    first: dict[int, int] = field(default_factory=dict)
    """Partition → the lowest offset seen."""
    last: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Standing:
    """A topic. `records` were looked at; `unframed` of them have no schema id, `nulls` no value at all. `gaps` are the
    offsets between beginning and end that were not looked at, by partition: what first shows after one may stand in it
    already."""

    records: int = 0
    unframed: int = 0
    nulls: int = 0
    schemas: dict[int, Stands] = field(default_factory=dict)
    gaps: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def exact(self, partition: int, offset: int) -> bool:
        """Whether a first offset is that of the whole partition."""
        return partition not in self.gaps or offset < self.gaps[partition][0]

    def add(self, messages: Iterable[Message]) -> None:
        for message in messages:
            raw, partition, offset = message.value(), int(message.partition() or 0), int(message.offset() or 0)
            self.records += 1
            if raw is None:
                self.nulls += 1
            elif len(raw) < HEADER_BYTES or raw[0]:
                self.unframed += 1
            else:
                schema_id = int.from_bytes(raw[1:HEADER_BYTES], "big")
                one = self.schemas.setdefault(schema_id, Stands(schema_id))
                one.records += 1
                one.first[partition] = min(offset, one.first.get(partition, offset))
                one.last[partition] = max(offset, one.last.get(partition, offset))


def standing(settings: Settings, topic: str, records_max: int = RECORDS_MAX) -> Standing:
    """Looks at `records_max` offsets at the beginning and as many at the end of each partition. Raises UserError when
    there is no such topic, BrokerError."""
    limits = bounds(settings, topic)
    heads = {p: min(low + records_max, high) for p, (low, high) in limits.items()}
    tails = {p: max(heads[p], high - records_max) for p, (_, high) in limits.items()}
    found = Standing(gaps={p: (heads[p], tails[p]) for p in limits if heads[p] < tails[p]})
    for messages in scan(settings, topic, ends=heads):
        found.add(messages)
    for messages in scan(settings, topic, tails, ends={p: high for p, (_, high) in limits.items()}):
        found.add(messages)
    return found
