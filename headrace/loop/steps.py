"""What the loop's steps share: rows as control events with their positions, events as rows, state as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pyarrow as pa

from headrace.batch import Batch, Emitted, Meta, Span
from headrace.control import ControlEvent
from headrace.errors import SchemaError
from headrace.processor import Context
from headrace.state import View

if TYPE_CHECKING:
    from headrace.loop.models import ModelStore

Event = TypeVar("Event", bound=ControlEvent)
LOG = ("loop", 0)
"""Control topics have one partition: their order is the order in which things happened."""


class Said(NamedTuple):
    """An event to send: its key, and the record it came of."""

    event: ControlEvent
    key: bytes
    source: Span


def events_of(batch: Batch, kind: type[Event]) -> Iterator[tuple[Event, Span]]:
    """Each row as an event, with its position. These topics are slow ones: a row at a time is fast enough."""
    topics, partitions, offsets = batch.meta.topics(), batch.meta.partitions().tolist(), batch.meta.offsets().tolist()
    for record, topic, partition, offset in zip(batch.rows.to_pylist(), topics, partitions, offsets, strict=True):
        yield kind.from_record(record), Span(topic, partition, offset, offset)


def batch_of(said: Sequence[Said], schema: pa.Schema) -> Batch:
    """Events of one kind as rows of its schema; each stands in Kafka at its own time."""
    frames = Emitted([each.source for each in said], [each.key for each in said],
                     [round(each.event.at.timestamp() * 1000) for each in said])
    return Batch(pa.RecordBatch.from_pylist([_row(each.event) for each in said], schema=schema), Meta(frames))


def _row(event: ControlEvent) -> dict[str, Any]:
    return {name: list(value.items()) if isinstance(value, Mapping) else value
            for name, value in event.to_record().items()}


def expect(kind: type[ControlEvent], schema: pa.Schema, columns: Sequence[str]) -> None:
    """Raises SchemaError when rows of this schema are no events of that kind: they lack one of `columns`."""
    if missing := [name for name in columns if name not in schema.names]:
        raise SchemaError(f"these are no events of {kind.home}: they lack {', '.join(missing)}",
                          hint=f"read it with the schema {kind.avsc.removeprefix('schemas/').removesuffix('.avsc')}")


def registry(ctx: Context) -> Callable[[], ModelStore]:
    """Gives the model registry, opened at the first call: MLflow takes seconds to import. Raises StoreUnreachable."""
    @cache
    def opened() -> ModelStore:
        from headrace.loop.models import open_registry

        assert ctx.settings is not None, "a step with a registry runs beside Kafka"
        return open_registry(ctx.settings.mlflow_uri, ctx.settings.project)

    return opened


def shape(kind: type[ControlEvent]) -> pa.Schema:
    """The Arrow schema of a kind of event."""
    arrow: pa.Schema = kind.schema().arrow
    return arrow


def store(ctx: Context) -> View:
    """The step's state: the control topics have one partition, so there is one."""
    return ctx.store(LOG)


def read(view: View, key: str) -> Any:
    """A JSON value, None where there is none."""
    [held] = view.get([key.encode()])
    return None if held is None else json.loads(held)


def write(view: View, key: str, value: Any) -> None:
    view.put([key.encode()], [json.dumps(value, separators=(",", ":")).encode()])


def one_partition(ctx: Context) -> bool:
    """Whether the log's only partition is ours now."""
    return 0 in ctx.partitions()
