"""`headrace demo`: real flights through real Kafka: speed, kills, an event."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.common import Json, dump, say, table

if TYPE_CHECKING:
    from headrace.demo.run import Outcome


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="January and February only: 51,955 flights.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave Kafka and the registry running.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Also save the last picture of the live view as an SVG.")] = None,
    json_: bool = Json,
) -> None:
    """A year of real flights: how fast, what two `kill -9` do, and one event when a storm comes.

    Starts Kafka and a schema registry here unless a cluster is named, and stops them at the end. Runs in the project
    you are in if it has flows/departures.yaml, else with headrace's own flows. Exit 1 when a number is not right.
    """
    from headrace.cli.stack import _download_bar, _ended_by_sigterm
    from headrace.demo.run import play
    from headrace.settings import find_project

    with _ended_by_sigterm(), _download_bar() as progress:
        outcome = play(find_project(), quick=quick, keep=keep, svg=svg, say=say, progress=progress)
    if json_:
        dump(outcome.summary)
    else:
        _tell(outcome, keep)
    for fault in outcome.faults:
        say(f"headrace: {fault}")
    if outcome.faults:
        raise typer.Exit(1)


def _tell(outcome: Outcome, keep: bool) -> None:
    """The summary, and what to try next."""
    flows = outcome.summary["flows"]
    table("held back, by expectation", ("flow", "expectation", "records"),
          [(flow, id_, count) for flow, n in flows.items() for id_, count in n["by_expectation"].items()])
    table("what became of every record", ("flow", "records in", "valid", "held back", "rejected"),
          [(flow, n["records_in"], n["valid"], n["quarantined"], n["rejected"]) for flow, n in flows.items()])
    numbers = outcome.summary
    table("the proof", ("kill -9", "lost", "doubled", "alerts", "lag", "records/s", "seconds"),
          [(numbers["kills"], numbers["lost"], numbers["doubled"], numbers["events"]["alert"], numbers["lag"],
            numbers["records_per_second"], numbers["seconds"])])
    staged = outcome.staged["speed"][-1]
    print("\nWhat to try next:")
    tries = [*([] if keep else [("headrace up", "Kafka and the registry again, with all that was just written")]),
             (f"headrace consume {staged.outputs[0]} --from-beginning -n 3", "what passed"),
             (f"headrace quarantine list {staged.quarantine}", "what was held back, and why"),
             (f"headrace lag {staged.group}", "how far a flow is"),
             (f"headrace test {_near(staged.plan.project / 'flows')}", "what the flows promise"),
             ("headrace new my-flow --from your.csv", "the same with your own data")]
    for command, why in tries:
        print(f"  {command:<62} {why}")
    print(f"\nThe report: {outcome.report}\n")


def _near(path: Path) -> Path:
    """The path from here, where that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
