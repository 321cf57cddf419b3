"""A real Airflow trains once for each trigger: with repeats, 500s, silence and cuts in between, and kills."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psutil
import pytest

from headrace.control import Retrain, digest
from headrace.errors import Retriable
from headrace.loop.dispatch import Refused, Resources, Status
from headrace.loop.dispatch.airflow import Airflow, run_id
from headrace.settings import Settings
from tests.external.conftest import Server
from tests.external.proxy import FAULTS, Proxy, between

pytestmark = [pytest.mark.external, pytest.mark.timeout(600)]  # the first installs Airflow, once

RESOURCES = Resources(cpu=1.0, memory_mb=400, seconds_max=60)
SILENCE_S = 5.0
SUBMIT = """
import sys
from pathlib import Path
from headrace.loop.dispatch import Resources, dispatcher, request_from_json
print(dispatcher("airflow", {"url": sys.argv[1], "username": "headrace", "password_env": sys.argv[2]}).submit(
    request_from_json(Path(sys.argv[3]).read_text()), Resources()).state, flush=True)
"""


def request(name: str = "", *, reason: str = "", train_s: float = 0.0) -> Retrain:
    """`train_s` travels as the threshold: the training program of the tests sleeps that long."""
    return Retrain(id=digest(name or uuid.uuid4()), at=datetime(2013, 3, 1, tzinfo=UTC), flow="f", step="s", topic="t",
                   partition=0, window=3, offset_first=0, offset_last=9, window_start=None, window_end=None,
                   measure="count", condition="late", rows=10, matched=4, observed=4.0, threshold=train_s, model="m",
                   reason=reason)


def until(true: Callable[[], bool], seconds: float, what: Callable[[], object]) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what()
        time.sleep(0.3)


def over(dispatcher: Airflow, trigger: str, seconds: float = 180) -> Status:
    end = time.monotonic() + seconds
    while not (status := dispatcher.poll(trigger, None)).over:
        assert time.monotonic() < end, status
        time.sleep(0.5)
    return status


@pytest.fixture(scope="module")
def proxy(airflow: Server) -> Iterator[Proxy]:
    with between(airflow.url, SILENCE_S) as found:
        yield found


def test_from_an_event_to_success(airflow: Server) -> None:
    asked, to = request(reason="it’s late in “March”"), airflow.dispatcher()
    assert to.poll(asked.id, None).state == "unknown"
    status = to.submit(asked, RESOURCES)
    assert (status.state, status.run) == ("queued", run_id(asked.id))
    status = over(to, asked.id)
    assert status.state == "succeeded", status
    assert status.result
    assert (status.result["version"], status.result["metrics"]) == ("7", {"auc": 0.7})
    assert status.result["dag_run"] == run_id(asked.id)
    assert status.result["peak_bytes"] > 1 << 20
    assert to.submit(asked, RESOURCES) == status, "a repeat finds the run and its result"
    assert airflow.trained(asked.id) == 1
    conf = airflow.runs(asked.id)[0]["conf"]
    assert conf["resources"] == {"cpu": 1.0, "memory_mb": 400, "gpu": 0, "seconds_max": 60}


def test_eight_at_once_are_one_run(airflow: Server) -> None:
    asked = request()

    def submit(_: int) -> str:
        to = airflow.dispatcher()
        while True:
            with contextlib.suppress(Retriable):
                return to.submit(asked, RESOURCES).state

    with ThreadPoolExecutor(8) as pool:
        states = set(pool.map(submit, range(8)))
    assert states <= {"queued", "running"}
    assert len(airflow.runs(asked.id)) == 1
    assert over(airflow.dispatcher(), asked.id).state == "succeeded"
    assert airflow.trained(asked.id) == 1


def test_faults_in_between(airflow: Server, proxy: Proxy) -> None:
    """Each fault by itself, then faults in a row on POST and GET alike: submit again until it is known."""
    to = airflow.dispatcher(proxy.url, timeout_s=SILENCE_S - 1)
    seed = random.Random(3)
    scripts = [[fault] for fault in FAULTS] + [seed.choices(FAULTS, k=4) for _ in range(2)]
    asked = [request() for _ in scripts]
    for one, script in zip(asked, scripts, strict=True):
        proxy.script(script)
        for _ in range(len(script) + 5):  # a server that is busy may be slow by itself
            with contextlib.suppress(Retriable):
                assert to.submit(one, RESOURCES).state in ("queued", "running")
                break
        else:
            pytest.fail(f"still not known after {proxy.done}")
        assert proxy.done, "the fault came to pass"
        assert len(airflow.runs(one.id)) == 1, proxy.done
    proxy.script([])
    for one in asked:
        assert over(to, one.id).state == "succeeded"
        assert airflow.trained(one.id) == 1


def test_polling_through_faults(airflow: Server, proxy: Proxy) -> None:
    asked = request()
    airflow.dispatcher().submit(asked, RESOURCES)
    to = airflow.dispatcher(proxy.url, timeout_s=SILENCE_S - 1)
    for fault in FAULTS:
        proxy.script([fault])
        with pytest.raises(Retriable):
            to.poll(asked.id, None)
    assert over(to, asked.id).state == "succeeded"


def test_the_submitting_process_is_killed(airflow: Server, proxy: Proxy, tmp_path: Any) -> None:
    """Five times at random, about when the request is on its way; the sixth is let live."""
    asked = request()
    (tmp_path / "request.json").write_text(asked.to_json())
    command = [sys.executable, "-c", SUBMIT, proxy.url, airflow.password_env, str(tmp_path / "request.json")]
    proxy.script([])
    proxy.late_s = 0.4
    began = time.monotonic()
    subprocess.run([*command[:-1], str(tmp_path / "none.json")], capture_output=True, check=False)
    import_s = time.monotonic() - began
    seed = random.Random(11)
    for _ in range(5):
        submitting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(import_s + seed.uniform(0, 1.5))
        submitting.kill()
        submitting.wait()
    proxy.late_s = 0.0
    last = subprocess.run(command, capture_output=True, text=True, check=True)
    assert last.stdout.strip() in ("queued", "running", "succeeded")
    assert len(airflow.runs(asked.id)) == 1
    assert over(airflow.dispatcher(), asked.id).state == "succeeded"
    assert airflow.trained(asked.id) == 1


def test_how_it_fails_is_said(airflow: Server) -> None:
    asked, to = request(reason="nan"), airflow.dispatcher()
    to.submit(asked, RESOURCES)
    status = over(to, asked.id)
    assert status.state == "failed"
    assert "the loss is nan after 3 epochs" in status.reason
    assert "exit code 1" in status.reason
    assert airflow.trained(asked.id) == 1, "a training that fails is not tried again"


def test_the_worker_is_killed(airflow: Server) -> None:
    """The task's process dies, Airflow tries again after ten seconds, and finds the training that has gone on."""
    asked, to = request(train_s=6.0), airflow.dispatcher()
    to.submit(asked, RESOURCES)
    until(lambda: airflow.trained(asked.id) == 1, 60, lambda: to.poll(asked.id, None))
    killed = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if "headrace.loop.dispatch.local" in line and str(airflow.project) in line:
                process.kill()
                killed += 1
    assert killed
    status = over(to, asked.id)
    assert status.state == "succeeded", status
    assert airflow.trained(asked.id) == 1


def test_cancel_ends_the_training(airflow: Server) -> None:
    asked, to = request(train_s=60.0), airflow.dispatcher()
    to.submit(asked, RESOURCES)
    until(lambda: airflow.trained(asked.id) == 1, 60, lambda: to.poll(asked.id, None))
    training = int((airflow.project / "trained" / asked.id).read_text())
    to.cancel(asked.id, None)
    to.cancel(asked.id, None)
    assert to.poll(asked.id, None).state == "failed"
    until(lambda: not psutil.pid_exists(training), 40, lambda: psutil.Process(training))


def test_who_we_are_and_what_is_missing(airflow: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, to = request(), airflow.dispatcher()
    to._token = "old"  # as after a restart of Airflow, or a day
    assert to.poll(asked.id, None).state == "unknown"
    with pytest.raises(Retriable, match=r"headrace/dags/headrace_retrain\.py"):
        airflow.dispatcher(dag_id="nope").submit(asked, RESOURCES)
    monkeypatch.setenv(airflow.password_env, "wrong")
    with pytest.raises(Refused, match="401"):
        airflow.dispatcher().submit(asked, RESOURCES)
    monkeypatch.delenv(airflow.password_env)
    with pytest.raises(Refused, match="is not set"):
        airflow.dispatcher().submit(asked, RESOURCES)


def test_a_paused_dag_is_said(airflow: Server) -> None:
    asked, to = request(), airflow.dispatcher()
    airflow.api("PATCH", "dags/headrace_retrain", {"is_paused": True})
    try:
        assert to.submit(asked, RESOURCES) == Status("queued", run_id(asked.id),
                                                     "the DAG headrace_retrain is paused in Airflow")
    finally:
        airflow.api("PATCH", "dags/headrace_retrain", {"is_paused": False})
    assert over(to, asked.id).state == "succeeded"


def test_the_trigger_dag_reads_the_topic_itself(airflow: Server, project: Settings) -> None:
    """Three events at once, two of them twice, its process killed in between: three runs, and the offsets are
    committed."""
    import pyarrow as pa
    from confluent_kafka import Consumer, Producer, TopicPartition

    from headrace.codec import Encoder
    from headrace.registry import Registry
    from headrace.topics import TopicPlan, ensure

    ensure(project, [TopicPlan(Retrain.home, 1, {})])
    (airflow.project / "headrace.toml").write_text((project.project / "headrace.toml").read_text())
    asked = [request() for _ in range(3)]
    schema = Retrain.schema()
    registry = Registry(project.registry_client())
    with registry.client:
        encoder = Encoder(schema, schema.arrow, registry.register(f"{Retrain.home}-value", schema))
    rows = [one.to_record() for one in (asked[0], asked[0], asked[1], asked[2], asked[1])]
    values, _, failed = encoder.encode_checked(pa.RecordBatch.from_pylist(rows, schema=schema.arrow))
    assert not failed
    producer = Producer(project.client(enable_idempotence=True))
    for value in values:
        producer.produce(Retrain.home, bytes(value), b"m")
    producer.flush(60)
    airflow.api("PATCH", "dags/headrace_trigger", {"is_paused": False})
    try:
        until(lambda: len(airflow.runs(asked[0].id)) == 1, 180, lambda: airflow.api("GET", "dags/headrace_trigger"))
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if "headrace.loop.dispatch.forward" in line and str(airflow.project) in line:
                    process.kill()
        reader = Consumer(project.client(group_id="headrace-forward"))
        try:
            until(lambda: reader.committed([TopicPartition(Retrain.home, 0)], 10)[0].offset == 5, 180,
                  lambda: reader.committed([TopicPartition(Retrain.home, 0)], 10))
        finally:
            reader.close()
    finally:
        airflow.api("PATCH", "dags/headrace_trigger", {"is_paused": True})
    for one in asked:
        assert len(airflow.runs(one.id)) == 1
        assert over(airflow.dispatcher(), one.id).state == "succeeded"
        assert airflow.trained(one.id) == 1
    assert os.environ.get(airflow.password_env)
