"""Shapes and plain values as the oracle (connect_oracle.py) tells and takes them; generated ones."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from headrace.records.shape import DATE, DECIMAL, TIME, TIMESTAMP, Shape, arrow_of

EXACT = decimal.Context(prec=200)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LOGICAL = {DATE: "int32", TIME: "int32", TIMESTAMP: "int64"}


def told_shape(shape: Shape | None) -> Any:
    """A shape for the oracle."""
    if shape is None:
        return None
    told: dict[str, Any] = {"type": shape.type}
    for key in ("optional", "name", "version", "doc"):
        if getattr(shape, key) not in (None, False):
            told[key] = getattr(shape, key)
    if shape.default is not None:
        told["default"] = told_value(shape.default, shape)
    if shape.parameters:
        told["parameters"] = dict(shape.parameters)
    if shape.type == "struct":
        told["fields"] = [[name, told_shape(each)] for name, each in shape.fields]
    if shape.keys is not None:
        told["keys"] = told_shape(shape.keys)
    if shape.values is not None:
        told["values"] = told_shape(shape.values)
    return told


def told_value(value: Any, shape: Shape | None, *, tag: str = "map") -> Any:
    """A plain value, as `to_pylist` gives it, for the oracle. `tag`: "linked" for maps that keep their order."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, decimal.Decimal):
        return {"decimal": str(value)}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, dt.datetime):
        return {"date": (value - EPOCH) // dt.timedelta(milliseconds=1)}
    if isinstance(value, dt.date):
        return {"date": (value - EPOCH.date()).days * 86_400_000}
    if isinstance(value, dt.time):
        return {"date": ((value.hour * 60 + value.minute) * 60 + value.second) * 1000 + value.microsecond // 1000}
    if isinstance(value, int):
        return {shape.type if shape else "int64": value}
    if isinstance(value, float):
        return {shape.type if shape else "float64": value}
    if shape is None:
        return told_loose(value)
    if shape.type == "struct":
        return {"struct": [[name, told_value(value[name], each, tag=tag)] for name, each in shape.fields]}
    if shape.type == "map":
        entries = value.items() if isinstance(value, dict) else value
        return {tag: [[told_value(key, shape.keys), told_value(each, shape.values, tag=tag)] for key, each in entries]}
    return {"list": [told_value(each, shape.values, tag=tag) for each in value]}


def told_loose(value: Any) -> Any:
    """A schemaless value: parsed JSON."""
    if isinstance(value, dict):
        return {"map": [[key, told_value(each, None)] for key, each in value.items()]}
    return {"list": [told_value(each, None) for each in value]}


def same(value: Any) -> Any:
    """What the oracle tells, with the entries of maps in one order, NaN equal to itself and floats as they print."""
    if isinstance(value, list):
        return [same(each) for each in value]
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        if set(value) == {"map"}:
            return {"map": sorted((same(each) for each in value["map"]), key=repr)}
        if set(value) == {"decimal"}:
            return {"decimal": str(decimal.Decimal(value["decimal"]).normalize(EXACT))}
        return {key: same(each) for key, each in value.items()}
    return value


# Generated

NAMES = st.sampled_from(["a", "b", "id", "Name", "Größe", "x_1", "AaAa", "BBBB", "AaBB", 'q"', "k e y", "z" * 20,
                         *(f"f{n}" for n in range(30))])
# Before 1582 Java counts in the Julian calendar.
INSTANTS = st.datetimes(dt.datetime(1600, 1, 1), dt.datetime(9999, 12, 30)).map(
    lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000, tzinfo=dt.UTC))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{f"int{bits}": st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 16, 32, 64)},
    "float32": st.floats(width=32), "float64": st.floats() | st.floats(-1e8, 1e8).map(lambda x: round(x, 2)),
    "boolean": st.booleans(), "string": TEXT, "bytes": st.binary(max_size=9),
    DATE: st.dates(dt.date(1600, 1, 1)),
    TIME: st.times().map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)),
    TIMESTAMP: INSTANTS}


def primitives(optional: st.SearchStrategy[bool]) -> st.SearchStrategy[Shape]:
    plain = st.builds(Shape, st.sampled_from(list(VALUES)[:9]), optional)
    logical = st.builds(lambda name, opt: Shape(LOGICAL[name], opt, name=name, version=1),
                        st.sampled_from(list(LOGICAL)), optional)
    decimals = st.builds(lambda scale, opt: Shape("bytes", opt, name=DECIMAL, version=1,
                                                  parameters=(("scale", str(scale)),)), st.integers(0, 9), optional)
    return plain | logical | decimals


def values_of(shape: Shape) -> st.SearchStrategy[Any]:
    """Plain values of a shape."""
    if shape.name == DECIMAL:
        scale = int(dict(shape.parameters)["scale"])
        found: st.SearchStrategy[Any] = st.integers(-10**25, 10**25).map(lambda n: decimal.Decimal(n).scaleb(-scale))
    elif shape.name in LOGICAL:
        found = VALUES[str(shape.name)]
    elif shape.type == "struct":
        found = st.fixed_dictionaries({name: values_of(each) for name, each in shape.fields})
    elif shape.type == "array":
        assert shape.values
        found = st.lists(values_of(shape.values), max_size=4)
    elif shape.type == "map":
        assert shape.keys
        assert shape.values
        found = st.lists(st.tuples(values_of(shape.keys.but(optional=False)), values_of(shape.values)), max_size=20,
                         unique_by=lambda entry: repr(entry[0]))
    else:
        found = VALUES[shape.type]
    return found | st.none() if shape.optional else found


@st.composite
def shapes(draw: st.DrawFn, depth: int = 3, names: st.SearchStrategy[str] = NAMES) -> Shape:
    optional = st.booleans()
    kind = draw(st.sampled_from(["struct", "struct", "array", "map", "plain"])) if depth else "plain"
    if kind == "plain":
        return draw(primitives(optional))
    extra: dict[str, Any] = draw(st.fixed_dictionaries({}, optional={
        "doc": TEXT, "version": st.integers(1, 99),
        "parameters": st.dictionaries(NAMES, TEXT, max_size=2).map(lambda found: tuple(found.items()))}))
    if kind == "struct":
        fields = tuple((name, draw(with_default(draw(shapes(depth=depth - 1, names=names)))))
                       for name in draw(st.lists(names, max_size=5, unique=True)))
        name = draw(st.none() | st.just(f"space.Record{draw(st.integers(0, 10**9))}"))
        return Shape("struct", draw(optional), name=name, fields=fields, **extra)
    values = draw(shapes(depth=depth - 1, names=names))
    if kind == "array":
        return Shape("array", draw(optional), values=values, **extra)
    keys = draw(st.sampled_from([Shape("string"), Shape("string"), Shape("int32"), Shape("int64"), Shape("boolean")]))
    return Shape("map", draw(optional), keys=keys, values=values, **extra)


def with_default(shape: Shape) -> st.SearchStrategy[Shape]:
    if shape.type in ("struct", "array", "map", "float32"):
        return st.just(shape)
    return st.just(shape) | values_of(shape.but(optional=False)).map(lambda value: shape.but(default=value))


@st.composite
def columns(draw: st.DrawFn, size: int = 5, names: st.SearchStrategy[str] = NAMES) -> tuple[Shape, pa.Array]:
    """A shape and a column of it."""
    shape = draw(shapes(names=names))
    rows = draw(st.lists(values_of(shape), min_size=1, max_size=size))
    return shape, pa.array(rows, loose(arrow_of(shape)))


def loose(kind: pa.DataType) -> pa.DataType:
    """The same type, null allowed everywhere."""
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(each.name, loose(each.type)) for each in kind])
    if pa.types.is_list(kind):
        return pa.list_(loose(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(loose(kind.key_type), loose(kind.item_type))
    return kind


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | TEXT, inner, max_size=20), max_leaves=12)
"""Parsed JSON."""
