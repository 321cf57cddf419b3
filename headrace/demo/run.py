"""The whole demo: a stack, a fresh run, its acts, and what remains of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import settings as at
from headrace.demo import acts, data, folder, loop, referee, replay, view
from headrace.demo.acts import Theatre
from headrace.demo.board import ACTS, Board
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
    loop: referee.Verdict | None = None

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


def play(project: Path, *, quick: bool = False, with_loop: bool = True, keep: bool = False, svg: Path | None = None,
         say: Say = lambda text: None, progress: Download | None = None) -> Outcome:
    """The demo, whole, in `project`. Writes .headrace/demo/summary.json and report.html, and `svg` if asked.

    The stack it starts it also stops, unless `keep`. Raises StackError, BrokerError, RegistryError, MissingExtra;
    EnvironmentFault when a worker ends badly; UserError when another demo runs in the same project.
    """
    from headrace.demo.report import write

    if with_loop:
        loop.check()
    flights = data.flights(last=acts.QUICK_LAST if quick else date.max)
    with folder.new_run(project) as run, ground(project, keep=keep, say=say, progress=progress) as settings:
        if n := folder.forget_older(project, settings, run):
            say(f"forgot the topics of {n} earlier run{'s' * (n > 1)}")
        board = Board(run.name, len(flights), tuple(act for act in ACTS if act != "loop" or with_loop))
        staged = acts.stage_all(run)
        stage = replay.stage(run) if with_loop else None
        run.remember([each for act in staged.values() for each in act], settings, stage.names() if stage else ())
        crew = Crew(run, settings)
        with crew.dismissed(), view.live(board) as show:
            theatre = Theatre(settings, run, crew, flights, board, acts.QUICK if quick else acts.Pace(), show)
            tallies, judged, left = _acts(theatre, staged, stage, quick)
            board.ended_s = board.now_s()
        lag = lag_of(settings, staged) + left
        outcome = _outcome(board, tallies, staged, judged, lag, project / ".headrace" / "demo")
    (outcome.folder / "summary.json").write_text(json.dumps(outcome.summary, indent=1) + "\n")
    write(outcome, flights)
    if svg:
        view.save_svg(board, svg)
    return outcome


def _acts(theatre: Theatre, staged: Mapping[str, list[Staged]], stage: replay.Stage | None,
          quick: bool) -> tuple[dict[tuple[str, str], Tally], referee.Verdict | None, int]:
    """(tallies, what the referee of the loop found, what the loop has still to process) of all acts."""
    tallies: dict[tuple[str, str], Tally] = {}
    with ThreadPoolExecutor(1) as beside:  # whatever happens, it is waited for: it starts processes
        cast = None
        for act, act_of in (("speed", acts.speed), ("kill", acts.kill), ("story", acts.story)):
            if act == "story" and stage is not None:  # its days pass slowly: the loop gets ready meanwhile
                cast = beside.submit(_set_up, theatre, stage, quick)
            tallies |= {(act, flow): found for flow, found in act_of(theatre, staged[act]).items()}
        if cast is None:
            return tallies, None, 0
        return tallies, *_loop(theatre, cast.result())


def _set_up(theatre: Theatre, stage: replay.Stage, quick: bool) -> loop.Cast:
    return loop.set_up(theatre, stage, data.flights(last=loop.QUICK_LAST) if quick else theatre.flights)


def _loop(theatre: Theatre, cast: loop.Cast) -> tuple[referee.Verdict, int]:
    """The last act: what its referee found, and what is still to process."""
    loop.play(theatre, cast)
    theatre.say("the year is over; every prediction is made again, and each decision held against what followed")
    loop.await_baselines(theatre, cast)
    here = replace(theatre.settings, project=theatre.run.folder, mlflow_uri=theatre.run.mlflow_uri)
    judged = referee.judge(here, cast, theatre.board.loop)
    for line in referee.lines(judged.summary):
        theatre.say(line)
    return judged, referee.offsets_left(here, cast)


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


def _outcome(board: Board, tallies: Mapping[tuple[str, str], Tally], staged: Mapping[str, list[Staged]],
             judged: referee.Verdict | None, lag: int, home: Path) -> Outcome:
    counted = {flow: found for (act, flow), found in tallies.items() if act == "speed"}
    seconds = round(board.now_s(), 1)
    summary = {
        "flows": {flow: {"records_in": n.records_in, "valid": n.valid, "quarantined": n.quarantined,
                         "rejected": n.rejected, "by_expectation": dict(n.by_expectation.most_common())}
                  for flow, n in counted.items()},
        "events": {"alert": len(board.alerts)},
        "kills": len(board.kills),
        "lost": sum(n.lost for n in tallies.values()) + (judged.lost if judged else 0),
        "doubled": sum(n.doubled + n.strangers for n in tallies.values()) + (judged.doubled if judged else 0),
        "lag": lag, "seconds": seconds, "records_per_second": board.records_per_second,
        **({"loop": judged.summary} if judged else {})}
    faults = (*_faults(board, tallies, lag), *(f"the loop: {fault}" for fault in (judged.faults if judged else ())))
    return Outcome(board, tallies, staged, lag, seconds, summary, faults, home, judged)


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
