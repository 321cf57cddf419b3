"""Records that break a step, under a real worker: only they leave, they can be sent back, a broken step stops."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.batch import read_lineage
from headrace.lag import measure
from headrace.settings import Settings
from tests.committed import committed_records
from tests.faults.test_kill import _in_order, load, start, write_flow
from tests.integration.test_worker import drain, reasons

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
RECORDS = 6_000
BRITTLE = '''
import pyarrow.compute as pc

from headrace import Config, Processor


class BrittleConfig(Config):
    pass


class Brittle(Processor):
    Config = BrittleConfig

    def outputs(self, schema):
        return {"success": schema}

    def process(self, batch, ctx):
        if pc.any(pc.is_in(batch.rows.column("n"), value_set=BAD)).as_py():
            raise ZeroDivisionError("no reading has this number")
        return {"success": batch}
'''


def brittle(project: Path, bad: str) -> None:
    (project / "processors/brittle.py").write_text("import pyarrow as pa\n\nBAD = pa.array(" + bad + ", pa.int64())\n"
                                                   + BRITTLE)


def headrace(project: Settings, *arguments: str) -> Any:
    made = subprocess.run([sys.executable, "-m", "headrace", *arguments], cwd=project.project, text=True,
                          capture_output=True, timeout=60)
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


def test_poison_leaves_alone_and_goes_through_once_the_step_is_mended(project: Settings,
                                                                      topic: Callable[..., str]) -> None:
    source = topic("brittle", partitions=4)
    flow = f"brittle-{source[-6:]}"
    write_flow(project.project, flow, source)
    file = project.project / f"flows/{flow}.yaml"
    file.write_text(file.read_text().replace("steps:\n", "steps:\n  first: {brittle: {}}\n"))
    brittle(project.project, "[500, 1501, 1502, 5990]")
    load(project, source, RECORDS)
    assert drain(project, flow, "--batch", "700")["records_in"] == RECORDS
    dead = committed_records(project, f"{flow}.dead-letter")
    assert Counter(why for m in dead for why in reasons(m)) == {
        "poison: ZeroDivisionError in first: no reading has this number": 4}
    (told,) = headrace(project, "quarantine", "list", f"{flow}.dead-letter", "--json")["topics"].values()
    assert (told["records"], told["by_step"]) == (4, {"first": 4})

    def check(records: int) -> None:
        found = committed_records(project, f"{source}.checked", f"{source}.quarantine")
        origins = Counter(str(read_lineage(m.headers())) for m in found)
        assert (len(origins), max(origins.values())) == (records, 1)
        _in_order([m for m in found if m.topic().endswith(".checked")])

    check(RECORDS - 4)
    brittle(project.project, "[]")
    assert headrace(project, "quarantine", "replay", f"{flow}.dead-letter", "--json")["sent"] == 4
    assert drain(project, flow)["records_in"] == 4
    check(RECORDS)

    brittle(project.project, f"range({RECORDS})")
    load(project, source, 400)
    worker = start(project.project, flow, "--drain")
    said = worker.communicate(timeout=60)[1]
    assert worker.returncode == 2, said
    assert "first breaks: " in said
    assert "ZeroDivisionError" in said
    assert sum(group.lag for group in measure(project, [f"headrace.{flow}"]).values()) >= 400 - 10
    assert len(committed_records(project, f"{flow}.dead-letter")) <= 4 + 10
