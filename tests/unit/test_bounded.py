"""Calls that do not return, and producers that nobody calls."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from headrace import bounded
from headrace.bounded import Calls
from headrace.checkpoint import classify

pytestmark = pytest.mark.unit

EMISSION_MS = 10


class Heard:
    """A producer that reaches no broker, and how often its statistics were taken."""

    def __init__(self) -> None:
        self.emissions = 0
        self.producer = Producer({"bootstrap.servers": "127.0.0.1:1", "statistics.interval.ms": EMISSION_MS,
                                  "stats_cb": self._on_statistics, "log_level": 0})

    def _on_statistics(self, text: str) -> None:
        self.emissions += 1


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    monkeypatch.setattr(bounded, "POLL_S", 0.05)
    return Heard()


def until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_what_a_call_raises_comes_through_and_the_next_one_runs(heard: Heard) -> None:
    calls, ran = Calls(heard.producer), threading.Event()

    def wrong() -> None:
        raise KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION))

    with pytest.raises(KafkaException, match="ILLEGAL_GENERATION"):
        calls(wrong, 10)
    calls(ran.set, 10)
    assert ran.is_set()
    calls.close()


def test_a_call_that_does_not_return_is_fatal_to_its_producer(heard: Heard) -> None:
    calls, back = Calls(heard.producer), threading.Event()
    with pytest.raises(KafkaException, match="did not return within") as raised:
        calls(back.wait, 0.1)
    assert classify(raised.value.args[0]) == "fatal"

    before = heard.emissions
    calls.close()  # does not wait for it
    until(lambda: heard.emissions > before + 2)  # it is polled as long as it is there
    back.set()
    until(lambda: not any("given up" in thread.name for thread in threading.enumerate()))


def test_a_producer_that_nobody_calls_is_polled(heard: Heard) -> None:
    calls = Calls(heard.producer)
    until(lambda: heard.emissions > 3)
    calls.close()


@pytest.mark.parametrize("closed", [True, False])
def test_it_ends_with_its_owner(heard: Heard, closed: bool) -> None:
    calls = Calls(heard.producer)
    thread = calls._thread
    if closed:
        calls.close()
        assert not thread.is_alive()
    del calls
    gc.collect()
    until(lambda: not thread.is_alive())
