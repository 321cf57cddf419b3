"""`headrace demo`: real flights through real Kafka: speed, kills, an event, and a model that is kept right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.common import Json, dump, say, table

if TYPE_CHECKING:
    from headrace.demo.run import Outcome


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="January and February only: 51,955 flights; the loop "
                                                     "up to the middle of April.")] = False,
    no_loop: Annotated[bool, typer.Option("--no-loop", help="Without the last act: the short demo.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave Kafka and the registry running.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Also save the last picture of the live view as an SVG.")] = None,
    json_: bool = Json,
) -> None:
    """A year of real flights: how fast, what two `kill -9` do, one event when a storm comes, and a model that is
    monitored, retrained, gated and switched by itself.

    Starts Kafka and a schema registry here unless a cluster is named, and stops them at the end. Runs in the project
    you are in if it has flows/departures.yaml, else with headrace's own flows. Exit 1 when a number is not right.
    """
    from headrace.cli.stack import _download_bar, _ended_by_sigterm
    from headrace.demo.run import play
    from headrace.settings import find_project

    with _ended_by_sigterm(), _download_bar() as progress:
        outcome = play(find_project(), quick=quick, with_loop=not no_loop, keep=keep, svg=svg, say=say,
                       progress=progress)
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
    if "loop" in numbers:
        _tell_loop(numbers["loop"])
    staged = outcome.staged["speed"][-1]
    print("\nWhat to try next:")
    tries = [*([] if keep else [("headrace up", "Kafka and the registry again, with all that was just written")]),
             (f"headrace consume {staged.outputs[0]} --from-beginning -n 3", "what passed"),
             (f"headrace quarantine list {staged.quarantine}", "what was held back, and why"),
             (f"headrace lag {staged.group}", "how far a flow is"),
             *(_of_the_loop(outcome, staged.plan.project) if outcome.loop else []),
             (f"headrace test {_near(staged.plan.project / 'flows')}", "what the flows promise"),
             ("headrace new my-flow --from your.csv", "the same with your own data")]
    for command, why in tries:
        print(f"  {command:<62} {why}")
    print(f"\nThe report: {outcome.report}\n")


def _of_the_loop(outcome: Outcome, project: Path) -> list[tuple[str, str]]:
    sink = _near(project / "connectors" / "scored-delta.json")
    return [(f"headrace loop explain --control headrace.{outcome.board.run}", "why the last model was asked for"),
            *([(f"headrace connect {sink} --drain", "the predictions, in a Delta table")] if sink.is_file() else [])]


def _tell_loop(told: Mapping[str, Any]) -> None:
    """AUC by policy and month, and each retraining."""
    months = sorted({month for each in told["monthly_auc"].values() for month in each}, key=int)
    table("the model, by policy: AUC of the month", ("policy", *months, "mean", "retrainings"),
          [(name, *(f"{value:.3f}" for value in each.values()), f"{told['mean_auc'][name]:.3f}",
            told["retrains"][name]) for name, each in told["monthly_auc"].items()])
    table("the loop's retrainings", ("asked", "rule", "outcome"),
          [(each["at"], each["rule"], each["outcome"]) for each in told["asked"]])


def _near(path: Path) -> Path:
    """The path from here, where that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
