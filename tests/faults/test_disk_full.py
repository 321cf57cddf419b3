"""The broker's disk is full: the worker waits and says so; with room again nothing is lost or doubled.

The disk is a file-size limit set on the running broker: its writes fail with an I/O error as on a full disk, and it
needs no mount and no root.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Producer

from headrace.batch import read_lineage
from headrace.settings import Settings
from headrace.stack.leash import leash
from headrace.stack.lifecycle import ANY_PORTS, obituary, status, up
from headrace.topics import TopicPlan, ensure, silent
from tests.committed import committed_records
from tests.faults.test_kill import load, start, wait_for, write_flow

pytestmark = [pytest.mark.faults, pytest.mark.timeout(280),
              pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="the limit is set by Linux's prlimit")]

LIMIT_BYTES = 24 << 20  # above Kafka's 10 MB index files, below what the test writes


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A stack that this test may break."""
    with leash(tmp_path):
        found = up(tmp_path, ports=ANY_PORTS)
        monkeypatch.setenv("HEADRACE_BOOTSTRAP", found["bootstrap"])
        monkeypatch.setenv("HEADRACE_REGISTRY", found["registry"])
        yield Settings(tmp_path, found["bootstrap"], found["registry"])


def fill(settings: Settings, topic: str) -> None:
    """Write until the broker takes no more."""
    producer = Producer(settings.client(enable_idempotence=True, message_timeout_ms=8_000), logger=silent("filler"))
    refused: list[object] = []
    block = os.urandom(500_000)
    for _ in range(200):
        producer.produce(topic, block, on_delivery=lambda error, message: refused.append(error) if error else None)
        producer.poll(0.05)
        if refused:
            return
    producer.flush(60)
    assert refused, "the disk never was full"


def test_a_full_disk_is_waited_for(alone: Settings, request: pytest.FixtureRequest) -> None:
    ensure(alone, [TopicPlan("readings", 4), TopicPlan("ballast", 1)])
    write_flow(alone.project, "readings", "readings")
    load(alone, "readings", 20_000)
    worker = start(alone.project, "readings", "--batch", "250")
    request.addfinalizer(worker.kill)  # whatever fails: nothing stays behind
    wait_for(worker, "assigned")
    kafka = next(part for part in status(alone.project) if part.name == "kafka")
    assert kafka.pid is not None
    psutil.Process(kafka.pid).rlimit(psutil.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))
    fill(alone, "ballast")
    end = time.monotonic() + 60
    while (why := obituary(alone.project)) is None:
        assert time.monotonic() < end, "the broker lives on with a full disk"
        time.sleep(0.5)
    assert "kafka" in why
    wait_for(worker, "broker trouble")
    assert worker.poll() is None, "the worker gave up, instead of waiting"

    up(alone.project)  # there is room again
    worker.terminate()
    try:
        worker.communicate(timeout=20)
    except subprocess.TimeoutExpired:  # librdkafka may sit in send_offsets_to_transaction for ever; /health tells of it
        worker.kill()
        worker.communicate()
    last = start(alone.project, "readings", "--drain")
    told = last.communicate(timeout=120)[1]
    assert last.returncode == 0, told
    found = committed_records(alone, "readings.checked", "readings.quarantine")
    origins = Counter(str(read_lineage(m.headers())) for m in found)
    assert len(origins) == 20_000
    assert max(origins.values()) == 1
