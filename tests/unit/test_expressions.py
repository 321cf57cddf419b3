"""Expressions: what they give, what they are, and what is refused before Polars sees anything."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from headrace.errors import ExpressionError
from headrace.expressions import compile_expression, compile_many

pytestmark = pytest.mark.unit

UTC = dt.UTC
MOMENT = dt.datetime(2013, 2, 8, 17, 30, 15, 250000, tzinfo=UTC)
ROWS = pa.record_batch({
    "a": pa.array([1, None, 3], pa.int32()), "b": pa.array([0.5, 0.0, None]), "big": pa.array([2**40, 7, None]),
    "s": pa.array(["JFK", None, "aB%c"]), "t": pa.array(["  x ", "xyx", "ÄÖ"]), "n": pa.array(["1", "x", None]),
    "ts": pa.array([MOMENT, None, MOMENT - dt.timedelta(days=1)], pa.timestamp("us", "UTC")),
    "ms": pa.array([MOMENT.replace(tzinfo=None), None, None], pa.timestamp("ms")),
    "d": pa.array([dt.date(2013, 2, 8), None, dt.date(2012, 12, 31)]), "ok": pa.array([True, None, False]),
    "r": pa.array([{"x": 1, "in": {"y": "u"}}, None, {"x": 3, "in": None}],
                  pa.struct([("x", pa.int32()), ("in", pa.struct([("y", pa.string())]))])),
    "moment": pa.array(["2013-02-08T17:30:00Z", "2013-02-08", "2013-02-08 17:30:00+02:00"]),
    "dec": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("2.05")], pa.decimal128(9, 2)),
    "fix": pa.array([b"abcd", None, b"abce"], pa.binary(4)), "f32": pa.array([0.1, 2.5, None], pa.float32()),
    "enum": pa.array(["x", None, "y"]).dictionary_encode(), "time": pa.array([1, None, 2], pa.time32("ms"))})

CASES: list[tuple[str, pa.DataType, list[Any]]] = [
    ("a + 1", pa.int64(), [2, None, 4]), ("a * 2000000000", pa.int64(), [2_000_000_000, None, 6_000_000_000]),
    ("a - b", pa.float64(), [0.5, None, None]), ("a / 2", pa.float64(), [0.5, None, 1.5]),
    ("a / b", pa.float64(), [2.0, None, None]), ("1 / 0", pa.float64(), [None] * 3),
    ("a // 2", pa.int64(), [0, None, 1]), ("-7 // 2", pa.int64(), [-4] * 3), ("-7 % 3", pa.int64(), [2] * 3),
    ("a % 0", pa.int64(), [None, None, None]), ("-a", pa.int64(), [-1, None, -3]), ("2 ** 3", pa.float64(), [8.0] * 3),
    ("abs(a - 2)", pa.int64(), [1, None, 1]), ("round(2.5)", pa.float64(), [3.0] * 3),
    ("round(b, 1)", pa.float64(), [0.5, 0.0, None]), ("floor(-1.5)", pa.float64(), [-2.0] * 3),
    ("ceil(a)", pa.int32(), [1, None, 3]), ("ceiling(b)", pa.float64(), [1.0, 0.0, None]), ("sign(a - 2)", pa.int64(),
                                                                                           [-1, None, 1]),
    ("sqrt(4)", pa.float64(), [2.0] * 3), ("dec + 1", pa.decimal128(38, 2), None),  # type: ignore[list-item]
    ("s || '-' || a::varchar", pa.string(), ["JFK-1", None, "aB%c-3"]), ("concat(s, '!')", pa.string(),
                                                                        ["JFK!", "!", "aB%c!"]),
    ("lower(s)", pa.string(), ["jfk", None, "ab%c"]), ("upper(t)", pa.string(), ["  X ", "XYX", "ÄÖ"]),
    ("trim(t)", pa.string(), ["x", "xyx", "ÄÖ"]), ("trim(BOTH 'x' FROM t)", pa.string(), ["  x ", "y", "ÄÖ"]),
    ("ltrim(t)", pa.string(), ["x ", "xyx", "ÄÖ"]), ("length(t)", pa.int64(), [4, 3, 2]),
    ("substr(s, 2, 2)", pa.string(), ["FK", None, "B%"]), ("substring(s, 2)", pa.string(), ["FK", None, "B%c"]),
    ("left(s, 1)", pa.string(), ["J", None, "a"]), ("right(s, 1)", pa.string(), ["K", None, "c"]),
    ("replace(s, 'F', '')", pa.string(), ["JK", None, "aB%c"]),
    ("starts_with(s, 'J')", pa.bool_(), [True, None, False]), ("ends_with(s, 'c')", pa.bool_(), [False, None, True]),
    ("contains(s, '%')", pa.bool_(), [False, None, True]), ("regexp_like(s, '^[A-Z]+$')", pa.bool_(),
                                                            [True, None, False]),
    ("s LIKE 'J%'", pa.bool_(), [True, None, False]), ("s LIKE '%c'", pa.bool_(), [False, None, True]),
    ("s LIKE '%F%'", pa.bool_(), [True, None, False]), ("s LIKE 'J_K'", pa.bool_(), [True, None, False]),
    ("s LIKE 'aB!%c' ESCAPE '!'", pa.bool_(), [False, None, True]), ("s LIKE 'a%!%%' ESCAPE '!'", pa.bool_(),
                                                                     [False, None, True]),
    ("s NOT LIKE 'j%'", pa.bool_(), [True, None, True]), ("s ILIKE 'j%'", pa.bool_(), [True, None, False]),
    ("s LIKE 'JFK'", pa.bool_(), [True, None, False]), ("s LIKE '%'", pa.bool_(), [True, None, True]),
    ("a IN (1, 2)", pa.bool_(), [True, None, False]), ("a IN (1, NULL)", pa.bool_(), [True, None, None]),
    ("a NOT IN (1, 2.5)", pa.bool_(), [False, None, True]), ("s IN ('JFK', 'EWR')", pa.bool_(), [True, None, False]),
    ("a IN (big, 3)", pa.bool_(), [False, None, True]), ("a BETWEEN 1 AND 2", pa.bool_(), [True, None, False]),
    ("a = 1 OR ok", pa.bool_(), [True, None, False]), ("ok AND NULL", pa.bool_(), [None, None, False]),
    ("NOT ok", pa.bool_(), [False, None, True]), ("ok IS NOT TRUE", pa.bool_(), [False, True, True]),
    ("a IS NULL", pa.bool_(), [False, True, False]), ("a = NULL", pa.bool_(), [None] * 3),
    ("a IS DISTINCT FROM 1", pa.bool_(), [False, True, True]), ("r IS NULL", pa.bool_(), [False, True, False]),
    ("CASE WHEN a = 1 THEN 'one' WHEN a = 3 THEN 'three' END", pa.string(), ["one", None, "three"]),
    ("CASE a WHEN 1 THEN 1 ELSE 2.5 END", pa.float64(), [1.0, 2.5, 2.5]), ("if(ok, 1, 2)", pa.int64(), [1, 2, 2]),
    ("coalesce(s, 'none')", pa.string(), ["JFK", "none", "aB%c"]), ("nullif(a, 1)", pa.int32(), [None, None, 3]),
    ("greatest(a, 2)", pa.int64(), [2, 2, 3]), ("least(a, b)", pa.float64(), [0.5, 0.0, 3.0]),
    ("extract(hour FROM ts)", pa.int64(), [17, None, 17]), ("year(d)", pa.int64(), [2013, None, 2012]),
    ("extract(dow FROM d)", pa.int64(), [5, None, 1]), ("date_part('doy', d)", pa.int64(), [39, None, 366]),
    ("extract(epoch FROM ts)", pa.float64(), [1360344615.25, None, 1360258215.25]),
    ("extract(epoch FROM d)", pa.float64(), [1360281600.0, None, 1356912000.0]),
    ("date_trunc('hour', ts)", pa.timestamp("us", "UTC"),
     [dt.datetime(2013, 2, 8, 17, tzinfo=UTC), None, dt.datetime(2013, 2, 7, 17, tzinfo=UTC)]),
    ("ts - INTERVAL '90' minute", pa.timestamp("us", "UTC"),
     [MOMENT - dt.timedelta(minutes=90), None, MOMENT - dt.timedelta(days=1, minutes=90)]),
    ("ts >= '2013-02-08 00:00:00'", pa.bool_(), [True, None, False]), ("d = '2013-02-08'", pa.bool_(),
                                                                      [True, None, False]),
    ("ts > TIMESTAMPTZ '2013-02-08 17:30:00Z'", pa.bool_(), [True, None, False]),
    ("ts AT TIME ZONE 'America/New_York'", pa.timestamp("us"),
     [dt.datetime(2013, 2, 8, 12, 30, 15, 250000), None, dt.datetime(2013, 2, 7, 12, 30, 15, 250000)]),
    ("extract(hour FROM ts AT TIME ZONE 'America/New_York')", pa.int64(), [12, None, 12]),
    ("CAST(ts AS date)", pa.date32(), [dt.date(2013, 2, 8), None, dt.date(2013, 2, 7)]),
    ("CAST(ms AS timestamptz)", pa.timestamp("us", "UTC"), [MOMENT, None, None]),
    ("CAST(moment AS timestamptz)", pa.timestamp("us", "UTC"),
     [dt.datetime(2013, 2, 8, 17, 30, tzinfo=UTC), dt.datetime(2013, 2, 8, tzinfo=UTC),
      dt.datetime(2013, 2, 8, 15, 30, tzinfo=UTC)]),
    ("CAST(b AS integer)", pa.int32(), [1, 0, None]), ("CAST(a AS double)", pa.float64(), [1.0, None, 3.0]),
    ("CAST(ok AS integer)", pa.int32(), [1, None, 0]), ("CAST(d AS varchar)", pa.string(),
                                                        ["2013-02-08", None, "2012-12-31"]),
    ("TRY_CAST(n AS bigint)", pa.int64(), [1, None, None]), ("n::double", pa.float64(), [1.0, None, None]),
    ("CAST(dec AS double)", pa.float64(), [1.1, None, 2.05]), ("CAST('yes' AS boolean)", pa.bool_(), [True] * 3),
    ("r.x + 1", pa.int64(), [2, None, 4]), ("r.in.y", pa.string(), ["u", None, None]), ("fix = fix", pa.bool_(),
                                                                                     [True, None, True]),
    ("enum = 'x'", pa.bool_(), [True, None, False]), ("f32 > 0.1", pa.bool_(), [True, True, None]),
    ("'it''s'", pa.string(), ["it's"] * 3), ("1e3", pa.float64(), [1000.0] * 3), ("time", pa.time32("ms"), None),
    ("time IS NOT NULL", pa.bool_(), [True, False, True]), ("\"a\" + 0", pa.int64(), [1, None, 3]),
]  # type: ignore[list-item]


@pytest.mark.parametrize(("text", "type_", "values"), CASES, ids=[c[0] for c in CASES])
def test_value_and_type(text: str, type_: pa.DataType, values: list[Any] | None) -> None:
    expression = compile_expression(text, ROWS.schema)
    got = expression.evaluate(ROWS)
    assert (expression.type, got.type, len(got)) == (type_, type_, 3)
    if values is not None:
        assert got.to_pylist() == values
    assert got.null_count == 0 or expression.nullable or expression.casts
    assert expression.evaluate(ROWS.slice(0, 0)).type == type_
    assert expression.evaluate(ROWS.slice(1, 1)).to_pylist() == got.slice(1, 1).to_pylist()


REFUSED = [
    ("ts AT TIME ZONE 'Moon'", "not a time zone"), ("ms AT TIME ZONE 'UTC'", "with time zone"),
    ("(SELECT max(a) FROM read_csv('/etc/passwd'))", "sub-select"), ("a IN (SELECT 1)", "list written out"),
    ("EXISTS (SELECT 1)", "sub-select"), ("read_csv('/etc/passwd')", "reads files"),
    ("read_parquet('x')", "reads files"), ("SELECT 1", "sub-select"),
    ("WITH x AS (SELECT 1) SELECT * FROM x", "sub-select"), ("sum(a)", "more than one record"),
    ("count(*)", "more than one record"), ("max(a) OVER ()", "other records"),
    ("row_number() OVER ()", "other records"), ("lag(a) OVER (ORDER BY a)", "other records"),
    ("unnest(r)", "several rows"), ("now()", "clock"), ("current_timestamp", "clock"), ("current_date", "clock"),
    ("today()", "clock"), ("random()", "chance"), ("uuid()", "chance"), ("a; DROP TABLE x", "not part"),
    ("*", "star"), ("COLUMNS('a')", "columns"), ("a AS x", "alias"), ("$1", "parameters"), (":p", "parameters"),
    ("?", "parameters"), ("r['x']", "indexed"), ("[1, 2]", "indexed"), ("{'x': 1}", "indexed"), ("(a, b)", "indexed"),
    ("a -> '$.x'", "indexed"), ("list_transform(r, x -> x)", "list_transform"), ("getenv('HOME')", "getenv"),
    ("a = ANY(b)", "ANY"), ("pg_sleep(10)", "pg_sleep"), ("repeat('x', 1000000000)", "repeat"),
    ("DROP TABLE x", "not part"), ("INSERT INTO x VALUES (1)", "not part"), ("COPY x TO '/tmp/x'", "not part"),
    ("ATTACH 'x'", "not part"), ("SET x = 1", "not part"), ("query('select 1')", "query"),
    ("current_setting('x')", "current_setting"), ("md5(s)", "md5"), ("a GLOB 'x'", "GLOB"),
    ("s LIKE t", "pattern written out"), ("regexp_like(s, t)", "written out"),
    ("regexp_like(s, '(')", "regular expression"), ("substr(s, a)", "written out"), ("substr(s, 0)", "begin at 1"),
    ("round(b, 99)", "digits"), ("extract(moon FROM ts)", "part"), ("date_trunc('moon', ts)", "unit"),
    ("extract(hour FROM s)", "takes time"), ("s + 1", "takes number"), ("a || s", "takes text"),
    ("s > 1", "of one type"), ("a = 'x'", "of one type"), ("ts > d", "of one type"),
    ("CASE WHEN ok THEN 1 ELSE 'x' END", "of one type"), ("a AND ok", "takes boolean"), ("NOT a", "takes boolean"),
    ("ts - ts", "takes number"), ("ts > 'yesterday'", "is not a timestamp"), ("CAST(a AS json)", "not a type"),
    ("CAST(a AS date)", "cannot become"), ("CAST('x' AS integer)", "is not a"), ("99999999999999999999", "64 bits"),
    ("NULL", "always null"), ("ts + INTERVAL '1' month", "whole number of weeks"),
    ("lower(s, t)", "number of provided arguments"), ("abs()", "lacks an argument"), ("", "empty"),
    ("a +", "not an SQL expression"), ("'open", "not an SQL expression"), ("m = m", "map cannot"),
    ("r = r", "cannot be compared"), ("r.nope", "no field"), ("distnace > 1", "no column"), ("A.b", "no column"),
    ("-" * 2000 + "a", "not an SQL expression"), ("(" * 500 + "a" + ")" * 500, "nested"),
    ("NOT " * 600 + "ok", "nested"), ("a" + " + 1" * 5000, "characters"), ("a IN (" + "1," * 2000 + "1)", "parts"),
    ("case " * 100 + "when ok then 1" + " end" * 100, "nested|not an SQL"),
]


@pytest.mark.parametrize(("text", "why"), REFUSED, ids=[t[0][:40] for t in REFUSED])
def test_refused_before_polars_sees_it(text: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is refused is refused as an ExpressionError with a hint, and never as SQL in the hands of Polars."""
    def seen(*_: Any, **__: Any) -> Any:
        raise AssertionError("Polars was given SQL")
    monkeypatch.setattr(pl, "sql_expr", seen)
    monkeypatch.setattr(pl.SQLContext, "execute", seen)
    schema = ROWS.schema.append(pa.field("m", pa.map_(pa.string(), pa.int32())))
    with pytest.raises(ExpressionError, match=why) as caught:
        compile_expression(text, schema)
    assert caught.value.hint


def test_message_names_what_where_and_what_to_do() -> None:
    schema = pa.schema([("distance", pa.int32()), ("origin", pa.string())])
    with pytest.raises(ExpressionError) as caught:
        compile_expression("origin || '-' || upper(dest)", schema, where="route")
    assert str(caught.value) == ("route, “origin || '-' || upper(dest)” at character 24, “dest”: there is no column "
                                 "“dest”\n  there are distance, origin")
    with pytest.raises(ExpressionError, match=r"did you mean distance\?"):
        compile_expression("Distnace > 1", schema)


def test_cast_failures_are_told_by_row() -> None:
    many = compile_many({"x": "CAST(n AS integer) + 1", "y": "CAST(b AS integer)", "z": "TRY_CAST(n AS integer)"},
                        ROWS.schema)
    made = many.evaluate(ROWS)
    assert many.casts
    assert many.columns == ("n", "b")
    assert made.failed is not None
    assert made.failed.to_pylist() == [False, True, False]
    assert made.reasons().to_pylist() == [["x: n is “x”, which is not a whole number of 32 bits"]]
    assert many.evaluate(ROWS.slice(0, 1)).failed is None


def test_a_cast_fails_only_where_its_branch_is_taken() -> None:
    many = compile_many({"x": "CASE WHEN n = 'x' THEN 0 ELSE CAST(n AS integer) END"}, ROWS.schema)
    made = many.evaluate(ROWS)
    assert made.failed is None
    assert made.arrays["x"].to_pylist() == [1, 0, None]


@pytest.mark.parametrize(("text", "casts"), [
    ("CAST(a AS bigint)", False), ("CAST(a AS varchar)", False), ("CAST(a AS double)", False),
    ("CAST('1' AS integer)", False), ("CAST(big AS integer)", True), ("CAST(s AS date)", True)])
def test_casts_that_cannot_fail_are_known(text: str, casts: bool) -> None:
    assert compile_expression(text, ROWS.schema).casts is casts


@pytest.mark.parametrize(("text", "nullable"), [
    ("x + 1", False), ("x + y", True), ("x / 2", False), ("x / x", True), ("s || '-' || s", False),
    ("coalesce(y, 0)", False), ("y IS NULL", False), ("nullif(x, 1)", True), ("CASE WHEN x > 1 THEN 1 END", True),
    ("CASE WHEN y > 1 THEN 1 ELSE 2 END", False), ("upper(s)", False), ("CAST(s AS integer)", False),
    ("TRY_CAST(s AS integer)", True), ("x IN (1, NULL)", True), ("x", False), ("y", True),
    ("concat(s, y::varchar)", False)])
def test_nullability_follows_the_columns(text: str, nullable: bool) -> None:
    """A sink whose field is not nullable takes a derived column that cannot be null."""
    schema = pa.schema([pa.field("x", pa.int32(), False), pa.field("y", pa.int32()), pa.field("s", pa.string(), False)])
    assert compile_expression(text, schema).nullable is nullable


def test_a_bare_column_never_enters_polars() -> None:
    schema = pa.schema([pa.field("m", pa.map_(pa.string(), pa.int32()), metadata={"k": "v"})])
    expression = compile_expression("m", schema)
    rows = pa.RecordBatch.from_arrays([pa.array([[("a", 1)]], schema.field("m").type)], schema=schema)
    assert expression.evaluate(rows) is not None
    assert expression.evaluate(rows).equals(rows.column("m"))


def test_only_the_columns_named_are_read() -> None:
    schema = pa.schema([("a", pa.int32()), ("m", pa.map_(pa.string(), pa.int32())), ("^a.*$", pa.int64()),
                        ("*", pa.int64())])
    assert compile_expression("a + 1", schema).columns == ("a",)
    rows = pa.record_batch([pa.array([1], pa.int32()), pa.array([[]], schema.field("m").type), pa.array([5]),
                            pa.array([7])], schema=schema)
    assert compile_expression("\"^a.*$\" + \"*\"", schema).evaluate(rows).to_pylist() == [12]


@pytest.mark.parametrize("type_", [pa.map_(pa.string(), pa.int32()), pa.decimal256(50, 2), pa.month_day_nano_interval(),
                                   pa.dense_union([pa.field("a", pa.int32())]),
                                   pa.struct([("m", pa.map_(pa.string(), pa.int32()))])])
def test_types_that_cannot_enter_are_refused_by_name(type_: pa.DataType) -> None:
    with pytest.raises(ExpressionError, match=r"x is .* cannot enter an expression"):
        compile_expression("x IS NULL", pa.schema([("x", type_)]))


def test_an_int_is_never_overflowed_by_32_bits() -> None:
    rows = pa.record_batch({"x": pa.array([2**31 - 1], pa.int32())})
    assert compile_expression("x + x + 1", rows.schema).evaluate(rows).to_pylist() == [2**32 - 1]
