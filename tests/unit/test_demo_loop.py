"""The demo's last act without a broker: its weeks, what it tells, and a referee that must see what is wrong."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from headrace.control import Retrain, RetrainResult, Switch, Verdict
from headrace.demo import baselines, charts, referee, replay
from headrace.demo.data import flights
from headrace.demo.folder import new_run
from headrace.demo.referee import Read, Truth
from headrace.demo.told import Told

pytestmark = pytest.mark.unit
HOUR = replay.HOUR_MS
START = datetime(2013, 3, 1, 5, tzinfo=UTC)
FIRST = round(START.timestamp() * 1000)


def test_chunks_cut_both_streams_at_the_weeks_and_lose_nothing() -> None:
    some = flights(last=date(2013, 3, 26))
    departs = some.at_ms
    arrives = replay.landings(some).column("arrived_at").cast(pa.int64()).to_numpy()
    found = list(replay.chunks(departs, arrives))
    for name, times in (("departures", departs), ("landings", arrives)):
        cuts = [getattr(chunk, name) for chunk in found]
        assert [cut.start for cut in cuts] == [0, *(cut.stop for cut in cuts[:-1])]
        assert cuts[-1].stop == len(times)
    assert found[0].end == START, "all before March at once"
    assert {chunk.end - chunk.begin for chunk in found[1:]} == {timedelta(days=7)}
    for chunk, following in pairwise(found):
        end = round(chunk.end.timestamp() * 1000)
        assert (departs[chunk.departures] < end).all()
        assert (departs[following.departures] >= end).all()
        assert arrives[chunk.landings][-1] >= end, "the monitor would not know that the week is over"
        assert (arrives[chunk.landings] < departs[following.departures][0]).all(), "no outcome comes before its time"


def test_the_weeks_are_the_monitors(tmp_path: Any) -> None:
    """The chunks' ends, and what is asked for first, fit the windows that the flow declares."""
    with new_run(tmp_path) as run:
        stage = replay.stage(run)
        monitor = next(step for step in stage.flows[replay.WATCHED].plan.steps if step.kind == "monitor")
        axis = monitor.processor.config.window.axis()
        assert (axis.size, axis.shift) == (replay.WEEK_MS, replay.SHIFT_MS)
        assert (FIRST - axis.shift) % axis.size == 0
        topics = stage.names()
        assert all(run.name in name for name in topics), "a second run would find this one's records"
        assert set(stage.said()) <= set(topics)
        assert set(stage.groups()) == {*replay.FLOWS, *replay.PARTS}
        assert run.mlflow_uri.startswith(f"sqlite:///{run.folder.resolve()}/")


def test_the_landings_are_those_of_flights_that_landed() -> None:
    some = flights(last=date(2013, 1, 4))
    landed = replay.landings(some)
    at = landed.column("arrived_at").to_pylist()
    assert at == sorted(at)
    assert len(landed) == len(some) - some.arrivals["arr_delay"].null_count
    truth = referee.truth_of(some)
    assert int(truth.landed.sum()) == len(landed)
    assert (truth.arrives_ms[truth.landed] > some.at_ms[truth.landed]).all()
    assert np.nansum(truth.late) == sum((delay or 0) > 15 for delay in some.arrivals["arr_delay"].to_pylist())


def verdict(about: str, *, ok: bool = True, **more: Any) -> Verdict:
    return Verdict(id=f"{about}{ok}", at=START, about=about, flow="f", step="s", ok=ok, model="m", **more)


def request(id_: str = "t1") -> Retrain:
    return Retrain(id=id_, at=START, flow="f", step="s", topic="t", partition=0, window=1, offset_first=0,
                   offset_last=9, window_start=None, window_end=None, measure="performance", condition=None, rows=1,
                   matched=1, observed=1.0, threshold=0.0, model="m", reason="it was bad")


def switch(to: str, at: datetime = START, previous: str | None = None) -> Switch:
    return Switch(id=to, at=at, flow="f", step="s", topic="t", partition=0, window=0, offset_first=0, offset_last=0,
                  window_start=None, window_end=None, measure="gate", condition=None, rows=0, matched=0, observed=1.0,
                  threshold=1.0, model="m", to=to, reason="", previous=previous)


def result(status: str) -> RetrainResult:
    return RetrainResult(id=status, at=START, trigger="t1", model="m", status=status, dispatcher="local",
                         candidates={"all": "4"}, cpu_s=12.3, mlflow_run="r1", reason="no memory")


def test_told_follows_a_retraining_from_its_cause_to_its_switch() -> None:
    told = Told()
    assert told.note(verdict("performance", ok=False, window=3, window_start=START, version="1",
                             measures={"auc": 0.61, "baseline": 0.7})) is None
    assert (told.weeks[3].auc, told.weeks[3].version, told.weeks[3].bad) == (0.61, "1", ["performance"])
    assert "it was bad" in str(told.note(request()))
    assert [each.state for each in told.open] == ["asked"]
    assert told.note(result("started")) is None
    assert "version 4" in str(told.note(result("succeeded")))
    assert told.open, "trained is not answered"
    assert "BLESSED" in str(told.note(verdict("gate", trigger="t1", version="4", reasons=["better"])))
    assert not told.open
    assert "in place of version 1" in str(told.note(switch("4", previous="1")))
    assert told.in_charge == "4"
    assert told.retrainings["t1"].state == "blessed"


def test_told_keeps_rejections_and_failures() -> None:
    told = Told()
    told.note(request())
    assert "REJECTED: too bad" in str(told.note(verdict("gate", ok=False, trigger="t1", reasons=["too bad"])))
    assert told.retrainings["t1"].state == "rejected"
    assert not told.failures
    told.note(request("t1"))
    assert "no memory" in str(told.note(result("failed")))
    assert "no memory" in told.failures[0]
    assert told.open, "what failed is answered by a verdict only"


JOIN = SimpleNamespace(before=2 * HOUR, within=36 * HOUR, late=HOUR)
N = 60


def world() -> tuple[Read, Truth]:
    """Flights an hour apart that take two; one in seven has no prediction, one in five never lands; all is well."""
    number = np.arange(N)
    scored, landed = number % 7 != 3, number % 5 != 1
    departs = FIRST + number * HOUR
    late = np.where(landed, (number % 2).astype(float), np.nan)
    truth = Truth(late, departs, np.where(landed, departs + 2 * HOUR, 0))
    seen = scored & landed
    p = np.where(scored, 0.5, np.nan)
    strays = ~scored & landed & (truth.arrives_ms < departs[scored].max() - 3 * HOUR)
    unlabelled = scored & ~landed & (departs < truth.arrives_ms.max() - 37 * HOUR)
    return Read(scored.astype(int), seen.astype(int), unlabelled.astype(int), strays.astype(int), p,
                np.where(scored, "1", "").astype(object), np.where(seen, late, np.nan),
                int((~scored).sum())), truth


def test_the_referee_finds_nothing_where_all_is_well() -> None:
    it, truth = world()
    assert it.strays.any()
    assert it.unlabelled.any()
    assert referee.conserved(it, truth, JOIN) == (0, 0, [])


@pytest.mark.parametrize(("name", "place", "count", "lost", "doubled"), [
    ("labelled", 0, 0, 1, 0), ("labelled", 0, 2, 0, 1), ("labelled", 3, 1, 0, 0), ("labelled", 1, 1, 0, 0),
    ("scored", 0, 0, 1, 0), ("scored", 0, 3, 0, 2), ("strays", 10, 0, 1, 0), ("strays", 10, 2, 0, 1),
    ("strays", 0, 1, 0, 0), ("unlabelled", 6, 0, 1, 0), ("unlabelled", 0, 1, 0, 0)])
def test_the_referee_sees_a_record_that_is_lost_doubled_or_elsewhere(name: str, place: int, count: int, lost: int,
                                                                     doubled: int) -> None:
    it, truth = world()
    getattr(it, name)[place] = count
    found = referee.conserved(it, truth, JOIN)
    assert found[2], "nothing was said"
    assert found[0] >= lost
    assert found[1] == doubled


def test_the_referee_sees_a_label_that_was_turned_and_a_prediction_that_changed() -> None:
    it, truth = world()
    it.late[0] = 1 - it.late[0]
    assert any("labels differ" in fault for fault in referee.conserved(it, truth, JOIN)[2])
    it, truth = world()
    it.differing = 2
    assert any("changed" in fault for fault in referee.conserved(it, truth, JOIN)[2])


def test_versions_are_due_from_their_switch_on() -> None:
    times = FIRST + np.array([-1, 0, 5, 10, 11]) * HOUR
    made = referee.versions_due([switch("1"), switch("7", START + timedelta(hours=10))], times)
    assert made.tolist() == ["", "1", "1", "7", "7"]


@pytest.mark.parametrize(("gated", "retrains", "faults"), [
    (0.706, 6, 0), (0.706, 7, 1), (0.691, 6, 2), (0.703, 6, 1), (float("nan"), 6, 2)])
def test_what_the_loop_owes(gated: float, retrains: int, faults: int) -> None:
    means = {"static": 0.672, "last_two_months": 0.7, "cumulative": 0.712, "gated": gated}
    assert len(list(referee.too_little(means, {"gated": retrains}, whole=True))) == faults
    assert len(list(referee.too_little(means, {"gated": retrains}, whole=False))) == (retrains > 6)


def test_baselines_train_on_what_was_known_and_score_every_month() -> None:
    some = flights(date(2013, 2, 20), date(2013, 4, 3))
    from headrace.demo import features
    from headrace.resources import content

    it = baselines.known(some, content("schemas").parent)
    assert 0.9 < it.valid.mean() < 1
    said: list[str] = []
    made = baselines.reckon(features.MODEL, it, said.append)
    march, april = it.month == 3, it.month == 4
    for policy in baselines.POLICIES:
        assert np.isnan(made[policy][it.month == 2]).all()
        assert not np.isnan(made[policy][march | april]).any()
        assert np.array_equal(made[policy][march], made["static"][march]), "in March all were trained on the same"
    assert not np.array_equal(made["static"][april], made["cumulative"][april])
    assert {name: made[f"{name}.trained"] for name in baselines.POLICIES} == {
        "static": 1, "last_two_months": 2, "cumulative": 2}
    assert len(said) == 2, "the same rows are trained on once"


def test_a_trend_is_well_formed_and_begins_where_its_values_do() -> None:
    svg = charts.trend("AUC <by> month", [charts.Line("a & b", "one", [(1, 0.61), (2, 0.7)]),
                                          charts.Line("c", "two", [(1, 0.65)])], names=[(1, "Mar")],
                       bands=[charts.Band(1, 2, "v1", "one")], marks=[charts.Mark(1.5, "rejected")])
    ElementTree.fromstring(svg)
    assert ">0.60<" in svg
    assert ">0.70<" in svg
    assert ">0.00<" not in svg
    assert "v1" in svg
    assert "http" not in svg
    ElementTree.fromstring(charts.trend("nothing", [], names=[]))
