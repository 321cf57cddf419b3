"""Champion against challenger on live records: a test that may be looked at after every record, and stopped at any.

    state = update(state, arm_counts("challenger", losses))     # JSON, and states add up: merge(a, b)
    result(state, 0.05, better="lower", shares={"champion": 0.9, "challenger": 0.1})

The interval is the normal-mixture asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
"Time-uniform central limit theory and asymptotic confidence sequences" (Annals of Statistics 52, 2024), for the
difference of two means; with known variances it is Robbins' mixture and the mixture SPRT of Johari, Koomen, Pekelis and
Walsh, "Always valid inference" (Operations Research 70, 2022). A proportion is a mean of zeros and ones.

The ratio of the arms is judged by the multinomial mixture of Lindon and Malek, "Anytime-valid inference for multinomial
count data" (NeurIPS 2022): chi-square's question, with an answer that may be asked for at any time.

What it assumes: rows that do not depend on each other (one a key, where keys repeat), and shares that stay; who changes
the shares begins a new test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.errors import UserError

State = dict[str, dict[str, float]]
"""{"champion": {"n": rows, "sum": of their values, "squares": sum of the values' squares}, "challenger": …}"""
ARMS = ("champion", "challenger")
COUNTS = ("n", "sum", "squares")
ROWS_MIN = 100
"""Rows of each arm before anything is said: the sequence is an asymptotic one."""
SPREAD_MIN = 20.0
"""Of zeros and ones, each arm needs this sum of squared deviations besides, that is, about as many hits and as many
misses: rare hits are far from normal until then. Other values with a long tail (costs, seconds) are best clipped."""
MISMATCH_ALPHA = 0.001
"""How often, at most, a sound split is called unsound, over the whole life of a test."""


def arm_counts(arm: str, values: Any) -> State:
    """The counts of some rows of one arm; `values` is a numpy array or what makes one. NaN counts as no row."""
    held = np.asarray(values, dtype=np.float64)
    held = held[~np.isnan(held)]
    return {arm: {"n": int(held.size), "sum": float(held.sum()), "squares": float(held @ held)}}


def update(state: Mapping[str, Mapping[str, float]], more: Mapping[str, Mapping[str, float]]) -> State:
    """A new state with `more` rows counted in; {} is the state of no rows. Order does not matter, so that partitions
    may each keep their own and add them up. Raises UserError on an arm that is neither champion nor challenger."""
    for arm in (*state, *more):
        if arm not in ARMS:
            raise UserError(f"an A/B test has the arms champion and challenger, not {arm}")
    return {arm: {c: state.get(arm, {}).get(c, 0) + more.get(arm, {}).get(c, 0) for c in COUNTS} for arm in ARMS}


merge = update


def result(state: Mapping[str, Mapping[str, float]], alpha: float = 0.05, *, better: str = "higher",
           tuned_rows: int = 5_000, shares: Mapping[str, float] | None = None) -> dict[str, Any]:
    """What is known by now.

    effect             challenger's mean less champion's; None before both have ROWS_MIN rows that differ
    ci_low, ci_high    covers the true effect at every look at once, but for a chance of alpha; None without effect
    decided            challenger | champion, once zero is outside; None before, and whenever the ratio is unsound
    p_always_valid     the chance of so much evidence, at any look, if there were no effect; 1.0 without effect
    n                  rows by arm
    mismatch           with `shares`, what sample_ratio says of them, else None
    void               why the result counts for nothing, else None

    `better` is higher (a score) or lower (a loss). The interval is narrowest at about `tuned_rows` rows of the smaller
    arm; it must not be chosen by looking at the data. Raises UserError on options that are none.
    """
    if better not in ("higher", "lower") or not 0 < alpha < 1 or tuned_rows < 1:
        raise UserError(f"better={better}, alpha={alpha}, tuned_rows={tuned_rows}: no such test",
                        hint="better is higher or lower, alpha between 0 and 1, tuned_rows at least 1")
    held = update(state, {})
    champion, challenger = ([held[arm][c] for c in COUNTS] for arm in ARMS)
    effect, half, p = map(float, sequence(champion, challenger, alpha, tuned_rows))
    n = {arm: int(held[arm]["n"]) for arm in ARMS}
    known = math.isfinite(half)
    ratio = sample_ratio(n, shares) if shares is not None else None
    void = ratio["message"] if ratio and ratio["mismatch"] else None
    ahead = "challenger" if (effect > 0) == (better == "higher") else "champion"
    return {"effect": effect if known else None, "ci_low": effect - half if known else None,
            "ci_high": effect + half if known else None,
            "decided": ahead if known and not void and abs(effect) > half else None,
            "p_always_valid": p, "n": n, "mismatch": ratio, "void": void}


def sequence(champion: Any, challenger: Any, alpha: float, tuned_rows: int = 5_000) -> tuple[Any, Any, Any]:
    """(effect, half-width, p) of counts [n, sum, squares] of each arm, numbers or numpy arrays of any one shape.

    Half-width is infinite and p 1 where too little is known. With v = s1²/n1 + s2²/n2, m = (s1² + s2²)/(2v) and rho
    tuned, the half-width is sqrt(v · (1 + 1/(m·rho²)) · (2·ln(1/alpha) + ln(1 + m·rho²))).
    """
    (n1, mean1, var1, known1), (n2, mean2, var2, known2) = _moments(champion), _moments(challenger)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        noise = var1 / n1 + var2 / n2
        weight = (var1 + var2) / 2 / noise * _rho2(alpha, tuned_rows)
        effect = mean2 - mean1
        half = np.sqrt(noise * (1 + 1 / weight) * (-2 * math.log(alpha) + np.log1p(weight)))
        log_p = 0.5 * np.log1p(weight) - effect**2 / (2 * noise) * weight / (1 + weight)
    known = known1 & known2
    return effect, np.where(known, half, np.inf), np.where(known, np.exp(np.minimum(log_p, 0)), 1.0)


def _rho2(alpha: float, rows: int) -> float:
    """The mixture's variance, in units of one row's, that is best when the smaller arm has about so many rows."""
    at = -2 * math.log(alpha)
    return (at + math.log(1 + at)) / rows


def _moments(counts: Any) -> tuple[Any, Any, Any, Any]:
    """(n, mean, variance, whether they may be trusted)."""
    n, total, squares = (np.asarray(c, dtype=np.float64) for c in counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n
        deviations = squares - total * mean
        variance = deviations / (n - 1)
        rounding = 1e-12 * squares  # what is left of equal values when their squares are subtracted
    needed = np.where(total == squares, SPREAD_MIN, 0.0)  # only zeros and ones are their own squares
    return n, mean, variance, (n >= ROWS_MIN) & (deviations > rounding) & (deviations >= needed)


def sample_ratio(n: Mapping[str, int], shares: Mapping[str, float], alpha: float = MISMATCH_ALPHA) -> dict[str, Any]:
    """Whether rows came to the arms as dealt: {expected, chi_square, p_always_valid, mismatch, message}.

    The verdict is by the mixture, whose error stays below `alpha` however often it is asked; `chi_square` is the
    familiar number, for reading only. Rows are to be counted as they are dealt (one a key). Raises UserError.
    """
    if set(n) - set(shares) or any(shares[a] <= 0 for a in n) or abs(math.fsum(shares.values()) - 1) > 1e-9:
        raise UserError(f"shares {dict(shares)} do not fit the arms {', '.join(n)}", hint="each above 0, together 1")
    total = sum(n.values())
    expected = {arm: total * shares[arm] for arm in n}
    chi_square = math.fsum((n[a] - expected[a])**2 / expected[a] for a in n) if total else 0.0
    # The prior is a Dirichlet round the shares, worth a hundred rows: departures of some percent are found soonest.
    prior = {arm: 100 * shares[arm] for arm in n}
    log_e = math.lgamma(100) - math.lgamma(100 + total) + math.fsum(
        math.lgamma(prior[a] + n[a]) - math.lgamma(prior[a]) - n[a] * math.log(shares[a]) for a in n)
    p = math.exp(min(0.0, -log_e))
    told = ", ".join(f"{arm} {n[arm]:,} of {expected[arm]:,.0f} expected" for arm in n)
    return {"expected": expected, "chi_square": chi_square, "p_always_valid": p, "mismatch": p <= alpha,
            "message": f"the arms' rows are not in the ratio they were dealt in: {told}; look for rows that are lost, "
                       "doubled or never labelled in one arm" if p <= alpha else None}
