"""Kafka Connect's schemas as Avro's, and back, as Confluent's AvroConverter maps them (its AvroData, default settings).

What Avro has no word for stands in properties: connect.name, connect.version, connect.parameters, connect.doc,
connect.default, and connect.type of int8 and int16. Optional is a union with null; a struct without a name is
io.confluent.connect.avro.ConnectDefault. Ours beyond Confluent's: decimals have the digits of their column; instants
and times finer than milliseconds stay such (timestamp-micros …), where Confluent reads plain numbers.
"""

from __future__ import annotations

import decimal
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

import numpy as np
import pyarrow as pa

from headrace.codec import AvroSchema, parse
from headrace.codec.types import MISSING, Field, Type, default_array
from headrace.errors import SchemaError
from headrace.records.converters.json_text import unscaled
from headrace.records.shape import DATE, DECIMAL, DECIMAL_DIGITS, PRECISION, TIME, TIMESTAMP, Shape, constant, shape_of

NAMESPACE = "io.confluent.connect.avro"
DEFAULT_NAME, ENTRY = "ConnectDefault", "MapEntry"
ENUM, UNION = f"{NAMESPACE}.Enum", f"{NAMESPACE}.Union"
RECORD_DOC, FIELD_DOC, ENUM_DOC = (f"{NAMESPACE}.{word}" for word in ("record.doc", "field.doc.", "enum.doc."))
ENUM_DEFAULT, FIELD_DEFAULT = f"{NAMESPACE}.enum.default.", f"{NAMESPACE}.field.default"
FIXED_SIZE, INTERNAL = "connect.fixed.size", "connect.internal.type"
PRECISION_DEFAULT = 64
AVRO = {"int8": "int", "int16": "int", "int32": "int", "int64": "long", "float32": "float", "float64": "double",
        "boolean": "boolean", "string": "string", "bytes": "bytes"}
LOGICAL = {DATE: "date", TIME: "time-millis", TIMESTAMP: "timestamp-millis"}
FINER = {"us": "micros", "ns": "nanos"}


# Shape → Avro


def avro_of(shape: Shape, kind: pa.DataType, *, scrub: bool = False) -> AvroSchema:
    """The Avro schema of a column. Raises SchemaError for what Avro has no type for, or a name it does not allow."""
    return parse(json.dumps(_Writer(scrub).schema(shape, kind)), where=f"the Avro schema of {shape.name or shape.type}")


class _Writer:
    """One schema's JSON. Avro defines a name once: its next use is the name alone."""

    def __init__(self, scrub: bool) -> None:
        self.scrub = scrub
        self.unnamed = 0
        self.written: list[tuple[Shape, pa.DataType, str]] = []

    def schema(self, shape: Shape, kind: pa.DataType) -> Any:
        if pa.types.is_null(kind):
            return "null"
        if shape.name == UNION:
            branches = [self.bare(each, _part(kind, at)) for at, (_, each) in enumerate(shape.fields)]
            return ["null", *branches] if shape.optional else branches
        bare = self.bare(shape, kind)
        if not shape.optional:
            return bare
        return ["null", bare] if shape.default is None or shape.type == "struct" else [bare, "null"]

    def bare(self, shape: Shape, kind: pa.DataType) -> Any:
        """The type without its null."""
        shape = shape.but(optional=False)
        name = None
        if shape.type == "struct" or FIXED_SIZE in dict(shape.parameters):
            name = self.known(shape, kind)
            if name is not None:
                return name
            name = self.name(shape)
            self.written.append((shape, kind, name))
        made = {**self.type(shape, kind, name), **self.properties(shape), **_logical(shape, kind)}
        return made if len(made) > 1 else made["type"]

    def known(self, shape: Shape, kind: pa.DataType) -> str | None:
        """The name of a type that was written before."""
        return next((name for other, type_, name in self.written if other == shape and type_.equals(kind)), None)

    def name(self, shape: Shape) -> str:
        if shape.name is None:
            self.unnamed += 1
            return f"{NAMESPACE}.{DEFAULT_NAME}{self.unnamed if self.unnamed > 1 else ''}"
        return ".".join(map(scrubbed, shape.name.split("."))) if self.scrub else shape.name

    def type(self, shape: Shape, kind: pa.DataType, name: str | None) -> dict[str, Any]:
        """What Avro itself says of the type."""
        parameters = dict(shape.parameters)
        match shape.type:
            case "struct":
                fields = [self.field(each, inner, _part(kind, at), parameters.get(FIELD_DOC + each))
                          for at, (each, inner) in enumerate(shape.fields)]
                doc = parameters.get(RECORD_DOC)
                return {"type": "record", **_named(name), **({"doc": doc} if doc else {}), "fields": fields}
            case "array":
                assert shape.values is not None
                return {"type": "array", "items": self.schema(shape.values, kind.value_type)}
            case "map":
                return self.map(shape, kind)
        if name is not None:
            return {"type": "fixed", **_named(name), "size": int(parameters[FIXED_SIZE])}
        return {"type": AVRO[shape.type]}

    def map(self, shape: Shape, kind: pa.DataType) -> dict[str, Any]:
        """A map, or where its keys are no text, an array of entries."""
        assert shape.keys is not None
        assert shape.values is not None
        if shape.keys.type == "string" and not shape.keys.optional:
            return {"type": "map", "values": self.schema(shape.values, kind.item_type)}
        entry = Shape("struct", name=shape.name, fields=(("key", shape.keys), ("value", shape.values)))
        known = self.known(entry, kind)
        if known is not None:
            return {"type": "array", "items": known}
        usual = f"{NAMESPACE}.{ENTRY}"
        taken = sum(name.startswith(usual) for _, _, name in self.written)
        name = shape.name or (f"{usual}{taken + 1}" if taken else usual)  # Confluent gives different ones one name
        self.written.append((entry, kind, name))
        fields = [self.field(each, inner, of, None) for each, inner, of in (
            ("key", shape.keys, kind.key_type), ("value", shape.values, kind.item_type))]
        made = {"type": "record", **_named(name), "fields": fields}
        return {"type": "array", "items": made if name == usual else {**made, INTERNAL: ENTRY}}

    def field(self, name: str, shape: Shape, kind: pa.DataType, doc: str | None) -> dict[str, Any]:
        made: dict[str, Any] = {"name": scrubbed(name) if self.scrub else name, "type": self.schema(shape, kind)}
        if doc is not None:
            made["doc"] = doc
        if shape.default is not None and not (shape.optional and shape.type == "struct"):
            made["default"] = json_default(shape, shape.default)
        elif shape.optional:
            made["default"] = None
        return made

    def properties(self, shape: Shape) -> dict[str, Any]:
        """What Connect says beyond Avro."""
        made: dict[str, Any] = {}
        for key, value in (("doc", shape.doc), ("version", shape.version), ("name", shape.name)):
            if value is not None:
                made[f"connect.{key}"] = value
        parameters = {key: value for key, value in shape.parameters if key != FIELD_DEFAULT}
        if parameters:
            made["connect.parameters"] = parameters
            made.update({key: value for key, value in parameters.items() if key.startswith("avro")})
        if shape.default is not None and FIELD_DEFAULT not in dict(shape.parameters):
            made["connect.default"] = json_default(shape, shape.default)
        if shape.type in ("int8", "int16"):
            made["connect.type"] = shape.type
        return made


def _named(name: str | None) -> dict[str, str]:
    namespace, _, short = str(name).rpartition(".")
    return {"name": short, "namespace": namespace} if namespace else {"name": short}


def _part(kind: pa.DataType, at: int) -> pa.DataType:
    return kind.field(at).type


def _logical(shape: Shape, kind: pa.DataType) -> dict[str, Any]:
    """The logical type of a shape whose column is of an Arrow type."""
    if shape.name == DECIMAL:
        parameters = dict(shape.parameters)
        told = int(parameters[PRECISION]) if PRECISION in parameters else (
            kind.precision if kind.precision < DECIMAL_DIGITS else PRECISION_DEFAULT)
        return {"logicalType": "decimal", "precision": told, "scale": int(parameters.get("scale", "0"))}
    if shape.name == TIMESTAMP and pa.types.is_timestamp(kind) and (kind.unit in FINER or kind.tz is None):
        return {"logicalType": f"{'' if kind.tz else 'local-'}timestamp-{FINER.get(kind.unit, 'millis')}"}
    if shape.name == TIME and pa.types.is_time64(kind):
        return {"type": "long", "logicalType": "time-micros"}
    return {"logicalType": LOGICAL[shape.name]} if shape.name in LOGICAL else {}


def json_default(shape: Shape, value: Any) -> Any:
    """A default in Avro's JSON."""
    if value is None:
        return None
    if shape.name == DECIMAL:
        return unscaled(decimal.Decimal(value), int(dict(shape.parameters).get("scale", "0"))).decode("latin-1")
    if shape.name in LOGICAL:
        stored = constant(shape, value)
        return stored.cast(pa.int64() if shape.type == "int64" else pa.int32())[0].as_py()
    match shape.type:
        case "bytes":
            return value.decode("latin-1")
        case "array":
            assert shape.values is not None
            return [json_default(shape.values, each) for each in value]
        case "map":
            assert shape.values is not None
            entries = value.items() if isinstance(value, Mapping) else value
            return {key: json_default(shape.values, each) for key, each in entries}
        case "struct":
            return {name: json_default(each, value.get(name)) for name, each in shape.fields}
        case "float32":
            return float(str(np.float32(value)))
    return value


def scrubbed(name: str) -> str:
    """A name that Avro allows, as Confluent's scrub.invalid.names makes it."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or not name:
        return name
    encoded = quote_plus(name, safe="*-._")
    return re.sub(r"[^A-Za-z0-9_]", "_", f"x{encoded}" if encoded[0].isdigit() else encoded)


# Avro → Shape


def shape_from(schema: AvroSchema) -> Shape:
    """The shape of what an Avro schema writes. Raises SchemaError for what Kafka Connect has no type for."""
    if schema.type.name:
        return _Reader().shape(schema.type, schema.json)
    return _Reader().shape(schema.type.fields[0].type, schema.json)


class _Reader:
    """Goes over a schema's types and its JSON side by side: the JSON has the properties."""

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}

    def shape(self, type_: Type, told: Any, default: Any = MISSING) -> Shape:
        if isinstance(told, dict) and isinstance(told.get("type"), dict | list):
            told = told["type"] if isinstance(told["type"], list) else {**told, **told["type"]}
        if type_.kind == "union":
            return self.union(type_, told)
        if type_.name and isinstance(told, dict) and told.get("type") in ("record", "error", "enum", "fixed"):
            self.named[type_.name] = told
        elif type_.name:
            told = self.named.get(type_.name, {})
        told = told if isinstance(told, dict) else {}
        made = self.bare(type_, told)
        parameters = dict(made.parameters)
        if default is not MISSING and "connect.default" not in told:
            parameters[FIELD_DEFAULT] = "true"
        parameters |= {key: str(value) for key, value in (told.get("connect.parameters") or {}).items()}
        parameters |= {key: str(value) for key, value in told.items() if key.startswith("avro")}
        name = told.get("connect.name") or made.name or type_.name or None
        if name and name.startswith(f"{NAMESPACE}.{DEFAULT_NAME}"):
            name = None
        version = told.get("connect.version", made.version)
        made = made.but(name=name, doc=told.get("connect.doc"), parameters=tuple(parameters.items()),
                        version=version if isinstance(version, int) else None)
        if default is not MISSING and default is not None:
            return made.but(default=_plain_default(type_, default))
        return _with_default(made, told.get("connect.default"))

    def union(self, type_: Type, told: Any) -> Shape:
        written = [each for each in told if each != "null"] if isinstance(told, list) else []
        some = type_.some
        written = written if len(written) == len(some) else [each.name or each.kind for each in some]
        if len(some) == 1 and type_.nullable:
            return self.shape(some[0], written[0]).but(optional=True)
        fields = tuple((name, self.shape(each, one).but(optional=True))
                       for name, each, one in zip(type_.members, some, written, strict=True))
        return Shape("struct", name=UNION, fields=fields, optional=type_.nullable)

    def bare(self, type_: Type, told: Mapping[str, Any]) -> Shape:
        """The shape without its properties."""
        match type_.kind:
            case "null":
                raise SchemaError("Standalone null schemas are not supported by this converter")
            case "record":
                return self.record(type_, told)
            case "array":
                return self.array(type_, told)
            case "map":
                return Shape("map", keys=Shape("string"), values=self.shape(type_.item, told.get("values")))
            case "enum":
                return _enum(type_, told)
        if type_.logical is None and type_.kind == "int":
            kind = told.get("connect.type", "int32")
            return Shape(kind if kind in ("int8", "int16") else "int32")
        found = shape_of(type_.arrow, optional=False)
        parameters = dict(found.parameters)
        if type_.logical == "decimal" and type_.precision != PRECISION_DEFAULT:
            parameters[PRECISION] = str(type_.precision)
        if type_.kind == "fixed" and type_.logical in (None, "decimal"):
            parameters[FIXED_SIZE] = str(type_.size)
        return found.but(parameters=tuple(parameters.items()))

    def record(self, type_: Type, told: Mapping[str, Any]) -> Shape:
        written = {each["name"]: each for each in told.get("fields", ())}
        parameters = [(RECORD_DOC, told["doc"])] if told.get("doc") is not None else []
        parameters += [(FIELD_DOC + name, each["doc"]) for name, each in written.items() if each.get("doc") is not None]
        fields = tuple((each.name, self.field(each, written.get(each.name, {}))) for each in type_.fields)
        return Shape("struct", fields=fields, parameters=tuple(parameters))

    def field(self, field: Field, told: Mapping[str, Any]) -> Shape:
        default = field.default if field.type.kind != "union" else MISSING  # as AvroData: connect.default has those
        return self.shape(field.type, told.get("type"), default)

    def array(self, type_: Type, told: Mapping[str, Any]) -> Shape:
        item, inner = type_.item, told.get("items")
        entry = item.name == f"{NAMESPACE}.{ENTRY}" or (isinstance(inner, dict) and inner.get(INTERNAL) == ENTRY)
        if not entry or [each.name for each in item.fields] != ["key", "value"]:
            return Shape("array", values=self.shape(item, inner))
        written = {each["name"]: each for each in inner["fields"]} if isinstance(inner, dict) else {}
        keys, values = (self.shape(each.type, written.get(each.name, {}).get("type")) for each in item.fields)
        return Shape("map", keys=keys, values=values)


def _enum(type_: Type, told: Mapping[str, Any]) -> Shape:
    """An enum is text; its symbols are in the parameters."""
    short = type_.name.rpartition(".")[2]
    parameters = [(ENUM_DOC + short, told["doc"])] if told.get("doc") is not None else []
    parameters += [(ENUM_DEFAULT + short, type_.default)] if type_.default is not None else []
    parameters += [(ENUM, type_.name), *((f"{ENUM}.{symbol}", symbol) for symbol in type_.symbols)]
    return Shape("string", parameters=tuple(parameters))


def _plain_default(type_: Type, default: Any) -> Any:
    return default_array(type_, default)[0].as_py()


def _with_default(shape: Shape, told: Any) -> Shape:
    """The shape with the default that its properties tell; one that does not fit is ignored, as AvroData does."""
    if told is None:
        return shape
    try:
        return shape.but(default=constant(shape, _from_json(shape, told))[0].as_py())
    except (SchemaError, ValueError, TypeError, AttributeError, KeyError):
        return shape


def _from_json(shape: Shape, told: Any) -> Any:
    """A default of Avro's JSON as what pyarrow takes."""
    if told is None:
        return None
    if shape.name == DECIMAL:
        number = int.from_bytes(told.encode("latin-1"), "big", signed=True)
        return decimal.Decimal(number).scaleb(-int(dict(shape.parameters).get("scale", "0")),
                                              decimal.Context(prec=100))
    match shape.type:
        case "bytes":
            return told.encode("latin-1")
        case "array":
            assert shape.values is not None
            return [_from_json(shape.values, each) for each in told]
        case "map":
            assert shape.values is not None
            return [(key, _from_json(shape.values, each)) for key, each in told.items()]
        case "struct":
            return {name: _from_json(each, told.get(name)) for name, each in shape.fields}
    return told


