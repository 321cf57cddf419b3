"""The acts but for the last. Each leaves what it saw on the board and gives back what became of every record."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import date

from headrace.demo import load
from headrace.demo.board import ACTS, Board, Kill, steady_rate
from headrace.demo.data import Flights
from headrace.demo.folder import FLOWS, SHARED, Run, Staged
from headrace.demo.verify import Tally, tally
from headrace.demo.watch import Alerts, Held, Progress
from headrace.demo.workers import Crew, Worker
from headrace.errors import EnvironmentFault
from headrace.settings import Settings

LOOK_S = 0.05
LOOK_CLOSELY_S = 0.01
PATIENCE_S = 120.0
KILLS = (0.25, 0.6)
"""Each comes when about this part of the records is committed: somewhere in the tenth that follows."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What differs between the whole demo and a quick one."""

    batch_speed: int = 20_000
    batch_kill: int = 4_000
    story_first: date = date(2013, 1, 25)
    story_last: date = date(2013, 2, 20)
    day_s: float = 0.6


QUICK = Pace(batch_speed=5_000, batch_kill=600, story_first=date(2013, 2, 4), story_last=date(2013, 2, 13), day_s=0.2)
QUICK_LAST = date(2013, 2, 28)
"""A quick demo has the flights up to here."""


@dataclass(slots=True)
class Theatre:
    """What all acts use."""

    settings: Settings
    run: Run
    crew: Crew
    flights: Flights
    board: Board
    pace: Pace
    show: Callable[[], None]
    """Brings the view up to date; cheap to call often."""

    def say(self, text: str) -> None:
        self.board.say(text)
        self.show()

    def enter(self, act: str) -> None:
        self.board.enter(act)
        self.say(f"act {self.board.acts.index(act) + 1} of {len(self.board.acts)}, {act}: {ACTS[act]}")


def stage_all(run: Run) -> dict[str, list[Staged]]:
    """The flows of each act. The kills read what the first act loaded, in a group of their own."""
    name = f".{run.name}"
    return {
        "speed": [run.stage(flow, "speed", source=name, sinks=name) for flow in FLOWS],
        "kill": [run.stage("arrivals", "kill", source=name, sinks=f"{name}.kill")],
        "story": [run.stage("arrivals", "story", source=f"{name}.story", sinks=f"{name}.story", keep=SHARED)]}


def speed(theatre: Theatre, staged: Sequence[Staged]) -> dict[str, Tally]:
    """Both topics loaded, then drained by a worker each, at the same time."""
    theatre.enter("speed")
    _load(theatre, staged)
    board = theatre.board
    with ExitStack() as ends:
        progress = {each.flow: ends.enter_context(closing(Progress(theatre.settings, each))) for each in staged}
        held = {each.flow: ends.enter_context(closing(Held(theatre.settings, each.quarantine))) for each in staged}
        board.held = {flow: tail.reasons for flow, tail in held.items()}
        workers = [theatre.crew.start(each, drain=True, batch=theatre.pace.batch_speed) for each in staged]
        theatre.say("two workers started, one for each flow: `headrace run --drain`")
        deadline = time.monotonic() + PATIENCE_S
        while [worker for worker in workers if worker.running()]:
            for flow, seen in progress.items():
                board.sample(flow, seen.done(), seen.end)
                held[flow].look()
            theatre.show()
            _wait(LOOK_S, deadline, "the drain")
        for flow, seen in progress.items():
            board.sample(flow, seen.done(), seen.end)
    board.records_per_second = steady_rate([s for s in board.samples if s.act == "speed"])
    theatre.say(f"drained at {board.records_per_second:,} records/s; now every output is read back and counted")
    found = {each.flow: tally(theatre.settings, each) for each in staged}
    board.held = {flow: n.by_expectation for flow, n in found.items()}
    for flow, n in found.items():
        theatre.say(f"{flow}: {n.records_in:,} in = {n.valid:,} valid + {n.quarantined:,} held back + "
                    f"{n.rejected:,} rejected; lost {n.lost}, doubled {n.doubled}")
    return found


def _load(theatre: Theatre, staged: Sequence[Staged]) -> None:
    from headrace.topics import ensure

    ensure(theatre.settings, [topic for each in staged for topic in each.plan.topics])
    flights = theatre.flights
    loader = load.Loader(theatre.settings)
    for each in staged:
        began = time.monotonic()
        rows = getattr(flights, each.flow)
        records = load.encode(theatre.settings, each, rows, flights.at_ms)
        encoded = time.monotonic()
        loader.send(each.source, records, lambda n: theatre.show())
        theatre.say(f"{each.source}: {len(records):,} flights, encoded in {encoded - began:.1f} s, "
                    f"produced in {time.monotonic() - encoded:.1f} s")


def kill(theatre: Theatre, staged: Sequence[Staged]) -> dict[str, Tally]:
    """The worker of one flow is killed twice on the way, and its successors take over."""
    from headrace.topics import ensure

    theatre.enter("kill")
    each, board = staged[0], theatre.board
    ensure(theatre.settings, each.plan.topics)
    with closing(Progress(theatre.settings, each)) as progress:
        worker = theatre.crew.start(each, drain=True, batch=theatre.pace.batch_kill)
        for share in KILLS:
            _until(theatre, progress, worker, round(progress.end * random.uniform(share, share + 0.1)))
            worker.kill()
            done = progress.done()
            board.kills.append(Kill(board.now_s(), each.flow, done, progress.end))
            theatre.say(f"kill -9 {worker.process.pid} at {done:,} of {progress.end:,} records")
            worker = theatre.crew.start(each, drain=True, batch=theatre.pace.batch_kill)
            _until(theatre, progress, worker, min(done + 1, progress.end))
            back_s = board.now_s() - board.kills[-1].at_s
            board.kills[-1] = replace(board.kills[-1], back_s=back_s)
            theatre.say(f"its successor's first transaction is committed {back_s:.1f} s later")
        _until(theatre, progress, worker, progress.end)
        deadline = time.monotonic() + PATIENCE_S
        while worker.running():
            _wait(LOOK_S, deadline, "the worker's end")
    found = tally(theatre.settings, each)
    theatre.say(_result(found))
    return {each.flow: found}


def _result(found: Tally) -> str:
    return f"{found.records_in:,} in, lost {found.lost}, doubled {found.doubled}, alerts {found.alerts}"


def _until(theatre: Theatre, progress: Progress, worker: Worker, wanted: int) -> None:
    """Watch closely until so many records are committed."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        done = progress.done()
        theatre.board.sample(worker.name, done, progress.end)
        theatre.show()
        if done >= wanted:
            return
        if not worker.running() and progress.done() < wanted:
            raise EnvironmentFault(f"the worker of {worker.name} ended at {done:,} of {progress.end:,} records")
        _wait(LOOK_CLOSELY_S, deadline, f"{wanted:,} records of {worker.name}")


def story(theatre: Theatre, staged: Sequence[Staged]) -> dict[str, Tally]:
    """Some weeks pass, a day in half a second, with the flow running live; an application listens for its alerts."""
    from headrace.topics import ensure

    theatre.enter("story")
    each, board, flights, pace = staged[0], theatre.board, theatre.flights, theatre.pace
    ensure(theatre.settings, each.plan.topics)
    weeks = flights.of_days(pace.story_first, pace.story_last)
    rows = flights.arrivals.slice(weeks.start, weeks.stop - weeks.start)
    records = load.encode(theatre.settings, each, rows, flights.at_ms[weeks])
    loader = load.Loader(theatre.settings)
    worker = theatre.crew.start(each, drain=False, batch=pace.batch_speed)
    with (closing(Progress(theatre.settings, each)) as progress,
          closing(Alerts(theatre.settings, each.alerts[0], each.source)) as alerts):

        def look() -> None:
            board.sample(each.flow, progress.done(), progress.end)
            for alert in alerts.look():
                board.alerts.append(alert)
                theatre.say(f"ALERT {alert.window_start:%d %B}: {alert.matched} of {alert.rows} flights cancelled")
            theatre.show()

        deadline = time.monotonic() + PATIENCE_S
        while not progress.begun() and worker.running():
            _wait(LOOK_S, deadline, "the worker's start")
        for day in (day for day in flights.days if pace.story_first <= day.date <= pace.story_last):
            until = time.monotonic() + pace.day_s
            loader.send(each.source, records.part(slice(progress.end, progress.end + day.flights)))
            progress.end += day.flights
            board.days.append(day)
            while time.monotonic() < until:
                look()
                time.sleep(LOOK_S)
        progress.look_for_end()
        deadline = time.monotonic() + PATIENCE_S
        while progress.done() < progress.end and worker.running():
            look()
            _wait(LOOK_S, deadline, "the last day")
        while alerts.look(0.5):
            pass
        look()
    worker.stop()
    board.alerts = list(alerts.seen)
    found = tally(theatre.settings, each)
    found.alerts = len(board.alerts)  # their topic is everybody's: this run's are those the listener picked
    theatre.say(_result(found))
    return {each.flow: found}


def _wait(seconds: float, deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise EnvironmentFault(f"{what} did not come within {PATIENCE_S:g} s")
    time.sleep(seconds)
