"""Row 15: clocks that are an hour off. Needs libfaketime, of Debian's package faketime."""

from __future__ import annotations

import random
import shutil

from tests.faults.checker import Outcome
from tests.faults.row import Size
from tests.faults.world import World

HOUR = ("-1h", "+1h")


def clocks(world: World, rng: random.Random, size: Size) -> Outcome:
    """Half of the input by a worker whose clock is an hour off, the other half by one an hour off the other way."""
    assert shutil.which("faketime"), "there is no faketime: apt-get install faketime"
    out = Outcome()
    for _ in range(size.times):
        first, second = rng.sample(HOUR, 2)
        with world.case(rng, size.records, fed=False) as case:
            case.feed(size.records // 2)
            for off in (first, second):  # the state of the one is read by the other
                case.drain(instance="one", prefix=("faketime", "-f", off))
                case.struck()
                case.feed()
            out += case.finish()
    return out
