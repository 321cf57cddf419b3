"""The HTTP sink against a real server on loopback, which answers by script."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.connector import RecordsRefused
from headrace.errors import Retriable, UserError
from headrace.web.sink import HttpSink, HttpSinkConfig
from tests.ports import free_port
from tests.unit.sinkkit import records

pytestmark = pytest.mark.unit
Make = Callable[..., HttpSink]
Answer = tuple[int, dict[str, str]] | str
ROWS = [{"a": at, "s": "é"} for at in range(10)]


class Server(ThreadingHTTPServer):
    """Remembers requests. The next of `answers` is given to each: (status, headers), or "cut" for none at all;
    then 200. A record with `bad` in it is answered 422, in whatever company."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: deque[Answer] = deque()
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def keys(self) -> list[str]:
        return [headers["idempotency-key"] for _, _, headers, _ in self.seen]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that is cut is no error of ours."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        answer: Answer = self.server.answers.popleft() if self.server.answers else (200, {})
        if isinstance(answer, str):
            self.close_connection = True
            return
        status, headers = (422, {}) if answer[0] == 200 and b"bad" in body else answer
        told = b"the record is bad" if status == 422 else b""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(told))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(told)

    do_PUT = do_PATCH = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def make(server: Server) -> Iterator[Make]:
    made: list[HttpSink] = []

    def sink(**keys: str) -> HttpSink:
        dotted = {key.replace("_", "."): value for key, value in keys.items()}
        given = {"url": f"{server.url}/in", "retry.backoff.ms": "1", **dotted}
        made.append(HttpSink(HttpSinkConfig.model_validate(given), project=Path(), name="to-web"))
        assert made[-1].open([("t", 0)]) == {}
        return made[-1]

    yield sink
    for one in made:
        one.close()


def test_arrays(server: Server, make: Make) -> None:
    make(batch_size="4").put([records(ROWS, topic="t", first=100)], {("t", 0): 110})
    assert [json.loads(body) for *_, body in server.seen] == [ROWS[:4], ROWS[4:8], ROWS[8:]]
    assert server.keys == ["to-web/t/0/100-103", "to-web/t/0/104-107", "to-web/t/0/108-109"]
    method, path, headers, _ = server.seen[0]
    assert (method, path, headers["content-type"]) == ("POST", "/in", "application/json")


def test_each_partition_has_requests_of_its_own(server: Server, make: Make) -> None:
    both = records(ROWS, topic="t")
    both = both.but(partitions=both.index % 2)
    make().put([both], {("t", 0): 9, ("t", 1): 10})
    assert server.keys == ["to-web/t/0/0-8", "to-web/t/1/1-9"]
    assert json.loads(server.seen[1][3]) == ROWS[1::2]


def test_structures_in_one_partition_keep_their_order(server: Server, make: Make) -> None:
    make().put([records([{"a": 0}, {"a": 2}], topic="t", index=[0, 2]), records([{"b": 1}], topic="t", index=[1])],
               {("t", 0): 3})
    assert json.loads(server.seen[0][3]) == [{"a": 0}, {"b": 1}, {"a": 2}]


def test_lines_and_sizes(server: Server, make: Make) -> None:
    make(body="lines", batch_bytes_max="60", method="PUT").put([records(ROWS[:6], topic="t")], {("t", 0): 6})
    bodies = [body for *_, body in server.seen]
    assert [json.loads(line) for body in bodies for line in body.splitlines()] == ROWS[:6]
    assert all(len(body) <= 60 for body in bodies)
    assert server.seen[0][0] == "PUT"
    assert server.seen[0][2]["content-type"] == "application/x-ndjson"


def test_a_request_for_each_record(server: Server, make: Make) -> None:
    sink = make(url=f"{server.url}/${{topic}}/${{key}}?x=1", body="record", method="PATCH")
    sink.put([records(ROWS[:2], topic="t", keys=["a/b", "é"])], {("t", 0): 2})
    assert [path for _, path, _, _ in server.seen] == ["/t/a%2Fb?x=1", "/t/%C3%A9?x=1"]
    assert [json.loads(body) for *_, body in server.seen] == ROWS[:2]
    make(body="text").put([records(pa.array(['{"as": "it is"}', "é"]), topic="t", first=2)], {("t", 0): 4})
    assert [body for *_, body in server.seen[2:]] == [b'{"as": "it is"}', "é".encode()]


def test_headers_and_secrets(server: Server, make: Make) -> None:
    sink = make(headers="X-One: 1, X-Two:a:b", headers_secret="X-Key: hidden-1", authorization="Bearer hidden-2")
    sink.put([records(ROWS, topic="t")], {("t", 0): 10})
    headers = server.seen[0][2]
    assert (headers["x-one"], headers["x-two"], headers["x-key"]) == ("1", "a:b", "hidden-1")
    assert headers["authorization"] == "Bearer hidden-2"
    assert "hidden" not in repr(sink.config)


@pytest.mark.parametrize("trouble", [(408, {}), (425, {}), (429, {"Retry-After": "0"}), (500, {}), (503, {}), "cut"])
def test_troubles_that_pass(server: Server, make: Make, trouble: Answer) -> None:
    server.answers.extend([trouble, trouble])
    make().put([records(ROWS, topic="t")], {("t", 0): 10})
    assert server.keys == ["to-web/t/0/0-9"] * 3


def test_what_was_answered_is_not_sent_again(server: Server, make: Make) -> None:
    sink = make(batch_size="4", retries_max="1")
    server.answers.extend([(200, {}), (500, {}), (500, {})])
    poll = [records(ROWS, topic="t")], {("t", 0): 10}
    with pytest.raises(Retriable, match="500"):
        sink.put(*poll)
    sink.put(*poll)
    assert server.keys == [f"to-web/t/0/{span}" for span in ("0-3", "4-7", "4-7", "4-7", "8-9")]
    sink.put(*poll)  # a poll that was done: who sends it again means it
    assert len(server.seen) == 8
    server.answers.extend([(200, {}), (500, {}), (500, {})])
    with pytest.raises(Retriable):
        sink.put(*poll)
    sink.open([("t", 0)])  # after a rebalance nothing is known
    sink.put(*poll)
    assert server.keys[-3:] == [f"to-web/t/0/{span}" for span in ("0-3", "4-7", "8-9")]


def test_retry_after(server: Server, make: Make) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    for given, least, most in (("120", 120, 120), (later, 80, 90)):
        server.answers.append((503, {"Retry-After": given}))
        with pytest.raises(Retriable) as error:
            make().put([records(ROWS, topic="t")], {("t", 0): 10})
        assert least <= error.value.retry_after_s <= most
    assert len(server.seen) == 2
    server.answers.extend([(429, {"Retry-After": "soon"}), (429, {"Retry-After": "1"})])
    begun = datetime.now(UTC)
    make().put([records(ROWS, topic="t")], {("t", 0): 10})
    assert datetime.now(UTC) - begun >= timedelta(seconds=1)


def test_nobody_there(make: Make) -> None:
    with pytest.raises(Retriable, match="does not answer"):
        make(url=f"http://127.0.0.1:{free_port()}/?token=hidden", retries_max="0").put(
            [records(ROWS, topic="t")], {("t", 0): 10})


def test_refused(server: Server, make: Make) -> None:
    rows: list[dict[str, Any]] = [*ROWS[:3], {"s": "bad"}, *ROWS[4:], {"s": "bad"}]
    poll = [records(rows, topic="t")], {("t", 0): 11}
    with pytest.raises(RecordsRefused) as refused:
        make(batch_size="4").put(*poll)
    said = "422 Unprocessable Entity: the record is bad"
    assert refused.value.reasons == dict.fromkeys([*range(4), *range(8, 11)], said)
    server.seen.clear()
    sink = make(batch_size="8", on_4xx="bisect")
    with pytest.raises(RecordsRefused) as refused:
        sink.put(*poll)
    assert set(refused.value.reasons) == {3, 10}
    taken = [row for *_, body in server.seen for row in json.loads(body) if b"bad" not in body]
    good = [row for row in rows if row["s"] != "bad"]
    assert sorted(taken, key=lambda row: int(row["a"])) == good
    asked = len(server.seen)
    sink.put([poll[0][0].take(pa.array([i for i in range(11) if i not in (3, 10)]).to_numpy())], {("t", 0): 11})
    assert len(server.seen) == asked, "the others are there already"
    with pytest.raises(RecordsRefused, match="1 records"):
        sink.put([records([{"a": 1}, None], topic="t")], {("t", 0): 2})


def test_too_large_is_cut(server: Server, make: Make) -> None:
    server.answers.append((413, {}))
    make().put([records(ROWS, topic="t")], {("t", 0): 10})
    assert server.keys == [f"to-web/t/0/{span}" for span in ("0-9", "0-4", "5-9")]


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
def test_wrong_for_every_record(server: Server, make: Make, status: int) -> None:
    server.answers.append((status, {"Location": "/other"}))
    with pytest.raises(UserError, match=str(status)) as error:
        make(url=f"{server.url}/?token=hidden").put([records(ROWS, topic="t")], {("t", 0): 10})
    assert "hidden" not in str(error.value)
    assert len(server.seen) == 1


@pytest.mark.parametrize(("keys", "said"), [
    ({"url": "ftp://x"}, "http"), ({"url": "http://me:pw@x/"}, "authorization"), ({"url": "http://x/${key}"}, "body"),
    ({"url": "http://x", "headers": "no colon"}, "name:value"), ({"url": "http://x", "body": "xml"}, "array")])
def test_keys(keys: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        HttpSinkConfig.model_validate(keys)
