"""A file judged by a suite: from what was asked to what is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.contractctl import files, page, places
from headrace.contractctl.files import Opened, Progress, Whole
from headrace.contractctl.judged import Judged, holds, judged, why
from headrace.contracts import Report, Suite, compile_suite, load
from headrace.ingest import Options

Watch = Callable[[Opened], AbstractContextManager[Progress | None]]
"""What is to be told of the reading of a file, while it goes on."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What the command line asks. Suite and schema are names or paths; `parameters` are NAME=VALUE."""

    file: Path
    suite: str
    schema: str | None = None
    parameters: Sequence[str] = ()
    rows_max: int | None = None
    format: str | None = None
    options: Options | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    suite: Suite
    path: Path
    unit: str
    read: Whole
    report: Report
    unused: Sequence[str]
    """Columns of the file that the schema has no field for."""

    @cached_property
    def failures(self) -> pa.Table:
        """The report's, by the numbers of the file."""
        return self.read.numbered(self.report.failures)

    @cached_property
    def judged(self) -> list[Judged]:
        """Each expectation, with a few examples."""
        return judged(self.report.verdicts, self.failures, values_max=3, rows_max=3)

    @property
    def holds(self) -> bool:
        return holds(self.judged, self.read.unread_count)

    @property
    def why(self) -> str:
        return why(self.judged, self.read.unread_count, self.unit)

    def as_gx(self) -> dict[str, Any]:
        """Great Expectations' own result. What it has no word for is in `meta`, under “headrace”."""
        told = self.report.to_gx()
        unread = [{self.unit: bad.at, "reasons": list(bad.reasons)} for bad in self.read.unread]
        own = {"file": str(self.path), "suite": self.suite.file, "rows": self.read.rows.num_rows,
               "unread_count": self.read.unread_count, "unread": unread}
        return {**told, "meta": {**(told.get("meta") or {}), "headrace": own}}

    def page(self, at: str) -> str:
        """The HTML page; `at` says when."""
        facts = page.Facts(
            self.suite.name, str(self.path), self.read.rows.num_rows, self.holds, self.why, unit=self.unit, at=at)
        return page.render(facts, self.report.verdicts, self.failures, self.read.unread, self.read.unread_count)


def judge(ask: Ask, project: Path, watch: Watch) -> Outcome:
    """Reads a file and judges it, all of it as one batch. Raises UserError, SuiteError, SchemaError, MissingExtra."""
    suite = load(places.suite_file(ask.suite, project))
    given = places.parameters(ask.parameters, suite)
    shape = places.schema_named(ask.schema, project) if ask.schema else (
        places.schema_beside(suite) if files.unit(ask.file, ask.format) == "line" else None)
    with files.opened(ask.file, shape, format=ask.format, options=ask.options) as source:
        contract = compile_suite(suite, source.schema)
        with watch(source) as progress:
            read = files.whole(source, rows_max=ask.rows_max, progress=progress)
        unused = source.reader.unused
    return Outcome(suite, ask.file, source.unit, read, contract.check(read.rows, given), unused)
