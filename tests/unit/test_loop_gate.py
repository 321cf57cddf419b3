"""The gate: what is blessed, what is not, and that the reasons are said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.loop.gate import Blessing, GateSpec, judge

pytestmark = pytest.mark.unit

RNG = np.random.default_rng(1)
N = 6000
TRUTH = RNG.beta(1.5, 3, N)
Y = (RNG.random(N) < TRUTH).astype(float)


def blurred(by: float, seed: int = 2) -> Any:
    """The true probabilities with noise: the more, the worse."""
    return np.clip(TRUTH + np.random.default_rng(seed).normal(0, by, N), 0.001, 0.999) if by else TRUTH


GOOD, FAIR, POOR = blurred(0), blurred(0.2), blurred(0.5)


def gate(champion: Any, given: dict[str, Any], said: dict[str, Any] | None = None, **more: Any) -> Blessing:
    return judge(GateSpec.model_validate(said or {}), champion, given, Y, **more)


def test_a_better_challenger_is_blessed() -> None:
    made = gate(POOR, {"all": FAIR})
    assert (made.blessed, made.chosen) == (True, "all")
    assert made.measures["all.change_lower"] > 0
    assert made.measures["all.change"] == pytest.approx(made.measures["all.auc"] - made.measures["champion.auc"])
    assert "on the same 6000 rows" in made.reasons[0]


def test_a_worse_one_is_not() -> None:
    made = gate(FAIR, {"all": POOR})
    assert (made.blessed, made.chosen) == (False, "all")
    assert any("it may be worse by" in reason for reason in made.reasons)
    assert any("is wanted" in reason for reason in made.reasons)


@pytest.mark.parametrize("measure", ["auc", "log_loss", "brier"])
def test_either_direction_of_a_measure(measure: str) -> None:
    assert gate(POOR, {"all": FAIR}, {"measure": measure}).blessed
    assert not gate(FAIR, {"all": POOR}, {"measure": measure}).blessed
    worst = {"auc": 0.99, "log_loss": 0.01, "brier": 0.01}[measure]
    assert not gate(POOR, {"all": FAIR}, {"measure": measure, "value_min": worst}).blessed


def test_no_champion_is_said() -> None:
    made = gate(None, {"all": GOOD}, {"value_min": 0.6})
    assert made.blessed
    assert any("no champion" in reason for reason in made.reasons)
    assert not gate(None, {"all": POOR}, {"value_min": 0.7}).blessed


def test_as_good_is_blessed_only_where_no_gain_is_asked() -> None:
    assert gate(FAIR, {"all": FAIR}, {"change_min": 0}).blessed
    assert not gate(FAIR, {"all": FAIR}, {"change_min": 0.001}).blessed


def test_the_less_trusted_must_be_clearly_better() -> None:
    slightly = blurred(0.17)
    assert gate(POOR, {"all": FAIR, "recent": slightly}).chosen == "all"
    made = gate(POOR, {"all": FAIR, "recent": GOOD}, {"distrust": 0.01})
    assert made.chosen == "recent"
    alone = gate(slightly, {"all": POOR, "recent": blurred(0.16)})
    assert not alone.blessed, "that the trusted one is bad is no reason to take a slightly better one"
    assert any("trusted less than all" in reason for reason in alone.reasons)


def test_a_slice_that_suffers() -> None:
    where = np.where(np.arange(N) % 4 == 0, "JFK", "EWR")
    harmed = np.where(where == "JFK", RNG.random(N), GOOD)
    assert gate(POOR, {"all": harmed}, {"inferiority_max": 0.1}).blessed
    made = gate(FAIR, {"all": harmed}, {"inferiority_max": 1, "change_min": -1}, slices={"origin": where})
    assert not made.blessed
    assert [reason for reason in made.reasons if "where origin is JFK" in reason]
    assert not [reason for reason in made.reasons if "EWR" in reason]
    small = {"inferiority_max": 1, "change_min": -1, "slice_rows_min": 2000}
    assert gate(FAIR, {"all": harmed}, small, slices={"origin": where}).blessed, "a slice too small says nothing"


@pytest.mark.parametrize(("facts", "told"), [
    ({"loads": False}, "does not load"), ({"signature_ok": False}, "signature"),
    ({"latency_ms": 80.0, "size_bytes": 10}, "latency 80.0 ms"), ({"latency_ms": 5.0}, "size not measured"),
    ({"latency_ms": 5.0, "size_bytes": 2_000}, "size 2000 bytes")])
def test_what_is_not_fit_to_run(facts: dict[str, Any], told: str) -> None:
    bounds = {"latency_max_ms": 60, "size_max_bytes": 1000}
    made = gate(POOR, {"all": FAIR}, bounds, infra={"all": {"size_bytes": 10, "latency_ms": 1.0} | facts}
                if "size" not in told or facts.get("size_bytes") else {"all": facts})
    assert not made.blessed
    assert any(told in reason for reason in made.reasons)
    assert gate(POOR, {"all": FAIR}, bounds, infra={"all": {"loads": True, "latency_ms": 1, "size_bytes": 1}}).blessed


def test_too_few_rows_bless_nothing() -> None:
    few = judge(GateSpec.model_validate({}), POOR[:500], {"all": GOOD[:500]}, Y[:500])
    assert (few.blessed, few.chosen) == (False, None)
    assert "500 held-out rows" in few.reasons[0]
    one_class = judge(GateSpec.model_validate({}), POOR, {"all": GOOD}, np.zeros(N))
    assert not one_class.blessed


def test_scores_that_are_no_numbers() -> None:
    made = gate(POOR, {"all": np.where(np.arange(N) == 7, np.nan, GOOD)})
    assert not made.blessed
    assert "no numbers" in " ".join(made.reasons)


def test_the_same_seed_the_same_blessing() -> None:
    assert gate(POOR, {"all": FAIR, "recent": GOOD}) == gate(POOR, {"all": FAIR, "recent": GOOD})
    assert not gate(POOR, {}).blessed
