"""The PostgreSQL sink against a real server: what the table holds is what the log says, whatever happens in between."""

from __future__ import annotations

import contextlib
import datetime as dt
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.connector import RecordsRefused
from headrace.errors import Retriable, UserError
from headrace.pg.sink import PostgresSink, PostgresSinkConfig
from headrace.records import Column, Records
from tests.external.postgres import Postgres
from tests.unit.sinkkit import records

pytestmark = pytest.mark.external
Make = Callable[..., PostgresSink]


@pytest.fixture
def make(pg: Postgres, database: str) -> Any:
    made: list[PostgresSink] = []

    def sink(name: str = "to-pg", **keys: str) -> PostgresSink:
        given = {"connection": pg.dsn_of(database), **{key.replace("_", "."): v for key, v in keys.items()}}
        made.append(PostgresSink(PostgresSinkConfig.model_validate(given), project=Path(), name=name))
        return made[-1]

    yield sink
    for one in made:
        one.close()


UPSERT = {"insert_mode": "upsert", "pk_fields": "id", "auto_create": "true"}


def test_upsert_keeps_the_last_value_of_each_key(pg: Postgres, database: str, make: Make) -> None:
    sink = make(**UPSERT)
    rows = [{"id": at % 7, "at": at, "text": f"row {at}"} for at in range(1000)]
    assert sink.open([("a.b-c", 0)]) == {}
    sink.put([records(rows[:600], topic="a.b-c")], {("a.b-c", 0): 600})
    sink.put([records(rows[600:], topic="a.b-c", first=600)], {("a.b-c", 0): 1000})
    found = pg.sql("SELECT id, at, text FROM a_b_c ORDER BY id", database=database)
    assert found == [(row["id"], row["at"], row["text"]) for row in sorted(rows[-7:], key=lambda row: int(row["id"]))]
    assert make().open([("a.b-c", 0), ("other", 1)]) == {("a.b-c", 0): 1000}


def test_insert_and_a_repeated_put(pg: Postgres, database: str, make: Make) -> None:
    sink = make(auto_create="true")
    sink.open([("t", 0), ("t", 1)])
    poll = [records([{"a": 1}, {"a": 2}], topic="t"), records([{"a": 3}], topic="t", partition=1, first=9)]
    ends = {("t", 0): 2, ("t", 1): 10}
    for _ in range(3):
        sink.put(poll, ends)
    sink.put([], {("t", 0): 5})  # all of it was filtered out
    assert pg.sql("SELECT a FROM t ORDER BY a", database=database) == [(1,), (2,), (3,)]
    assert make().open([("t", 0), ("t", 1)]) == {("t", 0): 5, ("t", 1): 10}


def test_a_zombie_stores_nothing_twice(pg: Postgres, database: str, make: Make) -> None:
    """Two tasks on one partition, each with polls of its own cut, in any order: every record is stored once."""
    old, new = make(auto_create="true"), make(auto_create="true")
    old.open([("t", 0)])
    rows = [{"a": at} for at in range(100)]

    def put(sink: PostgresSink, first: int, end: int) -> None:
        sink.put([records(rows[first:end], topic="t", first=first)], {("t", 0): end})

    put(old, 0, 10)
    assert new.open([("t", 0)]) == {("t", 0): 10}
    put(new, 10, 30)
    put(old, 10, 20)  # behind: nothing of it
    put(old, 20, 50)  # half of it
    put(new, 30, 60)
    put(new, 60, 100)
    assert [row[0] for row in pg.sql("SELECT a FROM t ORDER BY a", database=database)] == list(range(100))
    assert make().open([("t", 0)]) == {("t", 0): 100}


def test_two_tasks_at_once(pg: Postgres, database: str, make: Make) -> None:
    rows = [{"id": at % 50, "at": at} for at in range(4000)]
    troubles: list[BaseException] = []

    def run(step: int) -> None:
        sink = make(**UPSERT)
        try:
            sink.open([("t", 0)])
            for first in range(0, len(rows), step):
                sink.put([records(rows[first:first + step], topic="t", first=first)],
                         {("t", 0): min(first + step, len(rows))})
        except BaseException as error:
            troubles.append(error)

    threads = [threading.Thread(target=run, args=(step,)) for step in (300, 170, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not troubles
    found = pg.sql("SELECT id, at FROM t ORDER BY id", database=database)
    assert found == [(at % 50, at) for at in sorted(range(3950, 4000), key=lambda at: at % 50)]


def test_tombstones_delete(pg: Postgres, database: str, make: Make) -> None:
    sink = make(insert_mode="upsert", pk_fields="id", delete_enabled="true", auto_create="true")
    sink.open([("t", 0)])
    schema = pa.schema([pa.field("v", pa.int32())])
    sink.put([records([None], topic="t", keys=["gone before it came"], schema=schema)], {("t", 0): 1})
    sink.put([records([{"v": 1}, {"v": 2}, None, {"v": 4}, None, {"v": 6}], topic="t", first=1, schema=schema,
                      keys=["a", "b", "a", "c", "c", "c"])], {("t", 0): 7})
    assert pg.sql("SELECT id, v FROM t ORDER BY id", database=database) == [("b", 2), ("c", 6)]
    plain = make(**UPSERT, name="other")
    plain.open([("t", 0)])
    with pytest.raises(RecordsRefused) as refused:
        plain.put([records([{"id": "x"}, None], topic="t")], {("t", 0): 2})
    assert list(refused.value.reasons) == [1]
    assert "delete.enabled" in refused.value.reasons[1]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["x", "xy", "dead"]), st.integers(0, 99)),
                min_size=1, max_size=40), st.integers(1, 9))
def test_structures_that_alternate(pg: Postgres, changes: list[tuple[str, str, int]], step: int) -> None:
    """Whatever the order of two structures and of deletes, and wherever the polls are cut: as if one by one."""
    pg.sql("DROP TABLE IF EXISTS t")
    pg.sql("DROP TABLE IF EXISTS headrace_offsets")
    pg.sql("CREATE TABLE t (id text PRIMARY KEY, x int, y int)")
    config = {"connection": pg.dsn, "insert.mode": "upsert", "pk.fields": "id", "delete.enabled": "true"}
    sink = PostgresSink(PostgresSinkConfig.model_validate(config), project=Path(), name="n")
    kinds = {"x": pa.struct({"x": pa.int32()}), "xy": pa.struct({"x": pa.int32(), "y": pa.int32()}),
             "dead": pa.struct({"x": pa.int32()})}
    expected: dict[str, dict[str, int | None]] = {}
    for key, kind, value in changes:
        if kind == "dead":
            expected.pop(key, None)
        else:
            expected.setdefault(key, {"x": None, "y": None}).update(dict.fromkeys(kind, value))
    try:
        sink.open([("t", 0)])
        for first in range(0, len(changes), step):
            poll = changes[first:first + step]
            groups = []
            for kind in kinds:
                at = [i for i, change in enumerate(poll) if change[1] == kind]
                if at:
                    rows = [None if kind == "dead" else dict.fromkeys(kind, poll[i][2]) for i in at]
                    groups.append(records(rows, topic="t", first=first, keys=[poll[i][0] for i in at], index=at,
                                          schema=pa.schema(list(kinds[kind]))))
            sink.put(groups, {("t", 0): first + len(poll)})
        found = pg.sql("SELECT id, x, y FROM t")
    finally:
        sink.close()
    assert {row[0]: {"x": row[1], "y": row[2]} for row in found} == expected


def test_all_types(pg: Postgres, database: str, make: Make) -> None:
    utc = dt.UTC
    values: dict[str, tuple[pa.DataType, list[Any], str]] = {
        "i8": (pa.int8(), [-128, 127, None], "smallint"), "i16": (pa.int16(), [-32768, 32767, None], "smallint"),
        "i32": (pa.int32(), [-2**31, 2**31 - 1, None], "integer"),
        "i64": (pa.int64(), [-2**63, 2**63 - 1, None], "bigint"),
        "u64": (pa.uint64(), [0, 2**64 - 1, None], "numeric(20,0)"),
        "f32": (pa.float32(), [0.5, float("inf"), None], "real"),
        "f64": (pa.float64(), [0.1, -1e300, None], "double precision"),
        "yes": (pa.bool_(), [True, False, None], "boolean"),
        "text": (pa.string(), ["", 'quote " back\\slash, comma\nline\ttab é 漢 \\N \\.', None], "text"),
        "raw": (pa.binary(), [b"", b"\x00\xff\\x", None], "bytea"),
        "dec": (pa.decimal128(38, 4), [Decimal("1.5000"), Decimal("-99999999999999999.1234"), None], "numeric(38,4)"),
        "day": (pa.date32(), [dt.date(1, 1, 1), dt.date(9999, 12, 31), None], "date"),
        "clock": (pa.time32("ms"), [dt.time(0), dt.time(23, 59, 59, 999000), None], "time without time zone"),
        "at": (pa.timestamp("ms", "UTC"), [dt.datetime(1969, 12, 31, 23, 59, 59, 999000, utc),
                                           dt.datetime(2038, 1, 19, tzinfo=utc), None], "timestamp with time zone"),
        "local": (pa.timestamp("us"), [dt.datetime(2013, 1, 1, 5, 15, 0, 123456), dt.datetime(1, 1, 1), None],
                  "timestamp without time zone"),
        "list": (pa.list_(pa.int32()), [[1, None], [], None], "jsonb"),
        "struct": (pa.struct({"a": pa.string(), "b": pa.list_(pa.bool_())}),
                   [{"a": 'x"\n', "b": [True]}, {"a": None, "b": None}, None], "jsonb"),
        "map": (pa.map_(pa.string(), pa.float64()), [[("k", 1.5)], [], None], "jsonb"),
        "odd name\"; --": (pa.string(), ["a", "b", None], "text"),
    }
    as_json = {"map": lambda v: None if v is None else dict(v)}
    schema = pa.schema([pa.field("id", pa.int32(), nullable=False), *((n, t) for n, (t, _, _) in values.items())])
    rows = [{"id": at, **{name: some[at] for name, (_, some, _) in values.items()}} for at in range(3)]
    for mode in ("upsert", "insert"):
        sink = make(name=mode, **{**UPSERT, "insert_mode": mode, "table": mode})
        sink.open([("t", 0)])
        sink.put([records(rows, topic="t", schema=schema)], {("t", 0): 3})
        found = pg.sql(f"SELECT * FROM \"{mode}\" ORDER BY id", database=database)
        for at, name in enumerate(values, 1):
            expected = [as_json.get(name, lambda v: v)(value) for value in values[name][1]]
            assert [row[at] for row in found] == expected, name
        kinds = dict(pg.sql("SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attnum > 0 AND "
                            "attrelid = %s::regclass", f'"{mode}"', database=database))  # type: ignore[arg-type]
        assert {name: kinds[name] for name in values} == {name: kind for name, (_, _, kind) in values.items()}


def test_a_table_with_types_of_its_own(pg: Postgres, database: str, make: Make) -> None:
    pg.sql("CREATE TYPE mood AS ENUM ('sad', 'fine')", database=database)
    pg.sql("CREATE TABLE mine (ID uuid PRIMARY KEY, mood mood, n varchar(5) DEFAULT 'none', words text[], nums int[], "
           "exact double precision, twice int GENERATED ALWAYS AS (2) STORED, at serial, ip inet, j json)",
           database=database)
    some = str(uuid.uuid4())
    words = ['a"b', "c\\d", "e\nf", None, ""]
    row = {"Id": some, "mood": "fine", "words": words, "nums": [1, None], "exact": np.float32(0.1), "ip": "10.0.0.1",
           "j": '{"a": 1}'}
    schema = pa.schema({"Id": pa.string(), "mood": pa.string(), "words": pa.list_(pa.string()),
                        "nums": pa.list_(pa.int32()), "exact": pa.float32(), "ip": pa.string(), "j": pa.string()})
    sink = make(table="public.mine", insert_mode="upsert", pk_fields="Id")
    sink.open([("t", 0)])
    sink.put([records([row], topic="t", schema=schema)], {("t", 0): 1})
    found = pg.sql("SELECT id::text, mood::text, n, words, nums, exact, twice, at, host(ip), j FROM mine",
                   database=database)
    assert found == [(some, "fine", "none", words, [1, None], float(np.float32(0.1)), 2, 1, "10.0.0.1", {"a": 1})]


def test_evolution(pg: Postgres, database: str, make: Make) -> None:
    sink = make(**UPSERT)
    sink.open([("t", 0)])
    sink.put([records([{"id": 1, "a": 1}], topic="t")], {("t", 0): 1})
    wider = [records([{"id": 2, "a": 2, "b": "x", "none": None}], topic="t", first=1)]
    with pytest.raises(UserError, match=r"no column b(?s:.)*auto\.evolve"):
        sink.put(wider, {("t", 0): 2})
    evolving = make(**UPSERT, auto_evolve="true")
    evolving.open([("t", 0)])
    evolving.put(wider, {("t", 0): 2})
    sink.put([records([{"id": 1, "a": 3}], topic="t", first=2)], {("t", 0): 3})  # remembers the narrow table
    pg.sql("ALTER TABLE t DROP COLUMN b", database=database)
    evolving.put([records([{"id": 3, "a": 4, "b": "y"}], topic="t", first=3)], {("t", 0): 4})  # remembers the wide one
    assert pg.sql("SELECT id, a, b FROM t ORDER BY id", database=database) == [(1, 3, None), (2, 2, None), (3, 4, "y")]
    with pytest.raises(UserError, match=r"no table other(?s:.)*auto\.create"):
        make(table="other").put([records([{"a": 1}], topic="t", first=4)], {("t", 0): 5})


def test_a_schemaless_table(pg: Postgres, database: str, make: Make) -> None:
    """Records of one poll whose numbers and fields differ make one table that holds them all."""
    sink = make(**UPSERT)
    sink.open([("t", 0)])
    sink.put([records([{"id": 1, "n": 1, "none": None}], topic="t", index=[0]),
              records([{"id": 2, "n": 1.5, "more": "x"}], topic="t", index=[1])], {("t", 0): 2})
    assert pg.sql("SELECT id, n, more FROM t ORDER BY id", database=database) == [(1, 1.0, None), (2, 1.5, "x")]


def test_poison_rows_are_named(pg: Postgres, database: str, make: Make) -> None:
    pg.sql("CREATE TABLE t (id int PRIMARY KEY, small smallint NOT NULL, word varchar(4) CHECK (word <> 'evil'), "
           "once int UNIQUE)", database=database)
    rows: list[dict[str, Any]] = [{"id": at, "small": 1, "word": "good", "once": at} for at in range(2000)]
    bad = {3: {"small": None}, 700: {"small": 70_000}, 701: {"word": "too long"}, 1200: {"word": "evil"},
           1500: {"once": 1499}, 1999: {"word": "a\0b"}, 900: {"id": None}}
    for at, change in bad.items():
        rows[at] |= change
    for mode in ("upsert", "insert"):
        sink = make(name=mode, insert_mode=mode, pk_fields="id")
        sink.open([("t", 0)])
        with pytest.raises(RecordsRefused) as refused:
            sink.put([records(rows, topic="t")], {("t", 0): 2000})
        assert set(refused.value.reasons) == {900}  # a key that is null is seen before
        without = [at for at in range(2000) if at != 900]
        with pytest.raises(RecordsRefused) as refused:
            sink.put([records([rows[at] for at in without], topic="t", index=without)], {("t", 0): 2000})
        assert set(refused.value.reasons) == set(bad) - {900}
        said = refused.value.reasons
        assert "small" in said[3]
        assert "70000" in said[700]
        assert "4" in said[701]
        assert "check" in said[1200]
        assert "once" in said[1500]
        assert pg.sql("SELECT count(*) FROM t", database=database) == [(0,)], "nothing of a refused put is stored"
        rest = [at for at in range(2000) if at not in bad]
        sink.put([records([rows[at] for at in rest], topic="t", index=rest)], {("t", 0): 2000})
        assert pg.sql("SELECT count(*) FROM t", database=database) == [(len(rest),)]
        pg.sql("TRUNCATE t", database=database)


def test_the_database_goes_away_and_comes_back(pg: Postgres, database: str, make: Make) -> None:
    sink = make(**UPSERT)
    sink.open([("t", 0)])

    def poll(first: int) -> tuple[list[Records], dict[tuple[str, int], int]]:
        rows = [{"id": at} for at in range(first, first + 10)]
        return [records(rows, topic="t", first=first)], {("t", 0): first + 10}

    sink.put(*poll(0))
    for end in (pg.stop, pg.kill):
        end()
        for _ in range(2):
            with pytest.raises(Retriable):
                sink.put(*poll(10))
        with pytest.raises(Retriable):
            make().open([("t", 0)])
        pg.start()
        _until(lambda: sink.put(*poll(10)))
    pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'headrace to-pg'")
    _until(lambda: sink.put(*poll(20)))
    assert pg.sql("SELECT count(*), max(id) FROM t", database=database) == [(30, 29)]
    assert sink.open([("t", 0)]) == {("t", 0): 30}


def _until(work: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            work()
            return
        except Retriable:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_lost_commit(pg: Postgres, database: str, make: Make) -> None:
    """The connection is cut before, or behind, a COMMIT: nobody knows which, and the same put comes again."""
    with _cutting(pg.port) as (port, cuts):
        sink = make(connection=pg.dsn_of(database).replace(f":{pg.port}/", f":{port}/"), auto_create="true")
        sink.open([("t", 0)])
        expected: list[tuple[int]] = []
        for first, cut in enumerate(["behind", "before", "behind"]):
            poll = [records([{"id": first}], topic="t", first=first)], {("t", 0): first + 1}
            cuts.append(cut)
            with pytest.raises(Retriable):
                sink.put(*poll)
            assert not cuts
            expected += [(first,)] if cut == "behind" else []
            _until(lambda expected=expected: _holds(  # type: ignore[misc]
                pg.sql("SELECT id FROM t ORDER BY id", database=database) == expected))
            sink.put(*poll)
            expected = [(at,) for at in range(first + 1)]
            assert pg.sql("SELECT id FROM t ORDER BY id", database=database) == expected
        sink.close()


def _holds(what: bool) -> None:
    if not what:
        raise Retriable("not yet", retry_after_s=0.1)


@contextlib.contextmanager
def _cutting(port: int) -> Iterator[tuple[int, list[str]]]:
    """A way to the server that cuts a connection when a COMMIT passes: before it, or behind, for each cut asked."""
    cuts: list[str] = []

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                if server in ready:
                    data = server.recv(1 << 16)
                    if not data:
                        return
                    client.sendall(data)
                if client in ready:
                    data = client.recv(1 << 16)
                    if not data:
                        return
                    cut = cuts.pop() if b"COMMIT" in data and cuts else None
                    if cut == "before":
                        return
                    server.sendall(data)
                    if cut == "behind":
                        server.recv(1 << 16)  # it is done
                        return

    def listen() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen)
        thread.start()
        yield listener.getsockname()[1], cuts
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_who_holds_the_rows_is_waited_for(pg: Postgres, database: str, make: Make) -> None:
    """A deadlock with another program: Retriable, and well the next time."""
    pg.sql("CREATE TABLE t (id int PRIMARY KEY, v int)", database=database)
    pg.sql("INSERT INTO t VALUES (1, 0), (2, 0)", database=database)
    sink = make(insert_mode="upsert", pk_fields="id")
    sink.open([("t", 0)])
    failed: list[BaseException] = []

    def put() -> None:
        try:
            sink.put([records([{"id": 1, "v": 1}, {"id": 2, "v": 1}], topic="t")], {("t", 0): 2})
        except BaseException as error:
            failed.append(error)

    with psycopg.connect(pg.dsn_of(database)) as other:
        other.execute("SET deadlock_timeout='10s'")
        other.execute("UPDATE t SET v = 9 WHERE id = 2")
        thread = threading.Thread(target=put)
        thread.start()
        time.sleep(0.5)
        other.execute("UPDATE t SET v = 9 WHERE id = 1")  # the put holds it, and waits for 2
        other.commit()
        thread.join()
    assert [type(error) for error in failed] == [Retriable]
    put()
    assert pg.sql("SELECT id, v FROM t ORDER BY id", database=database) == [(1, 1), (2, 1)]


def test_a_topic_that_a_transform_renamed(pg: Postgres, database: str, make: Make) -> None:
    sink = make(auto_create="true")
    sink.open([("a", 0), ("b", 0)])
    renamed = [records([{"v": 1}, {"v": 2}], topic="both")]
    sink.put(renamed, {("a", 0): 2})  # one topic in the poll: it is that
    sink.put(renamed, {("a", 0): 2})
    sink.put([records([{"v": 3}], topic="both", first=2)], {("a", 0): 3, ("b", 0): 0})
    with pytest.raises(Retriable, match="may be stored already"):
        sink.put([records([{"v": 3}], topic="both", first=2)], {("a", 0): 3, ("b", 0): 0})
    assert pg.sql("SELECT v FROM both ORDER BY v".replace("both", '"both"'), database=database) == [(1,), (2,), (3,)]


def test_offsets_are_altered(make: Make) -> None:
    sink = make(auto_create="true")
    sink.open([("t", 0), ("t", 1)])
    sink.put([], {("t", 0): 7, ("t", 1): 8})
    sink.alter({("t", 0): 3, ("t", 1): None, ("t", 2): 5})
    assert sink.open([("t", 0), ("t", 1), ("t", 2)]) == {("t", 0): 3, ("t", 2): 5}


def test_errors_say_what_and_hide_the_password(pg: Postgres, database: str, make: Make) -> None:
    wrong = {"a wrong password": (f"postgresql://postgres:s3cret-x@127.0.0.1:{pg.port}/{database}", UserError),
             "no such database": (pg.dsn_of("nowhere"), UserError),
             "no such user": (f"postgresql://nobody:s3cret-x@127.0.0.1:{pg.port}/{database}", UserError),
             "no DSN": ("postgresql//postgres:s3cret-x@host", UserError),
             "no server": ("postgresql://postgres:s3cret-x@127.0.0.1:1/x", Retriable)}
    for what, (dsn, kind) in wrong.items():
        with pytest.raises(kind) as error:
            make(connection=dsn).open([("t", 0)])
        assert "s3cret-x" not in str(error.value), what
        assert pg.password not in str(error.value), what
        assert "s3cret-x" not in repr(make(connection=dsn).config), what
    sink = make(auto_create="true")
    sink.open([("t", 0)])
    bare = records([{"a": 1}], topic="t").but(value=Column(pa.array(["text"])))
    with pytest.raises(UserError, match=r"value\.converter"):
        sink.put([bare], {("t", 0): 1})


@pytest.mark.parametrize(("keys", "said"), [
    ({"delete.enabled": "true"}, "insert.mode=upsert"), ({"insert.mode": "update"}, "insert"),
    ({"insert.mode": "upsert", "pk.mode": "none"}, "needs a key"), ({"pk.mode": "record_value"}, "pk.fields"),
    ({"insert.mode": "upsert", "pk.mode": "record_value", "pk.fields": "a", "delete.enabled": "true"}, "record_key"),
    ({"tabel": "x"}, "tabel")])
def test_keys_that_do_not_go_together(keys: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PostgresSinkConfig.model_validate({"connection": "postgresql://", **keys})
