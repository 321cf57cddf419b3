"""Three brokers: three copies of everything, and one of them killed while records come and go."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from headrace import settings
from headrace.stack.leash import leash
from headrace.stack.lifecycle import ANY_PORTS, status, up
from headrace.topics import TopicPlan, ensure
from tests.integration.test_stack import OURS, headrace, ours, states, until

pytestmark = [pytest.mark.full, pytest.mark.integration]

BROKERS = ("kafka-1", "kafka-2", "kafka-3")
RUNNING = dict.fromkeys(("registry", *BROKERS), "running")
MORE = 500
"""Records that must come through while a broker is away."""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("three")
    with leash(folder), pytest.MonkeyPatch.context() as patch:
        for name in OURS:
            patch.delenv(name, raising=False)
        up(folder, ports=ANY_PORTS, brokers=3)
        yield folder
    assert not ours(folder)


def replicas(client: AdminClient, topic: str) -> list[tuple[set[int], set[int]]]:
    """(brokers that should have a copy, brokers whose copy is up to date) of each partition."""
    partitions = client.list_topics(topic, timeout=60).topics[topic].partitions
    return [(set(p.replicas), set(p.isrs)) for p in partitions.values()]


class Stream:
    """Numbers, one after the other, produced with acks=all and read at the same time."""

    def __init__(self, found: settings.Settings, topic: str) -> None:
        self.found, self.topic = found, topic
        self.sent = 0
        self.failed: list[str] = []
        self.read: list[int] = []
        self.stop = threading.Event()

    def produce(self) -> None:
        producer = Producer(self.found.client(enable_idempotence=True, acks="all", linger_ms=1))
        while not self.stop.wait(0.001):
            producer.produce(self.topic, str(self.sent).encode(), partition=self.sent % 3, on_delivery=self._delivered)
            self.sent += 1
            producer.poll(0)
        producer.flush(60)

    def _delivered(self, error: object, message: object) -> None:
        if error is not None:
            self.failed.append(str(error))

    def consume(self) -> None:
        reader = Consumer(self.found.client(group_id="three", auto_offset_reset="earliest"))
        reader.subscribe([self.topic])
        try:
            while not (self.stop.is_set() and len(self.read) >= self.sent):
                self.read += [int(m.value() or b"") for m in reader.consume(500, 0.2) if m.error() is None]
        finally:
            reader.close()

    @contextmanager
    def flowing(self) -> Iterator[None]:
        threads = [threading.Thread(target=each, daemon=True) for each in (self.produce, self.consume)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join(90)


def test_all_of_them_are_seen_and_have_copies_of_everything(three: Path) -> None:
    found = settings.load(three)
    assert states(three) == RUNNING
    assert found.bootstrap
    assert len(set(found.bootstrap.split(","))) == 3
    client = AdminClient(found.client())
    assert len(client.list_topics(timeout=30).brokers) == 3
    shown = headrace("status", "--json", cwd=three)
    assert {part["name"] for part in json.loads(shown.stdout)["parts"]} == set(RUNNING)
    both = headrace("logs", "-n", "1", cwd=three).stdout.splitlines()
    assert {line.split(" | ")[0] for line in both} == set(RUNNING)
    assert "Kafka Server started" in headrace("logs", "kafka-2", "-n", "500", cwd=three).stdout

    assert ensure(found, [TopicPlan("copied", 2), TopicPlan("single", 1, replication=1)]) == ["copied", "single"]
    assert replicas(client, "copied") == [({1, 2, 3}, {1, 2, 3})] * 2
    assert len(replicas(client, "single")[0][0]) == 1
    producer = Producer(found.client(transactional_id="three"))
    producer.init_transactions(30)
    assert all(len(copies) == 3 for copies, _ in replicas(client, "__transaction_state"))

    refused = headrace("up", "--brokers", "1", cwd=three)
    assert refused.returncode == 2
    assert "is that of 3 brokers, not of 1 broker" in refused.stderr
    assert "down --purge" in refused.stderr
    assert states(three) == RUNNING


def test_one_killed_is_missed_by_nobody_and_comes_back(three: Path) -> None:
    found = settings.load(three)
    ensure(found, [TopicPlan("numbers", 3)])
    stream, client = Stream(found, "numbers"), AdminClient(found.client())
    victim = "kafka-2"
    with stream.flowing():
        until(lambda: len(stream.read) > MORE, "the stream flows", 60)
        pids = {part.name: part.pid for part in status(three)}
        os.kill(pids[victim] or 0, signal.SIGKILL)
        until(lambda: states(three) == RUNNING | {victim: "died"}, f"{victim} is seen to be dead")
        until(lambda: all(2 not in alive for _, alive in replicas(client, "numbers")), "others lead", 60)
        seen = len(stream.read)
        until(lambda: len(stream.read) > seen + MORE, "the stream flows on without it", 60)
        assert up(three)["bootstrap"] == found.bootstrap
        until(lambda: replicas(client, "numbers") == [({1, 2, 3}, {1, 2, 3})] * 3, "its copies are up to date", 60)
    assert states(three) == RUNNING
    now = {part.name: part.pid for part in status(three)}
    assert {name for name in now if now[name] != pids[name]} == {victim}
    assert stream.failed == []
    assert sorted(stream.read) == list(range(stream.sent)), "lost or doubled"
    assert all(mine == sorted(mine) for mine in ([n for n in stream.read if n % 3 == p] for p in range(3)))

    stopped = headrace("down", cwd=three)
    assert stopped.returncode == 0
    assert "killed" not in stopped.stderr, "a broker did not end by itself"
    assert not ours(three)
    assert states(three) == dict.fromkeys(RUNNING, "stopped")
