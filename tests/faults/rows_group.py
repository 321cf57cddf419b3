"""Rows 9 and 17: workers come and go all the time; a backlog."""

from __future__ import annotations

import random
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from itertools import pairwise

from headrace.stack.tools import kafka_tool
from tests.faults.checker import Outcome
from tests.faults.row import Size
from tests.faults.workers import Worker
from tests.faults.world import Case, World
from tests.ports import free_port

POOL, EVERY_S = 3, 3.0
PROGRESS_S = 60.0
RSS_MB_MAX = 700
LAG_SHARE_MAX = 0.01


def storm(world: World, rng: random.Random, size: Size) -> Outcome:
    """Every three seconds a worker is started, ended or killed, while records come in; there is progress all along."""
    with world.case(rng, size.records, fed=False) as case:
        begun, seconds = time.monotonic(), size.minutes * 60
        living: dict[str, Worker] = {}
        rounds = max(1, int(seconds / EVERY_S))
        for at in range(rounds):
            case.feed(min(size.records, size.records * (at + 1) // rounds // 4 * 4))
            _come_or_go(case, rng, living)
            world.says(f"round {at + 1} of {rounds}: {sorted(living)}, {case.seen:,} of {case.fed:,}")
            time.sleep(max(0.0, begun + (at + 1) * EVERY_S - time.monotonic()))
        end = time.time()
        for worker in living.values():
            if worker.process.poll() is None:
                worker.finish()
        case.feed()
        case.drain()
        start = time.time() - (time.monotonic() - begun)
        out = case.finish()
        times = [start, *(at for at, _ in (case.found.arrivals if case.found else []) if at < end), end]
    longest = max(b - a for a, b in pairwise(times))
    out.runs, out.recoveries_s = rounds, []
    out.notes["longest without progress, s"] = round(longest, 1)
    out.hold(longest < PROGRESS_S, f"no progress for {longest:.0f} s")
    return out


def _come_or_go(case: Case, rng: random.Random, living: dict[str, Worker]) -> None:
    name = f"w{rng.randrange(POOL)}"
    worker = living.pop(name, None)
    if worker is None:
        living[name] = case.start(instance=name)
    elif rng.random() < 0.5:
        worker.kill()
        case.struck()
    else:
        worker.process.terminate()
        case.struck()
        worker.await_end(60)


def backlog(world: World, rng: random.Random, size: Size) -> Outcome:
    """A backlog is worked off: how much memory that takes, and whether our lag is Kafka's."""
    with world.case(rng, size.records, keyed=False) as case:
        port = free_port()
        worker = case.start("--http", str(port), "--drain", batch=40_000)
        rss: list[float] = []
        watch = threading.Thread(target=lambda: rss.extend(_sampled(worker)), daemon=True)
        watch.start()
        out = Outcome()
        out.notes["lag: ours, Kafka's"] = compared = list(_lags(case, worker, port))
        assert worker.await_end(900) == 0, worker.tail()
        watch.join()
        told = worker.told("stopped")[-1]
        out += case.finish()
    for before, theirs, after in compared:
        slack = LAG_SHARE_MAX * size.records
        out.hold(after - slack <= theirs <= before + slack, f"lag: Kafka {theirs:,}, we {before:,} … {after:,}")
    out.hold(bool(compared), "the lag was never compared: the backlog was gone before")
    out.hold(max(rss) <= RSS_MB_MAX, f"{max(rss):.0f} MB")
    out.runs = 1
    out.notes |= {"RSS at most, MB": round(max(rss)), "records a second": told["records_per_s"]}
    return out


def _sampled(worker: Worker) -> Iterator[float]:
    """The worker's memory, ten times a second, in MB."""
    while worker.process.poll() is None:
        yield worker.rss_mb
        time.sleep(0.1)


def _lags(case: Case, worker: Worker, port: int) -> Iterator[tuple[int, int, int]]:
    """(ours before, Kafka's own, ours after) again and again: what Kafka's tool says is of some time in between."""
    group = f"headrace.{case.name}"
    while worker.process.poll() is None:
        before = _gauge(port)
        if before is None:
            time.sleep(0.2)
            continue
        text = kafka_tool("kafka-consumer-groups", ["--describe", "--group", group], settings=case.world.settings)
        time.sleep(1.2)  # the gauge is set once a second
        after = _gauge(port)
        lags = [int(line.split()[5]) for line in text.splitlines()
                if line.startswith(group) and line.split()[5].isdigit()]
        if after is not None and len(lags) == 4:
            yield before, sum(lags), after


def _gauge(port: int) -> int | None:
    """Our lag over all partitions, by /metrics; None while it cannot be told."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            found = re.findall(r"^headrace_lag_records\{[^}]*\} ([\d.e+]+)$", answer.read().decode(), re.M)
    except OSError:
        return None
    return int(sum(map(float, found))) if len(found) == 4 else None
