"""`headrace contracts report`: the windows of running flows that were held against contracts, as pages to read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.common import dump, say
from headrace.cli.flows import known_flows
from headrace.cli.loop_view import Control

if TYPE_CHECKING:
    from headrace.control import Verdict
    from headrace.settings import Settings

LAST = 200
UNREADABLE_MAX = 10


def report(out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write an index and a page for each window "
                                                    "there; the folder is made if it is absent.")] = None,
           flow: Annotated[str | None, typer.Option(autocompletion=known_flows, help="Only windows that this flow "
                                                    "judged.")] = None,
           step: Annotated[str | None, typer.Option(help="Only those of this step.")] = None,
           topic: Annotated[str | None, typer.Option(help="Only windows of this topic.")] = None,
           last: Annotated[int, typer.Option(min=1, help="The last N windows, of all partitions together. Those before "
                                                         "are in the trends.")] = LAST,
           gx: Annotated[Path | None, typer.Option("--gx", metavar="FOLDER", help="Write each window's Great "
                                                   "Expectations validation result there, laid out as its store "
                                                   "(gx/uncommitted/validations), for its Data Docs.")] = None,
           control: Control = "headrace",
           json: Annotated[bool, typer.Option("--json", help="Print the windows' verdicts, one JSON object a line, "
                                              "oldest first.")] = False) -> None:
    """Pages of the windows that `validate_window` judged: what failed, with examples and the trend before.

    They are read from the verdicts' topic, and need nothing but a browser.
    """
    from headrace import settings
    from headrace.contractctl import reports, windowpages, windows
    from headrace.contractctl.judged import many, shown_text
    from headrace.errors import UserError

    if out is None and gx is None and not json:
        raise UserError("where to? say --out FOLDER for pages", hint="or --gx FOLDER for Great Expectations' results, "
                        "or --json to print the verdicts")
    if out is not None:
        reports.check_folder(out)
    events, unreadable = _read(settings.load(), control)
    for why in unreadable[:UNREADABLE_MAX]:
        say(f"passed over: {shown_text(why, 300)}")
    if len(unreadable) > UNREADABLE_MAX:
        say(f"… and {len(unreadable) - UNREADABLE_MAX:,} more that could not be read")
    found = windows.windows(events, flow=flow, step=step, topic=topic)
    if not found:
        raise UserError(_none(events, flow, step, topic))
    shown = found[-last:]
    if json:
        for window in shown:
            dump(window.as_json())
    if out is not None:
        count = reports.write_pages(out, windowpages.pages(found, last=last)) - 1
        bad = sum(not window.event.ok for window in shown)
        say(f"wrote {out / windowpages.INDEX}: {many(count, 'window')}, {bad:,} {'fails' if bad == 1 else 'fail'}")
    if gx is not None:
        count = reports.write_results(gx, shown)
        without = f"; {many(len(shown) - count, 'window')} had none" if count < len(shown) else ""
        say(f"wrote {many(count, 'validation result')} below {gx}{without}")
    for window in shown:
        if window.unreadable is not None:
            say(f"{window.subject}, {window.when}: {window.unreadable}")


def _read(here: Settings, control: str) -> tuple[list[Verdict], list[str]]:
    from headrace.contractctl import reports
    from headrace.peek import NoTopic

    try:
        return reports.read(here, control)
    except NoTopic as error:
        raise NoTopic(f"{error.what}, and so no verdict on a window",
                      hint="a flow with a step `validate_window` writes them there") from error


def _none(events: list[Verdict], flow: str | None, step: str | None, topic: str | None) -> str:
    """Why there is nothing to show; what could have been named."""
    from headrace.contractctl.windows import windows
    from headrace.marked import nearest

    all_ = windows(events)
    told = [w.event for w in all_]
    for asked, word, there in ((flow, "flow", {e.flow for e in told}), (step, "step", {e.step for e in told}),
                               (topic, "topic", {e.topic or "" for e in told})):
        if all_ and asked is not None and asked not in there:
            return f"no window was judged of {word} “{asked}”{nearest(asked, there)}"
    return "no window was judged of all these together" if all_ else "no window has been judged yet"
