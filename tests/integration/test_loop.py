"""The loop by its real processes: from a person's word, or a change of regime, to predictions by another version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from headrace.control import Retrain, Verdict, digest
from headrace.loopview import log
from tests.conftest import Stack
from tests.integration.held import cli
from tests.integration.loopworld import DAY_MS, FIRST, POLICY, T0_MS, World, model, moment, readings, world

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900),
              pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]  # of the registry's HTTP client

MODELS = {
    "auto": model(), "held": model(rollout={"approval": "required"}),
    "bird": model(rollout={"mode": "canary", "share": 0.3}),
    "sick": model(learn={"target": "id < 0"}, policy={**POLICY, "failures_max": 10}),
    "twice": model(),
}


BOOKED = ("verdicts", "retrain", "retrain.results", "models")


@pytest.fixture(scope="module")
def lived(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The first regime has gone by, all of its days but the last are judged."""
    with world(stack.settings, tmp_path_factory.mktemp("loop"), MODELS) as made:
        made.live(0, FIRST, 0)
        made.until(lambda: len(made.verdicts("auto", "performance")) == FIRST - 1, "a verdict a day")
        for name in ("held", "bird", "sick", "twice"):
            made.windows("auto", name)
        yield made


def asked_for(w: World, name: str, n: int) -> list[Retrain]:
    """The requests for a model, once there are `n`."""
    found: list[Retrain] = w.until(lambda: (all_ := w.requests(name))[n - 1:] and all_, f"request {n} for {name}")
    return found


def trained(w: World, name: str) -> tuple[Retrain, Verdict]:
    """A person asks for a training of a model; the request and the gate's verdict."""
    before = {each.id for each in w.requests(name)}
    w.say("retrain", name)
    [asked] = w.until(lambda: [each for each in w.requests(name) if each.id not in before], f"a request for {name}")
    return asked, w.answered(asked.id)


def test_from_a_word_to_predictions_and_a_change_of_regime(lived: World) -> None:
    assert all(row["model_version"] is None for row in lived.rows("scored"))
    asked, verdict = trained(lived, "auto")
    assert (asked.measure, asked.champion, verdict.ok, verdict.version) == ("asked", None, True, "1")
    assert asked.at == moment(T0_MS + (FIRST - 1) * DAY_MS + DAY_MS // 24), "when the last window was judged"
    statuses = [each.status for each in lived.results(asked.id)]
    assert statuses == ["started", "succeeded"]
    assert lived.runs("auto", asked.id) == ["FINISHED"]
    lived.until(lambda: lived.switches("auto"), "a switch")
    lived.until(lambda: alias(lived, "auto") == "1", "the alias")

    lived.until(lambda: probe(lived) == "1", "predictions by version 1")
    lived.live(FIRST, 1, 0)  # as before: nothing happens
    lived.live(FIRST + 1, 3, 1)  # the regime changes
    requests = lived.until(lambda: (found := lived.requests("auto")) and found[1:], "a trigger of the policy's own")
    assert requests[0].measure in ("performance", "opportunity")
    assert requests[0].champion == "1"
    causes = {each.id: each for each in lived.events(Verdict)}
    assert requests[0].causes
    assert all(not causes[each].ok and causes[each].version == "1" for each in requests[0].causes)
    verdict = lived.answered(requests[0].id)
    assert verdict.ok, verdict.reasons
    assert verdict.measures[f"{chosen(lived, verdict)}.auc"] > verdict.measures["champion.auc"] + 0.2
    lived.until(lambda: [each.to for each in lived.switches("auto")] == ["1", verdict.version], "the second switch")
    lived.until(lambda: probe(lived) == verdict.version, "predictions by the new version")
    lived.until(lambda: alias(lived, "auto") == verdict.version, "the alias")


def chosen(w: World, verdict: Verdict) -> str:
    [name] = [name for name, version in w.results(str(verdict.trigger))[-1].candidates.items()
              if version == verdict.version]
    return name


def alias(w: World, name: str, which: str = "champion") -> str | None:
    return next((each.version for each in reversed(w.store().history(name)) if each.alias == which), None)


def probe(w: World) -> str | None:
    """Who predicts now: a reading of no day is sent, and its prediction looked at."""
    before = w.count("scored")
    w.produce("readings", [{"id": 10**9, "x": 0.0, "z": 0.0, "at": T0_MS}])
    w.until(lambda: w.count("scored") > before, "a prediction")
    version: str | None = w.rows("scored")[-1]["model_version"]
    return version


def test_a_switch_waits_for_its_approval(lived: World) -> None:
    _, verdict = trained(lived, "held")
    assert verdict.ok
    marker = lived.say("promote", "twice", "1")  # read after the verdict: what comes of it shows that it was read
    lived.until(lambda: [each for each in lived.switches("twice") if each.verdict == marker.id], "the marker's switch")
    assert lived.switches("held") == []
    told = cli(lived.settings, "models", "approve", "held", str(verdict.version), "--reason", "seen", "--by", "ada",
               "--control", lived.control, "--yes")
    assert told.exit_code == 0, (told.output, told.exception)
    [switch] = lived.until(lambda: lived.switches("held"), "the approved switch")
    assert (switch.to, switch.mode, switch.by, switch.trigger) == (verdict.version, "full", "ada", verdict.trigger)

    other = "2" if verdict.version == "1" else "1"
    lived.say("promote", "held", other)
    lived.say("rollback", "held")
    _, promoted, back = lived.until(lambda: (found := lived.switches("held"))[2:] and found, "the way back")
    assert (promoted.to, back.to, back.previous) == (other, verdict.version, other)
    asked, _ = trained(lived, "held")
    assert asked.champion == verdict.version, "the version in charge, after promotion and rollback"


def test_a_canary_keeps_to_its_keys(lived: World) -> None:
    _, verdict = trained(lived, "bird")
    lived.until(lambda: [each.mode for each in lived.switches("bird")] == ["full"], "the first is in charge at once")
    other = "2" if verdict.version == "1" else "1"
    blessed = replace(verdict, id=digest("bird", other), version=other, trigger=None)
    lived.send(blessed)
    lived.until(lambda: [each.mode for each in lived.switches("bird")] == ["full", "canary"], "a canary")
    lived.until(lambda: alias(lived, "bird", "challenger") == other, "the challenger's alias")
    rows = [{**row, "id": 10**6 + row["id"]} for row in readings(0, 2, 0)]

    def flown() -> dict[int, str]:
        before = lived.count("scored")
        lived.produce("readings", rows)
        lived.until(lambda: lived.count("scored") >= before + len(rows), "predictions")
        return {row["id"]: row["bird_version"] for row in lived.rows("scored")[before:] if 10**6 <= row["id"] < 10**7}

    first = lived.until(lambda: (found := flown()) and other in found.values() and found, "the canary")
    share = sum(version == other for version in first.values()) / len(first)
    assert 0.2 < share < 0.4, share
    assert set(first.values()) == {verdict.version, other}
    assert flown() == first
    lived.send(replace(blessed, id=digest("won"), about="experiment", ok=True))
    lived.until(lambda: [each.mode for each in lived.switches("bird")] == ["full", "canary", "full"], "it takes over")
    lived.until(lambda: set(flown().values()) == {other}, "all by the one that won")


def test_a_training_that_fails_is_said_and_the_policy_goes_on(lived: World) -> None:
    for n in (1, 2):
        lived.say("retrain", "sick", at=moment(T0_MS + 100 * DAY_MS + n))
        asked = asked_for(lived, "sick", n)[-1]
        verdict = lived.answered(asked.id, "failed")
        assert "not of both classes" in "; ".join(verdict.reasons)
        assert [each.status for each in lived.results(asked.id)] == ["started", "failed"]
        assert lived.runs("sick", asked.id) == []
    assert lived.switches("sick") == []


def test_repeats_of_a_request_are_one_run(lived: World) -> None:
    [like, *_] = lived.until(lambda: lived.requests("auto") or lived.requests("held"), "some request")
    asked = replace(like, id=digest("by hand", lived.u), model="twice", champion=None,
                    spec=json.dumps({**json.loads(like.spec), "name": "twice"}))
    lived.send(asked, asked)
    lived.until(lambda: lived.results(asked.id), "its start")
    lived.send(asked)
    lived.answered(asked.id)
    lived.send(asked)
    marker = replace(asked, id=digest("after", lived.u), spec="{}")
    lived.send(marker)
    lived.answered(marker.id, "failed")  # whatever was sent before has been read
    assert [each.status for each in lived.results(asked.id)] == ["started", "succeeded"]
    assert len(lived.events(Verdict, trigger=asked.id)) == 1
    assert lived.runs("twice", asked.id) == ["FINISHED"]
    assert len([each for each in lived.store().versions("twice") if each.trigger == asked.id]) == 2


def test_the_books_are_whole(lived: World) -> None:
    """Every event of the control topics once in the audit log, and the chain unbroken."""
    lived.until(lambda: len(log.entries(lived.settings, lived.control).entries) >= said(lived), "all entries")
    check_books(lived)
    told = cli(lived.settings, "audit", "verify", "--control", lived.control)
    assert told.exit_code == 0, told.output


def said(w: World) -> int:
    """How many control events there are."""
    return sum(len(w.records(f"{w.control}.{name}")) for name in BOOKED)


def check_books(w: World) -> None:
    found = log.entries(w.settings, w.control)
    assert log.check(found)["ok"], log.check(found)["flaws"][:5]
    places = [(each["topic"], each["offset"]) for each in found.entries]
    assert len(places) == len(set(places)), "an event twice"
    for name in BOOKED:
        topic = f"{w.control}.{name}"
        assert {offset for at, offset in places if at == topic} == {m.offset() for m in w.records(topic)}, name
