"""The suite's own flow and its input: made from a seed, and encoded without headrace."""

from __future__ import annotations

import io
import json
import random
import struct
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fastavro
import numpy as np
from confluent_kafka import Producer

PARTITIONS, KEYS, WINDOW = 4, 97, 700
THRESHOLD = 0.05
STEP_MS = 10
"""Between two records' event times; the flow's dedupe remembers an hour of them."""
T0_MS = 1_700_000_000_000
SCHEMA: dict[str, Any] = {"type": "record", "name": "Reading", "fields": [
    {"name": "n", "type": "long"}, {"name": "sensor", "type": ["null", "string"]},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}
NESTED: dict[str, Any] = {"type": "record", "name": "Reading", "fields": [
    *SCHEMA["fields"], {"name": "tail", "type": ["null", {"type": "record", "name": "Tail", "fields": [
        {"name": "next", "type": ["null", "Tail"]}]}]}]}
"""A writer's schema as deep as its writer likes."""
EVOLVED: dict[str, Any] = {"type": "record", "name": "Reading", "fields": [
    *SCHEMA["fields"], {"name": "unit", "type": ["null", "string"], "default": None}]}
"""The next version of it."""
SUITE = {"name": "reading", "expectations": [
    {"id": "sensor_given", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "sensor"}}]}
FLOW = """
flow: {name}
description: Readings, each once, checked and watched.
owner: tests
source:
  kafka: {{topic: {name}, schema: reading, partitions: 4}}
steps:
  {once}
  check: {{{first}validate: {{suite: reading}}}}
  enrich: {{derive: {{twice: "n * 2"}}}}
  watch:
    {from_}
    trigger:
      measure: share
      when: "sensor IS NULL"
      threshold: {threshold}
      window: {{records: {window}}}
      repeat: true
      emit: {{alert: {{message: sensors are missing}}}}
sinks:
  {name}.checked: {{from: enrich, kafka: {{}}}}
  {again}
  {name}.alerts: {{from: watch, kafka: {{schema: control/alerts, partitions: 1}}}}
  {name}.quarantine: {{from: check.failure, quarantine: {{}}}}
{drop}
"""
GOOD, MISSING, CUT, TRAILING, HEADLESS, UNKNOWN, DEEP, MAGIC, LARGE = range(9)
"""What a record may be. All but the first belong into quarantine; from CUT on they cannot be read,
but for LARGE, which is too large for the main topic once it has been through the flow."""
POISON = (CUT, TRAILING, HEADLESS, UNKNOWN, DEEP, MAGIC)
DEPTH = 20_000
LARGE_BYTES, TAKEN_BYTES_MAX = 1_200_000, 4 << 20
"""More than the main topic takes (Kafka's default), and what the source and the quarantine take."""


def write_flow(project: Path, name: str, *, keyed: bool = True) -> None:
    """The flow `name`, whose topics begin with its name; with `keyed`, duplicates within an hour go to `.again`."""
    for folder in ("flows", "schemas"):
        (project / folder).mkdir(parents=True, exist_ok=True)
    (project / "schemas/reading.avsc").write_text(json.dumps(SCHEMA))
    (project / "schemas/reading.expectations.json").write_text(json.dumps(SUITE))
    (project / f"flows/{name}.yaml").write_text(FLOW.format(
        name=name, window=WINDOW, threshold=THRESHOLD, first="" if keyed else "from: source, ",
        once="once: {dedupe: {key: [n], within: 1h, on: at}}" if keyed else "",
        from_="from: once" if keyed else "from: source",
        again=f"{name}.again: {{from: once.duplicate, kafka: {{}}}}" if keyed else "",
        drop="drop: [once.late]" if keyed else ""))


@dataclass(frozen=True, slots=True)
class Ids:
    """The registry's ids of the writers' schemas."""

    plain: int
    nested: int
    evolved: int

    @classmethod
    def register(cls, registry_url: str, topic: str) -> Ids:
        """All are there before any record is."""
        return cls(*(register(registry_url, f"{topic}{of}-value", schema)
                     for of, schema in (("", SCHEMA), (".nested", NESTED), ("", EVOLVED))))


@dataclass(frozen=True, slots=True)
class Input:
    """The source topic: position i is offset i // 4 of partition i % 4. There stands record `numbers[i]`, which is what
    `kinds[i]` says; `repeated[i]` where that number came before."""

    kinds: np.ndarray[Any, np.dtype[np.int8]]
    numbers: np.ndarray[Any, np.dtype[np.int64]]
    repeated: np.ndarray[Any, np.dtype[np.bool_]]

    @classmethod
    def draw(cls, rng: random.Random, records: int, *, poison: float = 0.01, repeat: float = 0.0,
             large: float = 0.0) -> Input:
        """A tenth without a sensor; a share that cannot be read, of the kinds in POISON; a share of repetitions: blocks
        that come again soon after. A number always is in the same partition."""
        chance = np.random.default_rng(rng.randrange(1 << 32))
        blocks, fresh = [], 0
        for u, back, length in zip(chance.random(records), chance.integers(1, 2_000, records),
                                   chance.integers(1, 20, records), strict=True):
            first = max(0, fresh - int(back) * PARTITIONS) if u < repeat else fresh
            end = first + int(length) * PARTITIONS
            end = min(end, fresh) if first < fresh else end
            blocks.append(np.arange(first, end))
            fresh = max(fresh, end)
            if fresh >= records:
                break
        numbers = np.concatenate(blocks)[:records]
        repeated = np.ones(records, dtype=bool)
        repeated[np.unique(numbers, return_index=True)[1]] = False
        kinds = np.zeros(records, dtype=np.int8)
        u = chance.random(records)
        kinds[u < 0.10] = MISSING
        bad = u > 1 - poison
        kinds[bad] = chance.choice(POISON, int(bad.sum()))
        kinds[(u > 0.5) & (u < 0.5 + large)] = LARGE
        return cls(kinds[numbers], numbers, repeated)

    def __len__(self) -> int:
        return len(self.kinds)

    def encoded(self, first: int, end: int, ids: Ids, *, evolved: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of the positions first … end-1."""
        parsed = fastavro.parse_schema(EVOLVED if evolved else SCHEMA)
        head, nested = struct.pack(">bI", 0, ids.evolved if evolved else ids.plain), struct.pack(">bI", 0, ids.nested)
        for n, kind in zip(self.numbers[first:end].tolist(), self.kinds[first:end].tolist(), strict=True):
            sensor = None if kind == MISSING else "x" * LARGE_BYTES if kind == LARGE else f"s{n % 7}"
            out = io.BytesIO()
            fastavro.schemaless_writer(out, parsed, {"n": n, "sensor": sensor, "at": T0_MS + n * STEP_MS})
            body = out.getvalue()
            value = head + body
            if kind in POISON:
                value = {CUT: value[:7], TRAILING: value + b"\x00\x01\x02", HEADLESS: value[:3],
                         UNKNOWN: struct.pack(">bI", 0, 0x7FFF0000 + n % 7) + body,
                         DEEP: nested + body + b"\x02" * DEPTH + b"\x00", MAGIC: b"\x07" + value[1:]}[kind]
            yield key_of(n), value

    def alerts(self, flow: str, topic: str) -> dict[str, tuple[int, int, int, int]]:
        """Event id → (rows, matched, offset_first, offset_last), of each window that must give an alert; the last of a
        partition never closes."""
        from headrace.control import event_id

        out = {}
        for partition in range(PARTITIONS):
            mine = self.kinds[partition::PARTITIONS]
            for window in range((len(mine) - 1) // WINDOW):
                first = window * WINDOW
                kinds = mine[first:first + WINDOW]
                seen = ~self.repeated[partition::PARTITIONS][first:first + WINDOW] & ((kinds < CUT) | (kinds == LARGE))
                at, matched = np.flatnonzero(seen), int((kinds[seen] == MISSING).sum())
                if len(at) and matched / len(at) >= THRESHOLD:
                    out[event_id(flow, "watch", topic, partition, window)] = (
                        len(at), matched, first + int(at[0]), first + int(at[-1]))
        return out


def key_of(n: int) -> bytes:
    return b"k%d" % (n % KEYS)


def register(registry_url: str, subject: str, schema: dict[str, Any]) -> int:
    """The id of a schema, by the registry's REST API."""
    body = json.dumps({"schema": json.dumps(schema)}).encode()
    asked = urllib.request.Request(f"{registry_url}/subjects/{subject}/versions", body,
                                   {"Content-Type": "application/vnd.schemaregistry.v1+json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return int(json.load(answer)["id"])


def bare(url: str) -> str:
    """A registry's address without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")


def feed(client: dict[str, Any], topic: str, given: Input, first: int, end: int, ids: Ids, *,
         evolved: bool = False) -> None:
    """Positions first … end-1 into the source topic, each once: the producer is idempotent, all are acknowledged."""
    producer = Producer({**client, "linger.ms": 20, "queue.buffering.max.messages": 2_000_000,
                         "message.max.bytes": TAKEN_BYTES_MAX, "enable.idempotence": True, "compression.type": "lz4"})
    refused: list[Any] = []
    for at, (key, value) in enumerate(given.encoded(first, end, ids, evolved=evolved), first):
        producer.produce(topic, value, key, at % PARTITIONS,
                         on_delivery=lambda error, _: refused.append(error) if error else None)
        if at % 10_000 == 0:
            producer.poll(0)
    left = producer.flush(120)
    assert not left, f"{left} records were not taken"
    assert not refused, f"the source refused {len(refused)} records: {refused[0]}"
