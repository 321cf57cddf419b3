"""`headrace loop status | explain`: the loop now, and one retraining from its causes to what followed."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.common import Json, dump

Control = Annotated[str, typer.Option("--control", metavar="PREFIX", help="What the control topics' names begin with: "
                                                                          "the `control:` of the flows.")]


def register_into(loop_app: typer.Typer) -> None:
    """Adds `status` and `explain` to the group of the loop's commands."""
    loop_app.command()(status)
    loop_app.command()(explain)


def status(control: Control = "headrace", json: bool = Json) -> None:
    """By model: the version in charge, trainings that wait, run or failed, the last verdicts, what waits for a word."""
    from headrace import loopview, settings

    found = loopview.status(settings.load(), control)
    if json:
        dump(found)
    else:
        print(loopview.status_text(found))


def explain(trigger: Annotated[str | None, typer.Argument(help="A trigger's id, or the beginning of it. Left out: the "
                                                               "last one.")] = None,
            model: Annotated[str | None, typer.Option(help="Only triggers of this model.")] = None,
            control: Control = "headrace", json: bool = Json) -> None:
    """Why a model was retrained, on which records, by whom, what the gate decided, and what followed.

    It says what the control topics say, and names what they do not.
    """
    from headrace import loopview, settings

    found = loopview.explain(settings.load(), control, trigger, model)
    if json:
        dump(found)
    else:
        print(loopview.explain_text(found))
