"""A suite suggested of rows and held against them: what does not hold is left out, with the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace.contractctl.judged import judged
from headrace.contracts import Expectation, Suite, compile_suite, kinds, parse
from headrace.contracts.suggesting.profile import profile
from headrace.contracts.suggesting.suggest import suggest
from headrace.errors import MissingExtra, SuiteError


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A suggestion that is not in the suite."""

    expectation: Expectation
    why: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A suite file's data, of which every expectation holds on the rows."""

    data: Mapping[str, Any]
    expectations: Sequence[Expectation]
    left_out: Sequence[LeftOut]
    for_windows: Sequence[str]
    """Ids of what judges many records at once, which a stream has in windows only: in the suite, or, with
    `records_only`, not in it."""

    def evidence(self, e: Expectation) -> str:
        return str(e.meta["headrace"]["evidence"])


def draft(rows: pa.RecordBatch, *, name: str, source: str, margin: float = 0.25, strictness: str = "normal",
          records_only: bool = False) -> Draft:
    """A suite called `name` of rows that `source` had; `records_only`: without what judges many records at once. The
    other arguments are those of `suggest`. Raises UserError: there are no rows, or an argument is wrong."""
    made = suggest(profile([rows], rows.schema), name=name, source=source, margin=margin, strictness=strictness)
    suite = parse(made, name)
    many = [e.id for e in suite.expectations if kinds.kind_of(e) not in ("row", "schema")]
    wanted = [e for e in suite.expectations if not records_only or e.id not in many]
    left_out = unfit(suite, wanted, rows)
    gone = {each.expectation.id for each in left_out}
    kept = [e for e in wanted if e.id not in gone]
    ids = {e.id for e in kept}
    written = [each for each in made["expectations"] if each["id"] in ids]
    return Draft({**made, "expectations": written}, kept, left_out, [id_ for id_ in many if id_ not in gone])


def unfit(suite: Suite, wanted: Sequence[Expectation], rows: pa.RecordBatch) -> list[LeftOut]:
    """Those of a suite that cannot be judged on rows, or do not hold on them, and why."""
    left_out: list[LeftOut] = []
    fit: list[Expectation] = []
    for e in wanted:
        try:
            compile_suite(Suite(suite.name, suite.file, (e,)), rows.schema)
        except (SuiteError, MissingExtra) as error:
            left_out.append(LeftOut(e, f"could not be checked: {error.what}"))
        else:
            fit.append(e)
    report = compile_suite(Suite(suite.name, suite.file, tuple(fit)), rows.schema).check(rows)
    found = judged(report.verdicts, report.failures, values_max=0, rows_max=0)
    return left_out + [LeftOut(each.expectation, f"{each.word} on the data itself: {each.found}") for each in found
                       if not each.verdict.success]


def text(data: Mapping[str, Any]) -> str:
    """A suite file, as people read and change it: few lines an expectation."""
    entries = ",\n".join(_entry(each) for each in data["expectations"])
    return (f'{{\n  "name": {_json(data["name"])},\n  "expectations": [\n{entries}\n  ],\n'
            f'  "meta": {_json(data["meta"])}\n}}\n')


def _entry(e: Mapping[str, Any]) -> str:
    first = ", ".join(f'"{key}": {_json(e[key])}' for key in ("id", "type", "severity"))
    return f'    {{{first},\n     "kwargs": {_json(e["kwargs"])},\n     "meta": {_json(e["meta"])}}}'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
