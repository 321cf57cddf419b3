"""`kill -9` at random under a flow with a trigger: every cause has its event, once, with the counts of a whole run."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.codec import Decoder
from headrace.control import Alert, event_id
from headrace.registry import Registry
from headrace.settings import Settings
from tests.faults.test_kill import PARTITIONS, committed_records, load, start, wait_for, write_flow

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240),
              pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]  # of the registry's HTTP client

RECORDS, WINDOW, KILLS = 40_000, 700, 3
FLOW = """
flow: watched
description: Readings, watched.
owner: tests
source:
  kafka: {{topic: {source}, schema: reading, partitions: 4}}
steps:
  watch:
    trigger:
      measure: share
      when: "sensor IS NULL"
      threshold: 0.05
      window: {{records: {window}}}
      repeat: true
      emit: {{alert: {{message: sensors are missing}}}}
sinks:
  {source}.alerts: {{from: watch, kafka: {{schema: control/alerts, partitions: 1}}}}
  {source}.quarantine: {{quarantine: {{}}}}
"""


def expected(source: str) -> dict[str, tuple[int, int, int, int]]:
    """id → (rows, matched, offset_first, offset_last), worked out from what `load` writes: record n is offset n // 4 of
    partition n % 4; every hundredth is corrupt, a tenth has no sensor. The last window of a partition never closes."""
    out = {}
    for partition in range(PARTITIONS):
        readable = [n for n in range(partition, RECORDS, PARTITIONS) if n % 100 != 7]
        for window in range((RECORDS // PARTITIONS - 1) // WINDOW):
            rows = [n for n in readable if n // PARTITIONS // WINDOW == window]
            matched = sum(n % 10 == 3 for n in rows)
            if matched / len(rows) >= 0.05:
                out[event_id("watched", "watch", source, partition, window)] = (
                    len(rows), matched, rows[0] // PARTITIONS, rows[-1] // PARTITIONS)
    return out


def watched(project: Path, source: str) -> None:
    write_flow(project, "watched", source)
    (project / "flows/watched.yaml").write_text(FLOW.format(source=source, window=WINDOW))


def test_one_event_for_each_cause(project: Settings, topic: Callable[..., str]) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    source = topic("readings", partitions=PARTITIONS)
    watched(project.project, source)
    load(project, source, RECORDS)
    for _ in range(KILLS):
        worker = start(project.project, "watched", "--batch", "100")
        wait_for(worker, "assigned")
        time.sleep(chance.uniform(0.0, 0.6))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stderr.close()  # type: ignore[union-attr]
    at_last = start(project.project, "watched", "--drain")
    told = at_last.communicate(timeout=90)[1]
    assert at_last.returncode == 0, told
    rest = next(json.loads(line)["records_in"] for line in told.splitlines() if '"stopped"' in line)
    assert 0 < rest < RECORDS, f"the kills did not fall in mid-stream (seed {seed}): the last run had {rest}"
    messages = committed_records(project, f"{source}.alerts")
    registry = Registry(project.registry_client())
    with registry.client:
        decoded = Decoder(Alert.schema(), registry.schema).decode([m.value() for m in messages])
    alerts = [Alert.from_record(record) for record in decoded.rows.to_pylist()]
    assert decoded.rejects == []
    wanted = expected(source)
    assert len(wanted) > 20, "a cause in every window of some partitions"
    assert len(alerts) == len({a.id for a in alerts}), f"seed {seed}: an event twice"
    assert {a.id: (a.rows, a.matched, a.offset_first, a.offset_last) for a in alerts} == wanted, f"seed {seed}"
