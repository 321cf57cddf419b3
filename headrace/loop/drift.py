"""How far a window's inputs are from what a model was trained on: histograms that add up, and three distances.

    reference = drift.reference(training_rows, numeric=["temp"], categorical=["carrier"])     # JSON
    counts = drift.merge(drift.count(reference, rows), drift.count(reference, more_rows))     # JSON
    drift.compare(reference, counts)["temp"].psi

A histogram has a place for what training did not have (numbers below and above its range, other categories), and its
last place is the nulls'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from headrace.config import Config
from headrace.errors import UserError

Rows: TypeAlias = pa.Table | pa.RecordBatch
Reference = Mapping[str, Mapping[str, Any]]
"""column → {"edges": lower edges of all bins but the first} or {"values": categories}, and {"counts": of training}."""
Counts = Mapping[str, Sequence[int]]
"""column → rows by bin of the reference."""
BINS, CATEGORIES_MAX = 10, 200
SMOOTH = 0.5
"""Added to every bin, so that an empty one is rare and not impossible."""


@dataclass(frozen=True, slots=True)
class Drift:
    """The distance of one column: effect sizes all, 0 for the same distribution.

    `psi` population stability index, in nats (0.1 some, 0.25 much); `noise` is what to expect of it by chance alone.
    `js` Jensen–Shannon distance, 0 … 1. `ks` largest gap of the distribution functions at the edges, 0 … 1, with the
    p-value of its being chance; None for categories. `unseen` is the share of what training did not have:
    numbers out of its range, other categories. `nulls` is the change of the share of nulls.
    """

    psi: float
    noise: float
    js: float
    ks: float | None
    ks_p: float | None
    unseen: float
    nulls: float


def reference(rows: Rows, *, numeric: Sequence[str] = (), categorical: Sequence[str] = (),
              bins: int = BINS) -> dict[str, dict[str, Any]]:
    """`bins` bins by the rows' own quantiles, or the most frequent categories, with the rows' counts. JSON-able."""
    out: dict[str, dict[str, Any]] = {}
    for name in numeric:
        values = _numbers(rows, name)
        values = values[~np.isnan(values)]
        edges = np.quantile(values, np.linspace(0, 1, bins + 1)) if len(values) else np.array([])
        edges[-1:] = np.nextafter(edges[-1:], np.inf)  # so that the last bin is of numbers above all that were seen
        out[name] = {"edges": np.unique(edges).tolist()}
    for name in categorical:
        found = pc.value_counts(_text(rows, name).drop_null()).to_pylist()
        found.sort(key=lambda each: (-each["counts"], each["values"]))
        out[name] = {"values": [each["values"] for each in found[:CATEGORIES_MAX]]}
    counted = count(out, rows)
    return {name: {**bounds, "counts": counted[name]} for name, bounds in out.items()}


def count(by: Reference, rows: Rows) -> dict[str, list[int]]:
    """The rows by bin of every column of the reference. Raises UserError for a column that the rows do not have."""
    return {name: _count(bounds, rows, name) for name, bounds in by.items()}


def merge(one: Counts, other: Counts) -> dict[str, list[int]]:
    """Both windows' counts together."""
    return {name: (np.asarray(counts) + np.asarray(other[name])).tolist() for name, counts in one.items()}


def compare(by: Reference, counts: Counts) -> dict[str, Drift]:
    """The distances of each column of the reference."""
    return {name: _compare(np.asarray(bounds["counts"], dtype=np.float64), np.asarray(counts[name], dtype=np.float64),
                           ordered="edges" in bounds) for name, bounds in by.items()}


class DriftSpec(Config):
    """When a window's inputs are another regime than the training data's."""

    psi_min: float = Field(0.5, gt=0, description="A column has drifted when its PSI, less what chance gives, is this.")
    columns_min: int = Field(1, ge=1, description="So many columns must have drifted.")
    rows_min: int = Field(500, ge=1, description="A window of fewer rows says nothing.")


def judge(spec: DriftSpec, by: Reference, counts: Counts) -> tuple[bool, dict[str, float], list[str]]:
    """(within bounds, measures, reasons) of one window; measures are `psi.<column>`, `js.<column>`, `ks.<column>`."""
    found = compare(by, counts)
    measures = {f"{kind}.{name}": value for name, each in found.items()
                for kind, value in (("psi", each.psi), ("js", each.js), ("ks", each.ks)) if value is not None}
    rows = min((sum(column) for column in counts.values()), default=0)
    if rows < spec.rows_min:
        return True, measures, [f"{rows} rows are too few to tell (under {spec.rows_min})"]
    moved = sorted(((each.psi, name) for name, each in found.items() if each.psi - each.noise >= spec.psi_min),
                   reverse=True)
    words = ", ".join(f"{name} (PSI {psi:.2f})" for psi, name in moved) or "none"
    return len(moved) < spec.columns_min, measures, [f"inputs that moved by {spec.psi_min:g} or more: {words}"]


def _count(bounds: Mapping[str, Any], rows: Rows, name: str) -> list[int]:
    if "edges" in bounds:
        values = _numbers(rows, name)
        size = len(bounds["edges"]) + 1
        at = np.where(np.isnan(values), size, np.searchsorted(bounds["edges"], values, side="right"))
    else:
        column, size = _text(rows, name), len(bounds["values"]) + 1
        place = pc.index_in(column, value_set=pa.array(bounds["values"], type=column.type))
        place = pc.if_else(column.is_null(), size, pc.fill_null(place, size - 1))
        at = place.to_numpy(zero_copy_only=False) if isinstance(place, pa.Array) else place.to_numpy()
    counted: list[int] = np.bincount(at, minlength=size + 1).tolist()
    return counted


def _compare(before: np.ndarray[Any, Any], now: np.ndarray[Any, Any], *, ordered: bool) -> Drift:
    m, n = before.sum(), now.sum()
    p, q = ((each + SMOOTH) / (each.sum() + SMOOTH * len(each)) for each in (before, now))
    middle = (p + q) / 2
    js = (p * np.log2(p / middle)).sum() / 2 + (q * np.log2(q / middle)).sum() / 2
    ks = p_value = None
    new = now[[0, -2]].sum() if ordered else now[-2]
    if ordered:
        here, there = max(before[:-1].sum(), 1), max(now[:-1].sum(), 1)
        ks = float(np.abs(np.cumsum(before[:-1] / here) - np.cumsum(now[:-1] / there)).max())
        p_value = _chance(ks * np.sqrt(here * there / (here + there)))
    chance = max(np.count_nonzero(before + now) - 1, 0) * (1 / max(m, 1) + 1 / max(n, 1))
    return Drift(psi=float(((q - p) * np.log(q / p)).sum()), noise=float(chance),
                 js=float(np.sqrt(max(js, 0.0))), ks=ks, ks_p=p_value, unseen=float(new / max(n, 1)),
                 nulls=float(now[-1] / max(n, 1) - before[-1] / max(m, 1)))


def _chance(scaled: float) -> float:
    """Kolmogorov's tail probability of a scaled gap; with bins for values it errs towards chance."""
    if scaled < 0.2:
        return 1.0
    k = np.arange(1, 101)
    return float(np.clip(2 * ((-1.0) ** (k - 1) * np.exp(-2 * (k * scaled) ** 2)).sum(), 0, 1))


def _column(rows: Rows, name: str) -> Any:
    if name not in rows.schema.names:
        raise UserError(f"drift is measured of “{name}”, which is no column of the rows",
                        hint=f"they have {', '.join(rows.schema.names)}")
    return rows.column(name)


def _numbers(rows: Rows, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The column as float64, nulls as NaN."""
    column = pc.cast(_column(rows, name), pa.float64(), safe=False).fill_null(float("nan"))
    values: np.ndarray[Any, np.dtype[np.float64]] = column.to_numpy()
    return values


def _text(rows: Rows, name: str) -> Any:
    return pc.cast(_column(rows, name), pa.string())
