"""The Delta Lake sink on real tables in folders."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from headrace.connector import RecordsRefused
from headrace.connectors.deltalake import DeltalakeSink, DeltaSinkConfig
from headrace.errors import Retriable, UserError
from tests.unit.sinkkit import records

pytestmark = pytest.mark.unit
Make = Callable[..., DeltalakeSink]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def sink(name: str = "to-delta", **keys: str) -> DeltalakeSink:
        given = {"table": "lake/${topic}", **{key.replace("_", "."): value for key, value in keys.items()}}
        return DeltalakeSink(DeltaSinkConfig.model_validate(given), project=tmp_path, name=name)

    return sink


def rows(folder: Path, by: str = "a") -> list[dict[str, Any]]:
    found = pa.table(DeltaTable(folder).to_pyarrow_table())
    return found.sort_by(by).to_pylist()  # type: ignore[no-any-return]


def test_appends_and_goes_on(tmp_path: Path, make: Make) -> None:
    sink = make()
    assert sink.open([("t", 0), ("t", 1)]) == {}
    sink.put([records([{"a": 1}, {"a": 2}], topic="t"), records([{"a": 3}], topic="t", partition=1, first=5)],
             {("t", 0): 2, ("t", 1): 6})
    sink.put([records([{"a": 4}], topic="t", first=2)], {("t", 0): 3})
    assert rows(tmp_path / "lake/t") == [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}]
    assert make().open([("t", 0), ("t", 1), ("t", 2), ("u", 0)]) == {("t", 0): 3, ("t", 1): 6}
    assert make(name="another").open([("t", 0)]) == {}


def test_repeated_puts_and_zombies(tmp_path: Path, make: Make) -> None:
    old, new = make(), make()
    all_rows = [{"a": at} for at in range(100)]

    def put(sink: DeltalakeSink, first: int, end: int) -> None:
        sink.put([records(all_rows[first:end], topic="t", first=first)], {("t", 0): end})

    for sink in (old, new):
        sink.open([("t", 0)])
    put(old, 0, 10)
    put(new, 0, 10)  # it had seen no table
    put(new, 10, 30)
    put(old, 10, 20)  # behind
    put(old, 20, 50)  # half
    put(new, 30, 60)
    put(new, 60, 100)
    put(new, 60, 100)
    assert rows(tmp_path / "lake/t") == all_rows
    assert make().open([("t", 0)]) == {("t", 0): 100}


def test_tasks_at_once(tmp_path: Path, make: Make) -> None:
    """Three on the same partition, each with cuts of its own, and one on another partition of the same table."""
    troubles: list[BaseException] = []

    def run(step: int, partition: int) -> None:
        sink, first = make(), 0
        sink.open([("t", partition)])
        while first < 400:
            end = min(first + step, 400)
            values = [{"a": partition * 1000 + at} for at in range(first, end)]
            try:
                sink.put([records(values, topic="t", first=first, partition=partition)], {("t", partition): end})
                first = end
            except Retriable:
                continue
            except BaseException as error:
                troubles.append(error)
                return

    threads = [threading.Thread(target=run, args=given) for given in ((50, 0), (80, 0), (130, 0), (100, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not troubles
    assert [row["a"] for row in rows(tmp_path / "lake/t")] == [*range(400), *range(1000, 1400)]


def test_new_columns_are_merged(tmp_path: Path, make: Make) -> None:
    sink = make()
    sink.open([("t", 0)])
    sink.put([records([{"a": 1, "none": None}], topic="t")], {("t", 0): 1})
    narrow = make(auto_evolve="false")
    narrow.open([("t", 0)])
    wider = [records([{"a": 2, "b": "x"}], topic="t", first=1)]
    with pytest.raises(UserError, match=r"no column b(?s:.)*auto\.evolve"):
        narrow.put(wider, {("t", 0): 2})
    sink.put(wider, {("t", 0): 2})
    narrow.put([records([{"a": 3}], topic="t", first=2)], {("t", 0): 3})
    sink.put([records([{"a": 4, "n": 1}], topic="t", first=3, index=[0]),
              records([{"n": 1.5, "a": 5}], topic="t", first=3, index=[1])], {("t", 0): 5})
    assert rows(tmp_path / "lake/t") == [
        {"a": 1, "b": None, "n": None}, {"a": 2, "b": "x", "n": None}, {"a": 3, "b": None, "n": None},
        {"a": 4, "b": None, "n": 1.0}, {"a": 5, "b": None, "n": 1.5}]


def test_types(tmp_path: Path, make: Make) -> None:
    utc = dt.UTC
    values: dict[str, tuple[pa.DataType, Any, Any]] = {
        "i8": (pa.int8(), -128, -128), "i64": (pa.int64(), 2**63 - 1, 2**63 - 1), "u8": (pa.uint8(), 255, 255),
        "u64": (pa.uint64(), 2**64 - 1, Decimal(2**64 - 1)), "f32": (pa.float32(), 0.5, 0.5),
        "f64": (pa.float64(), 0.1, 0.1), "yes": (pa.bool_(), True, True), "text": (pa.string(), "é\n\"", "é\n\""),
        "raw": (pa.binary(), b"\0\xff", b"\0\xff"), "fixed": (pa.binary(2), b"ab", b"ab"),
        "dec": (pa.decimal128(38, 4), Decimal("1.5000"), Decimal("1.5000")),
        "day": (pa.date32(), *2 * [dt.date(1, 1, 1)]),
        "clock": (pa.time32("ms"), dt.time(1, 2, 3), "01:02:03.000"),
        "at": (pa.timestamp("ms", "UTC"), *2 * [dt.datetime(2020, 1, 1, tzinfo=utc)]),
        "local": (pa.timestamp("ms"), *2 * [dt.datetime(2020, 1, 1)]),
        "list": (pa.list_(pa.field("item", pa.time32("ms"), nullable=False)), [dt.time(1)], ["01:00:00.000"]),
        "struct": (pa.struct([pa.field("a", pa.uint16(), nullable=False)]), {"a": 7}, {"a": 7}),
        "map": (pa.map_(pa.string(), pa.int32()), [("k", 1)], [("k", 1)])}
    schema = pa.schema([pa.field("id", pa.int32(), nullable=False), *((n, t) for n, (t, _, _) in values.items())])
    sink = make()
    sink.open([("t", 0)])
    given = [{"id": 1, **{name: value for name, (_, value, _) in values.items()}}, {"id": 2}]
    sink.put([records(given, topic="t", schema=schema)], {("t", 0): 2})
    sink.put([records(given, topic="t", schema=schema, first=2)], {("t", 0): 4})
    full, bare = rows(tmp_path / "lake/t", "id")[::2]
    assert full == {"id": 1, **{name: value for name, (_, _, value) in values.items()}}
    assert bare == {"id": 2, **dict.fromkeys(values)}


def test_partitioned(tmp_path: Path, make: Make) -> None:
    sink = make(partition_by="day, carrier")
    sink.open([("t", 0)])
    given = [{"a": at, "day": dt.date(2013, 1, 1 + at % 2), "carrier": "AA"} for at in range(10)]
    for first in (0, 5):
        sink.put([records(given[first:first + 5], topic="t", first=first)], {("t", 0): first + 5})
    assert (tmp_path / "lake/t/day=2013-01-01/carrier=AA").is_dir()
    assert rows(tmp_path / "lake/t") == given
    other = make(table="other", partition_by="nothing")
    other.open([("t", 0)])
    with pytest.raises(UserError, match="no field nothing"):
        other.put([records(given, topic="t")], {("t", 0): 10})


def test_rows_that_do_not_fit_are_named(tmp_path: Path, make: Make) -> None:
    schema = pa.schema([pa.field("a", pa.int32(), nullable=False), pa.field("s", pa.int32())])
    DeltaTable.create(tmp_path / "lake/t", schema)
    sink = make()
    sink.open([("t", 0)])
    given: list[dict[str, Any]] = [{"a": at, "s": at} for at in range(100)]
    given[7]["a"], given[50]["s"], given[99]["s"] = None, 2**40, -2**40
    with pytest.raises(RecordsRefused) as refused:
        sink.put([records(given, topic="t")], {("t", 0): 100})
    assert set(refused.value.reasons) == {7, 50, 99}
    assert "NOT NULL" in refused.value.reasons[7]
    assert str(2**40) in refused.value.reasons[50]
    with pytest.raises(RecordsRefused, match="1 records"):
        sink.put([records([{"a": 1}, None], topic="t")], {("t", 0): 100})
    assert rows(tmp_path / "lake/t") == []
    keep = [at for at in range(100) if at not in (7, 50, 99)]
    sink.put([records([given[at] for at in keep], topic="t", index=keep)], {("t", 0): 100})
    assert [row["a"] for row in rows(tmp_path / "lake/t")] == keep


def test_several_topics_and_renamed_ones(tmp_path: Path, make: Make) -> None:
    sink = make()
    places = [("t", 0), ("u", 0)]
    sink.open(places)
    poll = [records([{"a": 1}], topic="t", index=[0]), records([{"a": 2}], topic="u", index=[1])]
    sink.put(poll, {("t", 0): 1, ("u", 0): 2})
    renamed = [records([{"a": 3}], topic="v", first=1)]  # of t, as a transform has it
    for _ in range(2):
        sink.put(renamed, {("t", 0): 2})
    assert rows(tmp_path / "lake/t") == [{"a": 1}]
    assert rows(tmp_path / "lake/v") == [{"a": 3}]
    again = make()
    found = again.open(places)
    assert found[("u", 0)] == 2
    assert found[("t", 0)] == 1  # its own table had no rows of that put; v knows
    again.put(renamed, {("t", 0): 2})
    assert rows(tmp_path / "lake/v") == [{"a": 3}]


def test_offsets_alone_and_altered(make: Make) -> None:
    sink = make()
    sink.open([("t", 0)])
    sink.put([], {("t", 0): 5})
    assert sink.open([("t", 0)]) == {}  # no table yet, and nothing to put into one
    sink.put([records([{"a": 1}], topic="t", first=5)], {("t", 0): 6})
    sink._told_s.clear()
    sink.put([], {("t", 0): 9})
    sink.put([], {("t", 0): 10})  # too soon for another commit
    assert make().open([("t", 0)]) == {("t", 0): 9}
    sink.alter({("t", 0): 3})
    assert make().open([("t", 0)]) == {("t", 0): 3}
    sink.alter({("t", 0): None})
    assert make().open([("t", 0)]) == {}
    with pytest.raises(UserError, match="no Delta table"):
        sink.alter({("nowhere", 0): 1})


def test_errors(tmp_path: Path, make: Make) -> None:
    sink = make(auto_create="false")
    sink.open([("t", 0)])
    with pytest.raises(UserError, match=r"auto\.create"):
        sink.put([records([{"a": 1}], topic="t")], {("t", 0): 1})
    with pytest.raises(ValueError, match="JSON object"):
        make(storage_options="AWS_KEY=hidden")
    assert "hidden" not in repr(make(storage_options='{"AWS_KEY": "hidden"}').config)
    (tmp_path / "lake/t/_delta_log").mkdir(parents=True)
    (tmp_path / "lake/t/_delta_log/00000000000000000000.json").write_text("no JSON\n")
    with pytest.raises(UserError, match="lake/t"):
        make().open([("t", 0)])
    with pytest.raises(UserError, match=r"value\.converter"):
        make().put([records(pa.array(["text"]), topic="u")], {("u", 0): 1})


def test_a_large_poll_is_one_commit(tmp_path: Path, make: Make) -> None:
    sink = make()
    sink.open([("t", 0)])
    n = 100_000
    values = pa.table({"a": np.arange(n), "b": np.arange(n) % 7}).to_struct_array().combine_chunks()
    sink.put([records(values, topic="t")], {("t", 0): n})
    table = DeltaTable(tmp_path / "lake/t")
    assert table.version() == 1  # made, and filled
    assert table.count() == n
