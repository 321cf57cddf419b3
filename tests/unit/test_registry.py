"""The registry's bad days: no answer, another server, a busy one. The real registry is in tests/integration."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from headrace.codec import UnknownSchema, parse
from headrace.errors import EnvironmentFault, RegistryError, Retriable, SchemaError
from headrace.registry import Registry, RegistryUnreachable

pytestmark = pytest.mark.unit


@contextmanager
def server(status: int, body: str) -> Iterator[tuple[str, list[str]]]:
    """A server that says one thing to everything; (its address, the paths that were asked for)."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}", asked
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def registry(url: str) -> Registry:
    return Registry({"url": url, "max.retries": 0, "timeout": 2.0})


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_no_answer_is_worth_another_try_and_names_the_address_without_the_password() -> None:
    port = free_port()
    with pytest.raises(RegistryUnreachable) as error:
        registry(f"http://us:pssst@127.0.0.1:{port}/path").schema(1)
    assert isinstance(error.value, Retriable)
    assert isinstance(error.value, RegistryError)
    assert error.value.retry_after_s > 0
    assert f"http://127.0.0.1:{port}/path" in str(error.value)
    assert "pssst" not in str(error.value)
    assert "HEADRACE_REGISTRY" in str(error.value)


def test_one_that_is_away_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("headrace.registry.monotonic", lambda: now)
    asked: list[int] = []
    one = registry("http://127.0.0.1:1/path")

    def ask(question: Any) -> Any:
        nonlocal now
        now += 15.0  # of a server that takes the question, and says nothing
        asked.append(1)
        raise RegistryUnreachable("no answer", retry_after_s=2.0)

    monkeypatch.setattr(one, "_ask", ask)
    waits = []
    for later in (0.0, 0.0, 29.0, 1.5):
        now += later
        with pytest.raises(RegistryUnreachable) as error:
            one.schema(7)
        waits.append(error.value.retry_after_s)
    assert waits == [30.0, 30.0, 1.0, 30.0]
    assert len(asked) == 2


@pytest.mark.parametrize(("status", "body", "kind", "says"), [
    (404, "<html>", RegistryError, "is no schema registry"), (200, "<html>", RegistryError, "is no schema registry"),
    (404, '{"message": "no such page"}', RegistryError, "no such page"),
    (503, '{"error_code": 50003, "message": "starting"}', RegistryUnreachable, "starting (503)"),
    (429, '{"error_code": 429, "message": "slowly"}', RegistryUnreachable, "slowly"),
    (401, '{"error_code": 401, "message": "who are you"}', RegistryError, "basic.auth.user.info"),
    (404, '{"error_code": 40403, "message": "Schema not found"}', UnknownSchema, "the registry has no schema 7"),
    (200, '{"schema": "{}", "schemaType": "PROTOBUF"}', SchemaError, "a PROTOBUF schema; headrace reads Avro"),
    (200, '{"schema": "{}"}', SchemaError, "schema 7 of"),
], ids=str)
def test_each_answer_has_its_error(status: int, body: str, kind: type[Exception], says: str) -> None:
    with server(status, body) as (url, _), pytest.raises(kind) as error:
        registry(url).schema(7)
    assert says in str(error.value)
    if kind is not RegistryUnreachable:
        assert not isinstance(error.value, Retriable)


def test_settings_that_are_wrong_are_told_before_anything_is_asked() -> None:
    with pytest.raises(RegistryError, match="Unrecognized properties: no"):
        Registry({"url": "http://127.0.0.1:1", "no": 1}).schema(1)
    with pytest.raises(RegistryError, match="Invalid url"):
        Registry({"url": "here"}).schema(1)
    assert not isinstance(RegistryError("x"), Retriable)
    assert issubclass(RegistryError, EnvironmentFault)


def test_a_schema_is_asked_for_once_and_an_unknown_one_not_at_every_batch() -> None:
    with server(200, '{"schema": "\\"string\\""}') as (url, asked):
        one = registry(url)
        assert one.schema(3) is one.schema(3)
        assert one.schema(3) == parse('"string"')
        assert len(asked) == 1
    with server(404, '{"error_code": 40403, "message": "no"}') as (url, asked):
        one = registry(url)
        for _ in range(3):
            with pytest.raises(UnknownSchema):
                one.schema(3)
        assert len(asked) == 1


def test_a_refused_schema_is_the_users_affair() -> None:
    body = '{"error_code": 409, "message": "incompatible with version 1"}'
    with server(409, body) as (url, _), pytest.raises(SchemaError, match="refuses the schema for s: incompatible with"):
        registry(url).register("s", parse('"string"'))
