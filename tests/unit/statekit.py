"""A stateful step with its keyed state, as a worker drives it, for the tests of such steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.batch import Batch, Frames, Meta, read_lineage
from headrace.processor import Context, Processor
from headrace.state import KeyedState
from headrace.state.bottom import Memory
from headrace.testing import Record

Row = tuple[int, dict[str, Any]]
"""(partition, columns); offsets count up in each partition."""


def made(kind: type[Processor], config: dict[str, Any], schema: pa.Schema) -> Processor:
    step = kind(kind.Config.model_validate(config), project=Path())
    step.outputs(schema)
    return step


def records(rows: Sequence[Row], key: str | None = None) -> list[tuple[Record, dict[str, Any]]]:
    """Each row with its place."""
    offsets: dict[int, int] = {}
    out = []
    for partition, columns in rows:
        at = offsets[partition] = offsets.get(partition, -1) + 1
        named = None if key is None or columns[key] is None else str(columns[key]).encode()
        out.append((Record(b"", "t", partition, at, named, timestamp_ms=1_000 + at), columns))
    return out


class Driven:
    """Feeds batches and commits them; `got[relationship]` is (columns, key, timestamp, lineage) of all that came."""

    def __init__(self, step: Processor, schema: pa.Schema, partitions: int = 3) -> None:
        self.step, self.schema = step, schema
        self.state = KeyedState()
        self.counts: dict[str, int] = {}
        for number in range(partitions):
            self.state.assign(number, Memory())
        self.ctx = Context("flow", "step", Path(), store=lambda at: self.state.view(at[1], "step"), count=self._count)
        self.got: dict[str, list[tuple[Any, ...]]] = {}

    def _count(self, metric: str, label: str, n: int) -> None:
        self.counts[label] = self.counts.get(label, 0) + n

    def feed(self, placed: Sequence[tuple[Record, dict[str, Any]]], *, commit: bool = True) -> dict[str, Batch]:
        rows = pa.RecordBatch.from_pylist([columns for _, columns in placed], schema=self.schema)
        out = dict(self.step.process(Batch(rows, Meta(Frames([record for record, _ in placed]))), self.ctx))
        assert all(len(batch) for batch in out.values())
        if not commit:
            self.state.undo()
            return out
        self.state.seal()
        self.state.commit({})
        for name, batch in out.items():
            self.got.setdefault(name, []).extend(zip(
                [tuple(row.items()) for row in batch.rows.to_pylist()], batch.meta.keys(), batch.meta.timestamps_ms(),
                map(read_lineage, batch.meta.headers()), strict=True))
        return out

    def by_partition(self) -> dict[str, dict[Any, list[Any]]]:
        """What came, in order within each partition: that of partitions among each other depends on batches."""
        out: dict[str, dict[Any, list[Any]]] = {}
        for name, rows in self.got.items():
            for row in rows:
                out.setdefault(name, {}).setdefault(row[3].partition, []).append(row)
        return out


def cut(placed: list[Any], cuts: Sequence[int]) -> list[list[Any]]:
    """The rows in batches that end at `cuts`."""
    ends = sorted({min(at, len(placed)) for at in cuts} | {len(placed)})
    return [part for start, end in zip([0, *ends], ends, strict=False) if (part := placed[start:end])]
