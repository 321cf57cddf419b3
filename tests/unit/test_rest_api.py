"""The REST API over a herder whose tasks are scripted: answers, odd requests, secrets."""

from __future__ import annotations

import http.client
import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from headrace.connect import openapi
from headrace.connect.rest.app import Api
from tests.unit.restkit import Answer, Stage, ask, levels_kept, lines, served

pytestmark = pytest.mark.unit
SECRET = "canary-5f1e"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    stage.herder.start()
    yield stage
    stage.herder.stop()


@pytest.fixture
def api(stage: Stage) -> Iterator[str]:
    with levels_kept(), served(stage.herder) as address:
        yield address


def fails(answer: Answer, status: int, message: str) -> None:
    assert (answer.status, answer.data) == (status, {"error_code": status, "message": message})


def test_the_life_of_a_connector(api: str, stage: Stage, tmp_path: Path) -> None:
    config = lines(tmp_path)
    made = ask(api, "POST", "/connectors", {"name": "c", "config": config})
    assert (made.status, made.headers["Location"]) == (201, f"{api}/connectors/c")
    assert made.data == {"name": "c", "config": {**config, "name": "c"}, "tasks": [], "type": "source"}
    assert ask(api, "GET", "/connectors").data == ["c"]
    assert ask(api, "GET", "/connectors/c").data["tasks"] == [{"connector": "c", "task": 0}]
    assert ask(api, "GET", "/connectors/c/tasks").data == [{"id": {"connector": "c", "task": 0}, "config": {
        **config, "name": "c", "task.class": "org.apache.kafka.connect.file.FileStreamSourceTask"}}]
    fails(ask(api, "POST", "/connectors", {"name": "c", "config": config}), 409, "Connector c already exists")
    assert ask(api, "PUT", "/connectors/c/config", {**config, "batch.size": "5"}).status == 200
    patched = ask(api, "PATCH", "/connectors/c/config", {"batch.size": None, "tasks.max": 2})
    assert (patched.status, patched.data["config"]) == (200, {**config, "name": "c", "tasks.max": "2"})

    def states() -> tuple[str, list[str]]:
        told = ask(api, "GET", "/connectors/c/status").data
        return told["connector"]["state"], [task["state"] for task in told["tasks"]]

    assert states() == ("RUNNING", ["RUNNING"])
    assert ask(api, "PUT", "/connectors/c/pause").status == 202
    assert states() == ("PAUSED", ["PAUSED"])
    assert ask(api, "PUT", "/connectors/c/config", config).status == 200
    assert states() == ("PAUSED", ["PAUSED"])  # it stays what was wanted of it
    assert ask(api, "PUT", "/connectors/c/resume").status == 202
    assert states() == ("RUNNING", ["RUNNING"])
    assert ask(api, "PUT", "/connectors/c/stop").status == 204
    assert states() == ("STOPPED", [])
    assert ask(api, "GET", "/connectors/c/tasks").data == []
    assert ask(api, "PUT", "/connectors/c/resume").status == 202
    assert states() == ("RUNNING", ["RUNNING"])
    stage.made[-1].done.topics.add("t")
    assert ask(api, "GET", "/connectors/c/topics").data == {"c": {"topics": ["t"]}}
    assert ask(api, "PUT", "/connectors/c/topics/reset").status == 202
    assert ask(api, "GET", "/connectors/c/topics").data == {"c": {"topics": []}}
    assert ask(api, "POST", "/connectors/c/restart").status == 204
    plan = ask(api, "POST", "/connectors/c/restart?includeTasks=true")
    assert (plan.status, plan.data["connector"]["state"], plan.data["tasks"][0]["state"]) == (
        202, "RESTARTING", "RESTARTING")
    assert ask(api, "POST", "/connectors/c/restart?onlyFailed=true").data["connector"]["state"] == "RUNNING"
    assert ask(api, "POST", "/connectors/c/tasks/0/restart").status == 204
    assert ask(api, "DELETE", "/connectors/c").status == 204
    fails(ask(api, "GET", "/connectors/c/status"), 404, "No status found for connector c")
    assert all(task.calls[-1] == "stop" for task in stage.made)


@pytest.mark.parametrize("state", ["STOPPED", "paused"])
def test_initial_states(api: str, stage: Stage, tmp_path: Path, state: str) -> None:
    body = {"name": " c ", "config": lines(tmp_path), "initial_state": state}
    assert ask(api, "POST", "/connectors", body).status == 201
    told = ask(api, "GET", "/connectors/c/status").data
    assert told["connector"]["state"] == state.upper()
    assert [task.calls for task in stage.made] == ([] if state == "STOPPED" else [["pause", "start"]])


@pytest.mark.parametrize(("method", "path", "message"), [
    ("GET", "", "Connector none not found"), ("GET", "/config", "Connector none not found"),
    ("GET", "/status", "No status found for connector none"), ("GET", "/tasks", "Connector none not found"),
    ("GET", "/tasks/0/status", "No status found for task none-0"), ("GET", "/offsets", "Connector none not found"),
    ("PUT", "/pause", "Unknown connector none"), ("PUT", "/resume", "Unknown connector none"),
    ("PUT", "/stop", "Unknown connector none"), ("POST", "/restart", "Unknown connector: none"),
    ("POST", "/restart?includeTasks=true", "Unknown connector: none"),
    ("POST", "/tasks/0/restart", "Unknown connector: none"), ("POST", "/tasks/x/restart", "HTTP 404 Not Found"),
    ("DELETE", "", "Connector none not found"), ("DELETE", "/offsets", "Connector none not found"),
    ("GET", "/nothing", "HTTP 404 Not Found")])
def test_no_such_connector(api: str, method: str, path: str, message: str) -> None:
    fails(ask(api, method, f"/connectors/none{path}"), 404, message)


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b'"x"', b"3", b"\xff", b'{"name": "x"}', b'{"name": ["x"], "config": {}}', b"[" * 50_000,
    b'{"name": "x", "config": {"connector.class": ["a"]}}', b'{"name": "x", "config": {"tasks.max": NaN}}',
    b'{"name": "x", "config": {}, "more": 1}', b'{"name": "\\ud800", "config": {"connector.class": "file"}}',
    b'{"name": "x", "config": {"connector.class": "file", "n": ' + b"9" * 9_000 + b"}}",
    b'{"name": "x", "config": {"connector.class": "FileStreamSource"}, "initial_state": "FLYING"}',
    b'{"name": "x", "config": {"name": "y"}}', b'{"config": {"connector.class": "FileStreamSource", "topic": "t"}}'])
def test_malformed_bodies(api: str, body: bytes) -> None:
    answer = ask(api, "POST", "/connectors", body)
    assert answer.status == 400
    assert answer.data["error_code"] == 400
    for method, path in (("PUT", "/connectors/x/config"), ("PUT", "/admin/loggers/root"),
                         ("PUT", "/connector-plugins/file/config/validate"), ("PATCH", "/connectors/x/offsets")):
        assert ask(api, method, path, body).status in (400, 404)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "x"])
def test_wrong_content_types(api: str, kind: str | None) -> None:
    fails(ask(api, "POST", "/connectors", b"{}", content_type=kind), 415, "HTTP 415 Unsupported Media Type")


def test_too_large_a_body(api: str) -> None:
    answer = ask(api, "PUT", "/connectors/x/config", {"a": "x" * (2 << 20)})
    assert (answer.status, answer.data["error_code"]) == (413, 413)


@pytest.mark.parametrize("name", ["a/b", "ä", "😀", "a b", "a%b", "..", "a\nb", "a\x00b", "x" * 300, "a?b", "a#b", "+",
                                  "ünïcode/../x", "a;b"])
def test_odd_names(api: str, tmp_path: Path, name: str) -> None:
    """Names of ours are plain; others are refused, however they are written."""
    path = f"/connectors/{quote(name, safe='')}"
    assert ask(api, "PUT", f"{path}/config", lines(tmp_path)).status in (400, 201 if name == ".." else 400)
    assert ask(api, "POST", "/connectors", {"name": name, "config": lines(tmp_path)}).status in (400, 409)
    if name != "..":
        fails(ask(api, "GET", path), 404, f"Connector {name} not found")


@pytest.mark.parametrize("path", ["/connectors/%FF", "/connectors/%", "/connectors/%zz/config", "/%2e%2e/%2e%2e",
                                  "//connectors", "/connectors//config", "/connectors/x/tasks/99999999999/status"])
def test_odd_paths(api: str, path: str) -> None:
    assert ask(api, "GET", path).status in (400, 404)


def test_odd_requests_are_no_servers_fault(api: str) -> None:
    host, _, port = api.removeprefix("http://").partition(":")
    for host_header in ("", "a b", "ö", "x" * 5_000):
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        connection.putrequest("GET", "/connectors", skip_host=True)
        connection.putheader("Host", host_header.encode())
        connection.endheaders()
        assert connection.getresponse().status < 500
        connection.close()
    assert ask(api, "TRACE", "/connectors").status == 405
    assert ask(api, "DELETE", "/connectors").headers["Allow"]


def test_trailing_slashes_and_heads(api: str) -> None:
    assert ask(api, "GET", "/connectors/").data == []
    assert ask(api, "GET", "/").data["kafka_cluster_id"] == "cluster"


def test_health(stage: Stage, api: str) -> None:
    assert ask(api, "GET", "/health").data == {
        "status": "healthy", "message": "Worker has completed startup and is ready to handle requests."}
    stage.herder.ready = False
    assert ask(api, "GET", "/health").status == 503
    assert ask(api, "PUT", "/connectors/x/pause").status == 503
    stage.herder.ready = True


def test_loggers(api: str) -> None:
    name = "headrace.connect.test_loggers"
    fails(ask(api, "GET", f"/admin/loggers/{name}"), 404, f"Logger {name} not found.")
    begun = time.time() * 1e3 - 1
    assert ask(api, "PUT", f"/admin/loggers/{name}", {"level": "debug"}).data == [name]
    told = ask(api, "GET", f"/admin/loggers/{name}").data
    assert told["level"] == "DEBUG"
    assert begun <= told["last_modified"] <= time.time() * 1e3
    assert logging.getLogger(name).level == logging.DEBUG
    assert ask(api, "PUT", f"/admin/loggers/{name}?scope=cluster", {"level": "WARN"}).status == 204
    assert ask(api, "GET", "/admin/loggers").data[name]["level"] == "WARN"
    fails(ask(api, "PUT", f"/admin/loggers/{name}", {"level": "loud"}), 404, "invalid log level 'loud'.")
    fails(ask(api, "PUT", f"/admin/loggers/{name}", {}), 400,
          "Desired 'level' parameter was not specified in request.")


def test_secrets_are_in_no_answer(api: str, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", SECRET + "-env")
    config = {**lines(tmp_path), "producer.override.sasl.password": SECRET, "some.url": f"http://me:{SECRET}@h/",
              "consumer.override.sasl.password": "${env:CANARY}"}
    heard: list[str] = []

    def told(method: str, path: str, body: Any = None) -> Answer:
        answer = ask(api, method, path, body)
        heard.append(answer.text + json.dumps(answer.headers))
        return answer

    made = told("POST", "/connectors", {"name": "c", "config": config})
    shown = made.data["config"]
    assert shown["producer.override.sasl.password"] == "[hidden]"
    assert shown["some.url"] == "http://me:[hidden]@h/"
    assert shown["consumer.override.sasl.password"] == "${env:CANARY}"
    for path in ("", "/config", "/tasks", "/status"):
        told("GET", f"/connectors/c{path}")
    told("GET", "/connectors?expand=info&expand=status")
    stage.made[0].fail(f"the database said: {SECRET} is no password, nor is {SECRET}-env")
    assert "[hidden] is no password, nor is [hidden]" in told("GET", "/connectors/c/status").data["tasks"][0]["trace"]
    assert told("PUT", "/connectors/c/config", shown).status == 200  # the masks, sent back
    assert stage.made[-1].spec.raw == {**config, "name": "c"}
    told("PATCH", "/connectors/c/config", {"topic": "u"})
    assert stage.made[-1].spec.raw["producer.override.sasl.password"] == SECRET
    validated = told("PUT", "/connector-plugins/FileStreamSource/config/validate", {
        **config, "name": "c", "tasks.max": SECRET, "connector.class": "FileStreamSource"})
    assert validated.data["error_count"] > 0
    told("PUT", "/connectors/c/config", {**config, "tasks.max": SECRET, "topic": ""})
    told("POST", "/connectors", {"name": "d", "config": {"password": SECRET}})
    told("POST", "/connectors", {"name": "d", "config": {**config, "password": "[hidden]"}})
    told("PUT", "/connectors/d/config", {"connector.class": "postgres", "connection.password": SECRET})
    assert SECRET not in "".join(heard)


def test_a_mask_of_nothing_is_refused(api: str, tmp_path: Path) -> None:
    answer = ask(api, "POST", "/connectors", {"name": "c", "config": {**lines(tmp_path), "a.password": "[hidden]"}})
    assert answer.status == 400
    assert "a.password: [hidden] stands for a secret that was not given before" in answer.data["message"]


def test_every_endpoint_is_in_the_document(stage: Stage) -> None:
    assert set(Api(stage.herder, None).routes()) == set(openapi.OPERATIONS)
    document = openapi.document("1")
    text = json.dumps(document)
    for kind, name in re.findall(r'"#/components/(\w+)/(\w+)"', text):
        assert name in document["components"][kind]
    identifiers = [o["operationId"] for path in document["paths"].values() for o in path.values()]
    assert len(set(identifiers)) == len(identifiers)


def test_a_connector_that_no_longer_holds(tmp_path: Path) -> None:
    """A worker that starts and finds a configuration of which something is gone goes on with the others."""
    from headrace.connect import store

    class Kept(store.Memory):
        def open(self) -> tuple[store.Facts, store.Facts]:
            return {("connector", "good"): {"config": {**lines(tmp_path), "name": "good"}, "target": "RUNNING"},
                    ("connector", "bad"): {"config": {**lines(tmp_path), "name": "bad", "file": ""},
                                           "target": "RUNNING"},
                    ("connector", "off"): {"config": {**lines(tmp_path), "name": "off"}, "target": "STOPPED"}}, {
                ("topics", "good"): {"topics": ["t"]}, ("worker",): {"worker_id": "w"},
                ("task", "gone", 0): {"state": "RUNNING"}, ("task", "good", 0): {
                    "state": "FAILED", "auto_restart": {"count": 3, "last_at": None, "next_at": None}}}

    stage = Stage(tmp_path, Kept())
    stage.herder.start()
    try:
        with served(stage.herder) as api:
            end = time.monotonic() + 60
            while (told := ask(api, "GET", "/connectors/bad/status").data)["connector"]["state"] != "FAILED":
                assert time.monotonic() < end
                time.sleep(0.05)
            assert "invalid" in told["connector"]["trace"]
            assert ask(api, "GET", "/connectors/bad/offsets").status == 400
            assert ask(api, "GET", "/connectors/good/topics").data == {"good": {"topics": ["t"]}}
            assert ask(api, "GET", "/connectors/good/status").data["tasks"][0]["auto_restart"]["count"] == 3
            assert ask(api, "PUT", "/connectors/bad/config", lines(tmp_path)).status == 200
            assert ask(api, "GET", "/connectors/bad/status").data["connector"]["state"] == "RUNNING"
            assert ask(api, "GET", "/connectors/off/status").data["connector"]["state"] == "STOPPED"
            assert sorted(task.spec.name for task in stage.made) == ["bad", "good"]
    finally:
        stage.herder.stop()
