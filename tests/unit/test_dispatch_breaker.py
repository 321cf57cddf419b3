"""The circuit breaker: its states, its probes, its waits."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.loop.dispatch import breaker as b

pytestmark = pytest.mark.unit

CONFIG = b.BreakerConfig.model_validate({"failures_max": 3, "open_s": 10, "open_s_max": 35})


def tripped() -> b.Breaker:
    found = b.Breaker()
    for _ in range(3):
        found = b.failed(found, CONFIG, 0, reason="down")
    return found


def test_it_opens_after_failures_in_a_row() -> None:
    found = b.failed(b.failed(b.Breaker(), CONFIG, 0), CONFIG, 0)
    assert b.state(found, 0) == "closed"
    found = b.failed(b.succeeded(), CONFIG, 0)
    assert b.state(found, 0) == "closed", "a success in between begins anew"
    assert b.state(tripped(), 0) == "open"
    assert b.permit(tripped(), CONFIG, 9_999)[1] is False
    assert tripped().reason == "down"


def test_one_probe_at_a_time() -> None:
    found, allowed = b.permit(tripped(), CONFIG, 10_000)
    assert (allowed, b.state(found, 10_000)) == (True, "half-open")
    found, allowed = b.permit(found, CONFIG, 19_999)
    assert not allowed
    found, allowed = b.permit(found, CONFIG, 20_000)
    assert allowed, "the first probe never told: we crashed"
    assert b.permit(b.succeeded(), CONFIG, 20_001) == (b.Breaker(), True)


def test_each_failed_probe_doubles_the_wait_up_to_a_limit() -> None:
    found, now, waits = tripped(), 0, []
    for _ in range(4):
        assert found.until_ms is not None
        waits.append(found.until_ms - now)
        now = found.until_ms
        found, allowed = b.permit(found, CONFIG, now)
        assert allowed
        found = b.failed(found, CONFIG, now)
    assert waits == [10_000, 20_000, 35_000, 35_000]


def test_a_late_failure_opens_nothing_anew() -> None:
    late = b.failed(tripped(), CONFIG, 5_000)
    assert late.until_ms == 10_000


def test_the_wait_asked_for_is_kept() -> None:
    found = b.Breaker()
    for _ in range(3):
        found = b.failed(found, CONFIG, 0, retry_after_s=120)
    assert b.state(found, 119_999) == "open"
    assert b.state(found, 120_000) == "half-open"


@given(st.lists(st.tuples(st.sampled_from(["fail", "well", "ask"]), st.integers(0, 60_000))))
def test_calls_while_open_are_few(steps: list[tuple[str, int]]) -> None:
    """Whatever comes, a breaker that is not closed lets through one call in each open_s at most."""
    found, now, let = b.Breaker(), 0, []
    for what, later in steps:
        now += later
        found = b.Breaker.from_json(json.loads(json.dumps(found.to_json())))
        if what == "ask":
            before = b.state(found, now)
            found, allowed = b.permit(found, CONFIG, now)
            assert allowed or before != "closed"
            assert not (allowed and before == "open")
            let += [now] if allowed and before == "half-open" else []
        else:
            found = b.succeeded() if what == "well" else b.failed(found, CONFIG, now)
            let = [] if what == "well" else let
    assert all(second - first >= 10_000 for first, second in itertools.pairwise(let))
