"""`kill -9` of every process of the loop at random: each cause has one trigger, one run, one answer, one switch."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from headrace.control import Retrain, Switch, Verdict, digest
from headrace.loopview import log
from tests.conftest import Stack
from tests.integration.loopworld import A_DAY, DAY_MS, FIRST, T0_MS, Row, World, labels, model, moment, readings, world
from tests.integration.test_loop import check_books, said

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1_200),
              pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]  # of the registry's HTTP client

WORKERS = ("score", "meet", "watch", "decide", "dispatch", "gate", "audit")
TRAININGS = ("runner", "training")
KILLS = [*WORKERS * 3, *("runner",) * 5, *("training",) * 4]
REST_S_MAX, TORMENT_S_MAX = 1.0, 500.0
DAYS = 5
"""That go by meanwhile."""
TRAIN = {"with": {"attempts_max": 50}, "queue": {"running_max": 3}}


def workers(w: World) -> Iterator[tuple[str, psutil.Process]]:
    """The children of both supervisors, by name."""
    for parent in w.processes.values():
        for child in psutil.Process(parent.pid).children():
            with contextlib.suppress(psutil.Error):
                line = child.cmdline()
                if "--part" in line:
                    yield line[line.index("--part") + 1], child
                elif "run" in line:
                    yield Path(line[line.index("run") + 1]).stem, child


def trainings(w: World, which: str) -> Iterator[tuple[str, psutil.Process]]:
    """(trigger, process) of the runners, or of the trainings, that live."""
    for file in (w.settings.state / "runs").glob("*/runner.json"):
        with contextlib.suppress(psutil.Error, OSError, ValueError, KeyError):
            noted = json.loads(file.read_text())
            pid = noted["pid"] if which == "runner" else noted["child"]
            if pid and not (file.parent / "exit.json").exists():
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    yield json.loads((file.parent / "request.json").read_text())["id"], process


def kill(w: World, which: str) -> str | None:
    """One process of that kind, at once; the trigger, of a training. None when there is none now."""
    if which in TRAININGS:
        found = list(trainings(w, which))
    else:
        found = [(name, process) for name, process in workers(w) if name == which]
    for name, process in found[:1]:
        with contextlib.suppress(psutil.Error):
            os.kill(process.pid, signal.SIGKILL)
            return name
    return None


class Goings:
    """What goes on meanwhile: people ask for trainings, and days go by whose second one is of another regime."""

    def __init__(self, w: World, names: list[str]) -> None:
        self.w = w
        self.said: dict[str, list[str]] = {name: [] for name in ("auto", *names)}
        """Model → triggers that must come of what was asked."""
        self.day = FIRST
        self.owed: tuple[int, list[Row]] | None = None

    def led(self) -> bool:
        """Whether `auto` predicts: it is swapped in once it is loaded, which is some time after its switch."""
        return '"model in charge", "model": "auto"' in self.w.log("data", 1 << 24)

    def on(self, *, ask: bool) -> None:
        """A little of it. A label is not told before its reading is predicted: the world is like that."""
        requests, answered, led = self.w.events(Retrain), answers(self.w), self.led()
        begun = bool(self.w.switches("auto"))
        for name, triggers in self.said.items():
            wants = not begun if name == "auto" else ask  # auto is asked for a first version; the rest is its policy's
            if wants and all(trigger in answered for trigger in triggers):
                verdict = self.w.say("retrain", name, at=moment(T0_MS + 50 * DAY_MS + len(triggers)))
                triggers.append(digest(name, "asked", verdict.id))
        assert len(requests) == len({each.id for each in requests})
        if self.owed is None and self.day < FIRST + DAYS and led:
            regime = int(self.day > FIRST)
            rows = readings(self.day, 1, regime)
            self.w.produce("readings", rows)
            self.owed = (self.day + 1) * A_DAY, labels(rows, regime)
            self.day += 1
        elif self.owed is not None and self.w.count("scored") >= self.owed[0]:
            self.w.produce("labels", self.owed[1])
            self.owed = None

    def over(self) -> bool:
        """Whether all days have gone by, after a little more."""
        self.on(ask=False)
        return self.day == FIRST + DAYS and self.owed is None


def answers(w: World) -> set[str]:
    return {str(each.trigger) for each in w.events(Verdict) if each.about in ("gate", "failed")}


@pytest.mark.full
def test_one_trigger_one_run_one_switch(stack: Stack, tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    names = ["one", "two"]
    with world(stack.settings, tmp_path, dict.fromkeys(["auto", *names], model(train=TRAIN))) as w:
        w.live(0, FIRST, 0)
        w.until(lambda: len(w.verdicts("auto", "performance")) == FIRST - 1, "a verdict a day")
        for name in names:
            w.windows("auto", name)
        goings = Goings(w, names)
        hit = torment(w, goings, random.Random(seed), KILLS)
        w.until(goings.over, "the days to go by")
        w.until(lambda: len(w.verdicts("auto", "performance")) == FIRST + DAYS - 1, "a verdict a day")
        w.until(lambda: any(each.measure != "asked" for each in w.events(Retrain)), "a trigger of the policy's own")
        w.until(lambda: all(each.id in answers(w) for each in w.events(Retrain)), "all answers")
        whole(w, goings, hit, seed)


def torment(w: World, goings: Goings, chance: random.Random, kills: Sequence[str]) -> set[str]:
    """All kills, in random order, while things go on; the triggers whose training itself was killed."""
    left = list(kills)
    chance.shuffle(left)
    hit: set[str] = set()
    begun = time.monotonic()
    while left:
        goings.on(ask=True)
        w.alive()
        time.sleep(chance.uniform(0.0, REST_S_MAX))
        for which in dict.fromkeys(left):  # the first of which there is one now: a training is not always under way
            if name := kill(w, which):
                left.remove(which)
                hit |= {name} if which == "training" else set()
                break
        assert time.monotonic() - begun < TORMENT_S_MAX, f"still to kill: {left}"
    print(f"{len(kills)} kills in {time.monotonic() - begun:.0f} s, of the trainings of {len(hit)} triggers")
    return hit


def whole(w: World, goings: Goings, hit: set[str], seed: int) -> None:
    """Everything is there once."""
    total = FIRST + DAYS
    for name in ("scored", "labelled"):
        ids = Counter(row["id"] for row in w.rows(name))
        assert ids == Counter(range(total * A_DAY)), f"seed {seed}: {name} lost or doubled"
    windows = Counter((each.model, each.about, each.window) for each in w.events(Verdict, flow=f"watch-{w.u}"))
    assert set(windows.values()) == {1}, f"seed {seed}"

    requests = Counter(each.id for each in w.events(Retrain))
    assert set(requests.values()) == {1}, f"seed {seed}: a trigger twice"
    asked = {trigger for triggers in goings.said.values() for trigger in triggers}
    own = {each.id for each in w.events(Retrain) if each.measure != "asked"}
    assert asked | own == set(requests), f"seed {seed}: a cause without its trigger"
    verdicts = w.events(Verdict)
    outcomes: Counter[str] = Counter()
    for request in w.events(Retrain):
        told = [each for each in verdicts if each.trigger == request.id]
        assert len(told) == 1, f"seed {seed}: {len(told)} answers to {request.id}"
        final = [each.status for each in w.results(request.id)]
        assert sorted(final) == sorted({"started", final[-1]}), f"seed {seed}: {final}"
        outcomes[told[0].about] += 1
        assert told[0].about == "gate", f"seed {seed}: {told[0].reasons}"
        assert w.runs(request.model, request.id) == ["FINISHED"], f"seed {seed}"
        made = [each.candidate for each in w.store().versions(request.model) if each.trigger == request.id]
        assert sorted(map(str, made)) == ["all", "recent"], f"seed {seed}: {made}"
    blessed = {each.id for each in verdicts if each.about == "gate" and each.ok}
    switches = w.events(Switch)
    assert Counter(each.verdict for each in switches) == Counter(blessed), f"seed {seed}: not one switch a blessing"
    w.until(lambda: len(log.entries(w.settings, w.control).entries) >= said(w), "the books")
    check_books(w)
    for name in {each.model for each in switches}:
        last = [each.to for each in switches if each.model == name][-1]
        assert w.store().resolve(name, "champion") == last, f"seed {seed}"
    print(f"answers: {dict(outcomes)}, switches: {len(switches)}, triggers of the policy's own: {len(own)}")
