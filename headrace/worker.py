"""The worker: one consumer, one transactional producer, and the bounded cycle poll … commit between them.

In a backlog the next batch is polled before a transaction begins and processed while that transaction commits; the
consumer is never polled between begin and commit. When quiet there is one batch at a time, for the sake of latency.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import TopicPartition

from headrace import poison
from headrace.batch import Frames, Outgoing, Span
from headrace.checkpoint import Transactions
from headrace.connectors.kafka import BATCH_MAX, TELL_S, Assignment, KafkaSource, Polled
from headrace.connectors.quarantine import ROOM_BYTES
from headrace.errors import Retriable, UserError
from headrace.memory import steady
from headrace.observe import Observer
from headrace.pipeline import Outputs, Pipeline
from headrace.plan import Plan
from headrace.processor import Partition
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.state import State, changelog, read_metadata
from headrace.state.bottom import Bottom, Rocks
from headrace.topics import ensure, existing, message_bytes_max, topic_ids

log = logging.getLogger("headrace.worker")
QUIET_S = 0.2  # an end-of-partition offset waits this long for a record to ride with
GAUGES_S = 1.0
TICK_S = 0.25
COLLECT_S = 10.0
WAIT_S_MAX = 60.0
NOTHING = Polled([], {}, None)


def make_topics(settings: Settings, plan: Plan) -> dict[str, int]:
    """Create the topics of a plan that are absent; max.message.bytes of each. That of the dead letters is made wider
    than the sources that are there. Raises UserError where one that is there is too narrow for them."""
    sources, dead = [source.config.topic for source in plan.sources], plan.dead_letter
    found = message_bytes_max(settings, existing(settings).keys() & set(sources))
    widest = max(found.values(), default=0)
    wide = max(widest + 2 * ROOM_BYTES, dead.config.message_bytes_max)
    ensure(settings, [replace(topic, config={**topic.config, "max.message.bytes": str(wide)})
                      if topic.name == dead.name else topic for topic in plan.topics])
    limits = message_bytes_max(settings, [topic.name for topic in plan.topics])
    if limits[dead.name] < widest + 2 * ROOM_BYTES:
        raise UserError(f"the dead-letter topic {dead.name} takes records of {limits[dead.name]:,} bytes, and the flow "
                        f"reads some of up to {widest:,}", hint=f"raise its max.message.bytes to {wide} (kafka-configs "
                        "--alter), or name another topic: `dead_letter: <topic>`")
    return limits


def _now_ms() -> int:
    return int(time.time() * 1e3)


@dataclass(slots=True)
class InHand:
    """A batch that is processed and not yet committed."""

    outputs: Outputs
    polled: Polled
    nonce: str
    newest_ms: int


@dataclass(slots=True)
class Waiting:
    """A batch that a step wants to see again at `until` (monotonic). Its state is undone; all partitions are paused."""

    polled: Polled
    until: float


@dataclass(frozen=True, slots=True)
class Held:
    """A partition that is paused, to be read again from `offset` on at `until` (monotonic). The others go on."""

    offset: int
    until: float


@dataclass(slots=True)
class Pace:
    """Records committed, from the first batch polled to the last commit."""

    records: int = 0
    first_s: float = 0.0
    last_s: float = 0.0

    def told(self) -> dict[str, float]:
        seconds = max(self.last_s - self.first_s, 1e-9) if self.records else 0.0
        return {"records_in": self.records, "seconds": round(seconds, 3),
                "records_per_s": round(self.records / seconds) if seconds else 0}


class Worker:
    """Runs one plan in one slot until it is stopped, or, with `drain`, until the end offsets seen at the start.

    Errors: BrokerError, RegistryError (unreachable, refused), Fenced (another worker has this slot), UserError
    (small state over its bound). Whatever ends it, the next start goes on from the last committed transaction.
    """

    def __init__(self, plan: Plan, settings: Settings, *, instance: str, slot: int = 0, drain: bool = False,
                 batch_max: int = BATCH_MAX, group: str | None = None, observer: Observer | None = None) -> None:
        self.plan, self.settings, self.drain, self.batch_max = plan, settings, drain, batch_max
        self.group = group or f"headrace.{plan.flow}"
        self.id = f"headrace.{plan.flow}.{instance}.{slot}"
        self.observer = observer or Observer(plan.flow, slot)
        self.state = State(plan.spec.state.bytes_max)
        self._targets: dict[Partition, int] = {}
        self._done: dict[Partition, int] = {}
        self._eof: dict[Partition, int] = {}
        self._assigned = False
        self._rebalanced = 0
        self._quiet_since = self._gauged = self._collected = self._told = self._ticked = 0.0
        self._newest_ms = 0
        self._pace = Pace()
        self._poison = poison.Budget(plan.spec.poison)
        self._waiting: Waiting | None = None
        self._held: dict[Partition, Held] = {}
        self._nonces = 0
        self._run = os.urandom(6).hex()  # nonces of this run begin with it

    # ── start and end ────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, stop: threading.Event) -> None:
        """The whole life. `stop` ends it after the batch in hand."""
        registry = Registry(self.settings.registry_client())
        limits = make_topics(self.settings, self.plan)
        subjects = {sink.name: sink.schema for sink in self.plan.sinks if sink.schema is not None}
        ids = {topic: registry.register(f"{topic}-value", schema) for topic, schema in subjects.items()}
        sources = [source.config.topic for source in self.plan.sources]
        self.pipeline = Pipeline(self.plan, writers=registry.schema, sink_ids=ids, bytes_max=limits,
                                 now_ms=_now_ms, timed=self.observer.timed, settings=self.settings,
                                 state=lambda step, partition: self.state.small.of(partition, step),
                                 store=self.state.view, partitions=lambda: sorted({p for _, p in self._done}))
        if self.pipeline.stateful:
            self._prepare_changelog(sources)
        self.transactions = Transactions(self.settings, self.id, bytes_max=max(limits.values()) + 65_536,
                                         topics=[sink.name for sink in (*self.plan.sinks, self.plan.dead_letter)],
                                         alone=lambda: self.source.alone())
        self.transactions.open()  # before the committed offsets are read: it decides what an older self left open
        self.source = KafkaSource(self.settings, sources, self.group, instance=self.id,
                                  batch_max=self.batch_max)
        self.pipeline.open()
        try:
            self.source.subscribe(Assignment(self._on_assigned, self._on_revoked))
            log.info("started", extra={"flow": self.plan.flow, "group": self.group, "transactional_id": self.id})
            with steady(), ThreadPoolExecutor(1, thread_name_prefix="commit") as committer:
                self._cycle(stop, committer)
            self.pipeline.close()
        finally:
            self.source.close()
            self.transactions.close()
            self.state.keyed.close()
            log.info("stopped", extra={"flow": self.plan.flow, **self._pace.told()})

    def _prepare_changelog(self, sources: Sequence[str]) -> None:
        """The changelog's topic, and the folder of this worker's copies of it: copies of a topic that was deleted, and
        made again, are not copies of this one."""
        there = existing(self.settings)
        count = changelog.shared({topic: there[topic] for topic in sources})
        ensure(self.settings, [changelog.topic_plan(self.group, count)])
        topic = changelog.topic_of(self.group)
        self._copies = self.settings.state / "state" / self.id / topic_ids(self.settings, [topic])[topic]
        for other in self._copies.parent.glob("*"):
            if other != self._copies:
                shutil.rmtree(other, ignore_errors=True)

    def _restored(self, numbers: Collection[int]) -> dict[int, Bottom]:
        """The keyed state of these partitions, as it is committed."""
        bottoms: dict[int, Bottom] = {number: Rocks(self._copies / str(number)) for number in numbers}
        changelog.restore(self.settings, self.group, bottoms)
        return bottoms

    # ── rebalances ───────────────────────────────────────────────────────────────────────────────────────────────

    def _on_assigned(self, starts: Mapping[Partition, tuple[int, str | None]]) -> None:
        self._rebalanced += 1
        self._assigned = self.observer.assigned = True
        if self.drain:
            fresh = [partition for partition in starts if partition not in self._targets]
            self._targets |= self.source.end_offsets(fresh)
        self.state.assign({partition: read_metadata(metadata)[1] for partition, (_, metadata) in starts.items()},
                          self._restored({number for _, number in starts}) if self.pipeline.stateful else {})
        if self.pipeline.stateful:  # what no transaction of ours ever moved has state of a former life in the changelog
            used = {number for (_, number), (_, metadata) in starts.items() if read_metadata(metadata)[0]}
            self.state.keyed.begin_anew({number for _, number in starts} - used)
        self._done |= {partition: offset for partition, (offset, _) in starts.items()}
        log.info("assigned", extra={"flow": self.plan.flow,
                                    "partitions": {f"{t}/{p}": at for (t, p), (at, _) in starts.items()}})

    def _on_revoked(self, partitions: Sequence[Partition]) -> None:
        self._rebalanced += 1
        self._assigned = False
        self.state.forget(partitions)
        self.pipeline.revoked(partitions)
        for partition in partitions:
            self._done.pop(partition, None)
            self._eof.pop(partition, None)
            self._held.pop(partition, None)
        log.info("revoked", extra={"flow": self.plan.flow, "partitions": [f"{t}/{p}" for t, p in partitions]})

    # ── the cycle ────────────────────────────────────────────────────────────────────────────────────────────────

    def _cycle(self, stop: threading.Event, committer: ThreadPoolExecutor) -> None:
        hand: InHand | None = None
        while True:
            self.observer.alive_at = time.monotonic()
            if hand is None:
                if stop.is_set() or self._drained():
                    return
                polled = self._waited() if self._waiting else self._poll()
                if polled and self._tick_due():
                    self._tick(polled, committer)
                hand = self._process(polled) if polled and polled.messages else None
                if hand is None:
                    self._when_quiet(polled, committer)
                    continue
            ahead = self._poll() if self.source.backlog and not stop.is_set() and not self._tick_due() else NOTHING
            if ahead is None:
                hand = None  # a rebalance: what was in hand comes again, here or elsewhere, from the committed offsets
                continue
            writing = self._write(hand, committer)
            following = self._process(ahead) if ahead.messages else None
            if self._settled(writing):
                self._committed(hand)
                if not ahead.messages:
                    self._eof |= ahead.ends
                hand = following
            else:
                self.observer.aborted()
                self.state.drop()
                self._eof |= {**hand.polled.ends, **ahead.ends}  # what is rewound will come to its end again
                self._rewind([*Frames(ahead.messages).spans(), *hand.outputs.spans])
                hand = None

    def _settled(self, writing: Future[bool]) -> bool:
        """The transaction's outcome. A broker that is away is waited for, and told of: librdkafka tells nobody."""
        begun = time.monotonic()
        while not writing.done():
            if wait([writing], TELL_S).not_done:
                log.warning("broker trouble", extra={"flow": self.plan.flow, "transactional_id": self.id,
                                                     "waiting_s": round(time.monotonic() - begun)})
        return writing.result()

    def _poll(self) -> Polled | None:
        """One poll. None: the group rebalanced during it, and every partition is read from its committed offset on."""
        seen = self._rebalanced
        self._release()
        polled = self.source.poll()
        if self._rebalanced == seen:
            return polled
        self.state.undo()
        self._eof.clear()
        if polled.messages or polled.ends:  # some may be of before it; without, every partition is where it starts
            self.source.rewind(self._done)
        return None

    def _waited(self) -> Polled | None:
        """The batch that waits, once its time has come, and an empty one before. Polling goes on meanwhile, so that the
        group hears of us and we of it. None: the group rebalanced, and the batch comes again, here or elsewhere."""
        assert self._waiting is not None
        seen, waiting = self._rebalanced, self._waiting
        quiet = self.source.idle(max(0.0, min(TICK_S, waiting.until - time.monotonic())))
        if self._rebalanced != seen or not quiet:
            self._eof.clear()
            self._rewind_to({})
            return None
        return waiting.polled if time.monotonic() >= waiting.until else Polled([], {}, waiting.polled.group)

    def _process(self, polled: Polled) -> InHand | None:
        """Run a batch through the pipeline. None: the environment is not ready, and the batch waits."""
        self._pace.first_s = self._pace.first_s or time.perf_counter()
        try:
            outputs = poison.run(self.pipeline, polled.messages, self.state, self._poison)
        except Retriable as error:
            log.warning("waiting", extra={"flow": self.plan.flow, "reason": str(error),
                                          "retry_after_s": error.retry_after_s})
            self.state.undo()
            until = time.monotonic() + min(error.retry_after_s, WAIT_S_MAX)
            if held := self.pipeline.unreadable(polled.messages):
                return self._process_without(held, polled, until)
            self.source.pause(self.source.assigned)
            self._waiting = Waiting(polled, until)
            return None
        self.pipeline.settled()
        self._read_on(outputs.spans)
        self._nonces += 1
        return InHand(outputs, polled, f"{self._run}{self._nonces:x}", polled.messages[-1].timestamp()[1])

    def _process_without(self, held: Mapping[Partition, int], polled: Polled, until: float) -> InHand | None:
        """The rest of a batch. These partitions, each from this offset on, wait: their schemas cannot be had now."""
        self._read_on(Frames(polled.messages).spans())
        self.source.pause(held)
        self.source.rewind(held)
        self._held |= {at: Held(offset, until) for at, offset in held.items()}
        rest = [message for message in polled.messages if (message.topic(), message.partition()) not in held]
        ends = {at: end for at, end in polled.ends.items() if at not in held}
        return self._process(replace(polled, messages=rest, ends=ends)) if rest else None

    def _release(self) -> None:
        """Read on where a partition was held long enough."""
        due = {at: held.offset for at, held in self._held.items() if time.monotonic() >= held.until}
        if due:
            self._held = {at: held for at, held in self._held.items() if at not in due}
            self.source.resume(due)
            self.source.rewind(due)

    def _read_on(self, spans: Sequence[Span]) -> None:
        """If it was a batch that waited: behind it."""
        if self._waiting is not None:
            self._rewind_to({(s.topic, s.partition): s.offset_last + 1 for s in spans})

    def _rewind(self, spans: Sequence[Span]) -> None:
        """Read these again; a partition named twice from its earlier span."""
        starts: dict[Partition, int] = {}
        for span in spans:
            at = (span.topic, span.partition)
            starts[at] = min(span.offset_first, starts.get(at, span.offset_first))
        for at in starts:
            self._eof.pop(at, None)
        self._rewind_to(starts)

    def _rewind_to(self, starts: dict[Partition, int]) -> None:
        """Go on from here. Where a batch waits, all partitions are paused: all of them go on, and it waits no more."""
        if self._waiting is not None:
            self._waiting = None
            self._held.clear()
            self.source.resume(self.source.assigned)
            starts = self._done | starts
        for at in starts.keys() & self._held.keys():
            self._held[at] = replace(self._held[at], offset=starts[at])
        self.source.rewind(starts)

    def _write(self, hand: InHand, committer: ThreadPoolExecutor) -> Future[bool]:
        """Offsets to commit: the span's end + 1, or the end of the partition where that lies further (markers)."""
        ends = {(s.topic, s.partition): max(s.offset_last + 1, hand.polled.ends.get((s.topic, s.partition), 0))
                for s in hand.outputs.spans}
        return self._submit(committer, list(hand.outputs.sinks.values()), ends, hand.polled.group, hand.nonce)

    def _submit(self, committer: ThreadPoolExecutor, outputs: Sequence[Outgoing], ends: Mapping[Partition, int],
                group: Any, nonce: str) -> Future[bool]:
        offsets = [TopicPartition(t, p, end, metadata=self.state.small.metadata((t, p), nonce))
                   for (t, p), end in ends.items()]
        if self.pipeline.stateful:
            outputs = [*outputs, *changelog.outgoing(self.group, self.state.keyed.pending(), _now_ms())]
        self.state.seal()
        first = next(iter(ends))

        def decide() -> bool:
            """Whether the transaction of this nonce was committed: its partitions' metadata has it, or not."""
            return read_metadata(self.source.committed([first])[first][1])[0] == nonce

        with self.observer.timed("produce"):
            fault = self.transactions.produce(outputs)

        def commit() -> bool:
            with self.observer.timed("commit"):
                return self.transactions.commit(fault, offsets, group, decide)

        return committer.submit(commit)

    def _committed(self, hand: InHand) -> None:
        self.state.commit(self.transactions.delivered)
        out = hand.outputs
        for span in out.spans:
            at = (span.topic, span.partition)
            self._done[at] = max(span.offset_last + 1, hand.polled.ends.get(at, 0))
            self._eof.pop(at, None)
        self._eof |= {at: end for at, end in hand.polled.ends.items() if end > self._done.get(at, end)}
        self._newest_ms = hand.newest_ms
        self._pace.records += out.records_in
        self._pace.last_s = time.perf_counter()
        self.observer.committed(out.records_in, {name: len(sent) for name, sent in out.sinks.items()}, out.counts)
        self._quiet_since = time.monotonic()
        self._gauge()
        for each in out.sightings:
            log.warning("new writer schema", extra={"flow": self.plan.flow, **each.told()})
        if out.counts and time.monotonic() - self._told > GAUGES_S:
            self._told = time.monotonic()
            log.info("held back or counted", extra={
                "flow": self.plan.flow, "spans": [str(s) for s in out.spans],
                "counts": [{"step": step, metric: label, "n": n} for (step, metric, label), n in out.counts.items()]})
        log.debug("committed", extra={"flow": self.plan.flow, "spans": [str(s) for s in out.spans],
                                      "counts": {".".join(at): n for at, n in out.counts.items()}})
        out.release()

    # ── between batches ──────────────────────────────────────────────────────────────────────────────────────────

    def _drained(self) -> bool:
        if not (self.drain and self._assigned) or self._pending_eof():
            return False
        return all(self._done.get(at, end) >= end for at, end in self._targets.items())

    def _pending_eof(self) -> dict[Partition, int]:
        """End-of-partition offsets beyond what is committed: transaction markers, which no record will pass over."""
        return {at: end for at, end in self._eof.items() if end > self._done.get(at, end)}

    def _when_quiet(self, polled: Polled | None, committer: ThreadPoolExecutor) -> None:
        if polled is not None and not polled.messages:
            self._eof |= polled.ends
        self._gauge()
        if time.monotonic() - self._collected > COLLECT_S:
            gc.collect()  # between batches only, and when there is nothing better to do
            self._collected = time.monotonic()
        pending = self._pending_eof()
        if polled is None or not pending or (time.monotonic() - self._quiet_since < QUIET_S and not self.drain):
            return
        self._nonces += 1
        nonce = f"{self._run}{self._nonces:x}"
        if self._settled(self._submit(committer, [], pending, polled.group, nonce)):
            self.state.commit(self.transactions.delivered)
            self._done |= pending
        else:
            self.observer.aborted()
            self.state.drop()
        self._quiet_since = time.monotonic()

    def _tick_due(self) -> bool:
        return bool(self.pipeline.ticking and self._done) and time.monotonic() - self._ticked > TICK_S

    def _tick(self, polled: Polled, committer: ThreadPoolExecutor) -> None:
        """What steps say without a record: a transaction of its own, which leaves the offsets where they are."""
        self._ticked = time.monotonic()
        try:
            out = self.pipeline.tick()
        except Retriable as error:
            log.warning("waiting", extra={"flow": self.plan.flow, "reason": str(error)})
            self.state.undo()
            return
        if not out.sinks and not self.state.changed():
            self.state.undo()
            return
        self._nonces += 1
        nonce = f"{self._run}{self._nonces:x}"
        if self._settled(self._submit(committer, list(out.sinks.values()), dict(self._done), polled.group, nonce)):
            self.state.commit(self.transactions.delivered)
            self.observer.committed(0, {name: len(sent) for name, sent in out.sinks.items()}, out.counts)
        else:
            self.observer.aborted()
            self.state.drop()

    def _gauge(self) -> None:
        now = time.monotonic()
        if now - self._gauged < GAUGES_S:
            return
        self._gauged = now
        if self.pipeline.stateful:
            self.observer.holding(self.state.keyed.check())
        ends = self.source.known_ends()
        self.observer.lagging({p: max(0, ends[(t, p)] - at) for (t, p), at in self._done.items() if (t, p) in ends},
                              self._newest_ms)

