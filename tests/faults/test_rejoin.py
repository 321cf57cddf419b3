"""A consumer whom the broker takes for another: it joins again by itself, unless there is another."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
from confluent_kafka import Producer

from headrace.connectors.kafka import Assignment, KafkaSource
from headrace.errors import Fenced
from headrace.processor import Partition
from headrace.settings import Settings
from headrace.testing.proxy import Api, Proxy
from tests.conftest import Stack
from tests.faults.workers import until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

SESSION_S = 10.0  # a KafkaSource's


class Member:
    """A source under the name “one”, and what it was given and read."""

    def __init__(self, settings: Settings, topic: str, group: str) -> None:
        self.source = KafkaSource(settings, [topic], group, instance="one")
        self.given: list[Mapping[Partition, tuple[int, str | None]]] = []
        self.lost: list[Partition] = []
        self.values: list[bytes | None] = []
        self.source.subscribe(Assignment(self.given.append, self._on_revoked))

    def _on_revoked(self, partitions: Sequence[Partition]) -> None:
        self.lost += partitions

    def read(self) -> list[bytes | None]:
        """All values so far, after one more poll."""
        self.values += [message.value() for message in self.source.poll().messages]
        return self.values


@pytest.fixture
def member() -> Iterator[Callable[[Settings, str, str], Member]]:
    made: list[Member] = []

    def make(settings: Settings, topic: str, group: str) -> Member:
        made.append(Member(settings, topic, group))
        return made[-1]

    yield make
    for each in made:
        each.source.close()


def write(stack: Stack, topic: str, value: bytes) -> None:
    producer = Producer(stack.settings.client())
    producer.produce(topic, value, partition=0)
    assert producer.flush(30) == 0


def test_it_fenced_itself(stack: Stack, topic: Callable[..., str],
                          member: Callable[[Settings, str, str], Member]) -> None:
    """Its session is over for the consumer and not for the broker, and nobody polls meanwhile: as when a broker comes
    back while a worker waits for its transaction. Heartbeats go out with the name and without the member id."""
    name, group = topic(), f"headrace.{uuid.uuid4().hex}"
    write(stack, name, b"before")
    with Proxy(stack.bootstrap) as proxy:
        one = member(replace(stack.settings, bootstrap=proxy.bootstrap), name, group)
        until(lambda: one.read() == [b"before"], "the first record", 30)
        consumer = one.source.consumer
        unheard = proxy.reset(Api.HEARTBEAT, answered=True)
        time.sleep(SESSION_S + 1)
        unheard.stop()
        time.sleep(4)  # connected again, and a heartbeat sent
        write(stack, name, b"after")
        until(lambda: b"after" in one.read(), "what was written meanwhile", 60)
        assert one.source.consumer is not consumer, "it was not fenced, and this test shows nothing"
        assert one.lost, "its partitions were never said to be gone"
        assert len(one.given) == 2


def test_there_is_another(stack: Stack, topic: Callable[..., str],
                          member: Callable[[Settings, str, str], Member]) -> None:
    name, group = topic(), f"headrace.{uuid.uuid4().hex}"
    one = member(stack.settings, name, group)
    until(lambda: one.read() or one.given, "partitions", 30)
    two = member(stack.settings, name, group)
    until(lambda: two.read() or two.given, "partitions of the second", 30)
    with pytest.raises(Fenced, match="goes by the name one"):
        until(lambda: one.read() and False, "the first to be told", 30)
    write(stack, name, b"for the second")
    until(lambda: two.read() == [b"for the second"], "its record", 30)
