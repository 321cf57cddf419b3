"""The pager and a user's own Faust app, as processes, on a real broker: committed events, once by id, none lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from headrace import topics
from headrace.codec import Encoder
from headrace.control import Alert, ControlEvent, Switch, event_id
from headrace.registry import Registry
from headrace.settings import Settings

pytestmark = pytest.mark.integration
WAIT_S = 60


def until(true: Callable[[], bool], what: Callable[[], str]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, what()
        time.sleep(0.1)


def event(kind: type[ControlEvent], window: int, run: str, **own: Any) -> dict[str, Any]:
    return {"id": event_id("arrivals", run, "flights.arrivals", 0, window), "flow": "arrivals", "step": run,
            "topic": "flights.arrivals", "partition": 0, "window": window, "offset_first": 0, "offset_last": 9,
            "window_start": None, "window_end": None, "measure": "share", "condition": "cancelled", "rows": 10,
            "matched": 6, "observed": 0.6, "threshold": 0.5, "at": datetime(2013, 2, 9, tzinfo=UTC), **own}


class Writer:
    """Writes events as a flow does: Avro, lz4, in transactions."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self.registry = registry
        self.producer = Producer(settings.client(transactional_id=f"test-{uuid.uuid4().hex}", compression_type="lz4"))
        self.producer.init_transactions(30)

    def payload(self, kind: type[ControlEvent], record: dict[str, Any]) -> bytes:
        schema = kind.schema()
        encoder = Encoder(schema, schema.arrow, self.registry.register(f"{kind.home}-value", schema))
        values, _, failed = encoder.encode_checked(pa.RecordBatch.from_pylist([kind(**record).to_record()],
                                                                               schema=schema.arrow))
        assert not failed
        return bytes(values[0])

    def write(self, *records: tuple[str, bytes | None], commit: bool = True) -> None:
        self.producer.begin_transaction()
        for topic, value in records:
            self.producer.produce(topic, value, b"arrivals/watch")
        self.producer.flush(60)
        if commit:
            self.producer.commit_transaction(30)
        else:
            self.producer.abort_transaction(30)


@pytest.fixture
def registry(project: Settings) -> Iterator[Registry]:
    found = Registry(project.registry_client())
    with found.client:  # closes its connections
        yield found


@pytest.fixture
def writer(project: Settings, registry: Registry) -> Writer:
    for home, config in ((Alert.home, {"retention.ms": "-1"}), (Switch.home, {"cleanup.policy": "compact"})):
        topics.ensure(project, [topics.TopicPlan(home, 1, config)])
    return Writer(project, registry)


@pytest.fixture
def start(project: Settings) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """start(*arguments) runs Python in the project's folder; what is left at the end is killed."""
    processes: list[subprocess.Popen[str]] = []
    logs = project.project / "log"

    def run(*arguments: str) -> subprocess.Popen[str]:
        with logs.open("a") as log:
            processes.append(subprocess.Popen([sys.executable, *arguments], cwd=project.project, stderr=log,
                                              stdout=log, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}))
        return processes[-1]

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def ids(out: Path, run: str) -> list[str]:
    """The ids of this run's events in the file: the control topics are shared by all who use the broker."""
    events = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return [e["id"] for e in events if e["step"] == run]


def test_the_pager_acts_once_on_each_committed_event(project: Settings, writer: Writer,
                                                     start: Callable[..., subprocess.Popen[str]]) -> None:
    run, out = uuid.uuid4().hex[:8], project.project / "events.jsonl"
    pager = ("-m", "headrace.pager", "--events", "alert,switch", "--out", str(out), "--group", f"pager-{run}")
    alerts = [event(Alert, k, run, severity="critical", message="cancelled") for k in range(6)]
    switch = event(Switch, 9, run, model="flight-delay", to="baseline", reason="")
    a, b, c, d, e, f = [writer.payload(Alert, alert) for alert in alerts]

    first = start(*pager)
    writer.write((Alert.home, a), (Alert.home, b), (Alert.home, a), (Alert.home, None))
    writer.write((Alert.home, c), commit=False)
    writer.write((Alert.home, b"\x00\x00\x00"), (Alert.home, d), (Switch.home, writer.payload(Switch, switch)))
    expected = {alerts[0]["id"], alerts[1]["id"], alerts[3]["id"], switch["id"]}
    log = project.project / "log"
    until(lambda: set(ids(out, run)) >= expected, lambda: f"{ids(out, run)}\n{log.read_text()}")
    assert sorted(ids(out, run)) == sorted(expected), "the aborted alert, or one of them twice"
    assert "passed over a payload that is no record" in log.read_text()
    stop(first)

    writer.write((Alert.home, e), (Alert.home, d))
    writer.write((Alert.home, a), (Alert.home, f))
    second = start(*pager)
    until(lambda: alerts[5]["id"] in ids(out, run), log.read_text)
    stop(second)
    assert sorted(ids(out, run)) == sorted(expected | {alerts[4]["id"], alerts[5]["id"]})
    told = [json.loads(line) for line in out.read_text().splitlines()]
    assert next(t for t in told if t["id"] == switch["id"])["to"] == "baseline"


def test_a_failing_command_is_run_again_after_an_end_and_a_kill(project: Settings, writer: Writer,
                                                                start: Callable[..., subprocess.Popen[str]]) -> None:
    run, out, calls = uuid.uuid4().hex[:8], project.project / "events.jsonl", project.project / "calls"
    command = project.project / "page.py"
    command.write_text(textwrap.dedent(f"""
        import json, sys, pathlib
        event = json.load(sys.stdin)
        if event["step"] == {run!r}:
            with open({str(calls)!r}, "a") as file:
                file.write(f"{{event['window']}}\\n")
            sys.exit(not pathlib.Path({str(calls)!r}).with_name("line-is-open").exists())
    """))
    pager = ("-m", "headrace.pager", "--events", "alert", "--out", str(out), "--group", f"pager-{run}",
             "--run", f"{sys.executable} {command}")
    writer.write(*[(Alert.home, writer.payload(Alert, event(Alert, k, run, severity="info", message="m")))
                   for k in (1, 2)])
    log = project.project / "log"
    for end, at_least in ((stop, 2), (kill, 3)):
        one = start(*pager)
        until(lambda n=at_least: calls.exists() and len(calls.read_text().split()) >= n, log.read_text)  # type: ignore[misc]
        end(one)
    assert ids(out, run) == []
    (project.project / "line-is-open").touch()
    last = start(*pager)
    until(lambda: len(ids(out, run)) == 2, log.read_text)
    stop(last)
    tried = calls.read_text().split()
    assert tried == ["1"] * (len(tried) - 1) + ["2"], "in order, and the second not before the first"


ORDER = """{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"""
OWN = """
    import sys
    import faust
    import headrace.faust
    from headrace import codec

    source, target, group = sys.argv[1:4]
    order = codec.parse(open("order.avsc").read())
    app = headrace.faust.app(group)
    orders, copies = (headrace.faust.topic(app, name, order) for name in (source, target))

    @app.agent(orders)
    async def copy(stream):
        async for event in stream.events():
            await copies.send(key=event.key, value={**event.value, "id": event.value["id"] + 1000})

    faust.Worker(app, loglevel="WARN").execute_from_commandline()
"""


def test_a_faust_app_of_ones_own_reads_and_writes_avro(project: Settings, registry: Registry,
                                                       topic: Callable[..., str],
                                                       start: Callable[..., subprocess.Popen[str]]) -> None:
    from headrace import codec

    source, target = topic("orders"), topic("copies")
    (project.project / "own.py").write_text(textwrap.dedent(OWN))
    (project.project / "order.avsc").write_text(ORDER)
    schema = codec.parse(ORDER)
    encoder = Encoder(schema, schema.arrow, registry.register(f"{source}-value", schema))
    at = datetime(2013, 2, 9, tzinfo=UTC)
    values, _, _ = encoder.encode_checked(pa.RecordBatch.from_pylist([{"id": i, "at": at} for i in range(20)],
                                                                     schema=schema.arrow))
    producer = Producer(project.client(enable_idempotence=True))
    for i, value in enumerate(values):
        producer.produce(source, value, str(i).encode())
    producer.flush(60)

    own = start("own.py", source, target, f"own-{uuid.uuid4().hex[:8]}")
    consumer = Consumer(project.client(group_id=uuid.uuid4().hex, auto_offset_reset="earliest"))
    consumer.assign([TopicPartition(target, 0, 0)])
    got: list[Any] = []
    until(lambda: got.extend(consumer.consume(100, 0.5)) or len(got) >= 20, (project.project / "log").read_text)
    consumer.close()
    stop(own)
    decoded = codec.Decoder(schema, registry.schema).decode([m.value() for m in got])
    assert decoded.rejects == []
    assert decoded.rows.to_pylist() == [{"id": 1000 + i, "at": at} for i in range(20)]
    assert [m.key() for m in got] == [str(i).encode() for i in range(20)], "key and value are not swapped"
