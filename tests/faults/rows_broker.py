"""Rows 6 and 14: the broker is killed, or its disk is full; and row 12: the registry is away."""

from __future__ import annotations

import os
import random
import signal
import time

import psutil
from confluent_kafka import Producer

from headrace.stack.lifecycle import obituary, status, up
from headrace.topics import TopicPlan, ensure, silent
from tests.faults.checker import Outcome
from tests.faults.row import Size
from tests.faults.workers import until
from tests.faults.world import World

SMALL = 100
"""Records in a batch where a worker is to be in the midst of its input for a while."""
LIMIT_BYTES = 24 << 20
"""Above Kafka's 10 MB index files, below what is written."""
DOWN_S_MAX = 5.0
RESUMES_S = 30.0
"""After the broker answers again."""


def pid_of(world: World, part: str) -> int:
    """The process of a part of the suite's own stack."""
    assert world.ours, "this row breaks its stack, and this one is not ours to break"
    pid = next(each.pid for each in status(world.settings.project) if each.name == part)
    assert pid is not None, f"{part} does not run"
    return pid


def broker_killed(world: World, rng: random.Random, size: Size) -> Outcome:
    """kill -9 of the broker in mid-stream, and a clean restart; the same worker goes on. The readers, too."""
    piece = size.records // size.times
    away: list[float] = []
    hangs: list[str] = []
    with world.case(rng, size.records, fed=False) as case:
        worker = case.start(batch=SMALL, instance="one")
        for at in range(size.times):
            before = case.seen
            case.feed(size.records if at == size.times - 1 else (at + 1) * piece)
            case.await_seen(before + rng.randrange(1, max(2, piece // 2)))
            os.kill(pid_of(world, "kafka"), signal.SIGKILL)
            case.struck()
            time.sleep(rng.uniform(0, DOWN_S_MAX))
            up(world.settings.project)
            away.append(round(time.time() - case.faults[-1], 1))
            seen = case.seen
            try:
                case.await_seen(min(seen + 1, case.fed), RESUMES_S)
            except AssertionError:
                hangs.append(f"the broker is back, and the worker does not go on within {RESUMES_S:.0f} s: "
                             f"{worker.stacks()}")
                worker.kill()
                worker = case.start(batch=SMALL, instance="one")
            case.await_seen(case.fed)
            world.says(f"broker killed and back, {at + 1} of {size.times}")
        assert worker.finish() == 0, worker.tail()
        case.drain(instance="one")
        out = case.finish()
    out.notes["the broker was away for, s"] = away
    out.breaches += hangs
    return out


def disk_full(world: World, rng: random.Random, size: Size) -> Outcome:
    """The broker's disk is full: a file-size limit set on the running broker, whose writes fail as on a full disk."""
    out = Outcome()
    for _ in range(size.times):
        ensure(world.settings, [TopicPlan("ballast", 1)])
        with world.case(rng, size.records) as case:
            worker = case.start(batch=SMALL, instance="one")
            case.await_seen(1)
            psutil.Process(pid_of(world, "kafka")).rlimit(psutil.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))
            _fill(world)
            case.struck()
            until(lambda: obituary(world.settings.project), "the broker to end on its full disk", 90)
            worker.await_("broker trouble")
            out.hold(worker.process.poll() is None, "the worker gave up, instead of waiting")
            up(world.settings.project)  # there is room again
            worker.kill()
            case.drain(instance="one")
            out += case.finish()
    return out


def _fill(world: World) -> None:
    """Write until the broker takes no more."""
    producer = Producer(world.settings.client(message_timeout_ms=8_000), logger=silent("filler"))
    refused: list[object] = []
    block = os.urandom(500_000)
    for _ in range(400):
        producer.produce("ballast", block, on_delivery=lambda error, _: refused.append(error) if error else None)
        producer.poll(0.05)
        if refused:
            return
    producer.flush(10)
    assert refused, "the disk never was full"


def registry_away(world: World, rng: random.Random, size: Size) -> Outcome:
    """The registry stops answering: known ids flow on. A worker that starts meanwhile, and knows none, waits for it."""
    out = Outcome()
    away_s = max(5.0, size.minutes * 60)
    for _ in range(size.times):
        with world.case(rng, size.records, fed=False, poison=0.0) as case:
            worker = case.start(batch=SMALL)
            case.feed(size.records // 4)
            case.await_seen(size.records // 4)
            registry = pid_of(world, "registry")
            half = size.records // 2
            os.kill(registry, signal.SIGSTOP)
            try:
                case.struck()
                begun = time.monotonic()
                case.feed(half)  # with ids that are known
                case.await_seen(half)
                case.feed(size.records * 3 // 4, evolved=True)  # with one that is not
                worker.await_("waiting")
                time.sleep(max(0.0, away_s - (time.monotonic() - begun)))
                out.hold(case.seen < size.records * 3 // 4, "records of a schema that nobody knew went on")
                out.hold(worker.process.poll() is None, f"the worker ended: {worker.tail()}")
            finally:
                os.kill(registry, signal.SIGCONT)
            case.feed(evolved=True)
            case.await_seen(size.records)
            assert worker.finish() == 0, worker.tail()
            case.drain()
            out += case.finish()
    return out
