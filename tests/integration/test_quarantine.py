"""Quarantine topics on a real broker: counted, shown, and sent back once, whatever interrupts it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import Result

from headrace.batch import read_lineage
from headrace.errors import Fenced, UserError
from headrace.payloads import Reader
from headrace.quarantine import REPLAYED, Markers, Mend, held, replay, summary
from headrace.registry import Registry
from headrace.settings import Settings
from tests.integration.held import cli, encode, hold, read, write

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

Topic = Callable[..., str]
FLOW = """
flow: readings
description: Names its quarantine as it likes.
owner: tests
source: {{kafka: {{topic: {source}, schema: reading}}}}
steps:
  all: {{filter: {{where: "true"}}}}
sinks:
  {quarantine}: {{from: all, quarantine: {{}}}}
"""
GIVEN = "sensor_given: sensor is null"
SMALL = "level_small: 7 > 5"


@pytest.fixture
def topics(topic: Topic) -> tuple[str, str]:
    """A source topic with three partitions, and its quarantine."""
    source = topic("readings", 3, retention_ms=-1)
    return source, topic("readings.held", 2, retention_ms=-1)


def filled(settings: Settings, topics: tuple[str, str], n: int, reasons: list[list[str]] | None = None) -> int:
    """`n` readings without a sensor, in turn over the source's partitions, all of them held back. The source's size."""
    source, quarantine = topics
    values = encode(settings, source, [{"n": i, "sensor": None, "level": i} for i in range(n)])
    write(settings, source, values, partitions=3, headers=[("traceparent", b"00-ab-cd-01")])
    hold(settings, source, quarantine, reasons or [[GIVEN]])
    return n


def sent_back(settings: Settings, source: str) -> list[Any]:
    """The records of the source topic that a replay sent."""
    return [m for m in read(settings, source) if read_lineage(m.headers()) is not None]


def run(settings: Settings, *arguments: str) -> Result:
    return cli(settings, "quarantine", *arguments)


def test_summary(project: Settings, topics: tuple[str, str]) -> None:
    filled(project, topics, 9, [[GIVEN], [GIVEN, SMALL], [SMALL]])
    hold(project, topics[0], topics[1], [["corrupt: it ends early"]], step="source", now_ms=1_900_000_000_000)
    found = summary(project, topics[1], {(0, 0)})
    assert (found.records, found.replayed) == (18, 1)
    assert found.by_reason == {"sensor_given": 6, "level_small": 6, "corrupt": 9}
    assert found.by_step == {"check": 9, "source": 9}
    assert found.by_flow == {"readings": 18}
    assert (found.oldest, found.newest) == ("2027-01-15T08:00:00.000+00:00", "2030-03-17T17:46:40.000+00:00")


def test_mended_and_sent_back_to_where_it_came_from(project: Settings, topics: tuple[str, str]) -> None:
    source, quarantine = topics
    filled(project, topics, 12)
    done = replay(project, quarantine, Mend(where="n >= 6", sets={"sensor": "'s' || CAST(n AS VARCHAR)"}))
    assert (done.read, done.selected, done.already, sum(done.sent.values())) == (12, 6, 0, 6)
    back = sent_back(project, source)
    contents = Reader(Registry(project.registry_client()).schema).records([m.value() for m in back])
    for message, content in zip(back, contents, strict=True):
        assert isinstance(content, dict)
        n = content["n"]
        assert content == {"n": n, "sensor": f"s{n}", "level": n}
        assert message.partition() == n % 3, "the partition it came from"
        assert message.key() == str(n).encode()
        assert message.timestamp()[1] == 1_700_000_000_000 + n, "the time it happened"
        headers = dict(message.headers())
        assert headers["traceparent"] == b"00-ab-cd-01"
        assert json.loads(headers["headrace.replayed"])["set"] == {"sensor": "'s' || CAST(n AS VARCHAR)"}
        assert "headrace.reasons" not in headers
        at = read_lineage(message.headers())
        assert at is not None
        assert at.topic == quarantine
    assert sorted(c["n"] for c in contents if isinstance(c, dict)) == [6, 7, 8, 9, 10, 11]
    by_partition = [[read_lineage(m.headers()).offset_first for m in back if m.partition() == p]  # type: ignore[union-attr]
                    for p in range(3)]
    assert all(offsets for offsets in by_partition)


def test_order_within_a_key_is_kept(project: Settings, topics: tuple[str, str]) -> None:
    source, quarantine = topics
    values = encode(project, source, [{"n": i, "sensor": None, "level": 0} for i in range(40)])
    write(project, source, values, keys=[b"k"] * 40)
    hold(project, source, quarantine, [[GIVEN]])
    replay(project, quarantine, Mend(sets={"sensor": "'x'"}), batch_max=7)
    back = sent_back(project, source)
    contents = Reader(Registry(project.registry_client()).schema).records([m.value() for m in back])
    assert [c["n"] for c in contents if isinstance(c, dict)] == list(range(40))


def test_twice_is_once(project: Settings, topics: tuple[str, str]) -> None:
    source, quarantine = topics
    n = filled(project, topics, 30)
    assert sum(replay(project, quarantine, Mend(), batch_max=8).sent.values()) == n
    again = replay(project, quarantine, Mend(), batch_max=8)
    assert (again.already, sum(again.sent.values())) == (n, 0)
    assert len(sent_back(project, source)) == n
    assert len(Markers(project, quarantine).refresh()) == n


def test_dry_run_sends_nothing(project: Settings, topics: tuple[str, str]) -> None:
    source, quarantine = topics
    n = filled(project, topics, 5)
    would = replay(project, quarantine, Mend(sets={"level": "99"}), dry_run=True)
    assert sum(would.sent.values()) == n
    assert would.examples[0]["before"]["level"] != would.examples[0]["after"]["level"] == 99
    assert not sent_back(project, source)
    assert not Markers(project, quarantine).refresh()


def test_what_cannot_go_is_left_with_its_reason(project: Settings, topics: tuple[str, str]) -> None:
    """Unreadable, without a source, too large for the source topic: each is said, and the others go."""
    source, quarantine = topics
    values: list[bytes | None] = [*encode(project, source, [{"n": 1, "sensor": None, "level": 1}]), b"\0\0", None]
    large = encode(project, source, [{"n": 2, "sensor": "x" * 5_000, "level": 1}])
    write(project, source, [*values, *large])
    hold(project, source, quarantine, [[GIVEN]])
    write(project, quarantine, values[:1])
    admin = AdminClient(project.client())
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    narrow = ConfigEntry("max.message.bytes", "2000", incremental_operation=AlterConfigOpType.SET)
    for changed in admin.incremental_alter_configs(
            [ConfigResource(ResourceType.TOPIC, source, incremental_configs=[narrow])]).values():
        changed.result(60)
    done = replay(project, quarantine, Mend())
    assert done.skipped == {"truncated_header": 1, "null_value": 1, "oversized": 1, "no_source": 1}
    assert len(sent_back(project, source)) == sum(done.sent.values()) == 1
    raw = replay(project, quarantine, Mend(raw=True))
    assert (raw.already, sum(raw.sent.values())) == (1, 2)
    assert sorted(m.value() or b"" for m in sent_back(project, source))[:2] == [b"", b"\0\0"]


def test_a_topic_made_anew_has_new_records(project: Settings, topics: tuple[str, str], topic: Topic) -> None:
    """The markers of a deleted topic do not hold back the records of one with the same name."""
    source, quarantine = topics
    n = filled(project, topics, 4)
    replay(project, quarantine, Mend())
    admin = AdminClient(project.client())
    admin.delete_topics([quarantine])[quarantine].result(60)
    end = time.monotonic() + 60
    while quarantine in admin.list_topics(timeout=30).topics and time.monotonic() < end:
        time.sleep(0.1)
    admin.create_topics([NewTopic(quarantine, 2, 1, config={"retention.ms": "-1"})])[quarantine].result(60)
    hold(project, source, quarantine, [[GIVEN]])
    done = replay(project, quarantine, Mend())
    assert (done.already, sum(done.sent.values())) == (0, 2 * n), "the four first ones, and the four sent back"


def test_killed_at_any_moment_it_sends_each_once(project: Settings, topics: tuple[str, str]) -> None:
    source, quarantine = topics
    n = filled(project, topics, 600)
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    left_off: list[int] = []
    command = [sys.executable, "-m", "headrace", "quarantine", "replay", quarantine, "--batch", "20",
               "--set", "sensor='x'"]
    for _ in range(4):
        working = subprocess.Popen(command, cwd=project.project, text=True, stderr=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL)
        assert working.stderr is not None
        with working:
            working.stderr.readline()  # the first batch is done
            time.sleep(chance.uniform(0.0, 0.4))
            working.send_signal(signal.SIGKILL)
        left_off.append(len(Markers(project, quarantine).refresh()))
    assert left_off[-1] < n, f"no kill fell in mid-stream (seed {seed}): {left_off}"
    done = replay(project, quarantine, Mend(sets={"sensor": "'x'"}))
    assert 0 < done.already < n, f"seed {seed}: {left_off}"
    origins = Counter(str(read_lineage(m.headers())) for m in sent_back(project, source))
    assert len(origins) == n, f"seed {seed}: {n - len(origins)} lost"
    assert max(origins.values()) == 1, f"seed {seed}: doubled"


def test_two_at_once_send_each_once(project: Settings, topics: tuple[str, str]) -> None:
    """The later one takes over; the earlier one ends with an error that says so."""
    source, quarantine = topics
    n = filled(project, topics, 150)

    def one() -> str:
        try:
            replay(project, quarantine, Mend(), batch_max=10)
            return "done"
        except Fenced as error:
            return str(error)

    with ThreadPoolExecutor(2) as both:
        ends = [future.result() for future in [both.submit(one), both.submit(one)]]
    assert all("took over" in end for end in ends if end != "done"), ends
    replay(project, quarantine, Mend())
    origins = Counter(str(read_lineage(m.headers())) for m in sent_back(project, source))
    assert (len(origins), max(origins.values())) == (n, 1)


def transaction(settings: Settings, name: str, key: bytes, marker: bytes) -> Producer:
    """A marker in a transaction, at the broker and not yet decided."""
    producer = Producer(settings.client(transactional_id=f"headrace.replay.{name}"))
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(REPLAYED, marker, key)
    producer.flush(60)
    return producer


def test_markers_behind_an_open_transaction_are_waited_for(project: Settings, topics: tuple[str, str]) -> None:
    """Another topic's replay, in the middle of its transaction, must not hide what ours sent."""
    source, quarantine = topics
    n = filled(project, topics, 5)
    replay(project, quarantine, Mend(where="n = 99"))  # sends nothing; the markers' topic is there now
    first = read(project, quarantine)[0]
    other = transaction(project, f"another.{quarantine}", b"another/0@0", b"{}")
    transaction(project, quarantine, *Markers(project, quarantine).marker(first.partition(), first.offset())
                ).commit_transaction(20)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(replay, project, quarantine, Mend())
        wait([waiting], timeout=4)
        assert not waiting.done()
        other.abort_transaction(20)
        done = waiting.result()
    assert (done.already, len(sent_back(project, source))) == (1, n - 1)


def test_unknown_topic(project: Settings) -> None:
    with pytest.raises(UserError, match="there is no topic nowhere"):
        replay(project, "nowhere", Mend())


def test_commands(project: Settings, topics: tuple[str, str]) -> None:
    source, quarantine = topics
    filled(project, topics, 6, [[GIVEN], [SMALL]])
    (project.project / "flows/readings.yaml").write_text(FLOW.format(source=source, quarantine=quarantine))
    listed = json.loads(run(project, "list", "--json").stdout)["topics"]
    assert listed[quarantine]["by_reason"] == {"sensor_given": 3, "level_small": 3}
    shown = [json.loads(line) for line in run(project, "show", quarantine, "--reason", "level_small", "--json",
                                              "-n", "2").stdout.splitlines()]
    assert [s["reasons"] for s in shown] == [[SMALL], [SMALL]]
    assert shown[0]["record"]["sensor"] is None
    one = run(project, "show", quarantine, "--offset", shown[0]["at"].rpartition("/")[2])
    assert shown[0]["at"] in one.stdout
    assert SMALL in one.stdout
    sent = json.loads(run(project, "replay", quarantine, "--reason", "level_small", "--set", "level = 1", "--set",
                          "sensor='a=b'", "--json").stdout)
    assert (sent["sent"], sent["already"]) == (3, 0)
    told = run(project, "replay", quarantine)
    assert told.exit_code == 0, told.output
    assert f"3 sent to {source}" in told.stdout
    assert "3 were sent before" in told.stdout
    wrong = run(project, "show", f"{quarantine}x")
    assert isinstance(wrong.exception, UserError)
    assert "did you mean" in str(wrong.exception)
    assert len(sent_back(project, source)) == 6
    assert {read_lineage(m.headers()).topic for m in sent_back(project, source)} == {quarantine}  # type: ignore[union-attr]


def test_a_record_that_is_none_of_ours(project: Settings, topics: tuple[str, str]) -> None:
    """Somebody wrote to the quarantine by hand: no headers, or broken ones."""
    quarantine = topics[1]
    write(project, quarantine, [b"x"], headers=[("headrace.reasons", b"not json"), ("headrace.src", b"short")])
    record = held(read(project, quarantine)[0])
    assert (record.source, record.flow, record.reasons, record.ids) == (None, None, ("not json",), ["not json"])
