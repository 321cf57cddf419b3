"""`kill -9` at random, ten times in 100,000 records: a read_committed reader finds each input exactly once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from headrace import codec
from headrace.batch import read_lineage
from headrace.registry import Registry
from headrace.settings import Settings
from tests.committed import committed_records

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

RECORDS, PARTITIONS, KILLS = 100_000, 4, 10
SCHEMA = {"type": "record", "name": "Reading", "fields": [{"name": "n", "type": "long"},
                                                          {"name": "sensor", "type": ["null", "string"]}]}
SUITE = {"name": "reading", "expectations": [
    {"id": "sensor_given", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "sensor"}}]}
FLOW = """
flow: {name}
description: Readings, checked.
owner: tests
source:
  kafka: {{topic: {source}, schema: reading, partitions: 4}}
steps:
  check: {{validate: {{suite: reading}}}}
  enrich: {{derive: {{twice: "n * 2"}}}}
sinks:
  {source}.checked: {{from: enrich, kafka: {{}}}}
  {source}.quarantine: {{from: check.failure, quarantine: {{}}}}
"""


def write_flow(project: Path, name: str, source: str) -> None:
    for folder in ("flows", "schemas"):
        (project / folder).mkdir(exist_ok=True)
    (project / "schemas/reading.avsc").write_text(json.dumps(SCHEMA))
    (project / "schemas/reading.expectations.json").write_text(json.dumps(SUITE))
    (project / f"flows/{name}.yaml").write_text(FLOW.format(name=name, source=source))


def load(settings: Settings, topic: str, records: int = RECORDS) -> None:
    """Readings 0 … n-1, a tenth without a sensor, a hundredth corrupt; in turn over the partitions."""
    schema = codec.parse(json.dumps(SCHEMA))
    number = Registry(settings.registry_client()).register(f"{topic}-value", schema)
    import pyarrow as pa

    rows = pa.RecordBatch.from_pydict(
        {"n": list(range(records)), "sensor": [None if n % 10 == 3 else f"s{n % 7}" for n in range(records)]},
        schema=schema.arrow)
    values = codec.Encoder(schema, schema.arrow, number).encode(rows)
    producer = Producer(settings.client(enable_idempotence=True, linger_ms=20, queue_buffering_max_messages=1_000_000))
    for n, value in enumerate(values):
        producer.produce(topic, value[:7] if n % 100 == 7 else value, str(n % 97), n % PARTITIONS)
    assert producer.flush(60) == 0


def start(project: Path, flow: str, *more: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "headrace", "run", flow, *more], cwd=project, text=True,
                            stderr=subprocess.PIPE, env={**os.environ, **(env or {})})


def wait_for(process: subprocess.Popen[str], message: str, within_s: float = 150.0) -> None:
    """Read the worker's JSON log up to a message."""
    assert process.stderr is not None
    told: list[str] = []
    end = time.monotonic() + within_s
    for line in process.stderr:
        told.append(line)
        if line.startswith("{") and json.loads(line)["message"] == message:
            return
        assert time.monotonic() < end, f"“{message}” did not come:\n{''.join(told)}"
    raise AssertionError(f"the worker ended before “{message}”:\n{''.join(told)}")


def test_each_input_exactly_once(project: Settings, topic: Callable[..., str]) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    print(f"seed {seed}")
    source = topic("readings", partitions=PARTITIONS)
    write_flow(project.project, "readings", source)
    load(project, source)
    for at in range(KILLS):  # in turn soon after the start, and when transactions follow one another
        worker = start(project.project, "readings", "--batch", "100", "--log", "debug")
        wait_for(worker, "committed" if at % 2 else "assigned")
        time.sleep(chance.uniform(0.0, 0.5))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stderr.close()  # type: ignore[union-attr]
    at_last = start(project.project, "readings", "--drain")
    told = at_last.communicate(timeout=90)[1]
    assert at_last.returncode == 0, told
    rest = next(json.loads(line)["records_in"] for line in told.splitlines() if '"stopped"' in line)
    assert 0 < rest < RECORDS, f"the kills did not fall in mid-stream (seed {seed}): the last run had {rest}"

    checked = committed_records(project, f"{source}.checked")
    held = committed_records(project, f"{source}.quarantine")
    origins = Counter(str(read_lineage(m.headers())) for m in (*checked, *held))
    doubled = [at for at, n in origins.items() if n > 1]
    assert not doubled, f"seed {seed}: {len(doubled)} doubled, e.g. {doubled[:3]}"
    assert len(origins) == RECORDS, f"seed {seed}: {RECORDS - len(origins)} lost"
    bad = {n for n in range(RECORDS) if n % 100 == 7 or n % 10 == 3}
    assert len(held) == len(bad)
    _in_order(checked)


def _in_order(messages: list[Any]) -> None:
    """Order per key: what one source partition gave appears in the order of its offsets, in each output partition."""
    last: dict[Any, int] = {}
    for message in messages:
        span = read_lineage(message.headers())
        assert span is not None
        at = (message.partition(), message.key(), span.partition)
        assert last.get(at, -1) < span.offset_first, f"{span} after {last[at]} for key {message.key()}"
        last[at] = span.offset_first
