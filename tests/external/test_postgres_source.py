"""The PostgreSQL source against a real server: each row once, whatever commits when, and whatever breaks in between."""

from __future__ import annotations

import datetime as dt
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from headrace.codec import Decoder
from headrace.connector import Pulled
from headrace.errors import Retriable, UserError
from headrace.pg import source as module
from headrace.pg.reading import PostgresSourceConfig
from headrace.pg.source import PostgresSource
from headrace.registry import Registry
from headrace.settings import Settings
from tests.external.postgres import Postgres
from tests.integration.connectkit import Watched, until
from tests.integration.connectkit import made as spec_made
from tests.integration.held import read

pytestmark = [pytest.mark.external, pytest.mark.timeout(180)]


class Reader:
    """Does what the runtime does: keeps the position of what it was given, and starts the source anew where asked."""

    def __init__(self, dsn: str, keys: Mapping[str, str]) -> None:
        given = {"connection": dsn, "topic": "t", "interval.ms": "10", **keys}
        self.config = PostgresSourceConfig.model_validate({k.replace("__", "."): v for k, v in given.items()})
        self.stored: dict[str, Mapping[str, Any]] = {}
        self.rows: list[dict[str, Any]] = []
        self.failures: list[Any] = []
        self.outages = 0
        self.source: PostgresSource | None = None

    def open(self) -> PostgresSource:
        self.source = PostgresSource(self.config, project=Path())
        self.source.open(lambda partition: json.loads(json.dumps(self.stored.get(str(partition)))))
        return self.source

    def restart(self) -> None:
        if self.source is not None:
            self.source.close()
        self.source = None

    def pull(self, records_max: int = 1000) -> Pulled | None:
        try:
            pulled = (self.source or self.open()).pull(records_max)
        except Retriable:
            self.outages += 1
            time.sleep(0.1)
            return None
        if pulled is not None:
            assert sum(map(len, pulled.records)) <= records_max
            self.stored[str(pulled.partition)] = pulled.position
            self.rows += [row for records in pulled.records for row in records.value.values.to_pylist()]
            self.failures += pulled.failures
        return pulled

    def until(self, count: int, records_max: int = 1000, timeout_s: float = 60) -> list[dict[str, Any]]:
        """All rows so far, once there are so many; and then no more come."""
        end = time.monotonic() + timeout_s
        while len(self.rows) + len(self.failures) < count:
            assert time.monotonic() < end, f"{len(self.rows)} rows of {count}"
            self.pull(records_max)
        self.quiet()
        return self.rows

    def quiet(self, times: int = 3) -> None:
        """Nothing more comes."""
        before = len(self.rows)
        for _ in range(times):
            self.pull()
        assert len(self.rows) == before, self.rows[before:]


@pytest.fixture
def sql(pg: Postgres, database: str) -> Callable[..., list[tuple[Any, ...]]]:
    return lambda statement, *values: pg.sql(statement, *values, database=database)


@pytest.fixture
def reader(pg: Postgres, database: str) -> Iterator[Callable[..., Reader]]:
    made: list[Reader] = []

    def make(**keys: str) -> Reader:
        made.append(Reader(pg.dsn_of(database), {"table": "t", **keys} if "query" not in keys else keys))
        return made[-1]

    yield make
    for one in made:
        one.restart()


Sql = Callable[..., list[tuple[Any, ...]]]
Make = Callable[..., Reader]


def test_every_type_and_what_arrow_has_no_value_for(sql: Sql, reader: Make) -> None:
    sql("""CREATE TYPE mood AS ENUM ('sad', 'glad');
           CREATE TABLE t (id smallint PRIMARY KEY, i int, l bigint, r real, f float8, b boolean, n numeric(10, 2),
             u numeric, s text, v varchar(9), c char(3), x bytea, d date, tm time, ts timestamp, tz timestamptz,
             p timestamptz(3), j jsonb, g uuid, m mood, ai int[], at text[], an numeric(8, 1)[], ab bytea[],
             iv interval, "Odd ""name" text, gen int GENERATED ALWAYS AS (i * 2) STORED)""")
    full = ("1", "-5", str(2**62), "1.5", "0.1", "t", "-12.30", "1e40", 'a\nb",\\', "vv", "c", r"\x00ff", "2024-02-29",
            "23:59:59.000001", "2024-01-01 10:00:00.123456", "2024-01-01 10:00+02", "2024-01-01 10:00:00.1234+00",
            '{"k": [1, null]}', "f1ed9a43-09e3-4604-8298-6220b93993ed", "glad", "{1,NULL,3}", '{a,"b,\\"c",NULL,""}',
            "{1.5}", r'{"\\x01"}', "1 day 02:00", "odd")
    columns = ", ".join(["id, i, l, r, f, b, n, u, s, v, c, x, d, tm, ts, tz, p, j, g, m, ai, at, an, ab, iv",
                         '"Odd ""name"'])
    sql(f"INSERT INTO t ({columns}) VALUES ({', '.join(['%s'] * len(full))})", *full)
    sql("INSERT INTO t (id, s, f, r) VALUES (2, '', 'NaN', '-Infinity')")
    sql("""INSERT INTO t (id, n, ts, ai) VALUES (3, 'NaN', 'infinity', NULL), (4, 1, NULL, '{{1,2},{3,4}}'),
             (5, 1, NULL, '{}')""")
    made = reader()
    rows = made.until(5)
    utc = dt.UTC
    assert rows[0] == {
        "id": 1, "i": -5, "l": 2**62, "r": 1.5, "f": 0.1, "b": True, "n": Decimal("-12.30"), "u": "1" + "0" * 40,
        "s": 'a\nb",\\', "v": "vv", "c": "c  ", "x": b"\x00\xff", "d": dt.date(2024, 2, 29),
        "tm": dt.time(23, 59, 59, 1), "ts": dt.datetime(2024, 1, 1, 10, 0, 0, 123456),
        "tz": dt.datetime(2024, 1, 1, 8, tzinfo=utc), "p": dt.datetime(2024, 1, 1, 10, 0, 0, 123000, tzinfo=utc),
        "j": '{"k": [1, null]}', "g": "f1ed9a43-09e3-4604-8298-6220b93993ed", "m": "glad", "ai": [1, None, 3],
        "at": ["a", 'b,"c', None, ""], "an": [Decimal("1.5")], "ab": [b"\x01"], "iv": "P1DT2H", 'Odd "name': "odd",
        "gen": -10}
    assert {name: value for name, value in rows[1].items() if value is not None} == {
        "id": 2, "s": "", "f": pytest.approx(float("nan"), nan_ok=True), "r": float("-inf")}
    assert (rows[2]["id"], rows[2]["ai"]) == (5, [])
    assert [(where, len(why)) for where, _, why in made.failures] == [("t id=3", 2), ("t id=4", 1)]
    assert "n: “NaN” is more than Arrow's decimal128(10, 2) holds" in made.failures[0][2]
    assert made.failures[0][1].startswith(b"3,")


def test_what_commits_late_is_not_missed(pg: Postgres, database: str, sql: Sql, reader: Make) -> None:
    sql("CREATE TABLE t (id bigserial PRIMARY KEY, at timestamptz DEFAULT now())")
    made = reader(column="id")
    with psycopg.connect(pg.dsn_of(database)) as late:
        late.execute("INSERT INTO t DEFAULT VALUES")  # 1, not committed
        sql("INSERT INTO t DEFAULT VALUES")  # 2
        made.pull()
        made.quiet()
        assert made.rows == []  # 2 waits: its transaction began after one that still runs
        late.execute("SAVEPOINT s")
        late.execute("INSERT INTO t DEFAULT VALUES")  # 3, of a transaction within
        sql("INSERT INTO t DEFAULT VALUES")  # 4
        made.pull()
        made.restart()
        late.commit()
    assert [row["id"] for row in made.until(4)] == [1, 2, 3, 4]


def test_an_id_that_is_older_than_its_transaction(pg: Postgres, database: str, sql: Sql, reader: Make) -> None:
    """The cursor of a naive reader stands behind 1 already, and 2's transaction is settled, when 1 turns up."""
    sql("CREATE TABLE t (id bigserial PRIMARY KEY)")
    made = reader(column="id", overlap="10")
    (taken,), = sql("SELECT nextval('t_id_seq')")
    sql("INSERT INTO t DEFAULT VALUES")
    assert [row["id"] for row in made.until(1)] == [2]
    sql("INSERT INTO t VALUES (%s)", taken)
    assert [row["id"] for row in made.until(2)] == [2, 1]


def test_an_updated_row_comes_again_and_a_rolled_back_one_never(sql: Sql, reader: Make, pg: Postgres,
                                                                database: str) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
    sql("INSERT INTO t VALUES (1, 1), (2, 1)")
    made = reader()
    made.until(2)
    sql("UPDATE t SET v = 2 WHERE id = 2")
    with psycopg.connect(pg.dsn_of(database)) as other:
        other.execute("UPDATE t SET v = 3")
        other.rollback()
    sql("VACUUM FREEZE t")
    assert made.until(3)[2:] == [{"id": 2, "v": 2}]


@pytest.mark.parametrize("column", [None, "n", "at"])
def test_it_goes_on_behind_any_row(sql: Sql, reader: Make, column: str | None) -> None:
    sql("CREATE TABLE t (a text, b int, n int NOT NULL, at timestamptz, PRIMARY KEY (a, b))")
    for text in ("it's", 'a"b', "line\nend", ",", "\\"):  # two transactions a value: several windows
        for at in range(2):
            sql("INSERT INTO t SELECT %s, i, i %% 2, now() FROM generate_series(%s::int, %s::int) i", text, at * 3,
                    at * 3 + 2)
    made = reader(**({"column": column} if column else {}))
    while len(made.rows) < 30:
        made.pull(random.choice([1, 2, 7]))
        if random.random() < 0.6:
            made.restart()
    made.quiet()
    assert len({(row["a"], row["b"]) for row in made.rows}) == 30


def test_rows_near_the_largest_only(sql: Sql, reader: Make) -> None:
    """With an overlap of 10 a row that is 10 behind is found, and the one that is 11 behind is missed, as is said."""
    sql("CREATE TABLE t (id int PRIMARY KEY, at timestamptz)")
    sql("INSERT INTO t VALUES (100, '2024-01-01 00:01:40+00')")
    by_id, by_time = reader(column="id", overlap="10"), reader(column="at", overlap="10")
    assert [r["id"] for r in (*by_id.until(1), *by_time.until(1))] == [100, 100]
    sql("INSERT INTO t VALUES (90, '2024-01-01 00:01:30+00'), (89, '2024-01-01 00:01:29+00'), (1000, NULL)")
    by_id.restart()
    by_time.restart()
    assert [r["id"] for r in by_id.until(3)] == [100, 90, 1000]
    assert [r["id"] for r in by_time.until(3)] == [100, 90, 1000]
    sql("INSERT INTO t VALUES (990, '2024-01-01 00:01:31+00'), (989, NULL)")
    assert [r["id"] for r in by_id.until(4)] == [100, 90, 1000, 990]
    assert [r["id"] for r in by_time.until(5)][3:] == [989, 990]
    assert by_id.stored["{'table': 't'}"]["high"] == "1000"


def test_overlap_reads_by_the_index(sql: Sql, reader: Make) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY)")
    sql("INSERT INTO t SELECT generate_series(1, 100000)")
    sql("ANALYZE t")
    made = reader(column="id", overlap="100")
    made.until(100_000, 50_000)
    source = made.source
    assert source is not None
    statement = source._statement(module.Place(100, 200, (), "100000")).decode()
    plan = "\n".join(row[0] for row in sql("EXPLAIN " + statement.removeprefix("COPY (").partition(") TO STDOUT")[0]))
    assert "Index" in plan
    assert "Seq Scan" not in plan


def test_a_query_with_xmin_and_one_without(sql: Sql, reader: Make) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE VIEW double AS SELECT id, v * 2 AS w FROM t")
    sql("INSERT INTO t VALUES (5, 1)")
    safe = reader(query="SELECT xmin, id, v FROM t WHERE v > 0;", column="id", overlap="100")
    plain = reader(query="SELECT * FROM double -- all\n", column="id")
    assert safe.until(1) == [{"id": 5, "v": 1}]
    assert plain.until(1) == [{"id": 5, "w": 2}]
    sql("INSERT INTO t VALUES (4, 1), (3, 0), (6, 1)")
    for made in (safe, plain):
        made.restart()
    assert [row["id"] for row in safe.until(3)] == [5, 4, 6]
    assert [row["id"] for row in plain.until(2)] == [5, 6]  # as is said: 4 is behind


def test_partitions_and_a_table_that_changes(sql: Sql, reader: Make) -> None:
    sql("""CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id);
           CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (10);
           CREATE TABLE high PARTITION OF t FOR VALUES FROM (10) TO (20)""")
    sql("INSERT INTO t VALUES (1), (11)")
    made = reader()
    assert made.until(2) == [{"id": 1}, {"id": 11}]
    sql("ALTER TABLE t ADD COLUMN more text")
    sql("INSERT INTO t VALUES (2, 'x')")
    assert made.until(3)[2:] == [{"id": 2, "more": "x"}]


def test_writers_at_once_restarts_and_outages(pg: Postgres, database: str, sql: Sql, reader: Make) -> None:
    """Transactions that overlap, roll back, nest; the server is killed twice; the source begins anew now and then."""
    sql("CREATE TABLE t (id bigserial PRIMARY KEY, writer int NOT NULL, n int NOT NULL)")
    made, stop = reader(column="id"), threading.Event()
    kept: list[list[int]] = [[] for _ in range(4)]
    doubtful: list[list[int]] = [[] for _ in range(4)]

    def write(writer: int) -> None:
        chance, n = random.Random(writer), 0
        while not stop.is_set():
            mine: list[int] = []
            committing = False
            try:
                with psycopg.connect(pg.dsn_of(database), autocommit=True) as connection:
                    while not stop.is_set():
                        mine, committing = [], False
                        connection.execute("BEGIN")
                        connection.execute(f"SET LOCAL synchronous_commit = {chance.choice(['on', 'on', 'off'])}")
                        for _ in range(chance.randint(1, 4)):
                            n += 1
                            connection.execute("SAVEPOINT s")
                            connection.execute("INSERT INTO t (writer, n) VALUES (%s, %s)", [writer, n])
                            if chance.random() < 0.2:
                                connection.execute("ROLLBACK TO s")
                            else:
                                mine.append(n)
                            stop.wait(chance.choice([0, 0, 0.01, 0.05]))
                        committing = True
                        if chance.random() < 0.2:
                            mine = []
                            connection.execute("ROLLBACK")
                        else:
                            connection.execute("COMMIT")
                        kept[writer] += mine
            except psycopg.Error:
                doubtful[writer] += mine if committing else []
                time.sleep(0.05)

    writers = [threading.Thread(target=write, args=(at,)) for at in range(4)]
    for one in writers:
        one.start()
    try:
        begun, kills = time.monotonic(), 0
        while time.monotonic() - begun < 12:
            made.pull(random.choice([1, 10, 100]))
            if random.random() < 0.05:
                made.restart()
            if kills < 2 and time.monotonic() - begun > 3 * (kills + 1):
                pg.kill()
                kills += 1
                made.pull()
                pg.start()
    finally:
        stop.set()
        for one in writers:
            one.join(60)
    there = {(writer, n) for writer, n in sql("SELECT writer, n FROM t")}
    end = time.monotonic() + 60
    while not there <= {(row["writer"], row["n"]) for row in made.rows}:
        assert time.monotonic() < end, "rows are missed"
        made.pull()
    made.quiet()
    found = Counter((row["writer"], row["n"]) for row in made.rows)
    assert set(found) == there  # also: none was read that a crash took back
    assert set(found.values()) == {1}
    assert len(found) > 50
    assert made.outages


def test_nothing_is_read_that_a_crash_may_take_back(pg: Postgres, database: str, sql: Sql, reader: Make) -> None:
    """An asynchronous commit is visible before it is on disk. A crash loses it, and gives its number to another."""
    sql("CREATE TABLE t (id int PRIMARY KEY)")
    sql("INSERT INTO t VALUES (1)")
    made = reader()
    made.until(1)
    for setting in ("wal_writer_delay = '10s'", "bgwriter_delay = '10s'", "wal_writer_flush_after = 0"):
        pg.sql(f"ALTER SYSTEM SET {setting}")
    pg.stop()
    pg.start()
    try:
        made.quiet()
        time.sleep(0.5)
        sql("SET synchronous_commit = off; INSERT INTO t VALUES (2)")
        made.pull()
        lost = not any(row["id"] == 2 for row in made.rows)
        pg.kill()
        pg.start()
        survived = sql("SELECT count(*) FROM t WHERE id = 2")[0][0]
        assert lost or survived
        sql("INSERT INTO t VALUES (3)")
        assert sorted(row["id"] for row in made.until(2 + survived)) == ([1, 2, 3] if survived else [1, 3])
    finally:
        pg.sql("ALTER SYSTEM RESET ALL")
        pg.stop()
        pg.start()


def test_a_statement_that_runs_too_long_is_taken_up_again(sql: Sql, reader: Make,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """So a connector that is paused holds no snapshot for ever, which would keep VACUUM from its work."""
    monkeypatch.setattr(module, "STATEMENT_S", 1)
    sql("CREATE TABLE t (id int PRIMARY KEY, pad text)")
    sql("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 60000) i")
    made = reader()
    made.pull(10)
    time.sleep(1.5)
    rows = made.until(60_000, 20_000)
    assert made.outages
    assert [row["id"] for row in rows] == list(range(1, 60_001))


def test_a_database_that_is_older_than_the_position_is_refused(sql: Sql, reader: Make) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY)")
    made = reader()
    made.stored["{'table': 't'}"] = {"xid": 10**9}
    with pytest.raises(UserError, match="was it restored"):
        made.pull()


def test_an_idle_database_is_not_read_again_and_again(sql: Sql, reader: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY)")
    sql("INSERT INTO t VALUES (1)")
    made = reader()
    made.until(1)
    monkeypatch.setattr(module, "CopyOut", None)  # would fail
    made.quiet(5)


@pytest.mark.parametrize(("keys", "message"), [
    ({"table": "absent"}, "there is no table absent"), ({"table": "v"}, "is no table but a view"),
    ({"table": "bare"}, "has no primary key"), ({"column": "idd"}, "no column idd.*did you mean"),
    ({"key__columns": "none"}, "no column none"),
    ({"column": "s", "overlap": "5"}, "s is text, which cannot be counted"),
    ({"query": "SELECT id FROM t", "column": "id", "overlap": "5"}, "known again, by their transaction"),
    ({"query": "SELECT id, id FROM t", "column": "id"}, "gives id twice"),
    ({"query": "SELECT nonsense", "column": "id"}, "nonsense")])
def test_what_cannot_be_read_is_told(sql: Sql, reader: Make, keys: dict[str, str], message: str) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY, s text); CREATE VIEW v AS SELECT * FROM t; CREATE TABLE bare (id int)")
    with pytest.raises(UserError, match=message):
        reader(**keys).open()


def test_a_null_in_the_order_is_told(sql: Sql, reader: Make) -> None:
    sql("CREATE TABLE t (id int)")
    sql("INSERT INTO t VALUES (1), (NULL)")
    with pytest.raises(UserError, match="id is null in some rows"):
        reader(key__columns="id").pull()


def test_a_wrong_password_is_told_and_shown_nowhere(pg: Postgres) -> None:
    made = Reader(pg.dsn.replace(pg.password, "sesame123"), {"table": "t"})
    with pytest.raises(UserError, match="password authentication failed") as told:
        made.open()
    assert "sesame123" not in f"{told.value} {made.config!r}"


def test_a_server_that_is_away_is_waited_for(pg: Postgres, sql: Sql, reader: Make) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY)")
    sql("INSERT INTO t VALUES (1)")
    made = reader()
    pg.stop()
    try:
        made.pull()
        assert made.outages == 1
    finally:
        pg.start()
    assert made.until(1) == [{"id": 1}]


def test_a_growing_table_into_a_topic_over_restarts_of_both(pg: Postgres, database: str, sql: Sql, project: Settings,
                                                            topic: Callable[..., str]) -> None:
    name = topic()
    sql("CREATE TABLE t (id bigserial PRIMARY KEY, n numeric(10, 2), at timestamptz DEFAULT now(), tags text[])")
    spec = spec_made(project, name=f"pg-{name}", connector__class="PostgresSource", connection=pg.dsn_of(database),
                     topic=name, table="public.t", column="id", key="id", interval__ms="20", batch__records="50",
                     errors__retry__delay__max__ms="500")
    stop = threading.Event()

    def grow() -> None:
        while not stop.is_set():
            try:
                sql("INSERT INTO t (n, tags) SELECT i / 4.0, ARRAY['a', NULL] FROM generate_series(1, 30) i")
            except psycopg.Error:
                time.sleep(0.05)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        for at in range(4):
            watched = Watched(spec, project)
            watched.task.start()
            until(lambda watched=watched: watched.task.done.records > 100)  # type: ignore[misc]
            if at % 2:
                pg.kill()
                pg.start()
                before = watched.task.done.records
                until(lambda watched=watched, before=before: watched.task.done.records > before)  # type: ignore[misc]
            watched.end()
            assert watched.states == ["RUNNING"]
    finally:
        stop.set()
        writer.join(60)
    (there,), = sql("SELECT count(*) FROM t")
    watched = Watched(spec, project)
    watched.task.start()
    until(lambda: len(read(project, name)) >= there)
    watched.end()
    found = read(project, name)
    registry = Registry(project.registry_client())
    registered = registry.latest(f"{name}-value")
    assert registered is not None
    rows = Decoder(registered[2], registry.schema).decode([m.value() for m in found]).rows
    assert Counter(rows.column("id").to_pylist()) == Counter(row[0] for row in sql("SELECT id FROM t"))
    assert rows.column("tags")[0].as_py() == ["a", None]
    assert rows.column("n")[1].as_py() == Decimal("0.50")
    assert [int(m.key()) for m in found[:5]] == rows.column("id")[:5].to_pylist()


@pytest.mark.parametrize(("keys", "message"), [
    ({}, "table: is missing"), ({"table": "t", "query": "SELECT"}, "take one"),
    ({"query": "SELECT"}, "column: is missing"),
    ({"table": "t", "overlap": "5"}, "overlap: of what"), ({"table": "t", "overlap": "x"}, "integer")])
def test_keys_that_do_not_go_together(keys: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Reader("postgresql://x", keys)
