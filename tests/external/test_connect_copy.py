"""A PostgreSQL table that grows is copied through Kafka into another one, while database, broker and worker are killed.

Writers insert in several open transactions at once and update what is there; the sink upserts. At the end both tables
are equal, row for row.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from headrace.settings import Settings
from headrace.stack.leash import leash
from headrace.stack.lifecycle import ANY_PORTS, status, up
from tests.external.postgres import Postgres, postgres

pytestmark = [pytest.mark.external, pytest.mark.timeout(900)]

KILLS = [*("worker",) * 3, *("postgres",) * 2, *("kafka",) * 2]
WRITERS, ROWS_OF_A_TURN = 3, 40
REST_S = (2.0, 6.0)
PATIENCE_S = 240.0
TABLE = "(id bigserial PRIMARY KEY, who int, amount numeric(12, 2), note text, changed timestamptz DEFAULT now())"


class World:
    """A stack and a database of this test's own, which it may break; and the worker."""

    def __init__(self, settings: Settings, server: Postgres) -> None:
        self.settings, self.server = settings, server
        self.worker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.settings.project / "worker.log").open("ab") as log:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "headrace", "connect", "--listen", "127.0.0.1:0", "--log", "info", "in.json",
                 "out.json"], cwd=self.settings.project, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "TABLES": self.server.dsn})

    def kill(self, which: str) -> None:
        """`kill -9`, and up again after a while."""
        if which == "worker":
            assert self.worker is not None
            assert self.worker.poll() is None, f"the worker ended by itself:\n{self.log()}"
            self.worker.kill()
            self.worker.wait()
            self.start()
        elif which == "postgres":
            self.server.kill()
            time.sleep(1.0)
            self.server.start()
        else:
            kafka = next(part for part in status(self.settings.project) if part.name == "kafka")
            assert kafka.pid is not None
            psutil.Process(kafka.pid).kill()
            up(self.settings.project)

    def log(self) -> str:
        return (self.settings.project / "worker.log").read_text(errors="replace")[-4000:]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with leash(tmp_path), postgres() as server:
        found = up(tmp_path, ports=ANY_PORTS)
        monkeypatch.setenv("HEADRACE_BOOTSTRAP", found["bootstrap"])
        monkeypatch.setenv("HEADRACE_REGISTRY", found["registry"])
        made = World(Settings(tmp_path, found["bootstrap"], found["registry"]), server)
        for name, keys in (
                ("in", {"connector.class": "headrace.connectors.postgres.PostgresSource", "table": "orders",
                        "topic": "orders", "interval.ms": "300"}),
                ("out", {"connector.class": "headrace.connectors.postgres.PostgresSink", "topics": "orders",
                         "table": "orders_copy", "insert.mode": "upsert", "pk.mode": "record_value",
                         "pk.fields": "id"})):
            config = {"name": f"orders-{name}", "connection": "${env:TABLES}", **keys}
            (tmp_path / f"{name}.json").write_text(json.dumps(config))
        yield made
        if made.worker is not None:
            made.worker.kill()
            made.worker.wait()


def write(server: Postgres, stop: threading.Event, seed: int, faults: list[BaseException]) -> None:
    """Transactions that insert, update, wait and commit, or roll back; whatever the database's fate."""
    chance = random.Random(seed)
    while not stop.is_set():
        try:
            with psycopg.connect(server.dsn, connect_timeout=5) as connection:
                turn(connection, stop, chance)
        except psycopg.OperationalError:
            stop.wait(0.3)
        except BaseException as error:
            faults.append(error)
            return


def turn(connection: psycopg.Connection, stop: threading.Event, chance: random.Random) -> None:
    while not stop.is_set():
        with connection.transaction(force_rollback=chance.random() < 0.1):
            for _ in range(ROWS_OF_A_TURN):
                connection.execute("INSERT INTO orders (who, amount, note) VALUES (%s, %s, %s)", (
                    chance.randrange(100), chance.randrange(10**6) / 100, chance.choice([None, "", "späť", "a,b\n\\"])))
            connection.execute("UPDATE orders SET amount = amount + 1, changed = now() WHERE id IN "
                               "(SELECT id FROM orders WHERE who = %s LIMIT 5 FOR UPDATE SKIP LOCKED)",
                               (chance.randrange(100),))
            stop.wait(chance.uniform(0.0, 0.4))


def test_the_copy_is_equal(world: World) -> None:
    seed = random.randrange(1 << 30)
    chance, stop, faults = random.Random(seed), threading.Event(), []
    for name in ("orders", "orders_copy"):
        world.server.sql(f"CREATE TABLE {name} {TABLE}")
    world.start()
    writers = [threading.Thread(target=write, args=(world.server, stop, seed + n, faults)) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        kills = list(KILLS)
        chance.shuffle(kills)
        for which in kills:
            time.sleep(chance.uniform(*REST_S))
            world.kill(which)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert faults == []
    wait(world, lambda: rows(world, "orders") == rows(world, "orders_copy"), f"seed {seed}: equal tables")
    there = rows(world, "orders")
    print(f"seed {seed}: {len(there):,} rows, {', '.join(kills)}")
    assert len(there) > 500
    time.sleep(2.0)
    assert rows(world, "orders_copy") == there


def rows(world: World, table: str) -> list[tuple[object, ...]]:
    return world.server.sql(f"SELECT id, who, amount, note, changed FROM {table} ORDER BY id")


def wait(world: World, ready: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not ready():
        assert world.worker is not None
        assert world.worker.poll() is None, f"the worker ended by itself:\n{world.log()}"
        assert time.monotonic() < end, f"waited in vain for {what}:\n{world.log()}"
        time.sleep(0.5)
