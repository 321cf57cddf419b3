"""Java's ways with dates, patterns, numbers and literals, on examples; the oracle's tests have the many cases."""

from __future__ import annotations

import math
from datetime import UTC, datetime, time
from decimal import Decimal

import pyarrow as pa
import pytest

from headrace.records import Shape
from headrace.records.shape import DECIMAL, TIME
from headrace.transforms.dateparse import Reader, readable
from headrace.transforms.dates import format_ms, tokens
from headrace.transforms.fieldpath import steps
from headrace.transforms.fields import java_order
from headrace.transforms.javaregex import compiled, template
from headrace.transforms.literals import parse
from headrace.transforms.numbers import float_text, parse_float, parse_whole

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("pattern", "at", "text"), [
    ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", 1_709_211_600_123, "2024-02-29T13:00:00.123Z"),
    ("EEE, d MMM yy hh 'o''clock' a z", 0, "Thu, 1 Jan 70 12 o'clock AM UTC"),
    ("yyyy-MM-dd", -12_219_292_800_000, "1582-10-15"), ("yyyy-MM-dd", -12_219_292_800_001, "1582-10-04"),
    ("YYYY-'W'ww u", 1_735_603_200_000, "2025-W01 2"), ("G yyyy", -62_167_392_000_001, "BC 0002")])
def test_dates_written(pattern: str, at: int, text: str) -> None:
    assert format_ms(pattern, pa.array([at, None])).to_pylist() == [text, None]


@pytest.mark.parametrize(("pattern", "text", "at"), [
    ("yyyy-MM-dd", "2024-02-29 and more", datetime(2024, 2, 29)), ("yyyy-MM-dd", "2024-14-01", datetime(2025, 2, 1)),
    ("yyyyMMdd", "20240229", datetime(2024, 2, 29)),
    ("d MMM yyyy h a", "1 september 2020 12 pm", datetime(2020, 9, 1, 12)),
    ("yyyy-MM-dd HH:mm:ss.SSS", "2024-01-01 00:00:00.5", datetime(2024, 1, 1, 0, 0, 0, 5000)),
    ("yyyy-MM-dd HH:mmX", "2024-01-01 00:00+02", datetime(2023, 12, 31, 22)),
    ("yyyyDDD", "2024060", datetime(2024, 2, 29))])
def test_dates_read(pattern: str, text: str, at: datetime) -> None:
    found, wrong = Reader(pattern, 0).read(pa.array([text, None]))
    assert wrong == {}
    assert found.to_pylist() == [at.replace(tzinfo=UTC).timestamp() * 1000, None]


def test_two_digits_of_a_year_are_of_the_eighty_before_and_twenty_behind() -> None:
    start = int(datetime(1946, 11, 22, tzinfo=UTC).timestamp() * 1000)
    found, _ = Reader("dd.MM.yy", start).read(pa.array(["01.01.47", "01.01.45", "21.11.46", "23.11.46", "01.01.1946"]))
    years = [datetime.fromtimestamp(at / 1000, UTC).year for at in found.to_pylist()]
    assert years == [1947, 2045, 2046, 1946, 1946]


def test_dates_that_do_not_read() -> None:
    _, wrong = Reader("yyyy-MM-dd", 0).read(pa.array(["2024-02-29", "soon", "2024", ""]))
    assert wrong == {1: "“soon” does not match the pattern yyyy-MM-dd at “soon”",
                     2: "“2024” does not match the pattern yyyy-MM-dd", 3: "“” is too short for the pattern yyyy-MM-dd"}


@pytest.mark.parametrize(("pattern", "told"), [
    ("yyyyT", "the letter “T” means nothing"), ("yyyy'", "a quote is not closed"), ("XXXX", "three times at most")])
def test_patterns_that_are_none(pattern: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        tokens(pattern)


def test_letters_that_are_not_read() -> None:
    for pattern in ("YYYY", "ww", "u", "EEE"):
        with pytest.raises(ValueError, match=f"the letter “{pattern[0]}”"):
            readable(pattern)


@pytest.mark.parametrize(("regex", "topic", "matches"), [
    (r"db\.\w++", "db.orders", True), (r"(?i)DB.*", "db.x", True), (r"[a-z&&[^x]]+", "abc", True),
    (r"[a-z&&[^x]]+", "axc", False),
    (r"[a[0-9]]+", "a1", True), (r"\p{Alpha}+", "abc", True), (r"\P{Alpha}+", "abc", False),
    (r"(?<a>x)\k<a>", "xx", True), (r"\Qa.b\E", "a.b", True), (r"\Qa.b\E", "axb", False),
    (r"a(?>b|bc)c", "abcc", False),
    (r"[^a]", "é", True), (r"\d", "٣", False), (r"(a)\1+", "aaa", True), (r"[\x{61}-c]+", "abc", True)])
def test_java_regexes(regex: str, topic: str, matches: bool) -> None:
    assert (compiled(regex).fullmatch(topic) is not None) == matches


@pytest.mark.parametrize("regex", ["a{", "{a", r"\y", r"\p{IsGreek}", "(?x)a", "(a", "a)", "[z-a]", "(?<1>a)", r"\k1"])
def test_regexes_that_are_none(regex: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        compiled(regex)


def test_replacements() -> None:
    regex = compiled("(?<name>a)(b)")
    assert template(r"x$1\$${name}$22", regex) == ["x", 1, "$", 1, 2, "2"]
    for wrong in ("$", "$x", "$3", "${other}", "a\\"):
        with pytest.raises(ValueError, match=r"\w"):
            template(wrong, regex)


def test_paths() -> None:
    assert steps("a.b", "V1") == ("a.b",)
    assert steps("a.`b.c`.d.", "V2") == ("a", "b.c", "d", "")
    assert steps("a`b.c", "V2") == ("a`b", "c")
    assert steps(r"`a\`.b`.c", "V2") == ("a`.b", "c")
    with pytest.raises(ValueError, match="not closed"):
        steps("`a", "V2")


@pytest.mark.parametrize(("value", "double", "single"), [
    (1.0, "1.0", "1.0"), (1e7, "1.0E7", "1.0E7"), (123456.789, "123456.789", "123456.79"), (-0.0, "-0.0", "-0.0"),
    (1e-3, "0.001", "0.001"), (9.5e-4, "9.5E-4", "9.5E-4"), (math.inf, "Infinity", "Infinity"),
    (math.nan, "NaN", "NaN"),
    (5e-324, "4.9E-324", "0.0"), (2e-45, "2.0E-45", "1.4E-45"), (2.0**63, "9.223372036854776E18", "9.223372E18")])
def test_floats_as_text(value: float, double: str, single: str) -> None:
    assert float_text(value, single=False) == double
    assert float_text(pa.scalar(value).cast(pa.float32()).as_py(), single=True) == single


def test_numbers_of_text() -> None:
    assert [parse_whole(each, "int8") for each in ("+127", "128", " 1", "", "-128")] == [127, None, None, None, -128]
    assert [parse_float(each) for each in (" 1.5f", "0x1p3", ".5", "1_0", "-Infinity", "1e999", "")] == [
        1.5, 8.0, 0.5, None, -math.inf, math.inf, None]


@pytest.mark.parametrize(("text", "value", "shape"), [
    ("1", 1, Shape("int8")), ("300", 300, Shape("int16")), ("0.5", 0.5, Shape("float32")),
    ("word", "word", Shape("string")),
    ("1e39", 1e39, Shape("float64")), ("null", None, None), ("true", True, Shape("boolean")),
    ("[1, 300]", [1, 300], Shape("array", values=Shape("int16"))), ('[1, "a"]', [1, "a"], Shape("array")),
    ('{"a": 1.5}', [("a", 1.5)], Shape("map", keys=Shape("string"), values=Shape("float32"))),
    ("[1, null]", "[1, null]", Shape("string")), ("[1,", "[1,", Shape("string")),
    ("13:14:15.678Z", time(13, 14, 15, 678000), Shape("int32", name=TIME, version=1)),
    ("99999999999999999999", Decimal(99999999999999999999), Shape("bytes", name=DECIMAL, version=1,
                                                                    parameters=(("scale", "0"),)))])
def test_literals(text: str, value: object, shape: Shape | None) -> None:
    assert parse(text) == (value, shape)


def test_the_order_of_a_hash_table() -> None:
    """As a JVM walks it."""
    assert java_order(["name", "id", "email", "age", "zip"]) == ["zip", "name", "id", "email", "age"]
