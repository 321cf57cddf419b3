"""Keyed state under real workers: restarts with and without the local copy, a second worker, the changelog itself."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from headrace.lag import measure
from headrace.settings import Settings
from tests.faults.test_kill import start, wait_for
from tests.integration.stateful import PARTITIONS, check, load, ticks, write

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
N = 6_000


def drain(project: Settings, flow: str, *more: str) -> list[dict[str, Any]]:
    """The lines of the log of a worker that drains."""
    worker = start(project.project, flow, "--drain", *more)
    told = worker.communicate(timeout=90)[1]
    assert worker.returncode == 0, told
    return [json.loads(line) for line in told.splitlines() if line.startswith("{")]


def restored(lines: list[dict[str, Any]]) -> int:
    return sum(line["entries"] for line in lines if line["message"] == "state restored")


def told(project: Settings, *arguments: str) -> tuple[int, str, str]:
    made = subprocess.run([sys.executable, "-m", "headrace", "state", *arguments], cwd=project.project, text=True,
                          capture_output=True, timeout=60)
    return made.returncode, made.stdout, made.stderr


def test_a_restart_goes_on_from_the_copy_and_without_one_from_the_changelog(project: Settings,
                                                                           topic: Callable[..., str]) -> None:
    source = topic("ticks", partitions=PARTITIONS)
    flow = f"once-{source[-6:]}"
    write(project.project, flow, source)
    load(project, source, ticks(0, N))
    assert restored(drain(project, flow, "--batch", "700")) == 0
    load(project, source, ticks(N, 2 * N))
    assert restored(drain(project, flow, "--batch", "1100")) == 0  # the copy was up to date
    load(project, source, ticks(2 * N, 3 * N))
    copies = project.state / "state"
    assert any(copies.rglob("CURRENT"))
    shutil.rmtree(copies)
    entries = restored(drain(project, flow, "--batch", "900"))
    assert entries > N  # the keys of more than an hour
    check(project, source, 3 * N)

    changelog = f"headrace.{flow}.state"
    admin = AdminClient(project.client())
    described = admin.describe_configs([ConfigResource(ResourceType.TOPIC, changelog)])
    settings = {name: entry.value for name, entry in next(iter(described.values())).result().items()}
    assert (settings["cleanup.policy"], settings["retention.ms"]) == ("compact", "-1")
    assert len(admin.list_topics(changelog).topics[changelog].partitions) == PARTITIONS

    code, out, _ = told(project, flow, "--json", "--keys", "2")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    sizes = {(line["step"], line["partition"]): line for line in lines if "entries" in line}
    assert sizes.keys() == {(step, p) for step in ("once", "count") for p in range(PARTITIONS)}
    keys = sum(line["entries"] for (step, _), line in sizes.items() if step == "once")
    assert 3_600 < keys < 2 * 3_600 + 500  # an hour's window and an hour's lateness, a key a second
    assert all(0 < line["bytes"] < 100 * line["entries"] for (step, _), line in sizes.items() if step == "once")
    shown = [line for line in lines if "key" in line]
    assert [line["step"] for line in shown] == ["count", "count", "once", "once"]
    code, out, _ = told(project, flow, "--step", "count")
    assert code == 0
    assert "once" not in out.replace(flow, "")
    code, _, err = told(project, flow, "--step", "cont")
    assert (code, "did you mean" in err or "count" in err) == (2, True)


def test_errors_of_the_command(project: Settings, topic: Callable[..., str]) -> None:
    source = topic("ticks", partitions=PARTITIONS)
    flow = f"never-{source[-6:]}"
    write(project.project, flow, source)
    code, _, err = told(project, flow)
    assert code == 2
    assert f"there is no topic headrace.{flow}.state" in err
    file = project.project / f"flows/{flow}.yaml"
    lines = file.read_text().splitlines()
    at, end = lines.index("steps:"), lines.index("sinks:")
    kept = [line for line in lines[end:] if "once" not in line and "count" not in line]
    file.write_text("\n".join([*lines[:at], *kept, f"  {source}.copy: {{from: source, kafka: {{}}}}"]))
    code, _, err = told(project, flow)
    assert code == 2, err
    assert "keeps no state" in err


def test_partitions_move_between_workers_with_their_state(project: Settings, topic: Callable[..., str]) -> None:
    source = topic("ticks", partitions=PARTITIONS)
    flow = f"moved-{source[-6:]}"
    write(project.project, flow, source)
    load(project, source, ticks(0, N))
    one = start(project.project, flow, "--batch", "300", "--instance", "one")
    wait_for(one, "assigned")
    load(project, source, ticks(N, 2 * N))
    other = start(project.project, flow, "--batch", "300", "--instance", "other")
    wait_for(other, "assigned")
    load(project, source, ticks(2 * N, 3 * N))
    time.sleep(1.0)
    one.send_signal(signal.SIGTERM)
    assert one.wait(30) == 0
    wait_for(other, "assigned")
    load(project, source, ticks(3 * N, 4 * N))
    end = time.monotonic() + 60
    while sum(group.lag for group in measure(project, [f"headrace.{flow}"]).values()):
        assert time.monotonic() < end, "the second worker does not come to the end"
        time.sleep(0.3)
    other.send_signal(signal.SIGTERM)
    assert other.wait(30) == 0
    for worker in (one, other):
        worker.stderr.close()  # type: ignore[union-attr]
    check(project, source, 4 * N)


def test_state_that_cannot_be_restored_ends_the_worker_with_a_clear_error(project: Settings,
                                                                          topic: Callable[..., str]) -> None:
    source = topic("ticks", partitions=PARTITIONS)
    flow = f"full-{source[-6:]}"
    write(project.project, flow, source)
    load(project, source, ticks(0, N))
    drain(project, flow)
    shutil.rmtree(project.state / "state")
    worker = start(project.project, flow)
    psutil.Process(worker.pid).rlimit(psutil.RLIMIT_FSIZE, (40_000, 40_000))  # a disk that is full, to this process
    try:
        told = worker.communicate(timeout=60)[1]
    finally:
        worker.kill()
    assert worker.returncode == 3, told
    assert "is the disk full?" in told
    assert "Traceback" not in told
    drain(project, flow)  # there is room again
    check(project, source, N)
