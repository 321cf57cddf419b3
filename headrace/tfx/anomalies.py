"""What is wrong with data → TFX's Anomalies: broken expectations, missing and new columns, drift.

    anomalies(schema, [*of_report(suite.expectations, report.counts, rows, schema), *of_columns(schema, names)],
              drift=[Drift("dest", "jensen_shannon", 0.12, 0.1)])
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.contracts import Expectation
from headrace.tfx import proto
from headrace.tfx.schema import BETWEEN, NOT_NULL, SET

Message = Any
REASONS: Mapping[tuple[str, str], str] = {
    **{(NOT_NULL, kind): "FEATURE_TYPE_LOW_FRACTION_PRESENT" for kind in ("INT", "FLOAT", "BYTES", "STRUCT")},
    (SET, "BYTES"): "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
}
"""(expectation, the feature's type) → the type of TFX's reason; ranges are told by their side, all else is custom."""
SIDES: Mapping[tuple[str, str], str] = {
    ("INT", "low"): "INT_TYPE_SMALL_INT", ("INT", "high"): "INT_TYPE_BIG_INT",
    ("FLOAT", "low"): "FLOAT_TYPE_SMALL_FLOAT", ("FLOAT", "high"): "FLOAT_TYPE_BIG_FLOAT",
}
CUSTOM = "CUSTOM_VALIDATION"
MEASURES: Mapping[str, tuple[str, str]] = {
    "l_infinity": ("L_INFTY", "COMPARATOR_L_INFTY_HIGH"),
    "jensen_shannon": ("JENSEN_SHANNON_DIVERGENCE", "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"),
    "normalized_difference": ("NORMALIZED_ABSOLUTE_DIFFERENCE", "COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH"),
}
"""A measure of drift → (TFX's measurement, TFX's reason). PSI and KS have no name there: UNKNOWN, and custom."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """One reason against one column; `type` is a name of AnomalyInfo.Type, `severity` critical, warning or info.

    Column "" is the data set as a whole."""

    column: str
    type: str
    short: str
    description: str
    severity: str = "critical"


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a column is from where it was; above the threshold it is an anomaly, below it only a measurement."""

    column: str
    measure: str
    value: float
    threshold: float


def anomalies(schema: Message, wrong: Iterable[Wrong], *, drift: Sequence[Drift] = (),
              data_missing: bool = False) -> Message:
    """An Anomalies message with `schema` as its baseline. Raises MissingExtra; ValueError on a type TFX has not."""
    module = proto("anomalies")
    made = module.Anomalies(baseline=schema, data_missing=data_missing)
    for one in (*wrong, *(w for d in drift if (w := _drifted(d)) is not None)):
        info = made.anomaly_info[one.column] if one.column else made.dataset_anomaly_info
        if one.column:
            del info.path.step[:]
            info.path.step.append(one.column)
        info.severity = max(info.severity, info.ERROR if one.severity == "critical" else info.WARNING)
        info.reason.add(type=info.Type.Value(one.type), short_description=one.short, description=one.description)
        several = len(info.reason) > 1
        info.short_description = "Multiple errors" if several else one.short
        info.description = " ".join(f"{r.description.rstrip('.')}." for r in info.reason) if several \
            else one.description
    for d in drift:
        told = made.drift_skew_info.add()
        told.path.step.append(d.column)
        kind = module.DriftSkewInfo.Measurement.Type.Value(MEASURES.get(d.measure, ("UNKNOWN",))[0])
        told.drift_measurements.add(type=kind, value=d.value, threshold=d.threshold)
    return made


def of_report(expectations: Iterable[Expectation], counts: Mapping[str, int], rows: int, schema: Message,
              sides: Mapping[str, Collection[str]] | None = None) -> list[Wrong]:
    """What a contract's report says: `counts` are unexpected rows by expectation id, of `rows`. Of a broken range,
    `sides` (id → low, high, or both) says where it was left; without, it is a custom reason, not a guessed one."""
    kinds = {f.name: proto("schema").FeatureType.Name(f.type) for f in schema.feature}
    found = []
    for e in expectations:
        n = counts.get(e.id, 0)
        if not n:
            continue
        column = e.columns[0] if len(e.columns) == 1 else ""
        kind = kinds.get(column, "")
        types = [SIDES[kind, side] for side in (sides or {}).get(e.id, ()) if (kind, side) in SIDES] \
            if e.type == BETWEEN else [REASONS.get((e.type, kind), CUSTOM)]
        found += [Wrong(column, type_, e.id, f"{n:,} of {rows:,} rows break {e.type} ({e.id})", e.severity)
                  for type_ in types or [CUSTOM]]
    return found


def of_columns(schema: Message, columns: Collection[str]) -> list[Wrong]:
    """Columns that the schema has and the data have not, and the other way round."""
    known = [f.name for f in schema.feature]
    missing = [Wrong(n, "SCHEMA_MISSING_COLUMN", "Column dropped", "The data have no such column") for n in known
               if n not in columns]
    return missing + [Wrong(n, "SCHEMA_NEW_COLUMN", "New column", "The schema has no such column", "warning")
                      for n in columns if n not in known]


def _drifted(d: Drift) -> Wrong | None:
    if not d.value > d.threshold:
        return None
    return Wrong(d.column, MEASURES.get(d.measure, ("", CUSTOM))[1], f"High {d.measure}",
                 f"{d.measure} between this window and the reference is {d.value:.6g}, above {d.threshold:.6g}")
