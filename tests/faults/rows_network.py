"""Row 8: the way to the broker is cut, slow, narrow, or breaks off again and again."""

from __future__ import annotations

import random
import time
from typing import Any

from tests.faults.checker import Outcome
from tests.faults.row import Size
from tests.faults.rows_broker import SMALL
from tests.faults.world import World

CUTS_S = (5.0, 30.0, 90.0)
LATENCY_S, BYTES_PER_S, RESET_BYTES = 0.1, 64_000, 30_000
LAST_S = 8.0
"""How long a bad line lasts."""
RSS_MB_MAX = 700
PATIENCE_S = 300.0


def network(world: World, rng: random.Random, size: Size) -> Outcome:
    """Each kind of harm while a worker is in mid-stream, behind a proxy that only it goes through."""
    from headrace.testing.proxy import Link, Proxy

    links: dict[str, Any] = {"+200 ms": Link(to_broker_s=LATENCY_S, to_client_s=LATENCY_S),
                             "64 kB/s": Link(bytes_per_s=BYTES_PER_S), "resets": Link(reset_after_bytes=RESET_BYTES)}
    cuts = {f"cut {seconds:.0f} s": seconds for seconds in CUTS_S if seconds <= size.minutes * 60}
    kinds = [*cuts, *links] * size.times
    rng.shuffle(kinds)
    rss_mb: list[float] = []
    with (Proxy(str(world.settings.bootstrap)) as proxy,
          world.case(rng, size.records, fed=False, kafka={"bootstrap.servers": proxy.bootstrap}) as case):
        worker = case.start(batch=SMALL, instance="one")
        for at, kind in enumerate(kinds):
            before = case.seen
            case.feed(size.records * (at + 1) // len(kinds))
            case.await_seen(before + rng.randrange(1, 200), PATIENCE_S)
            case.struck()
            if kind in cuts:
                proxy.cut()
                time.sleep(cuts[kind])
                proxy.heal()
            else:
                proxy.link = links[kind]
                time.sleep(LAST_S)
                proxy.link = Link()
            rss_mb.append(worker.rss_mb)
            case.await_seen(case.fed, PATIENCE_S)
            world.says(f"{kind}: over, {case.seen:,} records, {rss_mb[-1]:.0f} MB")
        assert worker.finish() == 0, worker.tail()
        case.drain(instance="one")
        out = case.finish()
    out.notes["RSS at most, MB"] = round(max(rss_mb))
    out.hold(max(rss_mb) <= RSS_MB_MAX, f"{max(rss_mb):.0f} MB")
    return out
