"""`headrace contracts explain | check`: how a suite would be judged, and a file judged by it outside a stream.

`suggest` stands in suggest.py, `report` in report.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.common import Json, dump, say, table

if TYPE_CHECKING:
    from headrace.contractctl.files import Opened, Progress
    from headrace.contractctl.judged import Example
    from headrace.contractctl.outcome import Outcome
    from headrace.ingest import Options

UNREAD_MAX = 50
PROGRESS_BYTES = 8 << 20


def _names(suffix: str, incomplete: str) -> list[str]:
    """Shell completion: what the project's schemas folder has of a kind."""
    folder = next((p / "schemas" for p in (Path.cwd(), *Path.cwd().parents) if (p / "schemas").is_dir()), Path())
    names = (path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}"))
    return sorted(name for name in names if name.startswith(incomplete))


def _suites(incomplete: str) -> list[str]:
    return _names(".expectations.json", incomplete)


def _schemas(incomplete: str) -> list[str]:
    return _names(".avsc", incomplete)


SUITE_HELP = "A suite: `departure` for schemas/departure.expectations.json, or a path."
Schema = Annotated[str | None, typer.Option(autocompletion=_schemas, help="`departure` for schemas/departure.avsc, or "
                                            "a path. Default: the schema beside the suite that has its name.")]
ReadAs = Annotated[str | None, typer.Option("--schema", autocompletion=_schemas, help="What the rows are read as: a "
                                            "name or a path. Default: the types Parquet and Avro have; for text the "
                                            "schema beside the suite.")]


def register(app: typer.Typer) -> None:
    from headrace.cli.report import report
    from headrace.cli.suggest import suggest

    group = typer.Typer(no_args_is_help=True, help="Great Expectations suites: how they are judged, files judged by "
                                                   "them, a first one from data, and pages of windows.")
    group.command()(explain)
    group.command()(check)
    group.command()(suggest)
    group.command()(report)
    app.add_typer(group, name="contracts")


def explain(suite: Annotated[str, typer.Argument(metavar="SUITE", help=SUITE_HELP, autocompletion=_suites)],
            schema: Schema = None, json: bool = Json) -> None:
    """How each expectation of a suite would be judged on rows of a schema, and why so."""
    from headrace.contractctl import places
    from headrace.contracts import compile_suite, load
    from headrace.errors import UserError
    from headrace.settings import find_project

    project = find_project()
    wanted = load(places.suite_file(suite, project))
    shape = places.schema_named(schema, project) if schema else places.schema_beside(wanted)
    if shape is None:
        raise UserError(f"{wanted.file}: there is no schema of its name beside it", hint="name one: --schema NAME|PATH")
    explained = compile_suite(wanted, shape.arrow).explain()
    if json:
        for one in explained:
            dump(one)
        return
    title = f"{wanted.name}, on rows of {shape}"
    table(title, ("id", "type", "columns", "severity", "tier", "kind", "why"), [
        (one["id"], one["type"].removeprefix("expect_"), ", ".join(one["columns"]), one["severity"],
         one["tier"], one["kind"], one["why"]) for one in explained])


def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, JSON Lines, Parquet, or an Avro container.")],
          suite: Annotated[str, typer.Option(help=SUITE_HELP, autocompletion=_suites)], schema: ReadAs = None,
          param: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A suite parameter, in JSON or as "
                                                          "text; can be given several times.")] = None,
          rows: Annotated[int | None, typer.Option(min=1, help="Judge the first N records only.")] = None,
          format: Annotated[str | None, typer.Option(help="csv, jsonl, parquet or avro. Default: by suffix.")] = None,
          delimiter: Annotated[str | None, typer.Option(help="Between the cells of CSV. Default: a comma; in .tsv a "
                                                             "tab.")] = None,
          nulls: Annotated[str, typer.Option(help="Cells of CSV that are null where the schema allows it.")] = ",NA",
          html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one HTML page, too.")] = None,
          json: Annotated[bool, typer.Option("--json", help="Print Great Expectations' validation result.")] = False,
          ) -> None:
    """Judge a file by a suite, all of it as one batch, with Great Expectations' own verdicts.

    Exit 1 when a critical expectation fails, or a line cannot be read. Expectations of severity warning and info are
    judged and shown, and make nothing fail.
    """
    from datetime import UTC, datetime

    from headrace.contractctl.outcome import Ask, judge
    from headrace.errors import UserError
    from headrace.settings import find_project

    if html is not None and not html.parent.is_dir():
        raise UserError(f"--html {html}: there is no folder {html.parent}")
    ask = Ask(file, suite, schema, param or (), rows, format, _options(file, delimiter, nulls))
    done = judge(ask, find_project(), _watched)
    if done.unused:
        say(f"passed over, since the schema has no such fields: {', '.join(done.unused)}")
    if html is not None:
        try:
            html.write_text(done.page(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"), encoding="utf-8")
        except OSError as error:
            raise UserError(f"--html {html}: cannot be written: {error.strerror}") from error
    if json:
        dump(done.as_gx())
    else:
        _print(done)
    if not done.holds:
        raise typer.Exit(1)


def _options(file: Path, delimiter: str | None, nulls: str) -> Options:
    from headrace.errors import UserError
    from headrace.ingest import Options

    tab = delimiter in ("\\t", "tab") or (delimiter is None and file.suffix.lower() == ".tsv")
    if delimiter is not None and len(delimiter) != 1 and not tab:
        raise UserError(f"--delimiter {delimiter}: it is one character, or the word tab")
    return Options("\t" if tab else delimiter or ",", tuple(nulls.split(",")))


@contextmanager
def _watched(source: Opened) -> Iterator[Progress | None]:
    """A progress bar where the file is long enough to want it."""
    with bar(source.path.name, long=source.path.stat().st_size > PROGRESS_BYTES) as progress:
        yield progress


@contextmanager
def bar(name: str, *, long: bool) -> Iterator[Progress | None]:
    """A progress bar where there is a terminal to see it."""
    import sys

    if not long or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn(name, markup=False), BarColumn(), TaskProgressColumn(),
               TextColumn("{task.fields[records]:,} records"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=1.0, records=0)
        yield lambda share, records: shown.update(task, completed=share, records=records)


def _print(done: Outcome) -> None:
    """The verdicts for a person: a table, what could not be read, the suite's own."""
    from headrace.contractctl.judged import many, shown_text

    read = done.read
    title = f"{many(read.rows.num_rows, 'row')} of {done.path}"
    table(title, ("expectation", "severity", "verdict", "found", "examples"), [
        (j.expectation.id, j.expectation.severity, j.word, j.found,
         "\n".join(_example(example, done.unit) for example in j.examples)) for j in done.judged])
    if read.unread_count:
        print(f"\n{many(read.unread_count, done.unit)} could not be read:")
    for bad in read.unread[:UNREAD_MAX]:
        print(f"  {done.path}:{bad.at}: {shown_text('; '.join(bad.reasons), 300)}")
        print(f"      {shown_text(bad.raw[:640].decode(errors='replace'), 160)}")
    if read.unread_count > UNREAD_MAX:
        print(f"  … and {read.unread_count - UNREAD_MAX:,} more")
    print(f"{done.suite.name} {'holds' if done.holds else 'fails'}: {done.why}")


def _example(example: Example, unit: str) -> str:
    """“D942DN” 3 times, lines 17, 20, …"""
    if example.count is None:
        return example.value
    more = ", …" if example.count > len(example.rows) else ""
    often = f", {example.count:,} times" if example.count > 1 else ""
    return (f"{example.value}{often}: {unit}{'s' * (example.count > 1)} "
            f"{', '.join(str(row) for row in example.rows)}{more}")
