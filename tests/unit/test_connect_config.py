"""Connector configuration files: three formats, and every finding with file, line and key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from headrace.connect.config import examine, load
from headrace.errors import ConfigError

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
FLAT = {"name": "load", "connector.class": "FileSource", "file": "data/x.csv", "topic": "flights",
        "schema": "departure", "batch.records": "500", "tail": "true"}


def written(folder: Path, content: object, name: str = "c.json") -> Path:
    (folder / "schemas").mkdir(exist_ok=True)
    shutil.copy(ROOT / "schemas/departure.avsc", folder / "schemas")
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return path


def findings(folder: Path, content: object, name: str = "c.json") -> list[str]:
    path = written(folder, content, name)
    return [str(one).removeprefix(str(path)) for one in examine(path, folder)[1]]


PROPERTIES = """
# a comment
! another
name=load
connector.class : file
  file = data/\\
         x.csv
topic flights
schema=d\\u0065parture
batch.records=500
tail = true
"""


@pytest.mark.parametrize(("name", "content"), [
    ("c.json", FLAT), ("c.json", {"name": "load", "config": {k: v for k, v in FLAT.items() if k != "name"}}),
    ("c.json", {"name": "load", "config": FLAT, "initial_state": "RUNNING"}), ("c.properties", PROPERTIES)])
def test_the_three_formats_say_the_same(tmp_path: Path, name: str, content: object) -> None:
    made = load(written(tmp_path, content, name), tmp_path)
    assert (made.name, made.full_name, made.state) == ("load", "headrace.connectors.file.FileSource", "RUNNING")
    assert made.spec is not None
    own, common = made.spec.config, made.spec.common
    assert (own.file, own.topic, own.tail) == ("data/x.csv", "flights", True)
    assert (common.schema_name, common.batch_records, common.tasks_max) == ("departure", 500, 1)


def test_every_finding_names_line_and_key(tmp_path: Path) -> None:
    assert findings(tmp_path, {**FLAT, "batch.record": "5", "tasks.max": "two", "tail": True, "topic": "a b",
                               "errors.tolerance": "some", "batch.records": "0"}) == [
        ":5: error: topic: “a b” is no topic name: letters, digits, “.”, “_” and “-”",
        ":7: error: batch.records: 0 is below 1",
        ":8: error: tail: must be text, as all of Kafka Connect's values: “true”",
        ":9: error: there is no key “batch.record”; did you mean “batch.records”?",
        ":10: error: tasks.max: “two” is no whole number",
        ":11: error: errors.tolerance: “some” is not one of 'none' or 'all'"]


@pytest.mark.parametrize(("content", "expected"), [
    ("{", ":1: error: not JSON: Expecting property name enclosed in double quotes"),
    ("[]", ":1: error: must be a JSON object in Kafka Connect's format"),
    ('{"name": "a",\n "name": "b"}', ": error: key “name” stands there twice"),
    ('{"name": "a"}', ": error: “connector.class” is missing"),
    ('{"name": "a",\n "connector.class": "fil"}',
     ":2: error: connector.class: there is no connector “fil”; did you mean “file”?"),
    ('{"connector.class": "kafka", "name": "a"}',
     ":1: error: connector.class: “kafka” belongs to flows, and is run by `headrace run`"),
    ("name=a\nwhat\nconnector.class=file", ":2: error: there is no key “what”"),
    ("name=a\nname=b\n", ":2: error: key “name” stands there twice"),
    ('{"name": "x/y", "config": {"connector.class": "file"}, "inital_state": "x"}',
     ":1: error: there is no key “inital_state” beside `config`; did you mean “initial_state”?"),
    ({"name": "a", "config": {**FLAT, "name": "b"}}, ":4: error: the name in `config` is “b”, outside it “a”"),
    ({"name": "a", "config": {**FLAT, "name": "a"}, "initial_state": "GOING"},
     ":12: error: initial_state: “GOING” is not one of RUNNING, PAUSED, STOPPED"),
    ({**FLAT, "schema": "depature"}, ":6: error: schema: there is no schema “depature”"),
    ({**FLAT, "key": "tailnumb"}, ":9: error: key: flights.Departure has no field “tailnumb” to take the key"),
    ({**FLAT, "timestamp.column": "carrier"}, ":9: error: timestamp.column: carrier is string, which is no time"),
    ({**FLAT, "tail": "true", "file": "x.avro"}, ":8: error: tail: avro files do not grow, they are written whole"),
    ({**FLAT, "connector.class": "org.apache.kafka.connect.file.FileStreamSourceConector"},
     ":3: error: connector.class: there is no connector “org.apache.kafka.connect.file.FileStreamSourceConector”; did "
     "you mean “org.apache.kafka.connect.file.FileStreamSourceConnector”?"),
    ({**FLAT, "connector.class": "io.confluent.connect.jdbc.JdbcSinkConnector"},
     ":3: info: connector.class: io.confluent.connect.jdbc.JdbcSinkConnector is a Java class, which runs in a Kafka "
     "Connect cluster (`headrace connectors apply` sends it there); near it, of ours: the sink `postgres`")])
def test_what_is_wrong_is_said(tmp_path: Path, content: object, expected: str) -> None:
    found = findings(tmp_path, content, "c.properties" if str(content).startswith("name=") else "c.json")
    assert any(expected in one for one in found), found
    with pytest.raises(ConfigError):  # a Java class too: load() is for what runs here
        load(tmp_path / ("c.properties" if str(content).startswith("name=") else "c.json"), tmp_path)


def test_our_own_connector_files_are_right() -> None:
    files = sorted((ROOT / "connectors").glob("*.json"))
    assert files
    for path in files:
        assert examine(path, ROOT, secrets=False)[1] == []
