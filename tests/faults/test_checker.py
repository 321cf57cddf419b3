"""The checker itself: what it must find, it finds, in made-up findings of a reader. No broker."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.faults.checker import AGAIN, COUNTED, HELD, MAIN, Outcome, judge, recoveries
from tests.faults.load import CUT, GOOD, PARTITIONS, Input, key_of
from tests.faults.reader import ROW, UNREADABLE, WRONG, Found

pytestmark = pytest.mark.unit

GIVEN = Input.draw(random.Random(7), 8_000, poison=0.02, repeat=0.1)


def perfect() -> Found:
    """What a reader finds when all went well: output partition = source partition."""
    rows = np.zeros(len(GIVEN), dtype=ROW)
    position = np.arange(len(GIVEN))
    readable = GIVEN.kinds < CUT
    rows["topic"] = np.where(GIVEN.repeated & readable, AGAIN, np.where(GIVEN.kinds == GOOD, MAIN, HELD))
    rows["partition"] = rows["src_partition"] = position % PARTITIONS
    rows["offset"] = rows["src_offset"] = position // PARTITIONS
    rows["n"] = np.where(readable, GIVEN.numbers, UNREADABLE)
    rows["key"] = [zlib.crc32(key_of(n)) for n in GIVEN.numbers.tolist()]
    alerts = [{"id": id, **dict(zip(COUNTED, counts, strict=True))}
              for id, counts in GIVEN.alerts("flow", "flow").items()]
    return Found(rows, alerts, [], [], {})


def judged(change: Callable[[Found], Found], *, both: bool = True) -> Outcome:
    """The verdict on a finding that was changed, for the reader beside the fault and the fresh one, or only for it."""
    return judge("flow", GIVEN, change(perfect()) if both else perfect(), change(perfect()))


def rows(change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Callable[[Found], Found]:
    return lambda found: replace(found, rows=change(found.rows))


def first(found: np.ndarray[Any, Any], topic: int) -> int:
    return int(np.flatnonzero(found["topic"] == topic)[40])


def put(of: int, **values: int) -> Callable[[Found], Found]:
    """One record of a topic has other values."""
    def change(found: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        at = first(found, of)
        for name, value in values.items():
            found[name][at] = value
        return found

    return rows(change)


def swapped(found: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Two records of a key have changed places."""
    a, b, *_ = np.flatnonzero((found["topic"] == MAIN) & (found["key"] == found["key"][first(found, MAIN)])
                              & (found["partition"] == found["partition"][first(found, MAIN)]))
    found["offset"][[a, b]] = found["offset"][[b, a]]
    return found


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    out = judged(lambda found: found)
    assert out.breaches == []
    assert (out.records, out.lost, out.doubled, out.disordered, out.triggers_doubled) == (8_000, 0, 0, 0, 0)
    assert len(perfect().alerts) > 4
    assert 0 < GIVEN.repeated.sum() < 2_000


@pytest.mark.parametrize(("change", "of", "count"), [
    (rows(lambda found: np.delete(found, first(found, MAIN))), "lost", 1),
    (rows(lambda found: np.delete(found, first(found, HELD))), "lost", 1),
    (rows(lambda found: np.append(found, found[[first(found, MAIN)]])), "doubled", 1),
    (rows(lambda found: np.append(found, found[[first(found, HELD)] * 2])), "doubled", 2),
    (rows(swapped), "disordered", 1),
    (lambda found: replace(found, alerts=[*found.alerts, found.alerts[0]]), "triggers_doubled", 1),
], ids=["lost", "lost in quarantine", "doubled", "doubled in quarantine", "out of order", "trigger"])
def test_what_is_counted(change: Callable[[Found], Found], of: str, count: int) -> None:
    out = judged(change)
    assert getattr(out, of) == count
    assert out.breaches


@pytest.mark.parametrize(("change", "said"), [
    (put(MAIN, n=5), "payloads are not those of their origin"),
    (put(MAIN, n=WRONG), "payloads are not those of their origin"),
    (put(MAIN, n=UNREADABLE), "payloads are not those of their origin"),
    (put(MAIN, topic=HELD), "do not belong"),
    (put(MAIN, topic=AGAIN), "do not belong"),
    (put(HELD, topic=MAIN), "do not belong"),
    (put(AGAIN, topic=MAIN), "in the main topic twice"),
    (put(MAIN, key=1), "keys have changed"),
    (put(MAIN, src_offset=-3), "no origin"),
    (put(MAIN, src_offset=1 << 40), "no origin"),
    (lambda found: replace(found, alerts=found.alerts[1:]), "1 causes without a trigger"),
    (lambda found: replace(found, alerts=[{**found.alerts[0], "id": "x"}, *found.alerts]),
     "1 triggers without a cause"),
    (lambda found: replace(found, alerts=[{**found.alerts[0], "rows": 1}, *found.alerts[1:]]), "wrong counts"),
    (lambda found: replace(found, alerts=[{**found.alerts[0], "offset_last": 1}, *found.alerts[1:]]), "offsets"),
    (lambda found: replace(found, leaks=["checked"]), "the planted secret"),
])
def test_what_is_said(change: Callable[[Found], Found], said: str) -> None:
    assert any(said in breach for breach in judged(change).breaches)


@pytest.mark.parametrize("change", [put(MAIN, digest=1), rows(lambda found: found[:-1])], ids=["other", "fewer"])
def test_the_two_readers_must_agree(change: Callable[[Found], Found]) -> None:
    assert any("a fresh one" in breach for breach in judged(change, both=False).breaches)


def test_recovery_is_from_the_fault_to_the_next_commit() -> None:
    found = replace(perfect(), arrivals=[(10.0, 5), (11.5, 9), (15.0, 12)])
    assert recoveries(found, [11.0, 13.0, 20.0]) == [4.0, 2.0], "what came 0.5 s after the fault was under way"
