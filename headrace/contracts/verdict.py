"""What is said of one expectation on one batch, or on one window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """As Great Expectations says it. `result` is its result object of format COMPLETE, in plain Python values:
    {"observed_value": …} of an aggregate, {"element_count": …, "unexpected_count": …, …} of a map expectation."""

    success: bool
    result: Mapping[str, Any]
    raised: str | None = None
    """What a metric raised: then success is false and the result empty, as Great Expectations has it."""
