"""From an output up to its origin, on a real flow; and a flow's lag, which ends at 0."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import Result

from headrace.batch import SOURCE_HEADER, TAGS_HEADER, Span
from headrace.errors import UserError
from headrace.lag import measure
from headrace.quarantine import Mend, replay
from headrace.settings import Settings
from headrace.trace import HOPS_MAX, trace
from tests.integration.held import SCHEMA, cli, encode, read, write

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

Topic = Callable[..., str]
NOW_MS = int(time.time() * 1e3)
SUITE = {"name": "reading", "expectations": [
    {"id": "sensor_given", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "sensor"}},
    {"id": "level_low", "severity": "warning", "type": "expect_column_values_to_be_between",
     "kwargs": {"column": "level", "max_value": 4}}]}
FLOW = """
flow: {name}
description: Readings, checked.
owner: tests
source: {{kafka: {{topic: {source}, schema: reading}}}}
steps:
  check: {{validate: {{suite: reading}}}}
  enrich: {{derive: {{twice: "n * 2"}}}}
sinks:
  {source}.checked: {{from: enrich, kafka: {{}}}}
  {source}.quarantine: {{from: check.failure, quarantine: {{retention_ms: -1}}}}
"""


def named(source: str) -> str:
    """The flow's name: one of its own for each test."""
    return source.replace(".", "-")


def drain(settings: Settings, source: str) -> None:
    """Runs the flow over what is there."""
    project = settings.project
    (project / "schemas/reading.avsc").write_text(SCHEMA.text)
    (project / "schemas/reading.expectations.json").write_text(json.dumps(SUITE))
    (project / "flows/readings.yaml").write_text(FLOW.format(source=source, name=named(source)))
    done = subprocess.run([sys.executable, "-m", "headrace", "run", "readings", "--drain"], cwd=project, text=True,
                          capture_output=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr


def delete(settings: Settings, *topics: str) -> None:
    admin = AdminClient(settings.client())
    for done in admin.delete_topics(list(topics)).values():
        done.exception(20)


def test_through_quarantine_and_replay_to_the_origin(project: Settings, topic: Topic) -> None:
    """An output of a mended record leads to the record sent back, to the one held, and to the first one of all."""
    source = topic("readings", 2, retention_ms=-1)
    write(project, source, encode(project, source, [{"n": i, "sensor": None if i == 3 else "s", "level": i}
                                                    for i in range(6)]), partitions=2)
    group = f"headrace.{named(source)}"
    drain(project, source)
    assert measure(project, [group])[group].lag == 0, "drained, transactions and all"
    assert replay(project, f"{source}.quarantine", Mend(sets={"sensor": "'mended'"})).sent == {source: 1}
    assert measure(project, [group])[group].lag > 0
    drain(project, source)
    assert measure(project, [group])[group].lag == 0
    checked = read(project, f"{source}.checked")
    output = next(m for m in checked if m.key() == b"3")
    assert {m.key(): dict(m.headers()).get(TAGS_HEADER) for m in checked} == {
        **dict.fromkeys([b"0", b"1", b"2", b"3", b"4"]), b"5": b"level_low"}
    tagged = next(m for m in checked if m.key() == b"5")
    assert trace(project, (f"{source}.checked", tagged.partition(), tagged.offset()))[0].facts == {"tags": "level_low"}

    hops = trace(project, (f"{source}.checked", output.partition(), output.offset()))
    assert [hop.at.topic for hop in hops] == [f"{source}.checked", source, f"{source}.quarantine", source]
    first, sent_back, held, origin = hops
    assert first.record == {"n": 3, "sensor": "mended", "level": 3, "twice": 6}
    assert sent_back.record == {"n": 3, "sensor": "mended", "level": 3}
    assert sent_back.facts["replayed"]["set"] == {"sensor": "'mended'"}
    assert held.record == origin.record == {"n": 3, "sensor": None, "level": 3}
    assert (held.facts["flow"], held.facts["step"]) == (named(source), "check")
    assert held.facts["reasons"][0].startswith("sensor_given")
    assert (origin.at.partition, origin.at.offset_first, origin.made_of) == (1, 1, None)
    assert sent_back.at.partition == origin.at.partition
    assert {hop.key for hop in hops} == {"3"}
    assert {hop.timestamp_ms for hop in hops} == {1_700_000_000_003}

    at = f"{source}.checked/{output.partition()}@{output.offset()}"
    told = command(project, at, "--json")
    document = json.loads(told.stdout)
    assert [hop["at"] for hop in document["hops"]] == [str(hop.at) for hop in hops]
    assert document["origin"] is True
    drawn = command(project, at).stdout
    assert f"{origin.at}  origin" in drawn
    assert "sensor_given" in drawn
    delete(project, f"{source}.checked", f"{source}.quarantine")


def command(settings: Settings, *arguments: str) -> Result:
    return cli(settings, "trace", *arguments)


def test_a_range_is_said_and_its_first_record_followed(project: Settings, topic: Topic) -> None:
    source, events = topic("readings", retention_ms=-1), topic("events")
    write(project, source, encode(project, source, [{"n": i, "sensor": "s", "level": i} for i in range(9)]))
    write(project, events, [b"not Avro"], headers=[Span(source, 0, 2, 7).header(), ("traceparent", b"00-ab-cd-01")],
          timestamp_ms=NOW_MS)
    event, first = trace(project, (events, 0, 0))
    assert event.as_json()["made_of"] == {"at": f"{source}/0@2-7", "topic": source, "partition": 0, "first": 2,
                                          "last": 7, "count": 6}
    assert isinstance(event.record, str)
    assert event.record.startswith("wrong_magic")
    assert event.headers == {"traceparent": "00-ab-cd-01"}
    assert first.record == {"n": 2, "sensor": "s", "level": 2}
    assert "made of 6 offsets, 2 to 7" in command(project, f"{events}/0@0").stdout


def test_no_record_there(project: Settings, topic: Topic) -> None:
    source = topic("few", 2)
    write(project, source, [b"a", b"b", b"c"], timestamp_ms=NOW_MS)
    transaction = Producer(project.client(transactional_id=f"trace.{source}"))
    transaction.init_transactions(30)
    transaction.begin_transaction()
    transaction.produce(source, b"never", partition=0)
    transaction.flush(60)
    transaction.abort_transaction(20)
    write(project, source, [b"d"], timestamp_ms=NOW_MS)
    admin = AdminClient(project.client())
    for done in admin.delete_records([TopicPartition(source, 0, 1)]).values():
        done.result(60)
    for at, said in {(source, 0, 0): "deleted by retention: the partition now begins at offset 1",
                     (source, 0, 3): "holds no record: .* the next record is at offset 5",
                     (source, 0, 4): "holds no record", (source, 0, 6): "the partition ends at offset 6",
                     (source, 1, 0): "the partition is empty", (source, 2, 0): "has no partition 2: it has 2, 0 to 1",
                     (f"{source}x", 0, 0): "there is no topic"}.items():
        with pytest.raises(UserError, match=said):
            trace(project, at)
    wrong = command(project, f"{source}/0")
    assert "TOPIC/PARTITION@OFFSET" in str(wrong.exception)


def test_an_origin_that_is_gone_ends_the_chain(project: Settings, topic: Topic) -> None:
    output = topic("output")
    write(project, output, [b"x"], headers=[(SOURCE_HEADER, (0).to_bytes(4, "big") + (5).to_bytes(8, "big") + b"gone")],
          timestamp_ms=NOW_MS)
    hops = trace(project, (output, 0, 0))
    assert hops[1].gone == "there is no topic gone"
    assert json.loads(command(project, f"{output}/0@0", "--json").stdout)["origin"] is False


def test_a_circle_ends(project: Settings, topic: Topic) -> None:
    """A header that somebody forged."""
    circle = topic("circle")
    itself = (0).to_bytes(4, "big") + (0).to_bytes(8, "big") + circle.encode()
    write(project, circle, [b"x"], headers=[(SOURCE_HEADER, itself)], timestamp_ms=NOW_MS)
    assert len(trace(project, (circle, 0, 0))) == 1 < HOPS_MAX
