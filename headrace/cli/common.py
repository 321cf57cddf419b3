"""What every command shares: printing for people and for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from headrace.secrets import KNOWN

Json = typer.Option(False, "--json", help="Print JSON, one object or one record a line.")


def say(text: str) -> None:
    """A line for a person, on stderr, so that stdout stays data."""
    print(text, file=sys.stderr, flush=True)


def dump(value: Any) -> None:
    """JSON for a machine, on stdout, one line, without known secrets."""
    print(KNOWN.text(json.dumps(value, default=str, ensure_ascii=False)), flush=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A rich table on stdout, its texts as they are, without known secrets; numbers to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    body = [list(row) for row in rows]
    drawn = Table(title=Text(KNOWN.text(title), style="table.title"), title_justify="left")
    for at, name in enumerate(columns):
        numeric = bool(body) and all(isinstance(row[at], int | float) or row[at] is None for row in body)
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        drawn.add_row(*("–" if cell is None else f"{cell:,}" if isinstance(cell, int) else Text(KNOWN.text(str(cell)))
                        for cell in row))
    Console().print(drawn)
