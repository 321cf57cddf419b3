"""`kill -9` at random under a join: the pairs are those of the two topics as wholes, and none is made twice."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest

from headrace.batch import read_lineage
from headrace.settings import Settings
from tests.committed import committed_records
from tests.faults.test_kill import start, wait_for
from tests.integration.flights import LABEL, PREDICTION, labels, predictions, produce, rows_of, write_joined

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300),
              pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]  # of the registry's HTTP client

N, KILLS = 30_000, 6


def test_each_pair_exactly_once(project: Settings, topic: Callable[..., str]) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    print(f"seed {seed}")
    made = write_joined(project, topic)
    produce(project, made.predictions, PREDICTION, predictions(0, N))
    produce(project, made.labels, LABEL, labels(0, N))
    for at in range(KILLS):  # in turn while state is restored, and when transactions follow one another
        worker = start(project.project, made.name, "--batch", "300", "--log", "debug")
        wait_for(worker, "committed" if at % 2 else "started")
        time.sleep(chance.uniform(0.0, 0.8))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stderr.close()  # type: ignore[union-attr]
        if at == KILLS // 2:  # what is on this disk is lost too: the changelog has it
            for copy in (project.project / ".headrace/state").rglob("CURRENT"):
                copy.unlink()
    at_last = start(project.project, made.name, "--drain")
    told = at_last.communicate(timeout=120)[1]
    assert at_last.returncode == 0, told
    rest = next(json.loads(line)["records_in"] for line in told.splitlines() if '"stopped"' in line)
    assert 0 < rest < 1.9 * N, f"the kills did not fall in mid-stream (seed {seed}): the last run had {rest}"

    pairs = Counter((row["n"], row["m"]) for row in rows_of(project, made.judged))
    assert pairs == Counter((n, n) for n in range(N) if n % 10), f"seed {seed}"
    missed = committed_records(project, made.unlabelled)
    origins = Counter(str(read_lineage(m.headers())) for m in missed)
    assert max(origins.values()) == 1, f"seed {seed}: a row is given up twice"
    given_up = {row["n"] for row in rows_of(project, made.unlabelled)}
    assert {n for n in given_up if n % 10} == set()
    assert set(range(0, N - 8_000, 10)) <= given_up, f"seed {seed}: rows without a label were lost"
