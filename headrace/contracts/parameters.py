"""Suite parameters: {"$PARAMETER": "name"} in place of an argument, filled in when rows are judged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from headrace.contracts.suite import Expectation, Suite, check_common
from headrace.errors import SuiteError
from headrace.marked import nearest

KEY = "$PARAMETER"
_NAME = re.compile(r"[A-Za-z_]\w*")


def asked(suite: Suite) -> dict[str, list[str]]:
    """Parameter → the ids of the expectations that ask for it, in the suite's order."""
    found: dict[str, list[str]] = {}
    for e in suite.expectations:
        for name in of(e):
            found.setdefault(name, []).append(e.id)
    return found


def of(e: Expectation) -> list[str]:
    """The parameters an expectation asks for, each once."""
    return list(dict.fromkeys(_names(e.kwargs)))


def filled(suite: Suite, values: Mapping[str, Any], *, partly: bool = False) -> Suite:
    """The suite with its parameters' values. Raises SuiteError for arithmetic in a parameter, which only Great
    Expectations knows, and, unless `partly`, for one that is not there, as Great Expectations raises for the whole
    suite."""
    return replace(suite, expectations=tuple(_with(e, values, partly) for e in suite.expectations))


def _with(e: Expectation, values: Mapping[str, Any], partly: bool) -> Expectation:
    names = of(e)
    if not names or (partly and any(n not in values and _NAME.fullmatch(n) for n in names)):
        return e
    made = replace(e, kwargs=_filled(e, dict(e.kwargs), values))
    check_common(made)
    return made


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if KEY in value:
            yield str(value[KEY])
        else:
            for each in value.values():
                yield from _names(each)
    elif isinstance(value, list):
        for each in value:
            yield from _names(each)


def _filled(e: Expectation, value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_filled(e, each, values) for each in value]
    if not isinstance(value, Mapping):
        return value
    if KEY not in value:
        return {key: _filled(e, each, values) for key, each in value.items()}
    name = str(value[KEY])
    if name in values:
        return values[name]
    if not _NAME.fullmatch(name):
        e.wrong(f"the suite parameter “{name}” is a calculation", "name a parameter, and give its value")
    raise SuiteError(f"{e.file}: {e.id}: the suite parameter “{name}” has no value{nearest(name, list(values))}",
                     hint="give it: `parameters:` of validate in a flow, --param NAME=VALUE at the keyboard")
