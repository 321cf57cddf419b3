"""How good predicted probabilities are: with labels, and, until those come, without.

Labels are 0 or 1, scores are probabilities of 1; both arrays of one length. What cannot be measured is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pydantic import Field

from headrace.config import Config

Floats = np.ndarray[Any, np.dtype[np.float64]]
BINS = 10
NAN = float("nan")


def auc(labels: Any, scores: Any) -> float:
    """Area under the ROC curve; ties count half. NaN with labels of one class only."""
    positive = np.asarray(labels, dtype=np.float64)
    return _pairs(positive, 1 - positive, np.asarray(scores, dtype=np.float64))


def log_loss(labels: Any, scores: Any) -> float:
    """Mean negative log-likelihood, probabilities clipped as scikit-learn clips them."""
    return _mean(row_log_loss(labels, scores))


def brier(labels: Any, scores: Any) -> float:
    """Mean squared error of the probability."""
    return _mean(row_brier(labels, scores))


def row_log_loss(labels: Any, scores: Any) -> Floats:
    """The log loss of each row."""
    edge = np.finfo(np.float64).eps
    p, y = np.clip(np.asarray(scores, dtype=np.float64), edge, 1 - edge), np.asarray(labels, dtype=np.float64)
    return -(y * np.log(p) + (1 - y) * np.log1p(-p))


def row_brier(labels: Any, scores: Any) -> Floats:
    """The squared error of each row."""
    return (np.asarray(scores, dtype=np.float64) - np.asarray(labels, dtype=np.float64)) ** 2


def calibration_error(labels: Any, scores: Any, bins: int = BINS) -> float:
    """Expected calibration error: |mean probability − share of ones| by bin of equal width, weighted by rows."""
    y, p = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not len(p):
        return NAN
    at = _bin(p, bins)
    gaps = np.bincount(at, weights=p, minlength=bins) - np.bincount(at, weights=y, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))


def calibration(labels: Any, scores: Any, bins: int = BINS) -> dict[str, list[float]]:
    """How often each probability came true, as JSON for `calibrated`: mean score and share of ones by decile."""
    y, p = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    parts = [part for part in np.array_split(np.argsort(p, kind="stable"), bins) if len(part)]
    said = np.array([p[part].mean() for part in parts])
    came = np.maximum.accumulate([y[part].mean() for part in parts])
    keep = np.r_[True, np.diff(said) > 0] if len(said) else np.array([], dtype=bool)
    return {"scores": said[keep].tolist(), "rates": came[keep].tolist()}


def calibrated(scores: Any, by: Mapping[str, list[float]]) -> Floats:
    """The scores as probabilities by what `calibration` found; between its points straight lines."""
    return np.interp(np.asarray(scores, dtype=np.float64), by["scores"], by["rates"])


def estimated(scores: Any, by: Mapping[str, list[float]] | None = None) -> dict[str, float]:
    """AUC, accuracy at 0.5 and share of ones to expect of these scores, without a label (confidence-based).

    Each row is taken to be a 1 with its own (calibrated, given `by`) probability. That is right as long as inputs
    change and what they mean does not; when meaning changes, only labels tell.
    """
    s = np.asarray(scores, dtype=np.float64)
    p = s if by is None else calibrated(s, by)
    return {"auc": _pairs(p, 1 - p, s), "accuracy": _mean(np.where(s >= 0.5, p, 1 - p)), "positives": _mean(p)}


MEASURES: Mapping[str, tuple[Callable[[Any, Any], float], int]] = {
    "auc": (auc, 1), "log_loss": (log_loss, -1), "brier": (brier, -1), "calibration_error": (calibration_error, -1)}
"""Name → (function, 1 if more is better, −1 if less is)."""


def all_of(labels: Any, scores: Any) -> dict[str, float]:
    """Every measure by name, with `labels` and `positives`, the rows and the ones among them."""
    y = np.asarray(labels, dtype=np.float64)
    return {**{name: measure(y, scores) for name, (measure, _) in MEASURES.items()},
            "labels": float(len(y)), "positives": float(y.sum())}


class PerformanceSpec(Config):
    """When a window of labelled predictions is bad."""

    measure: str = Field("auc", pattern="^(auc|log_loss|brier|calibration_error)$", description="What is compared.")
    drop: float = Field(0.04, ge=0, description="How much worse than the champion's baseline is bad.")
    labels_min: int = Field(500, ge=1, description="A window of fewer labels says nothing.")


def performance(spec: PerformanceSpec, labels: Any, scores: Any,
                baseline: float | None) -> tuple[bool, dict[str, float], list[str]]:
    """(within bounds, measures, reasons) of one window. Without a baseline nothing is bad, and that is said."""
    found = all_of(labels, scores)
    value, sign = found[spec.measure], MEASURES[spec.measure][1]
    if baseline is None:
        return True, found, [f"no baseline to hold {spec.measure} {value:.3f} against"]
    found["baseline"] = baseline
    if found["labels"] < spec.labels_min or not np.isfinite(value):
        return True, found, [f"{len(np.asarray(labels))} labels are too few to tell (or of one class)"]
    bad = sign * (value - baseline) < -spec.drop
    words = f"{spec.measure} {value:.3f} against a baseline of {baseline:.3f}"
    return not bad, found, [f"{words}: worse by more than {spec.drop:g}" if bad else words]


def _bin(scores: Floats, bins: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Equal bins of [0, 1]: the first one closed, the others open below, as scikit-learn's calibration_curve has it."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], scores)


def _mean(rows: Floats) -> float:
    return float(rows.mean()) if len(rows) else NAN


def _pairs(positive: Floats, negative: Floats, scores: Floats) -> float:
    """The weighted share of (positive, negative) pairs in the right order."""
    order = np.argsort(scores, kind="stable")
    s, up, down = scores[order], positive[order], negative[order]
    starts = np.flatnonzero(np.r_[True, s[1:] != s[:-1]]) if len(s) else np.array([], dtype=np.int64)
    if not len(starts):
        return NAN
    up, down = np.add.reduceat(up, starts), np.add.reduceat(down, starts)
    below = np.cumsum(down) - down / 2
    pairs = up.sum() * down.sum()
    return float((up * below).sum() / pairs) if pairs > 0 else NAN
