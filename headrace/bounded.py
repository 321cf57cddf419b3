"""Calls to a producer that come back in time, and a producer that is polled while nobody calls it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

POLL_S = 1.0
Work = tuple[Callable[[], Any], "Future[None]"]


class Calls:
    """The calls to one producer that wait for a broker, one at a time, in a thread of their own.

    `send_offsets_to_transaction` ignores its time-out while the group's coordinator is away, and may never return
    (librdkafka's issues 5456 and 5511, seen with 2.16). What does not return is left to that thread, and the producer
    is as if a fatal error had hit it. Between calls the thread polls, and so it is for a producer that was given up:
    statistics of every 10 ms that nobody takes would come to some 20 GB a day.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer: Producer | None = producer
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._under_way: Future[None] = Future()
        self._under_way.set_result(None)
        self._end = weakref.finalize(self, self._work.put, None)
        self._thread = threading.Thread(target=_serve, args=(producer, self._work), name="producer", daemon=True)
        self._thread.start()

    def __call__(self, call: Callable[[], Any], within_s: float) -> None:
        """Raises what the call raises; KafkaException with a fatal _TIMED_OUT when it is given up."""
        over: Future[None] = Future()
        self._under_way = over
        self._work.put((call, over))
        if wait([over], within_s).not_done:
            reason = f"the call did not return within {within_s:g} s"
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, reason, fatal=True))
        over.result()

    def close(self) -> None:
        """Let the producer go. One whose call has not returned is let go when it has."""
        producer, self._producer = self._producer, None
        self._end()
        if self._under_way.done():
            self._thread.join()
        else:
            threading.Thread(target=_attend, args=(producer, self._under_way), name="producer given up", daemon=True
                             ).start()


def _serve(producer: Producer, work: SimpleQueue[Work | None]) -> None:
    while True:
        try:
            given = work.get(timeout=POLL_S)
        except Empty:
            poll(producer)
            continue
        if given is None:
            return
        call, over = given
        try:
            call()
        except BaseException as error:
            over.set_exception(error)
        else:
            over.set_result(None)
        del given, call, over  # a call holds its producer


def _attend(producer: Producer, over: Future[None]) -> None:
    while wait([over], POLL_S).not_done:
        poll(producer)


def poll(producer: Producer, timeout_s: float = 0.0) -> None:
    """Serve the callbacks. A fatal error raises here too, and is told by whatever is called next."""
    with suppress(KafkaException):
        producer.poll(timeout_s)
