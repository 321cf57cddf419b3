"""Lint of a project's files, each by what it is: flows, schemas, suites, connector configurations, headrace.toml.

No broker is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from headrace import codec, contracts, flow, settings
from headrace import plan as planning
from headrace.errors import ConfigError, Finding, UserError

SUITE = ".expectations.json"
DEFAULT = ("flows/*.yaml", "flows/*.yml", "schemas/**/*.avsc", f"schemas/**/*{SUITE}", "connectors/*.json",
           "connectors/*.properties", settings.FILE)


def files(paths: Sequence[Path], project: Path) -> list[Path]:
    """What to lint: the files given, those under the folders given, or all of the project. Raises UserError."""
    if not paths:
        return [found for pattern in DEFAULT for found in sorted(project.glob(pattern))]
    out: list[Path] = []
    for path in paths:
        if path.is_dir():
            out += sorted(p for p in path.rglob("*") if p.is_file() and _linter(p) is not None)
        elif not path.is_file():
            raise UserError(f"there is no file {path}")
        elif _linter(path) is None:
            raise UserError(f"{path} is nothing that can be linted",
                            hint=f"flows end in .yaml, schemas in .avsc, suites in {SUITE}, connectors in .json; and "
                                 f"{settings.FILE} is one, too")
        else:
            out.append(path)
    return list(dict.fromkeys(out))


def lint(paths: Iterable[Path], project: Path) -> list[Finding]:
    """Every finding in the files, by file and line."""
    paths = list(paths)
    out = []
    for path in paths:
        linter = _linter(path)
        assert linter is not None, "files() gives what has a linter"
        out += linter(path, project)
    return sorted({*out, *_same_name(paths)})


def _same_name(paths: Iterable[Path]) -> list[Finding]:
    """Two flows of one name would share a consumer group, and each would get a part of the records."""
    first: dict[str, Path] = {}
    out = []
    for path in paths:
        if path.suffix not in (".yaml", ".yml"):
            continue
        spec, _ = flow.examine(path)
        if spec is not None and first.setdefault(spec.flow, path) != path:
            out.append(spec.finding(("flow",), f"“{spec.flow}” is the name of the flow in {first[spec.flow]} too; they "
                                    "would share one consumer group"))
    return out


def _linter(path: Path) -> Callable[[Path, Path], list[Finding]] | None:
    name = path.name
    if name.endswith((".yaml", ".yml")):
        return planning.lint
    if name.endswith(".avsc"):
        return _schema
    if name.endswith(SUITE):
        return _suite
    if name == settings.FILE:
        return _settings
    return _connector if name.endswith((".json", ".properties")) else None


def _schema(path: Path, project: Path) -> list[Finding]:
    problem = _json_problem(path)
    if problem:
        return [problem]
    try:
        codec.load(path)
    except UserError as error:
        return [Finding(str(path), 0, str(error))]
    return []


def _suite(path: Path, project: Path) -> list[Finding]:
    """That it is a suite, and that it can judge the records whose schema stands beside it."""
    problem = _json_problem(path)
    if problem:
        return [problem]
    shape = path.with_name(path.name.removesuffix(SUITE) + ".avsc")
    try:
        suite = contracts.load(path)
        if shape.is_file():
            contracts.compile_suite(suite, codec.load(shape).arrow)
    except ConfigError as error:
        return list(error.findings)
    except UserError as error:
        return [Finding(str(path), 0, str(error))]
    return []


def _settings(path: Path, project: Path) -> list[Finding]:
    """That no secret is written out where others read it."""
    return settings.lint(path)


def _connector(path: Path, project: Path) -> list[Finding]:
    """That it is Kafka Connect's format, and ours can run it; a Java class is for a Connect cluster to judge."""
    from headrace.connect import config

    return config.examine(path, project, secrets=False)[1]


def _json_problem(path: Path) -> Finding | None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        return Finding(str(path), error.lineno, f"not JSON: {error.msg}")
    except (OSError, UnicodeDecodeError) as error:
        return Finding(str(path), 0, f"cannot be read: {error}")
    return None
