"""`headrace contracts suggest`: a first suite from real data, held against them before it is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.common import Json, dump, say, table
from headrace.cli.contracts import _options, _schemas, _watched, bar

if TYPE_CHECKING:
    from headrace.codec import AvroSchema
    from headrace.contractctl.draft import Draft
    from headrace.contractctl.sample import Sample
    from headrace.contracts import Expectation
    from headrace.ingest import Options

ROWS = 100_000
UNREAD_MAX = 10
PROGRESS_RECORDS = 20_000


def _strictness(incomplete: str) -> list[str]:
    from headrace.contracts.suggesting.suggest import SEVERITIES

    return [word for word in SEVERITIES if word.startswith(incomplete)]


def suggest(source: Annotated[Path, typer.Argument(
                metavar="TOPIC|FILE", help="A topic; or CSV, JSON Lines, Parquet or an Avro container: what is there, "
                "ends in .csv, .jsonl, … or is in a folder.")],
            schema: Annotated[str | None, typer.Option(
                autocompletion=_schemas, help="What the rows are read as: a name or a path. Default: of a topic the "
                "newest one registered as TOPIC-value; Parquet and Avro have their own; of text the project's schema "
                "of the suite's name.")] = None,
            rows: Annotated[int, typer.Option(min=1, help="Learn from so many records at most: the first of a file, "
                                              "the last of a topic, of each partition its share.")] = ROWS,
            out: Annotated[str | None, typer.Option(
                metavar="SUITE", autocompletion=_schemas, help="Write it there: `departure` for "
                "schemas/departure.expectations.json, or a path. Default: print it.")] = None,
            force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
            name: Annotated[str | None, typer.Option(help="What the suite is called. Default: as --out, the schema, or "
                                                          "the source is.")] = None,
            records_only: Annotated[bool, typer.Option(
                "--records-only", help="Only what judges each record alone, as the processor validate does; without "
                "unique, shares of nulls and the like, which need a window.")] = False,
            margin: Annotated[float, typer.Option(min=0, help="How much further than seen a bound lies, as a share of "
                                                              "the distance from the median to the extreme.")] = 0.25,
            strictness: Annotated[str, typer.Option(autocompletion=_strictness, help="loose, normal or strict: which "
                                                "expectations are critical, and hold records back.")] = "normal",
            format: Annotated[str | None, typer.Option(help="csv, jsonl, parquet or avro, of a file. Default: by "
                                                            "suffix.")] = None,
            delimiter: Annotated[str | None, typer.Option(help="Between the cells of CSV. Default: a comma; in .tsv a "
                                                               "tab.")] = None,
            nulls: Annotated[str, typer.Option(help="Cells of CSV that are null where the schema allows it.")] = ",NA",
            json: bool = Json) -> None:
    """Suggest a Great Expectations suite from real data: nulls, ranges, sets, patterns, keys, with their evidence.

    It is held against the data before it is written: what does not hold is left out, and said. It is a beginning, to be
    read and cut: it knows what was there, not what is right.
    """
    from headrace.contractctl import draft, places
    from headrace.errors import UserError
    from headrace.settings import find_project

    if strictness not in _strictness(""):
        raise UserError(f"--strictness {strictness}: it is loose, normal or strict")
    project = find_project()
    file = places.suite_file(out, project) if out is not None else None
    if file is not None:
        _may_write(file, force)
    called = name or _called(source, schema, file)
    seen = _sample(source, schema, called, rows, format, _options(source, delimiter, nulls), project)
    _tell(seen)
    if not seen.rows.num_rows:
        raise UserError(f"{seen.source}: no record could be read, and so there is nothing to suggest" if
                        seen.unread_count else f"{seen.source}: there is no record, and so nothing to suggest")
    made = draft.draft(seen.rows, name=called, source=seen.source, margin=margin, strictness=strictness,
                       records_only=records_only)
    if not made.expectations:
        raise UserError(f"{seen.source}: nothing can be said of {seen.rows.num_rows:,} rows",
                        hint="a few thousand make good evidence")
    text = draft.text(made.data)
    if file is not None:
        _write(file, text)
    if json:
        dump(_summary(seen, made, file))
        return
    if file is None:
        print(text, end="")
    else:
        _print(seen, made)
    _say(seen, made, file, records_only)


def _may_write(file: Path, force: bool) -> None:
    """Before anything is read, which may take long."""
    from headrace.errors import UserError

    if not file.parent.is_dir():
        raise UserError(f"--out {file}: there is no folder {file.parent}")
    if file.exists() and not force:
        raise UserError(f"--out {file}: it is there already", hint="--force overwrites it; another --out does not")


def _write(file: Path, text: str) -> None:
    from headrace.errors import UserError

    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {file}: cannot be written: {error.strerror}") from error


def _called(source: Path, schema: str | None, file: Path | None) -> str:
    """By the file it goes to, the schema, the file it comes from, or the topic."""
    from headrace.contractctl.sample import is_file

    if file is not None:
        return file.name.removesuffix(".json").removesuffix(".expectations")
    return Path(schema).name.removesuffix(".avsc") if schema else source.stem if is_file(source) else str(source)


def _sample(source: Path, schema: str | None, called: str, rows: int, format: str | None, options: Options,
            project: Path) -> Sample:
    from headrace import settings
    from headrace.contractctl import files, places, sample
    from headrace.peek import NoTopic

    shape = places.schema_named(schema, project) if schema else None
    if format is not None or sample.is_file(source):
        if shape is None and files.unit(source, format) == "line":
            shape = _beside(called, project)
        return sample.from_file(source, shape, rows_max=rows, format=format, options=options, watch=_watched)
    try:
        with bar(str(source), long=rows >= PROGRESS_RECORDS) as progress:
            return sample.from_topic(settings.load(), str(source), shape, rows_max=rows, progress=progress)
    except NoTopic as error:
        raise NoTopic(error.what, hint=f"nor a file {source} here") from error


def _beside(called: str, project: Path) -> AvroSchema | None:
    """The project's schema that has the suite's name, of which text is told."""
    from headrace.codec import load

    file = project / "schemas" / f"{called}.avsc"
    return load(file) if file.is_file() else None


def _tell(seen: Sample) -> None:
    """What is not in the rows."""
    from headrace.contractctl.judged import many, shown_text

    if seen.unused:
        say(f"passed over, since the schema has no such fields: {', '.join(seen.unused)}")
    if seen.tombstones:
        say(f"passed over, since they have no value: {many(seen.tombstones, 'tombstone')}")
    if seen.unread_count:
        say(f"{many(seen.unread_count, seen.unit)} could not be read, and not learnt from:")
    for line in seen.unread[:UNREAD_MAX]:
        say(f"  {shown_text(line, 300)}")
    if seen.unread_count > UNREAD_MAX:
        say(f"  … and {seen.unread_count - UNREAD_MAX:,} more")


def _print(seen: Sample, made: Draft) -> None:
    from headrace.contractctl.judged import many

    title = f"suggested by {many(seen.rows.num_rows, 'row')} of {seen.source}"
    table(title, ("expectation", "severity", "columns", "wanted", "evidence"), [
        (e.id, e.severity, ", ".join(e.columns), _wanted(e), _evidence(made.evidence(e), seen.source))
        for e in made.expectations])


def _wanted(e: Expectation) -> str:
    """What it asks, in short: “be_between min_value 50, max_value 5000”."""
    from headrace.contractctl.judged import shown
    from headrace.contracts.suite import COLUMN_KEYS

    verb = e.type.removeprefix("expect_").removeprefix("column_").removeprefix("values_to_")
    return verb + "".join(f"\n{key} {shown(value)}" for key, value in e.kwargs.items() if key not in COLUMN_KEYS)


def _evidence(text: str, source: str) -> str:
    """Without the source, which the title has."""
    return text.replace(f" of {source}", "")


def _say(seen: Sample, made: Draft, file: Path | None, records_only: bool) -> None:
    """On stderr: what was checked, what was left out, what to do next."""
    from headrace.contractctl.judged import many

    read_as = f", read as {seen.schema}" if seen.schema else ""
    say(f"{many(len(made.expectations), 'expectation')}, all of which hold on the "
        f"{many(seen.rows.num_rows, 'row')} of {seen.source} they come from{read_as}")
    for each in made.left_out:
        say(f"left out: {each.expectation.id} {each.why}")
    if made.for_windows:
        those = ", ".join(made.for_windows)
        say(f"left out by --records-only: {those}" if records_only else
            f"{those}: judged over many records, by the processor validate_window and on files; for the processor "
            "validate leave them out with --records-only")
    if file is not None:
        say(f"wrote {_near(file)}: read it, and cut it; `headrace contracts explain` says how it is judged")


def _near(file: Path) -> Path:
    """As seen from here."""
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def _summary(seen: Sample, made: Draft, file: Path | None) -> dict[str, Any]:
    return {"suite": made.data["name"], "source": seen.source, "rows": seen.rows.num_rows,
            "read_as": seen.schema or None, "unread_count": seen.unread_count, "tombstones": seen.tombstones,
            "expectations": len(made.expectations), "for_windows": list(made.for_windows),
            "left_out": [{"id": each.expectation.id, "type": each.expectation.type, "why": each.why}
                         for each in made.left_out],
            **({"data": dict(made.data)} if file is None else {"file": str(file)})}
