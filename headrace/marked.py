"""YAML (and JSON, which is YAML) as plain data with the line of every node, for files that people write.

Refused, each with its line: more than a megabyte, aliases that multiply, recursion, duplicate keys, tags, merge keys.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.errors import ConfigError, Finding

BYTES_MAX = 1_000_000
NODES_MAX = 200_000
DEPTH_MAX = 40
Place = tuple[str | int, ...]
"""Where a node is: keys and indexes from the root."""

SCALARS = {"null": "null", "bool": "bool", "int": "int", "float": "float", "str": "str",
           "timestamp": "str"}  # a date stays text: what it becomes is the schema's to say
TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Marked:
    """A file's data, the line of each node (from 1), and what is wrong with it as YAML."""

    file: str
    data: Any
    lines: Mapping[Place, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def line(self, *place: str | int) -> int:
        """The line of the node at `place`, or of the nearest node above it that is in the file."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 0)

    def finding(self, place: Iterable[str | int], message: str, severity: str = "error") -> Finding:
        return Finding(self.file, self.line(*place), message, severity)


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    return next(iter(difflib.get_close_matches(word, sorted(set(known)), n=1, cutoff=0.6)), None)


def nearest(word: str, known: Iterable[str]) -> str:
    """“; did you mean x?”, “; there are a, b, c”, or nothing when nothing is known."""
    names = sorted(set(known))
    close = closest(word, names)
    if close:
        return f"; did you mean “{close}”?"
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"; there is {shown}" if len(names) == 1 else f"; there are {shown}" if names else ""


def read(path: Path, shown: str | None = None) -> Marked:
    """The file's data. Raises ConfigError when there is none to work on; lesser findings come with the data.

    `shown` is the name findings carry, `path` by default.
    """
    file = shown or str(path)

    def fail(line: int, message: str) -> ConfigError:
        return ConfigError([Finding(file, line, message)])

    try:
        size = path.stat().st_size
        if size > BYTES_MAX:
            raise fail(0, f"has {size:,} bytes; at most {BYTES_MAX:,} are read")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise fail(0, f"is not UTF-8: {error}") from error
    except OSError as error:
        raise fail(0, f"cannot be read: {error.strerror}") from error
    return parse(text, file)


def parse(text: str, file: str) -> Marked:
    """As `read`, of text in hand."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = DEPTH_MAX
    yaml.composer.warn_double_anchors = False
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(error.problem or error.context).split())
        raise ConfigError([Finding(file, mark.line + 1 if mark else 0, f"not YAML: {problem}")]) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError([Finding(file, 0, f"not YAML: {' '.join(str(error).split())}")]) from error
    if root is None:
        raise ConfigError([Finding(file, 0, "is empty")])
    builder = _Builder(file, yaml.constructor)
    data = builder.build(root, ())
    return Marked(file, data, builder.lines, tuple(builder.findings))


class _Builder:
    """Walks the composed nodes once; counts what aliases expand to, so that a small file cannot become a large one."""

    def __init__(self, file: str, constructor: Any) -> None:
        self.file = file
        self.constructor = constructor
        self.lines: dict[Place, int] = {}
        self.findings: list[Finding] = []

    def build(self, node: Any, place: Place) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(place, line)
        if len(self.lines) > NODES_MAX or len(place) > DEPTH_MAX:
            raise ConfigError([Finding(self.file, line, "aliases make this too large or too deep; write it out")])
        tag = str(node.ctag if hasattr(node, "ctag") else node.tag).removeprefix(TAG)
        if tag == "map":
            return self.mapping(node, place)
        if tag == "seq":
            return [self.build(child, (*place, at)) for at, child in enumerate(node.value)]
        if tag not in SCALARS:
            self.found(node, f"the tag “{tag}” is not known here")
            return None
        try:
            return getattr(self.constructor, f"construct_yaml_{SCALARS[tag]}")(node)
        except (ValueError, TypeError) as error:
            self.found(node, f"not a value: {error}")
            return None

    def mapping(self, node: Any, place: Place) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str) or str(key_node.tag).endswith(":merge"):
                self.found(key_node, "a key must be plain text; lists, mappings and “<<” cannot be keys here")
                continue
            if key in out:
                self.found(key_node, f"“{key}” is here twice; it is first on line {self.lines[(*place, key)]}")
                continue
            self.lines[(*place, key)] = key_node.start_mark.line + 1
            out[key] = self.build(value_node, (*place, key))
        return out

    def found(self, node: Any, message: str) -> None:
        self.findings.append(Finding(self.file, node.start_mark.line + 1, message))
