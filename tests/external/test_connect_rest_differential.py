"""Our Connect worker against the real Kafka Connect 4.3.1: the same requests to both, the same answers from both.

Equal are status codes and bodies, but for ids, times, versions, traces and the wording of documentation. What is
different on purpose stands in `test_differences_that_are_meant`: chiefly that a client's mistake is never a 5xx here.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from headrace.settings import Settings
from headrace.topics import admin
from tests.conftest import Stack
from tests.integration.restworld import inside
from tests.unit.restkit import Answer, ask, levels_kept

pytestmark = pytest.mark.external
SETTLED_S = 60.0
TRANSFORMS = "org.apache.kafka.connect.transforms."
FILES = "org.apache.kafka.connect.file."
STRING = "org.apache.kafka.connect.storage.StringConverter"
MOMENTARY = ("rebalance", "no known leader", "stale configuration")
"""What the real worker says while it is busy with itself: it is asked again."""


@dataclass(slots=True)
class Side:
    """One of the two. In requests NAME, TOPIC and OUT stand for what is this side's own."""

    address: str
    own: dict[str, str]
    asked: list[str] = field(default_factory=list)

    def filled(self, data: Any) -> Any:
        if isinstance(data, str):
            return re.sub("|".join(self.own), lambda found: self.own[found[0]], data)
        if isinstance(data, dict):
            return {self.filled(key): self.filled(value) for key, value in data.items()}
        return [self.filled(one) for one in data] if isinstance(data, list) else data

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        end = time.monotonic() + SETTLED_S
        while True:
            answer = ask(self.address, method, self.filled(path), self.filled(body), timeout_s=120, **more)
            busy = answer.status in (409, 500) and any(word in answer.text for word in MOMENTARY)
            if not busy or time.monotonic() > end:
                return answer
            time.sleep(0.5)

    def plain(self, data: Any, key: str = "") -> Any:
        """An answer's data without what is this side's own."""
        if isinstance(data, dict):
            # ours has both spellings of `order_in_group`
            left_out = ("order", "auto_restart", *(("commit",) if "kafka_cluster_id" in data else ()))
            return {self.plain(k): self.plain(v, k) for k, v in data.items() if k not in left_out and not (
                k == "name" and "definition" in data)}
        if isinstance(data, list):
            return [self.plain(one, key) for one in data]
        if key in ("worker_id", "documentation", "trace", "version", "last_modified") or not isinstance(data, str):
            return None if key in ("version", "last_modified") else data if not isinstance(data, str) else f"<{key}>"
        for word, own in self.own.items():
            data = data.replace(own, word)
        return _unworded(data.replace(self.address, "ADDRESS"))


def _unworded(text: str) -> str:
    """Without versions, and without what Java and Python each say of a pattern."""
    text = re.sub(r"(available connectors are: ).*", r"\1…", text, flags=re.DOTALL)
    text = re.sub(r"(Invalid regex: )[^\n]*(?:\n\[\n\^)?", r"\1…", text)
    return re.sub(r"^\d+\.\d+\.\d+\S*$", "VERSION", text)


class Pair:
    """The real worker and ours."""

    def __init__(self, real: Side, ours: Side) -> None:
        self.real, self.ours = real, ours

    def same(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Ask both; the answers must be equal. Ours is given."""
        real, ours = (side.ask(method, path, body, **more) for side in (self.real, self.ours))
        assert _told(self.ours, ours) == _told(self.real, real), f"{method} {path} {body}"
        return ours.data

    def settles(self, path: str, holds: Callable[[Any], bool] = lambda data: True) -> Any:
        """GET from both until they agree and it holds: both have things to do in between."""
        end = time.monotonic() + SETTLED_S
        while True:
            real, ours = self.real.ask("GET", path), self.ours.ask("GET", path)
            equal = _told(self.ours, ours) == _told(self.real, real)
            if (equal and holds(ours.data)) or time.monotonic() > end:
                assert _told(self.ours, ours) == _told(self.real, real), path
                assert holds(ours.data), f"{path} stays {ours.data}"
                return ours.data
            time.sleep(0.3)


def _told(side: Side, answer: Answer) -> tuple[int, Any, str | None]:
    location = answer.headers.get("Location")
    return answer.status, side.plain(answer.data), side.plain(location) if location else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("differential")
    (made / "in.txt").write_text("one\ntwo\nthree\n")
    return made


@pytest.fixture(scope="module")
def workers(kafka_connect: str, stack: Stack, folder: Path) -> Iterator[tuple[str, str]]:
    with levels_kept(), inside(Settings(folder, stack.bootstrap, stack.registry), None) as ours:
        yield kafka_connect, ours.address


@pytest.fixture
def pair(workers: tuple[str, str], folder: Path, topic: Callable[..., str], stack: Stack) -> Iterator[Pair]:
    mark = uuid.uuid4().hex[:8]
    made = [Side(address, {"NAME": f"n{mark}.{word}", "TOPIC": topic(f"t.{word}"), "FILE": str(folder / "in.txt"),
                           "OUT": str(folder / f"{mark}.{word}")})
            for address, word in zip(workers, ("real", "ours"), strict=True)]
    yield Pair(*made)
    for side in made:
        for name in side.ask("GET", "/connectors").data:
            side.ask("DELETE", f"/connectors/{name}")
    admin(stack.settings).delete_consumer_groups([f"connect-{side.own['NAME']}" for side in made])


SOURCE = {"connector.class": "FileStreamSource", "file": "FILE", "topic": "TOPIC"}
SINK = {"connector.class": "FileStreamSink", "file": "OUT", "topics": "TOPIC", "key.converter": STRING,
        "value.converter": STRING}


def states(*wanted: str) -> Callable[[Any], bool]:
    """The connector's state, then those of its tasks."""
    return lambda data: [data["connector"]["state"], *(t["state"] for t in data["tasks"])] == list(wanted)


def test_a_sources_whole_life(pair: Pair) -> None:
    one = "/connectors/NAME"
    pair.same("GET", "/connectors")
    pair.same("POST", "/connectors", {"name": "NAME", "config": SOURCE})
    pair.settles(f"{one}/status", states("RUNNING", "RUNNING"))
    for path in ("", "/config", "/tasks", "/tasks/0/status", "/tasks/7/status"):
        pair.same("GET", one + path)
    for expand in ("expand=info&expand=status", "expand=info", "expand=nothing", "expand="):
        pair.same("GET", f"/connectors?{expand}")
    pair.settles(f"{one}/offsets", lambda data: data["offsets"] != [])
    pair.settles(f"{one}/topics", lambda data: list(data.values()) != [{"topics": []}])
    pair.same("PUT", f"{one}/topics/reset")
    pair.settles(f"{one}/topics", lambda data: list(data.values()) == [{"topics": []}])
    pair.same("POST", "/connectors", {"name": "NAME", "config": SOURCE})  # 409
    pair.same("PUT", f"{one}/config", {**SOURCE, "batch.size": "7"})
    pair.settles(f"{one}/tasks", lambda data: data[0]["config"]["batch.size"] == "7")
    pair.same("PATCH", f"{one}/config", {"batch.size": None, "tasks.max": "3"})
    pair.settles(f"{one}/status", states("RUNNING", "RUNNING"))
    pair.same("PATCH", f"{one}/config", {"topic": None})  # 400
    pair.same("PUT", f"{one}/pause")
    pair.settles(f"{one}/status", lambda data: data["connector"]["state"] == "PAUSED")
    pair.same("PUT", f"{one}/resume")
    pair.settles(f"{one}/status", states("RUNNING", "RUNNING"))
    pair.same("POST", f"{one}/restart")
    pair.settles(f"{one}/status", states("RUNNING", "RUNNING"))
    for query in ("onlyFailed=true", "includeTasks=true&onlyFailed=true", "includeTasks=true"):
        pair.same("POST", f"{one}/restart?{query}")
        pair.settles(f"{one}/status", states("RUNNING", "RUNNING"))
    pair.same("POST", f"{one}/tasks/0/restart")
    pair.same("POST", f"{one}/tasks/5/restart")
    pair.settles(f"{one}/status", states("RUNNING", "RUNNING"))
    at = {"partition": {"filename": "FILE"}, "offset": {"position": 4}}
    pair.same("PATCH", f"{one}/offsets", {"offsets": [at]})  # not stopped
    pair.same("DELETE", f"{one}/offsets")
    pair.same("PUT", f"{one}/stop")
    pair.settles(f"{one}/status", states("STOPPED"))
    pair.same("GET", f"{one}/tasks")
    pair.same("PUT", f"{one}/stop")
    pair.same("PUT", f"{one}/config", SOURCE)
    pair.settles(f"{one}/status", states("STOPPED"))
    pair.same("PATCH", f"{one}/offsets", {"offsets": [at]})
    pair.same("GET", f"{one}/offsets")
    other = {"partition": {"filename": "/other"}, "offset": {"position": 0}}
    pair.same("PATCH", f"{one}/offsets", {"offsets": [other]})
    pair.same("PATCH", f"{one}/offsets", {"offsets": [{**other, "offset": None}]})
    pair.same("GET", f"{one}/offsets")
    pair.same("PATCH", f"{one}/offsets", {"offsets": []})
    pair.same("DELETE", f"{one}/offsets")
    pair.same("GET", f"{one}/offsets")
    pair.same("DELETE", f"{one}/offsets")
    pair.same("DELETE", one)
    pair.settles("/connectors", lambda data: data == [])
    pair.settles(f"{one}/status")
    pair.same("GET", f"{one}/offsets")


def test_a_sinks_whole_life(pair: Pair, stack: Stack) -> None:
    from confluent_kafka import Producer

    one = "/connectors/NAME"
    producer = Producer(stack.settings.client(enable_idempotence=True))
    for side in (pair.real, pair.ours):
        for n in range(9):
            producer.produce(side.own["TOPIC"], f"line {n}".encode())
    assert producer.flush(60) == 0
    pair.same("POST", "/connectors", {"name": "NAME", "config": SINK, "initial_state": "stopped"})
    pair.settles(f"{one}/status", states("STOPPED"))
    pair.same("GET", f"{one}/offsets")
    partition = {"kafka_topic": "TOPIC", "kafka_partition": 0}
    for offset in ({"kafka_offset": 1}, {"kafka_offset": "2"}):
        pair.same("PATCH", f"{one}/offsets", {"offsets": [{"partition": partition, "offset": offset}]})
        pair.same("GET", f"{one}/offsets")
    for bad in (
            {"partition": partition, "offset": {"kafka_offset": "x"}}, {"partition": partition, "offset": {"k": 1}},
            {"partition": {"kafka_topic": "t"}, "offset": None}, {"partition": None, "offset": None},
            {"partition": {"kafka_topic": None, "kafka_partition": 1}, "offset": None},
            {"partition": {"kafka_topic": "t", "kafka_partition": None}, "offset": None},
            {"partition": {"kafka_topic": "t", "kafka_partition": "u"}, "offset": None}):
        pair.same("PATCH", f"{one}/offsets", {"offsets": [bad]})
    pair.same("PUT", f"{one}/resume")
    pair.settles(f"{one}/status", states("RUNNING", "RUNNING"))
    pair.settles(f"{one}/offsets", lambda data: [at["offset"]["kafka_offset"] for at in data["offsets"]] == [9])
    pair.settles(f"{one}/topics", lambda data: list(data.values()) != [{"topics": []}])
    for side in (pair.real, pair.ours):
        assert Path(side.own["OUT"]).read_text() == "".join(f"line {n}\n" for n in range(2, 9))
    pair.same("PUT", f"{one}/config", {**SINK, "tasks.max": "2"})
    pair.settles(f"{one}/status", states("RUNNING", "RUNNING", "RUNNING"))
    pair.same("GET", f"{one}/tasks")
    pair.same("PUT", f"{one}/stop")
    pair.settles(f"{one}/status", states("STOPPED"))
    pair.same("PATCH", f"{one}/offsets", {"offsets": [{"partition": partition, "offset": None}]})
    pair.same("GET", f"{one}/offsets")
    pair.same("DELETE", f"{one}/offsets")
    pair.same("GET", f"{one}/offsets")
    pair.same("DELETE", one)
    pair.settles("/connectors", lambda data: data == [])


def test_a_task_that_fails(pair: Pair) -> None:
    one = "/connectors/NAME"
    pair.same("POST", "/connectors", {"name": "NAME", "config": {**SINK, "file": "FILE/out.txt"}})
    pair.settles(f"{one}/status", lambda data: data["connector"]["state"] == "RUNNING" and [
        (task["state"], "trace" in task) for task in data["tasks"]] == [("FAILED", True)])
    pair.same("GET", f"{one}/tasks/0/status")
    pair.same("DELETE", one)


@pytest.mark.parametrize(("method", "path", "body"), [
    *(("GET", f"/connectors/none{tail}", None) for tail in (
        "", "/config", "/status", "/tasks", "/tasks/0/status", "/tasks/x/status", "/tasks/-1/status", "/topics",
        "/offsets", "/tasks-config", "/nothing")),
    *(("PUT", f"/connectors/none{tail}", None) for tail in ("/pause", "/resume", "/stop", "/topics/reset")),
    *(("POST", f"/connectors/none{tail}", None) for tail in (
        "/restart", "/restart?includeTasks=true", "/restart?onlyFailed=true", "/restart?includeTasks=maybe",
        "/tasks/0/restart", "/tasks/x/restart")),
    ("DELETE", "/connectors/none", None), ("DELETE", "/connectors/none/offsets", None),
    ("PATCH", "/connectors/none/offsets", {"offsets": []}), ("PATCH", "/connectors/none/offsets", {}),
    ("PATCH", "/connectors/none/offsets", {"offsets": [{"partition": {"a": 1}, "offset": None}]}),
    ("PATCH", "/connectors/none/config", {"a": "b"}), ("PUT", "/connectors/none/config", {}),
    ("PUT", "/connectors/none/config", {"name": "other"}),
    ("PUT", "/connectors/none/config", {"connector.class": "Nope"}),
    ("PUT", "/connectors/none/config", {"connector.class": 1, "tasks.max": True}),
    ("PUT", "/connectors/none/config", {"connector.class": "FileStreamSource", "file": "FILE"}),
    ("PUT", "/connectors/none/config", {"connector.class": "FileStreamSink", "file": "OUT"}),
    ("PUT", "/connectors/none/config", {**SOURCE, "a": None}),
    ("PUT", "/connectors/none/config", {**SOURCE, "tasks.max": "0"}),
    ("POST", "/connectors", {"name": "x", "config": {}}),
    ("POST", "/connectors", {"name": "x", "config": {"name": "y"}}), ("POST", "/connectors", {"config": SOURCE}),
    *(("POST", "/connectors", {"name": name, "config": SOURCE}) for name in (" ", "a\nb", "a\x7fb")),
    ("POST", "/", None), ("PUT", "/connectors", None), ("GET", "/nothing", None), ("GET", "/connectors/", None),
    ("GET", "/", None), ("GET", "/health", None), ("GET", "/connector-plugins/Nope/config", None),
    ("PUT", "/connector-plugins/FileStreamSource/config/validate", {"connector.class": "FileStreamSink"}),
    ("PUT", "/connector-plugins/FileStreamSource/config/validate", {"connector.class": ""}),
    ("GET", "/admin/loggers/no.such.logger", None), ("PUT", "/admin/loggers/root", {}),
    ("PUT", "/admin/loggers/root", {"level": None}), ("PUT", "/admin/loggers/root", {"level": "loud"}),
])
def test_answers_and_refusals(pair: Pair, method: str, path: str, body: Any) -> None:
    pair.same(method, path, body)


def test_content_types(pair: Pair) -> None:
    for kind in ("text/plain", None):
        pair.same("POST", "/connectors", b'{"name": "x", "config": {}}', content_type=kind)


def test_loggers(pair: Pair) -> None:
    for level, query in (("debug", ""), ("WARN", "?scope=worker"), ("WARN", "?scope=cluster"), ("TRACE", "?scope=x")):
        pair.same("PUT", f"/admin/loggers/NAME{query}", {"level": level})
        pair.same("GET", "/admin/loggers/NAME")
    assert all("root" in side.ask("GET", "/admin/loggers").data for side in (pair.real, pair.ours))


def test_plugins(pair: Pair) -> None:
    """Ours has those of the real one but MirrorMaker's, and more."""
    for query in ("", "?connectorsOnly=true", "?connectorsOnly=false", "?connectorsOnly=x"):
        real, ours = ({(one["class"], one["type"]) for one in side.ask("GET", f"/connector-plugins{query}").data
                       if ".mirror." not in one["class"]} for side in (pair.real, pair.ours))
        assert real <= ours, query
    for name in ("FileStreamSource", "FileStreamSinkConnector", f"{FILES}FileStreamSourceConnector"):
        pair.same("GET", f"/connector-plugins/{name}/config")


VALID_SOURCE = {"connector.class": "FileStreamSource", "name": "x", "file": "FILE", "topic": "t"}
VALID_SINK = {"connector.class": "FileStreamSink", "name": "x", "file": "OUT", "topics": "t"}
T = {**VALID_SOURCE, "transforms": "a"}
SOURCE_CASES: list[dict[str, Any]] = [{}, *({key: value} for key, value in [
    ("tasks.max", "0"), ("tasks.max", "x"), ("tasks.max", ""), ("tasks.max", "99999999999"), ("tasks.max", "1.5"),
    ("tasks.max", " 2 "), ("tasks.max", None), ("tasks.max", "-1"), ("batch.size", "x"), ("topic", ""), ("topic", "  "),
    ("errors.tolerance", "some"), ("errors.tolerance", "ALL"), ("errors.tolerance", ""), ("errors.tolerance", None),
    ("errors.log.enable", "maybe"), ("errors.log.enable", "TRUE"), ("errors.log.enable", ""),
    ("errors.retry.timeout", "x"), ("errors.retry.delay.max.ms", ""), ("key.converter", "Nope"),
    ("value.converter", ""), ("key.converter", f"{TRANSFORMS}MaskField$Value"),
    ("header.converter", f"{TRANSFORMS}Filter"),
    ("key.converter", "JsonConverter"), ("value.converter", STRING), ("header.converter", STRING),
    ("key.converter", "org.apache.kafka.connect.converters.LongConverter"), ("header.converter", "Nope"),
    ("transforms", "a,a"), ("transforms", "a"), ("transforms", ""), ("transforms", None),
    ("config.action.reload", "never"), ("exactly.once.support", "maybe"), ("transaction.boundary", "nope"),
    ("transaction.boundary", "INTERVAL"), ("transaction.boundary.interval.ms", "-1"),
    ("transaction.boundary.interval.ms", "x"), ("offsets.storage.topic", ""),
    ("topic.creation.groups", "default,default"),
    ("name", ""), ("name", None), ("name", "x\ty"), ("nope", "x"), ("nope", None), ("tasks.max.enforce", "x"),
    ("predicates", "p"),
])]
TRANSFORM_CASES: list[dict[str, Any]] = [
    *({"transforms.a.type": TRANSFORMS + name} for name in (
        "Cast$Key", "DropHeaders", "ExtractField$Value", "Filter", "Flatten$Key", "HeaderFrom$Key", "HoistField$Value",
        "InsertHeader", "MaskField$Key", "RegexRouter", "ReplaceField$Value",
        "TimestampConverter$Value", "TimestampRouter", "ValueToKey", "InsertField", "Nope")),
    {"transforms.a.type": ""}, {"transforms.a.type": STRING},
    {"transforms.a.type": f"{TRANSFORMS}Filter", "transforms.a.negate": "true"},
    {"transforms.a.type": f"{TRANSFORMS}MaskField$Value", "transforms.a.fields": "x,y",
     "transforms.a.replace.null.with.default": "perhaps"},
    {"transforms.a.type": f"{TRANSFORMS}Filter", "transforms.a.predicate": "p", "predicates": "p",
     "predicates.p.type": f"{TRANSFORMS}predicates.TopicNameMatches", "predicates.p.pattern": "["},
    {"transforms.a.type": f"{TRANSFORMS}Filter", "transforms.a.predicate": "p", "predicates": "p",
     "predicates.p.type": "RecordIsTombstone"},
    {"transforms.a.type": f"{TRANSFORMS}Filter", "predicates": "p", "predicates.p.type": "Nope"},
]
SINK_CASES: list[dict[str, Any]] = [{}, *({key: value} for key, value in [
    ("topics", ""), ("topics", "t,,u"), ("topics", "t,t"), ("topics", None), ("topics", "t t"), ("topics.regex", "["),
    ("topics.regex", "a.*"), ("topics", "a, b"), ("errors.deadletterqueue.topic.replication.factor", "x"),
    ("errors.deadletterqueue.topic.replication.factor", "99999"), ("errors.log.enable", "x"),
    ("errors.deadletterqueue.context.headers.enable", "x")]),
    {"errors.deadletterqueue.topic.name": "t", "errors.tolerance": "all"},
    {"topics": "", "topics.regex": "a.*"}, {"topics": "", "topics.regex": "["},
    {"topics": "", "topics.regex": "a.*", "errors.deadletterqueue.topic.name": "ab", "errors.tolerance": "all"}]


@pytest.mark.parametrize(("plugin", "config"), [
    *(("FileStreamSource", {**VALID_SOURCE, **case}) for case in SOURCE_CASES),
    *(("FileStreamSource", {**T, **case}) for case in TRANSFORM_CASES),
    *(("FileStreamSink", {**VALID_SINK, **case}) for case in SINK_CASES)])
def test_validation(pair: Pair, plugin: str, config: dict[str, Any]) -> None:
    """Key by key: definition, value, errors; and, where something is wrong, the text with which it is refused."""
    path = f"/connector-plugins/{plugin}/config/validate"
    answers = [(side, side.ask("PUT", path, config)) for side in (pair.real, pair.ours)]
    (real, ours) = ({"name": answer.data["name"], "errors": answer.data["error_count"],
                     "groups": set(answer.data["groups"]),
                     **{f"of {each['value']['name']}": side.plain(each) for each in answer.data["configs"]}}
                    for side, answer in answers)
    different = {key: (ours.get(key), real.get(key)) for key in ours | real if ours.get(key) != real.get(key)}
    assert not different
    if config.get("name") == "x" and real["errors"]:
        pair.same("PUT", "/connectors/x/config", config)


def test_differences_that_are_meant(pair: Pair) -> None:
    """Where the real one answers 5xx to a mistake of the client's, ours answers 4xx; and it is stricter."""
    pair.same("POST", "/connectors", {"name": "NAME", "config": SOURCE, "initial_state": "STOPPED"})
    at = {"partition": {"filename": "FILE"}, "offset": {"position": 4}}
    mistakes: list[tuple[str, str, Any, bool]] = [  # whether the words are the same
        *(("POST", "/connectors", body, False) for body in (b"", b"{", b"[]", b"null", {"name": "x"})),
        ("POST", "/connectors", {"name": "x", "config": {}, "y": 1}, False),
        ("POST", "/connectors", {"name": "x", "config": SOURCE, "initial_state": "FLYING"}, False),
        ("PUT", "/connectors/x/config", b"null", False), ("PUT", "/connectors/x/config", {"a": [1]}, False),
        ("PUT", "/connector-plugins/Nope/config/validate", {"connector.class": "Nope"}, False),
        ("PUT", "/connector-plugins/FileStreamSource/config/validate", {}, False),
        ("PATCH", "/connectors/NAME/offsets", {"offsets": [None]}, False),
        ("PATCH", "/connectors/NAME/offsets", {"offsets": [{**at, "offset": {"pos": 2}}]}, True),
        ("PATCH", "/connectors/NAME/offsets", {"offsets": [{**at, "offset": {"position": "x"}}]}, True),
        ("PATCH", "/connectors/NAME/offsets", {"offsets": [{**at, "offset": {"position": -1}}]}, True),
        ("PATCH", "/connectors/NAME/offsets", {"offsets": [{**at, "partition": {"x": 1}}]}, True),
        ("PATCH", "/connectors/NAME/offsets", {"offsets": [{**at, "partition": None}]}, True)]
    for method, path, body, same_words in mistakes:
        real, ours = pair.real.ask(method, path, body), pair.ours.ask(method, path, body)
        assert (real.status, ours.status) == (500, 400), f"{method} {path} {body}"
        if same_words:
            assert ours.data["message"] == real.data["message"]
    renamed = pair.real.ask("PATCH", "/connectors/NAME/config", {"name": "z"})
    assert (renamed.status, renamed.data["config"]["name"]) == (200, "z")  # and then it is called two things
    assert pair.ours.ask("PATCH", "/connectors/NAME/config", {"name": "z"}).status == 400
    path, without = "/connector-plugins/FileStreamSource/config/validate", {**SOURCE, "name": "x"}
    del without["file"]  # the real one would read the worker's standard input
    stricter = [without, *({**VALID_SOURCE, key: value} for key, value in (
        ("topic.creation.default.partitions", "x"), ("topic.creation.groups", "a"),
        ("key.converter.schemas.enable", "x"))), *(
        {**T, "transforms.a.type": TRANSFORMS + name} for name in ("SetSchemaMetadata$Value", "InsertField$Value"))]
    for config in stricter:
        real, ours = pair.real.ask("PUT", path, config), pair.ours.ask("PUT", path, config)
        assert (real.data["error_count"], ours.data["error_count"]) == (0, 1), config
