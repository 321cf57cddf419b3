"""Where a record came from: hop by hop, by the lineage header that every output carries, up to the origin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from headrace.batch import SOURCE_HEADER, SPAN_HEADER, Span, read_lineage
from headrace.connectors.quarantine import SOURCE
from headrace.errors import BrokerError, UserError
from headrace.payloads import Reader
from headrace.peek import Position, bounds, first_records, show_key
from headrace.registry import Registry
from headrace.settings import Settings

HOPS_MAX = 100
OURS = "headrace."


@dataclass(frozen=True, slots=True)
class Hop:
    """One record of the chain. `made_of` is what it was made from: one record or a range; None for the origin.

    `gone` says why a record that another names as its source cannot be shown; then there is nothing but its position.
    `record` is the decoded payload, or the reason why it cannot be read.
    """

    at: Span
    gone: str | None = None
    timestamp_ms: int = 0
    key: str | None = None
    size_bytes: int | None = None
    record: dict[str, Any] | str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What headrace's headers say: flow, step, time, reasons (a list), replayed (when, and with what changes)."""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """All others."""
    made_of: Span | None = None

    def as_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"at": str(self.at), "topic": self.at.topic, "partition": self.at.partition,
                               "offset": self.at.offset_first}
        if self.gone:
            return {**out, "gone": self.gone}
        made_of = self.made_of and {
            "at": str(self.made_of), "topic": self.made_of.topic, "partition": self.made_of.partition,
            "first": self.made_of.offset_first, "last": self.made_of.offset_last,
            "count": self.made_of.offset_last - self.made_of.offset_first + 1}
        return {**out, "timestamp": stamp(self.timestamp_ms), "key": self.key, "size_bytes": self.size_bytes,
                "record": self.record, **self.facts, "headers": dict(self.headers), "made_of": made_of}


def stamp(timestamp_ms: int) -> str | None:
    """Milliseconds since 1970 in ISO 8601, UTC; None for none."""
    if timestamp_ms <= 0:
        return None
    return datetime.fromtimestamp(timestamp_ms / 1e3, UTC).isoformat(timespec="milliseconds")


def trace(settings: Settings, position: Position) -> list[Hop]:
    """The record at a position, what it was made from, and so on: at most HOPS_MAX hops, the last is the origin.

    Of a range the first record is followed. Raises UserError when there is no record at `position`, saying why;
    BrokerError, RegistryError. A source further up that is gone ends the chain with a hop that says so.
    """
    payloads = Reader(Registry(settings.registry_client()).schema)
    hops: list[Hop] = []
    seen: set[Position] = set()
    at: Position | None = position
    while at is not None and at not in seen and len(hops) < HOPS_MAX:
        seen.add(at)
        hop = _hop(settings, payloads, at)
        if hop.gone and not hops:
            raise UserError(f"{hop.at}: {hop.gone}")
        hops.append(hop)
        at = (hop.made_of.topic, hop.made_of.partition, hop.made_of.offset_first) if hop.made_of else None
    return hops


def _hop(settings: Settings, payloads: Reader, at: Position) -> Hop:
    topic, partition, offset = at
    here = Span(topic, partition, offset, offset)
    gone = _absent(settings, at)
    if gone:
        return Hop(here, gone)
    found = first_records(settings, [at], timeout_s=10.0)
    if at not in found:
        raise BrokerError(f"{here} could not be read within 10 s")
    message = found[at]
    if message is None or message.offset() != offset:
        follows = f"; the next record is at offset {message.offset()}" if message is not None else ""
        return Hop(here, "holds no record: a transaction's marker, an aborted record, or one that compaction removed"
                         + follows)
    value, key = message.value(), message.key()
    value = value if isinstance(value, bytes) else None
    headers: dict[str, bytes | None] = {name: bytes(given) if given is not None else None
                                        for name, given in message.headers() or []}
    facts = {name.removeprefix(OURS): _fact(show_key(given)) for name, given in headers.items()
             if name.startswith(OURS) and name not in (SOURCE_HEADER, SPAN_HEADER, SOURCE)}
    return Hop(here, None, message.timestamp()[1], show_key(key if isinstance(key, bytes) else None),
               None if value is None else len(value), payloads.records([value])[0], facts,
               {name: show_key(given) for name, given in headers.items() if not name.startswith(OURS)},
               read_lineage(headers.items()))


def _fact(text: str | None) -> Any:
    """A header of ours: text, or JSON where it is a list or an object."""
    try:
        return json.loads(text) if text and text[0] in "[{" else text
    except ValueError:
        return text


def _absent(settings: Settings, at: Position) -> str | None:
    """Why there can be no record at a position, or None when there may be one."""
    topic, partition, offset = at
    try:
        start, end = bounds(settings, topic, only=partition)[partition]
    except UserError as error:
        return error.what
    if offset < start:
        return f"deleted by retention: the partition now begins at offset {start}"
    if offset >= end:
        return (f"there is no such record yet: the partition ends at offset {end}" if end > start
                else f"the partition is empty; its next record gets offset {end}")
    return None


