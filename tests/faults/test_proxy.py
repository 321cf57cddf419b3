"""The proxy: every fault, shown on a real client and a real broker."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.testing.proxy import Api, Link, Proxy
from tests.conftest import Stack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

QUICK = {"reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 50, "retry.backoff.ms": 5, "log_level": 0}
CONCURRENT_TRANSACTIONS = 51


@pytest.fixture
def proxy(stack: Stack) -> Iterator[Proxy]:
    with Proxy(stack.bootstrap) as made:
        yield made


def writer(bootstrap: str, **config: Any) -> Producer:
    given = {key if key == "stats_cb" else key.replace("_", "."): value for key, value in config.items()}
    return Producer({"bootstrap.servers": bootstrap, **QUICK, **given})


def readable(stack: Stack, topic: str, isolation: str = "read_committed") -> list[bytes]:
    """The values in partition 0, read past the proxy."""
    consumer = Consumer({"bootstrap.servers": stack.bootstrap, "group.id": "reader", "enable.auto.commit": False,
                         "isolation.level": isolation, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[bytes] = []
    while True:
        for message in consumer.consume(1_000, 1.0):
            if message.error():
                consumer.close()
                return found
            found.append(message.value())


def test_clients_stay_on_it(stack: Stack, proxy: Proxy, topic: Callable[..., str]) -> None:
    """Whatever an answer names: while the line is cut, a consumer in a group reads nothing; healed, it reads on."""
    name = topic()
    port = int(proxy.bootstrap.rpartition(":")[2])
    admin = AdminClient({"bootstrap.servers": proxy.bootstrap, **QUICK})
    assert {(b.host, b.port) for b in admin.list_topics(timeout=30).brokers.values()} == {("127.0.0.1", port)}
    cluster = admin.describe_cluster(request_timeout=60).result()
    assert {(node.host, node.port) for node in cluster.nodes} == {("127.0.0.1", port)}
    direct = writer(stack.bootstrap)
    consumer = Consumer({"bootstrap.servers": proxy.bootstrap, "group.id": name, "auto.offset.reset": "earliest",
                         **QUICK})
    consumer.subscribe([name])
    direct.produce(name, b"before")
    assert [m.value() for m in consumer.consume(1, 20)] == [b"before"]
    assert all(proxy.requests[api] for api in (Api.FIND_COORDINATOR, Api.JOIN_GROUP, Api.FETCH))

    proxy.cut()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    direct.produce(name, b"during")
    assert direct.flush(60) == 0
    assert [m.value() for m in consumer.consume(1, 1.0) if not m.error()] == []

    proxy.heal()
    assert [m.value() for m in consumer.consume(1, 30)] == [b"during"]
    consumer.close()


def test_another_client_library(proxy: Proxy, topic: Callable[..., str]) -> None:
    """aiokafka speaks other versions than librdkafka."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    name, port = topic(), int(proxy.bootstrap.rpartition(":")[2])

    async def there_and_back() -> bytes | None:
        producer = AIOKafkaProducer(bootstrap_servers=proxy.bootstrap)
        await producer.start()
        await producer.send_and_wait(name, b"hello")
        assert {broker.port for broker in producer.client.cluster.brokers()} == {port}
        await producer.stop()
        consumer = AIOKafkaConsumer(name, bootstrap_servers=proxy.bootstrap, group_id=name,
                                    auto_offset_reset="earliest")
        await consumer.start()
        try:
            return (await asyncio.wait_for(consumer.getone(), 20)).value
        finally:
            await consumer.stop()

    assert asyncio.run(there_and_back()) == b"hello"


def ask(address: str, api_key: int, version: int, flexible: bool, body: bytes) -> bytes:
    """The answer to one request, sent by hand."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as line:
        header = struct.pack(">hhih", api_key, version, 7, -1) + (b"\0" if flexible else b"")
        line.sendall(struct.pack(">i", len(header + body)) + header + body)
        stream = line.makefile("rb")
        return stream.read(int.from_bytes(stream.read(4), "big"))


def compact(text: str) -> bytes:
    return bytes([len(text) + 1]) + text.encode()


def requests() -> Iterator[tuple[int, int, bool, bytes]]:
    """(API key, version, is it flexible, body): every version of what names brokers, of one broker, topics left out."""
    for version in range(14):
        flexible = version >= 9
        none = b"\x01" if flexible else struct.pack(">i", 0)
        asked = struct.pack(">i", 0) if version == 0 else none  # version 0: every topic
        authorized = {8: 2, 9: 2, 10: 2}.get(version, 1 if version > 10 else 0)
        yield Api.METADATA, version, flexible, (asked + (b"\0" if version >= 4 else b"") + b"\0" * authorized
                                                + (b"\0" if flexible else b""))
    for version in range(7):
        key = "some-group"
        if version < 3:
            yield Api.FIND_COORDINATOR, version, False, (struct.pack(">h", len(key)) + key.encode()
                                                         + (b"\0" if version else b""))
        else:
            yield Api.FIND_COORDINATOR, version, True, (compact(key) + b"\0\0" if version == 3
                                                        else b"\0\x02" + compact(key) + b"\0")
    for version in range(3):
        yield Api.DESCRIBE_CLUSTER, version, True, b"\0" + (b"\x01" if version else b"") + (
            b"\0" if version > 1 else b"") + b"\0"


def test_every_version_that_names_brokers(stack: Stack, proxy: Proxy) -> None:
    """The proxy's answer is the broker's with another port, byte for byte."""
    group = Consumer({"bootstrap.servers": stack.bootstrap, "group.id": "some-group"})
    group.committed([TopicPartition("none", 0)], timeout=60)  # from now on it has a coordinator
    theirs, ours = (struct.pack(">i", int(at.rpartition(":")[2])) for at in (stack.bootstrap, proxy.bootstrap))
    for api_key, version, flexible, body in requests():
        direct = ask(stack.bootstrap, api_key, version, flexible, body)
        assert theirs in direct, f"{api_key} v{version} names no broker"
        through = ask(proxy.bootstrap, api_key, version, flexible, body)
        assert through == direct.replace(theirs, ours), f"{api_key} v{version}"


def test_latency_each_way(proxy: Proxy) -> None:
    admin = AdminClient({"bootstrap.servers": proxy.bootstrap, **QUICK})
    admin.list_topics(timeout=30)
    for link in (Link(to_broker_s=0.4), Link(to_client_s=0.4)):
        proxy.link = link
        begun = time.monotonic()
        admin.list_topics(timeout=30)
        assert time.monotonic() - begun >= 0.4


def test_bandwidth(stack: Stack, proxy: Proxy, topic: Callable[..., str]) -> None:
    name = topic()
    producer = writer(proxy.bootstrap)
    producer.produce(name, b"warm")
    assert producer.flush(60) == 0
    proxy.link = Link(bytes_per_s=100_000)
    begun = time.monotonic()
    producer.produce(name, b"x" * 80_000)
    assert producer.flush(0.2) == 1
    assert producer.flush(60) == 0
    assert time.monotonic() - begun >= 0.8
    assert [len(value) for value in readable(stack, name)] == [4, 80_000]


def test_reset_after_bytes(stack: Stack, proxy: Proxy, topic: Callable[..., str]) -> None:
    """An idempotent producer loses nothing and doubles nothing, though its connections die in the middle of frames."""
    name = topic()
    producer = writer(proxy.bootstrap, enable_idempotence=True)
    sent = [b"warm"]
    producer.produce(name, sent[0])
    assert producer.flush(60) == 0
    proxy.link = Link(reset_after_bytes=30_000)
    before = proxy.requests[Api.API_VERSIONS]  # one for each connection
    end = time.monotonic() + 60
    while proxy.requests[Api.API_VERSIONS] < before + 5:
        assert time.monotonic() < end, "no connection was reset"
        sent.append(b"%06d" % len(sent) + b"x" * 1_000)
        producer.produce(name, sent[-1])
        producer.poll(0.01)
    proxy.link = Link()
    assert producer.flush(60) == 0
    assert readable(stack, name) == sent


@pytest.mark.parametrize("answered", [False, True])
def test_reset_of_a_request(stack: Stack, proxy: Proxy, topic: Callable[..., str], answered: bool) -> None:
    """Before the broker has it, or after: a producer that is not idempotent then writes twice."""
    name = topic()
    producer = writer(proxy.bootstrap)
    fault = proxy.reset(Api.PRODUCE, times=1, answered=answered)
    producer.produce(name, b"once")
    assert producer.flush(60) == 0
    assert fault.done == 1
    assert proxy.requests[Api.PRODUCE] == 2
    assert proxy.answers[Api.PRODUCE] == 1 + answered
    assert readable(stack, name) == [b"once"] * (1 + answered)


def test_dropped_answers(stack: Stack, proxy: Proxy, topic: Callable[..., str]) -> None:
    name = topic()
    producer = writer(proxy.bootstrap, socket_timeout_ms=800, request_timeout_ms=500)
    fault = proxy.drop(Api.PRODUCE)
    producer.produce(name, b"again and again")
    fault.wait(2)
    fault.stop()
    assert producer.flush(60) == 0
    found = readable(stack, name)
    assert found == [b"again and again"] * proxy.requests[Api.PRODUCE]
    assert len(found) >= 3


def test_hold_and_release(proxy: Proxy, topic: Callable[..., str]) -> None:
    """By transactional id: one producer's commit waits, another's does not."""
    name = topic()
    held, free = (writer(proxy.bootstrap, transactional_id=f"{name}-{who}") for who in ("held", "free"))
    fault = proxy.hold(Api.END_TXN, transactional_id=f"{name}-held")
    for producer in (held, free):
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(name, b"x")
    with ThreadPoolExecutor(1) as aside:
        waiting = aside.submit(held.commit_transaction, 30)
        fault.wait()
        free.commit_transaction(20)
        assert not waiting.done()
        answers = fault.release()
        waiting.result(60)
    assert [error_of(answer) for answer in answers] == [0]
    with pytest.raises(TimeoutError):
        fault.wait(2, timeout_s=0.1)


def error_of(answer: bytes) -> int:
    """Of an answer to EndTxn: four bytes of throttle time, then the error."""
    return int.from_bytes(answer[4:6], "big", signed=True)


def test_delivered_after_the_client_is_gone(stack: Stack, proxy: Proxy, topic: Callable[..., str]) -> None:
    name = topic()
    producer = writer(proxy.bootstrap, transactional_id=name, transaction_timeout_ms=30_000)
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(name, b"late")
    fault = proxy.hold(Api.END_TXN)
    with pytest.raises(KafkaException):
        producer.commit_transaction(1.0)
    proxy.cut()
    del producer
    assert readable(stack, name) == []
    assert [error_of(answer) for answer in fault.release()] == [0]
    end = time.monotonic() + 60
    while readable(stack, name) != [b"late"]:
        assert time.monotonic() < end, "what was held never came to the broker"
    assert proxy.connections == 0


def test_held_and_cut(stack: Stack, proxy: Proxy, topic: Callable[..., str]) -> None:
    """The client tries again and is done; the request that was held comes when its transaction is long committed."""
    name = topic()
    producer = writer(proxy.bootstrap, transactional_id=name)
    producer.init_transactions(20)
    fault = proxy.hold(Api.END_TXN, times=1, cut=True)
    producer.begin_transaction()
    producer.produce(name, b"x")
    producer.commit_transaction(20)
    assert proxy.requests[Api.END_TXN] == 2
    assert fault.done == 1
    [answer] = fault.release()
    assert error_of(answer) in (0, CONCURRENT_TRANSACTIONS)  # a commit of what is committed, or just being so
    assert readable(stack, name) == [b"x"]


def test_it_leaves_nothing_behind(stack: Stack) -> None:
    """A proxy that ends while a request is held: its clients are cut, its ports are free."""
    with Proxy(stack.bootstrap) as proxy:
        port = int(proxy.bootstrap.rpartition(":")[2])
        admin = AdminClient({"bootstrap.servers": proxy.bootstrap, **QUICK})
        admin.list_topics(timeout=30)
        proxy.hold(Api.METADATA)
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=0.3)
        assert proxy.connections
    assert proxy.connections == 0
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
        again.listen()
