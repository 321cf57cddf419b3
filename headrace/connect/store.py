"""What a worker must not forget: the connectors, what is wanted of them, and how they are.

    Memory      nothing is kept: connectors come from files, each time the worker starts
    Topics      two compacted topics of one partition; a new worker goes on where a dead one stopped
        headrace.connect.configs   key [group, "connector", name]      {"config": {…}, "target": "RUNNING"}
        headrace.connect.status    key [group, "connector", name]      {"state", "worker_id", "trace"}
                                       [group, "task", name, number]   the same, and {"auto_restart": {…}}
                                       [group, "topics", name]         {"topics": […]}
                                       [group, "worker"]               {"worker_id"}, the sign of life
 What is deleted is a record without a value. A worker's writes are transactions of the id `headrace.connect.<group>`,
 so that the next worker of the group shuts out the one before it: that one's next write, of which there is one every
 few seconds, tells it so.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from headrace.batch import Outgoing
from headrace.checkpoint import Transactions
from headrace.errors import BrokerError, Fenced, HeadraceError
from headrace.peek import scan
from headrace.settings import Settings
from headrace.topics import TopicPlan, ensure

log = logging.getLogger("headrace.connect")
CONFIGS, STATUS = "headrace.connect.configs", "headrace.connect.status"
RECORD_BYTES_MAX = 8 << 20
PLANS = tuple(TopicPlan(topic, 1, {"cleanup.policy": "compact", "max.message.bytes": str(RECORD_BYTES_MAX)})
              for topic in (CONFIGS, STATUS))
BEAT_S = 5.0
ABORTS_MAX = 10
WRITE_DEADLINE_S = 30.0
AGAIN_S = 1.0

Key = tuple[Any, ...]
"""("connector", name), ("task", name, number), ("topics", name)"""
Facts = dict[Key, dict[str, Any]]


class Store(Protocol):
    """Used by any thread, after `open`."""

    def open(self) -> tuple[Facts, Facts]:
        """What was kept: configs and statuses. Raises BrokerError."""

    def put(self, topic: str, key: Key, value: Mapping[str, Any] | None) -> Future[None]:
        """Keep, or with None forget. The future is done when it is kept for good: it raises Fenced, BrokerError."""

    def ailing(self) -> str | None:
        """Why nothing can be kept now; None when it can."""

    def close(self) -> None: ...


class Memory:
    """Keeps nothing beyond this process, in which the herder knows it all."""

    def open(self) -> tuple[Facts, Facts]:
        return {}, {}

    def put(self, topic: str, key: Key, value: Mapping[str, Any] | None) -> Future[None]:
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def ailing(self) -> str | None:
        return None

    def close(self) -> None:
        pass


_Write = tuple[str, bytes, bytes | None, "Future[None]"]


class Topics:
    """Kept in Kafka. One thread writes; writes that wait for it go in one transaction.

    `on_fenced` is called once, from that thread, when another worker has taken the group over.
    """

    def __init__(self, settings: Settings, group: str, worker_id: str, on_fenced: Callable[[Fenced], None]) -> None:
        self.settings, self.group, self.worker_id, self.on_fenced = settings, group, worker_id, on_fenced
        self._transactions = Transactions(settings, f"headrace.connect.{group}", deadline_s=WRITE_DEADLINE_S,
                                          bytes_max=RECORD_BYTES_MAX)
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._ailing: str | None = "it has not started"
        self._fenced: Fenced | None = None
        self._held: list[_Write] = []
        self._thread = threading.Thread(target=self._run, name="connect-store", daemon=True)

    def open(self) -> tuple[Facts, Facts]:
        ensure(self.settings, PLANS)
        self._transactions.open()  # before they are read: what an older self left open is decided now
        kept = self._read(CONFIGS), self._read(STATUS)
        self._ailing = None
        self._thread.start()
        self._beat()
        return kept

    def _read(self, topic: str) -> Facts:
        found: Facts = {}
        for messages in scan(self.settings, topic, await_open=True):
            for message in messages:
                group, *key = json.loads(message.key() or b"[null]")
                if group != self.group:
                    continue
                value = message.value()
                if value is None:
                    found.pop(tuple(key), None)
                else:
                    found[tuple(key)] = json.loads(value)
        return found

    def put(self, topic: str, key: Key, value: Mapping[str, Any] | None) -> Future[None]:
        done: Future[None] = Future()
        if self._fenced is not None:
            done.set_exception(self._fenced)
            return done
        text = None if value is None else json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
        name = json.dumps([self.group, *key], ensure_ascii=False).encode(errors="surrogatepass")
        self._waiting.put((topic, name, text, done))
        return done

    def ailing(self) -> str | None:
        return str(self._fenced) if self._fenced is not None else self._ailing

    def close(self) -> None:
        """Writes what waits, for as long as one write may take."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(WRITE_DEADLINE_S)
        self._transactions.close()

    def _beat(self) -> None:
        self.put(STATUS, ("worker",), {"worker_id": self.worker_id})

    def _run(self) -> None:
        beaten = time.monotonic()
        while True:
            batch, last = self._next(max(0.0, beaten + BEAT_S - time.monotonic()))
            batch, self._held = [*self._held, *batch], []
            if batch:
                self._write(batch)
            if last or self._fenced is not None:
                break
            if time.monotonic() - beaten >= BEAT_S:
                beaten = time.monotonic()
                self._beat()
        while not self._waiting.empty():
            left = self._waiting.get()
            if left is not None:
                left[3].set_exception(self._fenced or BrokerError("the worker ends"))

    def _next(self, wait_s: float) -> tuple[list[_Write], bool]:
        """All that waits, and whether it is the last; at most `wait_s` later."""
        batch: list[_Write] = []
        try:
            one = self._waiting.get(timeout=wait_s) if wait_s else self._waiting.get_nowait()
            while one is not None:
                batch.append(one)
                one = self._waiting.get_nowait()
            return batch, True
        except queue.Empty:
            return batch, False

    def _write(self, batch: Sequence[_Write]) -> None:
        latest = {(topic, key): value for topic, key, value, _ in batch}
        outputs = []
        for topic in (CONFIGS, STATUS):
            mine = {key: value for (at, key), value in latest.items() if at == topic}
            if mine:
                outputs.append(Outgoing(topic, list(mine.values()), list(mine), [0] * len(mine), [[]] * len(mine)))
        error: HeadraceError | None = None
        try:
            self._commit(outputs)
            self._ailing = None
        except Fenced as fenced:
            self._fenced = error = fenced
        except HeadraceError as other:
            error = other
            if self._ailing is None:
                log.error("what a worker must keep cannot be written", extra={"error": str(other)})
            self._ailing = str(other)
        for *_, done in batch:
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
        if self._fenced is not None:
            self.on_fenced(self._fenced)
        elif error is not None:  # statuses are tried again; whoever asked for a config was told
            self._held = [(topic, key, value, Future()) for topic, key, value, _ in batch if topic == STATUS]
            time.sleep(AGAIN_S)

    def _commit(self, outputs: Sequence[Outgoing]) -> None:
        if self._ailing is not None:
            self._transactions.open()
        for _ in range(ABORTS_MAX):
            if self._transactions.write(outputs, [], None, lambda: False):  # written twice is as good as once
                return
        raise BrokerError(f"{ABORTS_MAX} transactions of {self._transactions.id} in a row were aborted",
                          hint=f"may this user write to {CONFIGS} and {STATUS}?")
