"""Arrow values as JSON, held to Python's json."""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.files.jsontext import array, lines, texts

pytestmark = pytest.mark.unit
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
KIND = pa.struct({"i": pa.int64(), "f": pa.float64(), "s": pa.string(), "l": pa.list_(pa.string()), "b": pa.bool_(),
                  "m": pa.map_(pa.string(), pa.float64()),
                  "r": pa.struct({"x": pa.list_(pa.struct({"y": pa.int8()}))})})
ROW = st.fixed_dictionaries({
    "i": st.none() | st.integers(-2**63, 2**63 - 1), "f": st.none() | st.floats(), "s": st.none() | TEXT,
    "l": st.none() | st.lists(st.none() | TEXT, max_size=3), "b": st.none() | st.booleans(),
    "m": st.none() | st.dictionaries(TEXT, st.none() | st.floats(), max_size=2),
    "r": st.none() | st.fixed_dictionaries({"x": st.none() | st.lists(
        st.none() | st.fixed_dictionaries({"y": st.none() | st.integers(-128, 127)}), max_size=2)})})


def plain(value: Any) -> Any:
    """What JSON has of a value."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


@given(st.lists(st.none() | ROW, max_size=6), st.integers(0, 2))
def test_agrees_with_json(rows: list[dict[str, Any] | None], skip: int) -> None:
    made = [row and {**row, "m": row["m"] and list(row["m"].items()) if row["m"] is not None else None} for row in rows]
    values = pa.array(made, KIND)[skip:]
    expected = [plain(row) for row in rows[skip:]]
    found = [json.loads(text) for text in texts(values).to_pylist()]
    assert found == expected
    assert [type(row["f"]) for row in found if row] == [type(row["f"]) for row in expected if row], "1.0 stays 1.0"
    assert json.loads(array(values)) == expected
    assert [json.loads(line) for line in lines(values).splitlines()] == expected


def test_what_json_lacks() -> None:
    cases: list[tuple[pa.Array, list[Any]]] = [
        (pa.array([Decimal("1.20"), None]), ["1.20", None]), (pa.array([b"\x00\xff\"", None]), ["\0ÿ\"", None]),
        (pa.array([b"ab", None], pa.binary(2)), ["ab", None]),
        (pa.array([dt.date(1, 1, 1), None]), ["0001-01-01", None]),
        (pa.array([dt.time(1, 2, 3)], pa.time32("ms")), ["01:02:03.000"]),
        (pa.array([dt.datetime(1969, 1, 1)], pa.timestamp("us")), ["1969-01-01T00:00:00.000000"]),
        (pa.array([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], pa.timestamp("ms", "Europe/Berlin")),
         ["2020-01-01T00:00:00.000Z"]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]), (pa.nulls(2), [None, None]),
        (pa.array([1.0, 65504.0], pa.float16()), [1.0, 65504.0]),
        (pa.array([[1], None], pa.large_list(pa.int8())), [[1], None]),
        (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), [[1, 2], None]),
        (pa.array([{}, None], pa.struct([])), [{}, None]),
        (pa.array([[(1, "x")]], pa.map_(pa.int32(), pa.string())), [{"1": "x"}])]
    for values, expected in cases:
        assert [json.loads(text) for text in texts(values).to_pylist()] == expected, values.type
    assert (array(pa.nulls(0)), lines(pa.nulls(0))) == (b"[]", b"")
