"""The dispatch part of a loop hands requests to a real Airflow, and is killed at random: one DAG run a trigger."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.control import RetrainResult, digest
from tests.conftest import Stack
from tests.external.conftest import Server
from tests.external.test_airflow import request
from tests.integration.loopworld import World, model

pytestmark = [pytest.mark.external, pytest.mark.timeout(600),  # the first installs Airflow, once
              pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]

KILLS, TRIGGERS, PATIENCE_S = 10, 4, 240.0
AT_A_TIME = 2


def test_the_dispatch_part_is_killed(airflow: Server, stack: Stack, tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    print(f"seed {seed}")
    train = {"to": "airflow", "poll_s": 0.3, "queue": {"running_max": AT_A_TIME, "backoff_s": 0.5}, "with": {
        "url": airflow.url, "username": "headrace", "password_env": airflow.password_env}}
    names = [f"m{n}" for n in range(TRIGGERS)]
    w = World(stack.settings, tmp_path, {name: model(train=train) for name in names})
    try:
        w.start("dispatch", "loop", "run", "watch", "--part", "dispatch")
        w.until(lambda: topics(w), "the topics")
        asked = [replace(request(f"{w.u}/{name}", train_s=chance.uniform(0.0, 3.0)), model=name) for name in names]
        left = list(asked)
        for _ in range(KILLS):
            if left:
                one = left.pop(0)
                w.send(one, one)
            time.sleep(chance.uniform(0.5, 6.0))  # a start takes some seconds: before, in and after a submit
            w.alive()
            worker: subprocess.Popen[bytes] = w.processes["dispatch"]
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            w.start("dispatch", "loop", "run", "watch", "--part", "dispatch")
        w.until(lambda: all(len(w.results(each.id)) >= 2 for each in asked), "all results", PATIENCE_S)
        for one in asked:
            told = w.results(one.id)
            assert [each.status for each in told] == ["started", "succeeded"], f"seed {seed}: {told}"
            assert len(airflow.runs(one.id)) == 1, f"seed {seed}"
            assert airflow.trained(one.id) == 1, f"seed {seed}"
        every = w.events(RetrainResult)
        assert Counter(each.id for each in every) == Counter(
            digest(one.id, status) for one in asked for status in ("started", "succeeded"))
        print(f"{KILLS} kills, {TRIGGERS} triggers, a DAG run each")
    finally:
        w.stop()


def topics(w: World) -> bool:
    from headrace.topics import existing

    return {f"{w.control}.retrain", f"{w.control}.retrain.results"} <= set(existing(w.settings))
