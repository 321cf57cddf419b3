"""The file sink: parts of a folder and one file that grows, each record once whatever is cut off."""

from __future__ import annotations

import csv
import datetime as dt
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import codec
from headrace.connector import RecordsRefused
from headrace.errors import UserError
from headrace.files.sink import FileSink, FileSinkConfig
from headrace.ingest import open_reader
from headrace.records import Column
from headrace.records.converters.avro_schema import shape_from
from tests.unit.sinkkit import records

pytestmark = pytest.mark.unit
Make = Callable[..., FileSink]
ROWS: list[dict[str, Any]] = [{"a": at, "s": f"row, {at}\n\"é\""} for at in range(20)]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def sink(connector: str = "to-file", **keys: str) -> FileSink:
        return FileSink(FileSinkConfig.model_validate(keys), project=tmp_path, name=connector)

    return sink


def read(path: Path) -> list[dict[str, Any]]:
    """A part's rows, by someone else's reader."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".avro":
        with path.open("rb") as stream:
            return list(fastavro.reader(stream))  # type: ignore[arg-type]
    if path.suffix == ".csv":
        with path.open(newline="") as text:
            return [{**row, "a": int(row["a"])} for row in csv.DictReader(text)]
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet", "avro"])
def test_parts(tmp_path: Path, make: Make, format: str) -> None:
    sink = make(folder="out", format=format)
    assert sink.open([("t.x", 0), ("t.x", 1)]) == {}
    both = pa.concat_arrays([pa.array(ROWS[:3]), pa.array(ROWS[10:12])])
    poll = records(both, topic="t.x", first=100)
    poll = poll.but(partitions=(poll.index >= 3).astype(int))
    sink.put([poll], {("t.x", 0): 103, ("t.x", 1): 107})
    sink.put([records(ROWS[3:10], topic="t.x", first=104)], {("t.x", 0): 111})
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob(f"*.{format}"))
    assert found == [f"out/t.x/0/{100:019}-{103:019}.{format}", f"out/t.x/0/{103:019}-{111:019}.{format}",
                     f"out/t.x/1/{103:019}-{107:019}.{format}"]
    assert [row for name in found for row in read(tmp_path / name)] == ROWS[:12]
    again = make(folder="out", format=format, connector="whoever")
    assert again.open([("t.x", 0), ("t.x", 1), ("t.x", 2)]) == {("t.x", 0): 111, ("t.x", 1): 107}


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet", "avro"])
def test_our_own_source_reads_them(tmp_path: Path, make: Make, format: str) -> None:
    schema = codec.parse(json.dumps({"type": "record", "name": "r", "namespace": "of", "fields": [
        {"name": "n", "type": ["null", "long"]}, {"name": "x", "type": "double"}, {"name": "s", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}}, {"name": "raw", "type": "bytes"},
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "l", "type": {"type": "array", "items": "int"}},
        {"name": "m", "type": {"type": "map", "values": "string"}},
        {"name": "r2", "type": {"type": "record", "name": "r2", "fields": [{"name": "b", "type": "boolean"}]}}]}))
    given = [{"n": None, "x": 1.0, "s": "é\"\\\n,", "at": dt.datetime(2013, 1, 1, 5, 15, tzinfo=dt.UTC),
              "day": dt.date(2013, 1, 1), "raw": b"\x00\xff\"", "d": 12, "l": [1, 2], "m": {"k": "v"},
              "r2": {"b": True}},
             {"n": 2**60, "x": -1e300, "s": "x", "at": dt.datetime(1969, 1, 1, tzinfo=dt.UTC),
              "day": dt.date(1, 1, 1), "raw": b"", "d": -7, "l": [], "m": {}, "r2": {"b": False}}]
    rows = pa.Table.from_pylist([{**row, "m": list(row["m"].items())} for row in given], schema.arrow)  # type: ignore
    sink = make(folder="out", format=format)
    sink.open([("t", 0)])
    values = rows.to_struct_array().combine_chunks()
    named = Column(values, shape_from(schema))
    sink.put([records(values, topic="t").but(value=named)], {("t", 0): 2})
    reader = open_reader(next((tmp_path / "out").rglob(f"*.{format}")), schema)
    piece = reader.read(10)
    reader.close()
    assert piece is not None
    assert not piece.bad
    assert piece.rows.to_pylist() == rows.to_pylist()


def test_parts_are_put_once(tmp_path: Path, make: Make) -> None:
    """Two tasks that both believe a partition to be theirs, with cuts of their own."""
    old, new = make(folder="out"), make(folder="out")

    def put(sink: FileSink, first: int, end: int) -> None:
        sink.put([records(ROWS[first:end], topic="t", first=first)], {("t", 0): end})

    for sink in (old, new):
        sink.open([("t", 0)])
    put(old, 0, 5)
    put(new, 5, 10)
    put(old, 3, 8)
    put(old, 8, 12)
    put(new, 10, 20)
    put(new, 10, 20)
    parts = sorted((tmp_path / "out/t/0").glob("*.jsonl"))
    assert [row for part in parts for row in read(part)] == ROWS
    assert [tuple(map(int, part.stem.split("-"))) for part in parts] == [(0, 5), (5, 10), (10, 12), (12, 20)]


def test_what_was_not_finished_is_removed(tmp_path: Path, make: Make) -> None:
    sink = make(folder="out", format="parquet")
    sink.open([("t", 0)])
    sink.put([records(ROWS[:5], topic="t")], {("t", 0): 5})
    folder = tmp_path / "out/t/0"
    (folder / ".tmp-1-0000000000000000005-0000000000000000009.parquet").write_bytes(b"PAR1 half")
    assert make(folder="out", format="parquet").open([("t", 0)]) == {("t", 0): 5}
    assert [path.name for path in folder.glob("*") if path.suffix == ".parquet"] == [f"{0:019}-{5:019}.parquet"]


def test_parts_of_changing_structures(tmp_path: Path, make: Make) -> None:
    sink = make(folder="out", format="parquet")
    sink.open([("t", 0)])
    sink.put([records([{"a": 1}, {"a": 3}], topic="t", index=[0, 2]),
              records([{"a": 2.5, "b": "x"}], topic="t", index=[1])], {("t", 0): 3})  # one type holds them all
    structures: list[list[dict[str, Any]]] = [[{"a": 4}], [{"a": "text"}], [{"a": [1]}]]
    sink.put([records(structures[at], topic="t", first=3, index=[at]) for at in (1, 0, 2)], {("t", 0): 9})
    parts = {tuple(map(int, part.stem.split("-"))): read(part) for part in (tmp_path / "out/t/0").glob("*.parquet")}
    assert parts == {(0, 3): [{"a": 1.0, "b": None}, {"a": 2.5, "b": "x"}, {"a": 3.0, "b": None}],
                     (3, 4): [{"a": 4}], (4, 5): [{"a": "text"}], (5, 9): [{"a": [1]}]}


@pytest.mark.parametrize("name", ["out.txt", "out.jsonl", "out.csv", "deep/er/out"])
def test_one_file(tmp_path: Path, make: Make, name: str) -> None:
    sink = make(file=name)
    assert sink.open([("t", 0), ("t", 1)]) == {}
    sink.put([records([{"a": 1}], topic="t", index=[1]), records([{"a": 0}], topic="t", partition=1, index=[0])],
             {("t", 0): 2, ("t", 1): 1})
    for _ in range(2):
        sink.put([records([{"a": 2}], topic="t", first=2)], {("t", 0): 3})
    sink.put([], {("t", 1): 7})
    text = (tmp_path / name).read_text()
    lines = text.splitlines()
    if name.endswith("csv"):
        assert lines == ['"a"', "1", "0", "2"]
    else:
        assert lines == (['{"a":0}', '{"a":1}', '{"a":2}'] if name.endswith("jsonl") else
                         ["Struct{a=0}", "Struct{a=1}", "Struct{a=2}"] if "Struct" in text else
                         ["{a=0}", "{a=1}", "{a=2}"])
    assert make(file=name).open([("t", 0), ("t", 1)]) == {("t", 0): 3, ("t", 1): 7}
    assert make(file=name, connector="another").open([("t", 0)]) == {}


def test_text_as_kafka_connect_writes_it(tmp_path: Path, make: Make) -> None:
    sink = make(file="out")
    sink.open([("t", 0)])
    sink.put([records(pa.array(["a line", None, "é"]), topic="t")], {("t", 0): 3})
    assert (tmp_path / "out").read_bytes() == "a line\nnull\né\n".encode()


def test_the_file_is_cut_where_a_put_was_not_finished(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("it was there before\n")
    sink = make(file="out.jsonl")
    sink.open([("t", 0)])
    sink.put([records(ROWS[:2], topic="t")], {("t", 0): 2})
    with path.open("a") as file:
        file.write('{"a": 2, "s": "ha')
    again = make(file="out.jsonl")
    assert again.open([("t", 0)]) == {("t", 0): 2}
    again.put([records(ROWS[2:3], topic="t", first=2)], {("t", 0): 3})
    lines = path.read_text().splitlines()
    assert lines[0] == "it was there before"
    assert [json.loads(line) for line in lines[1:]] == ROWS[:3]
    path.rename(tmp_path / "rotated")
    again.put([records(ROWS[3:4], topic="t", first=3)], {("t", 0): 4})
    assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS[3:4]


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from headrace.files.sink import FileSink, FileSinkConfig
from tests.unit.sinkkit import records
sink = FileSink(FileSinkConfig.model_validate({keys!r}), project=Path({project!r}), name="n")
at = sink.open([("t", 0)]).get(("t", 0), 0)
while at < 4000:
    rows = [{{"a": i, "pad": "x" * 500}} for i in range(at, min(at + 7, 4000))]
    sink.put([records(rows, topic="t", first=at)], {{("t", 0): at + len(rows)}})
    at += len(rows)
    print(at, flush=True)
"""


@pytest.mark.parametrize("keys", [{"file": "out.jsonl"}, {"folder": "out", "format": "jsonl"}])
def test_kill(tmp_path: Path, make: Make, keys: dict[str, str]) -> None:
    """kill -9 in the midst of it, over and over."""
    script = WRITER.format(root=str(Path(__file__).parents[2]), keys=keys, project=str(tmp_path))
    for puts in (5, 20):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(puts):
            assert process.stdout.readline(), "it ended by itself"
        threading.Event().wait(puts / 7000)  # somewhere in the next one
        process.kill()
        process.wait()
        process.stdout.close()
    sink = make(connector="n", **keys)
    at = sink.open([("t", 0)])[("t", 0)]
    files = sorted((tmp_path / "out/t/0").glob("*.jsonl")) if "folder" in keys else [tmp_path / "out.jsonl"]
    sink.put([records([{"a": at, "pad": ""}], topic="t", first=at)], {("t", 0): at + 1})
    found = [json.loads(line)["a"] for file in files for line in file.read_text().splitlines()]
    assert at >= 7 * 25
    assert found[:at] == list(range(at))


def test_tasks_that_share_a_file(tmp_path: Path, make: Make) -> None:
    def run(partition: int) -> None:
        sink = make(file="out.jsonl")
        sink.open([("t", partition)])
        for first in range(0, 100, 10):
            rows = [{"a": partition * 1000 + at} for at in range(first, first + 10)]
            sink.put([records(rows, topic="t", first=first, partition=partition)], {("t", partition): first + 10})

    threads = [threading.Thread(target=run, args=(partition,)) for partition in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [json.loads(line)["a"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(found) == [partition * 1000 + at for partition in range(4) for at in range(100)]


def test_what_cannot_be_written(tmp_path: Path, make: Make) -> None:
    for keys in ({"file": "out.jsonl"}, {"folder": "out"}):
        sink = make(**keys)
        sink.open([("t", 0)])
        with pytest.raises(RecordsRefused) as refused:
            sink.put([records([{"a": 1}, None], topic="t")], {("t", 0): 2})
        assert list(refused.value.reasons) == [1]
    narrow = make(file="out.csv")
    narrow.open([("t", 0)])
    narrow.put([records([{"a": 1, "b": 1}], topic="t")], {("t", 0): 1})
    narrow.put([records([{"b": "x"}], topic="t", first=1)], {("t", 0): 2})
    with pytest.raises(UserError, match="no column c"):
        narrow.put([records([{"c": 1}], topic="t", first=2)], {("t", 0): 3})
    assert (tmp_path / "out.csv").read_text() == '"a","b"\n1,1\n,"x"\n'
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="taken"):
        make(folder="taken").put([records([{"a": 1}], topic="t")], {("t", 0): 1})
    with pytest.raises(UserError, match="which topic"):
        make(folder="out").put([records([{"a": 1}], topic="x")], {("t", 0): 1, ("u", 0): 0})
    (tmp_path / ".bad.txt.headrace").write_text("{}")
    with pytest.raises(UserError, match="no note of ours"):
        make(file="bad.txt").open([("t", 0)])


def test_offsets_are_altered(make: Make) -> None:
    sink = make(file="out.txt")
    sink.open([("t", 0)])
    sink.put([], {("t", 0): 7, ("t", 1): 8})
    sink.alter({("t", 0): 3, ("t", 1): None})
    assert sink.open([("t", 0), ("t", 1)]) == {("t", 0): 3}
    with pytest.raises(UserError, match="names of the parts"):
        make(folder="out").alter({("t", 0): 3})


@pytest.mark.parametrize("keys", [{}, {"file": "a", "folder": "b"}, {"file": "a.parquet"},
                                  {"file": "a", "format": "avro"}, {"folder": "b", "format": "xml"}])
def test_keys(keys: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"file|format"):
        FileSinkConfig.model_validate(keys)
