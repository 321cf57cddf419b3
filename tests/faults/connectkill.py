"""A worker with a file source and a sink, killed ten times on the way from the file to the table."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from headrace.settings import Settings

RECORDS, KILLS = 100_000, 10
RATE = 800
"""Records a second: slow enough that every kill falls between the first record and the last."""
PATIENCE_S = 180.0
SCHEMA = {"type": "record", "name": "Reading", "fields": [
    {"name": "n", "type": "long"}, {"name": "sensor", "type": ["null", "string"]},
    {"name": "level", "type": ["null", "double"]}]}


def expected() -> list[tuple[int, str | None, float | None]]:
    """The file's rows."""
    return [(n, None if n % 11 == 0 else f"s{n % 7}", None if n % 13 == 0 else n / 8) for n in range(RECORDS)]


def write(settings: Settings, topic: str, sink: Mapping[str, str]) -> list[str]:
    """The file, its schema and both connectors, in the project; the connectors' files."""
    project = settings.project
    (project / "schemas/reading.avsc").write_text(json.dumps(SCHEMA))
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in expected()]
    (project / "readings.csv").write_text("n,sensor,level\n" + "\n".join(lines) + "\n")
    source = {"connector.class": "file", "file": "readings.csv", "topic": topic, "schema": "reading", "key": "n",
              "rate.records.per.second": str(RATE), "batch.records": "100"}
    files = []
    for name, keys in (("in", source), ("out", {"topics": topic, "batch.records": "2000", **sink})):
        files.append(f"connectors/{name}.json")
        (project / files[-1]).write_text(json.dumps({"name": f"{topic}-{name}", **keys}, indent=1))
    return files


def start(settings: Settings, files: list[str]) -> subprocess.Popen[bytes]:
    """The worker, until it is killed."""
    with (settings.project / "worker.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "headrace", "connect", *files, "--log", "info"],
                                cwd=settings.project, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                env={**os.environ, "HEADRACE_BOOTSTRAP": settings.bootstrap or "",
                                     "HEADRACE_REGISTRY": settings.registry_url or ""})


def torment(settings: Settings, files: list[str], count: Callable[[], int], seed: int) -> list[int]:
    """Kill the worker ten times under way, then let it finish. How many rows there were at each kill."""
    chance, seen = random.Random(seed), []
    for _ in range(KILLS):
        before, worker = count(), start(settings, files)
        try:
            wait(lambda before=before: count() > before, worker, settings, f"seed {seed}: more than {before:,} rows")
            time.sleep(chance.uniform(0.0, 0.8))
        finally:
            worker.kill()
            worker.wait()
        seen.append(count())
    hurry(settings, files)
    worker = start(settings, files)
    try:
        wait(lambda: count() >= RECORDS, worker, settings, f"seed {seed}: all rows")
        time.sleep(2.0)  # should anything be doubled, it comes now
    finally:
        worker.terminate()
        worker.wait(60)
    assert seen[0] > 0
    assert seen[-1] < RECORDS, f"it was done before the last kill, and the test proves less: {seen}"
    return seen


def hurry(settings: Settings, files: list[str]) -> None:
    """From now on as fast as it goes."""
    source = settings.project / files[0]
    keys = json.loads(source.read_text())
    del keys["rate.records.per.second"], keys["batch.records"]
    source.write_text(json.dumps(keys))


def wait(ready: Callable[..., Any], worker: subprocess.Popen[bytes], settings: Settings, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not ready():
        log = (settings.project / "worker.log").read_text(errors="replace")[-3000:]
        assert worker.poll() is None, f"the worker ended with {worker.returncode}:\n{log}"
        assert time.monotonic() < end, f"waited in vain for {what}:\n{log}"
        time.sleep(0.05)
