"""Which rows of two sides belong together: equal keys, and times that lie close enough. Numbers in, numbers out."""

from __future__ import annotations

import numpy as np

from headrace.eventtime import Bools, Ints


def within(left_key: Ints, left_ms: Ints, right_key: Ints, right_ms: Ints, before: int,
           after: int) -> tuple[Ints, Ints]:
    """Every pair (i, j) of rows with one key and -before <= right_ms[j] - left_ms[i] <= after, by i, then by j.

    Takes time for sorting and for the pairs found, not for those that a key has outside the time.
    """
    if not len(left_key) or not len(right_key):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    low, high = left_ms - before, left_ms + after
    moments, rank = np.unique(np.concatenate([right_ms, low, high]), return_inverse=True)
    n, wide = len(right_ms), len(moments)
    place = right_key * wide + rank[:n]  # one number for key and time, small enough for any times
    order = np.argsort(place, kind="stable")
    first = np.searchsorted(place[order], left_key * wide + rank[n:n + len(low)], "left")
    end = np.searchsorted(place[order], left_key * wide + rank[n + len(low):], "right")
    i, at = spread(first, end - first)
    j = order[at]
    by_arrival = np.lexsort((j, i))
    return i[by_arrival], j[by_arrival]


def spread(first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """(k, position) for each of the positions first[k], first[k] + 1, … of which there are count[k]."""
    k = np.repeat(np.arange(len(count)), count)
    begun = np.repeat(np.cumsum(count) - count, count)
    return k, first[k] + np.arange(len(k)) - begun


def one_to_one(i: Ints, j: Ints) -> Bools:
    """Of pairs ordered by i, then j, those to keep so that no row is in two: each row takes the first that is free.

    That is the matching in which no two rows would both rather have each other (both sides rank by arrival). There is
    one such matching, and matching rows as they arrive gives it however the sides interleave.
    """
    keep: Bools = ~(_repeated(i) | _repeated(j))  # the usual case: each has but the other
    taken: tuple[set[int], set[int]] = set(), set()
    doubtful = np.flatnonzero(~keep)
    for at, a, b in zip(doubtful.tolist(), i[doubtful].tolist(), j[doubtful].tolist(), strict=True):
        if a not in taken[0] and b not in taken[1]:
            taken[0].add(a)
            taken[1].add(b)
            keep[at] = True
    return keep


def _repeated(values: Ints) -> Bools:
    """Which values are there more than once."""
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    out: Bools = count[inverse] > 1
    return out


def lateness(times_ms: Ints, latest_ms: int, late_ms: int) -> tuple[Bools, int]:
    """(which rows come behind the latest time by more than `late_ms`, the latest time after them). A row is measured
    against those before it alone, so that it does not matter where a batch ends."""
    latest = np.maximum.accumulate(np.concatenate([[latest_ms], times_ms]))
    return times_ms < latest[:-1] - late_ms, int(latest[-1])
