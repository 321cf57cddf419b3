"""Measures against scikit-learn's, drift against known shifts, the bootstrap against known differences, detectors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import UserError
from headrace.loop import bootstrap, detectors, drift, measures

pytestmark = pytest.mark.unit


def drawn(seed: int, n: int = 2000, ties: int = 0) -> tuple[Any, Any]:
    """Labels that come true as their scores say; with `ties`, of so many distinct scores."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1.5, 3, n)
    p = np.round(p * ties) / ties if ties else p
    return (rng.random(n) < p).astype(float), p


@pytest.mark.parametrize(("seed", "ties"), [(1, 0), (2, 0), (3, 7), (4, 1)])
def test_measures_equal_scikit_learns(seed: int, ties: int) -> None:
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    y, p = drawn(seed, ties=ties)
    assert measures.auc(y, p) == pytest.approx(roc_auc_score(y, p), abs=1e-9)
    assert measures.log_loss(y, p) == pytest.approx(log_loss(y, p), abs=1e-9)
    assert measures.brier(y, p) == pytest.approx(brier_score_loss(y, p), abs=1e-9)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])), min_size=2, max_size=30))
@settings(max_examples=60, deadline=None)
def test_auc_and_loss_of_any_labels(rows: list[tuple[bool, float]]) -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    y, p = np.array([float(label) for label, _ in rows]), np.array([score for _, score in rows])
    if len(set(y)) == 1:
        assert np.isnan(measures.auc(y, p))
    else:
        assert measures.auc(y, p) == pytest.approx(roc_auc_score(y, p), abs=1e-9)
    assert measures.log_loss(y, p) == pytest.approx(log_loss(y, p, labels=[0, 1]), abs=1e-9)


@pytest.mark.parametrize("ties", [0, 20])
def test_calibration_error_equals_scikit_learns_curve(ties: int) -> None:
    from sklearn.calibration import calibration_curve

    y, p = drawn(5, ties=ties)
    came, said = calibration_curve(y, p, n_bins=10, strategy="uniform")
    rows = np.bincount(np.searchsorted(np.linspace(0, 1, 11)[1:-1], p), minlength=10)
    rows = rows[rows > 0]
    theirs = float((np.abs(came - said) * rows).sum() / len(y))
    assert measures.calibration_error(y, p) == pytest.approx(theirs, abs=1e-9)
    assert measures.calibration_error(y, np.clip(p + 0.2, 0, 1)) > measures.calibration_error(y, p) + 0.1


def test_nothing_is_measured_of_nothing() -> None:
    found = measures.all_of([], [])
    assert found.pop("labels") == found.pop("positives") == 0
    assert all(np.isnan(value) for value in found.values())


def test_estimate_without_labels() -> None:
    """Right while scores are calibrated; a wrongly confident model needs its calibration to be estimated rightly."""
    y, p = drawn(6, n=40_000)
    guess = measures.estimated(p)
    assert guess["auc"] == pytest.approx(measures.auc(y, p), abs=0.01)
    assert guess["accuracy"] == pytest.approx(float(((p >= 0.5) == y).mean()), abs=0.01)
    bold = p**0.5
    by = json.loads(json.dumps(measures.calibration(y[:20_000], bold[:20_000])))
    truth = float(y[20_000:].mean())
    assert abs(measures.estimated(bold[20_000:])["positives"] - truth) > 0.1
    assert measures.estimated(bold[20_000:], by)["positives"] == pytest.approx(truth, abs=0.01)
    assert measures.estimated(bold[20_000:], by)["auc"] == pytest.approx(measures.auc(y[20_000:], p[20_000:]), abs=0.01)


def test_performance_of_a_window() -> None:
    spec = measures.PerformanceSpec.model_validate({"drop": 0.05, "labels_min": 100})
    y, p = drawn(7)
    good = measures.auc(y, p)
    assert measures.performance(spec, y, p, good)[0]
    ok, found, why = measures.performance(spec, y, p, good + 0.06)
    assert not ok
    assert "worse by more than 0.05" in why[0]
    assert found["baseline"] == good + 0.06
    assert measures.performance(spec, y[:50], p[:50], 0.99)[0], "50 labels are too few"
    assert "no baseline" in measures.performance(spec, y, p, None)[2][0]


def frame(seed: int, n: int = 5000, shift: float = 0.0, carriers: str = "AAABBC") -> pa.Table:
    rng = np.random.default_rng(seed)
    temp = rng.normal(shift, 1, n)
    return pa.table({"temp": pa.array(temp, mask=rng.random(n) < 0.1), "carrier": rng.choice(list(carriers), n)})


def test_drift_of_the_same_distribution_is_chance() -> None:
    by = drift.reference(frame(1), numeric=["temp"], categorical=["carrier"])
    found = drift.compare(by, drift.count(by, frame(2)))
    for each in found.values():
        assert each.psi < 3 * each.noise
        assert each.js < 0.05
        assert each.unseen < 0.002
    assert (found["temp"].ks_p or 0) > 0.01
    assert found["carrier"].ks is None


def test_drift_grows_with_the_shift_and_sees_new_values() -> None:
    by = drift.reference(frame(1), numeric=["temp"], categorical=["carrier"])
    steps = [drift.compare(by, drift.count(by, frame(2, shift=shift)))["temp"] for shift in (0, 0.5, 1, 3)]
    assert [each.psi for each in steps] == sorted(each.psi for each in steps)
    assert steps[1].psi > 0.1
    assert steps[1].ks == pytest.approx(0.197, abs=0.04), "of two normals 0.5 apart: 2 Φ(¼) − 1"
    assert (steps[1].ks_p or 0) < 1e-6
    assert steps[3].unseen > 0.2
    other = drift.compare(by, drift.count(by, frame(3, carriers="AABZ")))["carrier"]
    assert other.unseen == pytest.approx(0.25, abs=0.03)


def test_ks_equals_scipys_where_bins_hold_all_values() -> None:
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(1)
    one, two = rng.integers(0, 8, 3000), rng.integers(0, 9, 2000)
    by = drift.reference(pa.table({"x": one}), numeric=["x"], bins=400)
    assert drift.compare(by, drift.count(by, pa.table({"x": two})))["x"].ks == pytest.approx(
        ks_2samp(one, two).statistic, abs=1e-9)


def test_histograms_add_up_and_are_json() -> None:
    by = json.loads(json.dumps(drift.reference(frame(1), numeric=["temp"], categorical=["carrier"])))
    whole = frame(2)
    parts = [drift.count(by, whole.slice(0, 1234)), drift.count(by, whole.slice(1234))]
    assert drift.merge(*parts) == drift.count(by, whole)
    assert drift.merge(*json.loads(json.dumps(parts))) == drift.count(by, whole.combine_chunks().to_batches()[0])
    assert sum(drift.count(by, whole)["temp"]) == whole.num_rows


def test_drift_verdict() -> None:
    by = drift.reference(frame(1), numeric=["temp"], categorical=["carrier"])
    spec = drift.DriftSpec.model_validate({"psi_min": 0.5, "columns_min": 1})
    assert drift.judge(spec, by, drift.count(by, frame(2)))[0]
    ok, found, why = drift.judge(spec, by, drift.count(by, frame(2, shift=2)))
    assert not ok
    assert "temp" in why[0]
    assert found["psi.temp"] > 0.5
    assert "ks.carrier" not in found
    assert drift.judge(spec, by, drift.count(by, frame(2, n=100, shift=2)))[0], "100 rows are too few"
    both = drift.DriftSpec.model_validate({"psi_min": 0.5, "columns_min": 2})
    assert drift.judge(both, by, drift.count(by, frame(2, shift=2)))[0], "only one column moved"
    with pytest.raises(UserError, match="no column"):
        drift.count(by, pa.table({"temp": [1.0]}))


@pytest.mark.parametrize("measure", ["auc", "log_loss", "brier"])
def test_bootstrap_bounds(measure: str) -> None:
    y, p = drawn(8, n=4000)
    noisy = np.clip(p + np.random.default_rng(1).normal(0, 0.3, len(p)), 0.001, 0.999)
    found = bootstrap.difference(measure, y, noisy, p, seed=3)
    function, sign = measures.MEASURES[measure]
    assert found.value == pytest.approx(sign * (function(y, p) - function(y, noisy)))
    assert 0 < found.lower < found.value < found.upper
    assert found == bootstrap.difference(measure, y, noisy, p, seed=3)
    assert found != bootstrap.difference(measure, y, noisy, p, seed=4)
    same = bootstrap.difference(measure, y, p, p)
    assert same.lower == same.value == same.upper == 0


def test_bootstrap_weights_equal_drawing_rows() -> None:
    """A draw by weights is the measure of the rows repeated."""
    y, p = drawn(9, n=300, ties=10)
    times = np.random.default_rng(1).multinomial(300, np.full(300, 1 / 300), size=5)
    weighted = bootstrap._weighted("auc", y, p, times.astype(float))
    for row, count in zip(weighted, times, strict=True):
        assert row == pytest.approx(measures.auc(np.repeat(y, count), np.repeat(p, count)), abs=1e-12)


def test_bootstrap_covers_the_truth() -> None:
    """In 200 worlds where both are equally good, the 90 % lower bound lies above zero in about a tenth of them."""
    above = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        y = (rng.random(400) < 0.4).astype(float)
        one, other = (y + rng.normal(0, 1.5, 400) for _ in range(2))
        above += bootstrap.difference("auc", y, one, other, resamples=150, confidence=0.9, seed=seed).lower > 0
    assert 8 <= above <= 36


def test_rows_that_go_together_are_drawn_together() -> None:
    """Every row ten times over tells no more than once: alone the bounds shrink, by blocks they do not."""
    y, p = drawn(10, n=400)
    noisy = np.clip(p + np.random.default_rng(1).normal(0, 0.3, 400), 0, 1)
    once = bootstrap.difference("auc", y, noisy, p)
    tenfold = [np.repeat(each, 10) for each in (y, noisy, p)]
    alone = bootstrap.difference("auc", *tenfold)
    together = bootstrap.difference("auc", *tenfold, blocks=np.repeat(np.arange(400), 10))
    assert (together.upper - together.lower) == pytest.approx(once.upper - once.lower, rel=0.15)
    assert (alone.upper - alone.lower) < (once.upper - once.lower) / 2


@pytest.mark.parametrize(("kind", "options"), [("adwin", {}), ("page_hinkley", {"threshold": 20.0})])
def test_detectors_go_on_from_json(kind: Any, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    losses = np.concatenate([rng.random(3000) * 0.2, 0.5 + rng.random(3000) * 0.2, rng.random(2000) * 0.2])
    whole = detectors.watch(kind, losses, **options)
    assert any(3000 <= at < 3200 for at in whole.changes)
    assert not any(at < 3000 for at in whole.changes)
    state, changes = None, []
    for first in range(0, len(losses), 777):
        seen = detectors.watch(kind, losses[first:first + 777], state, **options)
        assert not seen.restarted
        state = json.loads(json.dumps(seen.state))
        changes += [first + at for at in seen.changes]
    assert changes == whole.changes
    assert state == whole.state
    assert detectors.watch(kind, losses[:10], {**(state or {}), "river": "0.1"}, **options).restarted
