"""`record`: control events in, the audit log's entries out, each chained to the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pyarrow as pa

from headrace import codec
from headrace.batch import Batch, Emitted, Meta, Span
from headrace.config import Config
from headrace.control import EVENTS, ControlEvent, Retrain, RetrainResult, Switch, Verdict
from headrace.errors import SchemaError
from headrace.loop.audit import AVSC, GENESIS, entry
from headrace.loop.steps import events_of, read, store, write
from headrace.processor import Context, Processor
from headrace.resources import content

HEAD = "head"
SOURCES_MAX = 16


class RecordConfig(Config):
    """Nothing to set."""


class Record(Processor):
    """Reads any of the control topics and writes the audit log: one chain, so one step of it for a log.

    The chain's end is kept in state, in the transaction that writes the entry.
    """

    Config: ClassVar[type[Config]] = RecordConfig
    own_rows: ClassVar[bool] = True
    main: ClassVar[str] = "entry"
    inputs: ClassVar[tuple[int, int]] = (1, SOURCES_MAX)
    stateful: ClassVar[bool] = True

    def outputs_of(self, schemas: Sequence[pa.Schema]) -> Mapping[str, pa.Schema]:
        """Raises SchemaError for rows that are no control events."""
        known = {frozenset(kind.schema().arrow.names): kind for kind in EVENTS.values()}
        self._kinds: list[type[ControlEvent]] = []
        for schema in schemas:
            kind = known.get(frozenset(schema.names))
            if kind is None:
                raise SchemaError(f"rows of {', '.join(schema.names[:5])} … are no control events",
                                  hint="`record` reads the control topics, with the schemas control/…")
            self._kinds.append(kind)
        self._shape = codec.load(content(AVSC)).arrow
        return {"entry": self._shape}

    def process_many(self, batches: Sequence[Batch | None], ctx: Context) -> Mapping[str, Batch]:
        view = store(ctx)
        head = read(view, HEAD) or {"seq": 0, "hash": GENESIS}
        rows, spans = [], []
        for kind, batch in zip(self._kinds, batches, strict=True):
            for event, at in events_of(batch, kind) if batch is not None else ():
                actor, action, subject = told(event)
                made = entry(head["hash"], head["seq"], round(event.at.timestamp() * 1000), actor, action, subject,
                             _json(event), at)
                head = {"seq": made["seq"] + 1, "hash": made["hash"]}
                rows.append(made)
                spans.append(at)
        write(view, HEAD, head)
        return {"entry": self._batch(rows, spans)}

    def _batch(self, rows: Sequence[Mapping[str, object]], spans: Sequence[Span]) -> Batch:
        frames = Emitted(spans, [str(row["subject"]).encode() for row in rows],
                         [round(row["at"].timestamp() * 1000) for row in rows])  # type: ignore[attr-defined]
        return Batch(pa.RecordBatch.from_pylist(list(rows), schema=self._shape), Meta(frames))


def told(event: ControlEvent) -> tuple[str, str, str]:
    """(who, did what, to what)."""
    match event:
        case Verdict():
            who = event.by or f"{event.flow}/{event.step}"
            what = event.model or f"{event.flow}/{event.step}"
            return who, event.about, f"{what}/{event.version}" if event.version else what
        case Retrain():
            return f"{event.flow}/{event.step}", "trigger", event.model
        case RetrainResult():
            return event.dispatcher, event.status, f"{event.model}/{event.version}" if event.version else event.model
        case Switch():
            return event.by or f"{event.flow}/{event.step}", f"switch {event.mode}", f"{event.model}/{event.to}"
    return str(getattr(event, "flow", "")), event.kind, str(getattr(event, "step", ""))


def _json(event: ControlEvent) -> dict[str, object]:
    import json

    loaded: dict[str, object] = json.loads(event.to_json(), parse_constant=lambda nan: None)
    return loaded
