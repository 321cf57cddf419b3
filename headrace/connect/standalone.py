"""Connectors run in this process, each by a thread of its own with one transactional producer.

The cycle: read a batch of the source; in one transaction write its records, its dead letters and, to the offsets
topic, the position behind it; commit. At the start the producer is initialised first, which decides what an older self
left open, and only then is the position read: so a kill -9 neither loses nor doubles a record.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from headrace.batch import Headers, Outgoing
from headrace.checkpoint import Transactions
from headrace.codec import AvroSchema
from headrace.codec import load as load_schema
from headrace.connect import offsets
from headrace.connect.config import Connector
from headrace.connect.pace import Pace
from headrace.connect.shape import Shape, check_fields, shape
from headrace.errors import BrokerError, UserError
from headrace.ingest import Bad
from headrace.plan import schema_file
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.topics import TopicPlan, ensure, message_bytes_max

log = logging.getLogger("headrace.connect")
TAIL_S = 0.2
ABORTS_MAX = 10
SHOWN_MAX = 20
DEAD_LETTER_BYTES_MAX = 10 << 20


@dataclass(slots=True)
class Done:
    """What one connector has written, and committed, in this run."""

    connector: str
    topic: str
    records: int = 0
    rejected: int = 0
    seconds: float = 0.0
    position: dict[str, int] | None = None


def run(connectors: Sequence[Connector], settings: Settings, stop: threading.Event, *, drain: bool = False,
        reset: bool = False) -> list[Done]:
    """Run all until each has ended, or `stop`; with `drain` files that grow end where they end now.

    The first that fails stops the others, after their batch in hand, and is raised: UserError (a bad record with
    errors.tolerance=none, a missing file), BrokerError, RegistryError, Fenced (another process runs this connector).
    """
    names = [c.name for c in connectors]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two files name their connector “{twice[0]}”; they would share one position")
    tasks = [Task(c, settings, stop, drain, reset) for c in connectors]  # the files are looked at before any is run
    faults: list[BaseException] = []

    def work(task: Task) -> None:
        try:
            task.run()
        except BaseException as error:
            faults.append(error)
            stop.set()

    threads = [threading.Thread(target=work, args=(task,), name=task.connector.name) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.5)  # in turns, so that signals are heard
    if faults:
        raise faults[0]
    return [task.done for task in tasks]


class Task:
    """One connector's cycle. Raises UserError when made: no such schema, a key that is no field."""

    def __init__(self, connector: Connector, settings: Settings, stop: threading.Event, drain: bool,
                 reset: bool) -> None:
        self.connector, self.settings, self.stop, self.drain, self.reset = connector, settings, stop, drain, reset
        self.config = connector.config
        self.schema: AvroSchema = load_schema(schema_file(settings.project, self.config.schema_name))
        check_fields(self.schema, self.config.key, self.config.timestamp_column)
        self.source = connector.source(self.config, project=settings.project)
        self.key = offsets.key_of(connector.name, self.source.partition)
        self.done = Done(connector.name, self.config.topic)

    def run(self) -> None:
        """From the stored position to the end, or to `stop`."""
        begun = time.monotonic()
        made = self._shape()
        self.transactions = Transactions(self.settings, f"headrace.connect.{self.connector.name}.0",
                                         bytes_max=max(made.bytes_max, DEAD_LETTER_BYTES_MAX) + 65_536)
        self.transactions.open()  # before the position is read: what an older self left open is decided now
        try:
            if self.reset:
                self._write([offsets.record(self.key, None, "")], None)
            position, _ = offsets.stored(self.settings, self.key)
            self.source.open(self.schema, position)
            log.info("started", extra={"connector": self.connector.name, "position": position})
            if self.source.unused:
                log.warning("columns passed over", extra={"connector": self.connector.name,
                                                          "columns": list(self.source.unused)})
            self._cycle(made)
        finally:
            self.source.close()
            self.transactions.close()
            self.done.seconds = round(time.monotonic() - begun, 3)
            log.info("stopped", extra=asdict(self.done))

    def _shape(self) -> Shape:
        config = self.config
        topics = [offsets.PLAN, TopicPlan(config.topic, config.partitions, config.topic_config(),
                                          config.replication_factor)]
        if config.dead_letters:
            topics.append(TopicPlan(config.dead_letters, 1, {"max.message.bytes": str(DEAD_LETTER_BYTES_MAX)},
                                    config.replication_factor))
        schema_id = Registry(self.settings.registry_client()).register(f"{config.topic}-value", self.schema)
        ensure(self.settings, topics)
        bytes_max = message_bytes_max(self.settings, [config.topic])[config.topic]
        return shape(config.topic, self.schema, schema_id, config.key, config.timestamp_column, bytes_max)

    def _cycle(self, made: Shape) -> None:
        """The next batch is read and encoded while the last one commits."""
        pace = Pace(self.config.rate_records_per_second, self.config.batch_records)
        pending: Future[None] | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="commit") as committer:
            while not self.stop.is_set():
                piece = self.source.read(pace.records_max)
                if piece is None:
                    if self.drain or not self.config.tail:
                        break
                    self.stop.wait(TAIL_S)
                    continue
                sent, _, bad = made.records(piece)
                if pending is not None:
                    pending.result()
                if bad:
                    self._tolerate(bad)
                position, nonce = self.source.position(piece), os.urandom(8).hex()
                parts = [sent, *self._dead(bad), offsets.record(self.key, position, nonce)]
                pending = committer.submit(self._commit, parts, nonce, len(sent), len(bad), position)
                pace.wait(len(piece), self.stop)
            if pending is not None:
                pending.result()

    def _tolerate(self, bad: list[Bad]) -> None:
        first = bad[0]
        where = f"{self.source.path}:{first.at}"
        if self.config.errors_tolerance == "none":
            raise UserError(f"{where}: {'; '.join(first.reasons)}",
                            hint="its batch was not written; mend the file, or set errors.tolerance=all and "
                                 "errors.deadletterqueue.topic.name")
        if not self.config.dead_letters:
            for one in bad[:SHOWN_MAX]:
                log.warning("rejected", extra={"connector": self.connector.name, "reasons": one.reasons,
                                               "where": f"{self.source.path}:{one.at}", "raw": repr(one.raw[:500])})
            if len(bad) > SHOWN_MAX:
                log.warning("rejected more in this batch", extra={"connector": self.connector.name,
                                                                  "more": len(bad) - SHOWN_MAX})

    def _dead(self, bad: list[Bad]) -> list[Outgoing]:
        if not (bad and self.config.dead_letters):
            return []
        n = len(bad)
        most = DEAD_LETTER_BYTES_MAX - 65_536
        return [Outgoing(self.config.dead_letters, [one.raw[:most] for one in bad], [None] * n, [0] * n,
                         [self._reasons(one) for one in bad])]

    def _reasons(self, one: Bad) -> Headers:
        """Kafka Connect's headers, and ours."""
        said = "; ".join(one.reasons)
        texts = {"__connect.errors.connector.name": self.connector.name, "__connect.errors.task.id": "0",
                 "__connect.errors.stage": "VALUE_CONVERTER", "__connect.errors.topic": self.config.topic,
                 "__connect.errors.class.name": type(self.source).__name__,
                 "__connect.errors.exception.message": said, "headrace.file": f"{self.config.file}:{one.at}",
                 "headrace.reasons": json.dumps(one.reasons, ensure_ascii=False)}
        return [(name, text.encode()) for name, text in texts.items()]

    def _commit(self, parts: list[Outgoing], nonce: str, records: int, rejected: int, position: dict[str, int]) -> None:
        self._write(parts, nonce)
        self.done.records += records
        self.done.rejected += rejected
        self.done.position = position
        log.debug("committed", extra={"connector": self.connector.name, "records": records, "position": position})

    def _write(self, parts: list[Outgoing], nonce: str | None) -> None:
        """Until it is committed; what is aborted is written again."""
        def decide() -> bool:
            return offsets.stored(self.settings, self.key)[1] == nonce

        for _ in range(ABORTS_MAX):
            if self.transactions.write([part for part in parts if len(part)], [], None, decide):
                return
            log.warning("aborted, written again", extra={"connector": self.connector.name})
        raise BrokerError(f"connector {self.connector.name}: {ABORTS_MAX} transactions in a row were aborted",
                          hint=f"may this user write to {', '.join(part.topic for part in parts)}?")


def summary(done: Sequence[Done]) -> list[dict[str, Any]]:
    """For --json."""
    return [asdict(one) for one in done]
