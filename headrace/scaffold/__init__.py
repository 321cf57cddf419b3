"""`headrace new`: a project to start from, made of a CSV's own columns and values, whose tests pass as they are."""

from __future__ import annotations

import re
from pathlib import Path

from headrace.errors import UserError
from headrace.scaffold import files, infer

EXAMPLE = "readings"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def make(folder: Path, data: Path | None, name: str | None) -> list[Path]:
    """Writes the project's files into `folder` and gives their paths.

    `data` is a CSV with a header; without it an example is written. `name` is the topic's, schema's and flow's.
    Raises UserError, before anything is written: a file is there already, or the CSV cannot be a topic of records.
    """
    name = name or (_name(data.stem) if data else EXAMPLE)
    if not NAME.fullmatch(name):
        raise UserError(f"“{name}” cannot name records", hint="take a letter, then letters, digits or “_”: --name …")
    example = files.example() if data is None else None
    table = infer.read(data) if data else infer.parse(files.example())
    if data is None:
        source = f"data/{name}.csv"
    else:
        full = data.resolve()
        inside = full.is_relative_to(folder.resolve())
        source = str(full.relative_to(folder.resolve())) if inside else str(full)
    shape = infer.Shape(name, table)
    written = files.project(shape, source) | ({source: example} if example is not None else {})
    there = [str(folder / path) for path in written if (folder / path).exists()]
    if there:
        raise UserError(f"these are there already: {', '.join(there)}", hint="`headrace new` overwrites nothing")
    for path, text in written.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return [folder / path for path in written]


def _name(stem: str) -> str:
    """A file's name as a record's: `My Flights-2013` is my_flights_2013, and `2013` is t_2013, since no name
    begins with a digit."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", stem).strip("_").lower()
    return plain if NAME.fullmatch(plain) else f"t_{plain}" if plain else EXAMPLE
