"""A/B tests looked at after every record: how often they err, what they find, and when they count for nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UserError
from headrace.loop.abtest import arm_counts, merge, result, sample_ratio, sequence, update

pytestmark = pytest.mark.unit

RUNS, ROWS, ALPHA = 1_000, 4_000, 0.05
Draw = Callable[[np.random.Generator, tuple[int, int]], Any]
NORMAL: Draw = lambda rng, shape: rng.normal(3, 2, shape)  # noqa: E731
LATE: Draw = lambda rng, shape: (rng.random(shape) < 0.23).astype(float)  # noqa: E731
RARE: Draw = lambda rng, shape: (rng.random(shape) < 0.02).astype(float)  # noqa: E731
SKEWED: Draw = lambda rng, shape: rng.exponential(1, shape)  # noqa: E731


def looks(draw: Draw, share: float, seed: int, *, runs: int = RUNS, rows: int = ROWS, lift: float = 0.0,
          tuned_rows: int = 500) -> tuple[Any, Any, Any]:
    """(effect, half-width, p), runs × rows: each run's test after each of its records."""
    rng = np.random.default_rng(seed)
    challenger = rng.random((runs, rows)) < share
    values = draw(rng, (runs, rows)) + lift * challenger
    arms = [[np.cumsum(w * mine, axis=1) for w in (1, values, values * values)] for mine in (~challenger, challenger)]
    return sequence(*arms, ALPHA, tuned_rows)


def binomial_bound(p: float, n: int) -> float:
    """The most that a rate of p shows in n runs, but for a chance of 1 in 1,000."""
    return p + 3.09 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("draw", [NORMAL, LATE, RARE, SKEWED], ids=["normal", "late", "rare", "skewed"])
def test_equal_arms_are_seldom_told_apart_however_often_one_looks(draw: Draw, share: float) -> None:
    """1,000 A/A runs, a look after each of 4,000 records, tuned so early that errors are at their most likely."""
    effect, half, p = looks(draw, share, seed=7)
    wrong = (np.abs(effect) > half).any(axis=1).mean()
    assert wrong <= binomial_bound(ALPHA, RUNS)
    assert (p.min(axis=1) <= ALPHA).mean() == wrong


def test_the_bound_would_catch_a_test_that_is_not_sequential() -> None:
    """The same looks with the textbook's interval: the harness sees its error rate explode."""
    rng = np.random.default_rng(7)
    challenger = rng.random((200, ROWS)) < 0.5
    values = rng.normal(size=(200, ROWS))
    n, s, q = ([np.cumsum(w * m, axis=1) for m in (~challenger, challenger)] for w in (1, values, values**2))
    with np.errstate(divide="ignore", invalid="ignore"):
        var = [(q[i] - s[i]**2 / n[i]) / (n[i] - 1) / n[i] for i in (0, 1)]
        z = (s[1] / n[1] - s[0] / n[0]) / np.sqrt(var[0] + var[1])
    assert (np.abs(z[:, 200:]) > 1.96).any(axis=1).mean() > 2 * binomial_bound(ALPHA, 200)


@pytest.mark.parametrize(("draw", "lift"), [(NORMAL, 0.4), (SKEWED, -0.2)])
def test_planted_effects_are_found_and_covered(draw: Draw, lift: float) -> None:
    effect, half, _ = looks(draw, 0.5, seed=11, runs=200, lift=lift)
    assert (np.sign(lift) * effect[:, -1] > half[:, -1]).mean() > 0.95
    assert ((effect - half > lift) | (effect + half < lift)).any(axis=1).mean() <= binomial_bound(ALPHA, 200)


def test_the_interval_is_that_of_the_paper() -> None:
    """One arm known without noise: the paper's formula for one mean, the standard deviation times
    sqrt(2·(n·rho² + 1)/(n²·rho²)·log(sqrt(n·rho² + 1)/alpha)), with its rho for where it is narrowest."""
    n, tuned = 1_000, 1_000
    values = np.random.default_rng(3).normal(size=n)
    held = arm_counts("challenger", values)["challenger"]
    still = [1e12, 0.0, 1e12]  # as many rows of variance 1: its mean has no noise left, its variance is the same
    _, half, _ = sequence(still, [held["n"], held["sum"], held["squares"]], ALPHA, tuned)
    rho2 = (-2 * math.log(ALPHA) + math.log(-2 * math.log(ALPHA) + 1)) / tuned
    m = n * (1 + 1 / values.var(ddof=1)) / 2
    paper = math.sqrt(2 * (m * rho2 + 1) / (m * rho2) / n * math.log(math.sqrt(m * rho2 + 1) / ALPHA))
    assert float(half) == pytest.approx(paper * values.std(ddof=1), rel=1e-6)


@given(st.lists(st.tuples(st.sampled_from(["champion", "challenger"]), st.lists(st.integers(-50, 50), max_size=20)),
                max_size=10), st.integers(0, 10))
def test_states_add_up_in_any_order_and_are_json(parts: list[tuple[str, list[int]]], cut: int) -> None:
    states = [arm_counts(arm, values) for arm, values in parts]
    whole: dict[str, Any] = {}
    for one in states:
        whole = update(json.loads(json.dumps(whole)), one)
    left: dict[str, Any] = {}
    right: dict[str, Any] = {}
    for at, one in enumerate(reversed(states)):
        left, right = (update(left, one), right) if at < cut else (left, update(right, one))
    assert merge(left, right) == update(whole, {})
    assert result(whole)["n"] == {a: sum(len(v) for arm, v in parts if arm == a) for a in ("champion", "challenger")}


def state_of(champion: Any, challenger: Any) -> Any:
    return merge(arm_counts("champion", champion), arm_counts("challenger", challenger))


def test_who_is_better_depends_on_what_is_better() -> None:
    rng = np.random.default_rng(5)
    state = state_of(rng.normal(1, 1, 5_000), rng.normal(2, 1, 500))
    higher, lower = result(state, 0.05), result(state, 0.05, better="lower")
    assert (higher["decided"], lower["decided"]) == ("challenger", "champion")
    assert higher["ci_low"] < 1 < higher["ci_high"]
    assert higher["p_always_valid"] < 1e-10
    assert higher["effect"] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(("champion", "challenger"), [
    ([], []), (np.arange(99), np.arange(5_000)), (np.full(500, 0.1), np.arange(500)), (np.zeros(500), np.ones(500)),
    (np.arange(500) < 250, np.arange(500) < 10)], ids=["none", "few", "constant", "both constant", "rare"])
def test_too_little_says_nothing(champion: Any, challenger: Any) -> None:
    told = result(state_of(champion, challenger))
    assert [told[k] for k in ("effect", "ci_low", "ci_high", "decided", "p_always_valid")] == [None] * 4 + [1.0]


def test_nan_is_no_row() -> None:
    assert arm_counts("champion", [1.0, float("nan"), 2.0])["champion"] == {"n": 2, "sum": 3.0, "squares": 5.0}


def test_a_mismatch_of_the_ratio_voids_the_result() -> None:
    """One challenger row in five is lost: the effect is plain, and still counts for nothing."""
    rng = np.random.default_rng(5)
    state = state_of(rng.normal(1, 1, 9_000), rng.normal(2, 1, 800))
    told = result(state, shares={"champion": 0.9, "challenger": 0.1})
    assert told["void"]
    assert "800 of 980 expected" in told["void"]
    assert told["decided"] is None
    assert result(state, shares={"champion": 90 / 98, "challenger": 8 / 98})["decided"] == "challenger"


def test_a_sound_split_is_seldom_called_unsound_and_an_unsound_one_always() -> None:
    """200 sound runs, a look every 20 of 10,000 rows; and 20 that lose one challenger row in five."""
    rng = np.random.default_rng(13)
    shares = {"champion": 0.9, "challenger": 0.1}

    def caught(runs: int, share: float, alpha: float) -> float:
        arrived = np.cumsum(rng.random((runs, 10_000)) < share, axis=1)[:, 19::20]
        return float(np.mean([any(
            sample_ratio({"champion": 20 * (at + 1) - int(c), "challenger": int(c)}, shares, alpha)["mismatch"]
            for at, c in enumerate(run)) for run in arrived]))

    assert caught(200, 0.1, 0.05) <= binomial_bound(0.05, 200)
    assert caught(20, 0.08 / 0.98, 0.001) == 1.0


@pytest.mark.parametrize("wrong", [
    lambda: update({}, {"chalenger": {"n": 1, "sum": 1, "squares": 1}}), lambda: result({}, better="up"),
    lambda: result({}, 0), lambda: result({}, shares={"champion": 1.0}), lambda: result({}, tuned_rows=0),
    lambda: result({}, shares={"champion": 0.9, "challenger": 0.2})])
def test_what_is_no_test_is_refused(wrong: Callable[[], Any]) -> None:
    with pytest.raises(UserError):
        wrong()
