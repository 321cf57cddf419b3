"""`aggregate`: counts, sums, means and the like of rows, by group, in tumbling or sliding windows of event time."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from headrace.aggregates import Measure, Table, measure
from headrace.batch import Batch, Emitted, Meta, Span, gather
from headrace.config import Config
from headrace.eventtime import Bools, Duration, Ints, by_number, check_time, event_times
from headrace.expressions import Expressions, compile_many
from headrace.expressions.outer import aggregate_call
from headrace.keying import Keys, check, distinct
from headrace.processor import Context, Origin, Processor
from headrace.state import View

PANES_MAX = 10_000
STALE_MAX = 20_000
"""Entries of an older definition that a batch forgets, at most."""
PANE, MEMORY = b"p", b"m"
TIME = pa.timestamp("ms", "UTC")


class AggregateWindowConfig(Config):
    """Windows of event time, side by side or overlapping, of one source partition."""

    time: Duration = Field(description="Event time a window spans, e.g. 1d, 15m or 30s.")
    every: Duration | None = Field(
        None, description="How far apart windows begin; `time` must be a multiple of it. Left out: one begins where "
        "the last ends. Shorter: they overlap, and a row counts in several.")
    on: str = Field(
        description="The column with the event time: a timestamp, a date, or a long of milliseconds since 1970.")
    late: Duration = Field(
        0, description="How far behind the latest event time seen a row may come and still count, e.g. 1h. Windows "
        "close that much later.")
    shift: Duration = Field(
        0, description="How long after a multiple of `every` (since 1970, UTC) windows begin: with 1d, 5h makes days "
        "begin at 05:00 UTC.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.time or self.every == 0:
            raise ValueError("a window needs a length above zero, and `every` too")
        if self.time % self.pane:
            raise ValueError("`time` must be a multiple of `every`")
        if self.time // self.pane > PANES_MAX:
            raise ValueError(f"a row would count in {self.time // self.pane:,} windows, {PANES_MAX:,} at most: "
                             "a longer `every`")
        return self

    @property
    def pane(self) -> int:
        """Windows are made of stretches this long, milliseconds, which they share."""
        return self.every or self.time


class AggregateConfig(Config):
    """What of which rows."""

    by: list[str] = Field(default_factory=list, description="Columns whose values make the groups; none: one group.")
    window: AggregateWindowConfig = Field(description="What is aggregated at a time.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="New column → aggregate of a SQL expression: count(*), count(x), "
        "count(DISTINCT x), sum(x), avg(x), min(x), max(x), stddev(x), and first(x), last(x) by event time. Nulls do "
        "not count; of a condition avg is its share. `rows`, how many there were, is always there.")

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.columns:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"“{name}” cannot name a column: Avro takes letters, digits and _, no digit first")
        names = ["window_start", "window_end", "rows", *self.by, *self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the result would have the column {twice[0]} twice: window_start, window_end, the "
                             "groups, rows and `columns` need different names")
        return self


@dataclass(slots=True)
class Memory:
    """What a partition keeps beside its entries."""

    highest: int | None = None
    """The latest event time seen."""
    pivots: dict[str, float] | None = None
    """A typical value of each column with a stddev: the first that was seen."""
    clean: bool = False
    """Whether nothing of an older definition is left."""


class Aggregate(Processor):
    """Rows in; `success` is a row for each group in each window, once the window closes; `late` are rows that came
    when a window of theirs was closed, as they came: they count in none. `failure` is there where the event time can be
    null or an expression has a CAST: rows without a time, or for which the CAST failed, as they came.

    A window closes when the latest event time of its partition, less `late`, reaches its end: positions decide, never
    a clock, so that the same records give the same rows however they are cut into batches and however often they come.
    """

    Config: ClassVar[type[Config]] = AggregateConfig
    own_rows: ClassVar[bool] = True
    stateful: ClassVar[bool] = True

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        """Raises ExpressionError for `columns`, SchemaError for `by` and `on`."""
        config: AggregateConfig = self.config
        self._window = config.window
        check_time(config.window.on, schema)
        check(config.by, schema, "by")
        self._by = [schema.field(name) for name in config.by]
        calls = {name: aggregate_call(text, where=f"“{name}”") for name, text in config.columns.items()}
        self._arguments: Expressions = compile_many(
            {name: call.inner for name, call in calls.items() if call.inner is not None}, schema)
        types = {field.name: field.type for field in self._arguments.fields}
        measures: dict[str, Measure] = {
            name: measure(call.name, types.get(name, pa.bool_()), distinct=call.distinct, where=f"“{name}”")
            for name, call in calls.items()}
        self._table = Table(self._by, measures)
        self._keys = Keys(config.by, schema)
        columns = [pa.field(name, made.type, made.nullable) for name, made in measures.items()]
        self._schema = pa.schema([pa.field("window_start", TIME, False), pa.field("window_end", TIME, False), *self._by,
                                  pa.field("rows", pa.int64(), False), *columns])
        said = f"{config.model_dump_json(exclude={'window': {'late'}})} {self._table.schema}"
        self._version = hashlib.sha256(said.encode()).digest()[:4]
        out = {"success": self._schema, "late": schema}
        return {**out, "failure": schema} if self._arguments.casts or schema.field(config.window.on).nullable else out

    def origins(self, relationship: str) -> Mapping[str, Origin] | None:
        """Of the means and counts each is said to be made of all that any of them reads."""
        if relationship != "success":
            return None
        read = self._arguments.columns
        made = {name: Origin(read) for name in self._schema.names}
        return {**made, **{field.name: Origin((field.name,), copy=True) for field in self._by}, "rows": Origin(()),
                **{name: Origin((self._window.on,)) for name in ("window_start", "window_end")}}

    def notes(self, schema: pa.Schema) -> list[str]:
        config: AggregateConfig = self.config
        keyed = f"key the topic by {' and '.join(config.by)}" if config.by else "use a topic of one partition"
        return [f"aggregates each source partition by itself: {keyed}, or a group's rows come once for each partition "
                "it is in. A window closes when a later record of its partition comes"]

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        made = self._arguments.evaluate(batch.rows)
        timed, times = event_times(batch.rows.column(self._window.on))
        good, failure = self._readable(batch, timed, made)
        late = np.zeros(len(batch), bool)
        closed: list[Batch] = []
        for number, index in by_number(batch.meta, good):
            store = ctx.store((batch.meta.topics()[int(index[0])], number))
            late[index], rows = self._partition(store, number, index, times[index], batch, made.arrays)
            closed += rows
        ctx.count("aggregate", "late", int(np.count_nonzero(late)))
        ctx.count("aggregate", "rows", sum(map(len, closed)))
        parts = {"success": gather(closed) if closed else None, "failure": failure,
                 "late": batch.take(pa.array(late)) if late.any() else None}
        return {name: part for name, part in parts.items() if part is not None}

    def _readable(self, batch: Batch, timed: Bools, made: Any) -> tuple[Bools, Batch | None]:
        """(the rows that have what is asked of them; the others, with the reasons)."""
        good = timed if made.failed is None else timed & ~made.failed.to_numpy(zero_copy_only=False)
        if good.all():
            return good, None
        without = f"no_time: {self._window.on} is null"
        told: dict[int, list[str]] = {at: [without] for at in np.flatnonzero(~timed).tolist()}
        if made.failed is not None:
            failed = np.flatnonzero(made.failed.to_numpy(zero_copy_only=False))
            for at, why in zip(failed.tolist(), made.reasons().to_pylist(), strict=True):
                told.setdefault(at, []).extend(why)
        reasons = pa.array([told[at] for at in sorted(told)], pa.list_(pa.string()))
        return good, batch.take(pa.array(~good)).with_reasons(reasons)

    def _partition(self, store: View, number: int, index: Ints, times: Ints, batch: Batch,
                   arguments: Mapping[str, pa.Array]) -> tuple[Bools, list[Batch]]:
        """The rows at `index`, of one partition: which were late, and the rows of the windows that they closed."""
        window, memory = self._window, self._remembered(store)
        highest = np.maximum.accumulate(times)
        before = int(times[0]) if memory.highest is None else memory.highest
        np.maximum(highest, before, out=highest)
        ends = window.shift + ((times - window.shift) // window.pane + 1) * window.pane
        on_time = ends > highest - window.late
        if on_time.any():
            self._add(store, memory, index[on_time], ends[on_time], times[on_time], batch, arguments)
        memory.highest = int(highest[-1])
        self._keep(store, memory)
        return ~on_time, self._close(store, number, self._closed_to(before), self._closed_to(memory.highest))

    def _closed_to(self, highest: int) -> int:
        """The end of the last window that is closed."""
        window = self._window
        return window.shift + (highest - window.late - window.shift) // window.pane * window.pane

    def _add(self, store: View, memory: Memory, index: Ints, ends: Ints, times: Ints, batch: Batch,
             arguments: Mapping[str, pa.Array]) -> None:
        """These rows, all on time, into the entries of their panes and groups."""
        at = pa.array(index)
        by = [batch.rows.column(field.name).take(at) for field in self._by]
        none = pa.repeat(True, len(index))
        values = {name: arguments[name].take(at) if name in arguments else none for name in self._table.measures}
        pivots = self._pivots(memory, values)
        topic = pa.array(batch.meta.topics(), pa.string()).take(at)
        rows = self._table.lift(ends, topic, batch.meta.offsets()[index], by, values, times, pivots)
        which, first = distinct([ends, *by])
        groups = batch.rows.take(pa.array(index[first]))
        keys = list(map(bytes.__add__, map(self._prefix, ends[first].tolist()), self._keys.of(groups)))
        found = store.get(keys)
        held = [n for n, value in enumerate(found) if value is not None]
        if held:
            prior = self._table.unpack([found[n] or b"" for n in held])
            rows = pa.concat_batches([prior, rows])
            which = np.concatenate([np.array(held, np.int64), which])
        store.put(keys, self._table.pack(self._table.fold(rows, which, len(keys))))

    def _prefix(self, end: int) -> bytes:
        """Sorts as times do, those before 1970 too."""
        return self._version + PANE + (end + (1 << 63)).to_bytes(8, "big")

    def _pivots(self, memory: Memory, values: Mapping[str, pa.Array]) -> dict[str, float]:
        """The first number of each column that wants one, which stays for good."""
        pivots = memory.pivots = memory.pivots or {}
        for name, made in self._table.measures.items():
            if made.pivots and name not in pivots:
                numbers = pc.cast(values[name], pa.float64()).drop_null()
                finite = numbers.filter(pc.is_finite(numbers))
                if len(finite):
                    pivots[name] = finite[0].as_py()
        return pivots

    # closing

    def _close(self, store: View, number: int, before: int, closed: int) -> list[Batch]:
        """The rows of the windows that end after `before`, up to `closed`."""
        if closed <= before:
            return []
        found = list(store.scan(end=self._prefix(closed + 1)[len(self._version) + 1:], prefix=self._version + PANE))
        if not found:
            return []
        keys, packed = zip(*found, strict=True)
        panes = self._table.unpack(packed)
        ends = panes.column("end").to_numpy()
        gone = ends + (self._window.time - self._window.pane) <= closed
        store.delete([key for key, done in zip(keys, gone.tolist(), strict=True) if done])
        return list(self._rows(number, *self._windows(panes, ends, before, closed)))

    def _windows(self, panes: pa.RecordBatch, ends: Ints, before: int, closed: int) -> tuple[Ints, pa.RecordBatch]:
        """(the end of each window, its entry), from panes in the order of their ends."""
        step, span = self._window.pane, self._window.time
        if span == step:
            return ends, panes
        low, high = np.maximum(ends, before + step), np.minimum(ends + span - step, closed)
        times = np.maximum((high - low) // step + 1, 0)  # so many of the windows that close now have this pane
        which = np.repeat(np.arange(len(ends)), times)
        nth = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times)
        window_ends = low[which] + nth * step
        if not len(which):
            return window_ends, panes.slice(0, 0)
        parts = panes.take(pa.array(which))
        groups, first = distinct([window_ends, *(parts.column(name) for name in self._table.groups)])
        return window_ends[first], self._table.fold(parts, groups, len(first))

    def _rows(self, number: int, ends: Ints, entries: pa.RecordBatch) -> Iterator[Batch]:
        """What goes out, in the order of windows and groups."""
        if not len(ends):
            return
        results = self._table.results(entries)
        results |= {"window_start": pa.array(ends - self._window.time).view(TIME),
                    "window_end": pa.array(ends).view(TIME), "rows": entries.column("rows")}
        rows = pa.RecordBatch.from_arrays([results[name] for name in self._schema.names], schema=self._schema)
        order = pc.sort_indices(rows, [(name, "ascending") for name in ("window_end", *(f.name for f in self._by))])
        rows, entries = rows.take(order), entries.take(order)
        topics, first, last = (entries.column(name).to_pylist() for name in ("topic", "first", "last"))
        spans = [Span(topic, number, *at) for topic, *at in zip(topics, first, last, strict=True)]
        stamps = np.maximum(ends[order.to_numpy()], 0).tolist()
        yield Batch(rows, Meta(Emitted(spans, self._texts(rows), stamps)))

    def _texts(self, rows: pa.RecordBatch) -> Sequence[bytes | None]:
        """The group as a record's key: its columns' text, with “|” between several; no columns, no key."""
        texts = [pc.cast(rows.column(field.name), pa.string()) for field in self._by]
        if len(texts) > 1:
            texts = [pc.binary_join_element_wise(*texts, "|", null_handling="replace", null_replacement="")]
        keys: Sequence[bytes | None] = pc.cast(texts[0], pa.binary()).to_pylist() if texts else [None] * rows.num_rows
        return keys

    # what a partition remembers

    def _remembered(self, store: View) -> Memory:
        """The memory of this definition. What another one left is forgotten, a part with every batch: its windows would
        not be those of this one."""
        held = store.get([self._version + MEMORY])[0]
        memory = Memory(**json.loads(held)) if held else Memory()
        if not memory.clean:
            old = [key for key, _ in islice(_others(store, self._version), STALE_MAX)]
            store.delete(old)
            memory.clean = len(old) < STALE_MAX
        return memory

    def _keep(self, store: View, memory: Memory) -> None:
        held = {"highest": memory.highest, "pivots": memory.pivots, "clean": memory.clean}
        store.put([self._version + MEMORY], [json.dumps(held).encode()])


def _others(store: View, version: bytes) -> Iterator[tuple[bytes, bytes]]:
    yield from store.scan(end=version)
    yield from (entry for entry in store.scan(start=version) if not entry[0].startswith(version))
