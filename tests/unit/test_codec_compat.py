"""Compatibility offline: the verdict of the reference package, told field by field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.codec import parse
from headrace.codec.compat import problems

pytestmark = pytest.mark.unit


def record(*fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": list(fields), **more}


def field(name: str, type_: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, **more}


def told(reader: Any, writer: Any) -> list[str]:
    return problems(parse(json.dumps(reader)), parse(json.dumps(writer)))


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


def decimal(scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": scale}


@pytest.mark.parametrize(("reader", "writer"), [
    (record(field("a", "int")), record(field("a", "int"))),
    (record(field("a", "long")), record(field("a", "int"))),
    (record(field("a", "int"), field("b", "int", default=1)), record(field("a", "int"))),
    (record(field("a", "int")), record(field("a", "int"), field("b", "string"))),
    (record(field("new", "int", aliases=["old"])), record(field("old", "int"))),
    (record(name="New", aliases=["R"]), record()),
    (record(field("a", ["null", "int"])), record(field("a", "int"))),
    (record(field("a", enum("A", "B"))), record(field("a", enum("A")))),
    (record(field("a", enum("A", default="A"))), record(field("a", enum("A", "B")))),
    (record(field("a", decimal(2))), record(field("a", decimal(2)))),
    (record(field("a", {"type": "long", "logicalType": "timestamp-nanos"})), record(field("a", "long"))),
    ("long", "int"),
], ids=str)
def test_what_can_be_read(reader: Any, writer: Any) -> None:
    assert told(reader, writer) == []


INNER = {"type": "record", "name": "I", "fields": [field("x", "int")]}


@pytest.mark.parametrize(("reader", "writer", "why"), [
    (record(field("a", "int")), record(field("a", "string")),
     ["a: reader type: int not compatible with writer type: string"]),
    (record(field("a", "int"), field("b", "int")), record(),
     ["a: not in the writer's schema, and without a default", "b: not in the writer's schema, and without a default"]),
    (record(name="S"), record(), ["the record: record R is not S; an alias in the reader would make it so"]),
    (record(field("i", {**INNER, "fields": [field("x", "string")]})), record(field("i", INNER)),
     ["i.x: reader type: string not compatible with writer type: int"]),
    (record(field("a", enum("A"))), record(field("a", enum("A", "B"))),
     ["a: symbols that the reader lacks, and it has no default: {'B'}"]),
    (record(field("a", {"type": "fixed", "name": "F", "size": 2})),
     record(field("a", {"type": "fixed", "name": "F", "size": 3})), ["a: another size: expected: 3, found: 2"]),
    (record(field("a", ["null", "int"])), record(field("a", ["null", "string"])),
     ["a: reader union lacking writer type: STRING"]),
    (record(field("a", decimal(2))), record(field("a", decimal(3))), ["a: decimal of scale 3, read with scale 2"]),
    ("int", "string", ["the record: reader type: int not compatible with writer type: string"]),
], ids=str)
def test_what_cannot_be_read_says_which_field_and_why(reader: Any, writer: Any, why: list[str]) -> None:
    assert told(reader, writer) == why
