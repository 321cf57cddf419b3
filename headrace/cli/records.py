"""`headrace produce` and `headrace consume`: records by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.common import Json, dump, say

if TYPE_CHECKING:
    from headrace.codec import AvroSchema
    from headrace.ingest import Reader
    from headrace.keyboard.produce import Produced

SHOWN_MAX = 50
PROGRESS_BYTES = 8 << 20


def register(app: typer.Typer) -> None:
    @app.command()
    def produce(
        topic: Annotated[str, typer.Argument(help="Where the records go.")],
        schema: Annotated[str, typer.Option(help="Their shape: `reading` for schemas/reading.avsc, or a path.")],
        file: Annotated[Path, typer.Option("--file", "-f", help="CSV, JSON Lines, Parquet or Avro; - is standard "
                                                                "input.")] = Path("-"),
        format: Annotated[str | None, typer.Option(help="csv, jsonl, parquet or avro. Default: by suffix; of standard "
                                                        "input jsonl.")] = None,
        key: Annotated[str | None, typer.Option(help="The field that becomes the key.")] = None,
        timestamp: Annotated[str | None, typer.Option(help="The field that becomes the record's time.")] = None,
        rate: Annotated[float | None, typer.Option(min=0.001, help="Records a second, at most.")] = None,
        partitions: Annotated[int, typer.Option(min=1, max=10_000, help="Of the topic, if it is created.")] = 1,
        create: Annotated[bool, typer.Option(help="Create the topic if it is absent.")] = True,
        delimiter: Annotated[str, typer.Option(help="Between the cells of CSV.")] = ",",
        nulls: Annotated[str, typer.Option(help="Cells of CSV that are null where the schema allows it.")] = ",NA",
        skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Exit 0 although records were rejected.")] = False,
        json: bool = Json,
    ) -> None:
        """Write records to a topic, from a file, a pipe or the keyboard.

        The schema is registered as TOPIC-value. Every record is acknowledged by all replicas or named in an error.
        What is no record of the schema is told with its line and reason, and makes the exit code 1.
        """
        import time
        from contextlib import closing

        from headrace import settings
        from headrace.ingest import Options
        from headrace.keyboard.produce import Target, prepare

        here = settings.load()
        shape = _schema(schema, here.project)
        options = Options("\t" if delimiter in ("\\t", "tab") or file.suffix == ".tsv" else delimiter,
                          tuple(nulls.split(",")))
        begun = time.monotonic()
        with closing(_open(file, shape, format, options)) as source:
            made = prepare(here, Target(topic, shape, key, timestamp), partitions=partitions, create=create, told=say)
            if source.unused:
                say(f"passed over, since {shape} has no such fields: {', '.join(source.unused)}")
            done = _produce(here, source, made, file, rate, json)
        seconds = round(time.monotonic() - begun, 3)
        if json:
            dump({"produced": done.records, "rejected": done.rejected, "seconds": seconds})
        else:
            say(f"{done.records:,} produced, {done.rejected:,} rejected, {seconds:,.1f} s")
        if done.rejected and not skip_bad:
            raise typer.Exit(1)

    @app.command()
    def consume(
        topic: Annotated[str, typer.Argument(help="What to read.")],
        from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Not only what comes now.")] = False,
        n: Annotated[int | None, typer.Option("-n", min=1, help="Stop after so many records shown.")] = None,
        where: Annotated[str | None, typer.Option(help="Only records this SQL expression is true of, e.g. "
                                                       "\"distance > 1000 and carrier = 'UA'\".")] = None,
        partition: Annotated[int | None, typer.Option(min=0, help="Only this one.")] = None,
        offset: Annotated[int | None, typer.Option(help="From here; -5 is the last five of each partition.")] = None,
        until_end: Annotated[bool, typer.Option("--until-end", help="Stop at what is the end now.")] = False,
        timeout: Annotated[float | None, typer.Option(min=0, help="Stop after so many seconds without a "
                                                                  "record.")] = None,
        headers: Annotated[bool, typer.Option("--headers", help="Show the records' headers.")] = False,
        values: Annotated[bool, typer.Option("--values", help="Only the values, one JSON object a line, as `produce` "
                                                              "takes them.")] = False,
        show_pii: Annotated[bool, typer.Option("--show-pii", help="Show fields that their schema tags as personal "
                                                                  "data, `headrace.pii`, too.")] = False,
        json: bool = Json,
    ) -> None:
        """Show the committed records of a topic, until Ctrl-C.

        JSON Lines with --json or into a pipe. A payload that cannot be decoded is shown with the reason.
        """
        import sys

        from headrace import settings
        from headrace.keyboard.consume import Ask, Consumption

        ask = Ask(topic, from_beginning, partition, offset, n, until_end, timeout, where, headers, show_pii)
        reading = Consumption(settings.load(), ask)
        show = _values if values else _json if json or not sys.stdout.isatty() else _line()
        try:
            for records in reading.batches():
                show(records)
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:  # `… | head`: nobody reads on
            sys.stdout = None
            return
        if reading.told.undecodable and (where or values):
            say(f"{reading.told.undecodable:,} records could not be decoded and are not shown")


def _schema(name: str, project: Path) -> AvroSchema:
    """A path, or the name of a schema in the project."""
    from headrace.codec import load

    if name.endswith(".avsc") or Path(name).is_file():
        return load(Path(name))
    from headrace.plan import schema_file

    return load(schema_file(project, name))


def _open(file: Path, schema: AvroSchema, format: str | None, options: Any) -> Reader:
    import sys

    from headrace.errors import UserError
    from headrace.ingest import FORMATS, open_reader, open_stream

    if format is not None and format not in FORMATS.values():
        raise UserError(f"--format {format} is not one of csv, jsonl, parquet, avro")
    if str(file) != "-":
        return open_reader(file, schema, format=format, options=options)
    if sys.stdin.isatty():
        say("One JSON object a line; Ctrl-D ends. Fields: "
            + ", ".join(f"{f.name} ({f.type.label})" for f in schema.type.fields))
    return open_stream(sys.stdin.buffer, schema, format=format or "jsonl", options=options)


def _produce(here: Any, source: Reader, made: Any, file: Path, rate: float | None, json: bool) -> Produced:
    """With a progress bar where there is a terminal to see it and a file long enough to want it."""
    import sys

    from headrace.keyboard.produce import produce

    name = "standard input" if str(file) == "-" else str(file)
    told = 0

    def rejected(bad: Any) -> None:
        nonlocal told
        told += 1
        if told <= SHOWN_MAX:
            raw = bad.raw[:160].decode(errors="replace")
            say(f"{name}:{bad.at}: {'; '.join(bad.reasons)}\n    {raw}")
        elif told == SHOWN_MAX + 1:
            say("… more are counted, and no longer shown")

    long = str(file) != "-" and (rate is not None or file.stat().st_size > PROGRESS_BYTES)
    if json or not long or not sys.stderr.isatty():
        return produce(here, source, made, rate=rate, rejected=rejected)
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn(file.name), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[records]:,} records"),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0, records=0)
        return produce(here, source, made, rate=rate, rejected=rejected,
                       progress=lambda n: bar.update(task, completed=source.share(), records=n))


def _json(records: list[Any]) -> None:
    """A batch in one write: what is piped on comes at once, and a long topic quickly."""
    import json

    print("".join(json.dumps(record, ensure_ascii=False, default=str) + "\n" for record in records), end="", flush=True)


def _values(records: list[dict[str, Any]]) -> None:
    _json([record["value"] for record in records if "value" in record])


def _line() -> Any:
    """A printer of one record a line, for people."""
    import json

    from rich.console import Console
    from rich.highlighter import JSONHighlighter
    from rich.text import Text

    console, highlight = Console(), JSONHighlighter()

    def show(records: list[dict[str, Any]]) -> None:
        for record in records:
            one(record)

    def one(record: dict[str, Any]) -> None:
        line = Text.assemble((f"{record['partition']}@{record['offset']}", "cyan"), "  ",
                             (record["timestamp"], "dim"), "  ", (str(record["key"] or "–"), "magenta"), "  ")
        if "value" in record:
            line.append_text(highlight(json.dumps(record["value"], ensure_ascii=False, default=str)))
        else:
            line.append(f"{record['error']}  {record['raw'] or ''}", "red")
        if record.get("headers"):
            line.append("  " + " ".join(f"{name}={value}" for name, value in record["headers"]), "dim")
        console.print(line, soft_wrap=True)

    return show
