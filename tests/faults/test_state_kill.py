"""`kill -9` at random under a flow that remembers: duplicates are found and windows counted as if nothing had been."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable

import pytest

from headrace.settings import Settings
from tests.faults.test_kill import start, wait_for
from tests.integration.stateful import PARTITIONS, check, load, ticks, write

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]
RECORDS, KILLS = 40_000, 6


def test_state_is_as_old_as_the_offsets(project: Settings, topic: Callable[..., str]) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    print(f"seed {seed}")
    source = topic("ticks", partitions=PARTITIONS)
    flow = f"killed-{source[-6:]}"
    write(project.project, flow, source)
    load(project, source, ticks(0, RECORDS))
    for at in range(KILLS):
        worker = start(project.project, flow, "--batch", "100", "--log", "debug")
        wait_for(worker, "committed" if at % 2 else "assigned")
        time.sleep(chance.uniform(0.0, 0.5))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stderr.close()  # type: ignore[union-attr]
        if at == KILLS // 2:  # this time the next has no copy of its own to go on from
            shutil.rmtree(project.state / "state")
    at_last = start(project.project, flow, "--drain")
    told = at_last.communicate(timeout=90)[1]
    assert at_last.returncode == 0, told
    rest = next(json.loads(line)["records_in"] for line in told.splitlines() if '"stopped"' in line)
    assert 0 < rest < len(ticks(0, RECORDS)), f"the kills did not fall in mid-stream (seed {seed}): {rest} at last"
    check(project, source, RECORDS)
