"""A flow that remembers (duplicates out, the rest counted in windows), its records, and what must come of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from confluent_kafka import Producer

from headrace import codec
from headrace.registry import Registry
from headrace.settings import Settings
from tests.committed import committed_records

PARTITIONS = 4
SCHEMA = {"type": "record", "name": "Tick", "fields": [
    {"name": "n", "type": "long"}, {"name": "sensor", "type": "string"}, {"name": "v", "type": "double"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}
FLOW = """
flow: {name}
description: Ticks, each once, and counted.
owner: tests
source:
  kafka: {{topic: {source}, schema: tick, partitions: 4}}
steps:
  once: {{dedupe: {{key: [n], within: 1h, on: at}}}}
  count:
    aggregate:
      by: [sensor]
      window: {{time: 10m, every: 5m, on: at, late: 1m}}
      columns: {{total: sum(n), mean: avg(v), spread: stddev(v), least: min(n), kinds: count(DISTINCT n)}}
sinks:
  {source}.passed: {{from: once, kafka: {{}}}}
  {source}.again: {{from: once.duplicate, kafka: {{}}}}
  {source}.windows: {{from: count, kafka: {{retention_ms: -1}}}}
  {source}.quarantine: {{quarantine: {{}}}}
drop: [once.late, count.late]
"""
MINUTE = 60_000


def write(project: Path, name: str, source: str) -> None:
    for folder in ("flows", "schemas"):
        (project / folder).mkdir(exist_ok=True)
    (project / "schemas/tick.avsc").write_text(json.dumps(SCHEMA))
    (project / f"flows/{name}.yaml").write_text(FLOW.format(name=name, source=source))


def ticks(first: int, end: int) -> list[int]:
    """Numbers in order, a second of event time each; every fifth comes again, 40 s after."""
    return [n for i in range(first, end) for n in ((i, i - 40) if i % 5 == 0 and i >= 40 else (i,))]


def load(settings: Settings, topic: str, numbers: Iterable[int]) -> None:
    schema = codec.parse(json.dumps(SCHEMA))
    registry = Registry(settings.registry_client())
    with registry.client:
        number = registry.register(f"{topic}-value", schema)
    ns = list(numbers)
    rows = pa.RecordBatch.from_pydict({"n": ns, "sensor": [f"s{n % 3}" for n in ns], "v": [n / 7 for n in ns],
                                       "at": [n * 1_000 for n in ns]}, schema=schema.arrow)
    producer = Producer(settings.client(enable_idempotence=True, linger_ms=20, queue_buffering_max_messages=1_000_000))
    for n, value in zip(ns, codec.Encoder(schema, schema.arrow, number).encode(rows), strict=True):
        producer.produce(topic, value, str(n), n % PARTITIONS)
    assert producer.flush(60) == 0


def decoded(settings: Settings, topic: str) -> list[dict[str, Any]]:
    """The rows of a topic, with the partition each came from in `of`."""
    messages = committed_records(settings, topic)
    if not messages:
        return []
    registry = Registry(settings.registry_client())
    with registry.client:
        schema = registry.schema(int.from_bytes(messages[0].value()[1:5], "big"))
        found = codec.Decoder(schema, registry.schema).decode([m.value() for m in messages])
    assert not found.rejects
    rows: list[dict[str, Any]] = found.rows.to_pylist()
    return rows


def windows(count: int) -> Counter[tuple[Any, ...]]:
    """(start minute, sensor, rows, total, least, kinds) of every window that closes in ticks 0 … count - 1."""
    out: Counter[tuple[Any, ...]] = Counter()
    for partition in range(PARTITIONS):
        mine = range(partition, count, PARTITIONS)
        for start in range(-5, mine[-1] // 60 + 1, 5):
            if (start + 10) * MINUTE + MINUTE > mine[-1] * 1_000:
                continue
            for sensor in range(3):
                ns = [n for n in mine if start * 60 <= n < (start + 10) * 60 and n % 3 == sensor]
                out[start, f"s{sensor}", len(ns), sum(ns), ns[0], len(ns)] += 1
    return out


def check(settings: Settings, source: str, count: int) -> None:
    """Each tick passed once, each repetition found, each window said once and with the right numbers."""
    passed = Counter(row["n"] for row in decoded(settings, f"{source}.passed"))
    again = Counter(row["n"] for row in decoded(settings, f"{source}.again"))
    assert len(passed) == count
    assert set(passed.values()) == {1}
    assert again == Counter(ticks(0, count)) - Counter(range(count))
    said = decoded(settings, f"{source}.windows")
    got = Counter((int(row["window_start"].timestamp()) // 60, row["sensor"], row["rows"], row["total"], row["least"],
                   row["kinds"]) for row in said)
    wanted = windows(count)
    assert got == wanted, (sorted((got - wanted).items())[:5], sorted((wanted - got).items())[:5])
    assert all(abs(row["mean"] - row["total"] / row["rows"] / 7) < 1e-9 for row in said)
    assert not committed_records(settings, f"{source}.quarantine")
