"""Rows 2 and 3: workers that are killed at each stage of the cycle, and workers that stop, are replaced, and go on."""

from __future__ import annotations

import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from headrace.connectors.kafka import BACKLOG_SHARE
from tests.faults.checker import Outcome
from tests.faults.row import Size
from tests.faults.rows_event import killed
from tests.faults.staged import STAGES
from tests.faults.workers import until
from tests.faults.world import World

LIFE = 3, 5
"""The passage on which a worker is hit: by then it has committed something, and it does not get far."""
TRICKLE = 40
"""Records that come at a time where nothing is to be polled ahead."""
AT_ONCE = 3
"""Zombies at a time: they mostly wait."""
ZOMBIES = (("stop", "produced"), ("stop", "offsets sent"), ("poll", "produced"))


ANY = "any moment"
"""After its partitions were assigned."""
UNSAFE = ("produced", "committed", ANY)
"""Where a worker without a safeguard is killed: one breach is enough."""


def at_each_stage(world: World, rng: random.Random, size: Size, off: str | None = None) -> Outcome:
    """kill -9 at each stage, and at any moment: one worker after another, all with the same id, at once."""
    stages = [*(UNSAFE if off else (*STAGES, ANY))] * size.times
    rng.shuffle(stages)
    with world.case(rng, size.records) as case:
        batch = max(10, size.records // (len(stages) * (LIFE[1] + 1)))
        for stage in stages:
            fault = {"stage": stage, "at": rng.randint(*LIFE), "act": "kill", "seed": rng.randrange(1 << 30)}
            worker = case.start(batch=batch, instance="one", fault={
                **(fault if stage != ANY else {}), **({"off": off} if off else {})})
            if stage == ANY:
                worker.await_("assigned")
                time.sleep(rng.uniform(0, 0.1))
                worker.signal(signal.SIGKILL)
            code = worker.await_end()
            case.struck()
            assert code == -signal.SIGKILL, f"the stage “{stage}” was not reached: {worker.tail()}"
            world.says(f"killed: {stage}")
        case.drain(instance="one", fault={"off": off} if off else None)
        out = case.finish()
    if not off:
        events = killed(world, rng, size)
        out += replace(events, records=0)
        out.notes = {"of which at “event sent” and “event recorded”": events.runs}
    return out


def zombies(world: World, rng: random.Random, size: Size, off: str | None = None) -> Outcome:
    """Stopped before and after its offsets are sent, or polling on; another takes over; it wakes up and goes on."""
    tasks = [(act, stage, rng.randrange(1 << 30)) for act, stage in ZOMBIES * size.times]
    out = Outcome()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for each in pool.map(lambda task: zombie(world, size.records, *task, off=off), tasks):
            out += each
    return out


def zombie(world: World, records: int, act: str, stage: str, seed: int, off: str | None = None) -> Outcome:
    """Who polls on has no keyed state, and no batch ahead: to restore the one it would wait for its own transaction,
    and the other would be processed for partitions it lost; only the transaction is in question."""
    rng = random.Random(seed)
    batch = max(10, records // 40) if act == "stop" else records * BACKLOG_SHARE
    with world.case(rng, records, keyed=act == "stop", fed=act == "stop") as case:
        worker = case.start("--log", "debug", batch=batch, instance="zombie", fault={
            "stage": stage, "at": rng.randint(*LIFE), "act": act, **({"off": off} if off else {})})
        if act == "stop":
            worker.await_stop()
        else:
            until(lambda: case.feed(case.fed + TRICKLE) or worker.told("polling on"), "“polling on”", every_s=0.3)
        case.struck()
        case.feed()
        heir = case.start("--log", "debug", batch=batch, instance="heir")
        heir.await_("committed")
        if act == "stop":
            time.sleep(rng.uniform(0, 8))  # with its transaction still open, or timed out
            worker.signal(signal.SIGCONT)
        world.says(f"zombie ({act} after {stage}): taken over")
        time.sleep(5)  # it ends, fenced, or goes on as a member of the group
        for each in (worker, heir):
            if each.process.poll() is None:
                each.finish()
        case.drain()
        out = case.finish()
    out.breaches = [f"zombie ({act} after {stage}): {each}" for each in out.breaches]
    return out
