"""Kafka Connect's own file connectors, run here: file → topic → file; transforms, secrets, offsets of sources."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.connect import offsets
from headrace.registry import Registry
from headrace.settings import Settings
from tests.integration.connectkit import Watched, made, until
from tests.integration.held import read

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

LINES, KILLS = 40_000, 4
SOURCE = {"connector__class": "FileStreamSource", "file": "in.txt"}


def lines_of(settings: Settings, topic: str) -> list[str]:
    """What the JSON envelopes of the topic say."""
    found = [json.loads(message.value()) for message in read(settings, topic)]
    assert all(one["schema"] == {"type": "string", "optional": False} for one in found)
    return [one["payload"] for one in found]


def test_file_to_topic_to_file(project: Settings, topic: Callable[..., str]) -> None:
    name, folder = topic(), project.project
    (folder / "in.txt").write_text("one\ntwo, zwei\n\nthree “3”\n")
    source = made(project, name=f"in-{name}", topic=name, what__ever="is passed over", **SOURCE)
    sink = made(project, name=f"out-{name}", connector__class="org.apache.kafka.connect.file.FileStreamSinkConnector",
                topics=name, file="out.txt")
    for spec in (source, sink):
        watched = Watched(spec, project, drain=True)
        watched.task.start()
        watched.expect("ENDED")
        assert watched.task.join(30)
    assert (folder / "out.txt").read_text() == "one\ntwo, zwei\n\nthree “3”\n"
    assert offsets.listed(source, project) == [
        {"partition": {"filename": "in.txt"}, "offset": {"position": (folder / "in.txt").stat().st_size}}]


def test_kill_9_of_a_file_stream_source(project: Settings, topic: Callable[..., str]) -> None:
    name, folder = topic(), project.project
    (folder / "in.txt").write_text("".join(f"line {n}\n" for n in range(LINES)))
    file = folder / "connectors/in.properties"
    keys = f"name=in-{name}\nconnector.class=FileStreamSource\nfile=in.txt\ntopic={name}\n"
    file.write_text(f"{keys}rate.records.per.second=1000\n")  # 40 s of work, so that it is killed in the midst of it
    words = [sys.executable, "-m", "headrace", "connect", str(file), "--log", "debug"]
    log, chance = folder / "log", random.Random()
    for _ in range(KILLS):
        with log.open("w") as stderr:
            process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            until(lambda: '"committed"' in log.read_text())
            time.sleep(chance.uniform(0, 0.5))
        finally:
            process.kill()
            process.communicate()
    assert len(read(project, name)) < LINES, "it was done before the last kill: the test proves nothing"
    file.write_text(keys)  # now as fast as it goes
    done = subprocess.run([*words, "--drain", "--json"], cwd=folder, capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["records"] < LINES
    assert Counter(lines_of(project, name)) == Counter(f"line {n}" for n in range(LINES))


def write(folder: Path, name: str, schema: list[object], text: str) -> None:
    (folder / "schemas" / f"{name}.avsc").write_text(json.dumps({"type": "record", "name": name, "fields": schema}))
    (folder / f"{name}.csv").write_text(text)


def test_transforms_route_key_and_refuse_the_records_of_a_source(project: Settings, topic: Callable[..., str]) -> None:
    name, folder = topic(), project.project
    write(folder, "reading", [{"name": "n", "type": "long"}, {"name": "at", "type": "string"}],
          "n,at\n1,2013-01-01\n2,soon\n3,2013-01-03\n")
    spec = made(project, name=f"in-{name}", connector__class="file", file="reading.csv", schema="reading", topic="raw",
                errors__tolerance="all", errors__deadletterqueue__topic__name=f"{name}.dead",
                value__converter="json", value__converter__schemas__enable="false", key="n",
                transforms="when,mark,to", transforms__when__type="TimestampConverter$Value",
                transforms__when__field="at", transforms__when__target__type="unix",
                transforms__when__format="yyyy-MM-dd", transforms__mark__type="InsertHeader",
                transforms__mark__header="by", transforms__mark__value__literal="us",
                transforms__to__type="RegexRouter", transforms__to__regex="raw", transforms__to__replacement=name)
    watched = Watched(spec, project)
    watched.task.start()
    watched.expect("ENDED")
    assert (watched.task.done.records, watched.task.done.rejected) == (2, 1)
    assert watched.task.done.topics == {name}
    assert [(m.key(), json.loads(m.value()), m.headers()) for m in read(project, name)] == [
        (b"1", {"n": 1, "at": 1356998400000}, [("by", b"us")]), (b"3", {"n": 3, "at": 1357171200000}, [("by", b"us")])]
    [dead] = read(project, f"{name}.dead")
    headers = dict(dead.headers())
    assert dead.value() == b"2,soon"
    assert headers["__connect.errors.stage"] == b"TRANSFORMATION"
    assert headers["__connect.errors.class.name"] == b"org.apache.kafka.connect.transforms.TimestampConverter$Value"
    assert headers["headrace.file"] == b"reading.csv:3"


def test_a_source_pauses_goes_on_and_its_offsets_are_altered(project: Settings, topic: Callable[..., str]) -> None:
    name, path = topic(), project.project / "in.txt"
    path.write_text("1\n2\n3\n")
    spec = made(project, name=f"in-{name}", topic=name, **SOURCE)
    watched = Watched(spec, project)
    watched.task.start()
    until(lambda: len(read(project, name)) == 3)
    watched.task.pause()
    watched.expect("PAUSED")
    with path.open("a") as file:
        file.write("4\n")
    time.sleep(1)
    assert len(read(project, name)) == 3
    watched.task.resume()
    until(lambda: len(read(project, name)) == 4)
    watched.end()
    assert watched.states == ["RUNNING", "PAUSED", "RUNNING"]
    partition = {"filename": "in.txt"}
    offsets.alter(spec, project, [(partition, {"position": 4})])
    assert offsets.listed(spec, project) == [{"partition": partition, "offset": {"position": 4}}]
    again = Watched(spec, project, drain=True)
    again.task.start()
    again.expect("ENDED")
    assert lines_of(project, name) == ["1", "2", "3", "4", "3", "4"]
    offsets.reset(spec, project)
    assert offsets.listed(spec, project) == []


def test_a_secret_is_looked_up_at_the_start_and_told_to_nobody(project: Settings, topic: Callable[..., str],
                                                               monkeypatch: pytest.MonkeyPatch,
                                                               caplog: pytest.LogCaptureFixture) -> None:
    name = topic()
    (project.project / "secrets.properties").write_text("where=hush-hush-1\n")
    monkeypatch.setenv("CONNECT_FILE", "first.txt")
    monkeypatch.setenv("CONNECT_SECRET", "hush-hush-2")
    spec = made(project, name=f"in-{name}", topic=name, connector__class="FileStreamSource", file="${env:CONNECT_FILE}",
                producer__override__sasl__password="${env:CONNECT_SECRET}",
                x="${file:" + str(project.project / "secrets.properties") + ":where}")
    assert "first.txt" not in repr(spec)
    monkeypatch.setenv("CONNECT_FILE", "second/hush-hush-3")  # it may change before a task starts
    (project.project / "second").mkdir()
    (project.project / "second/hush-hush-3").write_text("a line\n")
    watched = Watched(spec, project, drain=True)
    with caplog.at_level("DEBUG"):
        watched.task.start()
        watched.expect("ENDED")
    assert lines_of(project, name) == ["a line"]
    monkeypatch.delenv("CONNECT_FILE")
    failed = Watched(spec, project)
    failed.task.start()
    assert failed.task.join(30)
    assert failed.states == ["FAILED"]
    assert "file: ${env:CONNECT_FILE}: there is no environment variable" in str(failed.trace)
    assert not [record for record in caplog.records if "hush-hush" in repr(record.__dict__)]


def test_avro_by_default_as_the_schema_says_or_as_transforms_made_it(project: Settings,
                                                                     topic: Callable[..., str]) -> None:
    name, more, folder = topic(), topic(), project.project
    write(folder, "reading", [{"name": "n", "type": "long"}, {"name": "s", "type": ["null", "string"]}],
          "n,s\n1,a\n2,\n")
    own = {"connector__class": "file", "file": "reading.csv", "schema": "reading", "key": "s"}
    plain = made(project, name=f"in-{name}", topic=name, **own, transforms="mark",
                 transforms__mark__type="InsertHeader", transforms__mark__header="h",
                 transforms__mark__value__literal="x")
    wider = made(project, name=f"in-{more}", topic=more, **own, transforms="put",
                 transforms__put__type="InsertField$Value", transforms__put__static__field="from",
                 transforms__put__static__value="here")
    sink = made(project, name=f"out-{name}", connector__class="FileSink", topics=f"{name},{more}", file="out.jsonl",
                transforms="where", transforms__where__type="InsertField$Value",
                transforms__where__offset__field="at", transforms__where__topic__field="topic")
    for spec in (plain, wider, sink):
        watched = Watched(spec, project, drain=True)
        watched.task.start()
        watched.expect("ENDED")
        assert watched.task.join(30)
    registry = Registry(project.registry_client())
    assert [(m.key(), m.headers()) for m in read(project, name)] == [(b"a", [("h", b"x")]), (None, [("h", b"x")])]
    first, second = (registry.latest(f"{one}-value") for one in (name, more))
    assert first is not None
    assert second is not None
    assert first[2].arrow.names == ["n", "s"]
    assert json.loads(first[2].text)["name"] == "reading", "the schema as the project has it"
    assert second[2].arrow.names == ["n", "s", "from"]
    written = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert sorted(written, key=lambda row: (row["topic"] == more, row["n"])) == [
        {"n": 1, "s": "a", "at": 0, "topic": name}, {"n": 2, "s": None, "at": 1, "topic": name},
        {"n": 1, "s": "a", "from": "here", "at": 0, "topic": more},
        {"n": 2, "s": None, "from": "here", "at": 1, "topic": more}]


COUNTER = '''
"""A source for tests: numbers, one a pull, which is away while the file `down` exists, and notes what it is told."""

import time

import pyarrow as pa
from pydantic import Field

from headrace.config import Config
from headrace.connector import Pulled
from headrace.errors import Retriable
from headrace.records import Column, Shape
from headrace.records.records import one


class CounterConfig(Config):
    """Keys of the counter."""

    topic: str = Field(description="Where to.")
    count: int = Field(description="How many.")


class CounterSource:
    Config = CounterConfig

    def __init__(self, config, *, project):
        self.config, self.project, self.ended = config, project, False

    def open(self, stored):
        self.at = [(stored({"of": part}) or {"at": 0})["at"] for part in range(2)]
        self.told = (self.project / "told").open("a")

    def pull(self, records_max):
        if (self.project / "down").exists():
            raise Retriable("the counter is away", retry_after_s=0)
        part = 0 if self.at[0] <= self.at[1] else 1
        self.ended = self.at[part] >= self.config.count
        if self.ended:
            return None
        self.at[part] += 1
        time.sleep(0.01)
        values = Column(pa.array([2 * (self.at[part] - 1) + part]), Shape("int64"))
        return Pulled({"of": part}, {"at": self.at[part]}, [one(self.config.topic, values)])

    def committed(self, pulled):
        self.told.write(f"{pulled.partition['of']} {pulled.position['at']}\\n")
        self.told.flush()

    def close(self):
        self.told.close()


SOURCE = CounterSource
'''


@pytest.mark.parametrize(("keys", "transactions"), [
    ({}, 100), ({"transaction__boundary": "interval", "transaction__boundary__interval__ms": "5000"}, 4)])
def test_partitions_of_a_source_and_where_its_transactions_end(project: Settings, topic: Callable[..., str],
                                                               keys: dict[str, str], transactions: int) -> None:
    name, folder = topic(), project.project
    (folder / "connectors/counter.py").write_text(COUNTER)
    own = {"name": f"count-{name}", "connector__class": "counter", "topic": name, "value__converter": "string", **keys}
    for count in (20, 50):  # it goes on where it was
        watched = Watched(made(project, **own, count=str(count)), project)
        watched.task.start()
        watched.expect("ENDED")
        assert watched.task.join(10)
    found = read(project, name)
    assert sorted(int(m.value()) for m in found) == list(range(100))
    assert (folder / "told").read_text().split("\n")[:3] == ["0 1", "1 1", "0 2"]
    assert len((folder / "told").read_text().splitlines()) == 100
    ends = found[-1].offset() + 1 - len(found)  # each transaction leaves a marker but the last one, whose is behind it
    assert ends <= transactions
    assert transactions < 100 or ends == 99
    assert [(one["partition"], one["offset"]) for one in offsets.listed(made(project, **own, count="1"), project)] == [
        ({"of": 0}, {"at": 50}), ({"of": 1}, {"at": 50})]


def test_a_source_that_is_away_is_waited_for_and_may_be_paused(project: Settings, topic: Callable[..., str]) -> None:
    name, folder = topic(), project.project
    (folder / "connectors/counter.py").write_text(COUNTER)
    (folder / "down").touch()
    watched = Watched(made(project, name=f"count-{name}", connector__class="counter", topic=name, count="3",
                           value__converter="string", errors__retry__delay__max__ms="500"), project)
    watched.task.start()
    watched.expect("RUNNING")
    watched.task.pause()
    watched.expect("PAUSED")
    watched.task.resume()
    watched.expect("RUNNING")
    (folder / "down").unlink()
    watched.expect("ENDED")
    assert sorted(int(m.value()) for m in read(project, name)) == list(range(6))
    (folder / "down").touch()
    stopped = Watched(made(project, name=f"count-{name}", connector__class="counter", topic=name, count="9",
                           value__converter="string"), project)
    stopped.task.start()
    stopped.expect("RUNNING")
    time.sleep(1)
    stopped.end(10)
    assert stopped.states == ["RUNNING"]
