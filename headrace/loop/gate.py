"""The gate: challengers against the champion on the same held-out rows. Only what is blessed may take over.

A challenger passes when it is good enough by itself (`value_min`), better than the champion by `change_min`, and a
paired bootstrap says that it is not worse by more than `inferiority_max`; no slice of the rows may suffer; and it
must be fit to run (latency, size, signature). Challengers come in the order of trust, and one that is trusted less
must be clearly better than champion and challengers before it: on one held-out stretch a model of recent rows looks
good just because that stretch is recent, and it fails when the season turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from headrace.config import Config
from headrace.loop.bootstrap import difference
from headrace.loop.measures import MEASURES, all_of


class GateSpec(Config):
    """What a challenger must show."""

    measure: Literal["auc", "log_loss", "brier"] = Field("auc", description="What is compared.")
    value_min: float | None = Field(
        None, description="The least a challenger's measure must be (for log_loss and brier: the most).")
    change_min: float = Field(0.0, description="By how much a challenger must be better than the champion.")
    inferiority_max: float = Field(0.01, ge=0, description="It must be sure that it is not worse by more than this.")
    confidence: float = Field(0.9, gt=0.5, lt=1, description="How sure, one-sided.")
    resamples: int = Field(400, ge=50, le=10_000, description="Draws of the bootstrap.")
    distrust: float = Field(
        0.02, ge=0, description="By how much every challenger but the first named must be better than the champion and "
        "all those named before it.")
    rows_min: int = Field(1000, ge=1, description="Fewer held-out rows bless nothing.")
    class_rows_min: int = Field(100, ge=1, description="So many of them must be of each class.")
    slice_inferiority_max: float = Field(
        0.05, ge=0, description="In no slice may a challenger be worse by more than this, unless that may be chance.")
    slice_rows_min: int = Field(300, ge=1, description="Slices of fewer rows, or under 20 of a class, say nothing.")
    latency_max_ms: float | None = Field(None, gt=0, description="The longest a batch of predictions may take.")
    size_max_bytes: int | None = Field(None, gt=0, description="The largest a stored model may be.")
    seed: int = Field(7, ge=0, description="Of the bootstrap.")


@dataclass(frozen=True, slots=True)
class Blessing:
    """`chosen` names the blessed challenger, or, where none is blessed, the best of those judged (None of none).
    `reasons` are sentences; `measures` by `<challenger>.<measure>` and `champion.<measure>`, finite numbers only."""

    blessed: bool
    chosen: str | None
    reasons: tuple[str, ...]
    measures: Mapping[str, float]


def judge(spec: GateSpec, champion: Any | None, challengers: Mapping[str, Any], labels: Any, *,
          slices: Mapping[str, Any] | None = None, infra: Mapping[str, Mapping[str, Any]] | None = None,
          blocks: Any = None) -> Blessing:
    """Judges scores of the same rows as `labels`.

    `champion` is None where there is none; `challengers` are in the order of trust; `slices` have a value per row by
    column; `infra` has what was found by challenger: `loads` and `signature_ok` (bool), `latency_ms`, `size_bytes`;
    `blocks` says which rows belong together (see `bootstrap.difference`).
    """
    y = np.asarray(labels, dtype=np.float64)
    scores = {name: np.asarray(given, dtype=np.float64) for name, given in challengers.items()}
    for name, given in (("champion", champion), *scores.items()):
        assert given is None or len(given) == len(y), f"{name} has {len(given)} scores for {len(y)} labels"
    sign = MEASURES[spec.measure][1]
    measures: dict[str, float] = {}
    for name, given in (("champion", champion), *scores.items()):
        if given is not None:
            measures |= {f"{name}.{kind}": value for kind, value in all_of(y, given).items() if np.isfinite(value)}
    ones = int(y.sum())
    if len(y) < spec.rows_min or min(ones, len(y) - ones) < spec.class_rows_min:
        return Blessing(False, None, (f"{len(y)} held-out rows, {ones} of them ones, are too few to judge by "
                                      f"(at least {spec.rows_min}, of each class {spec.class_rows_min})",), measures)
    reasons = [] if champion is not None else ["there is no champion: judged against the bounds alone"]
    passed: list[str] = []
    for name, given in scores.items():
        facts = (infra or {}).get(name, {})
        against = [*_against(spec, name, y, champion, given, slices or {}, facts, blocks, measures),
                   *_too_little(spec, name, list(scores)[:list(scores).index(name)], measures)]
        reasons += [f"{name}: {reason}" for reason in against]
        passed += [] if against else [name]
    ranked = passed or list(scores)
    if not ranked:
        return Blessing(False, None, ("no challenger was given",), measures)
    best = max(ranked, key=lambda name: sign * measures.get(f"{name}.{spec.measure}", -np.inf * sign))
    if not passed:
        return Blessing(False, best, tuple(reasons), measures)
    shown = f"{best}: {spec.measure} {measures[f'{best}.{spec.measure}']:.4f}"
    if champion is not None:
        shown += f", the champion {measures[f'champion.{spec.measure}']:.4f}, on the same {len(y)} rows"
    return Blessing(True, best, (shown, *reasons), measures)


def _too_little(spec: GateSpec, name: str, before: list[str], measures: Mapping[str, float]) -> Iterator[str]:
    """What speaks against a challenger that is trusted less than those before it."""
    sign = MEASURES[spec.measure][1]
    held = {each: sign * measures[f"{each}.{spec.measure}"] for each in ("champion", *before)
            if f"{each}.{spec.measure}" in measures}
    if before and held:
        rival = max(held, key=lambda each: held[each])
        ahead = sign * measures.get(f"{name}.{spec.measure}", -np.inf * sign) - held[rival]
        if ahead < spec.distrust:
            yield (f"it is trusted less than {', '.join(before)}, and better than {rival} by {ahead:+.4f} only; "
                   f"{spec.distrust:+g} is wanted")


def _against(spec: GateSpec, name: str, y: Any, champion: Any | None, given: Any, slices: Mapping[str, Any],
             infra: Mapping[str, Any], blocks: Any, measures: dict[str, float]) -> Iterator[str]:
    """What speaks against one challenger."""
    sign = MEASURES[spec.measure][1]
    value = measures.get(f"{name}.{spec.measure}")
    if value is None or not np.isfinite(given).all():
        yield "scores that are no numbers"
        return
    if spec.value_min is not None and sign * (value - spec.value_min) < 0:
        yield f"{spec.measure} {value:.4f}, and {spec.value_min:g} is wanted"
    yield from _unfit(spec, infra)
    if champion is None:
        return
    drawn: dict[str, Any] = {"resamples": spec.resamples, "confidence": spec.confidence, "seed": spec.seed}
    found = difference(spec.measure, y, champion, given, blocks=blocks, **drawn)
    measures |= {f"{name}.change": found.value, f"{name}.change_lower": found.lower,
                 f"{name}.change_upper": found.upper}
    if found.value < spec.change_min:
        yield f"{spec.measure} changes by {found.value:+.4f}, and at least {spec.change_min:+g} is wanted"
    if not found.lower >= -spec.inferiority_max:
        yield (f"it may be worse by {-found.lower:.4f} (with {spec.confidence:.0%} confidence no more), and "
               f"{spec.inferiority_max:g} is allowed")
    for column, values in slices.items():
        for each in np.unique(np.asarray(values, dtype=str)).tolist():
            mine = np.asarray(values, dtype=str) == each
            ones = int(y[mine].sum())
            if mine.sum() < spec.slice_rows_min or min(ones, int(mine.sum()) - ones) < 20:
                continue
            part = difference(spec.measure, y[mine], np.asarray(champion)[mine], given[mine],
                              blocks=None if blocks is None else np.asarray(blocks)[mine], **drawn)
            measures[f"{name}.change.{column}={each}"] = part.value
            if part.value < -spec.slice_inferiority_max and part.upper < 0:
                yield f"where {column} is {each}, {spec.measure} changes by {part.value:+.4f}"


def _unfit(spec: GateSpec, infra: Mapping[str, Any]) -> Iterator[str]:
    """The infra check: what was not looked at says nothing, unless it is bounded."""
    if infra.get("loads") is False:
        yield "it does not load"
    if infra.get("signature_ok") is False:
        yield "its signature is not the flow's"
    for fact, most, unit in (("latency_ms", spec.latency_max_ms, "ms"), ("size_bytes", spec.size_max_bytes, "bytes")):
        if most is not None and not infra.get(fact, np.inf) <= most:
            yield f"{fact.partition('_')[0]} {infra.get(fact, 'not measured')} {unit}, and {most:g} is allowed"
