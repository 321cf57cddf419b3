"""What a text column is made of: found from its bytes and a sample, and the kernels that are spared by it."""

from __future__ import annotations

import random
import re

import pyarrow as pa
import pytest

from headrace.contracts import texts
from headrace.contracts.patterns import Search

pytestmark = pytest.mark.unit

TYPES = (pa.string(), pa.large_string())
ODD = ["", "a", "N123AB", "N1é", "a\n", "\n", "١٢", "x" * 300, "🛫", None]


def columns(type_: pa.DataType) -> list[pa.Array]:
    """Empty, of nulls only, whole, and parts of a column, so that the bytes before and behind are not its own."""
    whole = pa.array(ODD, type_)
    return [pa.array([], type_), pa.nulls(3, type_), whole, whole.slice(5, 2), whole.slice(1, 2), whole.slice(9),
            whole.slice(10), pa.array(["", "", None], type_)]


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_the_bytes_of_a_column_say_what_is_in_it(type_: pa.DataType) -> None:
    for column in columns(type_):
        values = [v for v in column.to_pylist() if v is not None]
        assert texts.text_of(column) == "".join(values).encode()
        assert texts.all_ascii(column) == all(v.isascii() for v in values)
        assert texts.has(column, "\n") == any("\n" in v for v in values)
        counted = texts.characters(column)
        assert counted.to_pylist() == [None if v is None else len(v) for v in column.to_pylist()]
        assert counted.type == (pa.int32() if pa.types.is_string(type_) else pa.int64())


def test_text_beneath_a_null_is_no_value() -> None:
    whole = pa.array(["é\n", "a"])
    hidden = pa.Array.from_buffers(pa.string(), 2, [pa.py_buffer(b"\x02"), *whole.buffers()[1:]])
    assert hidden.to_pylist() == [None, "a"]
    assert texts.text_of(hidden) == "é\na".encode()
    assert texts.all_ascii(hidden)
    assert not texts.has(hidden, "\n")
    assert texts.characters(hidden).to_pylist() == [None, 1]


def drawn(rows: int, values: int) -> pa.Array:
    choose = random.Random(rows + values)
    return pa.array([f"N{choose.randrange(values)}" for _ in range(rows)])


def test_a_sample_tells_which_columns_repeat_themselves() -> None:
    for rows in (8_000, 20_000, 100_000):
        assert texts.repeats(drawn(rows, rows // 100)), rows
        assert not texts.repeats(drawn(rows, rows)), rows
        assert not texts.repeats(pa.array([f"N{at}" for at in range(rows)])), rows
        assert texts.repeats(pa.array([f"2013-01-{at // 50:05d}" for at in range(rows)])), "sorted"
        assert texts.repeats(pa.nulls(rows, pa.string()))
    assert texts.repeats(drawn(100_000, 4_000))
    assert not texts.repeats(pa.array(["x"] * (texts.ROWS_MIN - 1)))


PATTERNS = [r"^N[1-9][0-9A-Z]{2,4}$", r"\d", r"^\w+$", r"a$", r"\s", r"(?=a)", r"^$", "é", r"a\Z", r"x{300}"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("odd", [ODD, ["a", "N123AB", "N12", "", None], [None]], ids=["odd", "plain", "null"])
def test_a_column_that_repeats_itself_is_searched_as_any(pattern: str, odd: list[str | None]) -> None:
    choose = random.Random(6)
    values = [choose.choice(odd) for _ in range(6_000)]
    column = pa.array(values, pa.string())
    assert texts.repeats(column)
    search = Search(pattern)
    found = search(column.slice(700))
    assert found.type == pa.bool_()
    assert found.to_pylist() == pa.concat_arrays([search(column.slice(at, 100)) for at in range(700, 6_000, 100)]
                                                 ).to_pylist()
    assert found.to_pylist() == [None if v is None else re.search(pattern, v) is not None for v in values[700:]]
