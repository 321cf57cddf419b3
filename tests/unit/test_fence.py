"""What the fence reads in librdkafka's statistics."""

from __future__ import annotations

import json

import pytest

from headrace.checkpoint import troubles

pytestmark = pytest.mark.unit


def statistics(**brokers: tuple[int, int]) -> str:
    """As librdkafka writes them, as far as the fence reads: broker → (request time-outs, disconnects)."""
    return json.dumps({
        "name": "rdkafka#producer-1", "type": "producer", "ts": 1,
        "brokers": {name: {"name": name, "nodename": "127.0.0.1:9092", "txretries": 7, "req_timeouts": timeouts,
                           "disconnects": disconnects, "int_latency": {"cnt": 3}}
                    for name, (timeouts, disconnects) in brokers.items()},
        "topics": {"t": {"topic": "t", "partitions": {"0": {"partition": 0, "txmsgs": 3}}}}})


def test_nothing_happened() -> None:
    assert not troubles(statistics(TxnCoordinator=(0, 0), bootstrap=(0, 0)))


def test_every_count_of_every_broker() -> None:
    assert troubles(statistics(TxnCoordinator=(0, 12), bootstrap=(3, 1))) == {
        ("TxnCoordinator", "disconnects", "12"), ("bootstrap", "req_timeouts", "3"), ("bootstrap", "disconnects", "1")}


def test_a_broker_that_is_forgotten_hides_no_disconnect() -> None:
    """Where the fence summed up, one broker's count that went away made up for another's that came."""
    before = troubles(statistics(TxnCoordinator=(0, 0), bootstrap=(0, 1)))
    after = troubles(statistics(TxnCoordinator=(0, 1)))
    assert after - before == {("TxnCoordinator", "disconnects", "1")}
    assert not before - troubles(statistics(TxnCoordinator=(0, 0), bootstrap=(0, 1)))
