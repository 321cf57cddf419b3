"""Rows 1, 10, 11, 16: no fault, poison, oversized records, repeated input."""

from __future__ import annotations

import random
import signal
import time

import numpy as np
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.faults.checker import Outcome
from tests.faults.load import LARGE, PARTITIONS, POISON
from tests.faults.reader import Found
from tests.faults.row import Size
from tests.faults.staged import STAGES
from tests.faults.world import Case, World

LOW_BYTES, HIGH_BYTES = 100, 1 << 20


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
    told = {kind: _reasons(found, np.flatnonzero(kinds == kind).tolist()) for kind in POISON}
    for kind, reasons in told.items():
        out.hold(bool(reasons) and "" not in reasons, f"poison of kind {kind} without a reason")
    out.notes["reasons"] = {kind: min(reasons)[:80] for kind, reasons in told.items() if reasons}
    return out


def _reasons(found: Found | None, positions: list[int]) -> set[str]:
    """Why the records at these positions of the input were held back; "" for one that was not."""
    assert found is not None
    return {found.reasons.get((at % PARTITIONS, at // PARTITIONS), "") for at in positions}


def oversized(world: World, rng: random.Random, size: Size) -> Outcome:
    """One record in a thousand is larger than the main topic takes: those alone are held back, as they came."""
    with world.case(rng, size.records, large=0.001, poison=0.0) as case:
        case.drain(within_s=600)
        out = case.finish()
        large, found = case.given.kinds == LARGE, case.found
    out.runs = int(large.sum())
    told = _reasons(found, np.flatnonzero(large).tolist())
    out.hold(bool(told) and all("oversized" in why for why in told), f"reasons for the oversized: {told}")
    out += limit_lowered(world, rng, size)
    return out


def limit_lowered(world: World, rng: random.Random, size: Size, off: str | None = None) -> Outcome:
    """For a while the broker refuses what it took before: the main topic's limit is lowered under a running worker."""
    with world.case(rng, size.records, poison=0.0) as case:
        worker = case.start(batch=max(10, size.records // 100), fault={"off": off} if off else None)
        case.await_seen(1)
        _limit(case, LOW_BYTES)
        case.struck()
        time.sleep(rng.uniform(1, 3))
        _limit(case, HIGH_BYTES)
        if not off:
            case.await_seen(size.records)
        assert worker.finish() == 0, worker.tail()
        case.drain()
        return case.finish()


def _limit(case: Case, limit: int) -> None:
    """The largest batch that the main topic takes, in bytes."""
    entry = ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, case.topics[0], incremental_configs=[entry])
    admin = AdminClient(case.world.settings.client())  # kept until it is answered
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(60)


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
