"""Connector files as Kafka ships them and as people have them: each is run here, goes to Kafka Connect, or is told what
is wrong with it. The files are our own, with the keys of those found in documentation and repositories."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from headrace import catalog
from headrace.connect import wild
from headrace.connect.config import examine
from headrace.lint import lint

pytestmark = pytest.mark.contract

FOLDER = Path(__file__).with_name("wild")
JAVA = "org.apache.kafka.connect.file.FileStream{}Connector"

HERE: Mapping[str, tuple[str, str]] = {  # file → the class that runs it, the connector's name
    "connect-file-source.properties": (JAVA.format("Source"), "local-file-source"),
    "connect-file-sink.properties": (JAVA.format("Sink"), "local-file-sink"),
    "file-source-transforms.json": (JAVA.format("Source"), "file-source-transforms"),
    "file-sink-dead-letters.json": (JAVA.format("Sink"), "file-sink-dead-letters"),
    "ours-postgres-secrets.json": ("headrace.connectors.postgres.PostgresSink", "ours-postgres-secrets"),
}
THERE: Mapping[str, str] = {  # file → what is said of ours
    "jdbc-sink.json": "near it, of ours: the sink `postgres`",
    "jdbc-alias.properties": "near it, of ours: the sink `postgres`",
    "jdbc-source.properties": "near it, of ours: the source `postgres`",
    "debezium-postgres.json": "near it, of ours: the source `postgres`",
    "debezium-mysql.json": "none of ours is near it",
    "s3-sink.json": "near it, of ours: the sinks `file` and `deltalake`",
    "hdfs-sink.properties": "near it, of ours: the sinks `file` and `deltalake`",
    "spooldir-csv.properties": "near it, of ours: the source `file`",
    "datagen-pageviews.json": "near it, of ours: the source `datagen`",
    "elasticsearch-sink.properties": "none of ours is near it",
    "snowflake-sink.json": "none of ours is near it",
    "mongodb-sink.json": "none of ours is near it",
    "mirror-source.json": "none of ours is near it",
    "vendor-of-ones-own.json": "none of ours is near it",
    "slip-in-a-vendors.json": "did you mean “io.confluent.connect.s3.S3SinkConnector”?",
}
WRONG: Mapping[str, str] = {  # file → the finding
    "connect-console-source.properties": "Kafka Connect would take standard input, as `headrace produce` does; a "
                                         "worker here needs a file",
    "connect-console-sink.properties": "Kafka Connect would take standard output, as `headrace consume` does; a "
                                       "worker here needs a file",
    "slip-in-kafkas-own.properties": ":2: error: connector.class: there is no connector “org.apache.kafka.connect.file."
                                     "FileStreamSorceConnector”; did you mean “org.apache.kafka.connect.file."
                                     "FileStreamSourceConnector”?",
    "slip-in-ours.json": ":3: error: connector.class: there is no connector “postgress”; did you mean “postgres”?",
    "nothing-like-it.properties": ":2: error: connector.class: there is no connector “quantum”; there are ",
}
SECRETS = ("jdbc-secret", "s3-secret", "mongo-secret", "MIIE-not-a-key", "dbz")


def test_every_file_has_its_answer() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*HERE, *THERE, *WRONG}


@pytest.mark.parametrize("name", HERE)
def test_runs_here(name: str, tmp_path: Path) -> None:
    made, findings = examine(FOLDER / name, tmp_path, secrets=False)
    assert findings == []
    assert made is not None
    assert (made.full_name, made.name) == HERE[name]
    assert (made.spec is None) == ("${" in (FOLDER / name).read_text())  # the worker has the secrets, not we


@pytest.mark.parametrize("name", THERE)
def test_goes_to_kafka_connect(name: str, tmp_path: Path) -> None:
    made, findings = examine(FOLDER / name, tmp_path, secrets=False)
    assert made is not None
    assert made.full_name is None
    assert all(isinstance(value, str) for value in made.keys.values())
    [note] = findings
    assert note.severity == "info"
    assert note.line == _line(FOLDER / name)
    assert f"{made.cls} is a Java class, which runs in a Kafka Connect cluster" in note.message
    assert THERE[name] in note.message


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(name: str, tmp_path: Path) -> None:
    made, findings = examine(FOLDER / name, tmp_path)
    assert made is None
    [finding] = findings
    assert WRONG[name] in f":{finding.line}: {finding.severity}: {finding.message}"


def test_what_java_would_be_sent_is_what_kafka_connect_reads() -> None:
    """Numbers and truth values are text, as its own JSON reader makes them."""
    made, _ = examine(FOLDER / "jdbc-sink.json", FOLDER)
    assert made is not None
    written = json.loads((FOLDER / "jdbc-sink.json").read_text())["config"]
    assert (made.keys["tasks.max"], made.keys["auto.create"], made.keys["batch.size"]) == ("2", "true", "3000")
    assert set(made.keys) == {*written, "name"}


def test_lint_accepts_what_is_javas_and_shows_no_secret(tmp_path: Path) -> None:
    found = lint([FOLDER / name for name in (*HERE, *THERE)], tmp_path)
    assert {one.severity for one in found} == {"info"}
    assert len(found) == len(THERE)
    done = subprocess.run([sys.executable, "-m", "headrace", "lint", str(FOLDER)], capture_output=True, text=True,
                          cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert all(Path(name).name in done.stdout + done.stderr for name in (*THERE, *WRONG))
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)


def test_what_is_called_near_is_there() -> None:
    """Each of ours that a hint names exists, as the source or the sink that it is called."""
    for hint in set(wild.NEAR.values()) - {""}:
        kind = "SINK" if "sink" in hint.split("`")[0] else "SOURCE"
        for noun in hint.split("`")[1::2]:
            assert hasattr(catalog.connector(noun, FOLDER), kind), hint


@pytest.mark.parametrize(("text", "java"), [
    ("io.confluent.connect.jdbc.JdbcSinkConnector", True), ("JdbcSinkConnector", True), ("JdbcSink", True),
    ("com.acme.SinkConnector", True), ("AcmeSinkConnector", True), ("MirrorSource", True), ("file", False),
    ("FileSource", False), ("headrace.connectors.file.FileSource", False), ("fil", False), ("Quantum", False)])
def test_what_reads_as_java(text: str, java: bool) -> None:
    assert wild.is_java(text) is java


def _line(path: Path) -> int:
    return next(at for at, line in enumerate(path.read_text().splitlines(), 1) if "connector.class" in line)
