"""Who is trained next: a bounded queue with priorities, as plain state that only pure functions change.

    waiting ──claim──► claimed ──started──► running ──done──► (remembered by id)
       │                │  ▲ retry: submit could not be known, wait longer each time
       └─ refused when full                 └─ lost: nobody there knows the run: claimed again

A claim is made one transaction before the request leaves, so that a crash in between finds the claim again: the same
request goes out again, never another one beside it. Times are passed in, milliseconds since 1970; jitter comes from the
id, so that the same history gives the same decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pydantic import Field

from headrace.config import Config
from headrace.control import digest

BACKOFF_DOUBLINGS_MAX = 30
"""Beyond any sensible limit; keeps 2**n small."""
JITTER_LEAST = 0.5
"""A wait is this part of the whole back-off at least; the id decides how much more."""


class QueueConfig(Config):
    """How many may wait and run, and how patient we are."""

    waiting_max: int = Field(100, ge=1, le=10_000, description="Requests that may wait; one more is refused: the least "
                             "of all by priority, the latest of those.")
    running_max: int = Field(1, ge=1, le=1_000, description="Runs at a time; one of a model at most.")
    attempts_max: int = Field(8, ge=1, le=1_000, description="How often a request that could not be handed over is "
                              "tried before it fails.")
    backoff_s: float = Field(5, gt=0, description="Seconds to wait after the first attempt; each wait doubles.")
    backoff_s_max: float = Field(600, gt=0, description="Seconds that no wait exceeds, unless the other side asks for "
                                 "more.")
    running_s_max: float = Field(86_400, gt=0, description="Seconds after which a run that tells no end is given up.")
    done_max: int = Field(1_000, ge=1, le=100_000, description="Ids of requests that are over to remember, so that a "
                          "late repeat of one is no second run.")


@dataclass(frozen=True, slots=True)
class Entry:
    """A request in the queue. `due_ms`: no attempt, or poll, before then. `sequence` rises with each arrival."""

    id: str
    model: str
    priority: int
    sequence: int
    asked_ms: int
    phase: Literal["waiting", "claimed", "running"] = "waiting"
    attempts: int = 0
    due_ms: int = 0
    claimed_ms: int | None = None
    run: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """All of it: what waits or runs, by id, and the ids that are over, oldest first."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    done: tuple[str, ...] = ()
    sequence: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"entries": [asdict(entry) for entry in self.entries.values()], "done": list(self.done),
                "sequence": self.sequence}

    @classmethod
    def from_json(cls, written: Mapping[str, Any] | None) -> Queue:
        if not written:
            return cls()
        return cls({each["id"]: Entry(**each) for each in written["entries"]}, tuple(written["done"]),
                   written["sequence"])


@dataclass(frozen=True, slots=True)
class Turned:
    """A request that the queue gave up, and why."""

    entry: Entry
    reason: str


def _order(entry: Entry) -> tuple[int, int]:
    """Higher priority first, then who came first."""
    return -entry.priority, entry.sequence


def _with(queue: Queue, *entries: Entry) -> Queue:
    return replace(queue, entries={**queue.entries, **{each.id: each for each in entries}})


def _without(queue: Queue, entry: Entry, config: QueueConfig) -> Queue:
    left = {key: each for key, each in queue.entries.items() if key != entry.id}
    return replace(queue, entries=left, done=(*queue.done, entry.id)[-config.done_max:])


def enqueue(queue: Queue, config: QueueConfig, *, id: str, model: str, priority: int = 0,
            now_ms: int) -> tuple[Queue, Turned | None]:
    """The queue with one more, unless its id is there already or over (then nothing changes). When too many wait, the
    least of them, perhaps another than the newcomer, is turned away; one that has been claimed never is."""
    if id in queue.entries or id in queue.done:
        return queue, None
    entry = Entry(id, model, priority, queue.sequence, now_ms, due_ms=now_ms)
    queue = replace(_with(queue, entry), sequence=queue.sequence + 1)
    waiting = [each for each in queue.entries.values() if each.phase == "waiting"]
    if len(waiting) <= config.waiting_max:
        return queue, None
    least = max(waiting, key=_order)
    return _without(queue, least, config), Turned(least, (
        f"the queue is full: {config.waiting_max} requests wait, none of a lower priority than this one's "
        f"({least.priority})"))


def claim(queue: Queue, config: QueueConfig, now_ms: int) -> Queue:
    """Those waiting that may go now, as claimed: in order of priority, while there is room, one of a model at a time.
    Submit what is claimed once this has been committed."""
    busy = [each for each in queue.entries.values() if each.phase != "waiting"]
    models = {each.model for each in busy}
    room = config.running_max - len(busy)
    for entry in sorted(queue.entries.values(), key=_order):
        if room <= 0:
            break
        if entry.phase == "waiting" and entry.due_ms <= now_ms and entry.model not in models:
            queue = _with(queue, replace(entry, phase="claimed", due_ms=now_ms, claimed_ms=now_ms))
            models.add(entry.model)
            room -= 1
    return queue


def _due(queue: Queue, phase: str, now_ms: int) -> list[Entry]:
    due = (each for each in queue.entries.values() if each.phase == phase and each.due_ms <= now_ms)
    return sorted(due, key=_order)


def to_submit(queue: Queue, now_ms: int) -> list[Entry]:
    """The claimed ones whose wait is over, the first to go first."""
    return _due(queue, "claimed", now_ms)


def to_poll(queue: Queue, now_ms: int) -> list[Entry]:
    """The running ones to be asked about now."""
    return _due(queue, "running", now_ms)


def started(queue: Queue, id: str, run: str | None, *, poll_ms: int) -> Queue:
    """It was taken: poll it from `poll_ms` on."""
    entry = queue.entries[id]
    return _with(queue, replace(entry, phase="running", run=run or entry.run, due_ms=poll_ms,
                                attempts=max(entry.attempts, 1)))


def polled(queue: Queue, id: str, *, poll_ms: int, run: str | None = None) -> Queue:
    """It runs on, or could not be asked: poll it again from `poll_ms` on."""
    entry = queue.entries[id]
    return _with(queue, replace(entry, due_ms=poll_ms, run=run or entry.run))


def lost(queue: Queue, id: str, config: QueueConfig, now_ms: int) -> tuple[Queue, Turned | None]:
    """Its run is unknown where it was handed to: it is handed over again, as after a failed attempt."""
    queue = _with(queue, replace(queue.entries[id], phase="claimed"))
    return retry(queue, id, config, now_ms, reason="the run is not known any more where it was submitted")


def retry(queue: Queue, id: str, config: QueueConfig, now_ms: int, *, reason: str,
          retry_after_s: float = 0.0) -> tuple[Queue, Turned | None]:
    """An attempt failed (Retriable): the next one after a wait, its slot kept, since the request may have arrived all
    the same. After the last attempt it is given up: cancel its run, in case there is one."""
    entry = queue.entries[id]
    entry = replace(entry, attempts=entry.attempts + 1, reason=reason)
    if entry.attempts >= config.attempts_max:
        return _without(queue, entry, config), Turned(entry, f"given up after {entry.attempts} attempts: {reason}")
    wait_s = max(backoff_s(id, entry.attempts, config), retry_after_s)
    return _with(queue, replace(entry, due_ms=now_ms + int(wait_s * 1000))), None


def backoff_s(id: str, attempts: int, config: QueueConfig) -> float:
    """Seconds to wait after so many attempts (from 1): doubles each time, up to a limit, and spread by the id over the
    upper half, so that many requests do not come back at once."""
    whole: float = min(config.backoff_s * 2 ** min(attempts - 1, BACKOFF_DOUBLINGS_MAX), config.backoff_s_max)
    share = int(digest(id, attempts)[:8], 16) / 0xFFFFFFFF
    return whole * (JITTER_LEAST + (1 - JITTER_LEAST) * share)


def done(queue: Queue, id: str, config: QueueConfig) -> Queue:
    """It is over, well or not: its slot is free, its id remembered."""
    return _without(queue, queue.entries[id], config)


def overdue(queue: Queue, config: QueueConfig, now_ms: int) -> list[Entry]:
    """Runs that tell no end: to be cancelled, failed and `done`."""
    limit_ms = config.running_s_max * 1000
    return [each for each in queue.entries.values()
            if each.phase == "running" and now_ms - (each.claimed_ms or now_ms) > limit_ms]


def counts(queue: Queue) -> dict[str, int]:
    """How many are waiting, claimed, running: for metrics."""
    return {phase: _count(queue.entries.values(), phase) for phase in ("waiting", "claimed", "running")}


def _count(entries: Iterable[Entry], phase: str) -> int:
    return sum(each.phase == phase for each in entries)
