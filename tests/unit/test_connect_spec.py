"""A connector's keys as a spec: all problems at once, common keys, secrets, groups of topics."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from headrace.connect import overrides
from headrace.connect.spec import Spec, class_of, runnable, spec_of
from headrace.connect.spec_keys import creation_of
from headrace.secrets import KNOWN

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
SOURCE = {"name": "load", "connector.class": "file", "file": "x.csv", "topic": "flights", "schema": "departure"}
SINK = {"name": "store", "connector.class": "FileSink", "file": "out.jsonl", "topics": "a, b,a"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "schemas").mkdir()
    shutil.copy(ROOT / "schemas/departure.avsc", tmp_path / "schemas")
    return tmp_path


def spec(project: Path, config: dict[str, str]) -> Spec:
    made, problems = spec_of(config, project)
    assert made is not None, problems
    assert problems == []
    return made


def problems(project: Path, config: dict[str, Any]) -> dict[str, str]:
    made, found = spec_of(config, project)
    assert made is None
    return {one.key: one.message for one in found}


def test_defaults_are_kafka_connects_where_it_has_them(project: Path) -> None:
    common = spec(project, SOURCE).common
    assert (common.tasks_max, common.errors_tolerance, common.errors_retry_timeout_ms) == (1, "none", 0)
    assert (common.errors_retry_delay_max_ms, common.dead_letters, common.errors_log_include_messages) == (
        60_000, None, False)
    made = spec(project, SINK)
    assert (made.kind, made.common.topics, made.group, made.tasks) == ("sink", ("a", "b"), "connect-store", 1)
    assert spec(project, SINK | {"tasks.max": "3"}).tasks == 3
    assert spec(project, SOURCE | {"tasks.max": "3"}).tasks == 1
    assert spec(project, SINK | {"consumer.override.group.id": "g"}).group == "g"


def test_every_problem_is_told_at_once(project: Path) -> None:
    found = problems(project, {
        **SOURCE, "name": "x/y", "tasks.max": "0", "topic": "a b", "batch.record": "5", "errors.tolerance": "some",
        "schema": "depature", "value.converter": "avroo", "key.converter": "json", "key.converter.schemas.enabled": "x",
        "topic.creation.default.partitions": "many", "transforms": "cut", "transforms.cut.type": "Cutt$Value"})
    assert set(found) == {"name", "tasks.max", "topic", "batch.record", "errors.tolerance", "schema", "value.converter",
                          "key.converter.schemas.enabled"}
    assert found["batch.record"] == "there is no key “batch.record”; did you mean “batch.records”?"
    assert "did you mean “departure”" in found["schema"]
    found = problems(project, {**SOURCE, "transforms": "cut", "transforms.cut.type": "Cast$Valuee",
                               "topic.creation.default.partitions": "many", "topic.creation.x.partitions": "2"})
    assert set(found) == {"transforms.cut.type", "topic.creation.default.partitions", "topic.creation.x.partitions"}


@pytest.mark.parametrize(("config", "key", "message"), [
    ({**SINK, "topics": ""}, "topics", "are missing"),
    ({**SINK, "topics.regex": "x.*"}, "topics", "two ways to say one thing"),
    ({**SINK, "topics": "", "topics.regex": "("}, "topics.regex", "no regular expression"),
    ({**SINK, "errors.tolerance": "all", "errors.deadletterqueue.topic.name": "b"}, "topics", "be read again"),
    ({**SINK, "topics": "", "topics.regex": "b.*", "errors.tolerance": "all",
      "errors.deadletterqueue.topic.name": "b.dead"}, "topics.regex", "be read again"),
    ({**SOURCE, "errors.deadletterqueue.topic.name": "dead"}, "errors.deadletterqueue.topic.name", "nothing goes"),
    ({**SOURCE, "transaction.boundary": "connector"}, "transaction.boundary", "“poll” or “interval”"),
    ({**SOURCE, "connector.class": "FileSource", "topics": "a"}, "topics", "there is no key “topics”"),
    ({**SOURCE, "key": "tailnumm"}, "key", "did you mean “tailnum”"),
    ({**SOURCE, "connector.class": "kafka"}, "connector.class", "belongs to flows"),
    ({**SOURCE, "connector.class": "fil"}, "connector.class", "did you mean “file”"),
    ({**SINK, "connector.class": "datagen"}, "topics", "there is no key “topics”"),
    ({**SINK, "connector.class": "DatagenSink"}, "connector.class", "is no sink"),
    ({"name": "x"}, "connector.class", "is missing")])
def test_what_does_not_go_together(project: Path, config: dict[str, str], key: str, message: str) -> None:
    found = problems(project, {name: value for name, value in config.items() if value})
    assert message in found[key]


@pytest.mark.parametrize(("text", "kind"), [
    ("file", "source"), ("FileSource", "source"), ("headrace.connectors.file.FileSource", "source"),
    ("FileSink", "sink"), ("headrace.connectors.file.FileSink", "sink"),
    ("FileStreamSource", "source"), ("FileStreamSourceConnector", "source"),
    ("org.apache.kafka.connect.file.FileStreamSinkConnector", "sink")])
def test_the_names_of_a_class(project: Path, text: str, kind: str) -> None:
    found = class_of(text, {}, project)
    assert found.kind == kind
    assert found.java is ("Stream" in text)


def test_a_noun_that_is_both_is_a_sink_where_topics_are_named(project: Path) -> None:
    assert class_of("file", {"topics": "a"}, project).kind == "sink"
    assert class_of("file", {"topic": "a"}, project).kind == "source"
    assert {"file", "postgres"} <= set(runnable(project))
    assert not {"kafka", "quarantine"} & set(runnable(project))


def test_a_class_of_kafka_connect_behaves_as_there(project: Path) -> None:
    made = spec(project, {"name": "x", "connector.class": "FileStreamSource", "file": "a", "topic": "t", "wild": "key"})
    assert (made.config.format, made.config.tail) == ("text", True)
    assert made.common.value_converter == "org.apache.kafka.connect.json.JsonConverter"
    assert made.raw["wild"] == "key"
    assert spec(project, {**made.raw, "value.converter": "string"}).common.value_converter == "string"


def test_secrets_are_looked_up_hidden_and_named_when_absent(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "keys.properties").write_text("tasks = 3\n")
    monkeypatch.setenv("A_SECRET", "in-the-environment")
    made = spec(project, {**SINK, "tasks.max": f"${{file:{project}/keys.properties:tasks}}",
                          "consumer.override.sasl.password": "${env:A_SECRET}"})
    assert made.tasks == 3
    assert made.raw["tasks.max"].startswith("${file:")
    assert "in-the-environment" not in repr(made)
    assert KNOWN.text("it said in-the-environment!") == "it said [hidden]!"


def test_what_a_secret_stands_for_is_in_no_message(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "not-a-number")
    found = problems(project, {**SOURCE, "tasks.max": "${env:A_SECRET}"})
    assert found == {"tasks.max": "tasks.max: “${env:A_SECRET}” is no whole number"}
    monkeypatch.delenv("A_SECRET")
    assert "there is no environment variable" in problems(project, {**SOURCE, "file": "${env:A_SECRET}"})["file"]
    assert spec_of({**SOURCE, "file": "${env:A_SECRET}"}, project, secrets=False) == (None, [])


def test_groups_of_topics() -> None:
    keys = {"topic.creation.default.partitions": "3", "topic.creation.default.cleanup.policy": "compact",
            "topic.creation.logs.include": "log\\..*,x", "topic.creation.logs.exclude": "log.no",
            "topic.creation.logs.replication.factor": "2", "topic.creation.logs.retention.ms": "5"}
    made, wrong = creation_of(keys, ["logs"])
    assert wrong == []
    logs = made.plan("log.a", event_times=True)
    assert (logs.partitions, logs.replication, dict(logs.config)) == (3, 2, {"retention.ms": "5"})
    other = made.plan("log.no", event_times=True)
    assert (other.partitions, other.replication) == (3, -1)
    assert dict(other.config) == {"retention.ms": "-1", "cleanup.policy": "compact"}
    assert [key for key, _ in creation_of({"topic.creation.a.partitions": "0", "topic.creation.a.include": "("},
                                          ["a"])[1]] == ["topic.creation.a.partitions", "topic.creation.a.include"]
    assert "include" in creation_of({}, ["a"])[1][0][0]


def test_a_java_clients_properties_as_librdkafkas(project: Path) -> None:
    made = spec(project, {**SINK, "consumer.override.max.poll.records": "7", "consumer.override.fetch.max.wait.ms": "9",
                          "consumer.override.auto.offset.reset": "latest", "consumer.override.group.id": "g",
                          "consumer.override.sasl.jaas.config":
                              'org.apache.X required username="me" password="it\'s me";',
                          "producer.override.compression.type": "zstd"})
    assert overrides.librdkafka(made, "consumer") == {"fetch.wait.max.ms": "9", "sasl.username": "me",
                                                      "sasl.password": "it's me"}
    assert overrides.librdkafka(made, "producer") == {"compression.type": "zstd"}
