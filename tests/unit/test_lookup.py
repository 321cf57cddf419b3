"""lookup: what a table says is added to each row, as a dictionary kept beside would say it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.batch import Batch, Frames, Meta
from headrace.errors import SchemaError, UserError
from headrace.joining.table import Table
from headrace.keying import Keys
from headrace.processor import Context
from headrace.processors.lookup import Lookup, LookupConfig
from headrace.testing import Record

pytestmark = pytest.mark.unit
ROWS = pa.schema([pa.field("tailnum", pa.string()), pa.field("at", pa.timestamp("ms", "UTC")),
                  pa.field("n", pa.int64())])
PLANES = "tailnum,year,seats\nN1,1999,150\nN2,NA,200\n"
T0 = datetime(2013, 1, 1, tzinfo=UTC)


def batch(rows: Sequence[dict[str, Any]], schema: pa.Schema = ROWS) -> Batch:
    messages = [Record(None, "flights", 0, at) for at in range(len(rows))]
    return Batch(pa.RecordBatch.from_pylist(list(rows), schema=schema), Meta(Frames(messages, "flights")))


def opened(project: Path, rows: pa.Schema = ROWS, **config: Any) -> tuple[Lookup, Context]:
    step = Lookup(Lookup.Config.model_validate(config), project=project)
    step.outputs(rows)
    context = Context("flow", "plane", project)
    step.open(context)
    return step, context


def looked_up(project: Path, rows: Sequence[dict[str, Any]], shape: pa.Schema = ROWS,
              **config: Any) -> dict[str, list[dict[str, Any]]]:
    step, context = opened(project, shape, **config)
    return {name: out.rows.to_pylist() for name, out in step.process(batch(rows, shape), context).items()}


def flight(tailnum: str | None, n: int = 0, at: datetime | None = None) -> dict[str, Any]:
    return {"tailnum": tailnum, "at": at, "n": n}


FLIGHTS = [flight("N2", 0), flight("N9", 1), flight(None, 2), flight("N1", 3), flight("N2", 4)]


def write_planes(folder: Path, form: str) -> str:
    rows = [{"tailnum": "N1", "year": 1999, "seats": 150}, {"tailnum": "N2", "year": None, "seats": 200}]
    path = folder / f"planes.{form}"
    match form:
        case "csv":
            path.write_text(PLANES)
        case "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)) + "\n")
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
    return path.name


def write_schema(folder: Path) -> None:
    (folder / "schemas").mkdir(exist_ok=True)
    (folder / "schemas/plane.avsc").write_text(json.dumps({"type": "record", "name": "plane", "fields": [
        {"name": "tailnum", "type": "string"}, {"name": "year", "type": ["null", "int"]},
        {"name": "seats", "type": "int"}]}))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_file_of_every_format(tmp_path: Path, form: str, declared: bool) -> None:
    write_schema(tmp_path)
    more = {"schema": "plane"} if declared else {}
    out = looked_up(tmp_path, FLIGHTS, file=write_planes(tmp_path, form), key="tailnum", **more)
    assert [(r["n"], r["year"], r["seats"]) for r in out["success"]] == [
        (0, None, 200), (1, None, None), (2, None, None), (3, 1999, 150), (4, None, 200)]


def test_what_is_missing_is_routed_as_it_came(tmp_path: Path) -> None:
    out = looked_up(tmp_path, FLIGHTS, file=write_planes(tmp_path, "csv"), key="tailnum", missing="route",
                    take={"made": "year"})
    assert out["missing"] == [FLIGHTS[1], FLIGHTS[2]]
    assert [(r["n"], r["made"]) for r in out["success"]] == [(0, None), (3, 1999), (4, None)]
    assert LookupConfig.model_validate({"file": "x", "key": "k", "missing": None}).missing == "null"


def test_several_key_columns_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "weather.csv").write_text("station,hour,temp\nJFK,1,39.0\nJFK,2,38.5\nEWR,1,40.0\n")
    schema = pa.schema([pa.field("origin", pa.string()), pa.field("hour", pa.int32())])
    rows = [{"origin": "JFK", "hour": 2}, {"origin": "EWR", "hour": 2}, {"origin": "EWR", "hour": 1}]
    out = looked_up(tmp_path, rows, schema, file="weather.csv", key=["station", "hour"], on=["origin", "hour"])
    assert [r["temp"] for r in out["success"]] == [38.5, None, 40.0]


def test_as_of_is_the_latest_before(tmp_path: Path) -> None:
    lines = ["station,seen,temp", *(f"{s},{(T0 + timedelta(hours=h)).isoformat()},{t}" for s, h, t in
                                    [("JFK", 3, 3.0), ("JFK", 0, 0.0), ("EWR", 1, 1.0)])]
    (tmp_path / "weather.csv").write_text("\n".join(lines) + "\n")
    rows = [flight("JFK", n, T0 + timedelta(minutes=m)) for n, m in enumerate([180, 179, 121, 0, -1])]
    out = looked_up(tmp_path, [*rows, flight("EWR", 5, T0), flight("JFK", 6, None), flight("LGA", 7, T0)],
                    file="weather.csv", key="station", on="tailnum", take=["temp"],
                    as_of={"left": "at", "right": "seen", "within": "2h"})
    assert [r["temp"] for r in out["success"]] == [3.0, None, None, 0.0, None, None, None, None]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=12),
       st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 25)), min_size=1, max_size=12),
       st.one_of(st.none(), st.integers(0, 8)))
def test_as_of_by_brute_force(table: list[tuple[str, int]], asked: list[tuple[str, int]], within: int | None) -> None:
    shape = pa.schema([pa.field("key", pa.string()), pa.field("ms", pa.int64())])
    held = Table(shape, ["key"], "ms")
    rows = [{"key": k, "ms": ms} for k, ms in table]
    held.put([str(n).encode() for n in range(len(rows))], pa.RecordBatch.from_pylist(rows, schema=shape))
    keys = Keys(["key"], shape).of(pa.RecordBatch.from_pylist([{"key": k} for k, _ in asked], schema=shape))
    found = held.find_as_of(keys, np.array([ms for _, ms in asked], dtype=np.int64), within)
    got = [None if at < 0 else (table[at][0], table[at][1]) for at in found.tolist()]
    wanted = [max(((k, ms) for k, ms in table if k == key and ms <= then and (within is None or then - ms <= within)),
                  key=lambda each: each[1], default=None) for key, then in asked]
    assert got == wanted


@given(st.lists(st.lists(st.tuples(st.sampled_from("uvwxyz"), st.one_of(st.none(), st.integers(0, 3))), max_size=6,
                         unique_by=lambda change: change[0]), max_size=8))
def test_a_table_that_changes_is_a_dictionary(changes: list[list[tuple[str, int | None]]]) -> None:
    """Ids come, change the key they are found by, and go; of several of a key the last put counts."""
    shape = pa.schema([pa.field("key", pa.int64()), pa.field("stamp", pa.int64())])
    table, last = Table(shape, ["key"]), dict[str, tuple[int, int]]()
    for stamp, change in enumerate(changes):
        rows = [{"key": key, "stamp": stamp * 10 + at} for at, (_, key) in enumerate(change) if key is not None]
        ids = [name.encode() for name, key in change if key is not None]
        table.put(ids, pa.RecordBatch.from_pylist(rows, schema=shape), [n.encode() for n, k in change if k is None])
        for at, (name, key) in enumerate(change):
            last.pop(name, None)
            if key is not None:
                last[name] = (key, stamp * 10 + at)
        if stamp % 3 == 2:
            table._compact()
    keys = Keys(["key"], shape).of(pa.RecordBatch.from_pylist([{"key": k} for k in range(4)], schema=shape))
    stamps = table.rows.column("stamp").to_pylist()
    got = [None if at < 0 else stamps[at] for at in table.find(keys).tolist()]
    assert len(table) == len(last)
    assert got == [max((s for k, s in last.values() if k == key), default=None) for key in range(4)]


def test_a_file_that_changes_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("headrace.joining.follow.LOOK_S", 0.0)
    name = write_planes(tmp_path, "csv")
    step, context = opened(tmp_path, file=name, key="tailnum", take=["seats"])

    def seats() -> list[Any]:
        made = step.process(batch([flight("N1"), flight("N3")]), context)["success"].rows
        return list(made.column("seats").to_pylist())

    assert seats() == [150, None]
    (tmp_path / name).write_text("tailnum,year,seats\nN1,1999,151\nN3,2001,30\n")
    assert seats() == [151, 30]
    (tmp_path / name).write_text("tailnum,year,seats\nN1,1999,many\n")  # not what it was at lint: left as it was
    with caplog.at_level(logging.WARNING, "headrace.lookup"):
        assert seats() == [151, 30]
    assert "left as it was" in caplog.text
    os.remove(tmp_path / name)
    assert seats() == [151, 30]


@pytest.mark.parametrize(("config", "said"), [
    ({"key": "nowhere"}, "`key` names “nowhere”"), ({"key": "tailnum", "on": "nowhere"}, "`on` names “nowhere”"),
    ({"key": "year", "on": "tailnum"}, "compares tailnum, which is string, with year"),
    ({"key": "tailnum", "take": ["wings"]}, "no column there"), ({"key": "seats", "on": "n"}, "suffix: _right"),
    ({"key": "tailnum", "take": {"n": "seats"}}, "both sides have a column “n”"),
    ({"key": "tailnum", "as_of": {"left": "at", "right": "tailnum"}}, "must be a timestamp")])
def test_what_does_not_fit_is_said_at_lint(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        opened(tmp_path, file=write_planes(tmp_path, "csv"), **config)


def test_a_file_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        opened(tmp_path, file="planes.csv", key="tailnum")
    (tmp_path / "twice.csv").write_text("tailnum,seats\nN1,1\nN2,2\nN1,3\n")
    with pytest.raises(UserError, match="more than one row for tailnum N1"):
        opened(tmp_path, file="twice.csv", key="tailnum")
    write_schema(tmp_path)
    (tmp_path / "planes.csv").write_text(PLANES + "N3,2000,many\n")
    with pytest.raises(UserError, match=r"planes\.csv:4: "):
        opened(tmp_path, file="planes.csv", schema="plane", key="tailnum")
    (tmp_path / "bare.csv").write_text("tailnum,year\nN1,1\n")
    with pytest.raises(SchemaError, match="seats"):
        opened(tmp_path, file="bare.csv", schema="plane", key="tailnum")
    with pytest.raises(UserError, match="its bound is 1"):
        opened(tmp_path, file=write_planes(tmp_path, "csv"), key="tailnum", rows_max=1)


@pytest.mark.parametrize(("config", "said"), [
    ({"key": "a"}, "in a `topic` or in a `file`"), ({"topic": "t", "key": "a"}, "needs its `schema`"),
    ({"file": "f", "sample": "g", "key": "a"}, "stands for a topic"),
    ({"file": "f", "key": ["a", "b"], "on": "c"}, "as many columns"),
    ({"file": "f", "key": "a", "take": {"x": "y"}, "suffix": "_z"}, "renames columns")])
def test_settings_that_do_not_fit_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Lookup.Config.model_validate(config)


def test_a_large_batch_equals_polars(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    planes = pl.DataFrame({"tailnum": [f"N{n}" for n in range(3_000)], "seats": rng.integers(2, 400, 3_000)})
    planes.write_parquet(tmp_path / "planes.parquet")
    flights = pl.DataFrame({"tailnum": [f"N{n}" for n in rng.integers(0, 4_000, 20_000)], "n": np.arange(20_000)})
    out = looked_up(tmp_path, [{**row, "at": None} for row in flights.to_dicts()], file="planes.parquet", key="tailnum")
    wanted = flights.join(planes, on="tailnum", how="left", maintain_order="left")
    assert [r["seats"] for r in out["success"]] == wanted["seats"].to_list()
