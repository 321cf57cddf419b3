"""The loop's steps by themselves: monitor, decide, switch and its rollout, record, and what they share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.batch import Batch, Frames, Meta, Span
from headrace.control import ControlEvent, Retrain, RetrainResult, Switch, Verdict, digest
from headrace.errors import SchemaError
from headrace.loop import audit
from headrace.loop.steps import Said, batch_of, events_of, shape
from headrace.processor import Context
from headrace.processors.decide import Decide
from headrace.processors.monitor import Monitor
from headrace.processors.record import Record as Recording
from headrace.processors.switch import SwitchStep
from headrace.state import KeyedState
from headrace.state.bottom import Memory
from headrace.testing import Record
from tests.unit.statekit import Driven, cut, made, records

pytestmark = pytest.mark.unit

DAY_MS = 86_400_000
VERDICTS, RESULTS = "headrace.verdicts", "headrace.retrain.results"


class Log:
    """A step that reads control topics, fed events batch by batch; each batch is committed."""

    def __init__(self, step: Any, kind: type[ControlEvent], topic: str = VERDICTS) -> None:
        self.step, self.kind, self.topic = step, kind, topic
        self.state, self.next = KeyedState(), 0
        self.state.assign(0, Memory())
        self.ctx = Context("flow", "step", Path(), store=lambda at: self.state.view(at[1], "step"),
                           partitions=lambda: [0])

    def batch(self, events: Sequence[ControlEvent]) -> Batch:
        """As a worker would hand them over: rows of the topic at their offsets, every other one a marker."""
        frames = [Record(b"", self.topic, 0, self.next + 2 * i) for i in range(len(events))]
        self.next += 2 * len(events)
        rows = batch_of([Said(each, b"", Span("", 0, 0, 0)) for each in events], shape(self.kind)).rows
        return Batch(rows, Meta(Frames(frames)))

    def feed(self, *events: ControlEvent, into: type[ControlEvent]) -> list[Any]:
        out = list(self.step.process(self.batch(events), self.ctx).values())
        self.state.seal()
        self.state.commit({})
        return [event for batch in out for event, _ in events_of(batch, into)]


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def verdict(about: str, n: int = 0, *, ok: bool = True, **more: Any) -> Verdict:
    said: dict[str, Any] = {"flow": "w", "step": "w", "model": "m", "by": "ada", "reasons": ["why"]}
    return Verdict(id=digest(about, n, *map(str, more.values())), at=at(1_000 + n), about=about, ok=ok,
                   **{**said, **more})


# What they share


def test_an_empty_map_is_a_map() -> None:
    """Arrow gives it as an empty list."""
    result = RetrainResult(id="i", at=at(0), trigger="t", model="m", status="succeeded", dispatcher="local")
    both = [result, replace(result, candidates={"all": "1"}, metrics={"auc": 0.5})]
    batch = batch_of([Said(each, b"k", Span("t", 0, n, n)) for n, each in enumerate(both)], shape(RetrainResult))
    first, second = (event for event, _ in events_of(batch, RetrainResult))
    assert (first.candidates, first.metrics) == ({}, {})
    assert (second.candidates, second.metrics) == ({"all": "1"}, {"auc": 0.5})
    assert first.candidates.get("all") is None


# switch


def switching(**rollout: Any) -> Log:
    step = SwitchStep(SwitchStep.Config.model_validate({"models": {"m": rollout}}), project=Path())
    step.outputs(shape(Verdict))
    return Log(step, Verdict)


def moves(log: Log, *verdicts: Verdict) -> list[tuple[str, str, str | None]]:
    """(version, mode, version before) of the switches that came of them; each verdict a batch of its own."""
    return [(each.to, each.mode, each.previous) for said in verdicts for each in log.feed(said, into=Switch)]


def test_every_word_and_verdict() -> None:
    log = switching()
    assert moves(log, verdict("gate", ok=False, version="9"), verdict("quality"), verdict("drift", ok=False),
                 verdict("failed", ok=False, trigger="t"), verdict("retrain"), verdict("rollback"),
                 verdict("approve", version="1"), verdict("experiment", version="1"), verdict("promote")) == []
    assert moves(log, verdict("gate", version="1", trigger="t"), verdict("gate", 1, version="2")) == [
        ("1", "full", None), ("2", "full", "1")]
    assert moves(log, verdict("rollback", 2), verdict("rollback", 3), verdict("rollback", 4, version="7")) == [
        ("1", "full", "2"), ("2", "full", "1"), ("7", "full", "2")]
    assert moves(log, verdict("promote", 5, version="3"), verdict("gate", 6, version="4", model="another")) == [
        ("3", "full", "7")]


def test_a_switch_says_what_it_came_of() -> None:
    log = switching()
    said = verdict("gate", version="2", trigger="t", labels=9, rows=10)
    [made_] = log.feed(said, into=Switch)
    assert (made_.id, made_.verdict, made_.trigger, made_.by) == (digest("flow", "step", said.id), said.id, "t", "ada")
    assert (made_.topic, made_.offset_first, made_.offset_last) == (VERDICTS, 0, 0)
    assert "why" in made_.reason


def test_approval_holds_and_forgets_the_oldest() -> None:
    log = switching(approval="required", mode="canary", share=0.2)
    blessed = [verdict("gate", n, version=str(n), trigger=f"t{n}") for n in range(1, 23)]
    assert moves(log, *blessed) == []
    assert moves(log, verdict("approve", 30, version="1"), verdict("approve", 31, version="2")) == [], "forgotten"
    assert moves(log, verdict("approve", 32, version="3", ok=False)) == [], "a no is no yes"
    [first] = log.feed(verdict("approve", 33, version="3"), into=Switch)
    assert (first.to, first.mode, first.trigger) == ("3", "full", "t3"), "the first has nothing to stand beside"
    assert "approved by ada" in first.reason
    assert moves(log, verdict("approve", 34, version="3")) == [], "once"
    [second] = log.feed(verdict("approve", 35, version="4"), into=Switch)
    assert (second.mode, second.share, second.previous) == ("canary", 0.2, "3")


def test_a_canary_wins_or_loses() -> None:
    log = switching(mode="canary", share=0.25)
    assert moves(log, verdict("gate", version="1"), verdict("gate", 1, version="2")) == [
        ("1", "full", None), ("2", "canary", "1")]
    assert moves(log, verdict("experiment", 2, version="9"), verdict("experiment", 3, version="2", ok=False)) == [
        ("2", "off", "1")]
    assert moves(log, verdict("experiment", 4, version="2")) == [], "it has ended"
    assert moves(log, verdict("gate", 5, version="3"), verdict("experiment", 6, version="3"),
                 verdict("rollback", 7)) == [("3", "canary", "1"), ("3", "full", "1"), ("1", "full", "3")]


def test_the_guard_goes_back_once() -> None:
    log = switching(guard={"below": 0.6, "windows": 2, "within": 4})

    def seen(n: int, auc: float | None, version: str = "2") -> Verdict:
        return verdict("performance", n, version=version, measures={} if auc is None else {"auc": auc})

    assert moves(log, verdict("promote", version="1"), verdict("promote", 1, version="2")) != []
    assert moves(log, seen(2, 0.5), seen(3, 0.7), seen(4, None), seen(5, 0.5), seen(6, 0.1, "1")) == []
    assert moves(log, seen(7, 0.5)) == [("1", "full", "2")], "two in a row, the fourth that counts"
    assert moves(log, *(seen(n, 0.1, "1") for n in range(8, 20))) == [], "and not forth again"
    assert moves(log, verdict("promote", 20, version="3"), *(seen(n, 0.7, "3") for n in range(21, 25)),
                 *(seen(n, 0.1, "3") for n in range(25, 30))) == [("3", "full", "1")], "only soon after a switch"
    assert moves(log, verdict("promote", 31, version="4"), seen(32, 0.1, "4"), seen(33, 0.1, "4")) == [
        ("4", "full", "3"), ("3", "full", "4")]


# decide

SPEC = {"target": "y", "numeric": ["x"], "time": "t", "known_at": "k"}
POLICY = {"windows_bad": 1, "windows_seen": 1, "labels_min": 1, "labels_per_class_min": 1, "cool_down_days": 0,
          "triggers_per_day_max": 9}


def deciding(rollout: dict[str, Any] | None = None, **policy: Any) -> Log:
    governed = {"learn": SPEC, "policy": {**POLICY, **policy}, "rollout": rollout or {}}
    step = Decide(Decide.Config.model_validate({"models": {"m": governed}}), project=Path())
    step.outputs(shape(Verdict))
    return Log(step, Verdict)


def window(n: int, first: int, last: int, *, quality: bool = True, drift: bool = True,
           late_ms: int = 0) -> list[Verdict]:
    place: dict[str, Any] = {"topic": "labelled", "partition": 0, "window": n, "offset_first": first,
                             "offset_last": last, "window_start": at(n * DAY_MS),
                             "window_end": at((n + 1) * DAY_MS), "labels": 10}
    return [Verdict(id=f"{about}/{n}", at=at((n + 1) * DAY_MS + late_ms), about=about, flow="w", step="w", model="m",
                    ok=ok, **place, measures={"labels": 10.0, "positives": 5.0} if about == "performance" else {})
            for about, ok in (("quality", quality), ("drift", drift), ("performance", True))]


def ask(n: int = 0, ms: int = 99 * DAY_MS) -> Verdict:
    return replace(verdict("retrain", n), at=at(ms))


def test_a_request_names_the_good_windows() -> None:
    log = deciding(windows_bad=1)
    days = [*window(0, 0, 9), *window(1, 11, 19, quality=False, drift=False), *window(2, 21, 29), *window(3, 31, 39)]
    assert log.feed(*days, into=Retrain) == []
    [asked] = log.feed(ask(), into=Retrain)
    assert [(s.offset_first, s.offset_last) for s in asked.spans()] == [(0, 9), (21, 39)]
    assert (asked.at, asked.window, asked.measure) == (at(4 * DAY_MS), 3, "asked")
    assert json.loads(asked.spec)["target"] == "y"
    assert log.feed(ask(1), *window(4, 41, 49, drift=False), into=Retrain) == [], "one is in flight"


def test_windows_that_overlap() -> None:
    """Rows that came late: what lies in the stretch of a bad window is not trained on, and a request is made when the
    last window was judged, since its stretch has labels of after its end."""
    log = deciding()
    late = 3_600_000
    log.feed(*window(0, 0, 12, late_ms=late), *window(1, 10, 22, quality=False, late_ms=late),
             *window(2, 20, 32, late_ms=late), into=Retrain)
    [asked] = log.feed(ask(), into=Retrain)
    assert [(s.offset_first, s.offset_last) for s in asked.spans()] == [(0, 9), (23, 32)]
    assert asked.at == at(3 * DAY_MS + late)
    assert asked.window_end == at(3 * DAY_MS)


def test_as_of_an_earlier_time() -> None:
    log = deciding()
    log.feed(*window(0, 0, 9), *window(1, 10, 19), *window(2, 20, 29), into=Retrain)
    [asked] = log.feed(ask(ms=2 * DAY_MS + 5), into=Retrain)
    assert [(s.offset_first, s.offset_last) for s in asked.spans()] == [(0, 19)]


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 60), max_size=6), repeat=st.integers(0, 20))
def test_one_request_a_cause_however_it_is_cut(cuts: list[int], repeat: int) -> None:
    days = [each for n in range(12) for each in window(n, n * 10, n * 10 + 9, drift=n % 3 != 0)]
    days[repeat:repeat] = days[max(0, repeat - 5):repeat]  # some are delivered again
    whole = deciding().feed(*days, into=Retrain)
    log = deciding()
    assert [each for part in cut(days, cuts) for each in log.feed(*part, into=Retrain)] == whole
    assert len(whole) == 1, "the first is never answered"


def test_who_is_in_charge_when_it_is_asked() -> None:
    def champion(log: Log, *before: Verdict) -> str | None:
        log.feed(*window(0, 0, 9), *before, into=Retrain)
        [asked] = log.feed(ask(), into=Retrain)
        found: str | None = asked.champion
        return found

    assert champion(deciding()) is None
    assert champion(deciding(), verdict("gate", version="1"), verdict("gate", 1, version="2", ok=False)) == "1"
    assert champion(deciding({"approval": "required"}), verdict("gate", version="1")) is None, "it waits"
    assert champion(deciding({"approval": "required"}), verdict("gate", version="1"),
                    verdict("approve", 1, version="1")) == "1"
    assert champion(deciding({"mode": "canary"}), verdict("gate", version="1"), verdict("gate", 1, version="2")) == "1"
    assert champion(deciding(), verdict("promote", version="1"), verdict("promote", 1, version="2"),
                    verdict("rollback", 2)) == "1"


def test_a_failed_training_lets_the_next_one_go() -> None:
    log = deciding()
    [first] = log.feed(*window(0, 0, 9, drift=False), into=Retrain)
    assert log.feed(*window(1, 10, 19, drift=False), into=Retrain) == []
    log.feed(verdict("failed", ok=False, trigger=first.id), verdict("gate", ok=False, trigger="another"), into=Retrain)
    [second] = log.feed(*window(2, 20, 29, drift=False), into=Retrain)
    assert second.id != first.id
    assert second.rows == 30, "the labels of the failed one count again"


# monitor

ROW = pa.schema([("at", pa.timestamp("ms", "UTC")), ("x", pa.float64()), ("p", pa.float64()), ("v", pa.string()),
                 ("y", pa.bool_())])
WATCH = {"model": "m", "label": "y", "score": "p", "version": "v", "quality": {"bad": "x IS NULL", "rows_min": 2},
         "drift": {"psi_min": 0.5}, "performance": {"labels_min": 2}, "detect": "page_hinkley",
         "window": {"time": "10s", "on": "at", "late": "3s"}}


def watching(**more: Any) -> Any:
    return made(Monitor, {**WATCH, **more}, ROW)


def told(driven: Driven) -> dict[Any, list[tuple[Any, ...]]]:
    """Partition → what was said, without what depends on nothing."""
    out: dict[Any, list[tuple[Any, ...]]] = {}
    for columns, key, stamp, _ in driven.got.get("verdict", []):
        row = dict(columns)
        out.setdefault(row["partition"], []).append((
            row["id"], row["about"], row["window"], row["ok"], row["version"], row["offset_first"], row["offset_last"],
            row["rows"], row["labels"], tuple(sorted(row["measures"])), tuple(row["reasons"]), row["at"], key, stamp))
    return out


rows = st.lists(st.tuples(st.integers(0, 1), st.fixed_dictionaries({
    "at": st.one_of(st.none(), st.integers(0, 90_000).map(at)), "x": st.one_of(st.none(), st.floats(-1, 1)),
    "p": st.one_of(st.none(), st.floats(0, 1)), "v": st.sampled_from([None, "1", "2"]),
    "y": st.sampled_from([None, True, False])})), max_size=40)


@settings(max_examples=60)
@given(placed=rows, cuts=st.lists(st.integers(0, 40), max_size=5))
def test_any_cutting_gives_the_same_verdicts(placed: list[Any], cuts: list[int]) -> None:
    whole, parts = Driven(watching(), ROW), Driven(watching(), ROW)
    if placed:
        whole.feed(records(placed))
        for part in cut(records(placed), cuts):
            parts.feed(part, commit=False)  # an aborted batch leaves no trace
            parts.feed(part)
    assert told(parts) == told(whole)


def series(*points: tuple[float, float, str | None, bool | None]) -> list[tuple[int, dict[str, Any]]]:
    return [(0, {"at": at(int(s * 1000)), "x": x, "p": 0.5, "v": v, "y": y}) for s, x, v, y in points]


def test_a_window_closes_after_its_late_rows() -> None:
    driven = Driven(watching(), ROW)
    driven.feed(records(series((1, 0, "1", True), (11, 0, "1", False), (9, 0, "1", True), (12.9, 0, "2", True))))
    assert told(driven) == {}, "the window of 0 to 10 s waits until 13 s"
    driven.feed(records([*series(*[(0, 0, "1", True)] * 4), *series((13, 0, "2", None), (9.5, 0, "1", True))])[4:])
    verdicts = [dict(columns) for columns, *_ in driven.got["verdict"]]
    assert [each["about"] for each in verdicts] == ["quality", "drift", "performance"]
    assert {(each["rows"], each["labels"], each["offset_first"], each["offset_last"]) for each in verdicts} == {
        (2, 2, 0, 2)}
    assert {each["version"] for each in verdicts} == {"1"}
    assert {each["at"] for each in verdicts} == {at(13_000)}, "when it was known"
    assert {each["window_end"] for each in verdicts} == {at(10_000)}
    assert driven.counts["late"] == 1


def test_windows_without_rows_or_without_a_version() -> None:
    driven = Driven(watching(), ROW)
    driven.feed(records(series((1, 0, None, True), (2, 0, None, False), (75, 0, None, True))))
    verdicts = [dict(columns) for columns, *_ in driven.got["verdict"]]
    assert [(each["about"], each["window"]) for each in verdicts] == [("quality", 0), ("drift", 0), ("performance", 0)]
    assert all(each["ok"] and each["version"] is None for each in verdicts)
    performance = verdicts[2]
    assert dict(performance["measures"]) == {"labels": 2.0, "positives": 1.0}
    assert performance["reasons"] == ["no version has predicted"]


def test_bad_data_are_said() -> None:
    driven = Driven(watching(), ROW)
    driven.feed(records([(0, {"at": at(1), "x": None, "p": None, "v": None, "y": None}),
                         (0, {"at": at(20_000), "x": 0.0, "p": None, "v": None, "y": None})]))
    quality = dict(driven.got["verdict"][0][0])
    assert (quality["about"], quality["ok"]) == ("quality", False)
    assert quality["reasons"] == ["1 of 1 rows are bad (100.0%); 5.0% are allowed", "1 rows, and 2 are expected at "
                                  "least"]


# record


def recording() -> Recording:
    step = Recording(Recording.Config.model_validate({}), project=Path())
    step.outputs_of([shape(Verdict), shape(RetrainResult)])
    return step


@settings(max_examples=30)
@given(pattern=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8))
def test_one_chain_over_any_interleaving(pattern: list[tuple[int, int]]) -> None:
    log = Log(recording(), Verdict)
    results = Log(None, RetrainResult, RESULTS)
    entries: list[dict[str, Any]] = []
    n = 0
    for verdicts, others in pattern:
        said = [verdict("performance", n + i, measures={"auc": float("nan"), "labels": 3.0}) for i in range(verdicts)]
        came = [RetrainResult(id=str(n + i), at=at(0), trigger="t", model="m", status="started", dispatcher="local",
                              metrics={"auc": float("inf")}) for i in range(others)]
        n += max(verdicts, others)
        given_ = [log.batch(said) if said else None, results.batch(came) if came else None]
        if not any(given_):
            continue
        log.step.process_many(given_, log.ctx)
        log.state.undo()  # an abort: the same again gives the same
        out = log.step.process_many(given_, log.ctx)["entry"]
        log.state.seal()
        log.state.commit({})
        entries += out.rows.to_pylist()
    assert len(entries) == sum(map(sum, pattern))
    assert audit.verify(entries) == []
    assert [each["seq"] for each in entries] == list(range(len(entries)))
    assert {json.loads(each["event"])["kind"] for each in entries} <= {"verdict", "result"}
    assert all(json.loads(each["event"])["measures"] == {"auc": None, "labels": 3.0}
               for each in entries if each["topic"] == VERDICTS)
    if entries:
        entries[0]["actor"] = "eve"
        assert audit.verify(entries)[0].kind == "changed"


def test_what_is_no_control_event() -> None:
    with pytest.raises(SchemaError, match="no control events"):
        Recording(Recording.Config.model_validate({}), project=Path()).outputs_of([ROW])
