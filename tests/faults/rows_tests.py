"""Rows 4, 5, 7 and 8, whose faults need more than a worker and a broker: they are tests, and stand in the table so."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable

from tests.faults.checker import Outcome
from tests.faults.row import Size
from tests.faults.workers import ROOT
from tests.faults.world import World


def tests(file: str) -> Callable[[World, random.Random, Size], Outcome]:
    """A row that is a file of tests, at its full counts: a run is a test, a breach one that does not pass."""
    def run(world: World, rng: random.Random, size: Size) -> Outcome:
        assert (ROOT / file).is_file(), f"{file} is not there"
        told = world.folder / f"{rng.randrange(1 << 30)}.xml"
        told.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-n0", "--faults", "full", f"--junitxml={told}", file],
                       cwd=ROOT, check=False, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path})
        return _told(ET.parse(told).getroot())

    return run


def _told(root: ET.Element) -> Outcome:
    cases = list(root.iter("testcase"))
    out = Outcome(runs=len(cases))
    out.hold(bool(cases), "there was no test")
    for case in cases:
        bad = [each for each in case if each.tag in ("failure", "error", "skipped")]
        out.hold(not bad, f"{case.get('name')}: {bad[0].get('message', '')[:300] if bad else ''}")
    return out
