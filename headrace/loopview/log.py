"""The audit log as it stands in its topic."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headrace import codec
from headrace.codec import AvroSchema, Decoder
from headrace.loop.audit import AVSC, TOPIC, Flaw, verify
from headrace.payloads import plain
from headrace.peek import scan, span_of
from headrace.registry import Registry
from headrace.resources import content
from headrace.settings import Settings

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Log:
    """The entries in the order of the topic; `unreadable` are records that are none, with place and reason."""

    entries: Sequence[Entry]
    unreadable: Sequence[str] = ()


def topic_of(control: str) -> str:
    return control + TOPIC.removeprefix("headrace")


def entries(settings: Settings, control: str, *, writers: Callable[[int], AvroSchema] | None = None) -> Log:
    """All of it. Raises NoTopic (a UserError), BrokerError, RegistryError."""
    decoder = Decoder(codec.load(content(AVSC)), writers or Registry(settings.registry_client()).schema)
    found: list[tuple[Any, Entry]] = []
    unreadable: list[str] = []
    for messages in scan(settings, topic_of(control)):
        empty = [message for message in messages if message.value() is None]
        held = [message for message in messages if message.value() is not None]
        decoded = decoder.decode([message.value() for message in held])
        unreadable += [f"{span_of(message)}: a record without content" for message in empty]
        unreadable += [f"{span_of(held[at])}: {why}" for at, why in decoded.rejects]
        index = range(len(held)) if decoded.index is None else decoded.index.tolist()
        found += [(span_of(held[at]), record) for at, record in zip(index, decoded.rows.to_pylist(), strict=True)]
    return Log([record for _, record in sorted(found, key=lambda each: each[0])], unreadable)


def check(log: Log, anchor: str | None = None) -> dict[str, Any]:
    """{"ok", "entries", "flaws": [{"seq", "kind", "message"}], "anchor": the last hash, to be kept elsewhere}."""
    flaws = [*(Flaw(-1, "unreadable", why) for why in log.unreadable), *verify(log.entries, anchor=anchor)]
    return {"ok": not flaws, "entries": len(log.entries),
            "flaws": [{"seq": flaw.seq, "kind": flaw.kind, "message": flaw.message} for flaw in flaws],
            "anchor": log.entries[-1]["hash"] if log.entries else None}


def pick(found: Sequence[Entry], *, model: str | None = None, since: datetime | None = None) -> list[Entry]:
    """The entries on a model, and of a time on."""
    return [entry for entry in found if (since is None or entry["at"] >= since)
            and (model is None or json.loads(entry["event"]).get("model") == model)]


def as_json(entry: Mapping[str, Any]) -> Entry:
    """With the event as JSON instead of text."""
    return {**plain(dict(entry)), "event": json.loads(entry["event"])}
