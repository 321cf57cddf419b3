"""Schema drift against a real broker and registry: a worker tells of a new schema once, and the command shows them."""

from __future__ import annotations

import json
import logging
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from headrace import plan
from headrace.batch import read_lineage
from headrace.cli import build
from headrace.codec import AvroSchema, Decoder, Encoder, parse
from headrace.control import Verdict
from headrace.observe import Observer
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.worker import Worker
from tests.committed import committed_records
from tests.faults.test_kill import start, wait_for
from tests.integration.test_worker import drain

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

PARTITIONS = 4
N, SENSOR = {"name": "n", "type": "long"}, {"name": "sensor", "type": ["null", "string"], "default": None}
ROOM = {"name": "room", "type": "string", "default": "none"}
SUITE = {"name": "reading", "expectations": [
    {"id": "sensor_given", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "sensor"}}]}
FLOW = """
flow: {name}
owner: tests
source:
  kafka: {{topic: {source}, schema: reading, partitions: 4}}
steps:
  check: {{validate: {{suite: reading}}}}
  enrich: {{derive: {{twice: "n * 2"}}}}
sinks:
  {source}.checked: {{from: enrich, kafka: {{}}}}
  {source}.verdicts: {{from: source.drift, kafka: {{schema: control/verdicts, partitions: 1}}}}
  {source}.quarantine: {{from: [check.failure, source.reject], quarantine: {{}}}}
"""


def reading(*fields: Any) -> AvroSchema:
    return parse(json.dumps({"type": "record", "name": "Reading", "fields": list(fields)}))


FULL, MORE, LESS = reading(N, SENSOR), reading(N, SENSOR, ROOM), reading(N)
OTHER = reading({"name": "n", "type": "string"}, SENSOR)


class Shop:
    """A topic, a flow that reads it, and a producer of whatever schema."""

    def __init__(self, settings: Settings, topic: Callable[..., str]) -> None:
        self.settings, self.source = settings, topic("drift", partitions=PARTITIONS)
        self.flow = f"drift-{self.source[-6:]}"
        (settings.project / "schemas/reading.avsc").write_text(FULL.text)
        (settings.project / "schemas/reading.expectations.json").write_text(json.dumps(SUITE))
        (settings.project / f"flows/{self.flow}.yaml").write_text(FLOW.format(name=self.flow, source=self.source))
        self.registry = Registry(settings.registry_client())
        self.producer = Producer(settings.client(enable_idempotence=True, linger_ms=5))
        self.registry.register(f"{self.source}-value", FULL)
        self.registry.client.set_compatibility(f"{self.source}-value", "NONE")

    def load(self, schema: AvroSchema, records: int, partitions: Sequence[int] = range(PARTITIONS)) -> int:
        """Records in turn over the partitions; the schema's id."""
        number = self.registry.register(f"{self.source}-value", schema)
        columns = {"n": [*range(records)], "sensor": ["s"] * records, "room": ["r"] * records}
        if schema is OTHER:
            columns["n"] = [*map(str, range(records))]
        named = {name: columns.get(name, columns["room"]) for name in schema.arrow.names}
        rows = pa.RecordBatch.from_pydict(named, schema=schema.arrow)
        for at, value in enumerate(Encoder(schema, schema.arrow, number).encode(rows)):
            self.producer.produce(self.source, value, partition=partitions[at % len(partitions)])
        assert self.producer.flush(60) == 0
        return number

    def run(self) -> Observer:
        """A worker in this process, until the ends."""
        seen = Observer(self.flow)
        planned = plan.load(self.settings.project / f"flows/{self.flow}.yaml", self.settings.project)
        Worker(planned, self.settings, instance="one", drain=True, observer=seen).run(threading.Event())
        return seen

    def events(self) -> list[tuple[Verdict, Any]]:
        """The verdicts written, each with its record."""
        messages = committed_records(self.settings, f"{self.source}.verdicts")
        decoder = Decoder(Verdict.schema(), self.registry.schema)
        rows = decoder.decode([m.value() for m in messages]).rows.to_pylist()
        return [(Verdict.from_record(row), m) for row, m in zip(rows, messages, strict=True)]

    def drift(self, *args: str) -> Any:
        return CliRunner().invoke(build(), ["schemas", "drift", self.source, *args], catch_exceptions=True)


@pytest.fixture
def shop(project: Settings, topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.chdir(project.project)
    made = Shop(project, topic)
    yield made
    del made.producer


def test_a_worker_logs_counts_and_tells_of_a_new_schema_once(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "headrace.worker")

    def told() -> list[tuple[int, int, str]]:
        found = [r for r in caplog.records if r.message == "new writer schema"]
        return [(r.schema_id_before, r.schema_id, r.severity) for r in found]  # type: ignore[attr-defined]

    def count(seen: Observer, severity: str) -> float:
        return seen.value("headrace_count_total", step="source", metric="new_schema", label=severity)

    full = shop.load(FULL, 400)
    first = shop.run()
    assert (told(), shop.events(), first.value("headrace_records_in_total")) == ([], [], 400.0)
    more, less = shop.load(MORE, 400), shop.load(LESS, 400, [2, 3])
    second = shop.run()
    assert told() == [(full, more, "info"), (more, less, "critical")]
    assert (count(second, "info"), count(second, "critical")) == (1.0, 1.0)
    [(one, _), (other, record)] = shop.events()
    assert (one.ok, one.about, one.flow, one.step, one.topic) == (True, "schema", shop.flow, "source", shop.source)
    assert one.reasons == ["room: added, string = \"none\": the flow's schema has no such field"]
    assert (other.ok, other.measures["schema_id"], other.measures["schema_id_before"]) == (False, less, more)
    assert "expectation sensor_given on sensor fails for every record, and holds it back" in other.reasons[0]
    assert f"topic {shop.source}.checked uses it" in other.reasons[0]
    assert other.partition in (2, 3)
    assert str(read_lineage(record.headers())) == f"{shop.source}/{other.partition}@{other.offset_first}"
    shop.load(LESS, 400)
    shop.load(FULL, 400)
    third = shop.run()
    assert len(told()) == len(shop.events()) == 2, "they are known, after a restart and in other partitions too"
    assert count(third, "critical") == 0
    assert len(committed_records(shop.settings, f"{shop.source}.checked")) == 400 + 400 + 400
    assert len(committed_records(shop.settings, f"{shop.source}.quarantine")) == 800


def test_what_cannot_be_read_is_foretold_and_held_back(shop: Shop) -> None:
    shop.load(FULL, 40)
    shop.load(OTHER, 40)
    shop.run()
    [(event, _)] = shop.events()
    assert not event.ok
    assert event.reasons[0].startswith("none of its records can be read: n: ")
    assert "all go to the quarantine" in event.reasons[1]
    assert len(committed_records(shop.settings, f"{shop.source}.quarantine")) == 40


def test_kills_neither_lose_nor_repeat_an_event(shop: Shop) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    print(f"seed {seed}")
    schemas = [FULL, MORE, LESS, reading(N, SENSOR, {**ROOM, "name": "floor"}), reading(SENSOR, N, ROOM)]
    numbers = [shop.load(schema, 4_000) for schema in schemas]
    for _ in range(3):
        worker = start(shop.settings.project, shop.flow, "--batch", "200")
        wait_for(worker, "assigned")
        time.sleep(chance.uniform(0.0, 0.4))
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    shop.run()
    found = [int(event.measures["schema_id"]) for event, _ in shop.events()]
    assert Counter(found) == Counter(numbers[1:]), "one worker: each schema once, but the first"
    total = [committed_records(shop.settings, f"{shop.source}.{end}") for end in ("checked", "quarantine")]
    assert [*map(len, total)] == [16_000, 4_000]


def test_several_workers_give_the_same_event_the_same_id(shop: Shop) -> None:
    shop.load(FULL, 40)
    shop.load(LESS, 40)
    drain(shop.settings, shop.flow, "--workers", "2")
    events = [event for event, _ in shop.events()]
    assert 1 <= len(events) <= 2
    assert len({event.id for event in events}) == 1


def test_the_command_shows_the_schemas_of_a_topic_and_what_they_do(shop: Shop) -> None:
    full, less, more = shop.load(FULL, 40), shop.load(LESS, 40, [0, 1]), shop.load(MORE, 20, [0])
    shop.producer.produce(shop.source, b"\x01\x02", partition=3)
    shop.producer.produce(shop.source, None, partition=3)
    shop.producer.flush(60)
    told = json.loads(shop.drift("--json").stdout)
    assert (told["records"], told["unframed"], told["nulls"], told["gaps"]) == (102, 1, 1, {})
    assert told["flows"] == [shop.flow]
    subject = f"{shop.source}-value"
    assert [(s["id"], s["subject"], s["version"], s["records"], s["unreadable"]) for s in told["schemas"]] == [
        (full, subject, 1, 40, {shop.flow: []}), (less, subject, 2, 40, {shop.flow: []}),
        (more, subject, 3, 20, {shop.flow: []})]
    assert told["schemas"][1]["first"] == {str(p): {"offset": 10, "exact": True} for p in (0, 1)}
    assert told["schemas"][2]["first"] == {"0": {"offset": 30, "exact": True}}
    assert told["schemas"][2]["last"] == {"0": 49}
    assert [(d["from"], d["to"], d["flow"], d["severity"]) for d in told["drift"]] == [
        (full, less, shop.flow, "critical"), (less, more, shop.flow, "warning")]
    [gone] = told["drift"][0]["changes"]
    assert (gone["path"], gone["kind"]) == ("sensor", "removed")
    assert [(e["kind"], e["name"]) for e in gone["effects"]] == [
        ("default", ""), ("expectation", "sensor_given"), ("use", f"topic {shop.source}.checked")]
    shown = shop.drift("--flow", shop.flow)
    assert shown.exit_code == 0
    assert f"{full} → {less}, for {shop.flow}: critical\n  sensor: removed" in shown.stdout
    assert "reads it" in shown.stdout
    assert "1 have no schema id" in shown.stderr


def test_of_a_long_topic_the_beginning_and_the_end_are_looked_at(shop: Shop) -> None:
    full, less = shop.load(FULL, 300, [0]), shop.load(LESS, 300, [0])
    told = json.loads(shop.drift("--records", "50", "--json").stdout)
    assert (told["records"], told["gaps"]) == (100, {"0": [50, 550]})
    assert {s["id"]: (s["records"], s["share"], s["first"]) for s in told["schemas"]} == {
        full: (50, 0.5, {"0": {"offset": 0, "exact": True}}), less: (50, 0.5, {"0": {"offset": 550, "exact": False}})}
    assert "0@≤550" in shop.drift("--records", "50").stdout
    whole = json.loads(shop.drift("--records", "300", "--json").stdout)
    assert (whole["records"], whole["gaps"]) == (600, {})
    assert whole["schemas"][1]["first"] == {"0": {"offset": 300, "exact": True}}


def test_the_command_without_a_flow_or_with_a_wrong_one(shop: Shop, topic: Callable[..., str]) -> None:
    shop.load(FULL, 4)
    shop.load(OTHER, 4)
    wrong = shop.drift("--flow", "nobody")
    assert "there is no flow “nobody”" in str(wrong.exception)
    file = shop.settings.project / f"flows/{shop.flow}.yaml"
    file.write_text(file.read_text().replace(f"topic: {shop.source},", "topic: elsewhere,"))
    other = shop.drift("--flow", shop.flow)
    assert f"does not read {shop.source}" in str(other.exception)
    told = shop.drift("--json")
    assert told.exit_code == 0, told.stderr
    [step] = json.loads(told.stdout)["drift"]
    assert (step["flow"], [c["kind"] for c in step["changes"]]) == (None, ["type"])
    shown = shop.drift()
    assert "n: long → string" in shown.stdout
    assert f"no flow of this project reads {shop.source}" in shown.stderr
    file.write_text("flow: [")
    assert "passed over" in shop.drift().stderr
    missing = CliRunner().invoke(build(), ["schemas", "drift", "no.such.topic"])
    assert "there is no topic no.such.topic" in str(missing.exception)
    empty = CliRunner().invoke(build(), ["schemas", "drift", topic("empty")])
    assert (empty.exit_code, "no record with a schema id" in empty.stderr) == (0, True)
