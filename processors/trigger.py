"""`trigger`: watches rows in windows and raises one event per cause: an alert, a retraining, a switch of models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from headrace.batch import Batch, Emitted, Meta, Span
from headrace.config import Config
from headrace.control import RAISED, event_id
from headrace.errors import SchemaError
from headrace.eventtime import Duration, by_partition, check_time, event_times
from headrace.expressions import Expression, compile_expression
from headrace.processor import Context, Partition, Processor
from headrace.windows import OPEN_MAX, Axis, Fired, Rule, advance, from_state, to_state


class WindowConfig(Config):
    """Tumbling windows of one source partition: of so many records, or of so much event time."""

    records: int | None = Field(
        None, ge=1, description="Offsets a window spans: window k is offsets k·n up to (k+1)·n. Rows filtered away "
        "before and the transaction markers of the source's producers take offsets too.")
    time: Duration | None = Field(None, description="Event time a window spans, e.g. 1d, 15m or 30s.")
    on: str | None = Field(
        None, description="The column with the event time: a timestamp, a date, or a long of milliseconds since 1970.")
    late: Duration = Field(
        0, description="How far behind the latest event time seen a row may come and still count, e.g. 1h. At most "
        f"{OPEN_MAX - 1} windows. Windows close that much later.")
    shift: Duration = Field(
        0, description="How long after a multiple of their length (since 1970, UTC) windows begin: with 1d, 5h makes "
        "days begin at 05:00 UTC.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.records is None) == (self.time is None):
            raise ValueError("a window is `records: <n>`, or `time: <duration>` with `on: <column>`")
        if self.records is not None and (self.on or self.late or self.shift):
            raise ValueError("`on`, `late` and `shift` belong to a window of `time`")
        if self.time is not None:
            if not self.on:
                raise ValueError("a window of `time` needs `on`, the column with the event time")
            if not self.time:
                raise ValueError("a window needs a length above zero")
            if self.late > (OPEN_MAX - 1) * self.time:
                raise ValueError(f"`late` may be at most {OPEN_MAX - 1} windows, since the open ones are kept with the "
                                 "offsets; take a longer window")
        return self

    def axis(self) -> Axis:
        return Axis(self.records or self.time or 0, self.late, self.shift)


class AlertConfig(Config):
    """An alert, on headrace.alerts."""

    severity: Literal["info", "warning", "critical"] = Field("warning", description="How bad it is.")
    message: str = Field(description="What it means, for who is woken by it.", min_length=1)


class RetrainConfig(Config):
    """A request to train a model anew on the rows counted, on headrace.retrain."""

    model: str = Field(description="The model's name in the model registry.", min_length=1)
    reason: str = Field("", description="Why, in a sentence.")


class SwitchConfig(Config):
    """A model gives way to another version, on headrace.models."""

    model: str = Field(description="The model's name in the model registry.", min_length=1)
    to: str = Field(description="The version or alias that takes over.", min_length=1)
    reason: str = Field("", description="Why, in a sentence.")


class EmitConfig(Config):
    """The event: exactly one of the three."""

    alert: AlertConfig | None = Field(None, description="Tell people.")
    retrain: RetrainConfig | None = Field(
        None, description="Ask for training. The trigger must read rows that a `validate` step has passed.")
    switch: SwitchConfig | None = Field(None, description="Change to a declared fallback model.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in RAISED) != 1:
            raise ValueError("name one event: `alert`, `retrain` or `switch`")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in RAISED if getattr(self, kind) is not None)


class TriggerConfig(Config):
    """What is measured in which windows, when it raises an event, and which."""

    measure: Literal["share", "count", "volume"] = Field(
        description="share: the part of the rows for which `when` is true, 0 to 1. count: the number of those. volume: "
        "the number of rows.")
    when: str | None = Field(None, description="A SQL condition on a row; null counts as false. Not for a volume.")
    window: WindowConfig = Field(description="What is measured at a time.")
    threshold: float | None = Field(None, gt=0, description="Raise the event when the measure is this or more.")
    below: float | None = Field(
        None, gt=0, description="Raise the event when the measure is less than this. Empty windows count, except for a "
        "share; the first window seen of a partition does not, since it may have begun before.")
    rows_min: int = Field(1, ge=1, description="For a share: a window of fewer rows says nothing.")
    cool_down_windows: int = Field(
        0, ge=0, le=1_000_000, description="So many windows after the one that raised an event raise none.")
    repeat: bool | None = Field(
        None, description="Whether a stretch of bad windows that outlasts the cool-down raises the event again. If not "
        "(for alert and switch, unless said), a window back within bounds must come first.")
    carry: bool | None = Field(
        None, description="Whether the rows of windows that raise nothing count on in the next, so that the measure is "
        "of all rows since the last event: for retrain, unless said; never for a share or with `below`.")
    emit: EmitConfig = Field(description="The event to raise.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.threshold is None) == (self.below is None):
            raise ValueError("say `threshold` (raise at or above it) or `below` (raise under it)")
        if (self.when is None) != (self.measure == "volume"):
            raise ValueError("a volume has no `when`; it counts every row" if self.when else
                             f"a {self.measure} needs `when`, the condition that is counted")
        limit = self.threshold or self.below or 0
        if self.measure == "share" and limit > 1:
            raise ValueError(f"a share is between 0 and 1; {limit:g} is never reached")
        if self.measure != "share" and self.rows_min != 1:
            raise ValueError("`rows_min` belongs to a share")
        if self.carry and (self.measure == "share" or self.below is not None):
            raise ValueError("`carry` is for a count or volume with a `threshold`")
        if self.measure != "share" and self.window.records and not self.rule().carry and limit > self.window.records:
            raise ValueError(f"a window of {self.window.records} records never holds {limit:g}")
        return self

    def rule(self) -> Rule:
        trains = self.emit.retrain is not None
        fits = self.measure != "share" and self.below is None
        return Rule(self.measure, self.threshold or self.below or 0.0, below=self.below is not None,
                    rows_min=self.rows_min, cool_down=self.cool_down_windows,
                    repeat=trains if self.repeat is None else self.repeat,
                    carry=(trains and fits) if self.carry is None else self.carry)


class Trigger(Processor):
    """Rows in, one event out per cause; the rows themselves end here.

    All it knows rides in the committed offset's metadata. Everything is decided by offsets and event time, so that the
    same records raise the same events with the same ids, whatever batches they come in and however often.
    """

    Config: ClassVar[type[Config]] = TriggerConfig
    own_rows: ClassVar[bool] = True
    main: ClassVar[str] = "event"

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        """`event`, of the shape of its control event. Raises ExpressionError for `when`, SchemaError for `on`."""
        config: TriggerConfig = self.config
        self._when: Expression | None = None
        if config.when is not None:
            self._when = compile_expression(config.when, schema, where="`when`")
            if not pa.types.is_boolean(self._when.type):
                raise SchemaError(f"`when` gives {self._when.type}, and must be a condition, true or false")
        if config.window.on is not None:
            check_time(config.window.on, schema)
        self._kind = config.emit.kind
        self._axis, self._rule = config.window.axis(), config.rule()
        self._schema: pa.Schema = RAISED[self._kind].schema().arrow
        counted = f"{config.window.model_dump_json()} {config.measure} {config.when} {self._rule.carry}"
        self._version = hashlib.sha256(counted.encode()).hexdigest()[:8]
        return {"event": self._schema}

    @property
    def needs_validated(self) -> bool:
        """Bad data never triggers training on itself: lint wants a `validate` above a trigger of this kind."""
        config: TriggerConfig = self.config
        return config.emit.retrain is not None

    def notes(self, schema: pa.Schema) -> list[str]:
        home = RAISED[self.config.emit.kind].home
        return [f"measures each source partition by itself, and raises an event for each (by custom on {home}). For "
                "the flow as a whole, bring the rows to a topic of one partition, and put the trigger in a flow of it"]

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        config: TriggerConfig = self.config
        offsets = batch.meta.offsets()
        matched = np.zeros(len(batch), dtype=bool)
        if self._when is not None:
            true: Any = self._when.evaluate(batch.rows)
            matched = true.fill_null(False).to_numpy(zero_copy_only=False)
        timed, positions = None, offsets
        if config.window.on is not None:
            timed, positions = event_times(batch.rows.column(config.window.on))
            ctx.count("trigger", "without_time", len(batch) - int(np.count_nonzero(timed)))
        events: list[tuple[Partition, Fired, int]] = []
        for partition, index in by_partition(batch.meta, timed):
            state = ctx.state(partition)
            memory = from_state(state) if state.get("v") == self._version else None
            memory, fired, late = advance(self._axis, self._rule, memory,
                                          positions[index], matched[index], offsets[index])
            state.clear()
            state.update(to_state(memory), v=self._version)
            ctx.count("trigger", "late", late)
            events += [(partition, event, int(index[event.closed_by])) for event in fired]
        ctx.count("trigger", "fired", len(events))
        return {"event": self._emit(batch.meta, events, ctx)} if events else {}

    def _emit(self, meta: Meta, events: list[tuple[Partition, Fired, int]], ctx: Context) -> Batch:
        """The events as rows. Each stands in Kafka at the time of the record that closed its window."""
        config: TriggerConfig = self.config
        said: Config = getattr(config.emit, self._kind)
        closed_ms = meta.timestamps_ms()
        by_time = config.window.time is not None
        records = []
        for (topic, partition), (window, observed, _), row in events:
            start, end = (self._axis.start(window.k_first), self._axis.end(window.k)) if by_time else (None, None)
            event: Any = RAISED[self._kind]
            records.append(event(
                id=event_id(ctx.flow, ctx.step, topic, partition, window.k), flow=ctx.flow, step=ctx.step, topic=topic,
                partition=partition, window=window.k, offset_first=window.offset_first,
                offset_last=window.offset_last, window_start=start, window_end=end, measure=config.measure,
                condition=config.when, rows=window.rows, matched=window.matched, observed=observed,
                threshold=self._rule.threshold, at=closed_ms[row] if end is None else end,
                **said.model_dump()).to_record())
        key = str(getattr(said, "model", f"{ctx.flow}/{ctx.step}")).encode()
        frames = Emitted([Span(topic, partition, event.window.offset_first, event.window.offset_last)
                          for (topic, partition), event, _ in events],
                         [key] * len(events), [closed_ms[row] for *_, row in events])
        return Batch(pa.RecordBatch.from_pylist(records, schema=self._schema), Meta(frames))
