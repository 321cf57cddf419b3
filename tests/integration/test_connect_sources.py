"""The sources under the real runtime, into real topics: lines, a folder, made-up records, a webhook, a poller."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from headrace import codec
from headrace.codec import Decoder
from headrace.connect import offsets
from headrace.peek import bounds
from headrace.registry import Registry
from headrace.settings import Settings
from tests.integration.connectkit import Watched, made, until
from tests.integration.held import read
from tests.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SCHEMA = {"type": "record", "name": "Reading", "fields": [{"name": "id", "type": "long"},
                                                          {"name": "city", "type": ["null", "string"]}]}
JSON = {"value__converter": "org.apache.kafka.connect.json.JsonConverter", "value__converter__schemas__enable": "false"}
TEXT = {"value__converter": "org.apache.kafka.connect.storage.StringConverter"}


@pytest.fixture(autouse=True)
def schema(project: Settings) -> None:
    (project.project / "schemas/reading.avsc").write_text(json.dumps(SCHEMA))


def ids(settings: Settings, topic: str) -> list[int]:
    registry = Registry(settings.registry_client())
    values = [m.value() for m in read(settings, topic)]
    decoded = Decoder(codec.parse(json.dumps(SCHEMA)), registry.schema).decode(values)
    assert decoded.rejects == []
    found: list[int] = decoded.rows.column("id").to_pylist()
    return found


def drain(settings: Settings, **keys: str) -> Watched:
    watched = Watched(made(settings, **keys), settings, drain=True)
    watched.task.start()
    watched.expect("ENDED")
    assert watched.task.join(20)
    return watched


def test_kafka_connects_own_file_source_by_its_name(project: Settings, topic: Callable[..., str]) -> None:
    """The file is Kafka's config/connect-file-source.properties, with our topic."""
    name = topic()
    (project.project / "test.txt").write_text("foo\nbar\n")
    keys = {"name": f"local-{name}", "connector__class": "FileStreamSource", "tasks__max": "1", "file": "test.txt",
            "topic": name}
    drain(project, **keys)
    with (project.project / "test.txt").open("a") as file:
        file.write("more\nunfinished")
    drain(project, **keys)
    assert [json.loads(m.value())["payload"] for m in read(project, name)] == ["foo", "bar", "more"]
    assert json.loads(read(project, name)[0].value())["schema"]["type"] == "string"
    assert offsets.listed(made(project, **keys), project) == [
        {"partition": {"filename": "test.txt"}, "offset": {"position": 13}}]


def test_a_watched_folder_is_emptied_into_a_topic(project: Settings, topic: Callable[..., str]) -> None:
    name, folder = topic(), project.project / "in"
    folder.mkdir()
    watched = Watched(made(project, name=f"folder-{name}", connector__class="file", file="in", topic=name,
                           schema="reading", tail="true", done__folder="done", batch__records="7"), project)
    watched.task.start()
    try:
        for at in range(5):
            part = folder / f"{at}.csv.part"
            part.write_text("id,city\n" + "".join(f"{at * 10 + n},x\n" for n in range(10)))
            part.rename(folder / "same.csv" if at % 2 else folder / f"{at}.csv")
            until(lambda: not list(folder.iterdir()))
    finally:
        watched.end()
    assert watched.states == ["RUNNING"]
    assert ids(project, name) == list(range(50))
    assert sorted(path.name for path in (project.project / "done").iterdir()) == [
        "0.csv", "2.csv", "4.csv", "same.1.csv", "same.csv"]


def end_of(settings: Settings, topic: str) -> int:
    """Where its committed records end now: to read a topic that grows would take until it no longer does."""
    return sum(high for _, high in bounds(settings, topic).values())


def started(settings: Settings, name: str, **keys: str) -> subprocess.Popen[bytes]:
    """`headrace connect` in a process of its own."""
    path = settings.project / "connectors" / f"{name}.json"
    path.write_text(json.dumps({"name": name, **{k.replace("__", "."): v for k, v in keys.items()}}))
    with (settings.project / "log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "headrace", "connect", str(path)], cwd=settings.project,
                                stdout=subprocess.DEVNULL, stderr=log)


def test_datagen_over_kills_gives_the_same_records_as_without(project: Settings, topic: Callable[..., str]) -> None:
    name, other = topic(), topic()
    keys = {"connector__class": "datagen", "schema": "reading", "records__max": "40000", "batch__records": "100"}
    for _ in range(3):
        process = started(project, f"gen-{name}", **keys, topic=name, rate__records__per__second="400")
        before = end_of(project, name)
        until(lambda before=before: end_of(project, name) > before)  # type: ignore[misc]
        assert process.poll() is None, "it was done before the kill: the test proves nothing"
        process.kill()
        process.wait()
    drain(project, name=f"gen-{name}", **keys, topic=name)
    drain(project, name=f"gen-{other}", **keys | {"batch__records": "20000"}, topic=other)
    assert ids(project, name) == list(range(1, 40_001))
    assert [m.value() for m in read(project, name)] == [m.value() for m in read(project, other)]


def test_a_webhook_over_kills_with_keys_takes_each_once(project: Settings, topic: Callable[..., str]) -> None:
    """Senders ask again until they hear 200; the process is killed under them. Who heard 200 finds the record there."""
    name, port = topic(), free_port()
    keys = {"connector__class": "http", "mode": "listen", "listen": f"127.0.0.1:{port}/in", "topic": name,
            "schema": "reading", "key": "id"}
    heard: Counter[int] = Counter()
    tries: Counter[int] = Counter()
    stop = threading.Event()

    def send(first: int) -> None:
        with httpx2.Client(timeout=60, verify=False) as client:
            number = first
            while not stop.is_set():
                tries[number] += 1
                try:
                    answer = client.post(f"http://127.0.0.1:{port}/in", json={"id": number, "city": None},
                                         headers={"Idempotency-Key": str(number)})
                except httpx2.HTTPError:
                    time.sleep(0.1)
                    continue
                if answer.status_code == 200:
                    heard[number] += 1
                    number += 4

    senders = [threading.Thread(target=send, args=(at,)) for at in range(4)]
    for one in senders:
        one.start()
    process = started(project, f"hook-{name}", **keys)
    try:
        for _ in range(4):
            before = len(heard)
            until(lambda before=before: len(heard) > before + 20)  # type: ignore[misc]
            time.sleep(random.uniform(0, 0.3))
            process.kill()
            process.wait()
            process = started(project, f"hook-{name}", **keys)
        before = len(heard)
        until(lambda: len(heard) > before + 20)
    finally:
        stop.set()
        for one in senders:
            one.join(60)
        process.terminate()
        process.wait(30)
    found = Counter(ids(project, name))
    assert set(found.values()) == {1}
    assert set(heard) <= set(found)
    assert max(tries.values()) > 1, "nobody asked twice: the test proves nothing"


def test_a_webhook_without_schema_and_its_headers(project: Settings, topic: Callable[..., str]) -> None:
    name, port = topic(), free_port()
    watched = Watched(made(project, name=f"free-{name}", connector__class="http", listen=f"127.0.0.1:{port}/gh",
                           topic=name, headers="X-GitHub-Event", idempotency__header="X-GitHub-Delivery",
                           **JSON), project)
    watched.task.start()
    watched.expect("RUNNING")
    try:
        with httpx2.Client(timeout=60, verify=False) as client:
            for _ in range(2):
                answer = client.post(f"http://127.0.0.1:{port}/gh",
                                     json=[{"action": "opened", "n": 1}, {"ref": "main"}],
                                     headers={"X-GitHub-Event": "push", "X-GitHub-Delivery": "d1"})
                assert answer.status_code == 200, answer.text
    finally:
        watched.end()
    found = read(project, name)
    assert [json.loads(m.value()) for m in found] == [{"action": "opened", "n": 1}, {"ref": "main"}]
    assert [m.headers() for m in found] == [[("X-GitHub-Event", b"push")]] * 2


@pytest.fixture
def api() -> Iterator[tuple[str, list[dict[str, Any]], list[int]]]:
    """(URL, its rows, the statuses it answers next): at most five rows from `since` on."""
    rows: list[dict[str, Any]] = []
    trouble: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            since = int(self.path.partition("since=")[2] or 0)
            status = trouble.pop() if trouble else 200
            body = json.dumps([row for row in list(rows) if row["id"] >= since][:5]).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", rows, trouble
    server.shutdown()
    thread.join(60)
    server.server_close()


def test_a_polled_api_that_grows_and_fails_over_restarts(project: Settings, topic: Callable[..., str],
                                                         api: tuple[str, list[dict[str, Any]], list[int]]) -> None:
    name, (url, rows, trouble) = topic(), api
    spec = made(project, name=f"poll-{name}", connector__class="http", mode="poll", url=url, topic=name,
                schema="reading", interval__ms="20", cursor__field="id", cursor__parameter="since", batch__records="3",
                errors__retry__delay__max__ms="300")
    for at in range(4):
        rows += [{"id": at * 20 + n // 2, "city": str(n)} for n in range(20)]
        trouble += [503, 429, 500]
        watched = Watched(spec, project)
        watched.task.start()
        until(lambda watched=watched: watched.task.done.records > 0)  # type: ignore[misc]
        watched.end()
        assert watched.states == ["RUNNING"]
    drain(project, **{k.replace(".", "__"): v for k, v in spec.raw.items()})
    assert sorted(ids(project, name)) == sorted(row["id"] for row in rows)


def test_lines_as_text(project: Settings, topic: Callable[..., str]) -> None:
    name = topic()
    Path(project.project / "log.txt").write_bytes(b"one\r\n\ntwo")
    drain(project, name=f"text-{name}", connector__class="file", format="text", file="log.txt", topic=name, **TEXT)
    assert [m.value() for m in read(project, name)] == [b"one", b"", b"two"]
