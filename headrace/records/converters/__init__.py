"""Converters: bytes of Kafka ↔ columns, by Kafka Connect's names for them.

    json.py         JsonConverter; json_text.py writes columns, json_read.py reads values of a known shape,
                    structure.py those without, json_schema.py is the envelope's schema
    avro.py         AvroConverter, over headrace/codec; avro_schema.py is Confluent's mapping of schemas
    plain.py        StringConverter, ByteArrayConverter, the converters of single numbers
    header.py       SimpleHeaderConverter; headers go through any other converter too
    text.py, java.py    what columns look like as text, and as Java's text

`encode` gives a payload for each value; `decode` a column for each structure among the payloads. What cannot be
converted is told by its position, and is no exception: what becomes of it is for `errors.tolerance` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from headrace.batch import Index
from headrace.errors import UserError
from headrace.marked import nearest
from headrace.records.records import Column

if TYPE_CHECKING:
    from headrace.codec import AvroSchema
    from headrace.records.converters.header import HeaderConverter
    from headrace.registry import Registry


class Converter(Protocol):
    """Either side of a record, to and from Kafka's bytes. One thread uses it."""

    def encode(self, topic: str, column: Column) -> tuple[list[bytes | None], dict[int, str]]:
        """The payload of each value, in order, None of null; why some have none, by position. Raises Retriable and
        RegistryError while the registry does not answer: that is no record's fault."""

    def decode(self, topic: str, payloads: Sequence[bytes | None]) -> tuple[list[tuple[Index, Column]], dict[int, str]]:
        """(positions, their column) for each structure among the payloads, in the order of their first; why the others
        could not be read, by position. Every position is in one of them. Raises as `encode` does."""


CONNECT = "org.apache.kafka.connect."
JAVA_NAMES: Mapping[str, str] = {
    "json": CONNECT + "json.JsonConverter", "string": CONNECT + "storage.StringConverter",
    "bytes": CONNECT + "converters.ByteArrayConverter", "avro": "io.confluent.connect.avro.AvroConverter",
    **{name.lower(): f"{CONNECT}converters.{name}Converter" for name in (
        "Short", "Integer", "Long", "Float", "Double", "Boolean")}}
"""Our short name → Java's."""
SIMPLE_HEADERS = CONNECT + "storage.SimpleHeaderConverter"
BOOLEAN, COUNT = ("true", "false"), ("a number",)
NAMES_OF: Mapping[str, frozenset[str]] = {
    "json": frozenset({"schemas.enable", "schemas.cache.size", "decimal.format", "replace.null.with.default"}),
    "string": frozenset({"converter.encoding"}), "bytes": frozenset(),
    "avro": frozenset({
        "schema.registry.url", "auto.register.schemas", "use.latest.version", "schemas.cache.config",
        "key.subject.name.strategy", "value.subject.name.strategy", "connect.meta.data", "enhanced.avro.schema.support",
        "scrub.invalid.names", "basic.auth.credentials.source", "basic.auth.user.info",
        "schema.registry.basic.auth.user.info", "normalize.schemas", "avro.codec", "max.schemas.per.subject",
        "latest.compatibility.strict", "allow.optional.map.keys", "discard.type.doc.default", "flatten.unions",
        "flatten.singleton.unions", "generalized.sum.type.support", "ignore.default.for.nullables",
        "bearer.auth.token", "bearer.auth.credentials.source", "avro.remove.java.properties", "use.schema.id",
        "id.compatibility.strict", "schema.registry.request.timeout.ms", "latest.cache.ttl.sec"})}
"""Sub-keys by converter. One converter's key on another is passed over, as Kafka Connect does: files in the wild have
schemas.enable beside AvroConverter. A key of none of them is a slip of the pen, and refused."""
KNOWN = frozenset().union(*NAMES_OF.values(), {"converter.type"})
PREFIXES = ("schema.registry.", "ssl.", "proxy.", "rule.")
"""Of settings of the registry's client, which are many."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "schemas.enable": ("true", "false"), "replace.null.with.default": ("true", "false"),
    "decimal.format": ("base64", "numeric"), "auto.register.schemas": ("true", "false"),
    "use.latest.version": ("true", "false"), "connect.meta.data": ("true", "false"),
    "enhanced.avro.schema.support": ("true", "false"), "scrub.invalid.names": ("true", "false")}


def name_of(kind_class: str) -> str:
    """Our short name of a converter, given that or its Java name. Raises UserError for one that is neither."""
    for name, java in JAVA_NAMES.items():
        if kind_class in (name, java, java.rpartition(".")[2]):
            return name
    known = [*JAVA_NAMES, *JAVA_NAMES.values()]
    raise UserError(f"no such converter: {kind_class}{nearest(kind_class, known)}",
                    hint="there are " + ", ".join(JAVA_NAMES) + ", and Java's names of them")


def check(config: Mapping[str, str]) -> list[tuple[str, str]]:
    """(sub-key, what is wrong with it) of a converter's configuration."""
    wrong = []
    for key, value in config.items():
        if key not in KNOWN and not key.startswith(PREFIXES):
            wrong.append((key, f"no converter has a setting “{key}”{nearest(key, sorted(KNOWN))}"))
        elif value.lower() not in CHOICES.get(key, (value.lower(),)):
            wrong.append((key, f"“{value}” is none of {', '.join(CHOICES[key])}"))
        elif key == "schemas.cache.size" and not value.strip().isdigit():
            wrong.append((key, f"“{value}” is no number"))
    return wrong


def converter_of(kind_class: str, config: Mapping[str, str], is_key: bool, registry: Registry | None, *,
                 schema: AvroSchema | None = None) -> Converter:
    """The converter of a class, by our name or Java's. `config` has its own settings, without their prefix; `registry`
    is used unless they name another; `schema`: what Avro is written as, in place of what the columns imply.

    Nothing is asked of the registry yet. Raises UserError for an unknown class or setting.
    """
    name = name_of(kind_class)
    for key, why in check(config):
        raise UserError(f"{key}: {why}")
    return MADE[name](config, is_key, registry, schema)


def header_converter_of(kind_class: str, config: Mapping[str, str]) -> HeaderConverter:
    """The converter of headers, by our name (`simple` is SimpleHeaderConverter) or Java's. Raises UserError."""
    from headrace.records.converters.header import ByConverter, SimpleHeaderConverter

    if kind_class in ("simple", SIMPLE_HEADERS, "SimpleHeaderConverter"):
        return SimpleHeaderConverter()
    if name_of(kind_class) not in ("json", "string", "bytes", *NUMBERS):
        raise UserError(f"{kind_class} converts no headers", hint="take simple, json, string or bytes")
    return ByConverter(converter_of(kind_class, config, False, None))


def _json(config: Mapping[str, str], is_key: bool, registry: Registry | None, schema: AvroSchema | None) -> Converter:
    from headrace.records.converters.json import JsonConverter

    return JsonConverter.of(config)


def _avro(config: Mapping[str, str], is_key: bool, registry: Registry | None, schema: AvroSchema | None) -> Converter:
    from headrace.records.converters.avro import AvroConverter

    return AvroConverter.of(config, is_key, registry, schema)


def _string(config: Mapping[str, str], is_key: bool, registry: Registry | None, schema: AvroSchema | None) -> Converter:
    from headrace.records.converters.plain import StringConverter

    return StringConverter.of(config)


def _bytes(config: Mapping[str, str], is_key: bool, registry: Registry | None, schema: AvroSchema | None) -> Converter:
    from headrace.records.converters.plain import ByteArrayConverter

    return ByteArrayConverter()


def _number(name: str) -> Callable[[Mapping[str, str], bool, Registry | None, AvroSchema | None], Converter]:
    def made(config: Mapping[str, str], is_key: bool, registry: Registry | None,
             schema: AvroSchema | None) -> Converter:
        from headrace.records.converters.plain import PRIMITIVE

        return PRIMITIVE[name]
    return made


NUMBERS = ("short", "integer", "long", "float", "double", "boolean")
MADE: Mapping[str, Callable[[Mapping[str, str], bool, Registry | None, AvroSchema | None], Converter]] = {
    "json": _json, "avro": _avro, "string": _string, "bytes": _bytes, **{name: _number(name) for name in NUMBERS}}

__all__ = ["JAVA_NAMES", "Converter", "check", "converter_of", "header_converter_of", "name_of"]
