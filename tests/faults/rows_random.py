"""Row 18: hours of whatever comes: a seeded schedule of faults under one flow, whose memory stays level."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time

from headrace.stack.lifecycle import up
from tests.faults.checker import Outcome
from tests.faults.row import Size
from tests.faults.rows_broker import pid_of
from tests.faults.staged import STAGES
from tests.faults.workers import Worker
from tests.faults.world import Case, World

PIECE = 400
"""Records that come between two faults."""
LEVEL = 1.25
"""The memory of a calm worker at the end may be so many times what it was at the start."""
FAULTS = ("killed", "killed at a stage", "stopped for a while", "replaced", "broker killed", "registry silent", "calm")
WEIGHTS = (3, 4, 2, 3, 1, 1, 3)


class Soak:
    """Two workers in one group, of whom one may be struck."""

    def __init__(self, world: World, case: Case, rng: random.Random) -> None:
        self.world, self.case, self.rng = world, case, rng
        self.steady = case.start(batch=100, instance="steady")
        self.struck: Worker | None = None
        self.rss_mb: list[float] = []

    def strike(self) -> str:
        """One fault of the schedule."""
        [kind] = self.rng.choices(FAULTS, WEIGHTS)
        seed, rest = self.rng.randrange(1 << 30), self.rng.uniform(0.5, 3.0)
        stage, at = self.rng.choice(STAGES), self.rng.randint(1, 5)
        if self.struck is None or self.struck.process.poll() is not None:
            fault = {"stage": stage, "at": at, "act": "kill", "seed": seed} if kind == "killed at a stage" else None
            self.struck = self.case.start(batch=100, instance="struck", fault=fault)
            time.sleep(4.0)
        if kind != "calm":
            self.case.struck()
        self._do(kind, rest)
        if self.steady.process.poll() is not None:  # it may end, with an error, when the broker goes
            self.steady = self.case.start(batch=100, instance="steady")
        self.rss_mb.append(self.steady.rss_mb)
        return kind

    def _do(self, kind: str, rest: float) -> None:
        assert self.struck is not None
        if kind == "killed":
            time.sleep(rest)
            self.struck.kill()
        elif kind == "replaced":
            self.struck.process.terminate()
            self.struck.await_end(60)
        elif kind == "stopped for a while" and self.struck.process.poll() is None:
            self.struck.signal(signal.SIGSTOP)
            time.sleep(12 + rest)  # its session is over by then
            self.struck.signal(signal.SIGCONT)
        elif kind == "broker killed":
            os.kill(pid_of(self.world, "kafka"), signal.SIGKILL)
            time.sleep(rest)
            up(self.world.settings.project)
        elif kind == "registry silent":
            registry = pid_of(self.world, "registry")
            os.kill(registry, signal.SIGSTOP)
            time.sleep(rest * 2)
            os.kill(registry, signal.SIGCONT)
        else:
            time.sleep(rest)


def soak(world: World, rng: random.Random, size: Size) -> Outcome:
    """Records come all the while; the schedule is drawn from the seed, its moments are not to the millisecond."""
    begun, kinds = time.monotonic(), []
    with world.case(rng, size.records, fed=False) as case:
        here = Soak(world, case, rng)
        while time.monotonic() - begun < size.minutes * 60:
            case.feed(min(case.fed + PIECE, size.records))
            kinds.append(here.strike())
            world.says(f"{len(kinds)}: {kinds[-1]}; {case.seen:,} of {case.fed:,}, {here.rss_mb[-1]:.0f} MB")
        case.feed()
        for worker in case.workers:
            if worker.process.poll() is None:
                worker.finish()
        case.drain()
        out = case.finish()
    out.runs = sum(kind != "calm" for kind in kinds)
    out.notes["faults"] = {kind: kinds.count(kind) for kind in FAULTS}
    third = max(1, len(here.rss_mb) // 3)
    start, end = (statistics.median(part) for part in (here.rss_mb[:third], here.rss_mb[-third:]))
    out.notes["RSS, MB: first third, last third"] = [round(start), round(end)]
    out.hold(end <= start * LEVEL, f"memory grew from {start:.0f} to {end:.0f} MB")
    return out
