"""Following a topic beside the stream: every record of it from the beginning, then each new one, in a thread.

For what running flows must know and do not process: which model is in charge, a table to look things up in. The
records are those of committed transactions, in order within a partition.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.errors import Retriable
from headrace.peek import gulp
from headrace.settings import Settings
from headrace.topics import silent, watermarks

log = logging.getLogger("headrace.follow")
BATCH_MAX = 5_000
POLL_S = 0.1
TELL_S = 30.0


class Follower:
    """Calls `seen` in its own thread with the records of `topic` as they come; an error that it raises is kept, and
    raised by `settle`."""

    def __init__(self, settings: Settings, topic: str, seen: Callable[[list[Message]], None]) -> None:
        self.topic, self._seen = topic, seen
        self._told = -TELL_S
        conf = settings.client(
            group_id="headrace.follow", enable_auto_commit=False, enable_auto_offset_store=False,
            enable_partition_eof=True, auto_offset_reset="earliest", isolation_level="read_committed",
            fetch_wait_max_ms=50)
        self._consumer = Consumer({**conf, "error_cb": self._on_error}, logger=silent("follow"))
        # Another client, since one that a thread reads does not answer others. It asks for the end of the log itself:
        # a transaction may be committed a moment before its records count as committed to those who read.
        self._asking = Consumer({**conf, "isolation.level": "read_uncommitted"}, logger=silent("follow"))
        self._at: dict[int, int] = {}
        self._moved = threading.Condition()
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow {topic}", daemon=True)

    def _on_error(self, error: KafkaError) -> None:
        if time.monotonic() - self._told > TELL_S:
            self._told = time.monotonic()
            log.warning("broker trouble", extra={"topic": self.topic, "error": error.str()})

    def start(self) -> Follower:
        """Begin at the topic's beginning. Raises Retriable when the broker does not answer or the topic is absent."""
        try:
            found = self._consumer.list_topics(self.topic, timeout=10).topics[self.topic]
        except KafkaException as error:
            raise Retriable(f"{self.topic} cannot be followed: {error.args[0].str()}", retry_after_s=2.0) from error
        if found.error is not None:
            raise Retriable(f"{self.topic} cannot be followed: {found.error.str()}", retry_after_s=2.0)
        self._at = dict.fromkeys(found.partitions, 0)
        self._consumer.assign([TopicPartition(self.topic, p, 0) for p in self._at])
        self._thread.start()
        return self

    def settle(self, timeout_s: float = 30.0) -> None:
        """Return once all that is committed there now has been seen; transactions under way there are waited for.
        Raises Retriable when that takes too long, and what `seen` has raised."""
        end = time.monotonic() + timeout_s
        try:
            wanted = {p: watermarks(self._asking, self.topic, p, timeout_s)[1]
                      for p in self._at}
        except KafkaException as error:
            raise Retriable(f"{self.topic}: {error.args[0].str()}", retry_after_s=1.0) from error
        with self._moved:
            while self._error is None and any(self._at[p] < high for p, high in wanted.items()):
                if not self._moved.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                    raise Retriable(f"{self.topic} was not read to its end within {timeout_s:g} s", retry_after_s=1.0)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while not self._stop.is_set():
            got = gulp(self._consumer, BATCH_MAX, POLL_S)
            records = [message for message in got if message.error() is None]
            try:
                if records:
                    self._seen(records)
            except Exception as error:
                log.exception("what follows a topic failed", extra={"topic": self.topic})
                self._error = error
            if got:
                with self._moved:
                    for message in got:
                        error_ = message.error()
                        if error_ is None or error_.code() == KafkaError._PARTITION_EOF:
                            ahead = int(message.offset() or 0) + (error_ is None)
                            self._at[int(message.partition() or 0)] = ahead
                    self._moved.notify_all()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self._consumer.close()
        self._asking.close()
