"""When failed tasks are started again: the delays, and that they are told and kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from headrace.connect import store
from headrace.connect.restart import Restarts, delay_s
from headrace.errors import BrokerError, Fenced
from tests.unit.restkit import Scripted, Stage, lines

pytestmark = pytest.mark.unit


def test_delays() -> None:
    assert [delay_s(n) / 60 for n in range(10)] == [0, 2, 6, 12, 20, 30, 42, 56, 60, 60]


def test_restarts_in_a_row() -> None:
    now, restarts, waited = 5_000.0, Restarts(), []
    for _ in range(4):
        restarts = restarts.failed(now)
        assert restarts.at is not None
        assert not restarts.due(restarts.at - 1)
        waited.append(restarts.at - now)
        now = restarts.at
        assert restarts.due(now)
        restarts = restarts.restarted(now)
        now += 1  # it fails again at once
    assert waited == [0, 120, 360, 720]
    assert Restarts.kept(restarts.told()) == restarts


def test_a_task_that_ran_well_begins_anew() -> None:
    restarts = Restarts(2, last=1_000.0)  # its next delay is 6 minutes
    assert restarts.failed(1_000.0 + 300).count == 2
    assert restarts.failed(1_000.0 + 361).count == 0


def until(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_the_herder_restarts_failed_tasks(stage: Stage, tmp_path: Path) -> None:
    herder = stage.herder
    herder.start()
    try:
        herder.create("c", lines(tmp_path))
        stage.made[0].fail("boom")
        until(lambda: len(stage.made) == 2)  # the first time at once
        until(lambda: herder.status("c")["tasks"][0]["state"] == "RUNNING")
        assert herder.status("c")["tasks"][0]["auto_restart"]["count"] == 1
        stage.made[1].fail("boom again")
        told = herder.status("c")["tasks"][0]
        assert (told["state"], told["trace"]) == ("FAILED", "boom again")
        assert told["auto_restart"]["next_at"] == "1970-01-12T13:48:40.000+00:00"  # two minutes from “now”
        time.sleep(0.6)
        assert len(stage.made) == 2
        stage.now += 120
        until(lambda: len(stage.made) == 3)
        until(lambda: "trace" not in herder.status("c")["tasks"][0])
        herder.restart_task("c", 0)  # by hand: it counts anew
        assert "auto_restart" not in herder.status("c")["tasks"][0]
    finally:
        herder.stop()


@pytest.mark.parametrize("how", ["paused", "fenced", "stopped"])
def test_not_restarted(stage: Stage, tmp_path: Path, how: str) -> None:
    """A paused connector's task waits; one that another worker has shut out would only shut that out in turn."""
    herder = stage.herder
    herder.start()
    try:
        herder.create("c", lines(tmp_path))
        task: Scripted = stage.made[0]
        if how == "paused":
            herder.pause("c")
            task.fail("boom")
        elif how == "fenced":
            task.fail("shut out", Fenced("shut out"))
        else:
            herder.stop_connector("c")
            task.fail("too late to be of interest")
        time.sleep(0.6)
        assert len(stage.made) == 1
        if how == "paused":
            herder.resume("c")
            until(lambda: len(stage.made) == 2)
        elif how == "stopped":
            assert herder.status("c")["tasks"] == []
    finally:
        herder.stop()


def test_a_failure_that_could_not_be_kept_at_first(tmp_path: Path) -> None:
    """Kafka was away when a task failed: it is started again once its failure is on record, not before."""
    class Away(store.Memory):
        refusals = 2

        def put(self, topic: str, key: store.Key, value: Mapping[str, Any] | None) -> Future[None]:
            done: Future[None] = Future()
            if value is not None and value.get("state") == "FAILED" and self.refusals:
                self.refusals -= 1
                done.set_exception(BrokerError("away"))
                return done
            return super().put(topic, key, value)

    away = Away()
    stage = Stage(tmp_path, away)
    stage.herder.start()
    try:
        stage.herder.create("c", lines(tmp_path))
        stage.made[0].fail("boom")
        until(lambda: len(stage.made) == 2)
        assert away.refusals == 0
    finally:
        stage.herder.stop()


def test_a_worker_that_was_shut_out_restarts_nothing(tmp_path: Path) -> None:
    class ShutOut(store.Memory):
        def put(self, topic: str, key: store.Key, value: Mapping[str, Any] | None) -> Future[None]:
            if value is None or value.get("state") != "FAILED":
                return super().put(topic, key, value)
            done: Future[None] = Future()
            done.set_exception(Fenced("another worker"))
            return done

    stage = Stage(tmp_path, ShutOut())
    stage.herder.start()
    try:
        stage.herder.create("c", lines(tmp_path))
        stage.made[0].fail("boom")
        time.sleep(0.8)
        assert len(stage.made) == 1
    finally:
        stage.herder.stop()
