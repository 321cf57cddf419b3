"""`headrace trace`: the way a record came, from where it lies up to its origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.common import Json, dump

if TYPE_CHECKING:
    from headrace.trace import Hop

WIDTH_MAX = 400


def register(app: typer.Typer) -> None:
    app.command()(trace)


def trace(position: Annotated[str, typer.Argument(metavar="TOPIC/PARTITION@OFFSET",
                                                  help="A record, e.g. flights.late/3@1042.")],
          json: bool = Json) -> None:
    """Where a record came from: every record it was made of, up to the origin.

    Follows the header that every output of a flow carries, through quarantine and replay too. What was made of a range
    of records (an alert, say) shows the range, and goes on from its first record.
    """
    from headrace import settings
    from headrace.peek import parse_position
    from headrace.trace import trace as follow

    hops = follow(settings.load(), parse_position(position))
    if json:
        dump({"hops": [hop.as_json() for hop in hops], "origin": _is_origin(hops[-1])})
        return
    for depth, hop in enumerate(hops):
        _print(hop, depth)


def _is_origin(last: Hop) -> bool:
    return last.gone is None and last.made_of is None


def _print(hop: Hop, depth: int) -> None:
    import json

    from rich.console import Console
    from rich.text import Text

    from headrace.trace import stamp

    out = Console(highlight=False, soft_wrap=True)
    mark = "└ " if depth else ""
    origin = "  origin" if _is_origin(hop) else ""
    out.print(Text.assemble("  " * max(0, depth - 1) + mark, (str(hop.at), "bold"), (origin, "green")))
    pad = "  " * (depth + 1)
    if hop.gone:
        out.print(Text(f"{pad}{hop.gone}", "yellow"))
        return
    out.print(Text(f"{pad}{stamp(hop.timestamp_ms)}  key {hop.key}", "dim"))
    for name, value in hop.facts.items():
        said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        out.print(Text(f"{pad}{name}: {said}", "dim"))
    record = hop.record if isinstance(hop.record, str) else json.dumps(hop.record, ensure_ascii=False)
    out.print(Text(pad + (record if len(record) <= WIDTH_MAX else record[:WIDTH_MAX] + " …")))
    if hop.made_of and hop.made_of.offset_last > hop.made_of.offset_first:
        count = hop.made_of.offset_last - hop.made_of.offset_first + 1
        out.print(Text(f"{pad}made of {count:,} offsets, {hop.made_of.offset_first} to {hop.made_of.offset_last}; "
                       "the first:", "dim"))
