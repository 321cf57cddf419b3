"""Sinks on the real broker: exactly once over kills and rebalances, outages waited out, bad records told and kept."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.connect import offsets
from headrace.connect.sink_group import Group
from headrace.errors import UserError
from headrace.settings import Settings
from tests.integration.connectkit import Watched, calls, made, produce, project_with_ledger, rows, until
from tests.integration.held import read

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

JSON = {"value__converter": "json", "value__converter__schemas__enable": "false"}


def lines(numbers: range | list[int]) -> list[bytes | None]:
    return [json.dumps({"n": n}).encode() for n in numbers]


def numbers(settings: Settings) -> list[int]:
    return [value["n"] for _, _, _, _, value, _ in rows(settings)]


def there(settings: Settings, least: int) -> bool:
    return len(numbers(settings)) >= least


def keys(topic: str, **more: str) -> dict[str, str]:
    return {"name": f"sink-{topic}", "connector__class": "ledger", "topics": topic, "ledger": "ledger.db", **JSON,
            **more}


def test_what_a_topic_holds_arrives_once_with_key_headers_and_offsets(project: Settings,
                                                                      topic: Callable[..., str]) -> None:
    name = topic(partitions=2)
    project_with_ledger(project)
    spec = made(project, **keys(name, tasks__max="1"))
    produce(project, name, lines(range(3)), keys=[b"a", b"b", b"c"], headers=[("h", b"7")], partition=1)
    first = Watched(spec, project, drain=True)
    first.task.start()
    first.expect("ENDED")
    assert first.task.join(10)
    assert [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in rows(project)] == [
        (name, 1, n, key, {"n": n}, [["h", 7]]) for n, key in enumerate("abc")]
    assert first.states == ["RUNNING", "ENDED"]
    assert first.task.done.records == 3
    assert first.task.done.topics == {name}
    produce(project, name, lines([3]), partition=0)
    second = Watched(spec, project, drain=True)
    second.task.start()
    second.expect("ENDED")
    assert second.task.join(10)
    assert sorted(numbers(project)) == [0, 1, 2, 3]
    assert offsets.listed(spec, project) == [
        {"partition": {"kafka_topic": name, "kafka_partition": 0}, "offset": {"kafka_offset": 1}},
        {"partition": {"kafka_topic": name, "kafka_partition": 1}, "offset": {"kafka_offset": 3}}]


def test_an_outage_is_waited_out_without_leaving_the_group(project: Settings, topic: Callable[..., str]) -> None:
    name = topic()
    folder = project_with_ledger(project)
    (folder / "down").touch()
    produce(project, name, lines(range(5000)))
    watched = Watched(made(project, **keys(
        name, batch__records="100", consumer__override__max__poll__interval__ms="6000",
        consumer__override__session__timeout__ms="6000", consumer__override__heartbeat__interval__ms="500",
        errors__retry__delay__max__ms="1500")), project)
    watched.task.start()
    until(lambda: (folder / "ledger.db").exists() and len(calls(project, "put")) >= 4)
    time.sleep(8)  # longer than max.poll.interval.ms
    (folder / "down").unlink()
    until(lambda: len(numbers(project)) >= 5000)
    watched.end()
    assert watched.states == ["RUNNING"]
    assert numbers(project) == list(range(5000))
    assert len(calls(project, "open")) == 1, "it lost its place in the group"
    at = calls(project, "put")
    first, second, third = (b - a for a, b in pairwise(at[:4]))
    assert 0.3 <= first < 0.6 <= second < 1.2 <= third, "the delays begin at 300 ms, and double"


def test_pause_resume_and_stop(project: Settings, topic: Callable[..., str]) -> None:
    name = topic()
    project_with_ledger(project)
    watched = Watched(made(project, **keys(name)), project)
    watched.task.pause()
    watched.task.start()
    watched.expect("PAUSED")
    produce(project, name, lines([1]))
    time.sleep(2)
    assert numbers(project) == []
    watched.task.resume()
    watched.expect("RUNNING")
    until(lambda: numbers(project) == [1])
    watched.task.pause()
    watched.expect("PAUSED")
    produce(project, name, lines([2]))
    time.sleep(2)
    assert numbers(project) == [1]
    watched.task.resume()
    until(lambda: numbers(project) == [1, 2])
    watched.end()
    assert watched.states == ["PAUSED", "RUNNING", "PAUSED", "RUNNING"]


def test_poison_goes_to_the_dead_letters_with_kafka_connects_headers(project: Settings,
                                                                     topic: Callable[..., str]) -> None:
    name = topic()
    dead = f"{name}.dead"
    project_with_ledger(project)
    watched = Watched(made(project, **keys(
        name, poison="2", errors__tolerance="all", errors__deadletterqueue__topic__name=dead,
        transforms="when", transforms__when__type="TimestampConverter$Value", transforms__when__field="at",
        transforms__when__target__type="Timestamp", transforms__when__format="yyyy-MM-dd")), project, drain=True)
    payloads = [b'{"n": 0, "at": "2013-01-01"}', b"{oops", b'{"n": 2, "at": "2013-01-01"}', b'{"n": 3, "at": "soon"}',
                b'{"n": 4, "at": "2013-01-02"}']
    produce(project, name, list(payloads), keys=[b"k"] * 5, headers=[("mine", b"1")], timestamp=1_700_000_000_000)
    watched.task.start()
    watched.expect("ENDED")
    assert numbers(project) == [0, 4]
    found = read(project, dead)
    assert sorted(m.value() for m in found) == sorted(payloads[n] for n in (1, 2, 3))
    by_offset = {dict(m.headers())["__connect.errors.offset"]: m for m in found}
    stages = {b"1": (b"VALUE_CONVERTER", b"org.apache.kafka.connect.json.JsonConverter"),
              b"2": (b"TASK_PUT", b"headrace.connectors.ledger.LedgerSink"),
              b"3": (b"TRANSFORMATION", b"org.apache.kafka.connect.transforms.TimestampConverter$Value")}
    for offset, (stage, by) in stages.items():
        message = by_offset[offset]
        headers = dict(message.headers())
        assert list(headers) == ["mine", *(f"__connect.errors.{one}" for one in (
            "topic", "partition", "offset", "connector.name", "task.id", "stage", "class.name", "exception.class.name",
            "exception.message", "exception.stacktrace"))]
        assert (message.key(), message.timestamp()[1], headers["mine"]) == (b"k", 1_700_000_000_000, b"1")
        assert headers["__connect.errors.topic"] == name.encode()
        assert headers["__connect.errors.partition"] == b"0"
        assert headers["__connect.errors.connector.name"] == f"sink-{name}".encode()
        assert headers["__connect.errors.task.id"] == b"0"
        assert headers["__connect.errors.stage"] == stage
        assert headers["__connect.errors.class.name"] == by
        assert headers["__connect.errors.exception.message"]
    assert watched.task.done.rejected == 3


def test_without_tolerance_nothing_of_the_batch_is_put(project: Settings, topic: Callable[..., str]) -> None:
    name = topic()
    project_with_ledger(project)
    produce(project, name, [*lines([0]), b"{oops"])
    watched = Watched(made(project, **keys(name)), project)
    watched.task.start()
    watched.task.join(60)
    assert watched.states == ["RUNNING", "FAILED"]
    assert f"{name}/0@1" in str(watched.trace)
    assert numbers(project) == []


def test_two_tasks_share_the_partitions_and_a_lost_one_is_replaced(project: Settings,
                                                                   topic: Callable[..., str]) -> None:
    name = topic(partitions=4)
    project_with_ledger(project)
    spec = made(project, **keys(name, tasks__max="2", slow_s="0.05", batch__records="50"))
    first, second = Watched(spec, project, 0), Watched(spec, project, 1)
    first.task.start()
    total = 0
    for moment in range(8):
        for partition in range(4):
            produce(project, name, lines(range(total, total + 100)), partition=partition)
            total += 100
        if moment == 2:
            second.task.start()
        if moment == 5:
            first.end()
    until(lambda: len(numbers(project)) >= total, 120)
    second.end()
    assert Counter(numbers(project)) == Counter(range(total))
    assert first.states == second.states == ["RUNNING"]
    assert first.task.done.records > 0
    assert second.task.done.records > 0


def test_kill_9_neither_loses_nor_doubles(project: Settings, topic: Callable[..., str]) -> None:
    name = topic(partitions=2)
    folder = project_with_ledger(project)
    for partition in range(2):
        produce(project, name, lines(range(partition * 3000, partition * 3000 + 3000)), partition=partition)
    file = folder / "connectors/sink.json"

    def write(slow_s: str) -> None:
        file.write_text(json.dumps({key.replace("__", "."): value for key, value in keys(
            name, batch__records="100", slow_s=slow_s, consumer__override__session__timeout__ms="6000").items()}))

    write("0.4")  # 24 s of work, so that it is killed in the midst of it
    words = [sys.executable, "-m", "headrace", "connect", str(file), "--drain", "--json"]
    for _ in range(4):
        enough = len(numbers(project)) + 300
        process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until(partial(there, project, enough))
        process.kill()
        process.communicate()
    assert len(numbers(project)) < 6000, "it was done before the last kill: the test proves nothing"
    write("0")  # now as fast as it goes
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert Counter(numbers(project)) == Counter(range(6000))


def test_offsets_are_altered_and_reset_on_both_sides(project: Settings, topic: Callable[..., str]) -> None:
    name = topic()
    project_with_ledger(project)
    spec = made(project, **keys(name))
    produce(project, name, lines(range(10)))

    def run() -> int:
        watched = Watched(spec, project, drain=True)
        watched.task.start()
        watched.expect("ENDED")
        assert watched.task.join(30)
        return watched.task.done.records

    assert run() == 10
    where = {"kafka_topic": name, "kafka_partition": 0}
    offsets.alter(spec, project, [(where, {"kafka_offset": 7})])
    assert offsets.listed(spec, project) == [{"partition": where, "offset": {"kafka_offset": 7}}]
    assert run() == 3
    offsets.reset(spec, project)
    assert offsets.listed(spec, project) == []
    assert run() == 10
    with pytest.raises(UserError, match="whole number"):
        offsets.alter(spec, project, [({"kafka_topic": name, "kafka_partition": "x"}, None)])
    watched = Watched(spec, project)
    watched.task.start()
    watched.expect("RUNNING")
    until(lambda: len(calls(project, "open")) == 4)
    with pytest.raises(UserError, match="is alive"):
        offsets.alter(spec, project, [(where, None)])
    watched.end()


def test_what_retention_took_is_passed_over_and_the_rest_arrives(project: Settings, topic: Callable[..., str],
                                                                 caplog: pytest.LogCaptureFixture) -> None:
    name = topic(partitions=2)
    project_with_ledger(project)
    spec, admin = made(project, **keys(name, tasks__max="1")), AdminClient(project.client())
    for numbered, deleted in ((range(10), 0), (range(10, 20), 15)):
        for partition in (0, 1):
            produce(project, name, lines(numbered), partition=partition)
        if deleted:
            next(iter(admin.delete_records([TopicPartition(name, 0, deleted)]).values())).result(60)
        watched = Watched(spec, project, drain=True)
        watched.task.start()
        watched.expect("ENDED")
        assert watched.task.join(10)
    assert sorted((row[1], row[2]) for row in rows(project)) == [
        *((0, n) for n in range(20) if not 10 <= n < 15), *((1, n) for n in range(20))]
    [told] = [record for record in caplog.records if record.message == "records are gone that were not read"]
    assert (told.partition, told.wanted, told.read) == (0, 10, 15)  # type: ignore[attr-defined]


def test_who_lost_the_partitions_has_not_read_them_to_the_end(project: Settings, topic: Callable[..., str]) -> None:
    name = topic()
    project_with_ledger(project)
    group = Group(made(project, **keys(name)), project, 0, assigned=lambda places: None,
                  revoked=lambda places, lost: None)
    group.join()
    assert not group.drained, "it does not know yet what is its"
    group._on_assign(group.consumer, [])
    assert group.drained, "nothing is"
    group._on_assign(group.consumer, [TopicPartition(name, 0)])
    assert not group.drained
    group._on_lost(group.consumer, [TopicPartition(name, 0)])
    assert not group.drained
    group.leave()


def test_topics_by_a_pattern_those_that_come_later_too(project: Settings, topic: Callable[..., str],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.connect.sink_group.LOOK_S", 0.5)
    one = topic()
    project_with_ledger(project)
    own = {key: value for key, value in keys(one).items() if key != "topics"}
    watched = Watched(made(project, **own, topics__regex=rf"{one}.*"), project)
    watched.task.start()
    produce(project, one, lines([1]))
    until(lambda: numbers(project) == [1])
    from headrace.topics import TopicPlan, ensure

    ensure(project, [TopicPlan(f"{one}.later", 1)])
    produce(project, f"{one}.later", lines([2]))
    until(lambda: sorted(numbers(project)) == [1, 2])
    watched.end()
    assert watched.states == ["RUNNING"]
