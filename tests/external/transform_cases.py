"""Generated records, for both sides of the differential test of transforms; and a form in which both compare."""

from __future__ import annotations

import base64
import math
import random
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.records import Column, Records, Shape, arrow_of
from headrace.records.shape import DATE, DECIMAL, TIME, TIMESTAMP

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAMES = ("a", "b", "c", "id", "Name", "a.b", "ünï")
TEXTS = ("", "a", "0", "1", "-7", "+12", "127", "128", "-129", "32768", "2147483648", "9223372036854775808", "007",
         "1.5", "-0.0", "1e3", " 1", "1 ", "0x1p3", "NaN", "Infinity", "-Infinity", ".5", "5.", "1d", "2F", "1e400",
         "true", "TRUE", "yes", "3.4028236e38", "0.1", "123456.789", "ß", "2024-02-29", "2024-02-29T13:14:15.678Z",
         "1999-13-32", "20240229", "2024-2-9", " 2024-02-09", "24-02-29", "12:30", "29 Feb 2024 01:02 PM", "x2024",
         "2024-02-29 23:59:59+0130", "2024-02-29 23:59:59-08", "0001-01-01", "1582-10-10", "1500-02-29", "-5-1-1")
WHOLES = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}
INSTANTS = (0, 1, -1, 999, 86_400_000, 86_399_999, 1_709_211_600_123, -12_219_292_800_000, -12_219_292_800_001,
            -62_135_596_800_000, 253_402_300_799_999, 951_782_400_000, -1_000_000_000_000)
LOGICAL = {DATE: "int32", TIME: "int32", TIMESTAMP: "int64", DECIMAL: "bytes"}


# What there is to generate


def shape(rng: random.Random, depth: int = 0, *, named: bool = True) -> Shape:
    kind = rng.choice([*WHOLES, "float32", "float64", "boolean", "string", "string", "bytes", *LOGICAL,
                       *(("array", "map", "struct") if depth < 2 else ())])
    optional = rng.random() < 0.6
    if kind in LOGICAL:
        made = Shape(LOGICAL[kind], optional, kind, 1,
                     parameters=(("scale", str(rng.randrange(4))),) if kind == DECIMAL else ())
    elif kind == "array":
        made = Shape(kind, optional, values=shape(rng, 2))
    elif kind == "map":
        made = Shape(kind, optional, keys=Shape("string"), values=shape(rng, 2))
    elif kind == "struct":
        made = struct(rng, depth + 1).but(optional=optional)
    else:
        made = Shape(kind, optional)
    if named and made.name is None and rng.random() < 0.2:
        made = made.but(name="com.example.X", version=rng.choice([None, 3]), doc=rng.choice([None, "words"]),
                        parameters=rng.choice([(), (("p", "q"),)]))
    if rng.random() < 0.25 and kind != "struct":  # Java's SchemaBuilder takes no struct that was made elsewhere
        made = made.but(default=value(rng, made.but(optional=False)))
    return made


def struct(rng: random.Random, depth: int = 0) -> Shape:
    names = rng.sample(NAMES, rng.randrange(0 if rng.random() < 0.1 else 1, 6))
    made = Shape("struct", fields=tuple((name, shape(rng, depth)) for name in names))
    return made.but(name="com.example.Row", version=2, doc="a row") if rng.random() < 0.4 else made


def value(rng: random.Random, of: Shape) -> Any:
    """A plain value of a shape."""
    if of.optional and rng.random() < 0.25:
        return None
    if of.name in LOGICAL and LOGICAL[of.name] == of.type:
        at = rng.choice(INSTANTS) if rng.random() < 0.6 else rng.randrange(-62_135_596_800_000, 253_402_300_799_999)
        moment = EPOCH + timedelta(milliseconds=at)
        scale = int(dict(of.parameters).get("scale", "0"))
        number = Decimal(rng.choice([0, 5, -15, 12345, -(10**20) - 1, 2**63, 129])).scaleb(-scale)
        return {DATE: moment.date(), TIME: moment.time(), TIMESTAMP: moment, DECIMAL: number}[of.name]
    if of.type in WHOLES:
        top = 2 ** WHOLES[of.type]
        return rng.choice([0, 1, -1, 7, top - 1, -top, rng.randrange(-top, top), rng.randrange(-99, 99)])
    if of.type == "struct":
        return {name: value(rng, each) for name, each in of.fields}
    if of.type == "array":
        assert of.values
        return [value(rng, of.values) for _ in range(rng.randrange(3))]
    if of.type == "map":
        assert of.values
        return [(key, value(rng, of.values)) for key in rng.sample(("k", "l", "m"), rng.randrange(3))]
    return PLAIN[of.type](rng)


def _float(rng: random.Random) -> float:
    some: list[float] = [
        0.0, -0.0, 1.0, -1.5, 0.5, 1e7, 9999999.0, 1e-3, 9.99e-4, 1e10, 3e9, -3e9, 1e19, -1e19, 1e300, math.nan,
        math.inf, -math.inf, 5e-324, 2e-45, 128.7, rng.uniform(-1e6, 1e6), float(rng.randrange(-300, 300)),
        rng.uniform(-1, 1) * 10.0 ** rng.randrange(-40, 40)]
    return rng.choice(some)


def _single(rng: random.Random) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(_float(rng)))


PLAIN: Mapping[str, Callable[[random.Random], Any]] = {
    "float32": _single, "float64": _float, "boolean": lambda rng: rng.random() < 0.5,
    "string": lambda rng: rng.choice(TEXTS), "bytes": lambda rng: rng.choice([b"", b"\x00\xff", b"abc"])}


def loose(rng: random.Random, depth: int = 0) -> pa.DataType:
    """The Arrow type of schemaless values: what JSON has, mostly."""
    if depth == 0 or (depth < 3 and rng.random() < 0.25):
        names = rng.sample(NAMES, rng.randrange(0 if depth or rng.random() < 0.1 else 1, 6))
        return pa.struct([(name, loose(rng, depth + 1)) for name in names])
    return rng.choice([pa.int64(), pa.int64(), pa.float64(), pa.string(), pa.string(), pa.bool_(), pa.null(),
                       pa.int32(), pa.float32(), pa.int8(), pa.binary(), pa.list_(pa.int64()),
                       pa.timestamp("ms", "UTC"), pa.decimal128(38, 2)])


OF_ARROW = {"int64": "int64", "double": "float64", "string": "string", "bool": "boolean", "int32": "int32",
            "float": "float32", "int8": "int8", "binary": "bytes"}


def loose_value(rng: random.Random, kind: pa.DataType, *, top: bool = False) -> Any:
    if pa.types.is_null(kind) or (not top and rng.random() < 0.2):
        return None
    if pa.types.is_struct(kind):
        return {each.name: loose_value(rng, each.type) for each in kind}
    if pa.types.is_list(kind):
        return [rng.randrange(9) for _ in range(rng.randrange(3))]
    if pa.types.is_timestamp(kind):
        return EPOCH + timedelta(milliseconds=rng.choice(INSTANTS))
    if pa.types.is_decimal(kind):
        return Decimal("12.30")
    return value(rng, Shape(OF_ARROW[str(kind)]))


def column(rng: random.Random, n: int) -> Column:
    """A key or a value, n times."""
    way = rng.random()
    if way < 0.45:
        made = struct(rng).but(optional=rng.random() < 0.5)
        return Column(pa.array([value(rng, made) for _ in range(n)], arrow_of(made)), made)
    if way < 0.58:
        made = shape(rng)
        return Column(pa.array([value(rng, made) for _ in range(n)], arrow_of(made)), made)
    if way < 0.9:
        kind = loose(rng)
        return Column(pa.array([None if rng.random() < 0.1 else loose_value(rng, kind, top=True) for _ in range(n)],
                               kind))
    if way < 0.95:
        kind = rng.choice([pa.int64(), pa.string(), pa.float64(), pa.bool_(), pa.timestamp("ms", "UTC")])
        return Column(pa.array([loose_value(rng, kind) for _ in range(n)], kind))
    return Column.nothing(n)


def records(rng: random.Random, n: int) -> Records:
    sink = rng.random() < 0.5
    times = np.array([rng.choice([-1, 0, 1_709_211_600_123, 1_700_000_000_000 + rng.randrange(10**10)])
                      for _ in range(n)], np.int64)
    if sink:
        times = np.abs(times)
    headers = None if rng.random() < 0.5 else [
        [(rng.choice(["h", "i", "j"]), rng.choice(["x", "y"]), Shape("string")) for _ in range(rng.randrange(3))]
        for _ in range(n)]
    return Records(topic=rng.choice(["t", "db.public.orders", "a-b_c.2024"]), value=column(rng, n), key=column(rng, n),
                   index=np.arange(n), timestamps_ms=times, headers=headers,
                   partitions=np.arange(n) % 3 if sink else None, offsets=np.arange(n) * 7 if sink else None)


# The form in which both compare: tagged values of the oracle, but for order and for how numbers are written


def tagged(scalar: Any, of: Shape | None) -> Any:
    """An Arrow scalar as the oracle has it."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pa.types.is_struct(kind):
        names = [each.name for each in kind]
        inner = dict(of.fields) if of is not None and of.type == "struct" else dict[str, Shape]()
        pairs = [[name, tagged(scalar[at], inner.get(name))] for at, name in enumerate(names)]
        return {"map" if of is None else "struct": pairs}
    if pa.types.is_map(kind):
        values = kind.item_type
        return {"map": [[key, tagged(pa.scalar(each, values), of and of.values)] for key, each in scalar.as_py()]}
    if pa.types.is_list(kind):
        return {"list": [tagged(each, of and of.values) for each in scalar]}
    if pa.types.is_date32(kind):
        return {"date": scalar.value * 86_400_000}
    if pa.types.is_time(kind) or pa.types.is_timestamp(kind):
        return {"date": scalar.value}
    if pa.types.is_decimal(kind):
        return {"decimal": str(scalar.as_py())}
    if pa.types.is_binary(kind):
        return {"bytes": base64.b64encode(scalar.as_py()).decode()}
    if pa.types.is_string(kind) or pa.types.is_boolean(kind):
        return scalar.as_py()
    return {{"double": "float64", "float": "float32"}.get(str(kind), str(kind)): scalar.as_py()}


def told(of: Shape | None) -> Any:
    """A shape as the oracle has it."""
    if of is None:
        return None
    made: dict[str, Any] = {"type": of.type}
    made |= {name: getattr(of, name) for name in ("name", "version", "doc") if getattr(of, name) is not None}
    if of.optional:
        made["optional"] = True
    if of.default is not None:
        made["default"] = tagged(pa.scalar(of.default, arrow_of(of)), of)
    if of.parameters:
        made["parameters"] = dict(of.parameters)
    if of.type == "struct":
        made["fields"] = [[name, told(each)] for name, each in of.fields]
    if of.type == "map":
        made["keys"] = told(of.keys)
    if of.type in ("map", "array"):
        made["values"] = told(of.values)
    return made


def requests(given: Records) -> list[dict[str, Any]]:
    """Every record as the oracle takes it."""
    n = len(given)
    headers = given.headers or [()] * n
    return [{"topic": given.topic, "partition": None if given.partitions is None else int(given.partitions[at]),
             "timestamp": None if given.timestamps_ms[at] < 0 else int(given.timestamps_ms[at]),
             "key": {"schema": told(given.key.shape), "value": tagged(given.key.values[at], given.key.shape)},
             "value": {"schema": told(given.value.shape), "value": tagged(given.value.values[at], given.value.shape)},
             "headers": [[name, told(of), _header(each, of)] for name, each, of in headers[at]],
             **({"kind": "sink", "offset": int(given.offsets[at])} if given.offsets is not None else {})}
            for at in range(n)]


def _header(each: Any, of: Shape | None) -> Any:
    if each is None:
        return None
    if of is None:
        return _plain(each)
    if of.type == "array":  # of a literal: what its elements are may be unknown
        return {"list": [_header(one, of.values) for one in each]}
    if of.type == "map":
        return {"map": [[_header(key, of.keys), _header(one, of.values)] for key, one in each]}
    return tagged(pa.scalar(each, arrow_of(of)), of)


def _plain(each: Any) -> Any:
    """A schemaless header's value: its width is not kept."""
    if isinstance(each, bool | str) or each is None:
        return each
    if isinstance(each, datetime):
        return {"date": round((each - EPOCH).total_seconds() * 1000)}
    if isinstance(each, date):
        return {"date": (each - EPOCH.date()).days * 86_400_000}
    if isinstance(each, time):
        return _plain(datetime.combine(EPOCH.date(), each, UTC))
    if isinstance(each, Decimal):
        return {"decimal": str(each)}
    if isinstance(each, bytes):
        return {"bytes": base64.b64encode(each).decode()}
    if isinstance(each, dict):
        return {"map": [[name, _plain(one)] for name, one in each.items()]}
    if isinstance(each, list) and each and isinstance(each[0], tuple):
        return {"map": [[_plain(key), _plain(one)] for key, one in each]}
    if isinstance(each, list):
        return {"list": [_plain(one) for one in each]}
    return {"float64" if isinstance(each, float) else "int64": each}


def comparable(record: Any) -> Any:
    """A record of either side, so that `==` says whether they are the same."""
    return {**{name: record[name] for name in ("topic", "partition", "timestamp")},
            **{side: {"schema": _schema(record[side]["schema"]),
                      "value": _value(record[side]["value"], record[side]["schema"])} for side in ("key", "value")},
            "headers": [(name, _schema(of), _value(each, of, width=of is not None))
                        for name, of, each in record["headers"]]}


def _schema(of: Any) -> Any:
    if of is None:
        return None
    made = dict(of)
    if "default" in made:
        made["default"] = _value(made["default"], {**of, "default": None})
    if "fields" in made:
        made["fields"] = [(name, _schema(each)) for name, each in made["fields"]]
    return {name: _schema(each) if name in ("keys", "values") else each for name, each in made.items()}


def _value(each: Any, of: Any, *, width: bool = True) -> Any:
    """Numbers by what they are, maps without order. Null in a required field with a default is that default, which is
    what every reader of a Struct sees."""
    if each is None and of and of.get("default") is not None and not of.get("optional"):
        each = of["default"]
    if not isinstance(each, dict):
        return each
    (tag, inner), = each.items()
    if tag == "struct":
        fields = dict(of["fields"]) if of and of.get("fields") else {}
        return tag, [(name, _value(one, fields.get(name))) for name, one in inner]
    if tag in ("map", "list") and not inner and not width:
        return "empty"  # of a schemaless header: which of the two it is, is not kept
    if tag == "map":
        values, width = (of or {}).get("values"), width and not (of and of.get("values") is None)
        return tag, sorted(((repr(_value(key, None, width=width)), _value(one, values, width=width))
                            for key, one in inner), key=str)
    if tag == "list":
        values, width = (of or {}).get("values"), width and not (of and of.get("values") is None)
        return tag, [_value(one, values, width=width) for one in inner]
    if tag == "decimal":
        return tag, Decimal(inner).normalize()
    if tag.startswith("float"):
        return tag if width else "float", repr(float(inner))
    return tag if width or not tag.startswith("int") else "int", inner


def storable(each: Any, of: Any) -> bool:
    """Whether Arrow can hold what Java has made: no null where the schema requires a value and gives no default, no
    decimal of another scale, no date with hours or beyond the days that 32 bits reach. Java finds these out when it
    converts the record, or writes nonsense; we refuse the record at once."""
    if isinstance(each, dict) and "date" in each and abs(each["date"]) // 86_400_000 >= 2**31 - 1:
        return False
    if of is None:
        return not isinstance(each, dict) or "map" not in each or all(storable(one, None) for _, one in each["map"])
    if each is None:
        return bool(of.get("optional")) or of.get("default") is not None
    if of["type"] == "struct":
        fields = dict(of["fields"])
        return all(storable(one, fields[name]) for name, one in each["struct"])
    if isinstance(each, dict) and "date" in each and of.get("name") in (DATE, TIME):
        days, rest = divmod(each["date"], 86_400_000)
        return (rest if of["name"] == DATE else days) == 0
    if isinstance(each, dict) and "decimal" in each and of.get("name") == DECIMAL:
        exponent = Decimal(each["decimal"]).normalize().as_tuple().exponent
        return isinstance(exponent, int) and -exponent <= int(of["parameters"]["scale"])
    return True
