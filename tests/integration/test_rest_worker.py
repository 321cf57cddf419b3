"""The Connect worker over HTTP, with real connectors: its life, its death, its secrets."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.connect import store
from headrace.connect.server import serve
from headrace.connect.store import Topics
from headrace.errors import ConfigError, Fenced, UserError
from headrace.peek import scan
from headrace.settings import Settings
from headrace.topics import admin
from tests.integration.restworld import group, inside, process

pytestmark = pytest.mark.integration
CANARY = "canary-7d02-b1"


@pytest.fixture
def name(project: Settings) -> Iterator[str]:
    """A connector's name of this test's own; its offsets and its group go with it."""
    made = f"c{uuid.uuid4().hex[:10]}"
    yield made
    admin(project).delete_consumer_groups([f"connect-{made}"])


def source(project: Settings, topic: str, lines: int = 100) -> dict[str, str]:
    (project.project / "in.txt").write_text("".join(f"line {n}\n" for n in range(lines)))
    return {"connector.class": "FileStreamSource", "file": "in.txt", "topic": topic}


def written(project: Settings, topic: str) -> list[str]:
    values = [message.value() for batch in scan(project, topic, await_open=True) for message in batch]
    return [value.decode() for value in values if value is not None]


def running(data: Any) -> bool:
    return [task["state"] for task in data["tasks"]] == ["RUNNING"]


def stands_at(data: Any, position: int) -> bool:
    return bool(data["offsets"]) and data["offsets"][0]["offset"] == {"position": position}


def test_the_life_of_a_source(project: Settings, topic: Callable[..., str], name: str) -> None:
    to = topic()
    config = source(project, to)
    size = (project.project / "in.txt").stat().st_size
    one = f"/connectors/{name}"
    with inside(project, None) as worker:
        assert worker.ask("GET", "/").data["kafka_cluster_id"]
        assert worker.ask("POST", "/connectors", {"name": name, "config": config}).status == 201
        worker.until(f"{one}/offsets", lambda data: stands_at(data, size))
        assert len(written(project, to)) == 100
        worker.until(f"{one}/topics", lambda data: data == {name: {"topics": [to]}})
        assert worker.state(name) == ("RUNNING", ["RUNNING"])
        refused = worker.ask("DELETE", f"{one}/offsets")
        assert (refused.status, refused.data["message"][:42]) == (400, "Connectors must be in the STOPPED state be")
        worker.ask("PUT", f"{one}/pause")
        worker.until(f"{one}/status", lambda data: data["tasks"][0]["state"] == "PAUSED")
        with (project.project / "in.txt").open("a") as file:
            file.write("more\n")
        worker.ask("PUT", f"{one}/resume")
        worker.until(f"{one}/offsets", lambda data: stands_at(data, size + 5))
        assert worker.ask("POST", f"{one}/restart?includeTasks=true").status == 202
        worker.until(f"{one}/status", lambda data: data["tasks"][0]["state"] == "RUNNING")
        assert worker.ask("PUT", f"{one}/stop").status == 204
        assert worker.state(name) == ("STOPPED", [])
        at = [{"partition": {"filename": "in.txt"}, "offset": {"position": size}}]
        assert worker.ask("PATCH", f"{one}/offsets", {"offsets": at}).data == {
            "message": "The offsets for this connector have been altered successfully"}
        assert worker.ask("GET", f"{one}/offsets").data == {"offsets": at}
        worker.ask("PUT", f"{one}/resume")
        worker.until(f"{one}/offsets", lambda data: stands_at(data, size + 5))
        assert len(written(project, to)) == 102  # the last line twice, as it was asked for
        worker.ask("PUT", f"{one}/stop")
        assert worker.ask("DELETE", f"{one}/offsets").status == 200
        assert worker.ask("GET", f"{one}/offsets").data == {"offsets": []}
        assert worker.ask("DELETE", one).status == 204
        assert worker.ask("GET", one).status == 404


def test_a_sinks_life(project: Settings, topic: Callable[..., str], name: str) -> None:
    from_ = topic("t", 2)
    produce(project, from_, [b'{"schema":null,"payload":"%d"}' % n for n in range(50)])
    config = {"connector.class": "FileStreamSink", "file": "out.txt", "topics": from_, "tasks.max": "2"}
    one = f"/connectors/{name}"
    with inside(project, None) as worker:
        assert worker.ask("POST", "/connectors", {"name": name, "config": config}).status == 201
        total = worker.until(f"{one}/offsets", lambda data: sum(
            at["offset"]["kafka_offset"] for at in data["offsets"]) == 50)
        assert {at["partition"]["kafka_topic"] for at in total["offsets"]} == {from_}
        assert len((project.project / "out.txt").read_text().splitlines()) == 50
        assert worker.state(name) == ("RUNNING", ["RUNNING", "RUNNING"])
        worker.until(f"{one}/topics", lambda data: data == {name: {"topics": [from_]}})
        assert worker.ask("PUT", f"{one}/stop").status == 204
        first = [{"partition": {"kafka_topic": from_, "kafka_partition": 0}, "offset": {"kafka_offset": 1}}]
        altered = worker.ask("PATCH", f"{one}/offsets", {"offsets": first})
        assert altered.status == 200, altered.text
        assert worker.ask("GET", f"{one}/offsets").data["offsets"][0] == first[0]
        nowhere = [{"partition": {"kafka_topic": "no.such.topic", "kafka_partition": 0}, "offset": {"kafka_offset": 1}}]
        assert worker.ask("PATCH", f"{one}/offsets", {"offsets": nowhere}).status == 400
        assert worker.ask("DELETE", f"{one}/offsets").status == 200
        assert worker.ask("GET", f"{one}/offsets").data == {"offsets": []}


def produce(project: Settings, topic: str, values: list[bytes]) -> None:
    from confluent_kafka import Producer

    producer = Producer(project.client(enable_idempotence=True, linger_ms=5))
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(60) == 0


def test_a_new_worker_goes_on_where_a_killed_one_stopped(
        project: Settings, topic: Callable[..., str], name: str, tmp_path: Path) -> None:
    to, of = topic(), group()
    config = source(project, to, 1_000)
    paused, stopped = f"{name}.p", f"{name}.s"
    with process(project.project, of, tmp_path / "one.log") as worker:
        assert worker.process is not None
        assert worker.ask("POST", "/connectors", {"name": name, "config": config}).status == 201
        for other, state in ((paused, "PAUSED"), (stopped, "STOPPED")):
            assert worker.ask("POST", "/connectors", {
                "name": other, "config": config, "initial_state": state}).status == 201
        worker.until(f"/connectors/{name}/offsets", lambda data: bool(data["offsets"]))
        worker.until(f"/connectors/{name}/topics", lambda data: data == {name: {"topics": [to]}})
        worker.process.kill()
        worker.process.wait()
    with (project.project / "in.txt").open("a") as file:
        file.write("line 1000\n")
    with process(project.project, of, tmp_path / "two.log") as worker:
        assert sorted(worker.ask("GET", "/connectors").data) == sorted([name, paused, stopped])
        worker.until(f"/connectors/{name}/status", running)
        worker.until(f"/connectors/{paused}/status", lambda data: [t["state"] for t in data["tasks"]] == ["PAUSED"])
        assert worker.state(stopped) == ("STOPPED", [])
        size = (project.project / "in.txt").stat().st_size
        worker.until(f"/connectors/{name}/offsets", lambda data: stands_at(data, size))
        assert worker.ask("GET", f"/connectors/{name}/config").data == {**config, "name": name}
        lines = written(project, to)
        assert len(lines) == len(set(lines)) == 1_001
        for each in (name, paused, stopped):
            assert worker.ask("DELETE", f"/connectors/{each}").status == 204
    with inside(project, of) as third:
        assert third.ask("GET", "/connectors").data == []


def test_a_worker_that_is_shut_out_ends(
        project: Settings, topic: Callable[..., str], name: str, tmp_path: Path) -> None:
    """Stopped for a while (SIGSTOP), taken for dead, and woken again: it must not go on beside its successor."""
    of = group()
    with process(project.project, of, tmp_path / "one.log") as first:
        assert first.process is not None
        assert first.ask("POST", "/connectors", {"name": name, "config": source(project, topic())}).status == 201
        os.kill(first.process.pid, signal.SIGSTOP)
        try:
            with inside(project, of) as second:
                second.until(f"/connectors/{name}/status", running)
                os.kill(first.process.pid, signal.SIGCONT)
                assert first.process.wait(60) != 0
                assert b"another worker has taken over" in (tmp_path / "one.log").read_bytes()
                assert second.state(name) == ("RUNNING", ["RUNNING"])
                second.ask("DELETE", f"/connectors/{name}")
        finally:
            if first.process.poll() is None:
                os.kill(first.process.pid, signal.SIGCONT)


def test_the_store_tells_whom_it_shut_out(project: Settings) -> None:
    of = group()
    heard: list[Fenced] = []
    one = Topics(project, of, "one", heard.append)
    one.open()
    one.put(store.CONFIGS, ("connector", "c"), {"config": {"a": "ü"}, "target": "RUNNING"}).result(60)
    one.put(store.STATUS, ("task", "c", 0), {"state": "RUNNING"})
    one.put(store.STATUS, ("task", "c", 0), None)
    one.put(store.STATUS, ("task", "c", 1), {"state": "FAILED"}).result(60)
    two = Topics(project, of, "two", heard.append)
    configs, statuses = two.open()
    assert configs == {("connector", "c"): {"config": {"a": "ü"}, "target": "RUNNING"}}
    assert statuses[("task", "c", 1)] == {"state": "FAILED"}
    assert ("task", "c", 0) not in statuses
    with pytest.raises(Fenced):
        one.put(store.CONFIGS, ("connector", "c"), None).result(60)
    assert len(heard) == 1
    assert one.ailing()
    other = Topics(project, group(), "other", heard.append)
    assert other.open()[0] == {}  # groups know nothing of each other
    two.put(store.CONFIGS, ("connector", "c"), None).result(60)
    for each in (one, two, other):
        each.close()


def test_connectors_from_files(project: Settings, topic: Callable[..., str], name: str) -> None:
    to = topic()
    file = project.project / "connectors" / "c.properties"
    file.write_text("".join(f"{k}={v}\n" for k, v in {"name": name, **source(project, to)}.items()))
    with inside(project, None, (file,)) as worker:
        assert worker.ask("GET", "/connectors").data == [name]
        worker.until(f"/connectors/{name}/offsets", lambda data: bool(data["offsets"]))
        assert worker.ask("DELETE", f"/connectors/{name}").status == 204
    file.write_text("name=x\nconnector.class=FileStreamSource\n")
    with pytest.raises((ConfigError, AssertionError)), inside(project, None, (file,)):
        pass


def test_secrets_are_in_no_log_and_no_answer(project: Settings, topic: Callable[..., str], name: str, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary in the configuration, one in the environment, one in a URL: the worker logs at debug level."""
    monkeypatch.setenv("CANARY", CANARY + "-env")
    config = {**source(project, topic()), "producer.override.sasl.password": CANARY,
              "my.url": f"https://me:{CANARY}@example.invalid/", "my.secret": "${env:CANARY}"}
    log = tmp_path / "worker.log"
    with process(project.project, group(), log) as worker:
        one = f"/connectors/{name}"
        made = worker.ask("POST", "/connectors", {"name": name, "config": config})
        assert made.status == 201, made.text
        worker.ask("PUT", f"{one}/config", made.data["config"])
        worker.ask("PUT", f"{one}/config", {**config, "file": "${env:CANARY}/in.txt", "tail": "false"})
        for path in ("", "/config", "/tasks", "/status", "/offsets", "/topics"):
            worker.ask("GET", one + path)
        worker.ask("PUT", "/connector-plugins/FileStreamSource/config/validate", {**config, "tasks.max": CANARY})
        worker.ask("PUT", f"{one}/config", {**config, "tasks.max": CANARY + "-env"})
        worker.ask("GET", "/connectors?expand=info&expand=status")
        worker.ask("POST", f"{one}/restart?includeTasks=true")
        worker.ask("PUT", f"{one}/stop")
        worker.ask("DELETE", one)
        heard = "".join(worker.heard)
    assert "[hidden]" in heard
    assert CANARY not in heard
    assert CANARY not in log.read_text()


def test_a_port_that_is_taken(project: Settings) -> None:
    with inside(project, None) as worker, pytest.raises(UserError, match="cannot listen at"):
        serve(project, listen=worker.address, group=group(), stop=threading.Event())


