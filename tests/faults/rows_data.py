"""Rows 1, 10, 16: no fault, poison, repeated input."""

from __future__ import annotations

import random
import signal

import numpy as np

from tests.faults.checker import Outcome
from tests.faults.load import PARTITIONS, POISON
from tests.faults.row import Size
from tests.faults.staged import STAGES
from tests.faults.world import World


def reference(world: World, rng: random.Random, size: Size) -> Outcome:
    """No fault."""
    with world.case(rng, size.records) as case:
        case.drain(batch=40_000, within_s=900)
        told = case.workers[-1].told("stopped")[-1]
        out = case.finish()
    out.runs = 1
    out.notes["records a second, with dedupe and trigger, beside the reader"] = told["records_per_s"]
    return out


def poison(world: World, rng: random.Random, size: Size) -> Outcome:
    """One record in twenty cannot be read, in six ways. All are held back, each with a reason and its position."""
    with world.case(rng, size.records, poison=0.05) as case:
        case.drain(within_s=600)
        out = case.finish()
        kinds, found = case.given.kinds, case.found
    out.runs = int(np.isin(kinds, POISON).sum())
    told: dict[int, set[str]] = {kind: set() for kind in POISON}
    for kind in POISON:
        for at in np.flatnonzero(kinds == kind).tolist():
            told[kind].add(found.reasons.get((at % PARTITIONS, at // PARTITIONS), "") if found else "")
    for kind, reasons in told.items():
        out.hold(bool(reasons) and "" not in reasons, f"poison of kind {kind} without a reason")
    out.notes["reasons"] = {kind: min(reasons)[:80] for kind, reasons in told.items() if reasons}
    return out


def repeated(world: World, rng: random.Random, size: Size, off: str | None = None) -> Outcome:
    """A tenth of the input is there twice, and workers are killed meanwhile: each number passes once."""
    stages = [rng.choice(STAGES) for _ in range(size.times)]
    with world.case(rng, size.records, repeat=0.1) as case:
        batch = max(10, size.records // (len(stages) * 8))
        for stage in stages:
            worker = case.start(batch=batch, instance="one", fault={
                "stage": stage, "at": rng.randint(3, 6), "act": "kill", "seed": rng.randrange(1 << 30),
                **({"off": off} if off else {})})
            code = worker.await_end()
            case.struck()
            assert code == -signal.SIGKILL, worker.tail()
        case.drain(instance="one", fault={"off": off} if off else None, within_s=600)
        out = case.finish()
        out.notes["repetitions"] = int(case.given.repeated.sum())
        return out
