"""Connectors run in this process, from files: each task in a thread of its own, until all have ended or one fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from headrace.connect import offsets
from headrace.connect.spec import Spec
from headrace.connect.tasks import Done, Task, task
from headrace.errors import UserError
from headrace.settings import Settings

TURN_S = 0.2


def run(specs: Sequence[Spec], settings: Settings, stop: threading.Event, *, drain: bool = False,
        reset: bool = False) -> list[Done]:
    """Run all until each has ended, or `stop`; with `drain` they end where what they read ends now.

    The first that fails stops the others, after their batch in hand, and what it failed by is raised: UserError (a bad
    record with errors.tolerance=none, a missing file), BrokerError, RegistryError, Fenced (another process runs this
    connector). What a connector's tasks have done is told together.
    """
    names = [spec.name for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two files name their connector “{twice[0]}”; they would share one position")
    if reset:
        for spec in specs:
            offsets.reset(spec, settings)
    failed = threading.Event()

    def report(state: str, trace: str | None) -> None:
        if state == "FAILED":
            failed.set()

    tasks = [[task(spec, number, settings, report, drain=drain) for number in range(spec.tasks)] for spec in specs]
    everyone = [one for some in tasks for one in some]
    for one in everyone:
        one.start()
    _until_over(everyone, stop, failed)
    faults = [one.error for one in everyone if one.error is not None]
    if faults:
        raise faults[0]
    return [_together([one.done for one in some]) for some in tasks]


def _until_over(tasks: Sequence[Task], stop: threading.Event, failed: threading.Event) -> None:
    """In turns, so that signals are heard."""
    asked = False
    waiting = list(tasks)
    while waiting:
        if not asked and (stop.is_set() or failed.is_set()):
            asked = True
            for one in tasks:
                one.stop()
        waiting = [one for one in waiting if not one.join(TURN_S)]


def _together(done: Sequence[Done]) -> Done:
    first = done[0]
    for other in done[1:]:
        first.records += other.records
        first.rejected += other.rejected
        first.seconds = max(first.seconds, other.seconds)
        first.topics |= other.topics
    return first


def summary(done: Sequence[Done]) -> list[dict[str, Any]]:
    """For --json."""
    return [{key: value for key, value in asdict(one).items() if key != "topics"} for one in done]
