"""A source's task: what it pulls, and where it then stands, in one Kafka transaction after the other.

The producer is initialised first, which decides what an older self left open, and only then are the positions read: so
a kill -9 neither loses nor doubles a record. In a backlog the next pull is read and encoded while the last one commits;
else each is committed before the next, since somebody may wait for that.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from confluent_kafka import KafkaException

from headrace.batch import Outgoing
from headrace.checkpoint import Transactions
from headrace.codec import load as load_schema
from headrace.connect import offsets, overrides
from headrace.connect.errors_report import Errors, Rejected
from headrace.connect.errors_retry import Abandoned, Patience
from headrace.connect.pace import Pace
from headrace.connect.source_out import PRODUCE_BYTES_MAX, Outbound
from headrace.connect.spec import Spec
from headrace.connect.tasks import PAUSED, RUNNING, Threaded
from headrace.connector import Pulled, Source
from headrace.errors import BrokerError, Retriable
from headrace.plan import schema_file
from headrace.records import Failure, Records
from headrace.secrets import KNOWN
from headrace.settings import Settings
from headrace.topics import ensure

log = logging.getLogger("headrace.connect")
T = TypeVar("T")
ABORTS_MAX = 10
GATHERED_MAX, GATHERED_BYTES_MAX = 200_000, 32 << 20
"""Records in a transaction, and roughly bytes, whatever its interval."""


@dataclass(slots=True)
class _Batch:
    """What goes into one transaction."""

    begun: float
    parts: list[Outgoing] = field(default_factory=list)
    positions: dict[bytes, Mapping[str, Any]] = field(default_factory=dict)
    pulled: list[Pulled] = field(default_factory=list)
    records: int = 0
    rejected: int = 0
    bytes: int = 0

    @property
    def full(self) -> bool:
        return self.records >= GATHERED_MAX or self.bytes >= GATHERED_BYTES_MAX


class _Producer(Transactions):
    """With the user's own properties of a producer over ours."""

    def __init__(self, settings: Settings, transactional_id: str, own: Mapping[str, str]) -> None:
        super().__init__(settings, transactional_id, bytes_max=PRODUCE_BYTES_MAX + 65_536)
        self._conf |= own


class SourceTask:
    """One run of a source. `run` raises what the task fails by: UserError (a bad record with errors.tolerance=none),
    Fenced (another process runs this connector), BrokerError, RegistryError, whatever the source raises."""

    def __init__(self, spec: Spec, task: Threaded) -> None:
        self.spec, self.task, self.common = spec, task, spec.common
        self.controls, self.done = task.controls, task.done
        self.settings = overrides.elsewhere(spec, task.settings, "producer")
        self.errors = Errors(spec, task.number)
        self.offsets_topic = offsets.topic_of(spec)
        self.source: Source = spec.cls(spec.config, project=spec.project)
        schema = self.common.schema_name and load_schema(schema_file(spec.project, self.common.schema_name))
        if getattr(self.source, "wants_schema", False):
            self.source.schema = schema or None
        self.out = Outbound(spec, self.settings, schema or None)
        self.done.topic = getattr(spec.config, "topic", "") or ""
        self.transactions = _Producer(self.settings, offsets.transactional_id(spec.name, task.number),
                                      overrides.librdkafka(spec, "producer"))
        self.positions: dict[bytes, Mapping[str, Any]] = {}
        self._state = ""
        self._gathered: _Batch | None = None
        self._pending: tuple[Future[None], _Batch] | None = None

    def run(self) -> None:
        """From the stored positions to the source's end, or until it is stopped."""
        begun = time.monotonic()
        try:
            ensure(self.settings, [offsets.plan(self.offsets_topic), *self.errors.plans])
            try:
                self.transactions.open()  # before positions are read: what an older self left open is decided now
            except KafkaException as error:
                raise overrides.refused(self.spec, "producer", error) from error
            found = offsets.stored(self.settings, self.spec.name, self.offsets_topic)
            self.positions = {key: one.position for key, one in found.items()}
            self._insist(lambda: self.source.open(self._stored), None)
            self._tell()
            with ThreadPoolExecutor(1, thread_name_prefix="commit") as self._committer:
                self._cycle()
        except Abandoned:
            pass
        finally:
            self.source.close()
            self.transactions.close()
            self.done.seconds = round(time.monotonic() - begun, 3)
            log.info("stopped", extra={"connector": self.spec.name, "task": self.task.number,
                                       "records": self.done.records, "rejected": self.done.rejected})

    def _stored(self, partition: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return self.positions.get(offsets.key_of(self.spec.name, partition))

    def _tell(self) -> None:
        """The state, where it is another than was told last."""
        state = PAUSED if self.controls.paused else RUNNING
        if state != self._state and not self.controls.stop.is_set():
            self._state = state
            self.task.report(state)

    def _insist(self, do: Callable[[], T], timeout_s: float | None) -> T:
        def told(error: Retriable, attempt: int, seconds: float) -> None:
            log.warning("tried again", extra={"connector": self.spec.name, "task": self.task.number,
                                              "why": KNOWN.text(str(error)), "attempt": attempt,
                                              "in_s": round(seconds, 1)})

        return Patience(timeout_s, self.common.errors_retry_delay_max_ms / 1e3, self._wait,
                        self.controls.stop.is_set, told).insist(do)

    def _wait(self, seconds: float) -> None:
        """Between two tries: what was committed meanwhile is told to the source, and what is asked for to its owner."""
        if self._pending is None or self._pending[0].done():
            self._submit()
        self._tell()
        self.controls.wait(seconds)

    def _cycle(self) -> None:
        pace = Pace(self.common.rate_records_per_second, self.spec.batch_records)
        while not self.controls.stop.is_set():
            if self.controls.paused:
                self._flush()
                self._paused()
                continue
            pulled = self._insist(lambda: self.source.pull(pace.records_max), None)
            if pulled is not None:
                self._gather(pulled)
            behind = pulled is not None and (pulled.more or len(pulled) == pace.records_max)
            if self._gathered is not None and (pulled is None or self._due(self._gathered, behind)):
                self._submit()
            if not behind:
                self._settle()
            if pulled is None and (self.source.ended or self.task.drain):
                break
            if pulled is not None:
                pace.wait(len(pulled), self.controls.stop)
        self._flush()

    def _due(self, batch: _Batch, behind: bool) -> bool:
        """Whether to commit it now. In a backlog what comes while another commits goes together, since a transaction
        costs as much for one record as for many."""
        if batch.full:
            return True
        if self.common.transaction_boundary == "poll":
            return not (behind and self._pending is not None and not self._pending[0].done())
        return time.monotonic() >= batch.begun + float(self.common.transaction_interval_ms) / 1e3

    def _paused(self) -> None:
        self._tell()
        while self.controls.paused and not self.controls.stop.is_set():
            self.controls.wait(1.0)
        self._tell()

    def _gather(self, pulled: Pulled) -> None:
        """What was pulled, encoded, for the next transaction."""
        timeout_ms = self.common.errors_retry_timeout_ms
        sent, failures = self._insist(lambda: self._encoded(pulled.records),
                                      None if timeout_ms < 0 else timeout_ms / 1e3)
        bad = self._rejected(pulled, failures)
        if bad and self.common.errors_tolerance == "none":
            self._flush()  # what came before it is written
        dead = self.errors.judge(bad)
        batch = self._gathered = self._gathered or _Batch(time.monotonic())
        batch.parts += [part for part in (*sent, *dead) if len(part)]
        key = offsets.key_of(self.spec.name, pulled.partition)
        batch.positions[key] = self.positions[key] = pulled.position
        batch.pulled.append(pulled)
        batch.records += sum(map(len, sent))
        batch.rejected += len(bad)
        batch.bytes += sum(records.value.values.nbytes for records in pulled.records)

    def _encoded(self, pulled: Sequence[Records]) -> tuple[list[Outgoing], list[Failure]]:
        failures: list[Failure] = []
        ready = []
        for records in pulled:
            prepared, bad = self.out.prepared(records)
            ready.append(prepared)
            failures += bad
        if self.spec.chain:
            ready, bad = self.spec.chain.apply(ready)
            failures += bad
        sent = []
        for records in ready:
            if len(records):
                outgoing, bad = self.out.encode(records)
                sent.append(outgoing)
                failures += bad
        return sent, failures

    def _rejected(self, pulled: Pulled, failures: Sequence[Failure]) -> list[Rejected]:
        by = self.spec.cls_name
        topic = self.done.topic or None
        unread = [Rejected(stage="TASK_POLL", by=by, reasons=reasons, where=where, value=raw, topic=topic)
                  for where, raw, reasons in pulled.failures]
        return unread + [Rejected(stage=one.stage, by=one.by, reasons=(one.reason,), where=pulled.where(one.index),
                                  value=pulled.raw(one.index), topic=topic) for one in failures]

    def _submit(self) -> None:
        """Begin to commit what is gathered, once what is being committed is."""
        self._settle()
        if self._gathered is not None:
            self._pending = self._committer.submit(self._commit, self._gathered), self._gathered
            self._gathered = None

    def _flush(self) -> None:
        """Until all that is gathered is committed."""
        self._submit()
        self._settle()

    def _settle(self) -> None:
        """Wait for the commit that is under way, and tell the source."""
        if self._pending is None:
            return
        (future, batch), self._pending = self._pending, None
        future.result()
        for pulled in batch.pulled:
            self.source.committed(pulled)

    def _commit(self, batch: _Batch) -> None:
        nonce = os.urandom(8).hex()
        places = [offsets.record(key, position, nonce, self.offsets_topic)
                  for key, position in batch.positions.items()]
        self._write([*batch.parts, *places], nonce, next(iter(batch.positions)))
        self.done.records += batch.records
        self.done.rejected += batch.rejected
        self.done.position = dict(batch.pulled[-1].position)
        written = {part.topic for part in batch.parts} - {self.common.dead_letters}
        self.done.topics |= written
        self.done.topic = self.done.topic or min(written, default="")
        log.debug("committed", extra={"connector": self.spec.name, "records": batch.records,
                                      "position": self.done.position})

    def _write(self, parts: list[Outgoing], nonce: str, key: bytes) -> None:
        """Until it is committed; what is aborted is written again."""
        def decide() -> bool:
            now = offsets.stored(self.settings, self.spec.name, self.offsets_topic).get(key)
            return now is not None and now.nonce == nonce

        for _ in range(ABORTS_MAX):
            if self.transactions.write(parts, [], None, decide):
                return
            log.warning("aborted, written again", extra={"connector": self.spec.name})
        raise BrokerError(f"connector {self.spec.name}: {ABORTS_MAX} transactions in a row were aborted",
                          hint=f"may this user write to {', '.join(sorted({part.topic for part in parts}))}?")
