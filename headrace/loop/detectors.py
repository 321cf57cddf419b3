"""River's change detectors on a stream of losses, with their state as JSON between batches.

A detector fires often on losses that resemble their neighbours (ADWIN 192 times in ten months of flights): it tells
where to look, and is no reason to retrain. Debouncing is the policy's.

ADWIN's buckets live in compiled code; their bytes go into the state as base64, and only the same version of river
reads them back: after an upgrade the detector starts anew, and says so (`restarted`).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from headrace.errors import MissingExtra

Kind = Literal["adwin", "page_hinkley"]
_PAGE_HINKLEY = ("_drift_detected", "_sum_increase", "_sum_decrease", "_min_increase", "_max_decrease")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a batch of losses did: `state` for the next call, and at which of these losses (from 0) change was seen."""

    state: dict[str, Any]
    changes: list[int]
    restarted: bool


def watch(kind: Kind, losses: Iterable[float], state: Mapping[str, Any] | None = None, **options: Any) -> Seen:
    """Feeds losses, in order, to a detector that goes on from `state`. `options` are river's. Raises MissingExtra."""
    try:
        from river import __version__ as version
        from river.drift import ADWIN, PageHinkley
    except ImportError as missing:
        raise MissingExtra("ml", "watching losses for change") from missing
    detector = {"adwin": ADWIN, "page_hinkley": PageHinkley}[kind](**options)
    mine = {"kind": kind, "river": version, "options": options}
    fits = state is not None and all(state.get(name) == value for name, value in mine.items())
    if fits and state is not None:
        (_load_adwin if kind == "adwin" else _load_page_hinkley)(detector, state)
    changes = []
    for at, loss in enumerate(np.asarray(losses, dtype=np.float64).tolist()):  # river takes them one at a time
        detector.update(loss)
        if detector.drift_detected:
            changes.append(at)
    kept = _dump_adwin(detector) if kind == "adwin" else _dump_page_hinkley(detector)
    return Seen({**mine, **kept}, changes, restarted=state is not None and not fits)


def _dump_adwin(detector: Any) -> dict[str, Any]:
    return {"drift": bool(detector.drift_detected), "buckets": b64encode(detector._helper.__getstate__()).decode()}


def _load_adwin(detector: Any, state: Mapping[str, Any]) -> None:
    detector._helper.__setstate__(b64decode(state["buckets"]))
    detector._drift_detected = state["drift"]


def _dump_page_hinkley(detector: Any) -> dict[str, Any]:
    mean = detector._x_mean
    numbers = {name: getattr(detector, name) for name in _PAGE_HINKLEY}
    lowest = numbers["_min_increase"]
    return {**numbers, "_min_increase": None if lowest == float("inf") else lowest, "n": mean.n, "mean": mean._mean}


def _load_page_hinkley(detector: Any, state: Mapping[str, Any]) -> None:
    for name in _PAGE_HINKLEY:
        setattr(detector, name, state[name])
    if state["_min_increase"] is None:
        detector._min_increase = float("inf")
    detector._x_mean.n, detector._x_mean._mean = state["n"], state["mean"]
