"""Lag as arithmetic: offsets, ages, trends."""

from __future__ import annotations

import pytest

from headrace.lag import GroupLag, PartitionLag, as_json, trend
from headrace.lag.compute import age_s

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("start", "end", "committed", "lag"), [
    (0, 100, 40, 60),
    (0, 100, 100, 0),
    (70, 100, 40, 30),        # retention deleted 30 records nobody had read: they are no lag
    (100, 100, 40, 0),        # … and everything
    (0, 100, 103, 0),         # a read_uncommitted group may stand beyond the last stable offset
    (0, 100, None, None),     # nothing committed: not known, which is not 0
    (None, None, 40, None),   # no leader
])
def test_lag_in_records(start: int | None, end: int | None, committed: int | None, lag: int | None) -> None:
    assert PartitionLag(start, end, committed).lag == lag


def test_age_is_the_records_own() -> None:
    assert age_s(10_000, 7_500) == 2.5
    assert age_s(10_000, 12_000) == 0.0, "a producer's clock ahead of ours"
    assert age_s(10_000, 0) is None
    assert age_s(10_000, -1) is None


def group(**partitions: tuple[int, int]) -> GroupLag:
    """group(p0=(committed, end), …)"""
    return GroupLag("g", "stable", {("t", int(name[1:])): PartitionLag(0, end, committed, lag_s=1.0 * (end - committed))
                                    for name, (committed, end) in partitions.items()})


def test_a_group_is_as_late_as_its_oldest_record() -> None:
    both = group(p0=(10, 15), p1=(10, 40))
    assert (both.lag, both.lag_s) == (35, 30.0)
    assert GroupLag("g", "empty").lag_s == 0.0
    assert GroupLag("g", "stable", {("t", 0): PartitionLag(0, 9, 3)}).lag_s is None, "behind, and nobody knows how long"


def test_trend_needs_two_samples_at_two_times() -> None:
    assert trend([(1.0, group(p0=(0, 10)))]) is None
    assert trend([(1.0, group(p0=(0, 10))), (1.0, group(p0=(5, 10)))]) is None


@pytest.mark.parametrize(("before", "after", "direction", "eta_s"), [
    ((0, 1000), (500, 1100), "shrinking", 15.0),    # 1,000 → 600 in 10 s
    ((0, 1000), (100, 1500), "growing", None),
    ((0, 1000), (1000, 2000), "level", None),       # it reads as fast as it is written to, and never catches up
    ((0, 1000), (1200, 1200), "shrinking", 0.0),
    ((500, 500), (500, 500), "level", 0.0),
])
def test_trend(before: tuple[int, int], after: tuple[int, int], direction: str, eta_s: float | None) -> None:
    moving = trend([(100.0, group(p0=before)), (110.0, group(p0=after))])
    assert moving is not None
    assert (moving.direction, moving.eta_s) == (direction, eta_s)
    assert moving.read_rate == (after[0] - before[0]) / 10
    assert moving.write_rate == (after[1] - before[1]) / 10


def test_a_new_partition_is_no_jump() -> None:
    moving = trend([(0.0, group(p0=(0, 100))), (10.0, group(p0=(50, 100), p1=(0, 1_000_000)))])
    assert moving is not None
    assert (moving.direction, moving.eta_s) == ("shrinking", 10.0)


def test_document() -> None:
    found = as_json({"g": group(p0=(10, 15))}, {"g": None})
    assert found == {"groups": {"g": {"lag": 5, "lag_s": 5.0, "state": "stable", "topics": {"t": {"0": {
        "committed": 10, "end": 15, "start": 0, "lag": 5, "lag_s": 5.0, "open": 0, "markers": 0}}}}}}
