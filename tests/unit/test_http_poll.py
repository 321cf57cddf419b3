"""The poller: cursors, pages, changes, and what it does when the other side does not answer. Over real sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from headrace.connector import Pulled
from headrace.connectors.http import SOURCE, HttpSource
from headrace.errors import Retriable, UserError
from headrace.web.bodies import Malformed, pointed
from headrace.web.config import HttpSourceConfig

pytestmark = pytest.mark.unit


@dataclass
class Site:
    """A server whose `answer` may be changed while it runs: (path, parameters, headers) → (status, body, headers)."""

    url: str = ""
    answer: Callable[[str, dict[str, str], Mapping[str, str]], tuple[int, Any, dict[str, str]]] = (
        lambda path, parameters, headers: (404, "", {}))
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            made.asked.append(self.path)
            status, body, headers = made.answer(parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()},
                                                dict(self.headers.items()))
            raw = b"" if status == 304 else body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(raw))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield made
    server.shutdown()
    thread.join(60)
    server.server_close()


@contextmanager
def polled(site: Site, position: Mapping[str, Any] | None = None, /, path: str = "/",
           **keys: Any) -> Iterator[HttpSource]:
    made = SOURCE(HttpSourceConfig.model_validate({"topic": "t", "url": site.url + path, "interval.ms": "10", **keys}),
                  project=Path())
    kept = json.loads(json.dumps(position))
    made.open(lambda partition: kept if partition == {"url": site.url + path} else None)
    with closing(made):
        yield made


def values(pulled: Pulled | None) -> list[Any]:
    """In the order of the poll."""
    found = {int(at): value for records in (pulled.records if pulled else ())
             for at, value in zip(records.index, records.value.values.to_pylist(), strict=True)}
    return [found[at] for at in sorted(found)]


def drained(source: HttpSource, records_max: int = 100, quiet: int = 2) -> list[Any]:
    """What comes until nothing came a few times."""
    found: list[Any] = []
    nothing = 0
    while nothing < quiet:
        pulled = source.pull(records_max)
        nothing = 0 if pulled is not None else nothing + 1
        found += values(pulled)
    return found


def log_of(rows: list[dict[str, Any]], page: int = 1000) -> Callable[..., tuple[int, Any, dict[str, str]]]:
    """An API that gives rows whose n is at least `since`, a page at most, newest first."""
    def answer(path: str, parameters: dict[str, str], headers: Mapping[str, str]) -> tuple[int, Any, dict[str, str]]:
        beyond = [row for row in rows if row["n"] >= int(parameters.get("since", -1))]
        return 200, {"data": {"items": beyond[:page][::-1]}}, {}
    return answer


CURSOR = {"records.pointer": "/data/items", "cursor.field": "n", "cursor.parameter": "since"}


def test_a_cursor_takes_what_is_beyond_it_also_what_came_with_the_same_value(site: Site) -> None:
    rows = [{"n": n, "at": m} for n in range(5) for m in range(2)]
    site.answer = log_of(rows, page=4)
    with polled(site, **CURSOR) as source:
        found = drained(source)
        assert [row["n"] for row in found] == [row["n"] for row in rows]
        assert sorted(found, key=lambda row: (row["n"], row["at"])) == rows
        rows.append({"n": 4, "at": 9})
        assert drained(source) == [{"n": 4, "at": 9}]
        rows.append({"n": 7, "at": 0})
        assert drained(source) == [{"n": 7, "at": 0}]
    assert "since=4" in site.asked[-3]


def test_a_cursor_is_resumed_anywhere(site: Site) -> None:
    rows = [{"n": n // 2, "at": n} for n in range(9)]
    site.answer = log_of(rows)
    for stop in range(9):
        found: list[Any] = []
        position: Mapping[str, Any] | None = None
        with polled(site, **CURSOR) as source:
            for _ in range(stop):
                pulled = source.pull(1)
                assert pulled is not None
                found += values(pulled)
                position = pulled.position
        with polled(site, position, **CURSOR) as source:
            found += drained(source, 2)
        assert sorted(found, key=lambda r: r["at"]) == rows


def test_the_first_cursor_may_be_given_and_text_will_do(site: Site) -> None:
    rows = [{"n": 3}, {"n": 5}]
    site.answer = log_of(rows)
    with polled(site, **CURSOR, **{"cursor.initial": "4"}) as source:
        assert values(source.pull(10)) == [{"n": 5}]
    site.answer = lambda *_: (200, [{"when": {"at": "2026-01-02"}}, {"when": {"at": "2026-01-01"}}], {})
    with polled(site, **{"cursor.field": "/when/at"}) as source:
        assert [v["when"]["at"] for v in drained(source)] == ["2026-01-01", "2026-01-02"]


@pytest.mark.parametrize("rows", [[{"n": 1}, {"m": 1}], [{"n": 1}, {"n": None}], [{"n": 1}, {"n": "a"}], [{"n": True}]])
def test_a_cursor_that_is_none_is_told(site: Site, rows: list[Any]) -> None:
    site.answer = lambda *_: (200, rows, {})
    with polled(site, **{"cursor.field": "n"}) as source, pytest.raises(UserError, match=r"record [01]|text in some"):
        source.pull(10)


def pages_of(rows: list[int], size: int, *, header: bool) -> Callable[..., tuple[int, Any, dict[str, str]]]:
    def answer(path: str, parameters: dict[str, str], headers: Mapping[str, str]) -> tuple[int, Any, dict[str, str]]:
        page = int(parameters.get("page", 0))
        mine = [{"n": n} for n in rows[page * size:(page + 1) * size]]
        link = f"/log?page={page + 1}" if len(rows) > (page + 1) * size else None
        told = {"Link": f'<{link}>; rel="next", </log?page=0>; rel="first"'} if header and link else {}
        return 200, {"rows": mine, "next": None if header else link}, told
    return answer


@pytest.mark.parametrize("header", [True, False])
def test_pages_are_followed_and_the_last_one_may_grow(site: Site, header: bool) -> None:
    rows = list(range(7))
    site.answer = pages_of(rows, 3, header=header)
    keys = {"path": "/log", "records.pointer": "/rows", "next.page": "header" if header else "/next"}
    with polled(site, **keys) as source:
        assert [v["n"] for v in drained(source)] == rows
        rows += [7, 8, 9, 10]
        assert [v["n"] for v in drained(source)] == [7, 8, 9, 10]
    for stop in range(1, 11):
        found: list[int] = []
        with polled(site, **keys) as source:
            while len(found) < stop:
                pulled = source.pull(2)
                found += [v["n"] for v in values(pulled)]
            assert pulled is not None
        with polled(site, pulled.position, **keys) as source:
            assert found + [v["n"] for v in drained(source)] == rows


def test_pages_elsewhere_are_not_followed(site: Site) -> None:
    site.answer = lambda *_: (200, {"rows": [], "next": "http://169.254.169.254/latest"}, {})
    with polled(site, **{"records.pointer": "/rows", "next.page": "/next"}) as source, pytest.raises(
            UserError, match="not at http://127"):
        source.pull(10)


def test_pages_that_shrink_are_refused(site: Site) -> None:
    rows = [0, 1]
    site.answer = pages_of(rows, 3, header=False)
    with polled(site, **{"path": "/log", "records.pointer": "/rows", "next.page": "/next"}) as source:
        assert len(drained(source)) == 2
        rows.pop()
        with pytest.raises(UserError, match="do not only grow"):
            drained(source)


@pytest.mark.parametrize("etag", [True, False])
def test_an_answer_is_taken_when_it_is_another(site: Site, etag: bool) -> None:
    rows = [{"a": 1.10}]

    def answer(path: str, parameters: dict[str, str], headers: Mapping[str, str]) -> tuple[int, Any, dict[str, str]]:
        tag = f'"{len(rows)}"'
        if etag and headers.get("If-None-Match") == tag:
            return 304, "", {}
        return 200, rows, {"ETag": tag} if etag else {}

    site.answer = answer
    with polled(site) as source:
        pulled = source.pull(10)
        assert values(pulled) == rows
        assert drained(source) == []
        rows.append({"a": 2.5})
        first = source.pull(1)
        assert pulled is not None
        assert first is not None
        assert values(first) == rows[:1]
    with polled(site, first.position) as source:  # killed between the two
        assert drained(source) == rows[1:]
    with polled(site, pulled.position) as source:
        assert drained(source) == rows


def test_one_object_is_one_record_byte_for_byte(site: Site) -> None:
    site.answer = lambda *_: (200, '{"x": 0.1000000000000000055511,\n "y": 12345678901234567890}', {})
    with polled(site) as source:
        pulled = source.pull(10)
        assert pulled is not None
        assert pulled.raw(0) == b'{"x": 0.1000000000000000055511,  "y": 12345678901234567890}'
        assert pulled.where(0) == f"{site.url}/ record 0"


@pytest.mark.parametrize(("status", "headers", "wait_s"), [
    (503, {"Retry-After": "7"}, 7.0), (500, {}, 1.0), (429, {}, 1.0)])
def test_what_another_try_may_mend_is_retriable(site: Site, status: int, headers: dict[str, str],
                                                wait_s: float) -> None:
    site.answer = lambda *_: (status, "no", headers)
    with polled(site) as source:
        with pytest.raises(Retriable, match=str(status)) as told:
            source.pull(10)
        assert told.value.retry_after_s == wait_s
        site.answer = lambda *_: (200, [{"a": 1}], {})
        assert drained(source) == [{"a": 1}]


@pytest.mark.parametrize(("status", "body", "message"), [
    (404, "no such thing", "404: no such thing"), (401, "", "is `authorization` right"),
    (302, "", "redirections are not"), (200, "<html>", "not JSON"), (200, "[1] 2", "more behind"),
    (200, '{"a": 1}', "nothing at /data")])
def test_what_no_other_try_mends(site: Site, status: int, body: str, message: str) -> None:
    site.answer = lambda *_: (status, body, {"Location": "http://elsewhere"} if status == 302 else {})
    with polled(site, **({"records.pointer": "/data"} if "nothing" in message else {})) as source, pytest.raises(
            UserError, match=message):
        source.pull(10)


def test_a_server_that_is_away_is_retriable(site: Site) -> None:
    gone = Site(url="http://127.0.0.1:1")
    with polled(gone) as source, pytest.raises(Retriable, match="does not answer"):
        source.pull(10)


def test_an_answer_that_is_too_large_is_refused(site: Site) -> None:
    site.answer = lambda *_: (200, [{"a": "x" * 1000}], {})
    with polled(site, **{"answer.bytes.max": "500"}) as source, pytest.raises(UserError, match="more than 500 bytes"):
        source.pull(10)


def test_the_secret_is_sent_and_told_nowhere(site: Site) -> None:
    def answer(path: str, parameters: dict[str, str], headers: Mapping[str, str]) -> tuple[int, Any, dict[str, str]]:
        return (200, [{"a": 1}], {}) if headers.get("Authorization") == "Bearer sesame" else (401, "who?", {})

    site.answer = answer
    with polled(site, authorization="Bearer sesame") as source:
        assert values(source.pull(10)) == [{"a": 1}]
        assert "sesame" not in repr(source.config)


@pytest.mark.parametrize(("pointer", "found"), [
    ("", '{"a/b": [10, {"c~": "x"}], "": 5, "a": 1, "a": 2}'), ("/a~1b/0", "10"), ("/a~1b/1/c~0", '"x"'), ("/", "5"),
    ("/a", "2"), ("/b", None), ("/a~1b/2", None), ("/a/x", None)])
def test_json_pointers(pointer: str, found: str | None) -> None:
    text = ' {"a/b": [10, {"c~": "x"}], "": 5, "a": 1, "a": 2} '
    place = pointed(text, pointer)
    assert (None if place is None else text[place[0]:place[1]]) == found


def test_a_text_that_is_no_json_is_malformed() -> None:
    for text in ("", "{", '{"a" 1}', "[1 2]", "[1,]", "{1: 2}", "nul"):
        with pytest.raises(Malformed):
            pointed(text, "/a")
