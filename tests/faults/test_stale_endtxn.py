"""An EndTxn that comes late: held by a proxy, its connection cut, delivered while the next transaction is open.

What it did to a worker without the fence (docs/decisions/0005-the-fence.md) is shown first; then that the fence holds.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from headrace.batch import Outgoing
from headrace.checkpoint import Transactions
from headrace.settings import Settings
from headrace.testing.proxy import Api, Proxy
from tests.conftest import Stack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

CASES, CASES_SHORT = 50, 15
QUICK = {"reconnect.backoff.ms": 1, "reconnect.backoff.max.ms": 20}  # a commit that is cut returns within milliseconds
INVALID_PRODUCER_EPOCH, PRODUCER_FENCED = 47, 90
PARTITIONS = 2


class NoFence(Transactions):
    """The fence is off: whatever the connections went through, the producer is kept."""

    def _fence(self) -> None:
        return None


class StaleStatistics(Transactions):
    """The fence asks the statistics it has, which may be older than the last commit's return."""

    def _fence(self) -> None:
        self._returned_us = 0.0
        super()._fence()


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one late EndTxn: how long the commit (or abort) took whose connection was cut, how many new
    producers there were, the broker's answer when it came late, 0 where it was obeyed."""

    returned_s: float
    reopened: int
    late: int


class Bench:
    """Transactions through a proxy, into a topic of two partitions, in the name of a group member that is no more."""

    def __init__(self, settings: Settings, proxy: Proxy, topic: str) -> None:
        self.settings = replace(settings, bootstrap=proxy.bootstrap, kafka={**settings.kafka, **QUICK})
        self.direct, self.proxy, self.topic = settings, proxy, topic
        self.numbers = itertools.count()
        self.former = former_member(settings, topic)

    def part(self, what: str, partition: int = 0) -> Outgoing:
        return Outgoing(self.topic, [what.encode()], [None], [0], [[]], partition)

    def transactions(self, kind: type[Transactions], **more: Any) -> Transactions:
        made = kind(self.settings, f"{self.topic}-{next(self.numbers)}", deadline_s=30, topics=[self.topic], **more)
        made.open()
        return made

    def abort(self, transactions: Transactions) -> None:
        """End a transaction as a zombie's ends: the broker refuses its offsets."""
        offsets = [TopicPartition(self.topic, 0, 1)]
        assert not transactions.commit(None, offsets, self.former, lambda: False)

    def late_commit(self, kind: type[Transactions], **more: Any) -> Trial:
        """The commit of a first transaction comes again in the midst of a second one, which is then aborted."""
        transactions = self.transactions(kind, **more)
        held = self.proxy.hold(Api.END_TXN, transactional_id=transactions.id, times=1, cut=True)
        fault = transactions.produce([self.part("committed")])
        transactions.producer.flush(60)
        begun = time.monotonic()
        assert transactions.commit(fault, [], None, undecided)
        returned_s = time.monotonic() - begun
        assert held.done == 1
        assert transactions.produce([self.part("aborted")]) is None
        transactions.producer.flush(60)
        late = held.release()
        self.abort(transactions)
        return Trial(returned_s, transactions.reopened, error_of(late))

    def late_abort(self, kind: type[Transactions], **more: Any) -> Trial:
        """The abort of a first transaction comes again in the midst of a second one, which is then committed: all of
        it is read, or nothing."""
        transactions = self.transactions(kind, **more)
        assert transactions.produce([self.part("aborted")]) is None
        transactions.producer.flush(60)
        held = self.proxy.hold(Api.END_TXN, transactional_id=transactions.id, times=1, cut=True)
        begun = time.monotonic()
        self.abort(transactions)
        returned_s = time.monotonic() - begun
        assert held.done == 1
        assert transactions.produce([self.part("first half")]) is None
        transactions.producer.flush(60)
        late = held.release()
        transactions.producer.produce(self.topic, b"second half", partition=1)
        transactions.commit(None, [], None, lambda: False)
        return Trial(returned_s, transactions.reopened, error_of(late))

    def late_offsets(self, kind: type[Transactions]) -> int:
        """The offsets of a first transaction come again in a second one, after its own. What is committed then."""
        transactions = self.transactions(kind)
        held = self.proxy.hold(Api.TXN_OFFSET_COMMIT, transactional_id=transactions.id, times=1, cut=True)
        with member(self.direct, self.topic) as consumer:
            for offset in (10, 20):
                assert transactions.produce([self.part("committed")]) is None
                offsets = [TopicPartition(self.topic, 0, offset)]
                transactions.producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 20)
                if offset == 20:
                    assert held.done == 1
                    held.release()
                assert transactions.commit(None, [], None, undecided)
            [found] = consumer.committed([TopicPartition(self.topic, 0)], timeout=60)
        return int(found.offset)

    def readable(self) -> Counter[str]:
        """What a read_committed reader finds, by value."""
        reader = Consumer(self.direct.client(group_id="reader", enable_auto_commit=False, enable_partition_eof=True,
                                             isolation_level="read_committed"))
        reader.assign([TopicPartition(self.topic, partition, 0) for partition in range(PARTITIONS)])
        found: Counter[str] = Counter()
        ended = 0
        while ended < PARTITIONS:
            for message in reader.consume(10_000, 1.0):
                if message.error():
                    ended += 1
                else:
                    found[message.value().decode()] += 1
        reader.close()
        return found


@contextmanager
def member(settings: Settings, topic: str) -> Iterator[Consumer]:
    """A consumer in a group, with partitions."""
    consumer = Consumer(settings.client(group_id=f"{topic}-group"))
    consumer.subscribe([topic])
    end = time.monotonic() + 60
    while not consumer.assignment():
        consumer.poll(0.1)
        assert time.monotonic() < end, "the consumer was given nothing"
    yield consumer
    consumer.close()


def former_member(settings: Settings, topic: str) -> Any:
    """The group metadata of a consumer that has left: offsets in its name are refused."""
    with member(settings, topic) as consumer:
        return consumer.consumer_group_metadata()


def undecided() -> bool:
    raise AssertionError("the outcome of a commit was unknown")


def error_of(answers: list[bytes]) -> int:
    """Of the one answer to EndTxn: four bytes of throttle time, then the error."""
    [answer] = answers
    return int.from_bytes(answer[4:6], "big", signed=True)


@pytest.fixture
def bench(stack: Stack, topic: Callable[..., str]) -> Iterator[Bench]:
    with Proxy(stack.bootstrap) as proxy:
        yield Bench(stack.settings, proxy, topic("late", PARTITIONS))


def told(trials: list[Trial]) -> str:
    quick = sum(trial.returned_s < 0.01 for trial in trials)
    return (f"{len(trials)} late EndTxn; returned in under 10 ms: {quick}, slowest "
            f"{max(trial.returned_s for trial in trials) * 1e3:.0f} ms; answers {Counter(t.late for t in trials)}")


@pytest.mark.parametrize(("kind", "statistics_ms"), [(NoFence, 10), (StaleStatistics, 2_000)])
def test_the_hazard(bench: Bench, kind: type[Transactions], statistics_ms: int) -> None:
    """Without the fence, or with statistics from before the commit: the record that was aborted is read."""
    trial = bench.late_commit(kind, statistics_ms=statistics_ms)
    print(told([trial]))
    assert trial.late == 0
    assert trial.reopened == 0
    assert bench.readable() == {"committed": 1, "aborted": 1}


def test_the_fence(bench: Bench, request: pytest.FixtureRequest) -> None:
    """Every late EndTxn is refused, and nothing that was aborted is read."""
    count = CASES if request.config.getoption("--faults") == "full" else CASES_SHORT
    trials = [bench.late_commit(Transactions, statistics_ms=10 if n else 1_000) for n in range(count)]
    print(told(trials))
    assert bench.readable() == {"committed": count}
    assert {trial.late for trial in trials} <= {INVALID_PRODUCER_EPOCH, PRODUCER_FENCED}
    assert {trial.reopened for trial in trials} == {1}


def test_a_late_abort_tears_nothing(bench: Bench) -> None:
    trials = [bench.late_abort(Transactions) for _ in range(5)]
    print(told(trials))
    assert bench.readable() == {"first half": 5, "second half": 5}
    assert {trial.late for trial in trials} <= {INVALID_PRODUCER_EPOCH, PRODUCER_FENCED}


def test_without_the_fence_a_late_abort_tears(bench: Bench) -> None:
    trial = bench.late_abort(NoFence)
    print(told([trial]))
    assert bench.readable()["first half"] == 0


def test_late_offsets_without_the_fence_go_back(bench: Bench) -> None:
    assert bench.late_offsets(NoFence) == 10


def test_late_offsets_are_refused(bench: Bench) -> None:
    assert [bench.late_offsets(Transactions) for _ in range(3)] == [20] * 3
