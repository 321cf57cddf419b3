"""A step that cannot go on yet: the batch waits, polling goes on, and nothing is lost, doubled or out of order."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Producer

from headrace import codec
from headrace.batch import read_lineage
from headrace.lag import measure
from headrace.registry import Registry
from headrace.settings import Settings
from tests.committed import committed_records
from tests.faults.test_kill import SCHEMA, _in_order, load, start, wait_for, write_flow
from tests.integration.wire import wire

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
MOODY = '''
from pathlib import Path

from headrace import Config, Processor, Retriable


class MoodyConfig(Config):
    pass


class Moody(Processor):
    """Asks for a pause while there is the file `wait`, and before every third batch."""
    Config = MoodyConfig

    def outputs(self, schema):
        return {"success": schema}

    def open(self, ctx):
        self.calls = 0

    def process(self, batch, ctx):
        self.calls += 1
        if (self.project / "wait").exists():
            raise Retriable("not yet", retry_after_s=60)
        if self.calls % 3 == 0:
            raise Retriable("in a moment", retry_after_s=0.05)
        return {"success": batch}
'''


def write(project: Path, flow: str, source: str) -> None:
    write_flow(project, flow, source)
    (project / "processors/moody.py").write_text(MOODY)
    file = project / f"flows/{flow}.yaml"
    file.write_text(file.read_text().replace("steps:\n", "steps:\n  wait: {moody: {}}\n"))


def check(project: Settings, source: str, records: int) -> None:
    found = committed_records(project, f"{source}.checked", f"{source}.quarantine")
    origins = Counter(str(read_lineage(m.headers())) for m in found)
    assert (len(origins), max(origins.values())) == (records, 1)
    _in_order([m for m in found if m.topic().endswith(".checked")])


def test_a_batch_that_waits_goes_on_where_it_stood(project: Settings, topic: Callable[..., str]) -> None:
    source = topic("moody", partitions=4)
    write(project.project, "moody", source)
    load(project, source, 6_000)
    worker = start(project.project, "moody", "--drain", "--batch", "200")
    told = worker.communicate(timeout=90)[1]
    assert worker.returncode == 0, told
    assert told.count('"waiting"') >= 10, told
    check(project, source, 6_000)


def test_a_worker_that_waits_takes_part_in_rebalances(project: Settings, topic: Callable[..., str]) -> None:
    source = topic("moody", partitions=4)
    flow = f"moody-{source[-6:]}"
    write(project.project, flow, source)
    load(project, source, 4_000)
    (project.project / "wait").touch()
    one = start(project.project, flow, "--instance", "one")
    workers: list[subprocess.Popen[Any]] = [one]
    try:
        wait_for(one, "waiting")
        (project.project / "wait").unlink()  # which it would look for in a minute
        begun = time.monotonic()
        other = start(project.project, flow, "--instance", "other")
        workers.append(other)
        wait_for(other, "assigned")
        while sum(group.lag for group in measure(project, [f"headrace.{flow}"]).values()):
            assert time.monotonic() < begun + 45, "the group waits for the one that waits"
            time.sleep(0.3)
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        assert [worker.wait(30) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    check(project, source, 4_000)


def evolved(settings: Settings, topic: str, records: int) -> None:
    """Readings by a schema with one more field, all to partition 0."""
    field = {"name": "late", "type": ["null", "string"], "default": None}
    schema = codec.parse(json.dumps({**SCHEMA, "fields": [*SCHEMA["fields"], field]}))  # type: ignore[misc]
    number = Registry(settings.registry_client()).register(f"{topic}-value", schema)
    rows = pa.RecordBatch.from_pydict({"n": list(range(records)), "sensor": ["s"] * records, "late": ["x"] * records},
                                      schema=schema.arrow)
    producer = Producer(settings.client(enable_idempotence=True))
    for value in codec.Encoder(schema, schema.arrow, number).encode(rows):
        producer.produce(topic, value, b"late", 0)
    assert producer.flush(60) == 0


def test_a_schema_that_cannot_be_had_holds_its_partition_only(project: Settings, topic: Callable[..., str]) -> None:
    source = topic("held", partitions=4)
    flow = f"held-{source[-6:]}"
    write_flow(project.project, flow, source)
    load(project, source, 4_000)

    def lags() -> list[int]:
        group = measure(project, [f"headrace.{flow}"])[f"headrace.{flow}"]
        return [group.partitions[source, partition].lag or 0 for partition in range(4)]

    def until(wanted: list[int]) -> None:
        end = time.monotonic() + 90
        while (found := lags()) != wanted:
            assert time.monotonic() < end, f"lag is {found}, and not {wanted}"
            time.sleep(0.3)

    with wire(project.registry_url or "") as (line, url):
        worker = start(project.project, flow, "--batch", "200", env={"HEADRACE_REGISTRY": url})
        try:
            wait_for(worker, "assigned")
            until([0, 0, 0, 0])
            line.cut()
            evolved(project, source, 50)
            load(project, source, 2_000)
            wait_for(worker, "waiting")
            until([550, 0, 0, 0])
            line.mend()
            until([0, 0, 0, 0])
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0
        finally:
            worker.kill()
            worker.communicate()
    check(project, source, 6_050)
