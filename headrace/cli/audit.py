"""`headrace audit list | verify`: what was decided and done, and whether the log of it was changed."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.common import Json, dump, say, table
from headrace.cli.loop_view import Control

REASON_CHARACTERS = 80


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="The audit log: who decided and did what, each entry chained to the "
                                                   "one before.")
    group.command("list")(list_)
    group.command()(verify)
    app.add_typer(group, name="audit")


def list_(model: Annotated[str | None, typer.Option(help="Only what is about this model.")] = None,
          since: Annotated[str | None, typer.Option(metavar="ISO", help="Only from this time on.")] = None,
          tail: Annotated[int | None, typer.Option(min=1, help="Only the last N.")] = None,
          control: Control = "headrace", json: bool = Json) -> None:
    """The entries, oldest first. With --json one a line, with the whole event."""
    from headrace import settings
    from headrace.loopview import log
    from headrace.loopview.text import instant, moment

    found = log.pick(log.entries(settings.load(), control).entries, model=model,
                     since=instant(since) if since else None)
    shown = found[-tail:] if tail else found
    if json:
        for entry in shown:
            dump(log.as_json(entry))
        return
    if not shown:
        say("no entry")
        return
    table("", ("seq", "at", "who", "did", "to", "why", "record"), [
        (str(entry["seq"]), moment(entry["at"].isoformat()), entry["actor"], entry["action"], entry["subject"],
         _why(entry["event"]), f"{entry['topic']}/{entry['partition']}@{entry['offset']}") for entry in shown])


def _why(event: str) -> str | None:
    import json

    held = json.loads(event)
    text = "; ".join(held.get("reasons") or ()) or held.get("reason") or held.get("message") or ""
    return text if len(text) <= REASON_CHARACTERS else text[:REASON_CHARACTERS - 1] + "…"


def verify(anchor: Annotated[str | None, typer.Option(metavar="HASH", help="A hash that was once the last one: it must "
                                                      "still be there.")] = None,
           control: Control = "headrace", json: bool = Json) -> None:
    """Whether the log is whole: every entry as it was hashed, each chained to the one before, none missing.

    Ends with 1 where it is not. Prints the last hash: kept elsewhere and given as --anchor the next time, it shows a
    log whose end was cut off or rewritten, which the chain alone cannot.
    """
    import re

    from headrace import settings
    from headrace.errors import UserError
    from headrace.loopview import log

    if anchor is not None and not re.fullmatch("[0-9a-f]{64}", anchor):
        raise UserError(f"“{anchor}” is no hash of this log", hint="it has 64 hexadecimal digits, as `headrace audit "
                                                                   "verify` printed them")
    found = log.check(log.entries(settings.load(), control), anchor)
    if json:
        dump(found)
    else:
        for flaw in found["flaws"]:
            where = f"entry {flaw['seq']}: " if flaw["seq"] >= 0 else ""
            print(f"{where}{flaw['kind']}: {flaw['message']}")
        kept = f"; the anchor {anchor[:16]}… is in it" if anchor and found["ok"] else ""
        print(f"{found['entries']:,} entries, " + (f"unbroken{kept}" if found["ok"] else "NOT as they were written"))
        if found["ok"] and found["anchor"]:
            print(f"anchor to keep elsewhere: {found['anchor']}")
    if not found["ok"]:
        raise typer.Exit(1)
