"""Great Expectations suite files, read as data: no Great Expectations needed, nothing judged yet.

    {"name": "departure", "expectations": [
        {"id": "tailnum_known", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "tailnum"},
         "severity": "critical", "meta": {}}, …]}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from headrace.errors import SuiteError

SEVERITIES = ("critical", "warning", "info")
COLUMN_KEYS = ("column", "column_A", "column_B", "column_list")


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation as written. `id` is the file's own, or derived: type, two underscores, column."""

    id: str
    type: str
    kwargs: Mapping[str, Any]
    severity: str
    file: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it names, in order."""
        named = [self.kwargs[k] for k in COLUMN_KEYS if self.kwargs.get(k) is not None]
        return tuple(str(c) for n in named for c in (n if isinstance(n, list) else [n]))

    @property
    def mostly(self) -> float:
        value = self.kwargs.get("mostly")
        return 1.0 if value is None else float(value)

    def wrong(self, what: str, hint: str) -> NoReturn:
        """Raises SuiteError, naming file, expectation and column."""
        about = f" ({', '.join(self.columns)})" if self.columns else ""
        raise SuiteError(f"{self.file}: {self.id}{about}: {what}", hint=hint)


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite file."""

    name: str
    file: str
    expectations: tuple[Expectation, ...]


def suite_path(project: Path, named: str) -> Path:
    """Where a suite is that a file names: “departure” is schemas/departure.expectations.json."""
    plain = not named.endswith(".json") and "/" not in named
    return project / (f"schemas/{named}.expectations.json" if plain else named)


def load(path: Path | str) -> Suite:
    """Reads a suite file. Raises SuiteError: not there, not JSON, or not of the shape Great Expectations 1.x writes."""
    file = Path(path)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        others = sorted(p.name.removesuffix(".expectations.json") for p in file.parent.glob("*.expectations.json"))
        raise SuiteError(f"{file}: there is no such suite",
                         hint=f"beside it there are {', '.join(others)}" if others else
                         "write one: {\"name\": …, \"expectations\": […]}, docs/contracts.md shows how") from None
    except OSError as error:
        raise SuiteError(f"{file}: cannot be read: {error.strerror}", hint="see that it is a readable file") from error
    except ValueError as error:
        raise SuiteError(f"{file}: not JSON: {error}", hint="mend the file") from error
    return parse(data, str(file))


def parse(data: Any, file: str) -> Suite:
    """A suite from JSON data; `file` names it in messages. Raises SuiteError."""
    if not isinstance(data, dict) or not isinstance(data.get("expectations"), list):
        raise SuiteError(f"{file}: a suite is an object with a list “expectations”",
                         hint="{\"name\": …, \"expectations\": [{\"type\": …, \"kwargs\": {…}}, …]}")
    written = [_shape(e, at, file) for at, e in enumerate(data["expectations"], 1)]
    ids = _ids(written)
    expectations = tuple(
        Expectation(id_, e["type"], dict(e.get("kwargs") or {}), e.get("severity") or "critical", file,
                    dict(e.get("meta") or {})) for id_, e in zip(ids, written, strict=True))
    for expectation in expectations:
        check_common(expectation)
    return Suite(str(data.get("name") or Path(file).name.split(".")[0]), file, expectations)


def _shape(written: Any, at: int, file: str) -> dict[str, Any]:
    """One entry of the list, of the right shape."""
    where = f"{file}: expectation {at}"
    if not isinstance(written, dict):
        raise SuiteError(f"{where} is not an object", hint="write {\"type\": …, \"kwargs\": {…}}")
    if "type" not in written and "expectation_type" in written:
        raise SuiteError(f"{where} has an “expectation_type”: the file is of Great Expectations 0.x",
                         hint="in 1.x the key is “type”; Great Expectations' migration guide has the rest")
    if not isinstance(written.get("type"), str):
        raise SuiteError(f"{where} has no “type”", hint="e.g. \"type\": \"expect_column_values_to_not_be_null\"")
    if not isinstance(written.get("kwargs") or {}, dict):
        raise SuiteError(f"{where}: “kwargs” is not an object", hint="e.g. \"kwargs\": {\"column\": \"tailnum\"}")
    if (written.get("severity") or "critical") not in SEVERITIES:
        raise SuiteError(f"{where}: “{written['severity']}” is no severity", hint=f"one of {', '.join(SEVERITIES)}")
    return written


def _ids(written: list[dict[str, Any]]) -> list[str]:
    """An id each: the one written, or type__column, numbered from the second on. Raises SuiteError on a double."""
    own = [str(e["id"]) if e.get("id") else None for e in written]
    twice = [i for i, n in Counter(i for i in own if i).items() if n > 1]
    if twice:
        raise SuiteError(f"two expectations have the id “{twice[0]}”", hint="ids tell expectations apart; rename one")
    taken, out = {i for i in own if i}, []
    for mine, entry in zip(own, written, strict=True):
        if mine is None:
            columns = Expectation("", entry["type"], entry.get("kwargs") or {}, "", "").columns
            base = "__".join((entry["type"].removeprefix("expect_"), *columns))
            mine, number = base, 1
            while mine in taken:
                number += 1
                mine = f"{base}_{number}"
            taken.add(mine)
        out.append(mine)
    return out


def check_common(e: Expectation) -> None:
    """What holds for every expectation, whatever its type. Raises SuiteError."""
    if e.kwargs.get("row_condition") is not None and (parser := e.kwargs.get("condition_parser")) in _CODE:
        e.wrong(f"its row_condition is {parser} code, which could do anything",
                "write it as Great Expectations' own condition: {\"type\": \"comparison\", \"column\": {\"name\": …}, "
                "\"operator\": \"==\", \"parameter\": …}")
    mostly = e.kwargs.get("mostly")
    if mostly is None or isinstance(mostly, Mapping):  # a suite parameter is looked at once it has its value
        return
    if isinstance(mostly, bool) or not isinstance(mostly, int | float) or not 0 <= mostly <= 1:
        e.wrong(f"mostly is {mostly!r}", "mostly is a number between 0 and 1")


_CODE = ("pandas", "python", "spark")
