"""What an expectation about many rows together is, once it is compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict


class Partial(Protocol):
    """What is known of some rows, small, and added up over many batches: the way a window is judged. A state is bytes,
    the same on every machine for the same rows in the same batches."""

    estimate: bool
    """Whether the verdict of many batches may differ from that on all rows at once (sketches, not sums)."""

    def of(self, rows: pa.RecordBatch) -> bytes:
        """The state of these rows."""

    def merge(self, left: bytes, right: bytes) -> bytes:
        """The state of both, in this order."""

    def estimated(self, state: bytes) -> bool:
        """Whether the verdict on this very state is an estimate."""

    def verdict(self, state: bytes) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An expectation compiled for a schema. Its verdict on a batch is Great Expectations' own."""

    judge: Callable[[pa.RecordBatch], Verdict]
    """The rows are those its row_condition leaves."""
    says: str
    """What is wrong when it fails, for people, with {} where the observed value goes: "the mean of distance is {}, not
    between 100 and 200"."""
    partial: Partial | None = None
    """None: a window cannot judge it."""


Compiler = Callable[[Expectation, pa.Schema], "Aggregate | str"]
"""The aggregate, or why there is none: then Great Expectations itself judges. Raises SuiteError where the verdict could
only ever be an error."""
