"""A step that cannot go on yet: the batch waits, polling goes on, and nothing is lost, doubled or out of order."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.batch import read_lineage
from headrace.lag import measure
from headrace.settings import Settings
from tests.faults.test_kill import _in_order, committed_records, load, start, wait_for, write_flow

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
