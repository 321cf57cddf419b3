"""Connector configuration files, in the three formats Kafka Connect reads, each tried in this order:

    {"name": …, "connector.class": …, …}                            a flat JSON object of text
    {"name": …, "config": {…}, "initial_state": …}                  what its REST API takes; the names must match
    name=…                                                          Java properties
Every finding names the file, the line and the key. A class of ours runs here; one of Java's in Kafka Connect, which
judges its keys; one that nobody has is a finding that says which was meant.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace import marked, properties
from headrace.connect import wild
from headrace.connect.spec import Spec, class_of, spec_of
from headrace.errors import ConfigError, Finding, UserError
from headrace.marked import nearest

STATES = ("RUNNING", "PAUSED", "STOPPED")
CONSOLE = {"FileStreamSource": "standard input, as `headrace produce` does",
           "FileStreamSink": "standard output, as `headrace consume` does"}
"""What Kafka Connect's own two do without a file. A worker has neither; theirs are whatever started it."""


@dataclass(frozen=True, slots=True)
class Connector:
    """A connector as its file declares it."""

    name: str
    keys: Mapping[str, str] = field(repr=False)
    """Its configuration as written, the name too."""
    file: Path
    state: str = "RUNNING"
    full_name: str | None = None
    """The class of ours that runs it, in full; None where it is Java's, for Kafka Connect."""
    spec: Spec | None = None
    """None where it is Java's, or refers to secrets that are not on this machine."""
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)

    @property
    def cls(self) -> str:
        """Its class, as written."""
        return self.keys["connector.class"]


@dataclass(frozen=True, slots=True)
class Written:
    """The keys of a file as text, with the line of each (0 where it is not known)."""

    file: str
    keys: Mapping[str, Any]
    lines: Mapping[str, int]
    name: Any
    state: Any = "RUNNING"
    findings: tuple[Finding, ...] = ()

    def finding(self, key: str, message: str, severity: str = "error") -> Finding:
        return Finding(self.file, self.lines.get(key, 0), message, severity)


def load(path: Path, project: Path) -> Connector:
    """The connector in a file, to run here. Raises ConfigError with all that is wrong, also that it is Java's."""
    made, findings = examine(path, project)
    if made is None or findings:
        raise ConfigError(findings)
    return made


def examine(path: Path, project: Path, *, secrets: bool = True) -> tuple[Connector | None, list[Finding]]:
    """The connector, None where there are errors, and every finding; connects to nothing.

    A Java class is a finding of severity “info”, beside the connector. With `secrets` False, references to secrets
    that are not on this machine are no findings: the worker looks them up.
    """
    try:
        written = read(path)
    except ConfigError as error:
        return None, list(error.findings)
    keys = {"name": written.name, **written.keys} if written.name else dict(written.keys)
    text = str(keys.get("connector.class") or "")
    findings = [*written.findings, *_outside(written)]
    if meant := wild.mistyped(text):
        return None, sorted([*findings, written.finding(
            "connector.class", f"connector.class: there is no connector “{text}”; did you mean “{meant}”?")])
    full_name = _ours(text, keys, project)
    if full_name is None and wild.is_java(text):
        return _java(path, written, keys, findings)
    spec, problems = spec_of(keys, project, secrets=secrets)
    no_text = {key: value for key, value in keys.items() if not isinstance(value, str)}
    findings += [_no_text(written, key, value) for key, value in no_text.items()]
    findings += [written.finding(one.key, f"{one.message}{_console(text, one.key, keys)}") for one in problems
                 if one.key not in no_text]
    if findings:
        return None, sorted(findings)
    return Connector(str(written.name), keys, path, str(written.state), full_name, spec, written.lines), []


def _ours(text: str, keys: Mapping[str, str], project: Path) -> str | None:
    try:
        return class_of(text, keys, project).name
    except UserError:
        return None  # spec_of says why


def _console(text: str, key: str, keys: Mapping[str, str]) -> str:
    what = CONSOLE.get(wild.aliases(text)[2])
    if what is None or key != "file" or key in keys:
        return ""
    return f": Kafka Connect would take {what}; a worker here needs a file"


def _no_text(written: Written, key: str, value: Any) -> Finding:
    return written.finding(key, f"{key}: must be text, as all of Kafka Connect's values: “{json.dumps(value)}”")


def _java(path: Path, written: Written, keys: dict[str, Any],
          findings: list[Finding]) -> tuple[Connector | None, list[Finding]]:
    """Numbers, true and false become text, as in Kafka Connect; the rest of the keys its worker judges."""
    if not written.name:
        findings.append(written.finding("name", "“name” is missing"))
    for key, value in keys.items():
        if isinstance(value, bool | int | float):
            keys[key] = json.dumps(value)
        elif not isinstance(value, str):
            findings.append(_no_text(written, key, value))
    note = written.finding("connector.class", f"connector.class: {keys['connector.class']} is a Java class, which runs "
                           "in a Kafka Connect cluster (`headrace connectors apply` sends it there); "
                           f"{wild.near(keys['connector.class'])}", "info")
    if findings:
        return None, sorted([*findings, note])
    return Connector(str(keys["name"]), keys, path, str(written.state), lines=written.lines), [note]


def _outside(written: Written) -> Iterator[Finding]:
    """What is wrong around the keys."""
    inner = written.keys.get("name", written.name)
    if inner != written.name:
        yield written.finding("name", f"the name in `config` is “{inner}”, outside it “{written.name}”")
    if written.state not in STATES:
        yield written.finding("initial_state", f"initial_state: “{written.state}” is not one of {', '.join(STATES)}")


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


def _properties(file: str, text: str) -> Written:
    keys: dict[str, Any] = {}
    lines: dict[str, int] = {}
    findings = []
    for line, key, value in properties.entries(text):
        if key is None:
            findings.append(Finding(file, line, f"neither JSON nor “key=value”: {value[:60]}"))
            continue
        if key in keys:
            findings.append(Finding(file, line, f"key “{key}” stands there twice"))
        keys[key], lines[key] = value, line
    return Written(file, keys, lines, keys.get("name"), findings=tuple(findings))
