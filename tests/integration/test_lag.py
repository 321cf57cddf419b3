"""Lag against Kafka's own tool, and where the tool says less: open transactions, markers, retention, age."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.errors import UserError
from headrace.lag import PartitionLag, measure
from headrace.settings import Settings
from headrace.stack.tools import kafka_tool
from tests.integration.held import cli

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

Topic = Callable[..., str]


@pytest.fixture
def group(project: Settings) -> Iterator[str]:
    """The name of a group of one's own, deleted at the end."""
    name = f"lag-{uuid.uuid4().hex[:8]}"
    yield name
    admin = AdminClient(project.client())
    admin.delete_consumer_groups([name])[name].exception(10)


def commit(settings: Settings, group: str, topic: str, offsets: dict[int, int]) -> None:
    consumer = Consumer(settings.client(group_id=group, enable_auto_commit=False))
    consumer.commit(offsets=[TopicPartition(topic, p, at) for p, at in offsets.items()], asynchronous=False)
    consumer.close()


def write(settings: Settings, topic: str, partition: int, n: int, timestamp_ms: int = 0) -> None:
    producer = Producer(settings.client(enable_idempotence=True))
    for i in range(n):
        producer.produce(topic, str(i).encode(), partition=partition, timestamp=timestamp_ms)
    assert producer.flush(60) == 0


def transactional(settings: Settings, topic: str, n: int) -> Producer:
    """A producer with `n` records in an open transaction, all of them at the broker."""
    producer = Producer(settings.client(transactional_id=f"lag.{uuid.uuid4().hex}"))
    producer.init_transactions(30)
    producer.begin_transaction()
    for i in range(n):
        producer.produce(topic, str(i).encode(), partition=0)
    producer.flush(60)
    return producer


def tool(settings: Settings, group: str) -> dict[tuple[str, int], tuple[int, int, int]]:
    """What kafka-consumer-groups says: partition → (committed, end, lag)."""
    told = kafka_tool("kafka-consumer-groups", ["--describe", "--group", group], settings=settings)
    rows = [line.split() for line in told.splitlines()]
    return {(row[1], int(row[2])): (int(row[3]), int(row[4]), int(row[5]))
            for row in rows if row[:1] == [group] and row[3].isdigit()}


def only(settings: Settings, group: str, topic: str, partition: int = 0) -> PartitionLag:
    return measure(settings, [group])[group].partitions[(topic, partition)]


def test_agrees_with_kafkas_tool(project: Settings, topic: Topic, group: str) -> None:
    """Several topics and partitions, some read to the end, one with transactions long over."""
    plain, other, transacted = topic("plain", 3), topic("other", 1), topic("transacted", 1)
    for partition, n in enumerate((50, 7, 0)):
        write(project, plain, partition, n)
    write(project, other, 0, 5)
    transactional(project, transacted, 4).commit_transaction(20)
    transactional(project, transacted, 4).abort_transaction(20)
    commit(project, group, plain, {0: 20, 1: 7, 2: 0})
    commit(project, group, other, {0: 0})
    commit(project, group, transacted, {0: 1})
    ours = measure(project, [group])[group]
    theirs = tool(project, group)
    assert len(theirs) == 5
    assert {at: (p.committed, p.end, p.lag) for at, p in ours.partitions.items()} == theirs
    assert ours.lag == sum(lag for _, _, lag in theirs.values()) == 30 + 5 + 9
    assert ours.state == "empty"


def test_age_is_that_of_the_first_unread_record(project: Settings, topic: Topic, group: str) -> None:
    source = topic("aged", 2)
    now_ms = int(time.time() * 1e3)
    write(project, source, 0, 3, now_ms - 600_000)
    write(project, source, 0, 3, now_ms - 60_000)
    commit(project, group, source, {0: 3, 1: 0})
    assert only(project, group, source).lag_s == pytest.approx(60, abs=10)
    assert only(project, group, source, 1).lag_s == 0.0, "nothing to read is no delay"
    commit(project, group, source, {0: 2})
    assert only(project, group, source).lag_s == pytest.approx(600, abs=10)
    commit(project, group, source, {0: 6})
    assert measure(project, [group])[group].lag_s == 0.0


def test_open_transaction_is_said_and_not_counted(project: Settings, topic: Topic, group: str) -> None:
    source = topic("open")
    write(project, source, 0, 10)
    commit(project, group, source, {0: 4})
    producer = transactional(project, source, 5)
    found = only(project, group, source)
    assert (found.lag, found.end, found.open) == (6, 10, 5)
    producer.commit_transaction(20)
    found = only(project, group, source)
    assert (found.lag, found.open) == (12, 0), "5 records and the marker"


def test_markers_and_aborted_records_are_told_from_records(project: Settings, topic: Topic, group: str) -> None:
    source = topic("aborted")
    transactional(project, source, 5).abort_transaction(20)
    commit(project, group, source, {0: 0})
    found = only(project, group, source)
    assert (found.lag, found.markers, found.lag_s) == (6, 6, 0.0), "five aborted, a marker, and nobody is late"
    write(project, source, 0, 2)
    found = only(project, group, source)
    assert (found.lag, found.markers) == (8, 6)


def test_what_retention_deleted_is_no_lag(project: Settings, topic: Topic, group: str) -> None:
    source = topic("deleted")
    write(project, source, 0, 20)
    commit(project, group, source, {0: 5})
    admin = AdminClient(project.client())
    for done in admin.delete_records([TopicPartition(source, 0, 15)]).values():
        done.result(60)
    found = only(project, group, source)
    assert (found.start, found.committed, found.lag) == (15, 5, 5)


def test_a_partition_without_a_commit_is_not_known(project: Settings, topic: Topic, group: str) -> None:
    source = topic("partial", 2)
    write(project, source, 1, 9)
    commit(project, group, source, {0: 0})
    found = measure(project, [group])[group]
    assert found.partitions[(source, 1)].lag is None
    assert found.lag == 0


def test_a_deleted_topic_leaves_the_others(project: Settings, topic: Topic, group: str) -> None:
    kept, gone = topic("kept"), topic("gone")
    write(project, kept, 0, 3)
    commit(project, group, kept, {0: 1})
    commit(project, group, gone, {0: 0})
    admin = AdminClient(project.client())
    admin.delete_topics([gone])[gone].result(60)

    def lags() -> dict[tuple[str, int], int | None]:
        return {at: p.lag for at, p in measure(project, [group])[group].partitions.items()}

    end = time.monotonic() + 60
    while (gone, 0) in (found := lags()) and time.monotonic() < end:  # the group hears of it a moment later
        assert found[(gone, 0)] is None, "a lag in a topic that is deleted"
    assert found == {(kept, 0): 2}


def test_known_first_records_are_not_read_again(project: Settings, topic: Topic, group: str) -> None:
    source = topic("known")
    write(project, source, 0, 3, 1_000_000)
    commit(project, group, source, {0: 1})
    known: dict[tuple[str, int, int], tuple[int, int]] = {}
    measure(project, [group], known=known)
    assert known == {(source, 0, 1): (1, 1_000_000)}
    known[(source, 0, 1)] = (1, 4_000)
    again = measure(project, [group], known=known, now_ms=lambda: 10_000)
    assert again[group].lag_s == 6.0, "the age was not taken from what was known"
    commit(project, group, source, {0: 3})
    measure(project, [group], known=known)
    assert known == {}, "positions nobody stands at are forgotten"


def test_command(project: Settings, topic: Topic, group: str) -> None:
    source = topic("command", 2)
    write(project, source, 1, 1234)
    commit(project, group, source, {0: 0, 1: 0})
    done = cli(project, "lag", group, "--json")
    document = json.loads(done.stdout)
    assert document["groups"][group]["lag"] == 1234
    assert document["groups"][group]["topics"][source]["1"]["lag"] == 1234
    assert group in json.loads(cli(project, "lag", "--json").stdout)["groups"], "all groups, when none is named"
    drawn = cli(project, "lag", group)
    assert "1,234" in drawn.stdout
    wrong = cli(project, "lag", f"{group}x")
    assert isinstance(wrong.exception, UserError)
    assert f"did you mean “{group}”" in str(wrong.exception)


def test_unknown_group(project: Settings) -> None:
    with pytest.raises(UserError, match="no consumer group"):
        measure(project, [f"nobody-{uuid.uuid4().hex}"])


def test_watch_until_interrupted(project: Settings, topic: Topic, group: str) -> None:
    """Each line is a measurement; the trend comes with the second."""
    source = topic("watched")
    write(project, source, 0, 100)
    commit(project, group, source, {0: 0})
    command = [sys.executable, "-m", "headrace", "lag", group, "--watch", "--interval", "0.3", "--json"]
    watching = subprocess.Popen(command, cwd=project.project, text=True, stdout=subprocess.PIPE, env=dict(os.environ))
    assert watching.stdout is not None
    with watching:
        first = json.loads(watching.stdout.readline())["groups"][group]
        commit(project, group, source, {0: 60})
        while (later := json.loads(watching.stdout.readline())["groups"][group])["lag"] == 100:
            pass
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 0
    assert "trend" not in first
    assert (later["lag"], later["trend"]) == (40, "shrinking")
    assert later["eta_s"] > 0
