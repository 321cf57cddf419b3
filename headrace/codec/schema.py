"""Avro schemas as values: read, checked, named, fingerprinted, and mapped to Arrow and back.

What is checked, with the place in the schema: names, double definitions, unknown types, unions in unions, defaults that
do not fit, decimals that no Arrow type holds, and recursion, which Arrow cannot hold. An invalid logical type is
ignored, as the specification asks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from headrace.codec.types import LOGICAL, MISSING, PLAIN, SIZED, Field, Type, value_of
from headrace.errors import SchemaError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FULL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
KEY_ORDER = ("name", "namespace", "type", "aliases", "doc", "fields", "symbols", "items", "values", "size",
             "logicalType", "precision", "scale", "default", "order")
DEPTH_MAX, WEIGHT_MAX = 64, 20_000
"""What a schema may be: names used twice in names used twice would otherwise fill the memory."""
PII = "headrace.pii"
"""The attribute of a field that holds personal data; its value says which, e.g. "email"."""
TAG = re.compile(r"[A-Za-z0-9_.-]{1,100}")
VALUE = "value"
"""The column that the values of a schema whose top level is no record come in."""


@dataclass(frozen=True)
class AvroSchema:
    """A schema, equal to another when its canonical text is. Made by `parse`, `load` and `from_arrow`.

    A top level that is no record (a topic of bare strings) reads as a record of one column, `value`: on the wire the
    two are the same bytes.
    """

    text: str
    type: Type = field(compare=False, repr=False)

    @property
    def json(self) -> Any:
        """The schema as parsed JSON: yours to keep, made anew at each call."""
        return json.loads(self.text)

    @property
    def name(self) -> str:
        """The record's full name; empty where the top level is no record."""
        return self.type.name

    @cached_property
    def arrow(self) -> pa.Schema:
        """The columns that rows of this schema have."""
        return pa.schema([f.type.as_field(f.name) for f in self.type.fields])

    @cached_property
    def pii(self) -> Mapping[str, str]:
        """Tagged fields: path → tag (`headrace.pii`), those in records, lists and maps too."""
        return dict(self.type.pii())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of Avro's parsing canonical form: the same for schemas that write the same bytes."""
        bare = self.type if self.type.name else self.type.fields[0].type
        return hashlib.sha256(_canonical(bare, set()).encode()).hexdigest()

    def __str__(self) -> str:
        return self.name or self.type.fields[0].type.label


def load(path: Path) -> AvroSchema:
    """The schema in a file. Raises SchemaError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse(text, where=str(path))


def parse(text: str, *, where: str = "<schema>", known: Sequence[str] = ()) -> AvroSchema:
    """A schema from its JSON; `where` begins every message, `known` are schemas whose named types it may refer to.

    Raises SchemaError with what is wrong, where in the schema, and why.
    """
    try:
        written = json.loads(text)
    except json.JSONDecodeError as error:
        bare = text.strip()
        if bare not in PLAIN:  # some registries keep the schema "string" without its quotes
            raise SchemaError(f"{where}: not JSON: {error.msg}, line {error.lineno} column {error.colno}") from error
        written = bare
    except RecursionError as error:
        raise SchemaError(f"{where}: nested too deeply") from error
    reader = _Reader(where)
    for other in known:
        reader.read(json.loads(other), "", "")
    root = reader.read(written, "", "")
    if root.weight > WEIGHT_MAX:
        raise SchemaError(f"{where}: {root.weight:,} types when its names are written out, of at most {WEIGHT_MAX:,}")
    if root.kind != "record":
        root = Type("record", fields=(Field(VALUE, root),))
    return AvroSchema(json.dumps(_ordered(written), separators=(",", ":"), ensure_ascii=False), root)


def _ordered(written: Any) -> Any:
    """The same JSON with its keys in one order, so that equal schemas have equal text. Defaults stay as they are."""
    if isinstance(written, list):
        return [_ordered(w) for w in written]
    if not isinstance(written, dict):
        return written
    keys = sorted(written, key=lambda k: (KEY_ORDER.index(k) if k in KEY_ORDER else len(KEY_ORDER), k))
    return {k: written[k] if k == "default" else _ordered(written[k]) for k in keys}


class _Reader:
    """One pass over the JSON: `named` has the types seen so far, `open` those whose definition is not yet complete."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.named: dict[str, Type] = {}
        self.open: set[str] = set()
        self.depth = 0

    def fail(self, path: str, why: str, hint: str | None = None) -> NoReturn:
        raise SchemaError(f"{self.where}: {path.lstrip('.') or 'top level'}: {why}", hint=hint)

    def read(self, written: Any, namespace: str, path: str) -> Type:
        if self.depth >= DEPTH_MAX:
            self.fail(path[:80] + "…", f"nested more than {DEPTH_MAX} levels deep")
        self.depth += 1
        made = self.one(written, namespace, path)
        self.depth -= 1
        return made

    def one(self, written: Any, namespace: str, path: str) -> Type:
        if isinstance(written, str):
            return self.reference(written, namespace, path)
        if isinstance(written, list):
            return self.union(written, namespace, path)
        if not isinstance(written, dict) or "type" not in written:
            self.fail(path, f"a type is a name, a list or an object with a “type”, not {json.dumps(written)[:60]}")
        kind = written["type"]
        if kind in ("record", "error", "enum", "fixed"):
            return self.define(written, namespace, path)
        if kind == "array":
            return Type("array", items=self.read(self.need(written, "items", path), namespace, f"{path}[]"))
        if kind == "map":
            return Type("map", items=self.read(self.need(written, "values", path), namespace, f"{path}{{}}"))
        if isinstance(kind, str) and kind in PLAIN:
            return self.logical(Type(kind), written, path)
        inner = self.read(kind, namespace, path)  # {"type": {"type": "string"}}, {"type": "Named"}
        return self.logical(inner, written, path) if inner.logical is None and inner.kind in PLAIN else inner

    def need(self, written: Mapping[str, Any], key: str, path: str) -> Any:
        if key not in written:
            self.fail(path, f"{written['type']} without “{key}”")
        return written[key]

    def reference(self, name: str, namespace: str, path: str) -> Type:
        if name in PLAIN:
            return Type(name)
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        if full in self.open or (full not in self.named and name in self.open):
            self.fail(path, f"{full} contains itself: a recursive schema has no Arrow type",
                      "flatten it to the depth you need, or carry the nested part as a string of JSON")
        if full not in self.named and name not in self.named:
            self.fail(path, f"unknown type “{name}”", "define it before its first use; known: "
                      + ", ".join([*PLAIN, "record, enum, fixed, array, map", *self.named]))
        return self.named.get(full) or self.named[name]

    def union(self, written: list[Any], namespace: str, path: str) -> Type:
        branches = tuple(self.read(w, namespace, path) for w in written)
        if not branches:
            self.fail(path, "a union without branches")
        if any(b.kind == "union" for b in branches):
            self.fail(path, "a union directly inside a union")
        tags = [b.name or b.kind for b in branches]
        twice = sorted({t for t in tags if tags.count(t) > 1})
        if twice:
            self.fail(path, f"a union with {', '.join(twice)} twice")
        return Type("union", branches=branches)

    def define(self, written: Mapping[str, Any], namespace: str, path: str) -> Type:
        """A named type: record, enum or fixed."""
        name = self.need(written, "name", path)
        if not isinstance(name, str) or not FULL_NAME.fullmatch(name):
            self.fail(path, f"{json.dumps(name)} is no Avro name", "letters, digits and _, not starting with a digit")
        inner = name.rpartition(".")[0] if "." in name else written.get("namespace") or namespace
        if inner and not (isinstance(inner, str) and FULL_NAME.fullmatch(inner)):
            self.fail(path, f"{json.dumps(inner)} is no Avro namespace")
        full = name if "." in name or not inner else f"{inner}.{name}"
        if full in PLAIN or full in self.named or full in self.open:
            self.fail(path, f"{full} is defined twice" if full not in PLAIN else f"a type cannot be named {full}")
        aliases = tuple(a if "." in a or not inner else f"{inner}.{a}" for a in self.names(written, "aliases", path))
        self.open.add(full)
        here = path or full
        match written["type"]:
            case "enum":
                made = self.enum(written, Type("enum", name=full, aliases=aliases), here)
            case "fixed":
                made = self.fixed(written, Type("fixed", name=full, aliases=aliases), here)
            case _:
                made = Type("record", name=full, aliases=aliases, fields=self.fields(written, inner, here))
        self.open.discard(full)
        self.named[full] = made
        return made

    def names(self, written: Mapping[str, Any], key: str, path: str) -> list[str]:
        """The list of strings under `key`, [] without it."""
        value = written.get(key) or []
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            self.fail(path, f"“{key}” is a list of names, not {json.dumps(value)[:60]}")
        return value

    def enum(self, written: Mapping[str, Any], bare: Type, path: str) -> Type:
        symbols = self.names(written, "symbols", path)
        wrong = [s for s in symbols if not NAME.fullmatch(s) or symbols.count(s) > 1]
        if wrong or not symbols:
            self.fail(path, f"enum symbols that are no names, or twice: {', '.join(dict.fromkeys(wrong))}" if wrong else
                      "an enum without symbols")
        default = written.get("default")
        if default is not None and default not in symbols:
            self.fail(path, f"the default {json.dumps(default)} is not among the symbols {', '.join(symbols)}")
        return Type("enum", name=bare.name, aliases=bare.aliases, symbols=tuple(symbols), default=default)

    def fixed(self, written: Mapping[str, Any], bare: Type, path: str) -> Type:
        size = self.need(written, "size", path)
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 31:
            self.fail(path, f"a fixed of size {json.dumps(size)}")
        return self.logical(Type("fixed", name=bare.name, aliases=bare.aliases, size=size), written, path)

    def fields(self, written: Mapping[str, Any], namespace: str, path: str) -> tuple[Field, ...]:
        listed = self.need(written, "fields", path)
        if not isinstance(listed, list) or not all(isinstance(f, dict) and "type" in f for f in listed):
            self.fail(path, "“fields” is a list of objects with “name” and “type”")
        made: list[Field] = []
        for one in listed:
            name = one.get("name")
            if not isinstance(name, str) or not NAME.fullmatch(name):
                self.fail(path, f"{json.dumps(name)} is no Avro field name", "letters, digits and _, no leading digit")
            if name in [f.name for f in made]:
                self.fail(path, f"field “{name}” twice")
            here = f"{path}.{name}"
            type_ = self.read(one["type"], namespace, here)
            default = one.get("default", MISSING)
            if default is not MISSING:
                try:
                    value_of(type_, default)
                except ValueError as error:
                    self.fail(here, f"its default does not fit: {error}")
            tag = one.get(PII, "")
            if PII in one and not (isinstance(tag, str) and TAG.fullmatch(tag)):
                self.fail(here, f"“{PII}” is a word like email, name or address, not {json.dumps(tag)[:60]}")
            made.append(Field(name, type_, default, tuple(self.names(one, "aliases", here)), tag))
        return tuple(made)

    def logical(self, type_: Type, written: Mapping[str, Any], path: str) -> Type:
        """`type_` with its logical type, where that is valid; a decimal that is valid but too large is refused."""
        name = written.get("logicalType")
        if name == "decimal" and type_.kind in ("bytes", "fixed"):
            digits = written.get("precision"), written.get("scale", 0)
            precision, scale = (v if type(v) is int else -1 for v in digits)
            if precision < 1 or not 0 <= scale <= precision:
                return type_
            if type_.kind == "fixed" and (not type_.size or 10**precision > 1 << (8 * type_.size - 1)):
                return type_  # more digits than the size can hold: not valid, says the specification
            if precision > 76:
                self.fail(path, f"a decimal of {precision} digits; Arrow holds 76",
                          "drop the logical type, and the bytes come through as they are")
            return Type(**{**_set(type_), "logical": "decimal", "precision": precision, "scale": scale})
        if (type_.kind, name) not in LOGICAL or (type_.kind == "fixed" and type_.size != SIZED[str(name)]):
            return type_
        return Type(**{**_set(type_), "logical": name})


def _set(type_: Type) -> dict[str, Any]:
    return {k: getattr(type_, k) for k in ("kind", "name", "aliases", "size")}


def _canonical(type_: Type, seen: set[str]) -> str:
    """Avro's parsing canonical form."""
    def quoted(value: str) -> str:
        return json.dumps(value, ensure_ascii=False)

    match type_.kind:
        case "union":
            return "[" + ",".join(_canonical(b, seen) for b in type_.branches) + "]"
        case "array" | "map":
            key = "items" if type_.kind == "array" else "values"
            return f'{{"type":"{type_.kind}","{key}":{_canonical(type_.item, seen)}}}'
        case "record" | "enum" | "fixed" if type_.name in seen:
            return quoted(type_.name)
        case "record":
            seen.add(type_.name)
            inner = ",".join(f'{{"name":{quoted(f.name)},"type":{_canonical(f.type, seen)}}}' for f in type_.fields)
            return f'{{"name":{quoted(type_.name)},"type":"record","fields":[{inner}]}}'
        case "enum":
            seen.add(type_.name)
            return f'{{"name":{quoted(type_.name)},"type":"enum","symbols":[{",".join(map(quoted, type_.symbols))}]}}'
        case "fixed":
            seen.add(type_.name)
            return f'{{"name":{quoted(type_.name)},"type":"fixed","size":{type_.size}}}'
    return quoted(type_.kind)


def from_arrow(schema: pa.Schema, *, name: str, namespace: str | None = None,
               pii: Mapping[str, str] | None = None) -> AvroSchema:
    """The Avro schema for rows of an Arrow schema; nullable columns become ["null", T] with default null. `pii` are the
    tags of fields, by path; those of what is not there are passed over.

    Raises SchemaError naming the column that has no Avro type, and what to cast it to.
    """
    used: set[str] = set()
    record = {"type": "record", "name": name, **({"namespace": namespace} if namespace else {}),
              "fields": [_field(f, name, used) for f in schema]}
    for path, tag in (pii or {}).items():
        _tag(record, path.replace("[]", "").replace("{}", "").split("."), tag)
    return parse(json.dumps(record), where=f"schema of {name}")


def _tag(written: Any, names: list[str], tag: str) -> None:
    """Writes a tag to the field of these names within JSON that `_written` made."""
    while not (isinstance(written, dict) and "fields" in written):  # through unions with null, arrays and maps
        if isinstance(written, list):
            written = written[-1]
        elif isinstance(written, dict):
            written = written.get("items") or written.get("values")
        else:
            return
    for one in written["fields"]:
        if one["name"] == names[0] and len(names) == 1:
            one[PII] = tag
        elif one["name"] == names[0]:
            _tag(one["type"], names[1:], tag)


def _field(column: pa.Field, owner: str, used: set[str]) -> dict[str, Any]:
    if not NAME.fullmatch(column.name):
        raise SchemaError(f"schema of {owner}: column “{column.name}” has no Avro name",
                          hint="rename it with `select`: letters, digits and _, not starting with a digit")
    written = _written(column.type, f"{owner}_{column.name}", used)
    if column.nullable and written != "null":
        return {"name": column.name, "type": ["null", written], "default": None}
    return {"name": column.name, "type": written}


SIMPLE: list[tuple[str, Any]] = [
    ("is_null", "null"), ("is_boolean", "boolean"), ("is_int8", "int"), ("is_int16", "int"), ("is_int32", "int"),
    ("is_uint8", "int"), ("is_uint16", "int"), ("is_uint32", "long"), ("is_int64", "long"), ("is_float16", "float"),
    ("is_float32", "float"), ("is_float64", "double"), ("is_string", "string"), ("is_large_string", "string"),
    ("is_string_view", "string"), ("is_binary", "bytes"), ("is_large_binary", "bytes"), ("is_binary_view", "bytes"),
    ("is_date", {"type": "int", "logicalType": "date"}), ("is_time32", {"type": "int", "logicalType": "time-millis"}),
    ("is_time64", {"type": "long", "logicalType": "time-micros"}),
]
"""pa.types predicate → Avro type. Polars has one type for times of day, nanoseconds: they go as microseconds."""


def _written(type_: pa.DataType, name: str, used: set[str]) -> Any:
    """The JSON of the Avro type for an Arrow type; `name` is what a record or fixed made for it is called."""
    is_ = pa.types
    for predicate, avro in SIMPLE:
        if getattr(is_, predicate)(type_):
            return avro
    if is_.is_dictionary(type_):
        return _written(type_.value_type, name, used)
    if is_.is_timestamp(type_):
        word = {"s": "millis", "ms": "millis", "us": "micros", "ns": "nanos"}[type_.unit]
        return {"type": "long", "logicalType": f"{'' if type_.tz else 'local-'}timestamp-{word}"}
    if is_.is_decimal(type_) and 0 <= type_.scale <= type_.precision:
        return {"type": "bytes", "logicalType": "decimal", "precision": type_.precision, "scale": type_.scale}
    if is_.is_map(type_):
        return {"type": "map", "values": _nullable(type_.item_field, f"{name}_value", used)}
    if is_.is_list(type_) or is_.is_large_list(type_) or is_.is_fixed_size_list(type_):
        return {"type": "array", "items": _nullable(type_.value_field, f"{name}_item", used)}
    if not (is_.is_fixed_size_binary(type_) or is_.is_struct(type_)):
        hint = {"uint64": "cast it to int64", "duration[us]": "cast it to int64: microseconds"}.get(str(type_))
        raise SchemaError(f"column {name}: Avro has no type for {type_}", hint=hint or "cast or drop it with `select`")
    while name in used:
        name += "_"
    used.add(name)
    if is_.is_fixed_size_binary(type_):
        return {"type": "fixed", "name": name, "size": type_.byte_width}
    return {"type": "record", "name": name, "fields": [_field(f, name, used) for f in type_]}


def _nullable(inner: pa.Field, name: str, used: set[str]) -> Any:
    written = _written(inner.type, name, used)
    return ["null", written] if inner.nullable and written != "null" else written
