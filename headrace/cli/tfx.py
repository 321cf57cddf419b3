"""`headrace tfx export schema | statistics` and `headrace tfx import`: what TFX reads, and what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.common import Json, dump, say

if TYPE_CHECKING:
    import pyarrow as pa

Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to write it. Default: stdout.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Exchange schemas and statistics with TensorFlow Extended.")
    export = typer.Typer(no_args_is_help=True, help="Write what TFX reads.")
    export.command("schema")(export_schema)
    export.command("statistics")(export_statistics)
    group.add_typer(export, name="export")
    group.command("import")(import_schema)
    app.add_typer(group, name="tfx")


def export_schema(name: Annotated[str, typer.Argument(metavar="NAME", help="The schema, as flows name it.")],
                  suite: Annotated[str | None, typer.Option(help="The suite whose expectations become domains: a name "
                                                            "in schemas/, or a file.")] = None,
                  out: Out = None, json: bool = Json) -> None:
    """An Avro schema, and a suite, as schema.pbtxt. What TFX cannot check is told on stderr, and carried as a tag."""
    from headrace import codec, settings
    from headrace.contracts import load
    from headrace.plan import schema_file
    from headrace.tfx.schema import to_pbtxt

    project = settings.load().project
    schema = codec.load(schema_file(project, name))
    held = None
    if suite is not None:
        plain = "/" not in suite and not suite.endswith(".json")
        held = load(project / "schemas" / f"{suite}.expectations.json" if plain else Path(suite))
    text, untold = to_pbtxt(schema.json, held)
    if out is not None:
        _write(out, text)
    if json:
        dump({"schema": name, "file": out and str(out), "pbtxt": None if out else text, "untold": untold})
        return
    if out is None:
        typer.echo(text, nl=False)
    for told in untold:
        say(f"not checked by TFX: {told}")


def export_statistics(file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, JSON Lines, Parquet or Avro.")],
                      schema: Annotated[str | None, typer.Option(help="The schema its records are of, as flows name "
                                        "it. CSV and Parquet can do without.")] = None,
                      out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to write it: "
                                     "binary, or as text if it ends in .pbtxt. Default: text, on stdout.")] = None,
                      json: bool = Json) -> None:
    """A file's DatasetFeatureStatisticsList: counts, means, histograms, top values. The file must fit into memory."""
    from headrace.tfx import to_text
    from headrace.tfx.statistics import statistics

    rows, bad = _rows(file, schema)
    made = statistics(rows, file.name)
    if bad:
        say(f"{bad:,} records of {file} could not be read and are not counted; `headrace produce` says why")
    if out is not None:
        _write(out, to_text(made) if out.suffix == ".pbtxt" else made.SerializeToString())
    if json:
        from google.protobuf.json_format import MessageToDict

        dump({"file": str(file), "rows": rows.num_rows, "bad": bad, "out": out and str(out),
              "statistics": None if out else MessageToDict(made, preserving_proto_field_name=True)})
    elif out is None:
        typer.echo(to_text(made), nl=False)


def import_schema(file: Annotated[Path, typer.Argument(metavar="FILE.pbtxt", help="A schema, as SchemaGen writes it.")],
                  out_dir: Annotated[Path, typer.Option("--out-dir", help="Where the two files go.")] = Path("schemas"),
                  name: Annotated[str | None, typer.Option(help="The record's name, where the file was not written by "
                                                           "headrace. Default: the file's.")] = None,
                  force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
                  json: bool = Json) -> None:
    """schema.pbtxt as an Avro schema and a suite: NAME.avsc and NAME.expectations.json."""
    import json as json_module

    from headrace import codec, contracts
    from headrace.errors import UserError
    from headrace.tfx.schema import from_pbtxt

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    avro, suite = from_pbtxt(text, str(file), name or _record_name(file))
    codec.parse(json_module.dumps(avro), where=str(file))
    contracts.parse(suite, str(file))
    stem = avro["name"].rpartition(".")[2].lower()
    written = {out_dir / f"{stem}.avsc": avro, out_dir / f"{stem}.expectations.json": suite}
    there = [str(path) for path in written if path.exists()]
    if there and not force:
        raise UserError(f"{', '.join(there)}: already there", hint="--force writes over it, --out-dir elsewhere")
    for path, content in written.items():
        _write(path, json_module.dumps(content, indent=2, ensure_ascii=False) + "\n")
    if json:
        dump({"file": str(file), "written": [str(p) for p in written], "fields": len(avro["fields"]),
              "expectations": len(suite["expectations"])})
    else:
        for path in written:
            say(f"wrote {path}")


def _record_name(file: Path) -> str:
    """flights.pbtxt → Flights."""
    import re

    return re.sub(r"\W+", "_", file.stem).strip("_").capitalize() or "Imported"


def _rows(file: Path, name: str | None) -> tuple[pa.Table, int]:
    """(the file's rows, how many of its records are none). Raises UserError, SchemaError."""
    import pyarrow as pa
    from pyarrow import parquet

    from headrace import codec, settings
    from headrace.errors import UserError
    from headrace.ingest import format_of, open_reader
    from headrace.plan import schema_file
    from headrace.scaffold import infer

    kind = format_of(file)
    if not file.is_file():
        raise UserError(f"there is no file {file}")
    if name is None and kind == "csv":
        return infer.read(file), 0
    if name is None and kind != "parquet":
        raise UserError(f"{file}: what are its records? A file of {kind} does not say it by itself",
                        hint="--schema NAME, of schemas/, as flows name it")
    schema = codec.load(schema_file(settings.load().project, name)) if name is not None else \
        codec.from_arrow(parquet.read_schema(file), name="Rows")
    reader = open_reader(file, schema)
    pieces: list[Any] = []
    bad = 0
    try:
        while (piece := reader.read(50_000)) is not None:
            pieces.append(piece.rows)
            bad += len(piece.bad)
    finally:
        reader.close()
    return pa.Table.from_batches(pieces, schema.arrow), bad


def _write(path: Path, content: str | bytes) -> None:
    from headrace.errors import UserError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
