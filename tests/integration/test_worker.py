"""The worker against a real broker: drains, stops, chains, restarts, and holds back what it must."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from headrace.batch import read_lineage
from headrace.connectors.quarantine import REASONS, SOURCE, STEP
from headrace.lag import measure
from headrace.settings import Settings
from headrace.topics import TopicPlan, ensure
from tests.committed import committed_records
from tests.faults.test_kill import FLOW, load, start, wait_for, write_flow
from tests.integration.connectkit import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def drain(project: Settings, flow: str, *more: str) -> dict[str, Any]:
    worker = start(project.project, flow, "--drain", *more)
    told = worker.communicate(timeout=90)[1]
    assert worker.returncode == 0, told
    lines = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    return next(line for line in lines if line["message"] == "stopped")


def reasons(message: Any) -> list[str]:
    found: list[str] = json.loads(dict(message.headers())[REASONS])
    return found


def test_bad_records_are_held_back_with_reason_and_position(project: Settings, topic: Callable[..., str]) -> None:
    source = topic("bad", partitions=4, max_message_bytes=2_000_000)
    write_flow(project.project, "bad", source)
    load(project, source, 1_000)
    producer = Producer(project.client(enable_idempotence=True, message_max_bytes=2_000_000))
    good = committed_records(project, source)[0].value()
    planted = {
        "wrong_magic": b"\x01" + good[1:], "truncated_header": b"\x00\x00", "unknown_schema": b"\0\x7f\xff\xff\xff\x02",
        "null_value": None, "corrupt": good[:5] + b"\xff" * 12, "trailing_bytes": good + b"??",
    }
    for name, value in planted.items():
        producer.produce(source, value, name, 0)
    producer.flush(60)
    told = drain(project, "bad")
    assert told["records_in"] == 1_000 + len(planted)
    held = committed_records(project, f"{source}.quarantine")
    by_key = {m.key().decode(): m for m in held if m.key() and m.key().decode() in planted}
    assert set(by_key) == set(planted)
    for name, value in planted.items():
        message = by_key[name]
        assert message.value() == value
        assert reasons(message)[0].startswith(f"{name}: "), (name, reasons(message))
        assert dict(message.headers())[STEP] == b"source"
        assert dict(message.headers())[SOURCE].decode().startswith(f"{source}/0@")
    assert told["records_in"] == len(held) + len(committed_records(project, f"{source}.checked"))


def test_an_oversized_result_goes_alone_to_the_dead_letters(project: Settings, topic: Callable[..., str]) -> None:
    source = topic("large", partitions=1, max_message_bytes=4_000_000)
    ensure(project, [TopicPlan(f"{source}.checked", 1, {"max.message.bytes": "1000000"})])
    write_flow(project.project, "large", source)
    flow = (project.project / "flows/large.yaml").read_text().replace('twice: "n * 2"', 'twice: "sensor || sensor"')
    (project.project / "flows/large.yaml").write_text(flow)
    load(project, source, 50)
    from headrace import codec
    from headrace.registry import Registry

    schema = codec.load(project.project / "schemas/reading.avsc")
    number = Registry(project.registry_client()).register(f"{source}-value", schema)
    import pyarrow as pa

    rows = pa.RecordBatch.from_pydict({"n": [1], "sensor": ["x" * 900_000]}, schema=schema.arrow)
    producer = Producer(project.client(enable_idempotence=True, message_max_bytes=4_000_000))
    producer.produce(source, codec.Encoder(schema, schema.arrow, number).encode(rows)[0], "large")
    producer.flush(60)
    drain(project, "large")
    assert not committed_records(project, f"{source}.quarantine")
    large = committed_records(project, "large.dead-letter")
    assert [m.key() for m in large] == [b"large"]
    assert reasons(large[0])[0].startswith("oversized: ")
    assert len(large[0].value()) > 900_000


def test_flows_chain_and_drain_past_transaction_markers(project: Settings, topic: Callable[..., str]) -> None:
    source = topic("chain", partitions=4)
    write_flow(project.project, "first", source)
    load(project, source, 5_000)
    drain(project, "first", "--batch", "500")
    second = FLOW.format(name="second", source=f"{source}.checked").replace("schema: reading", "schema: checked")
    checked = json.loads((project.project / "schemas/reading.avsc").read_text())
    checked["name"] = "checked"  # as the first flow's sink derives it from its topic
    checked["fields"].append({"name": "twice", "type": ["null", "long"]})
    (project.project / "schemas/checked.avsc").write_text(json.dumps(checked))
    (project.project / "flows/second.yaml").write_text(second.replace('twice: "n * 2"', 'thrice: "n * 3"'))
    told = drain(project, "second")
    assert told["records_in"] == 5_000 - 500 - 50
    held = committed_records(project, f"{source}.checked.quarantine")
    assert not held, reasons(held[0])
    last = committed_records(project, f"{source}.checked.checked")
    assert {read_lineage(m.headers()).topic for m in last} == {f"{source}.checked"}  # type: ignore[union-attr]
    assert drain(project, "second")["records_in"] == 0
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
    from confluent_kafka.admin import OffsetSpec

    admin = AdminClient(project.client())
    group = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("headrace.second")])["headrace.second"]
    committed = {p.partition: p.offset for p in group.result().topic_partitions}
    ends = admin.list_offsets({TopicPartition(f"{source}.checked", p): OffsetSpec.latest() for p in committed})
    assert {at.partition: found.result().offset for at, found in ends.items()} == committed  # markers leave no lag


def test_sigterm_finishes_the_batch_and_http_tells(project: Settings, topic: Callable[..., str]) -> None:
    source = topic("live", partitions=4)
    write_flow(project.project, "live", source)
    load(project, source, 20_000)
    from tests.ports import free_port

    port = free_port()
    worker = start(project.project, "live", "--http", str(port))
    wait_for(worker, "assigned")

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    end = time.monotonic() + 60
    while 'headrace_records_in_total{flow="live",slot="0"} 20000.0' not in get("/metrics"):
        assert time.monotonic() < end, get("/metrics")
        time.sleep(0.2)
    metrics = get("/metrics")
    for name in ("headrace_records_out_total", "headrace_step_seconds_bucket", "headrace_lag_records",
                 "headrace_lag_seconds", "headrace_rss_bytes", "headrace_cpu_seconds", 'label="sensor_given"'):
        assert name in metrics, name
    assert json.loads(get("/health")) == {"healthy": True}
    assert json.loads(get("/ready")) == {"ready": True}
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=30)
    assert worker.returncode == 0


def test_several_workers_share_the_partitions_and_one_that_dies_comes_back(project: Settings,
                                                                          topic: Callable[..., str]) -> None:
    import psutil

    source = topic("many", partitions=4)
    write_flow(project.project, "many", source)
    load(project, source, 40_000)
    parent = start(project.project, "many", "--workers", "2", "--batch", "200")
    wait_for(parent, "assigned")
    children = [c for c in psutil.Process(parent.pid).children() if "--slot" in c.cmdline()]
    assert len(children) == 2
    children[0].kill()
    wait_for(parent, "worker died")
    wait_for(parent, "assigned")
    until(lambda: measure(project, ["headrace.many"])["headrace.many"].lag == 0)
    parent.terminate()
    told = parent.communicate(timeout=120)[1]
    assert parent.returncode == 0, told
    found = committed_records(project, f"{source}.checked", f"{source}.quarantine")
    origins = Counter(str(read_lineage(m.headers())) for m in found)
    assert len(origins) == 40_000
    assert max(origins.values()) == 1


def test_no_broker_and_no_registry_are_told_clearly(project: Settings, topic: Callable[..., str]) -> None:
    source = topic("down", partitions=1)
    write_flow(project.project, "down", source)
    from tests.ports import free_port

    nowhere = f"127.0.0.1:{free_port()}"
    for env, named in (({"HEADRACE_BOOTSTRAP": nowhere}, nowhere),
                       ({"HEADRACE_REGISTRY": f"http://{nowhere}/apis/ccompat/v7"}, nowhere)):
        worker = start(project.project, "down", "--drain", env=env)
        told = worker.communicate(timeout=90)[1]
        assert worker.returncode == 3, told
        assert named in told.splitlines()[-2] or named in told.splitlines()[-1], told
        assert "Traceback" not in told
