"""Definitions that depend on what a configuration says: of its transforms, its predicates and its own converters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from headrace.connect import definitions as defs
from headrace.connect.definitions import Check, Key
from headrace.records.converters import JAVA_NAMES, SIMPLE_HEADERS, name_of
from headrace.transforms import PREDICATES, TRANSFORMS, definitions, predicate_class, transform_class

RANKS = {"HIGH": 0, "MEDIUM": 1, "LOW": 2}
HEADER_CLASSES = (*JAVA_NAMES.values(), SIMPLE_HEADERS)


def _given(why: str) -> Check:
    return lambda name, value: defs.invalid(name, value, why) if value in (None, []) else None


CHECKS: Mapping[tuple[str, str], Check] = {
    ("Cast", "spec"): lambda name, value: None if value else "Must specify at least one field to cast.",
    **dict.fromkeys((("DropHeaders", "headers"), ("MaskField", "fields"), ("ValueToKey", "fields")), defs.topic_list),
    **{("HeaderFrom", name): _given("Empty list") for name in ("fields", "headers")},
    ("HeaderFrom", "operation"): defs.one_of("move", "copy"),
    **{("InsertHeader", name): _given("entry must be non null") for name in ("header", "value.literal")},
    ("RegexRouter", "regex"): defs.pattern, ("TopicNameMatches", "pattern"): defs.pattern,
    ("TimestampConverter", "target.type"): defs.one_of("string", "unix", "Date", "Time", "Timestamp"),
}
"""What the values of a transform's keys must be, as its own ConfigDef says; it is checked once more by its model."""
_TYPE = Key("converter.type", "STRING", importance="LOW", documentation="What the converter is for; set by the worker.")
CONVERTER_KEYS: Mapping[str, tuple[Key, ...]] = {
    "json": (
        Key("schemas.enable", "BOOLEAN", True, None, "HIGH", "Whether values stand in an envelope with their schema.",
            "Schemas", 0, "MEDIUM", "Enable Schemas"),
        Key("schemas.cache.size", "INT", 1000, None, "HIGH", "Accepted: schemas are kept as long as they are used.",
            "Schemas", 1, "MEDIUM", "Schema Cache Size"),
        Key("schema.content", "STRING", None, None, "HIGH", "Not supported: the schema of values without an envelope.",
            "Schemas", 2, "MEDIUM", "Schema Content"),
        Key("decimal.format", "STRING", "BASE64", defs.one_of_any_case("BASE64", "NUMERIC"), "LOW", "Whether decimals "
            "are BASE64 text or numbers.", "Serialization", 0, "MEDIUM", "Decimal Format"),
        Key("replace.null.with.default", "BOOLEAN", True, None, "LOW", "Whether a field that is null takes its "
            "default.", "Serialization", 1, "MEDIUM", "Replace null with default"), _TYPE),
    "string": (_TYPE, Key("converter.encoding", "STRING", "UTF-8", None, "HIGH", "The encoding of texts.", None, -1,
                          "MEDIUM", "Encoding")),
    "avro": (),
}
"""Of the converters by our short name; those that are not here have `converter.type` alone."""


def resolved(config: Mapping[str, str | None], version: str) -> tuple[list[Key], dict[str, str | None]]:
    """The definitions, and the configuration with the classes that its names stand for, for `definitions.checked`."""
    known = dict(config)
    keys: list[Key] = []
    for what, family in (("transform", "transforms"), ("predicate", "predicates")):
        for alias in dict.fromkeys(defs.parsed(family, config.get(family), "LIST") or ()):
            keys += _staged(what, f"{family}.{alias}.", alias, known, version)
    return keys, known


def _staged(what: str, prefix: str, alias: str, known: dict[str, str | None], version: str) -> Iterator[Key]:
    """The definitions of one transform or predicate."""
    kind = "Transformation" if what == "transform" else "Predicate"
    group = f"{what.capitalize()}s: {alias}"
    classes = tuple(TRANSFORMS if what == "transform" else PREDICATES)
    java, cls = _class(what, known.get(f"{prefix}type") or "")
    if java is not None:
        known[f"{prefix}type"] = java
    yield Key(f"{prefix}type", "CLASS", check=partial(_check_class, kind, prefix, dict(known)), importance="HIGH",
              documentation=f"The class of the {kind.lower()} “{alias}”.", group=group, order=0, width="LONG",
              display=f"{kind} type for {alias}", recommended=classes)
    yield Key(f"{prefix}plugin.version", "STRING", version if java else None, None, "HIGH", defs.PLUGIN_VERSIONS, group,
              1, "LONG", f"{kind} version for {alias}", (version,) if java else ())
    if cls is None:
        return
    own = [Key(one.name, one.type, defs.REQUIRED if one.required else defs.parsed(one.name, one.default, one.type),
               CHECKS.get((cls.__name__, one.name)), one.importance, one.documentation) for one in definitions(cls)]
    if what == "transform":
        own += [Key("predicate", "STRING", None, documentation="The alias of the predicate that says to which records "
                    "it is applied."),
                Key("negate", "BOOLEAN", False, documentation="Whether it is applied to the others instead.")]
    own.sort(key=lambda key: (key.default is not defs.REQUIRED, RANKS[key.importance], key.name))
    yield from (_embedded(key, prefix, group, order) for order, key in enumerate(own, 2))


def _embedded(key: Key, prefix: str, group: str | None, order: int) -> Key:
    """Under a prefix. Its check names it without, as Kafka's does."""
    check: Check | None = None
    if key.check is not None:
        inner: Callable[[str, Any], str | None] = key.check
        check = lambda _, value: inner(key.name, value)  # noqa: E731
    return Key(prefix + key.name, key.type, key.default, check, key.importance, key.documentation, group, order,
               key.width, key.display or key.name, key.recommended)


def _class(what: str, name: str) -> tuple[str | None, Any]:
    """(Java name, class) of a transform or predicate; (None, None) for none."""
    try:
        if what == "predicate":
            made: Any = predicate_class(name)
            return next(java for java, cls in PREDICATES.items() if cls is made), made
        found = transform_class(name)
        return next(java for java, pair in TRANSFORMS.items() if pair == found), found[0]
    except ValueError:
        return None, None


def _check_class(kind: str, prefix: str, config: Mapping[str, str | None], name: str, value: Any) -> str | None:
    if value is None:
        return None
    if _class("predicate" if kind == "Predicate" else "transform", value)[0] is None:
        sides = [java for java in TRANSFORMS if kind == "Transformation" and java.startswith(f"{value}$")]
        if sides:
            return f"This class is abstract and cannot be created. Did you mean {', '.join(sides)}?"
        if value in (*TRANSFORMS, *PREDICATES, *HEADER_CLASSES):
            return f"Class class {value} does not implement the {kind} interface"
        return defs.invalid(name, value, f"Class {value} could not be found.")
    if f"{prefix}negate" in config and f"{prefix}predicate" not in config and kind == "Transformation":
        return (f"Config '{prefix}negate' was provided but there is no config '{prefix}predicate' defining a predicate "
                "to be negated.")
    return None


# Converters ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def check_converter(interface: str, name: str, value: Any) -> str | None:
    """What is wrong with the class of key.converter, value.converter or header.converter."""
    if value is None or converter_class(value) is not None:
        return None
    if value in (*TRANSFORMS, *PREDICATES):
        return f"Class class {value} does not implement the {interface} interface"
    return defs.invalid(name, value, f"Class {value} could not be found.")


def converter_class(name: str) -> str | None:
    """The Java name of a converter, by that or by ours; None for none."""
    if name in (SIMPLE_HEADERS, "SimpleHeaderConverter", "simple"):
        return SIMPLE_HEADERS
    try:
        return JAVA_NAMES[name_of(name)]
    except Exception:
        return None


def of_worker(keys: list[Key], config: dict[str, str | None], version: str, *, java: bool) -> list[Key]:
    """The keys of converters as a worker sees them: with the check of their class and, for Java's connectors, with the
    converters that are taken where none is named. Puts Java's names of those named into `config`."""
    made = []
    for key in keys:
        if key.name in ("key.converter", "value.converter", "header.converter"):
            header = key.name == "header.converter"
            config |= {key.name: converter_class(config[key.name] or "") or config[key.name]
                       } if config.get(key.name) is not None else {}
            default = (SIMPLE_HEADERS if header else JAVA_NAMES["json"]) if java else None
            check = partial(check_converter, "HeaderConverter" if header else "Converter")
            key = replace(key, default=default, check=check)
        elif key.name.endswith(".converter.plugin.version"):
            named = config.get(key.name.removesuffix(".plugin.version"))
            known = named is None or converter_class(named) is not None
            key = replace(key, default=version if known else None, recommended=(version,) if known else (),
                          visible=known or named in (*TRANSFORMS, *PREDICATES))
        made.append(key)
    return made


def converter_keys(config: Mapping[str, str | None]) -> list[tuple[list[Key], dict[str, str | None]]]:
    """For each converter that the configuration names: its definitions, and what it says for them."""
    found = []
    for what in ("header", "key", "value"):
        prefix = f"{what}.converter."
        java = converter_class(config.get(prefix[:-1]) or "")
        if java is None:
            continue
        short = {full: name for name, full in JAVA_NAMES.items()}.get(java, "simple")
        own = () if short == "simple" else CONVERTER_KEYS.get(short, (_TYPE,))
        keys = [_embedded(key, prefix, key.group, key.order) for key in own]
        found.append((keys, {f"{prefix}converter.type": what, **config}))
    return found
