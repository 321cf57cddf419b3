"""The transaction: one a batch, its outputs and its offsets together or not at all."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from operator import is_not
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from headrace.batch import Outgoing
from headrace.bounded import Calls, poll
from headrace.errors import BrokerError, Fenced
from headrace.reach import advice, refuses
from headrace.settings import Settings
from headrace.topics import silent

QUEUE_BYTES_MAX = 256 << 20
CHUNK_BYTES = 64 << 20
CALL_S = 10.0  # how long one call to the producer may take
GIVEN_UP_S = CALL_S + 2.0  # and when it is given up, if it takes longer all the same
AGAIN_S = 0.2
INIT_SLICE_S = 3.0
REFUSALS_MAX = 3
"""Transactions in a row that an access rule aborted: by then it is no passing state of the broker's."""
_COUNTED = re.compile(r'"name":\s*"([^"]*)"|"(req_timeouts|disconnects)":\s*([1-9]\d*)')
_EMITTED_US = re.compile(r'"ts":\s*(\d+)')

ABORT = frozenset({
    KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.REBALANCE_IN_PROGRESS, KafkaError.TRANSACTION_ABORTABLE, KafkaError.UNKNOWN_PRODUCER_ID,
    KafkaError.INVALID_PRODUCER_ID_MAPPING, KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.MSG_SIZE_TOO_LARGE,
})
FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.FENCED_INSTANCE_ID})


def classify(error: KafkaError) -> str:
    """retry | abort | fenced | fatal. What librdkafka does not flag counts as fatal."""
    if error.code() in FENCED:
        return "fenced"
    if error.code() in ABORT or error.txn_requires_abort():
        return "abort"
    return "retry" if error.retriable() and not error.fatal() else "fatal"


def troubles(statistics: str) -> frozenset[tuple[str, str, str]]:
    """(broker, counter, count) of every request time-out and every disconnect that librdkafka's statistics know of.

    By broker, since librdkafka drops brokers, and with them their counts: the bootstrap ones as soon as it has learned
    of others, any that leave the cluster. A sum over all can stay the same while a connection was cut.
    """
    found, broker = set(), ""
    for name, counter, count in _COUNTED.findall(statistics):
        broker = name or broker
        if counter:
            found.add((broker, counter, count))
    return frozenset(found)


def _ended(producer: Producer) -> None:
    producer.commit_transaction(CALL_S)
    poll(producer)  # its delivery reports


class Transactions:
    """A transactional producer and the steps of one transaction. Used by one thread at a time.

    A transaction is, in this order:
    1. the fence: a statistics emission newer than the last commit's return; if it shows a request time-out or a
       disconnect, a new producer, since a late EndTxn of the old one could commit what is now begun;
    2. begin; 3. produce every output; 4. the offsets, with the group metadata of the batch's own poll; 5. commit.
    A commit that times out is asked again until the deadline. What requires an abort is aborted. After anything else
    a new producer with the same id decides and fences the old transaction, and the committed offsets say which way.

    Who is fenced has to end, unless `alone` says that nobody else goes by its name: then it was the broker that ended
    a transaction older than `transaction_timeout_ms`, and fenced its producer with it.
    """

    def __init__(self, settings: Settings, transactional_id: str, *, deadline_s: float = 120.0,
                 transaction_timeout_ms: int = 15_000, statistics_ms: int = 10, bytes_max: int = 16 << 20,
                 topics: Sequence[str] = (), alone: Callable[[], bool] = lambda: False) -> None:
        self.settings, self.id, self.deadline_s, self.topics = settings, transactional_id, deadline_s, topics
        self._alone = alone
        self._conf = settings.client(
            transactional_id=transactional_id, transaction_timeout_ms=transaction_timeout_ms,
            retry_backoff_ms=2, linger_ms=5, compression_type="lz4", batch_size=1 << 20,
            queue_buffering_max_messages=1_000_000, queue_buffering_max_kbytes=QUEUE_BYTES_MAX >> 10,
            message_max_bytes=bytes_max, statistics_interval_ms=statistics_ms)
        self._conf["partitioner"] = "murmur2_random"  # keys land where Java producers put them
        self._producer: Producer | None = None
        self._calls: Calls | None = None
        self._statistics = ""
        self._troubles: frozenset[tuple[str, str, str]] = frozenset()
        self._returned_us = 0.0
        self._error: KafkaError | None = None
        self._refusals = 0
        self.delivered: dict[tuple[str, int], int] = {}
        """Of parts sent to a given partition: the offset of the last record that is known to be there."""
        self.reopened = 0

    @property
    def producer(self) -> Producer:
        assert self._producer is not None, "open() first"
        return self._producer

    def _on_statistics(self, text: str) -> None:
        self._statistics = text  # read once per transaction, not once per emission

    def _on_error(self, error: KafkaError) -> None:
        self._error = error

    def open(self) -> None:
        """A producer that has fenced every older one of this id. Raises BrokerError at the deadline, Fenced never."""
        self.close()  # the old one's connections close before the new one's open
        self._statistics, self._error = "", None
        self._producer = Producer({**self._conf, "stats_cb": self._on_statistics, "error_cb": self._on_error},
                                  logger=silent("producer"))  # what it would print, we raise
        self._calls = Calls(self._producer)
        end = time.monotonic() + self.deadline_s
        while True:
            try:
                self._producer.init_transactions(min(INIT_SLICE_S, self.deadline_s))
                break
            except KafkaException as error:
                fault: KafkaError = error.args[0]
                if not fault.retriable() or time.monotonic() > end or self._refused():
                    raise self._unusable("its transactions cannot be initialised", fault) from error
        for topic in self.topics:
            self._producer.list_topics(topic, 10.0)  # a first record to an unknown topic would wait for a second
        self._returned_us = time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6
        self._troubles = self._emission()

    def _unusable(self, what: str, fault: KafkaError) -> BrokerError:
        told = f" (last: {self._error.str()})" if self._error else ""
        reason = fault if refuses(fault) else self._error
        return BrokerError(f"producer {self.id}: {what}: {fault.str()}{told}", hint=advice(
            self.settings, reason, "is the broker up, are the TLS and SASL settings right, may this user write with "
                                   "this transactional id?"))

    def _refused(self) -> bool:
        """Was the login refused? A client tells when it is polled."""
        poll(self.producer)
        return self._error is not None and refuses(self._error)

    def _emission(self) -> frozenset[tuple[str, str, str]]:
        """The troubles counted up to an emission newer than the last commit's return."""
        end = time.monotonic() + self.deadline_s
        poll(self.producer)
        while True:
            found = _EMITTED_US.search(self._statistics)
            if found and int(found[1]) > self._returned_us:
                return troubles(self._statistics)
            if time.monotonic() > end:
                raise BrokerError(f"producer {self.id} gives no statistics; it cannot be told whether it is safe")
            poll(self.producer, 0.02)

    def _fence(self) -> None:
        seen = self._emission()
        if seen - self._troubles:
            self.reopened += 1
            self.open()
        else:
            self._troubles = seen  # what is not counted any more may begin again at 1

    def write(self, outputs: Sequence[Outgoing], offsets: list[TopicPartition], group: Any,
              decide: Callable[[], bool]) -> bool:
        """All of a transaction: `produce`, then `commit`."""
        return self.commit(self.produce(outputs), offsets, group, decide)

    def produce(self, outputs: Sequence[Outgoing]) -> KafkaError | None:
        """Steps 1 to 3: the outputs are on their way. What went wrong is for `commit` to settle."""
        try:
            self._fence()
            self.producer.begin_transaction()
            for part in outputs:
                self._produce(self.producer, part)
        except KafkaException as error:
            fault: KafkaError = error.args[0]
            return fault
        return None

    def commit(self, fault: KafkaError | None, offsets: list[TopicPartition], group: Any,
               decide: Callable[[], bool]) -> bool:
        """Steps 4 and 5; mostly waiting, so another thread may do it while the next batch is processed.

        True: all of it is committed. False: none of it is, and the batch must be read again. `decide` is asked only
        when the outcome is unknown, after the old transaction can no longer change: it reads the committed offsets and
        says whether this batch's nonce is there. Raises Fenced, BrokerError.
        """
        end = time.monotonic() + self.deadline_s
        producer = self.producer
        if fault is not None:
            return self._failed(fault, decide)
        try:
            if offsets:  # a source that is no topic keeps its position among the outputs
                self._insist(lambda: producer.send_offsets_to_transaction(offsets, group, CALL_S), end)
            self._insist(lambda: _ended(producer), end)
        except KafkaException as error:
            return self._failed(error.args[0], decide)
        self._returned_us = time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6
        self._refusals = 0
        return True

    def _insist(self, call: Callable[[], Any], end: float) -> None:
        assert self._calls is not None
        while True:
            try:
                return self._calls(call, GIVEN_UP_S)
            except KafkaException as error:
                if classify(error.args[0]) != "retry" or time.monotonic() > end:
                    raise

    def _failed(self, fault: KafkaError, decide: Callable[[], bool]) -> bool:
        kind, producer = classify(fault), self.producer
        if kind == "abort":
            try:
                self._insist(lambda: producer.abort_transaction(CALL_S), time.monotonic() + self.deadline_s)
                self._returned_us = time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6
            except KafkaException as error:  # then it is as unknown as any other
                fault = error.args[0]
                kind = classify(fault)
            else:
                self._refusals = self._refusals + 1 if refuses(fault) else 0
                if self._refusals == REFUSALS_MAX:
                    raise self._unusable("its transactions are refused", fault)
                return False
        if kind == "fenced" and not self._told(self._alone, "it cannot be told whether another one goes by its name"):
            raise Fenced(f"the transactional id {self.id} was taken by another producer: {fault.str()}",
                         hint="two workers with the same --instance and slot? give each its own --instance")
        self.reopened += 1
        self.open()
        # the old transaction is over, and the committed offsets say how
        return self._told(decide, "the outcome of its transaction cannot be read")

    def _told(self, question: Callable[[], bool], otherwise: str) -> bool:
        """The broker's answer, once it can give one: it may have just come back, and read its own files still."""
        end = time.monotonic() + self.deadline_s
        while True:
            try:
                return question()
            except KafkaException as error:
                if time.monotonic() > end:
                    raise self._unusable(otherwise, error.args[0]) from error
                time.sleep(AGAIN_S)

    def _produce(self, producer: Producer, part: Outgoing) -> None:
        total = sum(map(len, filter(None, part.values)))
        if total <= CHUNK_BYTES:
            return self._send(producer, part)
        step = max(1, int(len(part) * CHUNK_BYTES / total))
        for at in range(0, len(part), step):
            here = slice(at, at + step)
            self._send(producer, Outgoing(part.topic, part.values[here], part.keys[here], part.timestamps_ms[here],
                                          part.headers[here], part.partition))
            producer.flush(self.deadline_s)  # large records: keep the queue within its bound
        return None

    def _send(self, producer: Producer, part: Outgoing) -> None:
        try:
            deque(map(producer.produce, repeat(part.topic), *self._columns(part)), maxlen=0)
        except BufferError as error:
            raise AssertionError("the producer's queue is smaller than a bounded batch") from error

    def _columns(self, part: Outgoing) -> list[Iterable[Any]]:
        """What `produce` takes by position: value, key, partition, callback, on_delivery, timestamp, headers. Of the
        two functions the first counts, though it be None. Columns at the end with nothing in them are left out: each
        would cost every call."""
        placed = part.partition >= 0  # where its last record lands is of interest
        told: Iterable[Any] = chain(repeat(None, len(part) - 1), (self._on_delivery,)) if placed else repeat(None)
        keyed = any(map(is_not, part.keys, repeat(None)))
        columns: list[tuple[bool, Iterable[Any]]] = [
            (True, part.values), (keyed, part.keys), (placed, repeat(part.partition)), (placed, told),
            (False, repeat(None)), (any(part.timestamps_ms), part.timestamps_ms), (any(part.headers), part.headers)]
        last = max(at for at, (needed, _) in enumerate(columns) if needed)
        return [column for _, column in columns[:last + 1]]

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.delivered[(message.topic(), message.partition())] = message.offset()

    def close(self) -> None:
        """Let the producer go; nothing is under way between two writes."""
        if self._calls is not None:
            self._calls.close()
        self._producer = self._calls = None
