"""Records and quarantined records to test with: written with the real codec and the real quarantine sink."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import chdir
from typing import Any

import pyarrow as pa
from confluent_kafka import Producer
from typer.testing import CliRunner, Result

from headrace import codec
from headrace.batch import Frames, Meta, Outgoing, Rejects
from headrace.cli import build
from headrace.connectors.quarantine import QuarantineSink
from headrace.registry import Registry
from headrace.settings import Settings
from tests.committed import committed_records

SCHEMA = codec.parse(json.dumps({"type": "record", "name": "Reading", "fields": [
    {"name": "n", "type": "long"}, {"name": "sensor", "type": ["null", "string"]},
    {"name": "level", "type": ["null", "int"], "default": None}]}))


def encode(settings: Settings, topic: str, records: Sequence[dict[str, Any]],
           schema: codec.AvroSchema = SCHEMA) -> list[bytes]:
    """The records' payloads, the schema registered for the topic."""
    number = Registry(settings.registry_client()).register(f"{topic}-value", schema)
    rows = pa.RecordBatch.from_pylist(list(records), schema=schema.arrow)
    return codec.Encoder(schema, schema.arrow, number).encode(rows)


def write(settings: Settings, topic: str, values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None, *,
          partitions: int = 1, headers: Sequence[tuple[str, bytes]] = (),
          timestamp_ms: int = 1_700_000_000_000) -> None:
    """Payloads in turn over the partitions."""
    producer = Producer(settings.client(enable_idempotence=True))
    refused: list[Any] = []
    for n, value in enumerate(values):
        producer.produce(topic, value, keys[n] if keys else str(n).encode(), n % partitions, timestamp=timestamp_ms + n,
                         headers=list(headers), on_delivery=lambda error, _: refused.append(error) if error else None)
    assert producer.flush(60) == 0
    assert not refused, refused


def read(settings: Settings, *topics: str) -> list[Any]:
    """Everything a read_committed reader finds, by topic, partition and offset."""
    found = committed_records(settings, *topics)
    return sorted(found, key=lambda m: (m.topic(), m.partition(), m.offset()))


def cli(settings: Settings, *arguments: str) -> Result:
    """A command, run here in the project's folder, against these addresses; what it raises is in `exception`."""
    where = {"HEADRACE_BOOTSTRAP": settings.bootstrap, "HEADRACE_REGISTRY": settings.registry_url}
    with chdir(settings.project):
        return CliRunner().invoke(build(), list(arguments), env=where)


def hold(settings: Settings, source: str, quarantine: str, reasons: Sequence[Sequence[str]], *,
         step: str = "check", flow: str = "readings", now_ms: int = 1_800_000_000_000) -> None:
    """Puts every record of `source` in quarantine, record i for `reasons[i % len(reasons)]`, as a flow would."""
    messages = read(settings, source)
    rejects = Rejects(Meta(Frames(messages)), [reasons[i % len(reasons)] for i in range(len(messages))], step)
    out: Outgoing = QuarantineSink(quarantine, flow, now_ms=lambda: now_ms).reject(rejects)
    producer = Producer(settings.client(enable_idempotence=True))
    for value, key, at_ms, headers in zip(out.values, out.keys, out.timestamps_ms, out.headers, strict=True):
        producer.produce(quarantine, value, key, timestamp=at_ms, headers=headers)
    assert producer.flush(60) == 0
