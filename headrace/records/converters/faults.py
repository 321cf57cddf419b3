"""Which records of a column cannot be converted, and why: told by passes that work on whole columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.batch import Index


class Faults:
    """Reasons by place in the column that was given. The first reason found for a record is the one that stays."""

    def __init__(self) -> None:
        self.reasons: dict[int, str] = {}

    def mark(self, at: Any, rows: Index, why: str) -> None:
        """`at`: a mask or positions; `rows`: the record that each position is a part of."""
        for row in np.unique(rows[at]).tolist():
            self.reasons.setdefault(row, why)

    def good(self, n: int) -> Index:
        """The records without a fault, in order."""
        keep = np.ones(n, np.bool_)
        keep[list(self.reasons)] = False
        return np.flatnonzero(keep)
