"""The webhook: what is answered when, what is taken, what a repeated request does. Over real sockets on loopback."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.codec import AvroSchema, parse
from headrace.connector import Pulled
from headrace.connectors.http import SOURCE, HttpSource
from headrace.errors import UserError
from headrace.web import seen
from headrace.web.bodies import Malformed, split
from headrace.web.config import HttpSourceConfig
from headrace.web.seen import Seen

pytestmark = pytest.mark.unit

SCHEMA = parse('{"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}]}')
Stored = dict[str, Mapping[str, Any]]
"""A partition as JSON → its position."""


def config(**keys: Any) -> HttpSourceConfig:
    return HttpSourceConfig.model_validate({"topic": "t", "listen": "127.0.0.1:0/in",
                                            **{k.replace("__", "."): v for k, v in keys.items()}})


def key(partition: Mapping[str, Any]) -> str:
    return json.dumps(dict(partition), sort_keys=True)


@dataclass
class Hook:
    """A webhook, and a thread that pulls and commits, as the runtime does, while `commits` is set."""

    source: HttpSource
    stored: Stored
    url: str
    client: httpx2.Client
    taken: list[Pulled] = field(default_factory=list)
    commits: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)

    def post(self, body: Any, **headers: str) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(self.url, content=content,
                                headers={k.replace("_", "-"): v for k, v in headers.items()})

    def values(self) -> list[Any]:
        return [v for pulled in self.taken for records in pulled.records for v in records.value.values.to_pylist()]

    def work(self) -> None:
        while not self.stop.is_set():
            pulled = self.source.pull(100)
            if pulled is None:
                continue
            self.taken.append(pulled)
            while not self.commits.wait(0.05):
                if self.stop.is_set():
                    return
            self.stored[key(pulled.partition)] = pulled.position
            self.source.committed(pulled)


@contextmanager
def hooked(stored: Stored | None = None, /, schema: AvroSchema | None = SCHEMA, **keys: Any) -> Iterator[Hook]:
    stored = {} if stored is None else stored
    source = SOURCE(config(**keys), project=Path())
    source.schema = schema
    source.open(lambda partition: json.loads(json.dumps(stored.get(key(partition)))))
    assert source.listener is not None
    client = httpx2.Client(timeout=60, verify=False)  # to build what verifies takes longer than any of these tests
    hook = Hook(source, stored, f"http://127.0.0.1:{source.listener.port}{source.listener.path}", client)
    hook.commits.set()
    worker = threading.Thread(target=hook.work)
    worker.start()
    try:
        yield hook
    finally:
        hook.stop.set()
        worker.join(60)
        source.close()
        client.close()


def test_an_object_an_array_and_lines() -> None:
    with hooked() as hook:
        for body in (b'{"n": 1}', b'\n[{"n": 2},\n {"n":\n3}] ', b'{"n": 4}\r\n\n{"n": 5}\n', b"[]"):
            answer = hook.post(body)
            assert answer.status_code == 200, answer.text
        assert [v["n"] for v in hook.values()] == [1, 2, 3, 4, 5]
        assert hook.post([{"n": 6}, {"n": 7}]).json() == {"records": 2}
        assert hook.taken[-1].raw(1) == b'{"n": 7}'
        assert hook.taken[-1].where(1) == "/in"


def test_200_comes_once_it_is_committed() -> None:
    with hooked() as hook, ThreadPoolExecutor(1) as elsewhere:
        hook.commits.clear()
        answer = elsewhere.submit(hook.post, {"n": 1})
        while not hook.taken:
            assert not answer.done()
        with pytest.raises(TimeoutError):
            answer.result(0.3)
        hook.commits.set()
        assert answer.result(60).status_code == 200


def test_malformed_records_are_told_and_nothing_is_taken() -> None:
    with hooked() as hook:
        answer = hook.post(b'{"n": 1}\n{"n": "x"}\n{"n": 1\n')
        assert answer.status_code == 400
        assert answer.json() == {
            "error_code": 400, "message": "2 of 3 records are malformed; none was taken", "errors": [
                {"record": 1, "reasons": ['n: "x" is not an int']},
                {"record": 2, "reasons": ["not JSON: Expecting ',' delimiter at character 8"]}]}
        for body, why in ((b"", "empty"), (b"\xff", "not UTF-8"), (b"[1", "not JSON"), (b"[1] 2", "more after"),
                          (b'{"n": NaN}', "malformed"), (b"[" * 100_000, "not JSON")):
            answer = hook.post(body)
            assert (answer.status_code, why in answer.text) == (400, True), (body[:20], answer.text)
        assert hook.taken == []


def test_too_large_is_413_with_and_without_a_length() -> None:
    with hooked(body__bytes__max="100") as hook:
        assert hook.post(b"x" * 101).status_code == 413
        assert hook.client.post(hook.url, content=iter([b"x" * 60, b"y" * 60])).status_code == 413
        assert hook.post({"n": 1}).status_code == 200


def test_a_full_queue_is_429_until_there_is_room() -> None:
    with hooked(queue__bytes__max="50", body__bytes__max="50") as hook, ThreadPoolExecutor(1) as elsewhere:
        hook.commits.clear()
        first = elsewhere.submit(hook.post, b'{"n": 1}' + b" " * 30)
        while not hook.taken:
            assert not first.done()
        answer = hook.post(b'{"n": 2}' + b" " * 30)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        hook.commits.set()
        assert first.result(60).status_code == 200
        assert hook.post(b'{"n": 2}' + b" " * 30).status_code == 200
        assert hook.source.listener is not None
        assert hook.source.listener._bytes == 0


def test_other_methods_and_paths() -> None:
    with hooked() as hook:
        assert hook.client.get(hook.url).status_code == 405
        assert hook.client.post(hook.url + "x").status_code == 404


@pytest.mark.parametrize(("keys", "good", "bad"), [
    ({"secret": "open sesame"}, {"X_Webhook_Secret": "open sesame"}, {"X_Webhook_Secret": "open"}),
    ({"secret": "open sesame", "secret.header": "X-Own"}, {"X_Own": "open sesame"},
     {"X_Webhook_Secret": "open sesame"}),
    ({"secret": "open sesame", "secret.kind": "hmac"},
     {"X_Hub_Signature_256": "sha256=" + hmac.new(b"open sesame", b'{"n":1}', hashlib.sha256).hexdigest()},
     {"X_Hub_Signature_256": "sha256=" + hmac.new(b"open sesame", b'{"n":2}', hashlib.sha256).hexdigest()})])
def test_a_secret_is_asked_for(keys: dict[str, Any], good: dict[str, str], bad: dict[str, str]) -> None:
    with hooked(**keys) as hook:
        assert hook.post(b'{"n":1}').status_code == 401
        refused = hook.post(b'{"n":1}', **bad)
        assert refused.status_code == 401
        assert "sesame" not in refused.text + repr(hook.source.config)
        assert hook.post(b'{"n":1}', **good).status_code == 200
        assert len(hook.taken) == 1


def test_githubs_own_example_of_a_signature() -> None:
    """From GitHub's documentation of webhooks: this secret, this payload, this signature."""
    with hooked(secret="It's a Secret to Everybody", secret__kind="hmac") as hook:
        answer = hook.post(b"Hello, World!", X_Hub_Signature_256=(
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"))
        assert answer.status_code == 400  # let in, and found to be no JSON


def test_a_repeated_key_is_not_doubled_even_after_a_restart() -> None:
    stored: Stored = {}
    with hooked(stored) as hook:
        assert hook.post({"n": 1}, Idempotency_Key="a").json() == {"records": 1}
        assert hook.post({"n": 1}, Idempotency_Key="a").json() == {"records": 1, "repeated": True}
        assert hook.post({"n": 2}, Idempotency_Key="a").status_code == 422
        assert hook.post({"n": 1}, Idempotency_Key="b").json() == {"records": 1}
        assert hook.post({"n": 1}).json() == {"records": 1}
        assert len(hook.values()) == 3
    with hooked(stored) as hook:
        assert hook.post({"n": 1}, Idempotency_Key="b").json()["repeated"]
        assert hook.post({"n": 3}, Idempotency_Key="c").json() == {"records": 1}
        assert len(hook.values()) == 1


def test_a_repeated_key_waits_for_the_one_under_way() -> None:
    with hooked() as hook, ThreadPoolExecutor(2) as elsewhere:
        hook.commits.clear()
        both = [elsewhere.submit(hook.post, {"n": 1}, Idempotency_Key="a") for _ in range(2)]
        while not hook.taken:
            assert not any(one.done() for one in both)
        hook.commits.set()
        assert [one.result(60).status_code for one in both] == [200, 200]
        assert len(hook.values()) == 1


def test_who_waits_when_it_stops_is_told_to_ask_again() -> None:
    with ThreadPoolExecutor(1) as elsewhere:
        with hooked() as hook:
            hook.commits.clear()
            answer = elsewhere.submit(hook.post, {"n": 1}, Idempotency_Key="a")
            while not hook.taken:
                assert not answer.done()
        assert (answer.result(60).status_code, answer.result().headers["Retry-After"]) == (503, "1")
    with hooked(hook.stored) as hook:
        assert hook.post({"n": 1}, Idempotency_Key="a").json() == {"records": 1}


def test_who_waits_too_long_is_told_504() -> None:
    with hooked(answer__timeout__ms="100") as hook:
        hook.commits.clear()
        assert hook.post({"n": 1}).status_code == 504
        hook.commits.set()


def test_headers_that_are_asked_for_become_the_records_own() -> None:
    with hooked(headers="X-GitHub-Event, X-None") as hook:
        hook.post([{"n": 1}, {"n": 2}], X_GitHub_Event="push")
        (records,) = hook.taken[0].records
        assert records.headers is not None
        assert [[header[:2] for header in one] for one in records.headers] == [[("X-GitHub-Event", "push")]] * 2


def test_without_a_schema_records_are_objects_of_any_kind() -> None:
    with hooked(schema=None) as hook:
        assert hook.post([{"a": 1}, {"b": ["x"]}, {"a": 2}]).status_code == 200
        (pulled,) = hook.taken
        by_place = {int(at): value for records in pulled.records
                    for at, value in zip(records.index, records.value.values.to_pylist(), strict=True)}
        assert [by_place[at] for at in range(3)] == [{"a": 1}, {"b": ["x"]}, {"a": 2}]
        assert hook.post([1, {"a": 1}]).json()["errors"] == [{"record": 0, "reasons": ["not a JSON object"]}]


def test_many_at_once_each_exactly_once() -> None:
    with hooked() as hook, ThreadPoolExecutor(16) as elsewhere:
        answers = list(elsewhere.map(lambda n: hook.post({"n": n}, Idempotency_Key=str(n % 100)).status_code,
                                     [n % 100 for n in range(300)]))
        assert set(answers) == {200}
        assert sorted(v["n"] for v in hook.values()) == list(range(100))


def test_a_port_that_is_taken_is_a_user_error() -> None:
    with hooked() as hook:
        assert hook.source.listener is not None
        source = SOURCE(config(listen=f"127.0.0.1:{hook.source.listener.port}/in"), project=Path())
        source.schema = SCHEMA
        with closing(source), pytest.raises(UserError, match="cannot be listened on"):
            source.open(lambda partition: None)


def test_keys_are_known_for_the_whole_window_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    stored: Stored = {}

    def opened() -> Seen:
        return Seen("/in", 600, lambda partition: stored.get(key(partition)), clock=lambda: now)

    remembered = opened()
    for at in range(0, 1800, 7):
        now = 1_000_000.0 + at
        partition, position = remembered.add({f"k{at}": "body"})
        stored[key(partition)] = json.loads(json.dumps(position))
        if at % 5 == 0:
            remembered = opened()
        for back in range(0, 601, 7):
            if back <= at:
                assert remembered.body_of(f"k{at - back}") == "body", (at, back)
        assert at < 700 or remembered.body_of(f"k{(at - 650) // 7 * 7}") is None
    assert len(stored) == seen.SLOTS + 1
    monkeypatch.setattr(seen, "SLOT_KEYS_MAX", 1)
    assert 0 < remembered.full_for_s() <= 10


@given(values=st.lists(st.recursive(st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
                                    lambda inner: st.lists(inner) | st.dictionaries(st.text(
                                        st.characters(codec="utf-8")), inner), max_leaves=5), max_size=5),
       indent=st.sampled_from([None, 0, 2]))
def test_a_body_is_cut_where_json_says(values: list[Any], indent: int | None) -> None:
    assert [json.loads(one) for one in split(json.dumps(values, indent=indent).encode())] == values


@given(st.binary(max_size=40) | st.text(alphabet='[]{},:"1 \\n', max_size=12).map(str.encode))
def test_any_body_is_cut_or_malformed(body: bytes) -> None:
    try:
        assert all(b"\n" not in one for one in split(body))
    except Malformed:
        pass


@pytest.mark.parametrize(("keys", "message"), [
    ({"listen": None}, "listen: is missing"), ({"mode": "poll"}, "url: is missing"),
    ({"url": "http://x/"}, "url|listen"), ({"listen": "8080"}, "is not host:port/path"),
    ({"listen": "h:99999/"}, "is not host:port"), ({"secret": "short"}, "at least 8"),
    ({"listen": None, "url": "ftp://x"}, "no http"), ({"listen": None, "url": "http://u:p@x/"}, "no password in it"),
    ({"listen": None, "url": "http://x", "cursor.parameter": "a"}, "of what"),
    ({"listen": None, "url": "http://x", "cursor.field": "a", "next.page": "/n"}, "take one")])
def test_keys_that_do_not_go_together(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**keys)
