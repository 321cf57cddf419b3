"""Shadow: on a share of the batches Great Expectations itself judges too, and its verdicts are compared with ours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.blame import Index
from headrace.contracts.contract import Contract
from headrace.contracts.report import Report
from headrace.contracts.whole import Whole
from headrace.errors import MissingExtra

RUNS_MAX = 64
"""Validations spent on rows that make Great Expectations raise; those not told apart are not compared."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The rows of a batch that break an expectation, by our verdict and by that of Great Expectations itself; but for
    rows on which it raises, of which it has no verdict."""

    id: str
    ours: Index
    theirs: Index

    @property
    def differing(self) -> Index:
        """The rows that only one of the two finds unexpected, in order."""
        return np.setxor1d(self.ours, self.theirs)


class Shadow:
    """The row-level expectations of a contract once more, as Great Expectations judges them. Those that run whole are
    left out: their verdict is Great Expectations' own already."""

    def __init__(self, contract: Contract, share: float) -> None:
        """`share` of the batches are to be compared, 0 … 1. Imports Great Expectations (3–4 s). Raises MissingExtra,
        or SuiteError with what Great Expectations has against an expectation."""
        self.share = share
        expectations = [c.expectation for c in contract.checks if c.kind == "row" and c.tier != "whole"]
        try:
            self._whole = Whole(expectations) if expectations else None
        except MissingExtra as error:
            raise MissingExtra("gx", f"shadow: {share:g}") from error

    def due(self, place: str) -> bool:
        """Whether the batch that begins at this position is to be compared: always the same answer for a position."""
        drawn = hashlib.blake2b(place.encode(), digest_size=8).digest()
        return int.from_bytes(drawn, "big") < self.share * 2**64

    def compare(self, rows: pa.RecordBatch, report: Report) -> list[Compared]:
        """The verdicts on a batch beside those of `report`, one an expectation, in the suite's order."""
        if self._whole is None:
            return []
        told = self._whole.judge(rows)
        masks = {each.check.expectation.id: each.unexpected() for each in report.judged}
        out = []
        for e in self._whole.expectations:
            theirs, raised = self._whole.blame(e.id, rows, told[e.id], runs_max=RUNS_MAX)
            apart = np.array(list(raised), np.int64)
            out.append(Compared(e.id, np.setdiff1d(_index(masks[e.id]), apart), np.setdiff1d(theirs, apart)))
        return out


def _index(mask: pa.BooleanArray | None) -> Index:
    if mask is None:
        return np.zeros(0, np.int64)
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False)).astype(np.int64)
