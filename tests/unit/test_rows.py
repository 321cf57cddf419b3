"""Rows from files: every format, every kind of bad record, positions to go on from, and blocks cut anywhere."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing, nullcontext
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import ingest
from headrace.codec import AvroSchema, parse
from headrace.errors import SchemaError, UserError
from headrace.ingest import Options, Piece, Reader, open_reader, open_stream, text
from headrace.ingest.values import of, plain

pytestmark = pytest.mark.unit


def schema(**types: Any) -> AvroSchema:
    """A record of these fields; a type may be (type, default)."""
    fields = [{"name": name, "type": t[0], "default": t[1]} if isinstance(t, tuple) else {"name": name, "type": t}
              for name, t in types.items()]
    return parse(json.dumps({"type": "record", "name": "R", "fields": fields}))


FLIGHT = schema(id="long", at={"type": "long", "logicalType": "timestamp-millis"}, carrier="string",
                tail=["null", "string"], miles=["null", "int"], late=("boolean", False))


def everything(reader: Reader, records_max: int = 1000, *, close: bool = True) -> tuple[list[dict[str, Any]],
                                                                                    list[tuple[int, str]]]:
    rows, bad = [], []
    for piece in pieces(reader, records_max, close=close):
        rows += piece.rows.to_pylist()
        bad += [(one.at, "; ".join(one.reasons)) for one in piece.bad]
    return rows, bad


def pieces(reader: Reader, records_max: int = 1000, *, close: bool = True) -> list[Piece]:
    found = []
    with closing(reader) if close else nullcontext():
        while (piece := reader.read(records_max)) is not None:
            found.append(piece)
    return found


def read(raw: str | bytes, of: AvroSchema, format: str = "csv", **options: Any) -> Any:
    stream = io.BytesIO(raw.encode() if isinstance(raw, str) else raw)
    return everything(open_stream(stream, of, format=format, options=Options(**options)))


def test_csv_becomes_rows_of_the_schema() -> None:
    rows, bad = read("id,at,carrier,tail,miles\n1,2013-01-01T05:15:00Z,UA,N14228,1400\n2,2013-01-01 05:29,AA,NA,\n"
                     '3,2013-01-01T00:00:00+05:00,"B,6",, 1089.0 \n', FLIGHT)
    assert bad == []
    assert rows == [
        {"id": 1, "at": datetime(2013, 1, 1, 5, 15, tzinfo=UTC), "carrier": "UA", "tail": "N14228", "miles": 1400,
         "late": False},
        {"id": 2, "at": datetime(2013, 1, 1, 5, 29, tzinfo=UTC), "carrier": "AA", "tail": None, "miles": None,
         "late": False},
        {"id": 3, "at": datetime(2012, 12, 31, 19, tzinfo=UTC), "carrier": "B,6", "tail": None, "miles": 1089,
         "late": False}]


def test_csv_tells_each_bad_record_by_line_and_keeps_its_neighbours() -> None:
    rows, bad = read("id,at,carrier\n1,2013-01-01T05:15:00Z,UA\nx,yesterday,UA\n2,2013-01-01T05:15:00Z\n\n"
                     "3,2013-01-01T05:15:00Z,UA,4\n0x1F,2013-01-01T05:15:00Z,UA\n9,2013-01-01T05:15:00Z,UA\n", FLIGHT)
    assert [row["id"] for row in rows] == [1, 9]
    assert bad == [(3, "id: “x” is not a long; at: “yesterday” is not a timestamp-millis"),
                   (4, "2 cells where the header has 3"), (6, "4 cells where the header has 3"),
                   (7, "id: “0x1F” is not a long")]


def test_csv_null_values_are_null_only_where_the_schema_has_null() -> None:
    rows, bad = read("id,at,carrier,tail\n1,2013-01-01,NA,-\nNA,2013-01-01,UA,NA\n", FLIGHT, nulls=("-",))
    assert [(row["carrier"], row["tail"]) for row in rows] == [("NA", None)]
    assert bad == [(3, "id: “NA” is not a long")]


def test_csv_quotes_hold_lines_and_a_quote_never_closed_costs_its_own_line() -> None:
    rows, bad = read('n,text\r\n1,"a\r\nb"\r\n2,"say ""x"""\r\n3,5" pipe\r\n4,"open\r\n5,y\r\n',
                     schema(n="int", text="string"))
    assert [(r["n"], r["text"]) for r in rows] == [(1, "a\r\nb"), (2, 'say "x"'), (3, '5" pipe'), (5, "y")]
    assert bad == [(6, "a quote that is never closed")]
    assert read("n,text\n1,a\rb\n2,c\n", schema(n="int", text="string")) == (
        [{"n": 2, "text": "c"}], [(2, "a carriage return outside quotes")])


def test_csv_of_every_type() -> None:
    odd = schema(b="boolean", f="float", d="double", day={"type": "int", "logicalType": "date"},
                 t={"type": "int", "logicalType": "time-millis"},
                 money={"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2},
                 local={"type": "long", "logicalType": "local-timestamp-micros"}, raw="bytes",
                 e={"type": "enum", "name": "E", "symbols": ["A", "B"]}, list={"type": "array", "items": "int"},
                 u=["null", "int", "string"])
    header = ",".join(odd.arrow.names)
    rows, bad = read(f'{header}\ntrue,1.5,-inf,2013-02-08,05:15,12.3,2013-02-08T10:00:00.000001,é,A,"[1, 2]",7\n'
                     f"yes,x,1,2013-2-8,25:00,1.234,2013-02-08T10:00:00Z,€,C,1,\n", odd)
    assert rows == [{
        "b": True, "f": 1.5, "d": float("-inf"), "day": date(2013, 2, 8), "t": time(5, 15), "money": Decimal("12.30"),
        "local": datetime(2013, 2, 8, 10, 0, 0, 1), "raw": b"\xe9", "e": "A", "list": [1, 2],
        "u": {"int": 7, "string": None}}]
    assert len(bad) == 1
    assert {part.partition(":")[0] for part in bad[0][1].split("; ")} == set(odd.arrow.names) - {"d", "u"}


def test_columns_the_schema_lacks_are_passed_over_and_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("more,id,at,carrier\n1,2,2013-01-01,UA\n")
    reader = open_reader(tmp_path / "x.csv", FLIGHT)
    assert reader.unused == ["more"]
    assert everything(reader)[0][0]["id"] == 2


def test_a_last_line_that_went_on_after_it_was_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}')
    one = schema(a="int", b=("string", ""))
    last = pieces(open_reader(path, one))[-1].position
    assert everything(open_reader(path, one, position=last)) == ([], [])
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a": 3}\n')
    with pytest.raises(UserError, match=r"x\.jsonl:2: this line had no end yet"):
        open_reader(path, one, position=last)


@pytest.mark.parametrize(("header", "message"), [
    ("id,carrier", "there is no column “at”"), ("id,at,carier", "did you mean “carier”"), ("id,at,id", "id twice"),
    ("", "no header")])
def test_csv_whose_header_does_not_fit_is_refused_at_once(header: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(header + "\n1,2,3\n", FLIGHT)


def test_jsonl_and_its_bad_lines() -> None:
    lines = ['{"id": 1, "at": "2013-01-01T05:15:00Z", "carrier": "UA"}', "", "  ", "{", "[1]",
             '{"id": 2, "at": 1357017300000, "carrier": "UA", "miles": 3.0}', '{"id": 3, "carrier": "UA"}',
             '{"id": 4, "at": 0, "carrier": "UA", "mils": 1}', '{"id": "5", "at": 0, "carrier": null}',
             '{"id": 6, "at": 0, "carrier": "UA", "late": null}', '{"id": 9223372036854775808, "at": 0, "carrier": ""}']
    rows, bad = read("\n".join(lines).encode() + b'\n{"id": 7, "at": 0, "carrier": "\xff"}', FLIGHT, "jsonl")
    assert [(r["id"], r["miles"], r["at"].hour) for r in rows] == [(1, None, 5), (2, 3, 5)]
    assert bad == [
        (4, "not JSON: Expecting property name enclosed in double quotes at character 2"),
        (5, "the record is not a JSON object"), (7, "at is missing"),
        (8, "the schema has no field “mils”; did you mean “miles”?"), (9, 'id: "5" is not a long'),
        (10, "late: null is not a boolean"), (11, "id: 9223372036854775808 is out of the range of a long"),
        (12, "not UTF-8: byte 32")]


def test_jsonl_does_not_mistake_two_objects_a_line_for_two_lines() -> None:
    one = schema(a="int")
    assert read('{"a": 1} {"a": 2}\n{"a": 3}\n', one, "jsonl") == (
        [{"a": 3}], [(1, "not JSON: Extra data at character 10")])
    assert read('{"a":\n1}\n{"a": 3}\n', one, "jsonl")[0] == [{"a": 3}]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_csv_as_pythons_writer_writes_it_reads_the_same_whatever_the_blocks(data: st.DataObject) -> None:
    cell = st.text(st.sampled_from('ab",\n ;é'), max_size=6)
    written = data.draw(st.lists(st.tuples(st.integers(0, 99), cell), max_size=30))
    delimiter = data.draw(st.sampled_from(",;\t"))
    block = data.draw(st.integers(1, 64))
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])))
    writer.writerows([("n", "text"), *written])
    raw = out.getvalue().encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK_BYTES", block)
        reader = open_stream(io.BytesIO(raw), schema(n="int", text="string"), format="csv",
                             options=Options(delimiter))
        found, bad = everything(reader, data.draw(st.integers(1, 7)))
    assert bad == []
    assert [(r["n"], r["text"]) for r in found] == written


def columnar(path: Path, format: str, records: list[dict[str, Any]]) -> Path:
    """Records of FLIGHT in blocks of a few."""
    table = pa.Table.from_pylist(records, schema=FLIGHT.arrow)
    if format == "parquet":
        pq.write_table(table, path, row_group_size=7)
    elif format == "avro":
        with path.open("wb") as file:
            fastavro.writer(file, FLIGHT.json, records, codec="deflate", sync_interval=100)
    elif format == "csv":
        names = FLIGHT.arrow.names
        path.write_text("\n".join([",".join(names), *(",".join("" if r[n] is None else str(r[n]) for n in names)
                                                      for r in records)]))
    else:
        path.write_text("".join(json.dumps(r, default=str) + "\n" for r in records))
    return path


RECORDS = [{"id": n, "at": datetime(2013, 1, 1, n % 24, tzinfo=UTC), "carrier": f"C{n % 5}",
            "tail": None if n % 3 else f"N{n}", "miles": n, "late": n % 2 == 0} for n in range(50)]


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "avro"])
def test_every_format_goes_on_from_every_position(tmp_path: Path, format: str) -> None:
    path = columnar(tmp_path / f"flights.{format}", format, RECORDS)
    whole = pieces(open_reader(path, FLIGHT), 4)
    assert [row for piece in whole for row in piece.rows.to_pylist()] == RECORDS
    first = 2 if format == "csv" else 1
    assert [n for piece in whole for n in piece.at.tolist()] == list(range(first, first + 50))
    position, done = None, 0
    for _ in range(100):
        reader = open_reader(path, FLIGHT, position=position)
        piece = reader.read(3)
        reader.close()
        if piece is None:
            break
        assert piece.rows.to_pylist() == RECORDS[done:done + len(piece)]
        position, done = json.loads(json.dumps(piece.position)), done + len(piece)
    assert done == 50


def test_parquet_values_are_cast_and_misfits_told(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": pa.array([1.0, 2.5, 3.0]), "at": pa.array([0, 1, 2], pa.timestamp("ns")),
                             "carrier": pa.array(["a", "b", None]).dictionary_encode(), "more": [1, 2, 3],
                             "miles": pa.array([1, 2, 1 << 40])}), path)
    rows, bad = everything(open_reader(path, FLIGHT))
    assert [r["id"] for r in rows] == [1]
    assert bad == [(2, "id: 2.5 is not a long; at: 1970-01-01 00:00:00.000000001+00:00 is not a timestamp-millis"),
                   (3, "at: 1970-01-01 00:00:00.000000002+00:00 is not a timestamp-millis; carrier: null, where the "
                    "schema has no null; miles: 1099511627776 is not an int")]


def test_an_avro_container_is_resolved_to_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "x.avro"
    with path.open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "R", "fields": [
            {"name": "a", "type": "int"}, {"name": "u", "type": ["string", "int"]},
            {"name": "gone", "type": "string"}]}, [{"a": 1, "u": "1", "gone": ""}, {"a": 2, "u": 1, "gone": ""}])
    rows, bad = everything(open_reader(path, schema(a="double", u=["string", "int"], new=("int", 7))))
    assert (rows, bad) == ([{"a": 1.0, "u": {"string": "1", "int": None}, "new": 7},
                            {"a": 2.0, "u": {"string": None, "int": 1}, "new": 7}], [])
    with pytest.raises(SchemaError, match="cannot be read as R"):
        open_reader(path, schema(a="string"))


def test_damaged_and_foreign_files_are_user_errors(tmp_path: Path) -> None:
    path = columnar(tmp_path / "x.avro", "avro", RECORDS)
    raw = path.read_bytes()
    path.write_bytes(raw[:-40])
    with pytest.raises(UserError, match=r"the block that begins with record \d+ is damaged"):
        everything(open_reader(path, FLIGHT))
    for suffix in ("avro", "parquet"):
        (tmp_path / f"no.{suffix}").write_bytes(b"hello")
        with pytest.raises(UserError, match="is not a"):
            open_reader(tmp_path / f"no.{suffix}", FLIGHT)
    with pytest.raises(UserError, match="there is no file"):
        open_reader(tmp_path / "absent.csv", FLIGHT)
    with pytest.raises(UserError, match="known are"):
        open_reader(path.rename(tmp_path / "x.txt"), FLIGHT)


def test_an_endless_line_is_bad_and_what_follows_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "RECORD_BYTES_MAX", 1000)
    monkeypatch.setattr(text, "BLOCK_BYTES", 300)
    one = schema(a="int")
    rows, bad = read(b'{"a": 1}\n' + b"x" * 5000 + b'\n{"a": 2}\n', one, "jsonl")
    assert rows == [{"a": 1}, {"a": 2}]
    assert bad == [(2, "a record that does not end within 1,000 bytes")]
    rows, bad = read(b'a,b\n1,x\n2,"' + b"y\n" * 1000 + b"3,z\n", schema(a="int", b="string"))
    assert [r["a"] for r in rows] == [1, 3]
    assert bad[0] == (3, "a record that does not end within 1,000 bytes")


def test_a_file_that_grows_gives_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": ')
    reader = open_reader(path, schema(a="int"), grows=True)
    assert everything(reader, close=False)[0] == [{"a": 1}]
    with path.open("ab") as file:
        file.write(b"2}\n")
    assert everything(reader, close=False)[0] == [{"a": 2}]
    path.write_bytes(b"")
    with closing(reader), pytest.raises(UserError, match="another file"):
        reader.read(1)


def test_what_consume_prints_produce_reads_as_the_same() -> None:
    odd = schema(raw="bytes", m={"type": "map", "values": ["null", "double"]}, u=["null", "int", "string"],
                 at={"type": "long", "logicalType": "timestamp-micros"},
                 money={"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 3})
    value = {"raw": b"\x00\xff", "m": [("a", 1.5), ("b", None)], "u": {"int": None, "string": "7"},
             "at": datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC), "money": Decimal("-12345678901234567.890")}
    shown = json.loads(json.dumps(plain(odd.type, value)))
    again = pa.RecordBatch.from_pylist([of(odd.type, shown, "")], schema=odd.arrow).to_pylist()[0]
    assert again == value


def test_formats_are_told_by_suffix() -> None:
    assert ingest.format_of(Path("a.CSV")) == "csv"
    assert ingest.format_of(Path("a.ndjson")) == "jsonl"
