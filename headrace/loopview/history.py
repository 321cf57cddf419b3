"""The control topics as events with their places, in the order of their topics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Generic, TypeVar

from headrace.batch import Span
from headrace.codec import AvroSchema, Decoder
from headrace.control import ControlEvent, Retrain, RetrainResult, Switch, Verdict
from headrace.loopview import log
from headrace.payloads import plain
from headrace.peek import NoTopic, scan, span_of
from headrace.registry import Registry
from headrace.settings import Settings

CONTROL = "headrace"
"""What the control topics' names begin with, unless a flow says otherwise."""
TIMES = ("at", "window_start", "window_end", "asked_at")

Event = TypeVar("Event", bound=ControlEvent)
Writers = Callable[[int], AvroSchema]


@dataclass(frozen=True, slots=True)
class Placed(Generic[Event]):
    """An event and where it stands: one record."""

    event: Event
    at: Span

    @property
    def offset(self) -> int:
        return self.at.offset_first

    def as_json(self) -> dict[str, Any]:
        """The event's fields, times in ISO 8601, and `place`."""
        return {**plain(asdict(self.event)), "place": str(self.at)}


@dataclass(frozen=True, slots=True)
class History:
    """All that was said under one prefix. A repeated event stands once, where it came first, except for a switch: each
    has its epoch. `absent` are topics that are not there, `unreadable` are records with the reason why."""

    control: str = CONTROL
    verdicts: tuple[Placed[Verdict], ...] = ()
    requests: tuple[Placed[Retrain], ...] = ()
    results: tuple[Placed[RetrainResult], ...] = ()
    switches: tuple[Placed[Switch], ...] = ()
    absent: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    def models(self) -> list[str]:
        """The names of all that were spoken of."""
        found = [*self.verdicts, *self.requests, *self.results, *self.switches]
        return sorted({each.event.model for each in found if each.event.model})  # type: ignore[attr-defined]

    def verdict(self, event_id: str) -> Placed[Verdict] | None:
        return next((each for each in self.verdicts if each.event.id == event_id), None)


def topic_of(control: str, kind: type[ControlEvent]) -> str:
    """The topic of a kind of event under a prefix."""
    return control + kind.home.removeprefix(CONTROL)


def read(settings: Settings, control: str = CONTROL) -> History:
    """What is committed there now. Raises BrokerError, RegistryError.

    The model topic may be compacted: switches that are gone from it are taken from the audit log, where there is one.
    """
    writers = Registry(settings.registry_client()).schema
    absent: list[str] = []
    unreadable: list[str] = []

    def events(kind: type[Event]) -> list[Placed[Event]]:
        try:
            return list(read_events(settings, topic_of(control, kind), kind, writers, unreadable))
        except NoTopic:
            absent.append(topic_of(control, kind))
            return []

    switches = {each.at: each for each in events(Switch)}
    try:
        audited = {each.at: each for each in _audited(settings, control, writers, unreadable)}
    except NoTopic:
        audited = {}
        absent.append(log.topic_of(control))
    return History(control, _once(events(Verdict)), _once(events(Retrain)), _once(events(RetrainResult)),
                   tuple(each for _, each in sorted({**audited, **switches}.items())), tuple(absent),
                   tuple(unreadable))


def read_events(settings: Settings, topic: str, kind: type[Event], writers: Writers,
                unreadable: list[str]) -> Iterator[Placed[Event]]:
    """The events of a topic in its order, repeats and all; `unreadable` gets the records that are none, with place and
    reason. Raises NoTopic, BrokerError, RegistryError."""
    decoder = Decoder(kind.schema(), writers)
    found: list[Placed[Event]] = []
    for messages in scan(settings, topic):
        held = [message for message in messages if message.value() is not None]  # a compacted topic has tombstones
        decoded = decoder.decode([message.value() for message in held])
        unreadable += [f"{span_of(held[at])}: {why}" for at, why in decoded.rejects]
        index = range(len(held)) if decoded.index is None else decoded.index.tolist()
        found += [Placed(kind.from_record(record), span_of(held[at]))
                  for at, record in zip(index, decoded.rows.to_pylist(), strict=True)]
    yield from sorted(found, key=lambda each: each.at)


def _once(found: list[Placed[Event]]) -> tuple[Placed[Event], ...]:
    first: dict[str, Placed[Event]] = {}
    for each in found:
        first.setdefault(each.event.id, each)
    return tuple(first.values())


def _audited(settings: Settings, control: str, writers: Writers, unreadable: list[str]) -> Iterator[Placed[Switch]]:
    """Switches as the audit log tells them."""
    topic = topic_of(control, Switch)
    for entry in log.entries(settings, control, writers=writers).entries:
        if entry["topic"] == topic and entry["action"].startswith("switch "):
            at = Span(topic, entry["partition"], entry["offset"], entry["offset"])
            try:
                yield Placed(_from_json(Switch, json.loads(entry["event"])), at)
            except (ValueError, TypeError) as error:
                unreadable.append(f"{log.topic_of(control)}, entry {entry['seq']}: no switch: {error}")


def _from_json(kind: type[Event], held: Mapping[str, Any]) -> Event:
    """An event of its JSON; fields that it does not have yet get their defaults."""
    known: dict[str, Any] = {each.name: held[each.name] for each in fields(kind) if each.name in held}
    times = {name: datetime.fromisoformat(known[name]) for name in TIMES if known.get(name)}
    return kind(**{**known, **times})
