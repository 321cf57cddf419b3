"""`kill -9` at random, ten times, under windows that a suite judges: the same verdicts, byte for byte, as without."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.settings import Settings
from tests.committed import committed_records
from tests.faults.test_kill import start, wait_for
from tests.integration.stateful import PARTITIONS, SCHEMA, load

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]
RECORDS, KILLS, RECORDS_A_WINDOW = 60_000, 10, 700
SUITE = {"name": "tick", "expectations": [
    {"type": f"expect_{name}", "kwargs": kwargs, "severity": severity} for name, kwargs, severity in [
        ("column_values_to_not_be_null", {"column": "sensor"}, "critical"),
        ("column_mean_to_be_between", {"column": "v", "min_value": 0, "max_value": 1_500}, "critical"),
        ("column_stdev_to_be_between", {"column": "v", "max_value": 60}, "warning"),
        ("column_unique_value_count_to_be_between", {"column": "n", "min_value": 100}, "critical"),
        ("column_quantile_values_to_be_between", {"column": "v", "quantile_ranges": {
            "quantiles": [0.1, 0.9], "value_ranges": [[0, 5_000], [0, 5_000]]}}, "warning"),
        ("column_values_to_be_unique", {"column": "n"}, "critical"),
        ("table_row_count_to_be_between", {"min_value": 140, "max_value": 160}, "critical")]]}
FLOW = """
flow: windows
description: Ticks, judged by the ten minutes and by the number.
owner: tests
source:
  kafka: {{topic: {source}, schema: tick, partitions: 4}}
steps:
  timed:
    validate_window:
      suite: tick
      window: {{time: 10m, on: at, late: 1m}}
      checks: [{{order: at, severity: info}}, {{volume: {{min: 1, change_max: 0.5}}}}, {{unique: [n]}}]
  counted:
    from: source
    validate_window: {{suite: tick, window: {{records: {size}}}}}
sinks:
  {source}.verdicts: {{from: [timed, counted], kafka: {{schema: control/verdicts, partitions: 1, retention_ms: -1}}}}
  {source}.quarantine: {{quarantine: {{}}}}
"""


def numbers() -> list[int]:
    """Numbers in order, a second of event time each; now and then one comes again, late, or too late for its window."""
    chance = random.Random(7)
    out = []
    for n in range(RECORDS):
        out.append(n)
        if chance.random() < 0.01:
            out.append(max(0, n - PARTITIONS * chance.choice([5, 10, 40, 400])))
    return out


def write(project: Path, source: str) -> None:
    for folder in ("flows", "schemas"):
        (project / folder).mkdir(exist_ok=True)
    (project / "schemas/tick.avsc").write_text(json.dumps(SCHEMA))
    (project / "schemas/tick.expectations.json").write_text(json.dumps(SUITE))
    (project / "flows/windows.yaml").write_text(FLOW.format(source=source, size=RECORDS_A_WINDOW))


def verdicts(settings: Settings, source: str) -> Counter[Any]:
    """All that a reader has of each event: key, value, timestamp, headers."""
    return Counter((m.key(), m.value(), m.timestamp(), repr(m.headers()))
                   for m in committed_records(settings, f"{source}.verdicts"))


def test_verdicts_on_windows_survive_ten_kills(project: Settings, topic: Callable[..., str]) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    print(f"seed {seed}")
    source = topic("ticks", partitions=PARTITIONS)
    write(project.project, source)
    load(project, source, numbers())
    for at in range(KILLS):
        worker = start(project.project, "windows", "--batch", "200", "--log", "debug", "--group", "killed")
        wait_for(worker, "committed" if at % 2 else "assigned")
        time.sleep(chance.uniform(0.0, 0.5))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stderr.close()  # type: ignore[union-attr]
        if at == KILLS // 2:  # this time the next has no copy of its own to go on from
            shutil.rmtree(project.state / "state")
    rest = drain(project, "killed")
    assert 0 < rest < len(numbers()), f"the kills did not fall in mid-stream (seed {seed}): {rest} at last"
    killed = verdicts(project, source)
    assert set(killed.values()) == {1}, f"doubled (seed {seed})"
    assert drain(project, "calm") == len(numbers())
    both = verdicts(project, source)
    windows = RECORDS // PARTITIONS // 600 + RECORDS // PARTITIONS // RECORDS_A_WINDOW
    assert len(killed) > PARTITIONS * (windows - 4)
    assert both == killed + killed, (seed, list((both - killed - killed).items())[:3])


def drain(settings: Settings, group: str) -> int:
    """Runs the flow to the end of its source; how many records that were."""
    worker = start(settings.project, "windows", "--drain", "--group", group)
    told = worker.communicate(timeout=120)[1]
    assert worker.returncode == 0, told
    return int(next(json.loads(line)["records_in"] for line in told.splitlines() if '"stopped"' in line))
