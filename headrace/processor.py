"""The contract of a processor: a step of a flow, batches in, batches out by relationship."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from headrace.batch import Batch
from headrace.config import Config

Partition = tuple[str, int]
"""(topic, partition)"""
SmallState = MutableMapping[str, Any]
"""JSON values only; it rides in the committed offset's metadata (all steps of a flow share 4,095 characters)."""


def _no_state(partition: Partition) -> SmallState:
    raise AssertionError("this step asked for state, and the runner gives none")


@dataclass(frozen=True, slots=True)
class Context:
    """What the engine lends a step.

    `state(partition)` gives the step's small state for one source partition. What is written to it counts only once
    the batch's transaction commits: after an abort or a crash it stands as it was before the batch.
    `now_ms` is the wall clock, for observation only; decisions stand on event time or offsets, which replay alike.
    """

    flow: str
    step: str
    project: Path
    state: Callable[[Partition], SmallState] = _no_state
    now_ms: Callable[[], int] = lambda: 0
    count: Callable[[str, str, int], None] = field(default=lambda name, label, n: None)
    """count(metric, label, n): e.g. count("expectation", "tailnum_not_null", 12)."""


class Processor(ABC):
    """One step. Built with its validated config at plan time, opened once per worker, then fed batch by batch.

    Not guaranteed: that a batch ends anywhere in particular, that partitions arrive in turn, that `process` is called
    once per record (after an abort the same records come again, with the state of before), or that `close` is called
    after a crash. A verdict must not depend on where a batch ends.
    """

    Config: ClassVar[type[Config]]
    main: ClassVar[str] = "success"
    """The relationship that a following step without `from` reads."""

    def __init__(self, config: Any, *, project: Path) -> None:
        """`config` is an instance of `Config`; paths in it are relative to `project`. Files may be read, no network."""
        self.config = config
        self.project = project

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        """Relationship → schema of its rows, for rows of `schema`. Called at plan time, before `open`; no I/O to
        brokers. Raises UserError (ExpressionError, SuiteError, SchemaError) with what is wrong and what to do.
        The schema of `failure` is the input's."""
        raise NotImplementedError

    def notes(self, schema: pa.Schema) -> list[str]:
        """Remarks for lint to print as info (e.g. which expectations run whole, what a trigger's scope is)."""
        return []

    def open(self, ctx: Context) -> None:  # noqa: B027
        """Called once in the worker, before the first batch."""

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        """Relationship → batch. Every input row leaves by exactly the relationships `outputs` declared; a relationship
        without rows may be left out. Never mutates `batch`. Raises Retriable for a bad environment only."""
        raise NotImplementedError

    def revoked(self, partitions: Collection[Partition]) -> None:  # noqa: B027
        """These partitions now belong to another worker; forget what was kept for them."""

    def close(self) -> None:  # noqa: B027
        """Called once, at a clean end."""
