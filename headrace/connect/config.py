"""Connector configuration files, in the three formats Kafka Connect reads, each tried in this order:

    {"name": …, "connector.class": …, …}                            a flat JSON object of text
    {"name": …, "config": {…}, "initial_state": …}                  what its REST API takes; the names must match
    name=…                                                          Java properties
Every finding names the file, the line and the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from headrace import catalog, marked
from headrace.errors import ConfigError, Finding, UserError
from headrace.marked import nearest

ALIASES = {"FileSource": "file", "headrace.connectors.file.FileSource": "file"}
STATES = ("RUNNING", "PAUSED", "STOPPED")
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


@dataclass(frozen=True, slots=True)
class Connector:
    """A connector as its file declares it. `kind` is the module's name in connectors/, `config` its validated keys."""

    name: str
    kind: str
    config: Any
    source: Any
    """The class that runs it."""
    file: Path
    state: str = "RUNNING"


@dataclass(frozen=True, slots=True)
class Written:
    """The keys of a file as text, with the line of each (0 where it is not known)."""

    file: str
    keys: Mapping[str, Any]
    lines: Mapping[str, int]
    name: Any
    state: Any = "RUNNING"
    findings: tuple[Finding, ...] = ()

    def finding(self, key: str, message: str) -> Finding:
        return Finding(self.file, self.lines.get(key, 0), message)


def load(path: Path, project: Path) -> Connector:
    """The connector in a file. Raises ConfigError with all that is wrong, UserError when there is no such file."""
    made, findings = examine(path, project)
    if made is None or findings:
        raise ConfigError(findings)
    return made


def examine(path: Path, project: Path) -> tuple[Connector | None, list[Finding]]:
    """The connector and every finding; connects to nothing. A Java class is a finding: it needs a Connect cluster."""
    try:
        written = read(path)
    except ConfigError as error:
        return None, list(error.findings)
    findings = [*written.findings, *_names(written)]
    kind = str(written.keys.get("connector.class") or "")
    kind = ALIASES.get(kind, kind)
    source = None
    if not kind:
        findings.append(written.finding("connector.class", "“connector.class” is missing"))
    else:
        try:
            source = _source(kind, project)
        except UserError as error:
            findings.append(written.finding("connector.class", f"connector.class: {error}"))
    if source is None:
        return None, sorted(findings)
    config, more = _validated(written, kind, source.Config)
    findings += more
    if config is not None:
        findings += _shape(written, config, project)
    if config is None or findings:
        return None, sorted(findings)
    return Connector(str(written.name), kind, config, source, path, str(written.state)), []


def _names(written: Written) -> Iterator[Finding]:
    inner = written.keys.get("name", written.name)
    if not written.name:
        yield written.finding("name", "“name” is missing")
    elif not isinstance(written.name, str) or not NAME.fullmatch(written.name):
        yield written.finding("name", f"“{written.name}” is no connector name: letters, digits, “.”, “_”, “-”, 100 at "
                              "most")
    if inner != written.name:
        yield written.finding("name", f"the name in `config` is “{inner}”, outside it “{written.name}”")
    if written.state not in STATES:
        yield written.finding("initial_state", f"initial_state: “{written.state}” is not one of {', '.join(STATES)}")
    for key, value in written.keys.items():
        if not isinstance(value, str):
            yield written.finding(key, f"{key}: must be text, as all of Kafka Connect's values: “{json.dumps(value)}”")


def _source(kind: str, project: Path) -> Any:
    """The class that runs connectors of a kind. Raises UserError."""
    if kind.count(".") > 1 and kind.rpartition(".")[2][:1].isupper():
        raise UserError(f"{kind} is a Java class, which runs in a Kafka Connect cluster",
                        hint="the classes that run here: " + ", ".join(["file"]))
    source = getattr(catalog.connector(kind, project), "SOURCE", None)
    if source is None:
        raise UserError(f"“{kind}” belongs to flows, and is run by `headrace run`")
    return source


def _validated(written: Written, kind: str, model: Any) -> tuple[Any, list[Finding]]:
    keys = {field.alias or name for name, field in model.model_fields.items()}
    given = {k: v for k, v in written.keys.items() if k != "name"} | {"connector.class": kind}
    findings = [written.finding(k, f"there is no key “{k}”{nearest(k, keys)}") for k in given if k not in keys]
    try:
        return model.model_validate({k: v for k, v in given.items() if k in keys and isinstance(v, str)}), findings
    except ValidationError as error:
        no_text = {key for key, value in given.items() if not isinstance(value, str)}  # told already
        return None, findings + [_problem(written, dict(one)) for one in error.errors()
                                 if not (one["loc"] and one["loc"][0] in no_text)]


def _shape(written: Written, config: Any, project: Path) -> list[Finding]:
    """What of the keys does not fit the schema they name."""
    from headrace.codec import load as load_schema
    from headrace.connect.shape import check_fields
    from headrace.plan import schema_file

    findings = []
    try:
        schema = load_schema(schema_file(project, config.schema_name))
    except UserError as error:
        return [written.finding("schema", f"schema: {error}")]
    for key, fields in (("key", (config.key, None)), ("timestamp.column", (None, config.timestamp_column))):
        try:
            check_fields(schema, *fields)
        except UserError as error:
            findings.append(written.finding(key, f"{key}: {error}"))
    return findings


def _problem(written: Written, error: dict[str, Any]) -> Finding:
    if not error["loc"]:  # of keys together: it names the key itself
        text = str(error["msg"]).removeprefix("Value error, ")
        return written.finding(text.partition(":")[0], text)
    key = str(error["loc"][0])
    if error["type"] == "missing":
        return written.finding(key, f"“{key}” is missing")
    words = {"given": error["input"], **error.get("ctx", {})}
    told = PROBLEMS.get(error["type"])
    return written.finding(key, f"{key}: {told.format_map(words) if told else error['msg']}")


def read(path: Path) -> Written:
    """A file's keys, whichever format it is in. Raises ConfigError when it is in none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError([Finding(str(path), 0, f"cannot be read: {why}")]) from error
    if not text.lstrip().startswith(("{", "[")):
        return _properties(str(path), text)
    try:
        data = json.loads(text, object_pairs_hook=lambda pairs: _once(str(path), pairs))
    except json.JSONDecodeError as error:
        raise ConfigError([Finding(str(path), error.lineno, f"not JSON: {error.msg}")]) from error
    if not isinstance(data, dict):
        raise ConfigError([Finding(str(path), 1, "must be a JSON object in Kafka Connect's format")])
    try:
        lines = {str(place[-1]): line for place, line in marked.read(path).lines.items() if place}
    except ConfigError:
        lines = {}  # e.g. indented by tabs
    if not isinstance(data.get("config"), dict):
        return Written(str(path), data, lines, data.get("name"))
    beside = [Finding(str(path), lines.get(k, 0), f"there is no key “{k}” beside `config`"
                      f"{nearest(k, ('name', 'config', 'initial_state'))}")
              for k in data if k not in ("name", "config", "initial_state")]
    return Written(str(path), data["config"], lines, data.get("name"), data.get("initial_state", "RUNNING"),
                   tuple(beside))


def _once(file: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ConfigError([Finding(file, 0, f"key “{key}” stands there twice") for key in twice])
    return dict(pairs)


_KEY = re.compile(r"((?:[^\\=:\s]|\\.)+)[ \t\f]*[=: \t\f]?[ \t\f]*(.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\(.)", re.DOTALL)
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def _properties(file: str, text: str) -> Written:
    """java.util.Properties: comments by # and !, lines that end in a backslash go on, \\-escapes."""
    keys: dict[str, Any] = {}
    lines: dict[str, int] = {}
    findings = []
    rest, begun = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        line = line.lstrip(" \t\f")
        if not rest and (not line or line[0] in "#!"):
            continue
        begun = begun if rest else number
        if (len(line) - len(line.rstrip("\\"))) % 2:
            rest += line[:-1]
            continue
        found, rest = _KEY.fullmatch(rest + line), ""
        if found is None:
            findings.append(Finding(file, begun, f"neither JSON nor “key=value”: {line[:60]}"))
            continue
        key, value = _plain(found[1]), _plain(found[2])
        if key in keys:
            findings.append(Finding(file, begun, f"key “{key}” stands there twice"))
        keys[key], lines[key] = value, begun
    return Written(file, keys, lines, keys.get("name"), findings=tuple(findings))


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _CONTROLS.get(m[2], m[2]), text)
