"""validate_window: holds windows of records against a contract, a Great Expectations suite; a verdict a window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from headrace.batch import Batch, Span
from headrace.config import Config
from headrace.contracts import Windowed, compile_suite, load, parse, suite_path
from headrace.contracts.windows import held, watches
from headrace.contracts.windows.closed import Closed, text, utc
from headrace.contracts.windows.held import Held
from headrace.contracts.windows.watches import WatchConfig
from headrace.contracts.windows.windowed import KEPT_MAX
from headrace.control import Verdict, digest
from headrace.eventtime import Duration, by_partition, check_time, event_times
from headrace.loop.steps import Said, batch_of, read, shape, write
from headrace.processor import Context, Partition, Processor
from headrace.state import View
from headrace.windows import Axis

MEMORY = "memory"
EMPTY_MAX, VOLUMES_MAX = 100, 100
"""Windows without a record that are told one by one, the last of them; and how many windows' volumes are remembered."""


class ContractWindowConfig(Config):
    """Tumbling windows: by event time, or of a number of records."""

    time: Duration | None = Field(None, description="What a window spans, e.g. 1h.")
    on: str | None = Field(None, description="With `time`: the column with the event time.")
    late: Duration = Field(0, description="How far behind the latest event time a record may come and still count.")
    shift: Duration = Field(0, description="How long after a multiple of their length (since 1970, UTC) windows begin.")
    records: int | None = Field(None, ge=1, description="A window is so many records of a partition.")

    @model_validator(mode="after")
    def _one_kind(self) -> ContractWindowConfig:
        if (self.time is None) == (self.records is None):
            raise ValueError("say `time` with `on`, or `records`")
        if (self.time is None) != (self.on is None):
            raise ValueError("`time` and `on` go together")
        if self.time is not None and self.late > 7 * self.time:
            raise ValueError("`late` is at most seven windows")
        return self

    def axis(self) -> Axis:
        return Axis(self.time, self.late, self.shift) if self.time is not None else Axis(self.records or 1)


class ValidateWindowConfig(Config):
    suite: str | None = Field(None, description="The suite: a name, for schemas/<name>.expectations.json, or a path "
                              "from the project's folder.", examples=["departure_hourly"])
    window: ContractWindowConfig = Field(description="What is judged at a time.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Values of the suite's parameters.")
    checks: list[WatchConfig] = Field(default_factory=list, description="What else to hold against a window: unique, "
                                      "order, volume, freshness.")

    @model_validator(mode="after")
    def _something(self) -> ValidateWindowConfig:
        if self.suite is None and not self.checks:
            raise ValueError("nothing is judged: say `suite`, or `checks`")
        return self


@dataclass(slots=True)
class _Rows:
    """A batch's records of one partition, in order, and where each stands."""

    rows: pa.RecordBatch
    offsets: watches.Ints
    stamps: watches.Ints
    at: watches.Ints
    """On the axis: milliseconds of event time, or the record's number."""
    highest: watches.Ints
    """The highest `at` up to each."""


class ValidateWindow(Processor):
    """Records in, verdicts out, when a window closes: by positions only, so that the same records give the same
    verdicts. Each source partition is judged by itself. Metrics: `window`, labelled ok, not ok, late, without_time."""

    Config: ClassVar[type[Config]] = ValidateWindowConfig
    own_rows: ClassVar[bool] = True
    main: ClassVar[str] = "verdict"
    stateful: ClassVar[bool] = True

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        config: ValidateWindowConfig = self.config
        if config.window.on is not None:
            check_time(config.window.on, schema)
        watches.check(config.checks, schema, timed=config.window.on is not None)
        suite = load(suite_path(self.project, config.suite)) if config.suite else parse({"expectations": []}, "checks")
        self._contract = Windowed(compile_suite(suite, schema, config.parameters),
                                  [c for watch in config.checks if watch.kind == "unique" for c in watch.columns])
        self._axis, self._shape = config.window.axis(), shape(Verdict)
        self._digest = digest(config.model_dump_json(), repr(suite), str(schema))
        return {"verdict": self._shape}

    def notes(self, schema: pa.Schema) -> list[str]:
        return [*self._contract.notes(), "judges each source partition by itself"]

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        on = self.config.window.on
        timed, times = event_times(batch.rows.column(on)) if on is not None else (None, None)
        if timed is not None:
            ctx.count("window", "without_time", len(batch) - int(np.count_nonzero(timed)))
        offsets, stamps = batch.meta.offsets(), np.asarray(batch.meta.timestamps_ms(), dtype=np.int64)
        said: list[Said] = []
        for partition, index in by_partition(batch.meta, timed):
            view = ctx.store(partition).part(partition[0])
            memory = self._remembered(view)
            at = np.arange(memory["seen"], memory["seen"] + len(index)) if times is None else times[index]
            highest = np.maximum.accumulate(at if memory["highest"] is None else np.maximum(at, memory["highest"]))
            rows = _Rows(batch.rows.take(pa.array(index)), offsets[index], stamps[index], at, highest)
            self._take(rows, view, memory, ctx)
            said += self._close(partition, rows, view, memory, ctx)
            memory |= {"highest": int(highest[-1]), "seen": memory["seen"] + len(index)}
            write(view, MEMORY, memory)
        return {"verdict": batch_of(said, self._shape)} if said else {}

    def _remembered(self, view: View) -> dict[str, Any]:
        """What is known of a partition; nothing, where suite, window or schema are not those of before."""
        memory = read(view, MEMORY)
        if memory is not None and memory["of"] == self._digest:
            return dict(memory)
        view.delete([key for key, _ in view.scan()])
        return {"of": self._digest, "highest": None, "seen": 0, "next": None, "last": {}, "volumes": []}

    def _take(self, mine: _Rows, view: View, memory: dict[str, Any], ctx: Context) -> None:
        """Records into their windows, and what the checks see of them."""
        axis = self._axis
        k, current = ((each - axis.shift) // axis.size for each in (mine.at, mine.highest))
        on_time = k >= (mine.highest - axis.late - axis.shift) // axis.size
        ctx.count("window", "late", len(k) - int(np.count_nonzero(on_time)))
        found = self._watched(mine, current, memory)
        for window in np.unique(np.concatenate([k[on_time], np.array(list(found), np.int64)])).tolist():
            its = np.flatnonzero(on_time & (k == window))
            one = held.read(view, window)
            if len(its):
                one.take(mine.rows.take(pa.array(its)), int(mine.offsets[its[0]]), int(mine.offsets[its[-1]]),
                         int(mine.stamps[its].max()), self._contract)
            one.found = _added(one.found, found.get(window, {}))
            one.write(view)
            memory["next"] = window if memory["next"] is None else min(memory["next"], window)

    def _watched(self, mine: _Rows, current: watches.Ints, memory: dict[str, Any]) -> dict[int, dict[str, Any]]:
        """Window → what `order` and `freshness` see in it. A record counts in the window of the latest event time."""
        found: dict[int, dict[str, Any]] = {}
        for watch in self.config.checks:
            if watch.order is not None:
                column = mine.rows.column(watch.order)
                bad, memory["last"][watch.name] = watches.out_of_order(column, memory["last"].get(watch.name))
                for window in np.unique(current[bad]).tolist():
                    its = bad[current[bad] == window]
                    found.setdefault(window, {})[watch.name] = {"count": len(its), "examples": [
                        f"{column[row]} at offset {mine.offsets[row]}" for row in its[:watches.EXAMPLES_MAX].tolist()]}
            elif watch.freshness is not None:
                late = watches.behind(mine.stamps, mine.highest, memory["highest"])
                for window in np.unique(current).tolist():
                    found.setdefault(window, {})[watch.name] = {"worst": int(late[current == window].max())}
        return found

    def _close(self, partition: Partition, mine: _Rows, view: View, memory: dict[str, Any], ctx: Context,
               ) -> Iterator[Said]:
        """The verdicts on windows that end with these records, in order."""
        axis, now = self._axis, int(mine.highest[-1])
        full = self.config.window.records is not None and (now + 1) % axis.size == 0  # its last record has come
        before = axis.open_from(now) + full
        there = held.opened(view, before)
        for window in sorted({*there, *self._empty(memory["next"], before, there)}):
            one = held.read(view, window)
            closed = self._closed(one, view, memory["volumes"])
            ends = (mine.highest - axis.late - axis.shift) // axis.size > window
            ended = int(mine.offsets[np.argmax(ends)]) if ends.any() else int(mine.offsets[-1])
            ctx.count("window", "ok" if closed.ok else "not ok", 1)
            yield self._said(closed, partition, ended, ctx)
            memory["volumes"] = [*memory["volumes"], one.rows][-VOLUMES_MAX:]
            one.forget(view)
        memory["next"] = max(before, memory["next"])

    def _empty(self, first: int, before: int, there: Sequence[int]) -> list[int]:
        """Windows without a record that are to be told."""
        if not any(watch.volume is not None and watch.volume.min for watch in self.config.checks):
            return []
        return [k for k in range(max(first, before - EMPTY_MAX), before) if k not in set(there)]

    def _closed(self, one: Held, view: View, volumes: Sequence[int]) -> Closed:
        state, kept = one.closed(view, self._contract)
        told = []
        for watch in self.config.checks:
            if watch.unique is not None:
                told.append(watches.unique(watch, kept, KEPT_MAX))
            elif watch.order is not None:
                told.append(watches.order(watch, one.found.get(watch.name, {})))
            elif watch.volume is not None:
                told.append(watches.volume(watch, one.rows, volumes))
            else:
                told.append(watches.freshness(watch, one.found.get(watch.name, {}).get("worst")))
        judged = self._contract.verdicts(state, kept) if one.rows else []
        return Closed(one, self._contract.contract.suite, judged, told)

    def _said(self, closed: Closed, partition: Partition, ended: int, ctx: Context) -> Said:
        """The event. `ended` is the offset of the record that closed the window."""
        one, axis, timed = closed.held, self._axis, self.config.window.on is not None
        at = utc(axis.end(one.window) + axis.late if timed else one.newest)
        first, last = (one.first, one.last) if one.rows else (ended, ended)
        detail = closed.detail(run=f"{ctx.flow}/{ctx.step}", asset=f"{partition[0]}/{partition[1]}", at=at)
        verdict = Verdict(
            id=digest(ctx.flow, ctx.step, "contract", *partition, one.window), about="contract", flow=ctx.flow,
            step=ctx.step, owner=ctx.owner, ok=closed.ok, topic=partition[0], partition=partition[1],
            window=one.window, offset_first=first if one.rows else None, offset_last=last if one.rows else None,
            window_start=utc(axis.start(one.window)) if timed else None,
            window_end=utc(axis.end(one.window)) if timed else None, rows=one.rows, at=at, reasons=closed.reasons(),
            measures=closed.measures(), detail=text(detail))
        return Said(verdict, verdict.key(), Span(*partition, first, last))


def _added(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What the checks saw of a window, of this batch added to what was known."""
    out = dict(before)
    for name, seen in now.items():
        was = out.get(name)
        if was is None:
            out[name] = seen
        elif "worst" in seen:
            out[name] = {"worst": max(was["worst"], seen["worst"])}
        else:
            out[name] = {"count": was["count"] + seen["count"],
                         "examples": (was["examples"] + seen["examples"])[:watches.EXAMPLES_MAX]}
    return out
