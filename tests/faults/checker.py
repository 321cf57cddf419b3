"""The invariants I1 – I6 of exactly once, held against what independent readers found.

I1 each input exactly once in main ∪ quarantine, by the lineage header and by the number in the payload · I2 order per
key · I3 one trigger for each cause · I4 the planted secret nowhere · I5 no hanging transaction · I6 the reader beside
the fault and a fresh one saw the same.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.faults.load import CUT, GOOD, KEYS, PARTITIONS, Input, key_of
from tests.faults.reader import Found

MAIN, HELD, ALERTS, AGAIN = range(4)
"""The topics of a flow as its reader numbers them."""
COUNTED = "rows", "matched", "offset_first", "offset_last"
GRACE_S = 30.0
"""Transactions of who was killed time out after 15 s."""
SETTLE_S = 1.0
"""What was committed just before a fault reaches the reader within this; a worker takes longer to start."""


@dataclass(slots=True)
class Outcome:
    """What a row did and found. `runs` counts faults; `breaches` says in words what must not be: empty is green."""

    runs: int = 0
    records: int = 0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    triggers_doubled: int = 0
    recoveries_s: list[float] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def __iadd__(self, other: Outcome) -> Outcome:
        for name in ("runs", "records", "lost", "doubled", "disordered", "triggers_doubled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.recoveries_s += other.recoveries_s
        self.breaches += other.breaches
        self.notes |= other.notes
        return self

    def hold(self, true: bool, otherwise: str) -> None:
        """A breach, unless."""
        if not true:
            self.breaches.append(otherwise)


def judge(flow: str, given: Input, live: Found, fresh: Found) -> Outcome:
    """I1 – I3, I6 and the topics' part of I4, of a flow's topics main, quarantine, alerts and again, in this order."""
    out = Outcome(records=len(given))
    _each_once(out, given, fresh.rows)
    _in_order(out, fresh.rows[fresh.rows["topic"] == MAIN])
    _one_trigger(out, flow, given, fresh)
    out.hold(not live.leaks and not fresh.leaks, f"the planted secret stands in {live.leaks or fresh.leaks}")
    for each in (live, fresh):
        each.rows.sort(order=["topic", "partition", "offset"])
    out.hold(np.array_equal(live.rows, fresh.rows),
             f"the reader beside the fault saw {len(live.rows):,} records, a fresh one {len(fresh.rows):,}, or others")
    return out


def _each_once(out: Outcome, given: Input, rows: np.ndarray[Any, Any]) -> None:
    rows = rows[rows["topic"] != ALERTS]  # those are made of many
    origins = rows["src_offset"] * PARTITIONS + rows["src_partition"]
    known = (rows["src_offset"] >= 0) & (origins < len(given))
    out.hold(bool(known.all()), f"{(~known).sum()} records say no origin, or one that is none")
    rows, origins = rows[known], origins[known]
    times = np.bincount(origins, minlength=len(given))
    absent = np.flatnonzero(times == 0)
    out.lost, out.doubled = len(absent), int(np.maximum(times - 1, 0).sum())
    out.hold(not out.lost, f"{out.lost:,} lost, by position: {absent[:5].tolist()} … {absent[-3:].tolist()}")
    out.hold(not out.doubled, f"{out.doubled:,} doubled, by position: {np.flatnonzero(times > 1)[:8].tolist()} …")

    meant, kinds = given.numbers[origins], given.kinds[origins]
    readable = kinds < CUT
    mistaken = (rows["n"] != meant) & (readable | (rows["n"] >= 0))  # what is too deep for us may be read by others
    if mistaken.any():
        bad = rows[mistaken][0]
        out.breaches.append(f"{mistaken.sum()} payloads are not those of their origin, e.g. number {bad['n']} from "
                            f"{bad['src_partition']}@{bad['src_offset']}")
    home = np.where(kinds == GOOD, MAIN, HELD)
    home[given.repeated[origins] & readable] = AGAIN
    out.hold(bool((rows["topic"] == home).all()), f"{(rows['topic'] != home).sum()} records are in a topic where they "
             "do not belong")
    keys = np.array([zlib.crc32(key_of(n)) for n in range(KEYS)], dtype="u4")
    out.hold(bool((keys[meant % KEYS] == rows["key"]).all()), "keys have changed")
    main = rows[(rows["topic"] == MAIN) & (rows["n"] >= 0)]
    twice = len(main) - len(np.unique(main["n"]))
    out.hold(not twice, f"{twice} numbers are in the main topic twice")


def _in_order(out: Outcome, rows: np.ndarray[Any, Any]) -> None:
    """What one source partition gave for a key stands in its order, in each partition of the output."""
    rows = rows[np.lexsort((rows["offset"], rows["src_partition"], rows["key"], rows["partition"]))]
    same = np.ones(max(len(rows) - 1, 0), dtype=bool)
    for name in ("partition", "key", "src_partition"):
        same &= rows[name][1:] == rows[name][:-1]
    out.disordered = int((same & (np.diff(rows["src_offset"]) < 0)).sum())
    out.hold(not out.disordered, f"{out.disordered} out of order")


def _one_trigger(out: Outcome, flow: str, given: Input, found: Found) -> None:
    causes = given.alerts(flow, flow)
    told = Counter(each["id"] for each in found.alerts)
    out.triggers_doubled = sum(told.values()) - len(told)
    out.hold(not out.triggers_doubled, f"{out.triggers_doubled} triggers doubled")
    out.hold(set(told) == set(causes), f"{len(set(causes) - set(told))} causes without a trigger, "
             f"{len(set(told) - set(causes))} triggers without a cause")
    wrong = [each["id"] for each in found.alerts
             if each["id"] in causes and tuple(each[name] for name in COUNTED) != causes[each["id"]]]
    out.hold(not wrong, f"{len(wrong)} triggers with wrong counts or offsets")


def hanging(client: dict[str, Any], topics: Iterable[str], grace_s: float = GRACE_S) -> list[str]:
    """I5: partitions whose last stable offset is not their end once the grace is over."""
    admin = AdminClient(client)
    known = admin.list_topics(timeout=30).topics
    every = [TopicPartition(t, p) for t in topics for p in known[t].partitions]
    end = time.monotonic() + grace_s
    while True:
        stable, last = ({at: done.result(60).offset for at, done in admin.list_offsets(
            dict.fromkeys(every, OffsetSpec.latest()), isolation_level=level, request_timeout=30).items()}
            for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED))
        open_ = [f"{at.topic}/{at.partition}: {stable[at]} of {last[at]}" for at in every if stable[at] < last[at]]
        if not open_ or time.monotonic() > end:
            return open_
        time.sleep(0.5)


def leaked(folder: Path, secret: bytes) -> list[str]:
    """I4: files below a folder in which the secret stands."""
    return [str(file) for file in sorted(folder.rglob("*"))
            if file.is_file() and secret in file.read_bytes()]


def recoveries(found: Found, faults: Iterable[float]) -> list[float]:
    """Seconds from each fault to the first record that was committed after it; faults after the last give none."""
    times = np.array([at for at, _ in found.arrivals])
    out = []
    for fault in faults:
        later = times[times > fault + SETTLE_S]
        if len(later):
            out.append(round(float(later[0] - fault), 2))
    return out
