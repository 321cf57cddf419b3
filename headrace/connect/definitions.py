"""What a connector can be told, in the form of Kafka Connect's ConfigDef; and what a configuration says, checked by it.

    Key          one definition: name, type, default, … and the check of its value
    keys_of      all keys of a connector's class: the shared ones as Kafka Connect defines them, then the class's own,
                 made of its pydantic Config
    checked      parses and checks a configuration, as ConfigDef.validateAll does: same rules, same words
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from headrace.connect.spec_keys import SinkKeys, SourceKeys
from headrace.secrets import HIDDEN, is_secret

Check = Callable[[str, Any], str | None]
"""(name, parsed value) → what is wrong with it."""
REQUIRED: Any = object()
"""The default of a key that has none."""
BOUNDS = {"SHORT": 1 << 15, "INT": 1 << 31, "LONG": 1 << 63}
JSON = "org.apache.kafka.connect.json.JsonConverter"
_NAMESPACE_CONVERTERS = "org.apache.kafka.connect.converters"
CONVERTERS = (*(f"{_NAMESPACE_CONVERTERS}.{kind}Converter" for kind in (
    "Boolean", "ByteArray", "Double", "Float", "Integer", "Long", "Short")), JSON,
    "org.apache.kafka.connect.storage.StringConverter")
HEADER_CONVERTERS = (*CONVERTERS[:-1], "org.apache.kafka.connect.storage.SimpleHeaderConverter", CONVERTERS[-1])


@dataclass(frozen=True, slots=True)
class Key:
    """One definition. `default` is a parsed value, or REQUIRED."""

    name: str
    type: str
    default: Any = REQUIRED
    check: Check | None = None
    importance: str = "MEDIUM"
    documentation: str = ""
    group: str | None = None
    order: int = -1
    width: str = "NONE"
    display: str = ""
    recommended: Sequence[str] = ()
    visible: bool = True

    def told(self) -> dict[str, Any]:
        """The definition as JSON. Its place in the group has two names: Kafka ≤ 4.0 said `order`, 4.3 the other."""
        default = None if self.default is REQUIRED else as_text(self.default, self.type)
        return {"name": self.name, "type": self.type, "required": self.default is REQUIRED, "default_value": default,
                "importance": self.importance, "documentation": self.documentation, "group": self.group,
                "order": self.order, "order_in_group": self.order, "width": self.width,
                "display_name": self.display or self.name, "dependents": []}


@dataclass(slots=True)
class Value:
    """What a configuration says for a key."""

    name: str
    value: str | None
    errors: list[str]
    recommended: Sequence[str] = ()
    visible: bool = True

    def told(self) -> dict[str, Any]:
        return {"name": self.name, "value": self.value, "recommended_values": list(self.recommended),
                "errors": self.errors, "visible": self.visible}


def invalid(name: str, value: Any, why: str) -> str:
    """Kafka's sentence."""
    shown = f"[{', '.join(value)}]" if isinstance(value, list) else "null" if value is None else str(value)
    return f"Invalid value {shown} for configuration {name}: {why}"


# Parsing ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def parsed(name: str, text: str | None, kind: str) -> Any:
    """The value a text stands for. Raises ValueError with Kafka's words."""
    if text is None:
        return None
    text = text.strip()
    if kind == "BOOLEAN":
        if text.lower() not in ("true", "false"):
            raise ValueError(invalid(name, text, "Expected value to be either true or false"))
        return text.lower() == "true"
    if kind in BOUNDS:
        if not re.fullmatch(r"[+-]?\d{1,20}", text) or not -BOUNDS[kind] <= int(text) < BOUNDS[kind]:
            raise ValueError(invalid(name, text, f"Not a number of type {kind}"))
        return int(text)
    if kind == "DOUBLE":
        try:
            return float(text)
        except ValueError:
            raise ValueError(invalid(name, text, "Not a number of type DOUBLE")) from None
    if kind == "LIST":
        return re.split(r"\s*,\s*", text) if text else []
    return text


def as_text(value: Any, kind: str) -> str | None:
    """A parsed value as ConfigDef shows it."""
    if value is None:
        return None
    if kind == "PASSWORD":
        return HIDDEN
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else str(value)


# Checks ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def at_least(least: int) -> Check:
    def check(name: str, value: Any) -> str | None:
        if value is None:
            return invalid(name, value, "Value must be non-null")
        return None if value >= least else invalid(name, value, f"Value must be at least {least}")
    return check


def null_or(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def one_of(*options: str) -> Check:
    return lambda name, value: None if value in options else invalid(
        name, value, f"String must be one of: {', '.join(options)}")


def one_of_any_case(*options: str) -> Check:
    return lambda name, value: None if value is not None and value.upper() in options else invalid(
        name, value, f"String must be one of (case insensitive): {', '.join(options)}")


def not_empty(name: str, value: Any) -> str | None:
    return invalid(name, value, "String must be non-empty") if value == "" else None


def a_name(name: str, value: Any) -> str | None:
    """Not empty, and without control characters."""
    if value == "":
        return invalid(name, value, "String may not be empty")
    controls = [str(ord(char)) for char in value or "" if ord(char) < 32 or 127 <= ord(char) < 160]
    return invalid(name, value, "String may not contain control sequences but had the following ASCII chars: "
                   + ", ".join(controls)) if controls else None


def aliases(name: str, value: Any) -> str | None:
    if value is None:
        return invalid(name, value, "entry must be non null")
    return invalid(name, value, "Duplicate alias provided.") if len(set(value)) < len(value) else None


def topic_list(name: str, value: Any) -> str | None:
    if value is None:
        return f"Configuration '{name}' values must not be null."
    if len(set(value)) < len(value):
        return f"Configuration '{name}' values must not be duplicated."
    return f"Configuration '{name}' values must not be empty." if "" in value else None


def pattern(name: str, value: Any) -> str | None:
    if value is None:
        return invalid(name, value, "Invalid regex: there is none")
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        return invalid(name, value, f"Invalid regex: {error}")
    return None


# The shared keys ──────────────────────────────────────────────────────────────────────────────────────────────────────
_Row = tuple[str, str, Any, Check | None, str, str, int, str, str]
_COMMON: Sequence[_Row] = (
    ("name", "STRING", REQUIRED, a_name, "HIGH", "Common", 1, "MEDIUM", "Connector name"),
    ("connector.class", "STRING", REQUIRED, None, "HIGH", "Common", 2, "LONG", "Connector class"),
    ("connector.plugin.version", "STRING", "version", None, "MEDIUM", "Common", 3, "MEDIUM", "Connector version"),
    ("tasks.max", "INT", 1, at_least(1), "HIGH", "Common", 4, "SHORT", "Tasks max"),
    ("tasks.max.enforce", "BOOLEAN", True, None, "LOW", "Common", 5, "SHORT", "Enforce tasks max"),
    ("key.converter", "CLASS", None, None, "LOW", "Common", 6, "SHORT", "Key converter class"),
    ("key.converter.plugin.version", "STRING", "version", None, "LOW", "Common", 7, "SHORT", "Key converter version"),
    ("value.converter", "CLASS", None, None, "LOW", "Common", 8, "SHORT", "Value converter class"),
    ("value.converter.plugin.version", "STRING", "version", None, "LOW", "Common", 9, "SHORT",
     "Value converter version"),
    ("header.converter", "CLASS", None, None, "LOW", "Common", 10, "SHORT", "Header converter class"),
    ("header.converter.plugin.version", "STRING", "version", None, "LOW", "Common", 11, "SHORT",
     "Header converter version"),
    ("transforms", "LIST", [], aliases, "LOW", "Transforms", 12, "LONG", "Transforms"),
    ("predicates", "LIST", [], aliases, "LOW", "Predicates", 13, "LONG", "Predicates"),
    ("config.action.reload", "STRING", "restart", one_of("none", "restart"), "LOW", "Common", 14, "MEDIUM",
     "Reload Action"),
    ("errors.retry.timeout", "LONG", 0, None, "MEDIUM", "Error Handling", 1, "MEDIUM", "Retry Timeout for Errors"),
    ("errors.retry.delay.max.ms", "LONG", 60_000, None, "MEDIUM", "Error Handling", 2, "MEDIUM",
     "Maximum Delay Between Retries for Errors"),
    ("errors.tolerance", "STRING", "none", one_of("none", "all"), "MEDIUM", "Error Handling", 3, "SHORT",
     "Error Tolerance"),
    ("errors.log.enable", "BOOLEAN", False, None, "MEDIUM", "Error Handling", 4, "SHORT", "Log Errors"),
    ("errors.log.include.messages", "BOOLEAN", False, None, "MEDIUM", "Error Handling", 5, "SHORT",
     "Log Error Details"),
)
_SOURCE: Sequence[_Row] = (
    ("topic.creation.groups", "LIST", [], aliases, "LOW", "Topic Creation", 1, "LONG", "Topic Creation Groups"),
    ("exactly.once.support", "STRING", "requested", one_of_any_case("REQUIRED", "REQUESTED"), "MEDIUM",
     "Exactly Once Support", 2, "SHORT", "Exactly once support"),
    ("transaction.boundary", "STRING", "poll", one_of_any_case("INTERVAL", "POLL", "CONNECTOR"), "MEDIUM",
     "Exactly Once Support", 3, "SHORT", "Transaction Boundary"),
    ("transaction.boundary.interval.ms", "LONG", None, null_or(at_least(0)), "LOW", "Exactly Once Support", 4, "SHORT",
     "Transaction boundary interval"),
    ("offsets.storage.topic", "STRING", None, not_empty, "LOW", "offsets.topic", 1, "LONG", "Offsets topic"),
)
_SINK: Sequence[_Row] = (
    ("topics", "LIST", [], topic_list, "HIGH", "Common", 4, "LONG", "Topics"),
    ("topics.regex", "STRING", "", pattern, "HIGH", "Common", 4, "LONG", "Topics regex"),
    ("errors.deadletterqueue.topic.name", "STRING", "", None, "MEDIUM", "Error Handling", 6, "MEDIUM",
     "Dead Letter Queue Topic Name"),
    ("errors.deadletterqueue.topic.replication.factor", "SHORT", 3, None, "MEDIUM", "Error Handling", 7, "MEDIUM",
     "Dead Letter Queue Topic Replication Factor"),
    ("errors.deadletterqueue.context.headers.enable", "BOOLEAN", False, None, "MEDIUM", "Error Handling", 8, "MEDIUM",
     "Enable Error Context Headers"),
)
PLUGIN_VERSIONS = "Accepted: there is one version of each class here, headrace's own."
_RECOMMENDED = {"key.converter": CONVERTERS, "value.converter": CONVERTERS, "header.converter": HEADER_CONVERTERS}
_SHARED: Mapping[str, tuple[type[BaseModel], Sequence[_Row]]] = {
    "source": (SourceKeys, (*_COMMON, *_SOURCE)), "sink": (SinkKeys, (*_COMMON, *_SINK)),
}
_JAVA: Mapping[str, Sequence[Key]] = {
    "source": (
        Key("file", "STRING", None, importance="HIGH", documentation="The file to read and to go on watching; relative "
            "to the project's folder. A worker has no standard input."),
        Key("topic", "STRING", check=not_empty, importance="HIGH", documentation="The topic to write the lines to."),
        Key("batch.size", "INT", 2000, importance="LOW", documentation="Lines read at a time, at most.")),
    "sink": (
        Key("file", "STRING", None, importance="HIGH", documentation="The file to append lines to; relative to the "
            "project's folder. A worker has no standard output."),),
}
"""The own keys of Kafka Connect's FileStreamSource and FileStreamSink."""


def shared_keys(kind: str, version: str, *, java: bool) -> list[Key]:
    """The keys every source, or every sink, has. With `java` no others than Kafka Connect's own, with its defaults."""
    model, rows = _SHARED[kind]
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    keys = []
    for name, type_, default, check, importance, group, order, width, display in rows:
        field = fields.get(name)
        if name.endswith("plugin.version"):
            default, said = version if name.startswith("connector.") else None, PLUGIN_VERSIONS
        else:
            said = (field.description if field is not None else "") or ""
        recommended = (version,) if name.endswith("plugin.version") else _RECOMMENDED.get(name, ())
        keys.append(Key(name, type_, default, check, importance, said, group, order, width, display, recommended))
    if not java:
        known = {key.name for key in keys}
        keys += [_of_field(name, field, "Common", order) for order, (name, field) in enumerate(fields.items(), 20)
                 if name not in known]
    return keys


def keys_of(config_class: type[BaseModel], kind: str, version: str, *, java: bool = False) -> list[Key]:
    """Every key of a connector's class, each once: the shared ones first, as Kafka Connect has them."""
    own = list(_JAVA[kind]) if java else of_model(config_class)
    return list({key.name: key for key in (*shared_keys(kind, version, java=java), *own)}.values())


def of_model(model: type[BaseModel]) -> list[Key]:
    """A pydantic model's fields as definitions."""
    return [_of_field(field.alias or name, field, "Connector", order)
            for order, (name, field) in enumerate(model.model_fields.items(), 1)]


def _of_field(name: str, field: FieldInfo, group: str, order: int) -> Key:
    kind, options = _type_of(field.annotation)
    if kind == "STRING" and is_secret(name):
        kind = "PASSWORD"
    default: Any = REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
    if default is not REQUIRED and default is not None:
        default = list(map(str, default)) if isinstance(default, tuple | list | set | frozenset) else default
        default = default if isinstance(default, bool | int | float | list) else str(default)
    check = null_or(one_of(*options)) if options else None
    return Key(name, kind, default, check, "HIGH" if field.is_required() else "MEDIUM", field.description or "", group,
               order, {"BOOLEAN": "SHORT", "INT": "SHORT", "LONG": "SHORT"}.get(kind, "MEDIUM"),
               name.replace(".", " ").replace("_", " ").capitalize(), options)


_KINDS: Mapping[Any, str] = {bool: "BOOLEAN", int: "LONG", float: "DOUBLE", str: "STRING", SecretStr: "PASSWORD"}


def _type_of(annotation: Any) -> tuple[str, tuple[str, ...]]:
    """(ConfigDef's type, the values allowed) of a pydantic field."""
    origin = get_origin(annotation)
    if origin is Literal:
        return "STRING", tuple(map(str, get_args(annotation)))
    if origin in (tuple, list, set, frozenset):
        return "LIST", ()
    if origin is not None:  # a union with None, or Annotated
        inner = [part for part in get_args(annotation) if isinstance(part, type) or get_origin(part) is not None]
        kinds = [_type_of(part) for part in inner if part is not type(None)]
        return kinds[0] if kinds else ("STRING", ())
    return _KINDS.get(annotation, "STRING"), ()


# What a configuration says ────────────────────────────────────────────────────────────────────────────────────────────
def checked(keys: Iterable[Key], config: Mapping[str, str | None]) -> dict[str, Value]:
    """Key → what the configuration says, with what is wrong with it."""
    return {key.name: _value(key, config) for key in keys}


def _value(key: Key, config: Mapping[str, str | None]) -> Value:
    errors: list[str] = []
    value = None
    if key.name in config:
        try:
            value = parsed(key.name, config[key.name], key.type)
        except ValueError as error:
            errors.append(str(error))
    elif key.default is REQUIRED:
        errors.append(f'Missing required configuration "{key.name}" which has no default value.')
    else:
        value = key.default
    if key.check is not None:
        wrong = key.check(key.name, value)
        errors += [wrong] if wrong else []
    if key.type == "CLASS" and any(error.endswith("could not be found.") for error in errors):
        value = None
    return Value(key.name, as_text(value, key.type), errors, key.recommended, key.visible)


def check_topics(config: Mapping[str, str | None], values: Mapping[str, Value]) -> None:
    """What a sink's topics say together; adds to the errors of `values`."""
    topics, regex = (config.get("topics") or "").strip(), (config.get("topics.regex") or "").strip()
    dead = (config.get("errors.deadletterqueue.topic.name") or "").strip()
    if bool(topics) == bool(regex):
        said = ("topics and topics.regex are mutually exclusive options, but both are set." if topics
                else "Must configure one of topics or topics.regex")
        values["topics"].errors.append(said)
        values["topics.regex"].errors.append(said)
    named = list(dict.fromkeys(filter(None, parsed("topics", topics, "LIST"))))
    if dead and dead in named:
        values["topics"].errors.append(f"The DLQ topic '{dead}' may not be included in the list of topics "
                                       f"('topics=[{', '.join(named)}]') consumed by the connector")
    if dead and regex and pattern("topics.regex", regex) is None and re.fullmatch(regex, dead):
        values["topics.regex"].errors.append(f"The DLQ topic '{dead}' may not be matched by the regex for the topics "
                                             f"('topics.regex={regex}') consumed by the connector")


def groups_of(keys: Iterable[Key]) -> list[str]:
    return list(Counter(key.group for key in keys if key.group is not None))
