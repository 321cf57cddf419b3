"""What the tests of running connectors share: a sink whose other side is SQLite, and tasks that are watched."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headrace.connect.spec import Spec, spec_of
from headrace.connect.tasks import Task, task
from headrace.settings import Settings

LEDGER = '''
"""A sink for tests: rows of a table of SQLite, with the offsets in the same transaction. `trouble` is a file whose
lines say what the next puts raise."""

import json
import sqlite3
import time
from pathlib import Path

from pydantic import Field

from headrace.config import Config
from headrace.connector import RecordsRefused
from headrace.errors import Retriable, UserError


class LedgerConfig(Config):
    """Keys of the ledger."""

    ledger: str = Field(description="The database.")
    poison: int | None = Field(None, description="Rows with this n are refused.")
    slow_s: float = Field(0, description="How long a put takes.")


class LedgerSink:
    Config = LedgerConfig
    exactly_once = EXACTLY_ONCE

    def __init__(self, config, *, project, name):
        self.config, self.path, self.down = config, project / config.ledger, project / "down"

    def _db(self):
        db = sqlite3.connect(self.path, timeout=30)
        db.execute("create table if not exists rows (topic, partition, offset, key, value, headers)")
        db.execute("create table if not exists offsets (topic, partition, offset, primary key (topic, partition))")
        db.execute("create table if not exists calls (what, at)")
        return db

    def _call(self, what):
        with self._db() as db:
            db.execute("insert into calls values (?, ?)", (what, time.monotonic()))

    def open(self, partitions):
        self._call("open")
        if not self.exactly_once:
            return {}
        return {(t, p): at for t, p, at in self._db().execute("select * from offsets") if (t, p) in set(partitions)}

    def put(self, records, ends):
        self._call("put")
        if self.down.exists():
            raise Retriable("the ledger is down", retry_after_s=0)
        time.sleep(self.config.slow_s)
        bad = {}
        rows = []
        for each in records:
            values, keys = each.value.values.to_pylist(), each.key.values.to_pylist()
            for at in range(len(each)):
                if isinstance(values[at], dict) and values[at].get("n") == self.config.poison:
                    bad[int(each.index[at])] = "n is poison"
                headers = [] if each.headers is None else [(n, v) for n, v, _ in each.headers[at]]
                rows.append((each.topic, int(each.partitions[at]), int(each.offsets[at]), str(keys[at]),
                             json.dumps(values[at], default=str), json.dumps(headers)))
        if bad and self.config.poison is not None:
            raise RecordsRefused(bad)
        with self._db() as db:
            db.executemany("insert into rows values (?, ?, ?, ?, ?, ?)", rows)
            db.executemany("insert or replace into offsets values (?, ?, ?)",
                           [(t, p, at) for (t, p), at in ends.items()])

    def alter(self, positions):
        with self._db() as db:
            for (topic, partition), at in positions.items():
                db.execute("delete from offsets where topic = ? and partition = ?", (topic, partition))
                if at is not None:
                    db.execute("insert into offsets values (?, ?, ?)", (topic, partition, at))

    def close(self):
        self._call("close")


SINK = LedgerSink
'''


class Watched:
    """A task, and every state it told."""

    def __init__(self, spec: Spec, settings: Settings, number: int = 0, *, drain: bool = False) -> None:
        self.states: list[str] = []
        self.trace: str | None = None
        self._told = threading.Condition()
        self.task: Task = task(spec, number, settings, self._report, drain=drain)

    def _report(self, state: str, trace: str | None) -> None:
        with self._told:
            self.states.append(state)
            self.trace = trace or self.trace
            self._told.notify_all()

    def expect(self, state: str, timeout_s: float = 60) -> None:
        """Wait until the last state told is this one."""
        with self._told:
            assert self._told.wait_for(lambda: self.states[-1:] in ([state], ["FAILED"]), timeout_s), self.states
        assert self.states[-1] == state, (self.states, self.trace)

    def end(self, timeout_s: float = 60) -> None:
        self.task.stop()
        assert self.task.join(timeout_s), "it does not stop"


def project_with_ledger(settings: Settings, *, exactly_once: bool = True) -> Path:
    """The project, with a connector `ledger` of its own."""
    text = LEDGER.replace("EXACTLY_ONCE", str(exactly_once))
    (settings.project / "connectors/ledger.py").write_text(text)
    return settings.project


def made(settings: Settings, **keys: str) -> Spec:
    """A spec from keys; `__` stands for a dot."""
    spec, problems = spec_of({key.replace("__", "."): value for key, value in keys.items()}, settings.project)
    assert spec is not None, problems
    return spec


def rows(settings: Settings, database: str = "ledger.db") -> list[tuple[Any, ...]]:
    """(topic, partition, offset, key, value, headers) of all rows, the last two parsed."""
    path = settings.project / database
    if not path.exists():
        return []
    try:
        with sqlite3.connect(path, timeout=30) as db:
            found = db.execute("select * from rows order by topic, partition, offset").fetchall()
    except sqlite3.OperationalError:  # not yet made
        return []
    return [(*row[:4], json.loads(row[4]), json.loads(row[5])) for row in found]


def calls(settings: Settings, what: str) -> list[float]:
    """When the sink was called so, in seconds of the monotonic clock."""
    with sqlite3.connect(settings.project / "ledger.db", timeout=30) as db:
        return [at for (at,) in db.execute("select at from calls where what = ? order by at", (what,))]


def until(true: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait for what must become true."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it does not become true"
        time.sleep(0.05)


def produce(settings: Settings, topic: str, values: list[bytes | None], *, keys: list[bytes | None] | None = None,
            headers: list[tuple[str, bytes]] | None = None, partition: int | None = None,
            timestamp: int = 0) -> None:
    """Records as they are."""
    from confluent_kafka import Producer

    producer = Producer(settings.client(enable_idempotence=True))
    for at, value in enumerate(values):
        where: Mapping[str, Any] = {} if partition is None else {"partition": partition}
        producer.produce(topic, value=value, key=keys[at] if keys else None, headers=headers or [],
                         timestamp=timestamp, **where)
    assert producer.flush(60) == 0
