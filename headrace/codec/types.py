"""Avro types as a small tree, and the Arrow type each is held in.

    null, boolean, int, long, float, double, bytes, string     the Arrow type of the same width
    fixed(n)                    fixed_size_binary(n)
    enum                        string
    array, map                  list, map<string, …>
    record                      struct, fields in order
    [null, T]                   T, nullable
    [A, B, …]                   struct with one nullable member per branch, exactly one of them set; null as a whole
    decimal (bytes, fixed)      decimal128 up to 38 digits, decimal256 up to 76
    uuid (string, fixed(16))    string
    date, time-*                date32, time32[ms], time64[us]
    timestamp-*                 timestamp[ms|us|ns, UTC]; local-timestamp-*: without a zone
    duration                    struct<months: uint32, days: uint32, millis: uint32>

General unions become structs because Polars has no unions: a struct can be read, tested and built in every step.
"""

from __future__ import annotations

import decimal
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "no default", "__bool__": lambda self: False})()

PLAIN: dict[str, pa.DataType] = {
    "null": pa.null(), "boolean": pa.bool_(), "int": pa.int32(), "long": pa.int64(), "float": pa.float32(),
    "double": pa.float64(), "bytes": pa.binary(), "string": pa.string(),
}
LOGICAL: dict[tuple[str, str], pa.DataType] = {
    ("int", "date"): pa.date32(), ("int", "time-millis"): pa.time32("ms"), ("long", "time-micros"): pa.time64("us"),
    ("string", "uuid"): pa.string(), ("fixed", "uuid"): pa.string(),
    ("fixed", "duration"): pa.struct([pa.field(n, pa.uint32(), nullable=False) for n in ("months", "days", "millis")]),
    **{("long", f"{local}timestamp-{name}"): pa.timestamp(unit, zone)
       for local, zone in (("", "UTC"), ("local-", None))
       for name, unit in (("millis", "ms"), ("micros", "us"), ("nanos", "ns"))},
}
"""(Avro type, logical type) → Arrow type; `decimal` is apart, since it has parameters."""
SIZED = {"uuid": 16, "duration": 12}
"""Logical types of `fixed` need exactly this size."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record; `default` is JSON, or MISSING; `pii` the tag of personal data, empty without one."""

    name: str
    type: Type
    default: Any = MISSING
    aliases: tuple[str, ...] = ()
    pii: str = field(default="", compare=False)


@dataclass(frozen=True)
class Type:
    """One Avro type. Only what its `kind` needs is set; a logical type that does not fit is ignored, as Avro says."""

    kind: str
    logical: str | None = None
    name: str = ""
    aliases: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    symbols: tuple[str, ...] = ()
    default: str | None = None
    size: int = 0
    precision: int = 0
    scale: int = 0
    items: Type | None = None
    branches: tuple[Type, ...] = ()

    @cached_property
    def arrow(self) -> pa.DataType:
        """The Arrow type; whether null is allowed is the field's affair, see `nullable`."""
        if self.logical == "decimal":
            return (pa.decimal128 if self.precision <= 38 else pa.decimal256)(self.precision, self.scale)
        if self.logical is not None:
            return LOGICAL[self.kind, self.logical]
        match self.kind:
            case "fixed":
                return pa.binary(self.size)
            case "enum":
                return pa.string()
            case "array":
                return pa.list_(self.item.as_field("item"))
            case "map":
                return pa.map_(pa.string(), self.item.as_field("value"))
            case "record":
                return pa.struct([f.type.as_field(f.name) for f in self.fields])
            case "union":
                some = self.some
                if len(some) == 1:
                    return some[0].arrow
                members = [pa.field(n, b.arrow) for n, b in zip(self.members, some, strict=True)]
                return pa.struct(members) if some else pa.null()
        return PLAIN[self.kind]

    @cached_property
    def weight(self) -> int:
        """How many types there are when every reference to a named type is written out."""
        return 1 + sum(child.weight for child in self.children)

    @property
    def children(self) -> tuple[Type, ...]:
        """The types directly within."""
        return (*(f.type for f in self.fields), *((self.items,) if self.items else ()), *self.branches)

    @property
    def item(self) -> Type:
        """What an array or a map holds."""
        assert self.items is not None
        return self.items

    @property
    def some(self) -> tuple[Type, ...]:
        """A union's branches but null."""
        return tuple(b for b in self.branches if b.kind != "null")

    @property
    def members(self) -> tuple[str, ...]:
        """The struct members that a general union's branches become: short names, full ones where these collide."""
        short = [b.name.rpartition(".")[2] or b.kind for b in self.some]
        return tuple(n if short.count(n) == 1 else b.name or n for n, b in zip(short, self.some, strict=True))

    @property
    def nullable(self) -> bool:
        return self.kind == "null" or any(b.kind == "null" for b in self.branches)

    @property
    def label(self) -> str:
        """For messages."""
        if self.kind == "union":
            return "[" + ", ".join(b.label for b in self.branches) + "]"
        kind = f"{self.kind}<{self.item.label}>" if self.items else f"{self.kind} {self.name}".rstrip()
        if self.logical == "decimal":
            return f"{kind} (decimal({self.precision},{self.scale}))"
        return f"{kind} ({self.logical})" if self.logical else kind

    def as_field(self, name: str) -> pa.Field:
        return pa.field(name, self.arrow, nullable=self.nullable)

    def plain(self) -> Type:
        """The same without its logical type."""
        return replace(self, logical=None, precision=0, scale=0)

    def pii(self, path: str = "") -> Iterator[tuple[str, str]]:
        """(path, tag) of the fields within that are tagged: `customer.email`, `contacts[].phone`, `notes{}.text`."""
        for one in self.fields:
            here = f"{path}.{one.name}" if path else one.name
            if one.pii:
                yield here, one.pii
            yield from one.type.pii(here)
        if self.items is not None:
            yield from self.items.pii(path + ("[]" if self.kind == "array" else "{}"))
        for member, branch in zip(self.members, self.some, strict=True):
            yield from branch.pii(path if len(self.some) == 1 else f"{path}.{member}")

    def walk(self) -> Iterator[Type]:
        """This type and all within it."""
        yield self
        for child in self.children:
            yield from child.walk()


def value_of(type_: Type, default: Any) -> Any:
    """A JSON default as the Python value that `pa.array([…], type_.arrow)` takes. Raises ValueError when it is none."""
    kind = type_.kind
    if kind == "union":
        return _union_value(type_, default)
    if kind == "record":
        if not isinstance(default, dict):
            raise ValueError(f"{json.dumps(default)} is not a JSON object")
        unset = [f.name for f in type_.fields if f.name not in default and f.default is MISSING]
        if unset:
            raise ValueError(f"it leaves {', '.join(unset)} unset")
        return {f.name: value_of(f.type, default.get(f.name, f.default)) for f in type_.fields}
    if kind == "array" and isinstance(default, list):
        return [value_of(type_.item, v) for v in default]
    if kind == "map" and isinstance(default, dict):
        return [(k, value_of(type_.item, v)) for k, v in default.items()]
    if kind in ("bytes", "fixed") and isinstance(default, str):
        return _bytes_value(type_, default.encode("latin-1"))
    accepted: dict[str, Any] = {"null": type(None), "boolean": bool, "int": int, "long": int, "float": (int, float),
                                "double": (int, float), "string": str, "enum": str}
    wanted = accepted.get(kind)
    if wanted is None or not isinstance(default, wanted) or (isinstance(default, bool) and kind != "boolean"):
        raise ValueError(f"{json.dumps(default)} is not {type_.label}")
    if kind == "enum" and default not in type_.symbols:
        raise ValueError(f"{default!r} is not a symbol of {type_.label}")
    bits = {"int": 31, "long": 63}.get(kind)
    if bits and not -(1 << bits) <= default < 1 << bits:
        raise ValueError(f"{default} is out of the range of {kind}")
    return float(default) if kind in ("float", "double") else default


def _union_value(type_: Type, default: Any) -> Any:
    """The default of a union belongs to the first branch that it fits."""
    for branch in type_.branches:
        try:
            value = value_of(branch, default)
        except ValueError:
            continue
        if branch.kind == "null" or len(type_.some) == 1:
            return value
        return {type_.members[type_.some.index(branch)]: value}
    raise ValueError(f"{json.dumps(default)} fits no branch of {type_.label}")


def _bytes_value(type_: Type, raw: bytes) -> Any:
    if type_.kind == "fixed" and len(raw) != type_.size:
        raise ValueError(f"{len(raw)} bytes where {type_.label} has {type_.size}")
    match type_.logical:
        case "decimal":
            unscaled = int.from_bytes(raw, "big", signed=True)
            if not raw or abs(unscaled) >= 10**type_.precision:
                raise ValueError(f"{unscaled} has more digits than {type_.label}")
            return decimal.Decimal(unscaled).scaleb(-type_.scale, decimal.Context(prec=100))
        case "uuid":
            h = raw.hex()
            return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"
        case "duration":
            return {n: int.from_bytes(raw[i:i + 4], "little") for n, i in (("months", 0), ("days", 4), ("millis", 8))}
    return raw


def default_array(type_: Type, default: Any) -> pa.Array:
    """One row: the field's default."""
    return pa.array([value_of(type_, default)], type_.arrow)
