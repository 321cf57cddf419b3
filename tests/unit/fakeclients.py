"""confluent_kafka's Producer and Consumer over the model of a broker (kafkamodel.py), as far as a worker uses them.

Every request goes through `gate`, where the schedule may stop the process, kill it, or let the request go wrong: not
sent, done with its answer lost, still under way. The producer has librdkafka's states: after an error that requires an
abort nothing else is possible, after a fatal one nothing at all, and a commit that timed out can only be asked again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from tests.unit.kafkamodel import Broker, Entry, Member, Metadata, Place, Refused

T = TypeVar("T")
EMISSION_S = 0.01
FETCHED_AT_ONCE = 100


class Killed(BaseException):
    """The process is no more."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a request. `code` 0: it went well, at the second try."""

    code: int
    kind: str = "fatal"
    """retry | abort | fatal | kill | message: how the client flags the error; none comes after a kill; a message of a
    consumer has it."""
    applied: bool = False
    """The broker did it; its answer was lost."""
    late: bool = False
    """A copy of the request is under way on a connection that was cut."""
    times: int = 1

    def error(self) -> KafkaError:
        return KafkaError(self.code, None, self.kind == "fatal", self.kind == "retry", self.kind == "abort")

    def __str__(self) -> str:
        name = KafkaError(self.code).name() if self.code else "OK"
        return " ".join([name, self.kind, *(w for w in ("applied", "late") if getattr(self, w)), f"×{self.times}"])


class Process(Protocol):
    """Whose client it is."""

    broker: Broker
    deaf: bool
    early: int
    eager: bool
    late: list[Callable[[], None]]

    def gate(self, call: str) -> Fault | None: ...
    def die(self) -> None: ...


def request(process: Process, call: str, do: Callable[[], T], timeout_s: float = 10.0,
            again: Callable[[], None] | None = None, cut: Callable[[], None] = lambda: None) -> T:
    """One request, as the schedule has it. `again` is what a late copy of it does, `cut` is told of its connection.
    Raises KafkaException, Refused."""
    fault = process.gate(call)
    if fault is None:
        return do()
    if fault.late and again is not None:
        process.late.append(again)
        cut()
    if fault.code == KafkaError.NO_ERROR and fault.kind != "kill":
        return do()
    if fault.applied:
        do()
    if fault.kind == "kill":
        process.die()
    if fault.code == KafkaError._TIMED_OUT:
        process.broker.clock.sleep(timeout_s)
    raise KafkaException(fault.error())


def _raised(code: int, kind: str) -> KafkaException:
    return KafkaException(Fault(code, kind).error())


class FakeProducer:
    def __init__(self, process: Process, conf: dict[str, Any]) -> None:
        self.process, self.broker, self.id = process, process.broker, conf["transactional.id"]
        self._emit: Callable[[str], None] = conf["stats_cb"]
        self._state = "new"  # → ready → open → ready; or abortable, aborting, committing, fatal
        self._fault: KafkaException | None = None
        self._epoch = -1
        self._queue: list[tuple[Place, Entry, Any]] = []
        self._reports: list[tuple[Any, Message]] = []
        self._registered = False
        self._trouble = 0
        self._emission = self._snapshot()

    # ── statistics ───────────────────────────────────────────────────────────────────────────────────────────────

    def _snapshot(self) -> str:
        return json.dumps({"ts": int(self.broker.clock.now_s * 1e6), "brokers": {
            "1": {"name": "1", "disconnects": self._trouble}}})

    def poll(self, timeout_s: float) -> int:
        """Without waiting, the emission that was made some time ago; waiting, a new one."""
        if timeout_s > 0:
            self.broker.clock.sleep(max(timeout_s, EMISSION_S))
            self._emission = self._snapshot()
        self._emit(self._emission)
        reports, self._reports = self._reports, []
        for report, message in reports:
            report(None, message)
        return 0

    def list_topics(self, topic: str, timeout_s: float) -> Any:
        return None

    # ── a transaction ────────────────────────────────────────────────────────────────────────────────────────────

    def _request(self, call: str, do: Callable[[], None], again: Callable[[], None] | None = None) -> None:
        if self._state == "fatal":
            assert self._fault is not None
            raise self._fault
        self._emission = self._snapshot()
        try:
            request(self.process, call, do, again=again, cut=self._cut)
        except Refused as refused:
            fenced = refused.code in (KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)
            fatal = fenced or refused.code == KafkaError.INVALID_TXN_STATE
            self._became("fatal" if fatal else "abortable",
                         _raised(KafkaError._FENCED if fenced else refused.code, "fatal" if fatal else "abort"))
        except KafkaException as raised:
            error = raised.args[0]
            if error.retriable():
                raise
            self._became("abortable" if error.txn_requires_abort() else "fatal", raised)

    def _cut(self) -> None:
        self._trouble += 1

    def _became(self, state: str, fault: KafkaException) -> None:
        self._state, self._fault = state, fault
        raise fault

    def _in(self, *states: str) -> None:
        if self._state == "fatal" or (self._state == "abortable" and "abortable" not in states):
            assert self._fault is not None
            raise self._fault
        if self._state not in states:
            conflict = self._state == "committing"
            raise _raised(KafkaError._CONFLICT if conflict else KafkaError._STATE, "plain")

    def init_transactions(self, timeout_s: float) -> None:
        def init() -> None:
            self._epoch = self.broker.init(self.id)

        self._request("init", init)
        self._state = "ready"

    def begin_transaction(self) -> None:
        self._in("ready")
        self._request("begin", lambda: None)
        self._state, self._registered = "open", False

    def produce(self, topic: str, value: bytes | None, key: bytes | None = None, partition: int = -1,
                callback: Any = None, on_delivery: Any = None, timestamp: int = 0, headers: Any = None) -> None:
        self._in("open")

        def queue() -> None:
            self._queue.append(((topic, partition), Entry(key, value, timestamp), callback or on_delivery))
            if self.process.eager:
                self._send()

        self._request("produce", queue)

    def _send(self) -> None:
        queue, self._queue = self._queue, []
        for place, entry, report in queue:
            self._registered = True
            offset = self.broker.add(self.id, self._epoch, place, [entry])
            if report is not None:
                self._reports.append((report, Message(topic=place[0], partition=place[1], offset=offset)))

    def flush(self, timeout_s: float) -> int:
        self._send()
        return 0

    def send_offsets_to_transaction(self, offsets: Sequence[TopicPartition], group: Metadata, timeout_s: float) -> None:
        self._in("open")

        epoch = self._epoch

        def add() -> None:
            self.broker.add_offsets(self.id, epoch, group,
                                    {(o.topic, o.partition): (o.offset, o.metadata) for o in offsets})

        def send() -> None:
            self._send()
            self._registered = True
            add()

        self._request("send_offsets", send, add)

    def _end(self, commit: bool) -> Callable[[], None]:
        epoch = self._epoch
        return lambda: self.broker.end(self.id, epoch, commit)

    def commit_transaction(self, timeout_s: float) -> None:
        self._in("open", "committing")
        self._state = "committing"

        def commit() -> None:
            self._send()
            if self._registered:
                self._end(True)()

        self._request("commit", commit, self._end(True) if self._registered else None)
        self._state = "ready"

    def abort_transaction(self, timeout_s: float) -> None:
        self._in("open", "abortable", "aborting")
        self._state, self._queue = "aborting", []

        def abort() -> None:
            if self._registered:
                self._end(False)()

        self._request("abort", abort, self._end(False) if self._registered else None)
        self._state = "ready"


class FakeConsumer:
    """With `subscribe` a member of the group; with `assign` alone a reader."""

    def __init__(self, process: Process, conf: dict[str, Any]) -> None:
        self.process, self.broker, self.group = process, process.broker, process.broker.group
        self.instance: str | None = conf.get("group.instance.id")
        self.isolation: str = conf["isolation.level"]
        self._callbacks: dict[str, Any] | None = None
        self._member: Member | None = None
        self._generation = -1
        self._held: list[Place] = []
        self._at: dict[Place, int] = {}
        self._eof: set[Place] = set()
        self._paused: set[Place] = set()

    def list_topics(self, *topic: str, timeout: float) -> Any:
        asked = topic or {t for t, _ in self.broker.logs}
        return SimpleNamespace(topics={name: SimpleNamespace(topic=name, error=None, partitions={
            p: None for t, p in self.broker.logs if t == name}) for name in asked})

    def close(self) -> None:
        pass  # a static member does not leave

    # ── the group ────────────────────────────────────────────────────────────────────────────────────────────────

    def subscribe(self, topics: list[str], **callbacks: Any) -> None:
        self._callbacks = callbacks

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        self._at = {(p.topic, p.partition): p.offset for p in partitions}
        self._eof.clear()
        self._paused.clear()

    def unassign(self) -> None:
        self._at = {}
        self._paused.clear()

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._paused |= {(p.topic, p.partition) for p in partitions}

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self._paused -= {(p.topic, p.partition) for p in partitions}

    def _gone(self) -> bool:
        return self._member is not None and self.group.members.get(self._member.id) is not self._member

    def _serve(self) -> None:
        """What the group has for this member, a step a poll: partitions taken away, then those given."""
        if self._callbacks is None or self.process.deaf:
            return
        if self._gone():
            if any(m.instance == self.instance for m in self.group.members.values() if self.instance):
                raise _raised(KafkaError.FENCED_INSTANCE_ID, "fatal")
            self._take("on_lost")
            self._member = None
        if self._member is None:
            self._member = self.group.join(self.instance)
        elif self.group.preparing and not self._member.joined:
            self._take("on_revoke")
            self.group.rejoin(self._member)
        elif self._member.generation != self._generation:
            self._generation, self._held = self._member.generation, list(self._member.share)
            self._callbacks["on_assign"](self, [TopicPartition(t, p) for t, p in self._held])

    def _take(self, callback: str) -> None:
        held, self._held = self._held, []
        if held:
            assert self._callbacks is not None
            self._callbacks[callback](self, [TopicPartition(t, p) for t, p in held])

    def consumer_group_metadata(self) -> Metadata:
        """Of now: when the session is over and this client knows, it is nobody."""
        if self._member is None or (self._gone() and not self.process.deaf):
            return Metadata("", self.instance, -1)
        return Metadata(self._member.id, self.instance, self._generation)

    def memberid(self) -> str:
        return self.consumer_group_metadata().member

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        """With the generation it was assigned in. (A client that has learned that its session is over sends none, and
        a group without members takes that: docs/limits.md.)"""
        assert self._member is not None
        who = Metadata(self._member.id, self.instance, self._generation)

        def commit() -> None:
            self.group.validate(who, transactional=False)
            self.group.offsets.update({(o.topic, o.partition): (o.offset, o.metadata) for o in offsets})

        try:
            request(self.process, "commit_start", commit)
        except Refused as refused:
            raise _raised(refused.code, "plain") from None

    def committed(self, partitions: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        """Stable ones: a transaction that is open is waited for, until its coordinator aborts it."""
        places = [(p.topic, p.partition) for p in partitions]

        def fetch() -> list[TopicPartition]:
            for id in self.broker.open_for(places):
                self.broker.time_out(id)
            found = [(*place, *self.group.offsets.get(place, (-1001, None))) for place in places]
            return [TopicPartition(t, p, offset, metadata) if metadata else TopicPartition(t, p, offset)
                    for t, p, offset, metadata in found]

        return request(self.process, "committed", fetch, timeout)

    # ── records ──────────────────────────────────────────────────────────────────────────────────────────────────

    def consume(self, records_max: int, timeout_s: float) -> list[Message]:
        fault = self.process.gate("consume" if self._callbacks else "read")
        if fault is not None and fault.kind == "kill":
            self.process.die()
        if fault is not None:
            return [Message(topic="in", partition=0, error=fault.error())]
        got = self._fetch(min(records_max, self.process.early))
        self._serve()
        got += self._fetch(records_max - len(got))
        if not got:
            self.broker.clock.sleep(timeout_s)
        return got

    def _fetch(self, records_max: int) -> list[Message]:
        """Records and, once each time it is reached, the end of a partition."""
        got: list[Message] = []
        for place, at in self._at.items():
            if place in self._paused:
                continue
            log = self.broker.logs[place]
            end = log.end(self.isolation)
            while at < end and len(got) < records_max:
                entry = log[at]
                if entry.counts:
                    got.append(Message(topic=place[0], partition=place[1], offset=at, key=entry.key, value=entry.value,
                                       timestamp=(1, entry.timestamp_ms)))
                at += 1
                self._eof.discard(place)
            if at == end and place not in self._eof and len(got) < records_max:
                self._eof.add(place)
                got.append(Message(topic=place[0], partition=place[1], offset=at,
                                   error=KafkaError(KafkaError._PARTITION_EOF)))
            self._at[place] = at
        return got

    def seek(self, place: TopicPartition) -> None:
        at = (place.topic, place.partition)
        if at not in self._at:
            raise _raised(KafkaError._STATE, "plain")
        self._at[at] = place.offset
        self._eof.discard(at)

    def get_watermark_offsets(self, place: TopicPartition, timeout: float = 0, cached: bool = False) -> tuple[int, int]:
        def ask() -> tuple[int, int]:
            return 0, self.broker.logs[place.topic, place.partition].end(self.isolation)

        return ask() if cached else request(self.process, "watermarks", ask)


class FakeAdmin:
    def __init__(self, process: Process) -> None:
        self.process = process

    def describe_consumer_groups(self, names: list[str], request_timeout: float) -> dict[str, Any]:
        members = [SimpleNamespace(member_id=m.id, group_instance_id=m.instance)
                   for m in self.process.broker.group.members.values()]
        return {names[0]: SimpleNamespace(result=lambda: SimpleNamespace(members=members))}
