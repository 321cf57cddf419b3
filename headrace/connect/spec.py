"""A connector's flat map of text as a value: its class, its keys validated, its transforms. All problems at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, SecretStr, ValidationError

from headrace import catalog
from headrace.connect.spec_keys import CREATION, PREFIXES, Common, Creation, SinkKeys, SourceKeys, creation_of
from headrace.errors import Finding, UserError
from headrace.marked import nearest
from headrace.secrets import KNOWN, resolved, secrets_of
from headrace.transforms import Chain, chain_of

Kind = Literal["source", "sink"]
NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")  # it is part of a transactional id, and of file names
PROBLEMS: Mapping[str, str] = {
    "int_parsing": "“{given}” is no whole number", "float_parsing": "“{given}” is no number",
    "bool_parsing": "“{given}” is neither true nor false", "literal_error": "“{given}” is not one of {expected}",
    "greater_than_equal": "{given} is below {ge}", "less_than_equal": "{given} is above {le}",
    "greater_than": "{given} is not above {gt}", "string_too_short": "is empty",
    "string_too_long": "“{given}” is longer than {max_length} character(s)",
    "string_pattern_mismatch": "“{given}” is no topic name: letters, digits, “.”, “_” and “-”",
}
"""pydantic's error type → what is said."""
JSON_CONVERTER = "org.apache.kafka.connect.json.JsonConverter"
_STREAM: Mapping[str, str] = {"format": "text", "key.converter": JSON_CONVERTER, "value.converter": JSON_CONVERTER}
JAVA: Mapping[str, tuple[Kind, str, Mapping[str, str]]] = {
    "org.apache.kafka.connect.file.FileStreamSourceConnector": ("source", "file", {**_STREAM, "tail": "true"}),
    "org.apache.kafka.connect.file.FileStreamSinkConnector": ("sink", "file", _STREAM),
}
"""Kafka Connect's own classes that run here: kind, module, and the keys that make ours behave so. Their converters,
left out, are those of Kafka's own connect-standalone.properties: JSON with schemas."""
_OURS = re.compile(r"(?:headrace\.connectors\.(?P<module>\w+)\.)?(?P<noun>[A-Za-z]\w*?)(?P<kind>Source|Sink)")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a key; `key` may be one that is missing."""

    key: str
    message: str


@dataclass(frozen=True, slots=True)
class Class:
    """What runs a connector. `java`: it was named by Kafka Connect's class name, and behaves as that does."""

    name: str
    """In full: headrace.connectors.file.FileSource; Java's where it was named so."""
    kind: Kind
    cls: Any
    java: bool = False
    implied: Mapping[str, str] = field(default_factory=dict)
    """Keys that its name stands for."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A connector, checked. `raw` is its config as given, references to secrets and all; `config` and `common` have
    what they stand for, so they are left out of the repr, and nothing stores them."""

    name: str
    kind: Kind
    cls: Any
    config: Any = field(repr=False)
    """An instance of the class's own `Config`."""
    common: Any = field(repr=False)
    """SourceKeys or SinkKeys."""
    chain: Chain = field(repr=False)
    """The transforms."""
    raw: Mapping[str, str] = field(repr=False)
    project: Path
    cls_name: str = ""
    java: bool = False
    creation: Creation = field(default_factory=Creation, repr=False)
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What `config` and `common` were read from: `raw` with what its class's name implies, references looked up."""

    @property
    def tasks(self) -> int:
        """How many tasks it has: a sink as many as tasks.max says, a source one."""
        return int(self.common.tasks_max) if self.kind == "sink" else 1

    @property
    def group(self) -> str:
        """A sink's consumer group."""
        return self.keys.get("consumer.override.group.id") or f"connect-{self.name}"

    @property
    def batch_records(self) -> int:
        """How many records at a time: as told, else as its class wishes."""
        told = "batch_records" in self.common.model_fields_set
        return int(self.common.batch_records if told else getattr(self.cls, "batch_records", self.common.batch_records))

    def under(self, prefix: str) -> dict[str, str]:
        """The keys of a family, without its prefix."""
        return under(self.keys, prefix)


def class_of(text: str, config: Mapping[str, str], project: Path) -> Class:
    """What `connector.class` names: `file`, `FileSource`, `headrace.connectors.file.FileSource`, or a class of Kafka
    Connect's that runs here. A noun that is both is a sink where the config names topics. Raises UserError."""
    for java, (kind, module, implied) in JAVA.items():
        simple = java.rpartition(".")[2]
        if text in (java, simple, simple.removesuffix("Connector")):
            cls = _both(catalog.connector(module, project)).get(kind.upper())
            if cls is None:
                raise UserError(f"{text}: the connector “{module}” is no {kind} here")
            return Class(java, kind, cls, True, implied)
    if text.count(".") > 1 and text.rpartition(".")[2][:1].isupper() and not text.startswith("headrace."):
        raise UserError(f"{text} is a Java class, which runs in a Kafka Connect cluster",
                        hint="the classes that run here: " + ", ".join(runnable(project)))
    found = _OURS.fullmatch(text)
    noun, wanted = text, None
    if found is not None and (found["module"] or found["noun"]).lower() in catalog.names("connectors", project):
        noun, wanted = (found["module"] or found["noun"]).lower(), found["kind"].upper()
    made = catalog.connector(noun, project)
    both = _both(made)
    there = list(both)
    if not there:
        raise UserError(f"“{text}” belongs to flows, and is run by `headrace run`")
    if wanted is None:
        reads = any(config.get(key) for key in ("topics", "topics.regex"))
        wanted = there[0] if len(there) == 1 else "SINK" if reads else "SOURCE"
    cls = both.get(wanted)
    if cls is None:
        raise UserError(f"the connector “{noun}” is no {wanted.lower()}", hint=f"it is a {there[0].lower()}")
    return Class(f"headrace.connectors.{noun}.{cls.__name__}", "source" if wanted == "SOURCE" else "sink", cls)


def runnable(project: Path) -> list[str]:
    """The connectors that run here, by their short names."""
    return [name for name in catalog.names("connectors", project)
            if _both(catalog.connector(name, project))]


def _both(module: Any) -> dict[str, Any]:
    """What of it runs here: SOURCE, SINK or both."""
    return {kind: cls for kind in ("SOURCE", "SINK") if isinstance(cls := getattr(module, kind, None), type)
            and hasattr(cls, "Config")}


def spec_of(config: Mapping[str, str], project: Path, *, secrets: bool = True) -> tuple[Spec | None, list[Problem]]:
    """The connector, None where there are problems, and all of them. Connects to nothing.

    References to secrets are looked up, so that what they stand for is checked, too. With `secrets` False one that
    cannot be (on the machine of whoever lints) is no problem, and then there is no spec either.
    """
    text = str(config.get("connector.class") or "")
    problems = [Problem(key, f"{key}: must be text, as all of Kafka Connect's values: “{value}”")
                for key, value in config.items() if not isinstance(value, str)]
    if not text:
        return None, [*problems, *_name(config), Problem("connector.class", "“connector.class” is missing")]
    try:
        made = class_of(text, config, project)
    except UserError as error:
        return None, [*problems, *_name(config), Problem("connector.class", f"connector.class: {error}")]
    keys = {**made.implied, **{key: value for key, value in config.items() if isinstance(value, str)}}
    known, unknown = {}, set()
    for key, value in keys.items():
        try:
            known[key] = resolved(value)
        except UserError as error:
            unknown.add(key)
            if secrets:
                problems.append(Problem(key, f"{key}: {error}"))
    own, common, more = _models(made, known, config, project)
    more += [*_fields(made, own, known, project), *_converters(known)]
    problems += _name(config) + [p for p in more if p.key not in unknown]
    if common is None:
        return None, problems
    spec = _spec(made, config, known, own, common, project, problems)
    return (None if problems or unknown else spec), problems


def _name(config: Mapping[str, str]) -> list[Problem]:
    name = config.get("name")
    if not name:
        return [Problem("name", "“name” is missing")]
    if isinstance(name, str) and NAME.fullmatch(name):
        return []
    return [Problem("name", f"“{name}” is no connector name: letters, digits, “.”, “_”, “-”, 100 at most")]


def _models(made: Class, known: Mapping[str, str], config: Mapping[str, str],
            project: Path) -> tuple[Any, Any, list[Problem]]:
    """The class's own keys and the common ones, as models. A key that both name goes to both."""
    shared: type[Common] = SourceKeys if made.kind == "source" else SinkKeys
    theirs = {field.alias or name for name, field in made.cls.Config.model_fields.items()}
    ours = {field.alias or name for name, field in shared.model_fields.items()}
    families = (*PREFIXES, CREATION) if made.kind == "source" else PREFIXES
    problems = []
    if not made.java:
        problems = [Problem(key, f"there is no key “{key}”{nearest(key, theirs | ours)}") for key in known
                    if key not in theirs | ours and not key.startswith(families)]
    given = {**known, "connector.class": made.name.split(".")[-2]}
    own, wrong = _validated(made.cls.Config, {k: v for k, v in given.items() if k in theirs}, config)
    common, more = _validated(shared, {k: v for k, v in known.items() if k in ours}, config)
    wrong += [p for p in more if p not in wrong]
    return own, common, problems + wrong


def _validated(model: type[BaseModel], given: Mapping[str, str],
               config: Mapping[str, str]) -> tuple[Any, list[Problem]]:
    try:
        return model.model_validate(dict(given)), []
    except ValidationError as error:
        return None, [_problem(dict(one), config) for one in error.errors(include_url=False)]


def _problem(error: dict[str, Any], config: Mapping[str, str]) -> Problem:
    """In our words. A value is shown as it was written, not what its references stand for."""
    if not error["loc"]:  # of keys together: it names the key itself
        text = str(error["msg"]).removeprefix("Value error, ")
        return Problem(text.partition(":")[0], text)
    key = str(error["loc"][0])
    if error["type"] == "missing":
        return Problem(key, f"“{key}” is missing")
    context = error.get("ctx", {})
    told = PROBLEMS.get(error["type"])
    if error["type"] == "string_pattern_mismatch" and "A-Za-z0-9._-" not in str(context.get("pattern")):
        told = "“{given}” does not match {pattern}"
    words = {**context, "given": config.get(key, error["input"])}
    said = told.format_map(words) if told else str(error["msg"]).removeprefix("Value error, ")
    return Problem(key, f"{key}: {said}")


def _spec(made: Class, config: Mapping[str, str], known: Mapping[str, str], own: Any, common: Any, project: Path,
          problems: list[Problem]) -> Spec:
    creation, wrong = creation_of(known, getattr(common, "creation_groups", ()))
    problems += [Problem(key, f"{key}: {message}") for key, message in wrong]
    chain, wrong = chain_of(known)
    problems += [Problem(key, message) for key, message in wrong]
    problems += [*_together(common), *(_topics(common) if made.kind == "sink" else ())]
    KNOWN.learn({*_secrets(own), *secrets_of(known)})
    return Spec(str(config.get("name")), made.kind, made.cls, own, common, chain, dict(config), project, made.name,
                made.java, creation, dict(known))


def _secrets(model: BaseModel | None) -> Iterator[str]:
    for name in type(model).model_fields if model is not None else ():
        value = getattr(model, name)
        if isinstance(value, SecretStr):
            yield value.get_secret_value()


def _together(common: Any) -> Iterator[Problem]:
    if common.dead_letters and common.errors_tolerance == "none":
        yield Problem("errors.deadletterqueue.topic.name", "errors.deadletterqueue.topic.name: nothing goes there with "
                      "errors.tolerance=none; set errors.tolerance=all")
    if getattr(common, "transaction_boundary", None) == "connector":
        yield Problem("transaction.boundary", "transaction.boundary: no source defines its own transactions; “poll” or "
                      "“interval”")


def _converters(known: Mapping[str, str]) -> Iterator[Problem]:
    from headrace.records.converters import check, header_converter_of, name_of

    for what in ("key", "value", "header"):
        named = known.get(f"{what}.converter", "").strip()
        sub = converter_keys(known, what)
        for key, message in check(sub) if named else ():
            yield Problem(f"{what}.converter.{key}", f"{what}.converter.{key}: {message}")
        try:
            if named and what == "header":
                header_converter_of(named, {})
            elif named:
                name_of(named)
        except UserError as error:
            yield Problem(f"{what}.converter", f"{what}.converter: {error}")


def _topics(common: SinkKeys) -> Iterator[Problem]:
    if bool(common.topics) == bool(common.topics_regex):
        what = "are two ways to say one thing" if common.topics else "are missing: what is to be read"
        yield Problem("topics", f"topics: “topics” and “topics.regex” {what}")
    if common.topics_regex:
        try:
            dead = re.fullmatch(common.topics_regex, common.dead_letters or "")
        except re.error as error:
            yield Problem("topics.regex", f"topics.regex: “{common.topics_regex}” is no regular expression: {error}")
            return
        if dead and common.dead_letters:
            yield Problem("topics.regex", f"topics.regex: matches the dead-letter topic {common.dead_letters}, which "
                          "would be read again")
    if common.dead_letters in common.topics:
        yield Problem("topics", f"topics: {common.dead_letters} is the dead-letter topic, which would be read again")


def _fields(made: Class, own: Any, known: Mapping[str, str], project: Path) -> Iterator[Problem]:
    """What of the keys does not fit the schema they name."""
    from headrace.codec import load as load_schema
    from headrace.connect.shape import check_fields
    from headrace.plan import schema_file

    if made.kind == "sink":
        return
    if not known.get("schema"):
        if getattr(own, "schema_needed", False):
            yield Problem("schema", "“schema” is missing")
        return
    try:
        schema = load_schema(schema_file(project, known["schema"]))
    except UserError as error:
        yield Problem("schema", f"schema: {error}")
        return
    key, time = known.get("key") or None, known.get("timestamp.column") or None
    for name, fields in (("key", (key, None)), ("timestamp.column", (None, time))):
        try:
            check_fields(schema, *fields)
        except UserError as error:
            yield Problem(name, f"{name}: {error}")


def under(keys: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The keys of a family, without its prefix."""
    return {key.removeprefix(prefix): value for key, value in keys.items() if key.startswith(prefix)}


def converter_keys(keys: Mapping[str, str], what: str) -> dict[str, str]:
    """The sub-keys of the converter of “key”, “value” or “header”."""
    return {key: value for key, value in under(keys, f"{what}.converter.").items() if key != "plugin.version"}


def findings(problems: list[Problem], file: str, lines: Mapping[str, int]) -> list[Finding]:
    """Problems of a file's keys, by line (0 where it is not known)."""
    return sorted(Finding(file, lines.get(one.key, 0), one.message) for one in problems)
