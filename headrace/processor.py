"""The contract of a processor: a step of a flow, batches in, batches out by relationship."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from headrace.batch import Batch
from headrace.config import Config

if TYPE_CHECKING:
    from headrace.settings import Settings
    from headrace.state import View

Partition = tuple[str, int]
"""(topic, partition)"""
SmallState = MutableMapping[str, Any]
"""JSON values only; it rides in the committed offset's metadata (all steps of a flow share 4,095 characters)."""


def _no_state(partition: Partition) -> Any:
    raise AssertionError("this step asked for state, and the runner gives none")


@dataclass(frozen=True, slots=True)
class Context:
    """What the engine lends a step.

    `state(partition)` gives the step's small state for one source partition. What is written to it counts only once
    the batch's transaction commits: after an abort or a crash it stands as it was before the batch.
    `store(partition)` gives its keyed state there, for any number of keys, under the same promise; a step that uses it
    says `stateful = True`. Partitions of one number of a flow's sources share it.
    `partitions()` are the numbers of the partitions that are ours now, for `tick`.
    `now_ms` is the wall clock, for observation only; decisions stand on event time or offsets, which replay alike.
    `settings` is where Kafka and the registry are, for steps that read beside the stream; None where there is neither.
    """

    flow: str
    step: str
    project: Path
    state: Callable[[Partition], SmallState] = _no_state
    store: Callable[[Partition], View] = _no_state
    partitions: Callable[[], Sequence[int]] = lambda: ()
    settings: Settings | None = None
    owner: str = ""
    control: str = "headrace"
    """What the names of the flow's control topics begin with."""
    now_ms: Callable[[], int] = lambda: 0
    count: Callable[[str, str, int], None] = field(default=lambda name, label, n: None)
    """count(metric, label, n): e.g. count("expectation", "tailnum_not_null", 12)."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What an output column is made of: columns of the input (`input` is its place in `from`), one of them as it is
    where `copy`."""

    columns: tuple[str, ...]
    copy: bool = False
    input: int = 0


class Processor(ABC):
    """One step. Built with its validated config at plan time, opened once per worker, then fed batch by batch.

    Not guaranteed: that a batch ends anywhere in particular, that partitions arrive in turn, that `process` is called
    once per record (after an abort the same records come again, with the state of before), or that `close` is called
    after a crash. A verdict must not depend on where a batch ends.
    """

    Config: ClassVar[type[Config]]
    main: ClassVar[str] = "success"
    """The relationship that a following step without `from` reads."""
    inputs: ClassVar[tuple[int, int]] = (1, 1)
    """How many outputs a step of it reads, at least and at most. Where that is more than one, `from` is a list, and
    `outputs_of` and `process_many` take the place of `outputs` and `process`."""
    stateful: ClassVar[bool] = False
    """Whether it keeps keyed state (`ctx.store`)."""
    own_rows: ClassVar[bool] = False
    """Whether its rows are of its own making, so that a quarantine, which writes payloads as they came, cannot have
    them."""
    ticks: ClassVar[bool] = False
    """Whether `tick` is to be called."""

    tagged: Mapping[str, str] = MappingProxyType({})
    """Personal data in the rows that come in, in clear: path → tag. The plan says it before it asks for `outputs`."""

    def __init__(self, config: Any, *, project: Path) -> None:
        """`config` is an instance of `Config`; paths in it are relative to `project`. Files may be read, no network."""
        self.config = config
        self.project = project

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        """Relationship → schema of its rows, for rows of `schema`. Called at plan time, before `open`; no I/O to
        brokers. Raises UserError (ExpressionError, SuiteError, SchemaError) with what is wrong and what to do.
        The schema of `failure` is the input's."""
        raise NotImplementedError

    def outputs_of(self, schemas: Sequence[pa.Schema]) -> Mapping[str, pa.Schema]:
        """As `outputs`, of a step that may read several outputs: their schemas in the order of `from`."""
        return self.outputs(schemas[0])

    def notes(self, schema: pa.Schema) -> list[str]:
        """Remarks for lint to print as info (e.g. which expectations run whole, what a trigger's scope is)."""
        return []

    def origins(self, relationship: str) -> Mapping[str, Origin] | None:
        """What the columns of an output are made of, for those who ask where a field goes; called after `outputs`.
        None where that is not said: then columns that came in by the same name are taken for copies, and any other may
        be made of all."""
        return None

    def protects(self) -> Mapping[str, str]:
        """Fields that leave by `main` protected: path → how, e.g. tokenise. Called after `outputs`."""
        return {}

    def open(self, ctx: Context) -> None:  # noqa: B027
        """Called once in the worker, before the first batch."""

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        """Relationship → batch. Every input row leaves by exactly the relationships `outputs` declared; a relationship
        without rows may be left out. Never mutates `batch`. Raises Retriable for a bad environment only. Any other
        error is taken for a record's fault, which is looked for by calling this again with parts of the batch."""
        raise NotImplementedError

    def process_many(self, batches: Sequence[Batch | None], ctx: Context) -> Mapping[str, Batch]:
        """As `process`, of a step that may read several outputs: their batches in the order of `from`, None where
        one has no rows now. At least one has."""
        assert batches[0] is not None, "a step is called when it has rows"
        return self.process(batches[0], ctx)

    def tick(self, ctx: Context) -> Mapping[str, Batch]:
        """Called about four times a second between batches, when `ticks`: what is to be said without a record having
        come. What it returns and what it changes in state goes out in a transaction of its own, or never was: then it
        is called again with the state of before. For every partition of `ctx.partitions()`."""
        return {}

    def revoked(self, partitions: Collection[Partition]) -> None:  # noqa: B027
        """These partitions now belong to another worker; forget what was kept for them."""

    def close(self) -> None:  # noqa: B027
        """Called once, at a clean end."""
