"""One retraining told at each of its stages: what is known, what came of it, and what is not known."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from headrace.errors import UserError
from headrace.loop.card import card as facts_of
from headrace.loop.models import Logged
from headrace.loop.models.store import Version
from headrace.loopview import History, explain_text
from headrace.loopview.card import facts
from headrace.loopview.explain import explained, find
from tests.unit.loopkit import AFTER, CAUSES, MODEL, RANGE, TRIGGER, at, gate, history, request, result, switch, whole

pytestmark = pytest.mark.unit


def test_the_whole_way() -> None:
    told = explained(whole(), TRIGGER)
    assert (told["asked"]["rule"], told["asked"]["champion"], told["asked"]["by"]) == ("opportunity", "1",
                                                                                     "govern/policy")
    assert [(each["about"], each["measures"], each["place"]) for each in told["causes"]] == [
        ("drift", {"psi.temp": 8.1}, "headrace.verdicts/0@2"), ("drift", {"psi.temp": 8.4}, "headrace.verdicts/0@4")]
    assert told["data"] == {"ranges": [RANGE], "holdout": [], "offsets": 8_124, "digest": "d" * 64}
    run = told["run"]
    assert {name: run[name] for name in ("status", "dispatcher", "run", "mlflow_run", "git_commit", "cpu_s",
                                         "peak_bytes", "versions")} == {
        "status": "succeeded", "dispatcher": "local", "run": "4711", "mlflow_run": "e3b0", "git_commit": "c0ffee",
        "cpu_s": 12.34, "peak_bytes": 512 << 20, "versions": {"all": "7", "recent": "8"}}
    assert (told["gate"]["blessed"], told["gate"]["version"], told["gate"]["candidate"], told["gate"]["champion"]) == (
        True, "7", "all", "1")
    assert list(told["gate"]["compared"]) == ["champion", "all", "recent"]
    assert [(each["epoch"], each["version"], each["previous"]) for each in told["switches"]] == [(2, "7", "1")]
    assert told["no_switch"] is None
    assert [each["measures"]["auc"] for each in told["since"]["verdicts"]] == [0.731]
    assert told["since"]["in_charge"]["version"] == "7"
    assert told["not_known"] == []
    json.dumps(told)


def test_the_whole_way_as_text() -> None:
    text = explain_text(explained(whole(), TRIGGER))
    for said in (f"flight-delay: trigger {TRIGGER}", "asked for by govern/policy as of 2013-03-25",
                 "opportunity: inputs were another regime in 2 of the last 3 windows", "in charge then: version 1",
                 "drift       2013-03-11 to 2013-03-18  NOT ok, version 1: psi.temp 8.1",
                 "flights.labelled/0@0-99, 5,000 rows, 4,800 labels (headrace.verdicts/0@2)", "temp is another regime",
                 "flights.labelled/0@0-8123  8,124 offsets", f"digest of what was read: {'d' * 64}",
                 "succeeded, by local, run 4711", "MLflow run e3b0", "registered all as version 7, recent as version 8",
                 "commit c0ffee, lock file 10c4", "12.3 CPU seconds, 512 MiB at the peak",
                 "BLESSED: version 7 (all), held against version 1", "champion  0.701       –",
                 "all       0.722   0.021", "2 slices; the least change is -0.0110, of all where origin=JFK",
                 "epoch 2: version 7 in charge, before it 1", "performance 2013-04-01 to 2013-04-08  ok, version 7: "
                 "auc 0.731", "in charge now: version 7"):
        assert said in text, f"{said}\n\n{text}"
    assert "not known" not in text


NO_SWITCH: list[tuple[History, str]] = [
    (history(CAUSES, [request(CAUSES)]), "no dispatcher has answered"),
    (history(CAUSES, [request(CAUSES)], [result("started")]), "the training runs"),
    (history(CAUSES, [request(CAUSES)], [result("failed", reason="out of memory")]), "failed: out of memory"),
    (history(CAUSES, [request(CAUSES)], [result("refused", reason="the queue is full")]), "refused: the queue is full"),
    (history(CAUSES, [request(CAUSES)], [result("succeeded")]), "the gate has not judged it yet"),
    (history([*CAUSES, gate(4, ok=False, version="7")], [request(CAUSES)], [result("succeeded")]), "did not bless"),
    (history([*CAUSES, gate(4, ok=True, version="7")], [request(CAUSES)], [result("succeeded")]),
     "headrace models approve flight-delay 7"),
]


@pytest.mark.parametrize(("told", "why"), NO_SWITCH, ids=[why for _, why in NO_SWITCH])
def test_why_there_is_no_switch(told: History, why: str) -> None:
    data = explained(told, TRIGGER)
    assert why in data["no_switch"]
    assert (data["switches"], data["since"]) == ([], None)
    assert f"none: {data['no_switch']}" in explain_text(data)


def test_what_is_not_known_is_said() -> None:
    """A verdict that is gone from its topic, a dispatcher that tells nothing, a request that is gone."""
    bare = replace(result("succeeded"), run=None, mlflow_run=None, data_digest=None, cpu_s=None, peak_bytes=None,
                   git_commit=None, lock_digest=None)
    told = explained(history(CAUSES[:1], [request(CAUSES)], [bare]), TRIGGER)
    assert told["causes"][1] == {"id": CAUSES[1].id, "place": None}
    assert len(told["not_known"]) == 1 + 6 + 1
    text = explain_text(told)
    assert f"a verdict that is not in its topic: {CAUSES[1].id}" in text
    assert "the code's commit" in text.split("\nnot known\n")[1]
    gone = explained(history(results=[result("succeeded")]), TRIGGER)
    assert gone["data"]["ranges"] == [RANGE], "the result has them as well"
    assert gone["asked"] is None
    assert "the request itself is not in its topic" in explain_text(gone)


def test_a_request_by_counted_records_alone() -> None:
    told = explained(history((), [request(ranges=[])]), TRIGGER)
    assert told["data"]["ranges"] == [{"topic": "v", "partition": 0, "offset_first": 3, "offset_last": 3}]
    assert "the request names none" in told["not_known"][0]


def test_what_followed_a_switch() -> None:
    """The guard rolled back, and a later training took over; verdicts on other versions are not of this one."""
    before, other = replace(AFTER, id="early"), replace(AFTER, id="other", version="1")
    base = whole()
    said = [FIRST_WORD, *CAUSES, before, gate(3.5, ok=True, version="7"), AFTER, other]
    made = [switch("1", 0, 0), switch("7", 8, 3.5, trigger=TRIGGER, previous="1"),
            switch("1", 12, 6, previous="7", reason="guard: auc 0.5"), switch("9", 14, 8, trigger="x", previous="1")]
    told = explained(history(said, [request(CAUSES)], [each.event for each in base.results], made), TRIGGER)
    assert [each["id"] for each in told["since"]["verdicts"]] == [AFTER.id]
    assert [(each["version"], each["reason"]) for each in told["since"]["switches"]] == [
        ("1", "guard: auc 0.5"), ("9", made[3].reason)]
    assert told["since"]["in_charge"]["version"] == "9"
    assert "then epoch 4: version 1 in charge, before it 7" in explain_text(told)


FIRST_WORD = replace(CAUSES[0], id="first", about="promote", version="1")


def test_a_trigger_is_found() -> None:
    twin = TRIGGER[:10] + "0" * 54
    told = history((), [request(), request(event_id=twin), request(event_id="f" * 64, model="other")])
    assert find(told) == "f" * 64
    assert find(told, model=MODEL) == twin
    assert find(told, TRIGGER) == TRIGGER
    assert find(told, TRIGGER[:14]) == TRIGGER
    with pytest.raises(UserError, match="2 triggers of flight-delay begin with"):
        find(told, TRIGGER[:8], MODEL)
    with pytest.raises(UserError, match=r"(?s)no trigger begins with “zz” in headrace.retrain.*there is f{16}…"):
        find(told, "zz")
    with pytest.raises(UserError, match="nothing was ever to be retrained of nobody"):
        find(told, model="nobody")


RECORD: dict[str, Any] = {"data_digest": "d" * 64, "ranges": [RANGE], "schema_ids": [4, 9], "rows": 8000,
                          "flow": "govern", "step": "policy", "reason": "another regime", "git_commit": "c0ffee",
                          "lock_digest": None, "image_digest": None, "python": "3.11", "packages": {"mlflow": "3",
                          "skops": None}, "cpu_s": 12.3, "peak_bytes": 5}


def test_a_card_has_what_mlflow_and_the_gate_said() -> None:
    version = Version(MODEL, "7", TRIGGER, "all", "e3b0", datetime(2013, 4, 1, tzinfo=UTC), (), {"auc": 0.72})
    logged = Logged(TRIGGER, MODEL, "e3b0", {"all": "7"}, {"all.auc": 0.72}, RECORD, {"target": "late"}, 1_000)
    made = facts_of(facts(version, logged, whole()))
    assert made["gate"] == {"decision": "blessed", "baseline": "version 1",
                            "reasons": ["all: auc 0.7220, the champion 0.7010"]}
    assert made["quality"]["slices"] == [{"slice": "origin=JFK", "change": -0.011}, {"slice": "origin=LGA",
                                                                                     "change": 0.03}]
    assert made["data"]["schemas"] == {"writer 1": 4, "writer 2": 9}
    assert made["code"]["versions"] == {"python": "3.11", "mlflow": "3"}
    assert {"lock_digest", "owner", "purpose", "event_time_first"} <= set(made["not_known"])
    second = facts(replace(version, version="8", candidate="recent"), logged, whole())
    assert second.decision == "not chosen: version 7 was blessed"
    by_hand = facts_of(facts(Version(MODEL, "3", None, None, None, at(0), (), {}), None, history()))
    assert sorted(by_hand) == ["model", "not_known"]
