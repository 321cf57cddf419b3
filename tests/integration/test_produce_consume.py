"""`headrace produce` and `headrace consume` against the real broker and registry, as a user types them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from headrace.cli import build
from headrace.errors import HeadraceError
from headrace.settings import Settings
from headrace.topics import existing
from tests.integration.held import read

pytestmark = pytest.mark.integration

SCHEMA = {"type": "record", "name": "Reading", "fields": [
    {"name": "n", "type": "long"}, {"name": "sensor", "type": ["null", "string"], "default": None},
    {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None}]}


@dataclass(frozen=True, slots=True)
class Ran:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture
def run(project: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """run("consume", topic, …, text=stdin) in a project with schemas/reading.avsc, in this process, to be quick."""
    (project.project / "schemas/reading.avsc").write_text(json.dumps(SCHEMA))
    monkeypatch.chdir(project.project)

    def go(*words: str, text: str = "") -> Ran:
        result = CliRunner().invoke(build(), list(words), input=text)
        if isinstance(result.exception, HeadraceError):
            return Ran(result.exception.exit_code, result.stdout, result.stderr + str(result.exception))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return go


def lines(result: Ran) -> list[dict[str, Any]]:
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_from_the_keyboard_and_back(run: Run, project: Settings, topic: Callable[..., str]) -> None:
    name = topic("gone") + ".new"
    made = run("produce", name, "--schema", "reading", "--key", "sensor", "--timestamp", "at", "--partitions", "3",
               "--json",
               text='{"n": 1, "sensor": "roof", "at": "2013-02-08T10:00:00Z"}\n{"n": "2"}\n\n{"n": 3}\nhello\n')
    assert made.returncode == 1
    assert {**json.loads(made.stdout), "seconds": 0} == {"produced": 2, "rejected": 2, "seconds": 0}
    assert 'standard input:2: n: "2" is not a long' in made.stderr
    assert "standard input:5: not JSON" in made.stderr
    assert f"created topic {name}: 3 partitions, records kept for ever" in made.stderr
    assert existing(project)[name] == 3
    got = lines(run("consume", name, "--from-beginning", "--until-end"))
    assert sorted((r["value"]["n"], r["key"], r["value"]["at"]) for r in got) == [
        (1, "roof", "2013-02-08T10:00:00Z"), (3, None, None)]
    assert [r["timestamp"] for r in got if r["key"]] == ["2013-02-08T10:00:00.000Z"]
    assert lines(run("consume", name, "--from-beginning", "--until-end", "--values", "--where", "sensor = 'roof'")) == [
        {"n": 1, "sensor": "roof", "at": "2013-02-08T10:00:00Z"}]


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "avro"])
def test_a_file_of_every_format(run: Run, project: Settings, topic: Callable[..., str], format: str) -> None:
    name = topic(partitions=2)
    file = project.project / f"readings.{format}"
    rows = [{"n": n, "sensor": f"s{n % 3}"} for n in range(5000)]
    if format == "csv":
        file.write_text("n,sensor\n" + "".join(f"{r['n']},{r['sensor']}\n" for r in rows))
    elif format == "jsonl":
        file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    elif format == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        import fastavro

        with file.open("wb") as out:
            fastavro.writer(out, {**SCHEMA, "fields": SCHEMA["fields"][:2]}, rows)
    (made,) = lines(run("produce", name, "--schema", "schemas/reading.avsc", "--file", str(file), "--key", "n",
                        "--json"))
    assert (made["produced"], made["rejected"]) == (5000, 0)
    got = lines(run("consume", name, "--from-beginning", "--until-end"))
    assert sorted((r["value"]["n"], r["value"]["sensor"], r["key"]) for r in got) == [
        (r["n"], r["sensor"], str(r["n"])) for r in rows]


def test_keys_meet_those_of_java_producers(run: Run, project: Settings, topic: Callable[..., str]) -> None:
    name = topic(partitions=8)
    run("produce", name, "--schema", "reading", "--key", "n", text="".join(f'{{"n": {n}}}\n' for n in range(50)))
    java = Producer(project.client(enable_idempotence=True, partitioner="murmur2_random"))
    for n in range(50):
        java.produce(name, b"x", str(n))
    assert java.flush(60) == 0
    places: dict[bytes, set[int]] = {}
    for message in read(project, name):
        places.setdefault(message.key(), set()).add(message.partition())
    assert len(places) == 50
    assert all(len(at) == 1 for at in places.values())


def test_what_cannot_be_decoded_is_shown_with_its_reason(run: Run, project: Settings,
                                                         topic: Callable[..., str]) -> None:
    name = topic()
    run("produce", name, "--schema", "reading", text='{"n": 1}\n')
    producer = Producer(project.client(enable_idempotence=True))
    for value in (b"hello", None, b"\0\x00\x01", b"\0\x7f\x00\x00\x00x"):
        producer.produce(name, value, key=b"\xff", headers=[("h", b"v")])
    assert producer.flush(60) == 0
    got = lines(run("consume", name, "--from-beginning", "-n", "5", "--headers"))
    assert got[0]["value"] == {"n": 1, "sensor": None, "at": None}
    assert [r["error"].partition(":")[0] for r in got[1:]] == ["wrong_magic", "null_value", "truncated_header",
                                                              "unknown_schema"]
    assert (got[1]["raw"], got[1]["key"], got[1]["headers"]) == (b"hello".hex(), "0xff", [["h", "v"]])
    result = run("consume", name, "--from-beginning", "--until-end", "--where", "n = 1")
    assert len(lines(result)) == 1
    assert "4 records could not be decoded" in result.stderr


def test_where_to_begin_and_where_to_end(run: Run, topic: Callable[..., str]) -> None:
    name = topic()
    run("produce", name, "--schema", "reading", text="".join(f'{{"n": {n}}}\n' for n in range(20)))

    def got(*words: str) -> list[int]:
        return [r["value"]["n"] for r in lines(run("consume", name, *words))]

    assert got("--offset", "-2", "--until-end") == [18, 19]
    assert got("--partition", "0", "--offset", "7", "-n", "2") == [7, 8]
    assert got("--until-end") == []
    assert got("--timeout", "1") == []
    assert got("--from-beginning", "-n", "1", "--where", "n > 3") == [4]


def test_it_follows_until_interrupted(run: Run, project: Settings, topic: Callable[..., str], tmp_path: Path) -> None:
    name = topic()
    out = tmp_path / "out"
    with out.open("w") as stdout:
        reading = subprocess.Popen([sys.executable, "-m", "headrace", "consume", name], cwd=project.project,
                                   stdout=stdout)
        try:
            for n in range(60):  # until it has found the end, what is produced is not its business
                assert reading.poll() is None
                run("produce", name, "--schema", "reading", text=f'{{"n": {n}}}\n')
                if out.read_text():
                    break
                time.sleep(0.3)
            reading.send_signal(signal.SIGINT)
            assert reading.wait(20) == 0
        finally:
            reading.kill()
            reading.wait()
    assert "value" in json.loads(out.read_text().splitlines()[0])


def test_rate_is_kept(run: Run, topic: Callable[..., str]) -> None:
    begun = time.monotonic()
    (made,) = lines(run("produce", topic(), "--schema", "reading", "--rate", "100", "--json",
                        text="".join(f'{{"n": {n}}}\n' for n in range(200))))
    assert made["produced"] == 200
    assert time.monotonic() - begun > 1.8


def test_an_oversized_record_is_rejected_by_its_line(run: Run, topic: Callable[..., str]) -> None:
    name = topic(max_message_bytes=2000)
    made = run("produce", name, "--schema", "reading",
               text=f'{{"n": 1}}\n{{"n": 2, "sensor": "{"x" * 3000}"}}\n{{"n": 3}}\n')
    assert made.returncode == 1
    assert "standard input:2: 3,010 bytes, and max.message.bytes" in made.stderr
    assert [r["value"]["n"] for r in lines(run("consume", name, "--from-beginning", "--until-end"))] == [1, 3]


@pytest.mark.parametrize(("words", "message"), [
    (("produce", "absent.topic", "--schema", "reading", "--no-create"), "there is no topic absent.topic"),
    (("produce", "t", "--schema", "redding"), "there is no schema “redding”"),
    (("produce", "t", "--schema", "reading", "--key", "sensr"), "did you mean “sensor”"),
    (("produce", "t", "--schema", "reading", "--timestamp", "sensor"), "which is no time"),
    (("produce", "t", "--schema", "reading", "--file", "absent.csv"), "there is no file absent.csv"),
    (("consume", "absent.topic"), "there is no topic absent.topic")])
def test_mistakes_are_told(run: Run, words: tuple[str, ...], message: str) -> None:
    result = run(*words)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
