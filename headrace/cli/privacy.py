"""`headrace privacy`: where personal data goes."""

from __future__ import annotations

import typer

from headrace.cli.common import Json, dump, say, table
from headrace.cli.flows import known_flows, relative


def report(name: str = typer.Argument(help="A flow's file or name.", metavar="FLOW", autocompletion=known_flows),
           strict: bool = typer.Option(False, "--strict", help="Exit 1 when a tagged field, or what is made of one, "
                                                               "arrives anywhere in clear, and no `pii_accepted` says "
                                                               "that it is meant."),
           as_json: bool = Json) -> None:
    """Where the fields go that their schemas tag as personal data (`headrace.pii`), and how they are protected there.

    What cannot be known without running the flow is said to be there perhaps.
    """
    from headrace import flow, plan
    from headrace.privacy.report import report as reported
    from headrace.settings import find_project

    made = plan.load(relative(flow.find(name, find_project())))
    found = reported(made)
    if as_json:
        dump({"flow": made.flow, "in_clear": any(one.open for one in found), "fields": [f.as_json() for f in found]})
    elif not found:
        say(f"no field of {', '.join(source.config.topic for source in made.sources)} is tagged: "
            "\"headrace.pii\": \"email\" beside a field's name in the .avsc says that it is personal data")
    for one in found if not as_json else ():
        rows = [(a.topic, a.kind, a.at, a.how + (", accepted" if a.accepted else "")) for a in one.arrives]
        table(f"{one.field.topic}: {one.field.path} ({one.field.tag})", ["topic", "kind", "as", "how it stands there"],
              rows or [("nowhere", "", "", "")])
        readers = [f"{r.step} ({r.kind}{'' if r.sure else ', perhaps'})" for r in one.read_by]
        typer.echo(f"read by: {', '.join(readers) or 'no step'}\n")
    if strict and any(one.open for one in found):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    group = typer.Typer(no_args_is_help=True, help="Where personal data goes, and how it is protected.")
    group.command()(report)
    group.callback()(lambda: None)
    app.add_typer(group, name="privacy")
