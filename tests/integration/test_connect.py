"""`headrace connect` against the real broker: exactly once over kills, bad lines, files that grow, rivals."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace import codec
from headrace.codec import Decoder
from headrace.registry import Registry
from headrace.settings import Settings
from tests.integration.held import read

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

RECORDS, KILLS = 60_000, 5
SCHEMA = {"type": "record", "name": "Reading", "fields": [{"name": "n", "type": "long"},
                                                          {"name": "sensor", "type": ["null", "string"]}]}


def write(settings: Settings, topic: str, lines: list[str], **keys: str) -> Path:
    """A project with a CSV file of these lines and a connector of it; the connector's file."""
    project = settings.project
    (project / "schemas/reading.avsc").write_text(json.dumps(SCHEMA))
    (project / "readings.csv").write_text("n,sensor\n" + "".join(line + "\n" for line in lines))
    path = project / "connectors" / f"{topic}.json"
    path.write_text(json.dumps({"name": topic, "connector.class": "file", "file": "readings.csv", "topic": topic,
                                "schema": "reading", **{k.replace("_", "."): v for k, v in keys.items()}}, indent=1))
    return path


def start(settings: Settings, path: Path, *words: str, log: Path | None = None) -> subprocess.Popen[str]:
    with (log or Path(os.devnull)).open("w") as stderr:
        return subprocess.Popen([sys.executable, "-m", "headrace", "connect", str(path), "--json", *words],
                                cwd=settings.project, stdout=subprocess.PIPE, stderr=stderr if log else subprocess.PIPE,
                                text=True)


def finish(settings: Settings, path: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    """(exit code, summary, stderr)"""
    process = start(settings, path, *words)
    out, err = process.communicate(timeout=120)
    return process.returncode, json.loads(out) if out else {}, err


def numbers(settings: Settings, topic: str) -> Counter[int]:
    """How often a read_committed reader finds each n."""
    registry = Registry(settings.registry_client())
    values = [m.value() for m in read(settings, topic)]
    decoded = Decoder(codec.parse(json.dumps(SCHEMA)), registry.schema).decode(values)
    assert decoded.rejects == []
    return Counter(decoded.rows.column("n").to_pylist())


def test_kill_9_neither_loses_nor_doubles(project: Settings, topic: Callable[..., str], tmp_path: Path) -> None:
    name, log = topic(partitions=2), tmp_path / "log"
    path = write(project, name, [f"{n},s{n % 7}" for n in range(RECORDS)], key="n", rate_records_per_second="1500")
    chance = random.Random()
    for _ in range(KILLS):
        process = start(project, path, "--log", "debug", log=log)
        while '"committed"' not in log.read_text():  # it is under way: now any moment will do
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.6))
        assert process.poll() is None, "it was done before the kill: the test proves nothing"
        process.kill()
        process.communicate()
    keys = json.loads(path.read_text())
    del keys["rate.records.per.second"]  # now as fast as it goes
    path.write_text(json.dumps(keys))
    code, said, err = finish(project, path)
    assert code == 0, err
    assert 0 < said["records"] < RECORDS
    assert numbers(project, name) == Counter(range(RECORDS))
    assert finish(project, path)[1]["records"] == 0
    code, said, _ = finish(project, path, "--reset")
    assert (code, said["records"]) == (0, RECORDS)


def test_bad_lines_go_to_the_dead_letter_topic_with_their_reasons(project: Settings, topic: Callable[..., str]) -> None:
    name = topic()
    dead = f"{name}.dead"
    path = write(project, name, ["1,a", "two,b", "3,c", "4,d,e"], errors_tolerance="all",
                 errors_deadletterqueue_topic_name=dead)
    code, said, err = finish(project, path)
    assert (code, said["records"], said["rejected"]) == (0, 2, 2), err
    assert numbers(project, name) == Counter([1, 3])
    found = read(project, dead)
    assert [m.value() for m in found] == [b"two,b", b"4,d,e"]
    headers = [dict(m.headers()) for m in found]
    assert [h["headrace.file"] for h in headers] == [b"readings.csv:3", b"readings.csv:5"]
    assert json.loads(headers[0]["headrace.reasons"]) == ["n: “two” is not a long"]
    assert headers[1]["__connect.errors.exception.message"] == b"3 cells where the header has 2"
    assert headers[1]["__connect.errors.connector.name"] == name.encode()


def test_without_tolerance_a_bad_line_stops_it_and_mended_it_goes_on(project: Settings,
                                                                     topic: Callable[..., str]) -> None:
    name = topic()
    path = write(project, name, ["1,a", "2,b", "three,c", "4,d"], batch_records="2")
    code, _, err = finish(project, path)
    assert code == 2
    assert "readings.csv:4: n: “three” is not a long" in err
    assert numbers(project, name) == Counter([1, 2])
    write(project, name, ["1,a", "2,b", "3,c", "4,d"], batch_records="2")
    assert finish(project, path)[0] == 0
    assert numbers(project, name) == Counter([1, 2, 3, 4])


def test_a_file_that_grows_is_followed_until_sigterm(project: Settings, topic: Callable[..., str],
                                                     tmp_path: Path) -> None:
    name, log = topic(), tmp_path / "log"
    path = write(project, name, ["1,a"], tail="true")
    assert finish(project, path, "--drain")[1]["records"] == 1
    process = start(project, path, "--log", "debug", log=log)
    try:
        with (project.project / "readings.csv").open("a") as file:
            file.write("2,b\n3,")
            file.flush()
            while '"committed"' not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert json.loads(out)["records"] == 1
    assert numbers(project, name) == Counter([1, 2])


def test_a_rival_of_the_same_name_fences_the_first(project: Settings, topic: Callable[..., str],
                                                   tmp_path: Path) -> None:
    name, log = topic(), tmp_path / "log"
    path = write(project, name, [f"{n},s" for n in range(3000)], rate_records_per_second="300")
    first = start(project, path, "--log", "debug", log=log)
    while '"committed"' not in log.read_text():
        assert first.poll() is None, log.read_text()
        time.sleep(0.05)
    fast = json.loads(path.read_text()) | {"rate.records.per.second": "100000"}
    path.write_text(json.dumps(fast))
    assert finish(project, path)[0] == 0
    first.communicate(timeout=60)
    assert first.returncode == 4
    assert "was taken by another producer" in log.read_text()
    assert numbers(project, name) == Counter(range(3000))


def test_several_connectors_in_one_process_and_the_time_of_records(project: Settings,
                                                                   topic: Callable[..., str]) -> None:
    one, two = topic(), topic()
    first = write(project, one, ["1,a", "2,b"], timestamp_column="n")
    second = write(project, two, ["1,a", "2,b"])
    process = start(project, first, str(second))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert [json.loads(line)["records"] for line in out.splitlines()] == [2, 2]
    assert [m.timestamp()[1] for m in read(project, one)] == [1, 2]
    assert numbers(project, two) == Counter([1, 2])
