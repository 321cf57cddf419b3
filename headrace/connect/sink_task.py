"""A sink's task: a consumer of the group connect-<name>, whose polls are put on the other side, all or nothing.

Two threads: the task's own polls, decodes, transforms and commits; another speaks to the sink, so that the next poll is
made ready while the last is put, and a put that takes long, or waits out an outage, does not keep the consumer from its
group. While it waits, the partitions are paused, and polled all the same.

Where a partition goes on: as the sink says (an exactly-once sink keeps that with its records), else as Kafka's
committed offsets say, else auto.offset.reset, earliest by default as in Kafka Connect. After each put the offsets are
committed to Kafka, for `headrace lag` and for sinks that keep none. Dead letters are written before the put they belong
to: after a kill -9 one may be there twice, but none is lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from headrace.batch import Frames
from headrace.connect.errors_report import Errors
from headrace.connect.errors_retry import Abandoned, Patience
from headrace.connect.pace import Pace
from headrace.connect.sink_dead import DeadLetters
from headrace.connect.sink_group import Group
from headrace.connect.sink_in import Batch, Inbound, Place
from headrace.connect.spec import Spec
from headrace.connect.tasks import PAUSED, RUNNING, Threaded
from headrace.connector import RecordsRefused, Sink
from headrace.errors import Retriable
from headrace.records import Failure
from headrace.secrets import KNOWN

log = logging.getLogger("headrace.connect")
T = TypeVar("T")
PATIENT_S = 1.0
"""So long the consumer waits for a put before its partitions are paused: to pause throws away what it has fetched."""
POLL_S = 0.1
LINGER_S = 0.1
"""How long a poll that is not full waits for more, where neither `batch.linger.ms` nor the sink's class (`linger_s`)
says otherwise."""


class SinkTask:
    """One run of a sink's task. `run` raises what it fails by: UserError (a bad record with errors.tolerance=none, what
    the sink will not mend), BrokerError, RegistryError; an outage of the other side is waited out."""

    def __init__(self, spec: Spec, task: Threaded) -> None:
        self.spec, self.task, self.common = spec, task, spec.common
        self.controls, self.done = task.controls, task.done
        self.errors = Errors(spec, task.number)
        self.sink: Sink = spec.cls(spec.config, project=spec.project, name=spec.name)
        self.inbound = Inbound(spec, task.settings)
        self.dead = DeadLetters(spec, task.settings, self.errors)
        linger_ms = self.common.batch_linger_ms
        self.linger_s = getattr(spec.cls, "linger_s", LINGER_S) if linger_ms is None else linger_ms / 1e3
        self.pace = Pace(self.common.rate_records_per_second, spec.batch_records)
        self.group = Group(spec, task.settings, task.number, assigned=self._assigned, revoked=self._revoked)
        self.generation = 0
        self.opened = True
        self.abandoned = threading.Event()
        """The partitions whose records are being put are no longer ours, or the task is to end: no further try."""
        self._state = ""
        self._flight: tuple[Future[Batch], Batch] | None = None
        self._fault: BaseException | None = None

    def run(self) -> None:
        """Until it is stopped or, with drain, everything there is was put."""
        begun = time.monotonic()
        with ThreadPoolExecutor(1, thread_name_prefix=f"{self.spec.name}-put") as self.putter:
            try:
                self.dead.open()
                self.group.join()
                self._tell()
                self._cycle()
            except Abandoned:
                pass
            finally:
                self.abandoned.set()
                self._leave()
                self.done.seconds = round(time.monotonic() - begun, 3)
                log.info("stopped", extra={"connector": self.spec.name, "task": self.task.number,
                                           "records": self.done.records, "rejected": self.done.rejected})

    def _cycle(self) -> None:
        while not self.controls.stop.is_set():
            if self._fault is not None:
                raise self._fault
            if self.controls.paused:
                self._paused()
            elif not self.opened:
                self._open()
            else:
                self._turn()
                if self.task.drain and self.group.drained and self._flight is None:
                    break
        self._land()

    def _tell(self) -> None:
        """The state, where it is another than was told last."""
        state = PAUSED if self.controls.paused else RUNNING
        if state != self._state and not self.controls.stop.is_set():
            self._state = state
            self.task.report(state)

    def _turn(self) -> None:
        """One poll, made ready, and handed over once the last put is done."""
        generation = self.generation
        frames, ends = self.group.poll(self.pace.records_max, self.linger_s, self._quiet)
        if generation != self.generation:
            return  # a rebalance in between: what was polled is read again by whoever has it now
        if not len(frames):
            self._land(block=False)
            if self._flight is None:
                self.group.commit(ends)
            return
        batch = self._decoded(frames, ends)
        self._land()
        if generation == self.generation:
            self._flight = self.putter.submit(self._put, batch), batch
            self.pace.wait(len(frames), self.controls.stop)

    def _quiet(self) -> bool:
        """Whether there is something better to do than to wait for a fuller poll."""
        return (self.controls.stop.is_set() or self.controls.paused or not self.opened
                or (self.task.drain and self.group.drained))

    def _decoded(self, frames: Frames, ends: Mapping[Place, int]) -> Batch:
        timeout_ms = self.common.errors_retry_timeout_ms
        patience = self._patience(None if timeout_ms < 0 else timeout_ms / 1e3, self._breathe,
                                  self.controls.stop.is_set)
        return patience.insist(lambda: self.inbound.decode(frames, ends))

    def _patience(self, timeout_s: float | None, pause: Callable[[float], None],
                  abandoned: Callable[[], bool]) -> Patience:
        def told(error: Retriable, attempt: int, seconds: float) -> None:
            log.warning("tried again", extra={"connector": self.spec.name, "task": self.task.number,
                                              "why": KNOWN.text(str(error)), "attempt": attempt,
                                              "in_s": round(seconds, 1)})

        return Patience(timeout_s, self.common.errors_retry_delay_max_ms / 1e3, pause, abandoned, told)

    def _breathe(self, seconds: float) -> None:
        """Wait in the task's own thread: the group hears of us."""
        with self.group.paused():
            self.group.idle(min(seconds, POLL_S))

    # in the other thread: all that speaks to the sink

    def _put(self, batch: Batch) -> Batch:
        """What was put. Dead letters of the batch first. Raises UserError, Abandoned."""
        rejected = list(batch.bad)
        self.dead.write(batch.bad)
        while batch.records or self.spec.cls.exactly_once:
            refused = self._tried(batch)
            if not refused:
                break
            by = self.spec.cls_name
            bad = [batch.rejected(Failure(at, "TASK_PUT", by, reason)) for at, reason in sorted(refused.items())]
            self.dead.write(bad)
            rejected += bad
            batch = batch.without(refused)
        self.done.rejected += len(rejected)
        self.done.records += len(batch)
        return batch

    def _tried(self, batch: Batch) -> Mapping[int, str]:
        """Why some of its records are refused, by place; {} when all of it is stored."""
        try:
            self._patience(None, self._hold, self.abandoned.is_set).insist(
                lambda: self.sink.put(batch.records, batch.ends))
        except RecordsRefused as refused:
            known = {int(at) for each in batch.records for at in each.index.tolist()}
            if not refused.reasons or not refused.reasons.keys() <= known:
                raise AssertionError("a sink refuses some of the records that it was given") from refused
            return refused.reasons
        return {}

    def _hold(self, seconds: float) -> None:
        self.abandoned.wait(min(seconds, POLL_S))

    def _elsewhere(self, do: Callable[[], T]) -> T:
        """Of the sink, by its thread; the group hears of us meanwhile."""
        patience = self._patience(None, self._hold, self.abandoned.is_set)
        future: Future[T] = self.putter.submit(lambda: patience.insist(do))
        self._await(future)
        return future.result()

    def _await(self, future: Future[Any]) -> None:
        if wait([future], PATIENT_S).done:
            return
        with self.group.paused():
            while not future.done():
                self.group.idle(POLL_S)
                self._tell()
                if self.controls.stop.is_set():
                    self.abandoned.set()  # ends the waiting between two tries, not a try
                wait([future], POLL_S)

    # in the task's thread

    def _land(self, *, block: bool = True) -> None:
        """The put under way: waited for, its offsets committed. Raises what it failed by."""
        flight = self._flight
        if flight is None or not (block or flight[0].done()):
            return
        self._await(flight[0])
        if self._flight is flight:  # else a rebalance settled it meanwhile
            self._flight = None
            flight[0].result()
            self._landed(flight[1])

    def _landed(self, batch: Batch) -> None:
        self.done.topics |= {topic for topic, _ in batch.ends}
        self.done.topic = self.done.topic or min(self.done.topics, default="")
        self.group.commit(batch.ends)
        log.debug("committed", extra={"connector": self.spec.name, "task": self.task.number, "records": len(batch),
                                      "position": {f"{t}/{p}": at for (t, p), at in batch.ends.items()}})

    def _open(self) -> None:
        """Ask the sink where its partitions go on, and go there."""
        generation = self.generation
        mine = sorted(self.group.mine)
        gone = self._patience(None, self._breathe,
                              lambda: self.controls.stop.is_set() or generation != self.generation)
        try:
            told = self._elsewhere(lambda: self.sink.open(mine)) if mine else {}
            if generation == self.generation:
                gone.insist(lambda: self.group.go_on(told))
                self.opened = True
        except Abandoned:
            pass  # stopped, or they are no longer ours

    def _paused(self) -> None:
        """What is being put is finished; nothing else is begun."""
        self._tell()
        with self.group.paused():
            while self.controls.paused and not self.controls.stop.is_set():
                self.group.idle(POLL_S)
                self._land(block=False)
        self._tell()

    # of the consumer, while it polls

    def _assigned(self, partitions: Collection[Place]) -> None:
        self.generation += 1
        self.opened = False
        self.abandoned.clear()
        log.info("assigned", extra={"connector": self.spec.name, "task": self.task.number,
                                    "partitions": [f"{topic}/{number}" for topic, number in sorted(partitions)]})

    def _revoked(self, partitions: Collection[Place], lost: bool) -> None:
        """What is being put is finished, what waits is dropped: whoever has the partitions now reads it again."""
        self.generation += 1
        self.abandoned.set()
        if self._flight is None:
            return
        (future, batch), self._flight = self._flight, None
        try:
            future.result()
        except Abandoned:
            return
        except BaseException as error:
            self._fault = error
            return
        if not lost:
            self._landed(batch)

    def _leave(self) -> None:
        """Whatever happened: what is under way ends, its offsets are committed, the sink and the group are left."""
        if self._flight is not None:
            (future, batch), self._flight = self._flight, None
            try:
                future.result()
                self._landed(batch)
            except Abandoned:
                pass
            except Exception as error:
                log.warning("the last put failed", extra={"connector": self.spec.name,
                                                          "why": KNOWN.text(str(error))})
        self.group.leave()
        self.putter.submit(self.sink.close).result()
        self.dead.close()
