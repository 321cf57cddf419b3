"""Predictions and their late labels, in two topics, and a flow that joins them: for the tests of joins and lookups."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Producer

from headrace import codec
from headrace.codec import AvroSchema, Decoder
from headrace.registry import Registry
from headrace.settings import Settings
from tests.committed import committed_records
from tests.integration.held import encode

PARTITIONS = 4
T0, STEP_MS, DELAY_MS = 1_357_000_000_000, 1_000, 3_600_000
"""A prediction a second; each label an hour after its prediction."""
_MS = {"type": "long", "logicalType": "timestamp-millis"}
PREDICTION = {"type": "record", "name": "prediction", "fields": [
    {"name": "flight_id", "type": ["null", "string"]}, {"name": "scored_at", "type": _MS},
    {"name": "p_late", "type": "double"}, {"name": "n", "type": "long"}]}
LABEL = {"type": "record", "name": "label", "fields": [
    {"name": "flight_id", "type": ["null", "string"]}, {"name": "arrived_at", "type": _MS},
    {"name": "late", "type": "boolean"}, {"name": "m", "type": "long"}]}
FLOW = """\
flow: {name}
description: Predictions with what became of them.
owner: tests
sources:
  predictions: {{kafka: {{topic: {predictions}, schema: prediction, key: flight_id, partitions: 4}}}}
  labels:      {{kafka: {{topic: {labels}, schema: label, key: flight_id, partitions: 4}}}}
steps:
  joined:
    from: [predictions, labels]
    join:
      on: flight_id
      time: {{left: scored_at, right: arrived_at}}
      within: 2h
      expect_one: true
sinks:
  {predictions}.judged: {{from: joined, kafka: {{}}}}
  {predictions}.unlabelled: {{from: joined.unmatched, kafka: {{}}}}
  {predictions}.quarantine: {{quarantine: {{}}}}
drop: [joined.unmatched_right, joined.late, joined.late_right]
tests:
  - name: a label meets its prediction, and one that never comes is missed
    given:
      - predictions: {{flight_id: a, scored_at: "2013-01-01T10:00:00Z", p_late: 0.7, n: 1}}
      - predictions: {{flight_id: b, scored_at: "2013-01-01T10:00:00Z", p_late: 0.2, n: 2}}
      - labels: {{flight_id: a, arrived_at: "2013-01-01T11:30:00Z", late: true, m: 3}}
      - labels: {{flight_id: c, arrived_at: "2013-01-01T12:00:01Z", late: true, m: 4}}
      - labels: {{bytes: "00"}}
    expect:
      {predictions}.judged: [{{flight_id: a, p_late: 0.7, late: true, arrived_at: "2013-01-01T11:30:00Z", m: 3}}]
      {predictions}.unlabelled: [{{flight_id: b, n: 2}}]
      {predictions}.quarantine: [{{reasons: truncated_header}}]
"""


@dataclass(frozen=True)
class Joined:
    """A project's flow, and its topics."""

    name: str
    predictions: str
    labels: str

    @property
    def judged(self) -> str:
        return f"{self.predictions}.judged"

    @property
    def unlabelled(self) -> str:
        return f"{self.predictions}.unlabelled"


def write_joined(settings: Settings, topic: Callable[..., str], flow: str = FLOW) -> Joined:
    """A flow of a name of its own: its state lies in a topic that is named after it, and outlives the test."""
    predictions = topic("predictions", partitions=PARTITIONS)
    made = Joined(f"judged-{predictions.rpartition('.')[2]}", predictions, topic("labels", partitions=PARTITIONS))
    for schema in (PREDICTION, LABEL):
        (settings.project / f"schemas/{schema['name']}.avsc").write_text(json.dumps(schema))
    (settings.project / f"flows/{made.name}.yaml").write_text(flow.format(
        name=made.name, predictions=made.predictions, labels=made.labels))
    return made


def predictions(lo: int, hi: int) -> list[dict[str, Any]]:
    return [{"flight_id": f"f{n}", "scored_at": T0 + n * STEP_MS, "p_late": n / 1e6, "n": n} for n in range(lo, hi)]


def labels(lo: int, hi: int) -> list[dict[str, Any]]:
    """Every tenth flight is cancelled, and never gets one."""
    return [{"flight_id": f"f{n}", "arrived_at": T0 + n * STEP_MS + DELAY_MS, "late": n % 3 == 0, "m": n}
            for n in range(lo, hi) if n % 10]


def produce(settings: Settings, topic: str, schema: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Rows to the partition of their key, as any client of the same partitioner would."""
    values = encode(settings, topic, rows, codec.parse(json.dumps(schema)))
    producer = Producer(settings.client(enable_idempotence=True, partitioner="murmur2_random", linger_ms=20))
    for row, value in zip(rows, values, strict=True):
        producer.produce(topic, value, row["flight_id"])
        producer.poll(0)
    assert producer.flush(60) == 0


def rows_of(settings: Settings, topic: str) -> list[dict[str, Any]]:
    """Every committed record of a topic, decoded."""
    messages = committed_records(settings, topic)
    registry = Registry(settings.registry_client())
    with registry.client:
        values = [m.value() for m in messages]
        if not values:
            return []
        schema: AvroSchema = registry.schema(int.from_bytes(values[0][1:5], "big"))
        decoded = Decoder(schema, registry.schema).decode(values)
    assert decoded.rejects == []
    found: list[dict[str, Any]] = decoded.rows.to_pylist()
    return found
