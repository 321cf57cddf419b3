"""A paired bootstrap: by how much one model's scores are better than another's on the same rows, and how surely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.loop.measures import MEASURES, Floats, row_brier, row_log_loss

CHUNK_CELLS = 4_000_000
_ROW_LOSS: dict[str, Callable[[Any, Any], Floats]] = {"log_loss": row_log_loss, "brier": row_brier}


@dataclass(frozen=True, slots=True)
class Difference:
    """Challenger minus champion, so that more is better. `lower` and `upper` bound it, each with `confidence`."""

    value: float
    lower: float
    upper: float


def difference(measure: str, labels: Any, champion: Any, challenger: Any, *, blocks: Any = None, resamples: int = 400,
               confidence: float = 0.95, seed: int = 0) -> Difference:
    """The difference of `auc`, `log_loss` or `brier`, with one-sided bounds.

    Rows that go together (of one hour, one day) have one value in `blocks` and are drawn together: drawn one by one,
    rows that resemble each other would make the bounds too narrow. All-NaN where labels are of one class.
    """
    y = np.asarray(labels, dtype=np.float64)
    a, b = np.asarray(champion, dtype=np.float64), np.asarray(challenger, dtype=np.float64)
    function, sign = MEASURES[measure]
    value = sign * (function(y, b) - function(y, a))
    block = np.unique(np.arange(len(y)) if blocks is None else np.asarray(blocks), return_inverse=True)[1]
    n = int(block.max()) + 1 if len(block) else 0
    if not n or not np.isfinite(value):
        return Difference(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK_CELLS // len(y))
    drawn = []
    for first in range(0, resamples, step):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(step, resamples - first))
        weights = counts[:, block].astype(np.float64)
        drawn.append(sign * (_weighted(measure, y, b, weights) - _weighted(measure, y, a, weights)))
    many = np.concatenate(drawn)
    many = many[np.isfinite(many)]
    lower, upper = np.quantile(many, [1 - confidence, confidence]) if len(many) else (float("nan"),) * 2
    return Difference(float(value), float(lower), float(upper))


def _weighted(measure: str, labels: Floats, scores: Floats, weights: Floats) -> Floats:
    """The measure under each row of `weights` (resamples × rows)."""
    if measure in _ROW_LOSS:
        mean: Floats = weights @ _ROW_LOSS[measure](labels, scores) / weights.sum(axis=1)
        return mean
    order = np.argsort(scores, kind="stable")
    s, w = scores[order], weights[:, order]
    starts = np.flatnonzero(np.r_[True, s[1:] != s[:-1]])
    up = np.add.reduceat(w * labels[order], starts, axis=1)
    down = np.add.reduceat(w * (1 - labels[order]), starts, axis=1)
    below = np.cumsum(down, axis=1) - down / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        share: Floats = (up * below).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1))
    return share
