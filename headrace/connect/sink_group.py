"""A sink's consumer in its group: which partitions are ours, where each stands, and what has been committed."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.batch import Frames
from headrace.connect import overrides
from headrace.connect.sink_in import Place
from headrace.connect.spec import Spec
from headrace.errors import BrokerError, Retriable, UserError
from headrace.reach import Trouble, advice, metadata, refuses, unreachable
from headrace.settings import Settings
from headrace.topics import silent

log = logging.getLogger("headrace.connect")
ANSWER_S = 30.0
SLICE_S = 0.1
SESSION_MS = 6_000
"""After a kill so long passes before the partitions are given to another: the shortest that brokers allow."""
TELL_S = 10.0
LOOK_S = 10.0
"""So often topics.regex is held against the topics there are."""
REFUSALS = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.FENCED_INSTANCE_ID)


class Group:
    """Used by the task's thread only. `assigned` and `revoked` are called from within `poll`, `idle` and `leave`."""

    def __init__(self, spec: Spec, settings: Settings, number: int, *, assigned: Callable[[Collection[Place]], None],
                 revoked: Callable[[Collection[Place], bool], None]) -> None:
        self.spec, self.settings = spec, overrides.elsewhere(spec, settings, "consumer")
        self._assigned, self._revoked = assigned, revoked
        self._heard = Trouble()
        own = overrides.librdkafka(spec, "consumer")
        self.reset = spec.keys.get("consumer.override.auto.offset.reset", "earliest").strip().lower()
        conf = self.settings.client(
            client_id=f"connector-consumer-{spec.name}-{number}", isolation_level="read_committed",
            partition_assignment_strategy="range", fetch_min_bytes=1, fetch_wait_max_ms=20,
            fetch_message_max_bytes=8 << 20, fetch_queue_backoff_ms=5, queued_min_messages=20_000,
            queued_max_messages_kbytes=32 << 10, topic_metadata_refresh_interval_ms=2_000, statistics_interval_ms=0,
            session_timeout_ms=SESSION_MS, heartbeat_interval_ms=SESSION_MS // 6)
        ours = {"group.id": spec.group, "enable.auto.commit": False, "enable.auto.offset.store": False,
                "enable.partition.eof": True, "auto.offset.reset": "error", "error_cb": self._trouble,
                "on_commit": self._committed}
        try:
            self.consumer = Consumer({**conf, **own, **ours}, logger=silent("sink"))
        except (KafkaException, ValueError) as error:
            raise overrides.refused(spec, "consumer", error) from error
        self.mine: set[Place] = set()
        self.joined = False
        self._at: dict[Place, int] = {}
        self._told: dict[Place, int] = {}
        self._ended: set[Place] = set()
        self._astray: set[Place] = set()
        self._pauses = 0
        self._spare: list[Message] = []
        self._topics: list[str] = []
        self._looked = self._troubled = -1e9

    def _trouble(self, error: KafkaError) -> None:
        self._heard(error)
        if time.monotonic() - self._troubled > TELL_S:
            self._troubled = time.monotonic()
            hint = {"hint": advice(self.settings, error)} if refuses(error) else {}
            log.warning("broker trouble", extra={"connector": self.spec.name, "error": error.str(), **hint})

    # joining and leaving

    def join(self) -> None:
        """Raises BrokerError when the broker does not answer."""
        if self.reset not in ("earliest", "latest", "none"):
            raise UserError(f"consumer.override.auto.offset.reset: “{self.reset}” is not one of earliest, latest, none")
        metadata(self.consumer, self.settings, self._heard, ANSWER_S)
        self._look(first=True)

    def _look(self, *, first: bool = False) -> None:
        """Subscribe: again, where topics.regex has found others."""
        if not first and (self.spec.common.topics or time.monotonic() - self._looked < LOOK_S):
            return
        self._looked = time.monotonic()
        try:
            topics = list(self.spec.common.topics) or self._matching()
        except KafkaException:
            return  # the next look may tell
        if topics != self._topics:
            self._topics = topics
            if topics:
                self.consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke,
                                        on_lost=self._on_lost)

    def _matching(self) -> list[str]:
        pattern = re.compile(self.spec.common.topics_regex)
        there = self.consumer.list_topics(timeout=ANSWER_S).topics
        return sorted(name for name in there if pattern.fullmatch(name) and not name.startswith("__"))

    def leave(self) -> None:
        """Offsets that are on their way arrive first."""
        self._commit_now()
        self.consumer.close()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.mine = {(p.topic, p.partition) for p in partitions}
        self.joined = True
        self._at, self._told, self._ended, self._astray, self._spare = {}, {}, set(), set(), []
        self.consumer.assign([])  # nothing is read before `go_on` says from where
        self._assigned(self.mine)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._gone(partitions, lost=False)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._gone(partitions, lost=True)

    def _gone(self, partitions: list[TopicPartition], *, lost: bool) -> None:
        self._revoked({(p.topic, p.partition) for p in partitions}, lost)
        if not lost:
            self._commit_now()
        self.mine, self._spare, self.joined = set(), [], False  # until it is known what is ours, nothing is drained
        self.consumer.unassign()

    # where to go on

    def go_on(self, told: Mapping[Place, int]) -> None:
        """Read on: from where the sink says, else from Kafka's committed offsets, else by auto.offset.reset. Raises
        Retriable while the broker does not answer, BrokerError."""
        starts = {at: offset for at, offset in told.items() if at in self.mine}
        unknown = sorted(self.mine - starts.keys())
        try:
            for found in self.consumer.committed([TopicPartition(*at) for at in unknown], timeout=ANSWER_S):
                at = found.topic, found.partition
                starts[at] = found.offset if found.offset >= 0 else self._first(at)
                if found.offset >= 0:
                    self._told[at] = found.offset
        except KafkaException as error:
            fault = unreachable(self.settings, error.args[0])
            if error.args[0].code() in REFUSALS:
                raise fault from error
            raise Retriable(fault.what, retry_after_s=0, hint=fault.hint) from error
        self._read_from(starts)

    def _read_from(self, starts: Mapping[Place, int]) -> None:
        self._at = dict(starts)
        self.consumer.assign([TopicPartition(topic, partition, offset)
                              for (topic, partition), offset in sorted(starts.items())])
        if self._pauses:
            self.consumer.pause(self.consumer.assignment())
        else:
            self.consumer.resume(self.consumer.assignment())  # a partition that comes back may be paused still

    def _first(self, at: Place) -> int:
        low, high = self.consumer.get_watermark_offsets(TopicPartition(*at), timeout=ANSWER_S)
        if self.reset == "none":
            raise BrokerError(f"{at[0]}/{at[1]}: group {self.spec.group} has no offset there, and auto.offset.reset is "
                              "none")
        return int(low if self.reset == "earliest" else high)

    # reading

    @property
    def drained(self) -> bool:
        """Whether every partition of ours was read to its end; a member that has none has nothing to read."""
        return (self.joined or not self._topics) and self._ended >= self.mine

    def poll(self, records_max: int, linger_s: float,
             quiet: Callable[[], bool]) -> tuple[Frames, dict[Place, int]]:
        """Records, and where each partition stands behind them. Waits `linger_s` for more after the first, but no
        longer than until `quiet` or until every partition is at its end. Raises BrokerError."""
        self._look()
        records, self._spare = self._spare, []
        end = time.monotonic() + (linger_s if records else SLICE_S)
        begun = bool(records)
        while len(records) < records_max and not quiet():
            left = end - time.monotonic()
            if left <= 0:
                break
            mine = self.mine
            got = self.consumer.consume(records_max - len(records), min(left, SLICE_S))
            if self.mine is not mine:
                return Frames([]), {}  # a rebalance: what was read before is not ours
            records += self._records(got)
            if records and not begun:
                begun, end = True, time.monotonic() + linger_s
        frames = Frames(records)
        ends = self._ends(frames)
        if self._astray:
            self._pass_over()
        return frames, ends

    def _records(self, got: list[Message]) -> list[Message]:
        errors = list(map(Message.error, got))
        if any(errors):
            for message, error in zip(got, errors, strict=True):
                if error is not None:
                    self._event(message, error)
            got = [message for message, error in zip(got, errors, strict=True) if error is None]
        return got

    def _ends(self, frames: Frames) -> dict[Place, int]:
        """The next offset of each partition that moved, markers at its end included."""
        moved = {(span.topic, span.partition): span.offset_last + 1 for span in frames.spans()}
        for at, offset in moved.items():
            if self._at.get(at, 0) < offset:
                self._at[at] = offset
                self._ended.discard(at)  # it was its end before these came
        return {at: self._at[at] for at in (moved.keys() | self._ended) & self.mine}

    def _event(self, message: Message, error: KafkaError) -> None:
        at = (str(message.topic()), int(message.partition() or 0))
        if error.code() == KafkaError._PARTITION_EOF:
            if at in self._at:
                self._ended.add(at)
                self._at[at] = max(self._at[at], int(message.offset() or 0))
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._astray |= {at} & self.mine
        elif error.fatal() or error.code() in REFUSALS:
            raise BrokerError(f"{at[0]}: {error.str()}", hint=f"group {self.spec.group}, {error.name()}")
        elif not error.retriable() and error.code() not in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
            self._trouble(error)

    def _pass_over(self) -> None:
        """Retention deleted what was to be read next, or the topic was made anew: told, and read from what is there.
        librdkafka has given such a partition up, so that it cannot be sought in: all are assigned again."""
        starts = {at: self._first(at) for at in sorted(self._astray)}
        for at, start in starts.items():
            log.warning("records are gone that were not read", extra={
                "connector": self.spec.name, "topic": at[0], "partition": at[1], "wanted": self._at.get(at),
                "read": start})
        self._astray = set()
        self._ended -= starts.keys()
        self._read_from({**self._at, **starts})

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is fetched meanwhile; `idle` keeps us in the group."""
        self._pauses += 1
        if self._pauses == 1:
            self.consumer.pause(self.consumer.assignment())
        try:
            yield
        finally:
            self._pauses -= 1
            if not self._pauses and self._at.keys() >= self.mine:  # else `go_on` is still to come
                self.consumer.resume(self.consumer.assignment())

    def idle(self, seconds: float) -> None:
        """Say that we live, while paused."""
        message = self.consumer.poll(seconds)
        if message is None:
            return
        if message.error() is not None:
            self._event(message, message.error())
        elif (message.topic(), message.partition()) in self.mine:
            self._spare.append(message)  # it was on its way when the partitions were paused

    # committing

    def commit(self, ends: Mapping[Place, int]) -> None:
        """Tell Kafka, in passing."""
        new = {at: offset for at, offset in ends.items() if at in self.mine and self._told.get(at, -1) < offset}
        if not new:
            return
        self._told |= new
        try:
            self.consumer.commit(offsets=[TopicPartition(*at, offset) for at, offset in new.items()],
                                 asynchronous=True)
        except KafkaException as error:
            self._committed(error.args[0], [])

    def _commit_now(self) -> None:
        """What was told in passing arrives: once more, and waited for."""
        if not self._told or not self.mine:
            return
        asked = [TopicPartition(*at, offset) for at, offset in self._told.items() if at in self.mine]
        try:
            if asked:
                self.consumer.commit(offsets=asked, asynchronous=False)
        except KafkaException as error:
            self._committed(error.args[0], [])

    def _committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        if error is not None and error.code() != KafkaError._NO_OFFSET:
            log.warning("offsets were not committed", extra={"connector": self.spec.name, "error": error.str()})
