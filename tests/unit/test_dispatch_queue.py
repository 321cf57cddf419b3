"""The dispatcher's queue: whatever happens, in whatever order, it keeps its promises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.loop.dispatch import queue as q

pytestmark = pytest.mark.unit


def config(**given: Any) -> q.QueueConfig:
    return q.QueueConfig.model_validate({"backoff_s": 10, "backoff_s_max": 100, **given})


def filled(*requests: tuple[str, str, int], at: q.QueueConfig | None = None) -> q.Queue:
    queue = q.Queue()
    for now_ms, (id, model, priority) in enumerate(requests):
        queue, _ = q.enqueue(queue, at or config(), id=id, model=model, priority=priority, now_ms=now_ms)
    return queue


def claimed(queue: q.Queue) -> list[str]:
    return [entry.id for entry in q.to_submit(queue, 10**15)]


def test_priority_then_who_came_first() -> None:
    queue = filled(("a", "m", 0), ("b", "n", 5), ("c", "o", 5), ("d", "p", 9))
    assert claimed(q.claim(queue, config(running_max=3), 99)) == ["d", "b", "c"]


def test_one_of_a_model_at_a_time() -> None:
    queue = q.claim(filled(("a", "m", 0), ("b", "m", 9), ("c", "n", 0)), config(running_max=3), 99)
    assert claimed(queue) == ["b", "c"]
    queue = q.started(queue, "b", "run", poll_ms=0)
    assert claimed(q.claim(queue, config(running_max=3), 99)) == ["c"]
    queue = q.done(queue, "b", config())
    assert claimed(q.claim(queue, config(running_max=3), 99)) == ["a", "c"]


def test_no_more_than_there_is_room_for() -> None:
    queue = q.claim(filled(*((str(n), str(n), 0) for n in range(5))), config(running_max=2), 99)
    assert claimed(queue) == ["0", "1"]
    queue = q.started(queue, "0", None, poll_ms=0)
    assert q.counts(q.claim(queue, config(running_max=2), 99)) == {"waiting": 3, "claimed": 1, "running": 1}


def test_a_repeat_changes_nothing() -> None:
    queue = filled(("a", "m", 0))
    assert q.enqueue(queue, config(), id="a", model="m", now_ms=5) == (queue, None)
    over = q.done(q.claim(queue, config(), 9), "a", config())
    assert q.enqueue(over, config(), id="a", model="m", now_ms=5) == (over, None)


def test_full_turns_the_least_away() -> None:
    few = config(waiting_max=2)
    queue = filled(("a", "m", 1), ("b", "n", 0), at=few)
    same, turned = q.enqueue(queue, few, id="c", model="o", priority=0, now_ms=7)
    assert turned
    assert turned.entry.id == "c", "as little, and later"
    assert "the queue is full: 2 requests wait" in turned.reason
    assert set(same.entries) == {"a", "b"}
    again = q.enqueue(same, few, id="c", model="o", priority=9, now_ms=8)
    assert again == (same, None), "what was turned away stays so"
    pushed, turned = q.enqueue(queue, few, id="d", model="o", priority=9, now_ms=7)
    assert turned
    assert turned.entry.id == "b"
    assert set(pushed.entries) == {"a", "d"}


def test_what_is_claimed_is_never_turned_away() -> None:
    few = config(waiting_max=1)
    queue = q.claim(filled(("a", "m", 0), at=few), few, 9)
    for n in range(5):
        queue, _ = q.enqueue(queue, few, id=f"n{n}", model="x", priority=9, now_ms=10 + n)
    assert "a" in queue.entries


def test_attempts_wait_longer_each_time_and_end() -> None:
    patient = config(attempts_max=6)
    queue = q.claim(filled(("a", "m", 0)), patient, 0)
    waits = []
    for attempt in range(1, 6):
        queue, turned = q.retry(queue, "a", patient, 0, reason="down")
        assert turned is None
        due_s = queue.entries["a"].due_ms / 1000
        assert q.to_submit(queue, queue.entries["a"].due_ms - 1) == []
        whole = min(10 * 2 ** (attempt - 1), 100)
        assert whole / 2 - 0.001 <= due_s <= whole
        waits.append(due_s)
    assert waits[:4] == sorted(waits[:4])
    queue, turned = q.retry(queue, "a", patient, 0, reason="down")
    assert turned
    assert turned.reason == "given up after 6 attempts: down"
    assert "a" not in queue.entries


def test_the_wait_asked_for_is_kept() -> None:
    queue = q.claim(filled(("a", "m", 0)), config(), 0)
    queue, _ = q.retry(queue, "a", config(), 1_000, reason="busy", retry_after_s=600)
    assert queue.entries["a"].due_ms == 601_000


def test_jitter_is_the_ids_own() -> None:
    waits = {q.backoff_s(str(n), 1, config()) for n in range(50)}
    assert len(waits) == 50
    assert max(waits) - min(waits) > 3, "spread over most of the upper half of 10 s"
    assert q.backoff_s("7", 1, config()) == q.backoff_s("7", 1, config())


def test_a_lost_run_is_handed_over_again() -> None:
    queue = q.started(q.claim(filled(("a", "m", 0)), config(), 0), "a", "run", poll_ms=0)
    queue, turned = q.lost(queue, "a", config(), 0)
    assert turned is None
    assert claimed(queue) == ["a"]


def test_polls_and_their_end() -> None:
    queue = q.started(q.claim(filled(("a", "m", 0)), config(), 50), "a", "run", poll_ms=100)
    assert q.to_poll(queue, 99) == []
    assert [entry.run for entry in q.to_poll(queue, 100)] == ["run"]
    assert q.to_poll(q.polled(queue, "a", poll_ms=200), 199) == []
    assert q.overdue(queue, config(running_s_max=60), 60_050) == []
    assert [entry.id for entry in q.overdue(queue, config(running_s_max=60), 60_051)] == ["a"]


def test_memory_is_bounded() -> None:
    little = config(done_max=3)
    queue = q.Queue()
    for n in range(10):
        queue, _ = q.enqueue(queue, little, id=str(n), model="m", now_ms=n)
        queue = q.done(queue, str(n), little)
    assert queue.done == ("7", "8", "9")


STEP = st.tuples(st.sampled_from(["enqueue", "claim", "start", "retry", "lost", "done", "repeat"]), st.integers(0, 30))


@given(st.lists(STEP, max_size=80), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=150)
def test_promises_hold_whatever_happens(steps: list[tuple[str, int]], running_max: int, waiting_max: int) -> None:
    limits = config(running_max=running_max, waiting_max=waiting_max, attempts_max=3)
    queue, asked, told = q.Queue(), set(), []
    for now_ms, (what, which) in enumerate(steps):
        queue = q.Queue.from_json(json.loads(json.dumps(queue.to_json())))
        active = sorted(entry.id for entry in queue.entries.values() if entry.phase != "waiting")
        running = sorted(entry.id for entry in queue.entries.values() if entry.phase == "running")
        turned = None
        if what in ("enqueue", "repeat"):
            id = f"r{now_ms if what == 'enqueue' else which}"
            asked.add(id)
            queue, turned = q.enqueue(queue, limits, id=id, model=f"m{which % 3}", priority=which % 5, now_ms=now_ms)
        elif what == "claim":
            queue = q.claim(queue, limits, now_ms)
        elif what == "start" and active:
            queue = q.started(queue, active[which % len(active)], "run", poll_ms=now_ms)
        elif what == "retry" and active:
            queue, turned = q.retry(queue, active[which % len(active)], limits, now_ms, reason="down")
        elif what == "lost" and running:
            queue, turned = q.lost(queue, running[which % len(running)], limits, now_ms)
        elif what == "done" and active:
            told.append(active[which % len(active)])
            queue = q.done(queue, told[-1], limits)
        told += [turned.entry.id] if turned else []
        busy = [entry.model for entry in queue.entries.values() if entry.phase != "waiting"]
        assert len(busy) <= running_max
        assert len(busy) == len(set(busy)), "two runs of a model"
        assert q.counts(queue)["waiting"] <= waiting_max
    assert len(told) == len(set(told)), "a request was told of twice"
    assert asked == set(queue.entries) | set(told), "a request was lost, or made up"
