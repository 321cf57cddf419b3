"""The whole demo: a stack, a fresh run, three acts, and what remains of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import settings as at
from headrace.demo import acts, data, folder, view
from headrace.demo.acts import Theatre
from headrace.demo.board import Board
from headrace.demo.folder import Staged
from headrace.demo.verify import Tally
from headrace.demo.watch import Progress
from headrace.demo.workers import Crew
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.stack.jars import Progress as Download

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run leaves. `faults` says what was not as it must be; empty is a success."""

    board: Board
    tallies: Mapping[tuple[str, str], Tally]
    """By act and flow."""
    staged: Mapping[str, list[Staged]]
    lag: int
    seconds: float
    summary: Mapping[str, Any]
    faults: tuple[str, ...]
    folder: Path

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


def play(project: Path, *, quick: bool = False, keep: bool = False, svg: Path | None = None,
         say: Say = lambda text: None, progress: Download | None = None) -> Outcome:
    """The demo, whole, in `project`. Writes .headrace/demo/summary.json and report.html, and `svg` if asked.

    The stack it starts it also stops, unless `keep`. Raises StackError, BrokerError, RegistryError, MissingExtra;
    EnvironmentFault when a worker ends badly; UserError when another demo runs in the same project.
    """
    from headrace.demo.report import write

    flights = data.flights(last=acts.QUICK_LAST if quick else date.max)
    with folder.new_run(project) as run, ground(project, keep=keep, say=say, progress=progress) as settings:
        if n := folder.forget_older(project, settings, run):
            say(f"forgot the topics of {n} earlier run{'s' * (n > 1)}")
        board = Board(run.name, len(flights))
        staged = acts.stage_all(run)
        run.remember([each for act in staged.values() for each in act], settings)
        crew = Crew(run, settings)
        with crew.dismissed(), view.live(board) as show:
            theatre = Theatre(settings, run, crew, flights, board, acts.QUICK if quick else acts.Pace(), show)
            tallies = {(act, flow): found for act, act_of in (("speed", acts.speed), ("kill", acts.kill),
                                                              ("story", acts.story))
                       for flow, found in act_of(theatre, staged[act]).items()}
            board.ended_s = board.now_s()
        outcome = _outcome(board, tallies, staged, lag_of(settings, staged), project / ".headrace" / "demo")
    (outcome.folder / "summary.json").write_text(json.dumps(outcome.summary, indent=1) + "\n")
    write(outcome, flights)
    if svg:
        view.save_svg(board, svg)
    return outcome


@contextmanager
def ground(project: Path, *, keep: bool, say: Say, progress: Download | None) -> Iterator[Settings]:
    """A broker and a registry: the user's own where settings name them, else the embedded stack, started if need be."""
    from headrace.stack.lifecycle import Where, down, status, up

    known, note = at.load(project), Where(project).note
    embedded = json.loads(note.read_text())["bootstrap"] if note.is_file() else None
    if known.bootstrap and known.bootstrap != embedded:
        yield known
        return
    ran = all(part.state == "running" for part in status(project))
    up(project, progress=progress, say=say)
    try:
        yield at.load(project)
    finally:
        if not ran and not keep:
            down(project, say=say)
            say("Kafka and the registry are stopped; their data is kept, and `headrace up` brings them back")


def lag_of(settings: Settings, staged: Mapping[str, list[Staged]]) -> int:
    """Records that any group of the run has still to process."""
    total = 0
    for each in (each for act in staged.values() for each in act):
        with closing(Progress(settings, each)) as progress:
            total += progress.end - progress.done()
    return total


def _outcome(board: Board, tallies: Mapping[tuple[str, str], Tally], staged: Mapping[str, list[Staged]], lag: int,
             home: Path) -> Outcome:
    counted = {flow: found for (act, flow), found in tallies.items() if act == "speed"}
    seconds = round(board.now_s(), 1)
    summary = {
        "flows": {flow: {"records_in": n.records_in, "valid": n.valid, "quarantined": n.quarantined,
                         "rejected": n.rejected, "by_expectation": dict(n.by_expectation.most_common())}
                  for flow, n in counted.items()},
        "events": {"alert": len(board.alerts)},
        "kills": len(board.kills),
        "lost": sum(n.lost for n in tallies.values()),
        "doubled": sum(n.doubled + n.strangers for n in tallies.values()),
        "lag": lag, "seconds": seconds, "records_per_second": board.records_per_second}
    return Outcome(board, tallies, staged, lag, seconds, summary, tuple(_faults(board, tallies, lag)), home)


def _faults(board: Board, tallies: Mapping[tuple[str, str], Tally], lag: int) -> Iterator[str]:
    """What is not as it must be."""
    for (act, flow), n in tallies.items():
        where = f"{flow} in the act {act}"
        expected = sum(day.flights for day in board.days) if act == "story" else board.flights
        if n.records_in != expected:
            yield f"{where}: {n.records_in:,} records in the source, {expected:,} were loaded"
        if not n.whole:
            yield (f"{where}: {n.lost} lost, {n.doubled} doubled, {n.strangers} of unknown origin; {n.records_in:,} in "
                   f"= {n.valid:,} valid + {n.quarantined:,} quarantined + {n.rejected:,} rejected?")
        if flow == "arrivals" and n.alerts != 1:
            yield f"{where}: {n.alerts} alerts instead of one"
    for each in board.kills:
        if not 0 < each.done < each.end:
            yield f"the kill at {each.done:,} of {each.end:,} records was not in mid-stream"
    undisturbed, killed = tallies["speed", "arrivals"], tallies["kill", "arrivals"]
    if undisturbed.by_expectation != killed.by_expectation:
        yield "the kills changed what was held back"
    if lag:
        yield f"{lag:,} records are not processed"
