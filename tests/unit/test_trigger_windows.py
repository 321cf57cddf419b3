"""The window logic against a reference that takes one row at a time, and against itself in any other batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.windows import OPEN_MAX, Axis, Fired, Memory, Rule, Window, advance

pytestmark = pytest.mark.unit
Row = tuple[int, int, bool]  # position, offset, matched
Event = tuple[int, int, int, int, float, int, int, int]


def run(axis: Axis, rule: Rule, rows: list[Row], cuts: list[int]) -> tuple[list[Event], int, Memory | None]:
    """The rows in batches that end at `cuts`: the events (closing row counted over all rows), the late, the memory."""
    memory: Memory | None = None
    events, late = [], 0
    edges = sorted({0, len(rows), *(c for c in cuts if c < len(rows))})
    for start, end in pairwise(edges):
        part = rows[start:end]
        memory, fired, n = advance(axis, rule, memory, np.array([r[0] for r in part]),
                                   np.array([r[2] for r in part], dtype=bool), np.array([r[1] for r in part]))
        late += n
        events += [told(f, start) for f in fired]
        assert len(memory.open) <= OPEN_MAX
    return events, late, memory


def told(fired: Fired, start: int) -> Event:
    w = fired.window
    return (w.k, w.k_first, w.rows, w.matched, fired.observed, w.offset_first, w.offset_last, fired.closed_by + start)


def reference(axis: Axis, rule: Rule, rows: list[Row]) -> tuple[list[Event], int]:
    """The same from the words of docs/triggers.md: a row at a time, a window at a time, empty ones too."""
    windows: dict[int, list[Row]] = {}
    held: list[Row] = []
    held_from: int | None = None
    events: list[Event] = []
    late, highest, hot = 0, rows[0][0], False
    next_k = axis.open_from(highest)
    last_fired: int | None = None
    silent_to = (highest - axis.shift) // axis.size if rule.below else next_k - 1
    for at, row in enumerate(rows):
        highest = max(highest, row[0])
        while axis.end(next_k) <= highest - axis.late:
            mine, k = windows.pop(next_k, []), next_k
            next_k += 1
            if rule.carry:
                if mine and held_from is None:
                    held_from = k
                held += mine
            counted = held if rule.carry else mine
            hits = sum(r[2] for r in counted)
            if rule.measure == "share":
                if len(mine) < max(rule.rows_min, 1):
                    continue
                observed = hits / len(mine)
            else:
                observed = float(hits if rule.measure == "count" else len(counted))
            beyond = observed < rule.threshold if rule.below else observed >= rule.threshold
            if not beyond:
                hot = False
                continue
            if k <= silent_to or (last_fired is not None and k <= last_fired + rule.cool_down):
                continue
            if hot and not (rule.repeat and mine):
                continue
            last_fired, hot = k, not rule.carry
            offsets = [r[1] for r in counted] or [row[1]]
            k_first = held_from if rule.carry and held_from is not None else k
            events.append((k, k_first, len(counted), hits, observed, min(offsets), max(offsets), at))
            held, held_from = [], None
        k = (row[0] - axis.shift) // axis.size
        if k < next_k:
            late += 1
        else:
            windows.setdefault(k, []).append(row)
    return events, late


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Axis, Rule, list[Row]]:
    size = draw(st.integers(1, 12))
    axis = Axis(size, late=draw(st.integers(0, (OPEN_MAX - 1) * size)), shift=draw(st.integers(-20, 20)))
    measure = draw(st.sampled_from(["share", "count", "volume"]))
    carry = measure != "share" and draw(st.booleans())
    rule = Rule(measure, draw(st.sampled_from([0.2, 0.5, 1.0]) if measure == "share" else st.integers(1, 5)),
                below=not carry and draw(st.booleans()), rows_min=draw(st.integers(0, 4)),
                cool_down=draw(st.integers(0, 4)), repeat=draw(st.booleans()), carry=carry)
    steps = draw(st.lists(st.tuples(st.integers(-8, 14), st.integers(1, 4), st.booleans()), min_size=1, max_size=60))
    at, offset, rows = draw(st.integers(-50, 50)), draw(st.integers(0, 100)), []
    for step, skipped, matched in steps:
        at, offset = at + step, offset + skipped
        rows.append((at, offset, matched))
    return axis, rule, rows


@settings(max_examples=600, deadline=None)
@given(worlds(), st.lists(st.integers(1, 59), max_size=6))
def test_any_batches_give_what_the_reference_gives_row_by_row(world: tuple[Axis, Rule, list[Row]],
                                                              cuts: list[int]) -> None:
    axis, rule, rows = world
    expected, late = reference(axis, rule, rows)
    events, n, memory = run(axis, rule, rows, cuts)
    assert events == expected
    assert n == late
    assert memory == run(axis, rule, rows, list(range(len(rows))))[2], "what is kept depends on where batches end"


def days(*shares: float, rows: int = 100) -> list[Row]:
    """A day of 10 units for each share, `rows` rows each, then one row that closes the last."""
    out = [(10 * day, day * rows + i, i < share * rows) for day, share in enumerate(shares) for i in range(rows)]
    return [*out, (10 * len(shares), len(out), False)]


@pytest.mark.parametrize(("rule", "shares", "fired"), [
    (Rule("share", 0.35), (0.1, 0.5, 0.1), [1]),
    (Rule("share", 0.35), (0.1, 0.5, 0.6, 0.7, 0.1, 0.5), [1, 5]),
    (Rule("share", 0.35, cool_down=7), (0.1, 0.5, 0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1, 0.5), [1, 9]),
    (Rule("share", 0.35, cool_down=2), (0.5, 0.1, 0.5, 0.5, 0.5), [0, 3]),
    (Rule("share", 0.35, repeat=True), (0.5, 0.5, 0.5), [0, 1, 2]),
    (Rule("share", 0.35, repeat=True, cool_down=1), (0.5, 0.5, 0.5), [0, 2]),
    (Rule("share", 0.35, rows_min=101), (0.5, 0.5), []),
    (Rule("share", 0.35), (0.35,), [0]),
    (Rule("count", 120, carry=True, repeat=True), (0.5, 0.5, 0.5, 0.5, 0.5, 0.9), [2, 5]),
    (Rule("count", 40, carry=True), (0.5, 0.5, 0.1, 0.5), [0, 1, 3]),
    (Rule("volume", 101, below=True), (0.5, 0.5, 0.5), [1]),
])
def test_debounce(rule: Rule, shares: tuple[float, ...], fired: list[int]) -> None:
    assert [e[0] for e in run(Axis(10), rule, days(*shares), [])[0]] == fired


def test_a_carried_count_spans_every_window_since_the_last_event() -> None:
    events = run(Axis(10), Rule("count", 120, carry=True, repeat=True), days(0.5, 0.5, 0.5), [])[0]
    assert events == [(2, 0, 300, 150, 150.0, 0, 299, 300)]


def test_a_gap_of_any_length_raises_once_and_costs_nothing() -> None:
    rows: list[Row] = [(5, 0, False), (15, 1, False), (10**12, 2, False), (10**12 + 20, 3, False)]
    events = run(Axis(10), Rule("volume", 1, below=True), rows, [])[0]
    assert [(e[0], e[2], e[5], e[6]) for e in events] == [(2, 0, 2, 2), (10**11 + 1, 0, 3, 3)]


def test_a_late_row_counts_within_the_allowed_lateness_only() -> None:
    rows: list[Row] = [(5, 0, True), (12, 1, False), (9, 2, True), (15, 3, False), (8, 4, True)]
    events, late, _ = run(Axis(10, late=4), Rule("count", 1), rows, [])
    assert [(e[0], e[2], e[7]) for e in events] == [(0, 2, 3)]
    assert late == 1


def test_the_last_window_waits_for_a_row_beyond_it() -> None:
    events, _, memory = run(Axis(10), Rule("count", 1), [(5, 0, True), (9, 1, True)], [])
    assert events == []
    assert memory is not None
    assert memory.open == (Window(0, 2, 2, 0, 1, 0),)
