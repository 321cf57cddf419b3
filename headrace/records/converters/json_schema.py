"""Kafka Connect's schemas in JSON: the "schema" of a record's envelope, to and from Shape."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from headrace.errors import SchemaError
from headrace.records.converters.faults import Faults
from headrace.records.converters.json_read import Reader
from headrace.records.converters.json_text import JsonTexts, quoted
from headrace.records.shape import PRIMITIVES, Shape

NAMES = {"float": "float32", "double": "float64"}
"""What JSON calls differently."""
IN_JSON = {shape: name for name, shape in NAMES.items()}
NONE = "null"


def written(shape: Shape | None, texts: JsonTexts, field: str | None = None) -> str:
    """The JSON of a shape, with its keys in the order of Java's JsonConverter; `field`: the struct's name for it."""
    if shape is None:
        return NONE
    parts = [("type", quoted(IN_JSON.get(shape.type, shape.type)))]
    if shape.type == "array":
        parts.append(("items", written(shape.values, texts)))
    elif shape.type == "map":
        parts += [("keys", written(shape.keys, texts)), ("values", written(shape.values, texts))]
    elif shape.type == "struct":
        parts.append(("fields", "[" + ",".join(written(each, texts, name) for name, each in shape.fields) + "]"))
    parts.append(("optional", "true" if shape.optional else "false"))
    parts += [(key, quoted(value) if isinstance(value, str) else str(value)) for key, value in (
        ("name", shape.name), ("version", shape.version), ("doc", shape.doc)) if value is not None]
    if shape.parameters:
        inner = ",".join(f"{quoted(name)}:{quoted(value)}" for name, value in shape.parameters)
        parts.append(("parameters", "{" + inner + "}"))
    if shape.default is not None:
        parts.append(("default", texts.default(shape)))
    if field is not None:
        parts.append(("field", quoted(field)))
    return "{" + ",".join(f'"{key}":{value}' for key, value in parts) + "}"


def read(told: Any, *, defaults: bool) -> Shape | None:
    """The shape that parsed JSON tells. Raises SchemaError in the words of Java's JsonConverter."""
    if told is None:
        return None
    kind = told.get("type") if isinstance(told, dict) else None
    if not isinstance(kind, str):
        raise SchemaError("Schema must contain 'type' field")
    kind = NAMES.get(kind, kind)
    inner: dict[str, Any] = {}
    if kind == "array":
        if told.get("items") is None:
            raise SchemaError("Array schema did not specify the element type")
        inner["values"] = read(told["items"], defaults=defaults)
    elif kind == "map":
        for key, word in (("keys", "key"), ("values", "value")):
            if told.get(key) is None:
                raise SchemaError(f"Map schema did not specify the {word} type")
            inner[key] = read(told[key], defaults=defaults)
    elif kind == "struct":
        inner["fields"] = _fields(told.get("fields"), defaults)
    elif told["type"] not in NAMES and (kind not in PRIMITIVES or kind in NAMES.values()):
        raise SchemaError(f"Unknown schema type: {told['type']}")
    for key, type_ in (("name", str), ("version", int), ("doc", str)):
        if isinstance(told.get(key), type_) and not isinstance(told.get(key), bool):
            inner[key] = told[key]
    parameters = told.get("parameters")
    if isinstance(parameters, dict):
        if not all(isinstance(value, str) for value in parameters.values()):
            raise SchemaError("Schema parameters must have string values.")
        inner["parameters"] = tuple(parameters.items())
    shape = Shape(kind, optional=told.get("optional") is True, **inner)
    if told.get("default") is None:
        return shape
    return shape.but(default=_default(told["default"], shape, defaults))


def _fields(told: Any, defaults: bool) -> tuple[tuple[str, Shape], ...]:
    if not isinstance(told, list):
        raise SchemaError('Struct schema\'s "fields" argument is not an array.')
    made: list[tuple[str, Shape]] = []
    for each in told:
        if not isinstance(each, dict) or not isinstance(each.get("field"), str):
            raise SchemaError("Struct schema's field name not specified properly")
        if each["field"] in dict(made):
            raise SchemaError(f"Cannot create field because of field name duplication {each['field']}")
        shape = read(each, defaults=defaults)
        assert shape is not None
        made.append((each["field"], shape))
    return tuple(made)


def _default(told: Any, shape: Shape, defaults: bool) -> Any:
    faults = Faults()
    value = Reader(faults, defaults=defaults).of([told], shape, np.zeros(1, np.int64))
    if faults.reasons:
        raise SchemaError(f"the schema's default {json.dumps(told)[:80]} is no {shape.type}: {faults.reasons[0]}")
    return value[0].as_py()
