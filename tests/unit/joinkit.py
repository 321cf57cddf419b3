"""A join or a lookup by itself: rows in as batches of two topics, state in memory, transactions that end as told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.batch import Batch, Frames, Meta, read_lineage
from headrace.processor import Context, Processor
from headrace.processors.join import Join
from headrace.state import KeyedState
from headrace.state.bottom import Memory
from headrace.testing import Record

Row = dict[str, Any]
LEFT = pa.schema([pa.field("id", pa.string()), pa.field("scored_at", pa.timestamp("ms", "UTC")),
                  pa.field("p", pa.float64()), pa.field("n", pa.int64(), False)])
RIGHT = pa.schema([pa.field("id", pa.string()), pa.field("arrived_at", pa.timestamp("ms", "UTC")),
                   pa.field("label", pa.bool_()), pa.field("m", pa.int64(), False)])
TOPICS = ("predictions", "labels")


def join(schemas: Sequence[pa.Schema] = (LEFT, RIGHT), **config: Any) -> Join:
    """A planned join; by default on `id`, from `scored_at` to `arrived_at`."""
    given = {"on": "id", "time": {"left": "scored_at", "right": "arrived_at"}, "within": "10ms", **config}
    step = Join(Join.Config.model_validate(given), project=Path("."))
    step.outputs_of(schemas)
    return step


def batch(schema: pa.Schema, topic: str, rows: Sequence[tuple[int, int, Row]], key: str = "id") -> Batch | None:
    """(partition, offset, row) as rows of a topic, their timestamps 1,000,000 + offset."""
    if not rows:
        return None
    messages = [Record(None, topic, partition, offset, str(row.get(key)).encode(), 1_000_000 + offset)
                for partition, offset, row in rows]
    return Batch(pa.RecordBatch.from_pylist([row for *_, row in rows], schema=schema), Meta(Frames(messages, topic)))


@dataclass
class Bench:
    """One step at work. `out` has every row given, by relationship, with the position it says it came from."""

    step: Processor
    make: Callable[[], Processor] | None = None
    schemas: Sequence[pa.Schema] = (LEFT, RIGHT)
    bottoms: dict[int, Memory] = field(default_factory=dict)
    out: dict[str, list[tuple[str, Row]]] = field(default_factory=dict)
    batches: list[Mapping[str, Batch]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = KeyedState()
        for number in range(4):
            self.state.assign(number, self.bottoms.setdefault(number, Memory()))
        self.context = Context("flow", "joined", Path("."), store=lambda at: self.state.view(at[1], "joined"))
        self.step.open(self.context)

    def run(self, left: Sequence[tuple[int, int, Row]], right: Sequence[tuple[int, int, Row]], *,
            aborts: int = 0) -> Mapping[str, Batch]:
        """One batch; it is aborted and comes again `aborts` times."""
        given = [batch(schema, topic, rows) for schema, topic, rows in
                 zip(self.schemas, TOPICS, (left, right), strict=True)]
        if all(each is None for each in given):
            return {}
        for _ in range(aborts):
            self.step.process_many(given, self.context)
            self.state.undo()
        made = self.step.process_many(given, self.context)
        self.state.seal()
        self.state.commit({})
        self.batches.append(made)
        for name, rows in made.items():
            origins = [str(read_lineage(headers)) for headers in rows.meta.headers()]
            self.out.setdefault(name, []).extend(zip(origins, rows.rows.to_pylist(), strict=True))
        return made

    def rows(self, name: str) -> list[Row]:
        return [row for _, row in self.out.get(name, [])]


def dumps(row: Row) -> str:
    return json.dumps(row, sort_keys=True, default=str)
