"""Who is in charge, what waits, how many trainings: as the events say, and no more."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.errors import UserError
from headrace.loop.audit import GENESIS, entry
from headrace.loopview import status_text
from headrace.loopview.log import Log, check, pick
from headrace.loopview.standing import standing, waiting
from headrace.loopview.status import model_status
from headrace.loopview.text import instant, moment
from headrace.loopview.word import find_waiting, word
from tests.unit.loopkit import CAUSES, FIRST, MODEL, TRIGGER, at, gate, history, request, result, switch, whole

pytestmark = pytest.mark.unit


def test_who_is_in_charge() -> None:
    told = standing(whole(), MODEL)
    assert told["in_charge"] == {"version": "7", "epoch": 2, "since": at(3.5).isoformat(), "by": None,
                                 "reason": "all: auc 0.7220, the champion 0.7010", "trigger": TRIGGER}
    assert (told["challenger"], told["previous"], told["epoch"], told["waiting"]) == (None, "1", 2, [])
    assert standing(whole(), "another") == {"in_charge": None, "challenger": None, "previous": None, "epoch": None,
                                            "waiting": []}


def test_a_canary_stands_beside_the_one_in_charge() -> None:
    begun = [switch("1", 0, 0), switch("7", 6, 3, mode="canary", share=0.1, previous="1")]
    told = standing(history(switches=begun), MODEL)
    assert (told["in_charge"]["version"], told["in_charge"]["epoch"], told["epoch"]) == ("1", 0, 2)
    assert (told["challenger"]["version"], told["challenger"]["mode"], told["challenger"]["share"]) == (
        "7", "canary", 0.1)
    lost = standing(history(switches=[*begun, switch("7", 8, 4, mode="off", previous="1")]), MODEL)
    assert (lost["in_charge"]["version"], lost["challenger"], lost["previous"]) == ("1", None, None)
    won = standing(history(switches=[*begun, switch("7", 8, 4, previous="1")]), MODEL)
    assert (won["in_charge"]["version"], won["challenger"], won["previous"]) == ("7", None, "1")


def test_after_a_rollback_the_version_before_is_the_one_left() -> None:
    made = [switch("1", 0, 0), switch("7", 2, 1, previous="1"), switch("1", 4, 2, previous="7"),
            switch("1", 6, 3, previous="1")]
    assert standing(history(switches=made), MODEL)["previous"] == "7"


def test_the_one_in_charge_is_known_though_its_switch_was_compacted_away() -> None:
    told = standing(history(switches=[switch("7", 6, 3, mode="canary", share=0.1, previous="1")]), MODEL)
    assert told["in_charge"] == {"version": "1", "epoch": None, "since": None, "reason": None, "by": None,
                                 "trigger": None}
    text = status_text({"control": "headrace", "absent": [], "unreadable": [], "models": {
        MODEL: model_status(history(switches=[switch("7", 6, 3, mode="canary", share=0.1, previous="1")]), MODEL)}})
    assert "version 1; the switch that put it there is no longer in the topic" in text
    assert "version 7, canary for 10% of the keys" in text


def test_what_is_blessed_waits_until_a_switch_to_it() -> None:
    blessed = gate(3.5, ok=True, version="7")
    said = [FIRST, *CAUSES, blessed]
    [waits] = waiting(history(said, switches=[switch("1", 0, 0)]), MODEL)
    assert (waits["version"], waits["trigger"], waits["since"]) == ("7", TRIGGER, at(3.5).isoformat())
    assert waiting(history(said, switches=[switch("7", 8, 4)]), MODEL) == []
    assert waiting(history(said, switches=[switch("7", 8, 4, mode="canary", share=0.5)]), MODEL) == []
    before = history(said, switches=[switch("7", 0, 0), switch("1", 2, 1)])
    assert [each["version"] for each in waiting(before, MODEL)] == ["7"], "a switch before its blessing is none of it"
    assert waiting(history([gate(3.5, ok=False, version="7")]), MODEL) == []


def test_what_waits_is_found_by_version_and_by_trigger() -> None:
    told = history([gate(3, ok=True, version="7"), gate(4, ok=True, version="9", trigger=TRIGGER[:8] + "0" * 56)])
    assert find_waiting(told, MODEL, "9")["version"] == "9"
    assert find_waiting(told, MODEL, TRIGGER)["version"] == "7"
    assert find_waiting(told, MODEL, TRIGGER[:12])["version"] == "7"
    with pytest.raises(UserError, match="the beginning of 2 triggers"):
        find_waiting(told, MODEL, TRIGGER[:6])
    with pytest.raises(UserError, match=r"(?s)called “8” waits.*version 7 \(trigger .*version 9"):
        find_waiting(told, MODEL, "8")
    with pytest.raises(UserError, match=r"(?s)nothing of it waits; .headrace models history flight-delay"):
        find_waiting(history(), MODEL, "7")


@pytest.mark.parametrize(("results", "where"), [
    ([], "waiting"), ([result("started")], "running"), ([result("started"), result("succeeded")], "to_judge"),
    ([result("started"), result("failed", reason="out of memory")], "failed"),
    ([result("refused", reason="the queue is full")], "failed"),
    ([result("succeeded"), result("started")], "to_judge"),
])
def test_where_a_request_is(results: list[object], where: str) -> None:
    told = model_status(history(CAUSES, [request(CAUSES)], results), MODEL)  # type: ignore[arg-type]
    assert {name: [each["trigger"] for each in found] for name, found in told["requests"].items() if found} == {
        where: [TRIGGER]}


def test_the_status_of_a_model() -> None:
    told = model_status(whole(), MODEL)
    assert told["retrains"] == {"asked": 1, "trained": 1, "failed": 0, "blessed": 1, "rejected": 0}
    assert not any(told["requests"].values())
    assert sorted(told["verdicts"]) == ["drift", "performance", "promote"]
    assert told["verdicts"]["drift"]["measures"] == {"psi.temp": 8.4}, "the last one"
    assert (told["gate"]["ok"], told["gate"]["version"]) == (True, "7")
    text = status_text({"control": "headrace", "absent": ["headrace.audit"], "unreadable": [],
                        "models": {MODEL: told}})
    for said in ("not there: headrace.audit", "in charge   version 7 since 2013-03-28 12:00, epoch 2: all: auc 0.7220",
                 "last gate   blessed version 7", "drift       2013-03-18 to 2013-03-25  NOT ok, version 1: psi.temp "
                 "8.4  temp still is", "promote     2013-03-04  by ada, version 1  the first one",
                 "1 asked for, 1 trained, 1 blessed, 0 rejected, 0 failed"):
        assert said in text, text
    json.dumps(told)


def test_a_word_has_the_same_id_when_it_is_the_same() -> None:
    one, again = (word("retrain", MODEL, None, "why", "ada", at=at(1)) for _ in range(2))
    assert one == again
    assert (one.at, one.key()) == (at(1), MODEL.encode())
    others = [word("retrain", MODEL, None, "why", "bob", at=at(1)), word("retrain", MODEL, None, "why", "ada",
              at=at(2)), word("promote", MODEL, "1", "why", "ada", at=at(1)), word("rollback", "m", None, "", "ada",
                                                                                  at=at(1))]
    assert len({one.id, *(each.id for each in others)}) == 5


def test_times() -> None:
    assert instant("2013-07-01") == instant("2013-07-01T02:00:00+02:00") == instant("2013-07-01T00:00:00Z")
    assert (moment("2013-07-01T00:00:00+00:00"), moment("2013-07-01T10:30:00+00:00"), moment(None)) == (
        "2013-07-01", "2013-07-01 10:30", "a time not known")
    with pytest.raises(UserError, match="“yesterday” is no time"):
        instant("yesterday")


def test_the_log_is_checked_and_picked_from() -> None:
    found: list[dict[str, Any]] = []
    for seq, each in enumerate(whole().switches):
        found.append(entry(found[-1]["hash"] if found else GENESIS, seq, round(each.event.at.timestamp() * 1000),
                           each.event.by or "govern/switch", "switch full", f"{MODEL}/{each.event.to}",
                           json.loads(each.event.to_json()), each.at))
    assert check(Log(found)) == {"ok": True, "entries": 2, "flaws": [], "anchor": found[-1]["hash"]}
    told = check(Log([{**found[0], "actor": "mallory"}, found[1]], ["audit/0@7: no record"]))
    assert not told["ok"]
    assert [(flaw["seq"], flaw["kind"]) for flaw in told["flaws"]] == [(-1, "unreadable"), (0, "changed")]
    assert [flaw["kind"] for flaw in check(Log(found[:1]), found[1]["hash"])["flaws"]] == ["cut"]
    assert check(Log([]))["anchor"] is None
    assert pick(found, model=MODEL, since=at(1)) == found[1:]
    assert pick(found, model="another") == []
