"""The last act: a model through the year. Flights are predicted at departure, their outcomes come at arrival; the loop
watches the model, has it retrained, judges the challengers and lets them take over, and nobody helps."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.demo import replay
from headrace.demo.acts import Theatre
from headrace.demo.data import Flights
from headrace.demo.load import Loader
from headrace.demo.replay import BEGIN, FLOWS, PARTS, WATCHED, Chunk, Stage, Year
from headrace.demo.told import Told
from headrace.demo.watch import LOOK_S, PATIENCE_S, Lags, Said
from headrace.demo.workers import Worker
from headrace.errors import EnvironmentFault, MissingExtra

if TYPE_CHECKING:
    from headrace.control import ControlEvent

TRAINING_S = 300.0
QUICK_LAST = date(2013, 4, 18)
"""A quick demo plays the loop up to here: the first model, one retraining, and two weeks under what came of it."""
NEEDED = ("mlflow", "sklearn", "skops")
FIRST = "the first champion, of January and February"


@dataclass(slots=True)
class Cast:
    """The loop, set up and running, before its act begins."""

    stage: Stage
    flights: Flights
    year: Year
    loader: Loader
    workers: list[Worker]
    baselines: Worker

    @property
    def reckoned(self) -> Path:
        """Where the baselines' predictions come to lie."""
        return self.stage.flows[WATCHED].plan.project / "baselines.npz"


def check() -> None:
    """Raises MissingExtra where the loop cannot run: before anything is started."""
    if any(find_spec(name) is None for name in NEEDED):
        raise MissingExtra("ml", "the demo's last act, the loop (`--no-loop` leaves it out)")


def set_up(theatre: Theatre, stage: Stage, flights: Flights) -> Cast:
    """The topics and the weather are made, and the processes started; what they need to begin passes unseen while
    another act plays."""
    from headrace.topics import ensure

    settings = theatre.settings
    ensure(settings, stage.topics())
    loader = Loader(settings)
    replay.send_weather(settings, stage, loader)
    workers = replay.start(theatre.crew, stage)
    year = replay.year(settings, stage, flights)
    out = stage.flows[WATCHED].plan.project / "baselines.npz"
    command = [sys.executable, "-m", "headrace.demo.baselines", str(stage.flows[WATCHED].path), str(out),
               "--last", flights.days[-1].date.isoformat()]
    baselines = theatre.crew.spawn("the baselines", "baselines", command, {"POLARS_MAX_THREADS": "1"})
    return Cast(stage, flights, year, loader, workers, baselines)


def play(theatre: Theatre, cast: Cast) -> None:
    """The year, week by week; `theatre.board.loop` has what the loop said. All of it is committed when this returns.

    Raises EnvironmentFault when a process ends badly, a training fails, or nothing moves."""
    theatre.enter("loop")
    theatre.say(f"{len(FLOWS)} flows and {len(PARTS)} parts of the loop run, a process each; beside them the same "
                "model is trained without a loop")
    with _audience(theatre, cast) as seats:
        for n, chunk in enumerate(cast.year.chunks):
            seats.send(chunk)
            if n == 0:
                seats.ask_for_the_first()
            seats.carried_out()
            seats.month_over(chunk)
        seats.lags.settle([*FLOWS, *PARTS], seats.look)
        seats.hear()


@contextmanager
def _audience(theatre: Theatre, cast: Cast) -> Iterator[_Seats]:
    with (closing(Lags(theatre.settings, cast.stage.groups())) as lags,
          closing(Said(theatre.settings, cast.stage.said())) as said):
        yield _Seats(theatre, cast, lags, said)


@dataclass(slots=True)
class _Seats:
    """Sends, and waits for what comes of it."""

    theatre: Theatre
    cast: Cast
    lags: Lags
    said: Said
    upcoming: int = 0
    landed: int = 0
    month: int = BEGIN.month

    @property
    def told(self) -> Told:
        return self.theatre.board.loop

    def send(self, chunk: Chunk) -> None:
        """A week's departures; when all of them are predicted, its landings; returns when its window is judged."""
        stage, year = self.cast.stage, self.cast.year
        self.upcoming, self.landed = chunk.departures.stop, chunk.landings.stop
        self.cast.loader.send(stage.flows["predictions"].source, year.departures.part(chunk.departures))
        self.lags.settle(("predictions", "outcomes"), self.look)
        self.cast.loader.send(stage.landings.config.topic, year.landings.part(chunk.landings))
        self.lags.settle(("outcomes", WATCHED, "decide"), self.look)
        self.hear()

    def ask_for_the_first(self) -> None:
        """What `headrace models retrain` does: from then on nobody says a word."""
        from headrace.loopview.word import word, write

        write(self.theatre.settings, self.cast.stage.control,
              word("retrain", WATCHED, None, FIRST, "demo", at=BEGIN))
        self.lags.settle(("decide",), self.look)
        self.hear()

    def carried_out(self) -> None:
        """Every request is answered, and every blessed version in charge. Raises EnvironmentFault."""
        deadline = time.monotonic() + TRAINING_S
        while self.told.open:
            self.watch()
            self.note(self.said.look(LOOK_S))
            if time.monotonic() > deadline:
                raise EnvironmentFault(f"a training was not answered within {TRAINING_S:g} s",
                                       hint=f"see the logs in {self.cast.workers[0].log.parent}")
        self.lags.settle(("decide",), self.look)
        self.hear()
        if self.told.failures:
            raise EnvironmentFault(self.told.failures[0])

    def month_over(self, chunk: Chunk) -> None:
        """A line for each month, once its last week is over."""
        if chunk.end.month != self.month:
            weeks = [week for week in self.told.weeks.values() if week.start.month == self.month and week.auc]
            self.month = chunk.end.month
            if weeks:
                self.theatre.say(f"{weeks[0].start:%B}: AUC " + " ".join(f"{week.auc:.3f}" for week in weeks)
                                 + f" in its weeks; version {weeks[-1].version} in charge")

    def hear(self) -> None:
        self.note(self.said.all())

    def note(self, events: Sequence[ControlEvent]) -> None:
        for event in events:
            if line := self.told.note(event):
                self.theatre.say(line)

    def look(self, name: str, left: Mapping[str, int]) -> None:
        """Between two looks at a group: the board follows, and a process that died is noticed."""
        stage, board = self.cast.stage, self.theatre.board
        for flow, topic, end in (("predictions", stage.flows["predictions"].source, self.upcoming),
                                 ("outcomes", stage.landings.config.topic, self.landed)):
            if name == flow and topic in left:
                board.sample(flow, end - left[topic], end)
        self.watch()

    def watch(self) -> None:
        for worker in self.cast.workers:
            if not worker.running():
                raise EnvironmentFault(f"{worker.name} has ended", hint=f"see {worker.log}")
        self.theatre.show()


def await_baselines(theatre: Theatre, cast: Cast) -> None:
    """Until the baselines are reckoned. Raises EnvironmentFault."""
    deadline = time.monotonic() + PATIENCE_S
    while cast.baselines.running():
        theatre.show()
        if time.monotonic() > deadline:
            raise EnvironmentFault(f"the baselines were not reckoned within {PATIENCE_S:g} s",
                                   hint=f"see {cast.baselines.log}")
        time.sleep(LOOK_S)
