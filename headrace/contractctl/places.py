"""What is written on the command line: a suite, a schema, values of suite parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headrace import codec
from headrace.codec import AvroSchema
from headrace.contracts import Suite
from headrace.errors import UserError
from headrace.marked import nearest
from headrace.plan import schema_file

SUITE = ".expectations.json"
WORD = re.compile(r"[^\W\d]\w*")


def suite_file(name: str, project: Path) -> Path:
    """A path, or the name of a suite in the project."""
    return Path(name) if name.endswith(".json") or "/" in name else project / "schemas" / f"{name}{SUITE}"


def schema_named(name: str, project: Path) -> AvroSchema:
    """A path, or the name of a schema in the project. Raises SchemaError, UserError."""
    written = Path(name)
    return codec.load(written if name.endswith(".avsc") or written.is_file() else schema_file(project, name))


def schema_beside(suite: Suite) -> AvroSchema | None:
    """The schema in the suite's folder that has the name of the suite, or of its file. Raises SchemaError."""
    file = Path(suite.file)
    there = {path.stem: path for path in file.parent.glob("*.avsc")}
    found = there.get(file.name.removesuffix(".json").removesuffix(".expectations")) or there.get(suite.name)
    return codec.load(found) if found else None


def parameters(written: Sequence[str], suite: Suite) -> dict[str, Any]:
    """NAME=VALUE of `--param`; a value is JSON, or else text. Raises UserError, too for what the suite never asks."""
    asked = {word for e in suite.expectations for text in _asked(e.kwargs) for word in WORD.findall(text)}
    given: dict[str, Any] = {}
    for text in written:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UserError(f"--param {text}: write NAME=VALUE", hint="e.g. --param longest=5000")
        if name in given:
            raise UserError(f"--param {name} is given twice")
        if name not in asked:
            raise UserError(f"--param {name}: {suite.file} asks for no such parameter{nearest(name, sorted(asked))}",
                            hint=f"it asks for {', '.join(sorted(asked)) or 'none'}")
        given[name] = _value(value)
    return given


def _asked(value: Any) -> Iterator[str]:
    """Every text under a “$PARAMETER”, however deep."""
    if isinstance(value, Mapping):
        if isinstance(value.get("$PARAMETER"), str):
            yield value["$PARAMETER"]
        for inner in value.values():
            yield from _asked(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _asked(inner)


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")
