"""The policy: a state machine over verdicts, by event time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.loop.policy import DAY_MS, Decision, PolicySpec, PolicyState, decide, plain

pytestmark = pytest.mark.unit
T0 = 1_362_114_000_000


def spec(**said: Any) -> PolicySpec:
    return PolicySpec.model_validate({
        "model": "m", "windows_bad": 2, "windows_seen": 3, "labels_min": 1000, "labels_per_class_min": 100,
        "cool_down_days": 3, **said})


def window(n: int, *, quality: bool = True, drift: bool = True, performance: bool = True, labels: int = 600,
           positives: int = 200) -> list[dict[str, Any]]:
    """The three verdicts of day `n`; True is within bounds."""
    base = {"window": n, "start_ms": T0 + n * DAY_MS, "end_ms": T0 + (n + 1) * DAY_MS}
    return [{"id": f"{about}/{n}", "about": about, "ok": ok, "reasons": [f"{about} of {n}"], **base,
             **({"measures": {"labels": labels, "positives": positives}} if about == "performance" else {})}
            for about, ok in (("quality", quality), ("drift", drift), ("performance", performance))]


def answer(decision: Decision, *, blessed: bool) -> dict[str, Any]:
    return {"about": "gate", "trigger": decision.id, "ok": blessed, "end_ms": decision.as_of_ms}


def failed(decision: Decision) -> dict[str, Any]:
    return {"about": "failed", "trigger": decision.id, "ok": False, "end_ms": decision.as_of_ms}


def run(rules: PolicySpec, verdicts: Iterable[Mapping[str, Any]],
        state: PolicyState | None = None) -> tuple[PolicyState, list[Decision]]:
    """The state goes through JSON after every verdict, as it does in a changelog."""
    state, decisions = state or PolicyState(), []
    for verdict in verdicts:
        state, decision = decide(rules, state, verdict)
        state = PolicyState.from_json(json.loads(json.dumps(state.to_json())))
        decisions += [decision] if decision else []
    return state, decisions


def flat(*windows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [verdict for each in windows for verdict in each]


def test_a_new_regime_with_labels_enough_is_an_opportunity() -> None:
    state, (made,) = run(spec(), flat(window(0), window(1, drift=False), window(2, drift=False)))
    assert (made.rule, made.window, made.as_of_ms) == ("opportunity", 2, T0 + 3 * DAY_MS)
    assert made.causes == ("drift/1", "drift/2")
    assert (made.labels, made.positives, made.attempt) == (1800, 600, 1)
    assert "2 of the last 3 windows" in made.reason
    assert "drift of 2" in made.reason
    assert state.in_flight
    assert state.in_flight["id"] == made.id


def test_drift_alone_never_triggers() -> None:
    days = [window(n, drift=False, labels=0, positives=0) for n in range(60)]
    assert run(spec(), flat(*days))[1] == []
    one_class = [window(n, drift=False, labels=600, positives=1) for n in range(60)]
    assert run(spec(), flat(*one_class))[1] == []


def test_one_bad_window_is_none() -> None:
    days = [window(n, drift=n % 3 != 0) for n in range(30)]
    assert run(spec(), flat(*days))[1] == [], "one in three is not two of three"


def test_performance_comes_first_and_good_windows_say_nothing() -> None:
    assert run(spec(), flat(*[window(n) for n in range(30)]))[1] == []
    _, (made,) = run(spec(), flat(window(0, drift=False, performance=False), window(1, drift=False, performance=False)))
    assert made.rule == "performance"


def test_bad_data_neither_counts_nor_is_trained_on() -> None:
    bad = [window(n, quality=False, drift=False, performance=False) for n in range(20)]
    state, made = run(spec(), flat(*bad))
    assert made == []
    assert state.labels == 0
    _, (one,) = run(spec(), flat(window(20, drift=False), window(21, drift=False)), state)
    assert one.excluded == tuple((T0 + n * DAY_MS, T0 + (n + 1) * DAY_MS) for n in range(20))
    assert one.labels == 1200


def test_one_in_flight_and_what_becomes_of_it() -> None:
    drifting = [window(n, drift=False) for n in range(30)]
    state, made = run(spec(), flat(*drifting))
    assert len(made) == 1, "no answer came"
    after, more = run(spec(), [answer(made[0], blessed=True), *flat(window(30, drift=False), window(31, drift=False))],
                      state)
    assert [each.rule for each in more] == ["opportunity"]
    assert after.since_ms == made[0].as_of_ms
    assert more[0].since_ms == made[0].as_of_ms
    strange, none = run(spec(), [{**answer(made[0], blessed=True), "trigger": "another"}], state)
    assert (strange, none) == (state, [])


def test_cool_down_and_budgets() -> None:
    def play(**said: Any) -> list[int]:
        state, at = PolicyState(), []
        rules = spec(**said)
        for n in range(40):
            for verdict in window(n, drift=False, labels=2000, positives=1000):
                state, made = decide(rules, state, verdict)
                if made:
                    at.append(made.window)
                    state, _ = decide(rules, state, answer(made, blessed=False))
        return at

    assert play(cool_down_days=10) == [1, 11, 21, 31]
    assert play(cool_down_days=0, triggers_max=3) == [1, 3, 5]
    assert play(cool_down_days=0, triggers_max=3, rejected_cool_down_days=5) == [1, 6, 11]
    assert play(triggers_max=0) == []


def test_budget_of_a_day() -> None:
    hour = DAY_MS // 24
    rules = spec(windows_bad=1, windows_seen=1, cool_down_days=0, triggers_per_day_max=2)
    state, at = PolicyState(), []
    for n in range(48):
        for verdict in window(n, drift=False, labels=2000, positives=1000):
            verdict |= {"start_ms": 20_000 * DAY_MS + n * hour, "end_ms": 20_000 * DAY_MS + (n + 1) * hour - 1}
            state, made = decide(rules, state, verdict)
            if made:
                at.append(n)
                state, _ = decide(rules, state, answer(made, blessed=True))
    assert at == [0, 1, 24, 25]


def test_failures_give_the_labels_back_and_then_rest() -> None:
    rules = spec(cool_down_days=0, failures_max=2, rest_days=10)
    state, at = PolicyState(), []
    for n in range(30):
        for verdict in window(n, drift=False):
            state, made = decide(rules, state, verdict)
            if made:
                at.append((made.window, made.labels))
                state, _ = decide(rules, state, failed(made))
                again, none = decide(rules, state, failed(made))
                assert (again, none) == (state, None), "said twice, counted once"
    assert at == [(1, 1200), (3, 2400), (13, 8400), (15, 9600), (25, 15600), (27, 16800)]


def test_a_lost_request_is_given_up_by_event_time() -> None:
    drifting = flat(*[window(n, drift=False) for n in range(20)])
    assert len(run(spec(), drifting)[1]) == 1
    made = run(spec(in_flight_max_days=5, failures_max=100), drifting)[1]
    assert [each.window for each in made] == [1, 6, 11, 16]


def test_age() -> None:
    rules = spec(age_max_days=10)
    _, (made,) = run(rules, flat(*[window(n) for n in range(12)]), PolicyState(since_ms=T0))
    assert (made.rule, made.window) == ("age", 9)
    assert "10 days" in made.reason


def test_a_window_waits_for_all_that_is_expected_and_no_longer() -> None:
    late = flat(window(0, drift=False), window(1, drift=False))
    held = late.pop()
    state, made = run(spec(patience_days=3), late)
    assert made == []
    assert len(run(spec(patience_days=3), [held], state)[1]) == 1
    _, (made_then,) = run(spec(patience_days=3, labels_min=500), flat(*[window(n) for n in (2, 3, 4)]), state)
    assert made_then.window == 1, "weighed without its performance"


def test_repeats_and_late_verdicts_change_nothing() -> None:
    days = flat(*[window(n, drift=False) for n in range(4)])
    state, _ = run(spec(), days)
    assert run(spec(), days, state) == (state, [])


def test_a_verdict_as_it_is_in_kafka() -> None:
    start, at = (datetime(2013, 3, day, 5, tzinfo=UTC) for day in (1, 8))
    made = plain({"id": "x", "about": "drift", "ok": False, "window": 3, "window_start": start, "window_end": at,
                  "at": at, "measures": {"psi.temp": 1.5}, "reasons": [], "labels": 0})
    assert made["end_ms"] - made["start_ms"] == 7 * DAY_MS
    assert decide(spec(), PolicyState(), json.loads(json.dumps(made)))[0].open["3"]["drift"]["ok"] is False


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=25), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_order_within_a_window_does_not_matter_and_repeats_do_not(days: list[tuple[bool, bool, bool]],
                                                                     chance: Any) -> None:
    said = [window(n, quality=q, drift=d, performance=p) for n, (q, d, p) in enumerate(days)]
    mixed = [chance.sample(each, 3) + chance.sample(each, 1) for each in said]
    state, made = run(spec(), flat(*said))
    state_too, made_too = run(spec(), flat(*mixed))
    assert [each.id for each in made] == [each.id for each in made_too]
    assert (made, state.to_json() | {"open": {}}) == (made_too, state_too.to_json() | {"open": {}})
    assert len({each.id for each in made}) == len(made)


@pytest.mark.parametrize(("said", "told"), [
    ({"windows_bad": 4}, "4 of 3"), ({"expects": ["weather"]}, "not weather"), ({"modle": "x"}, "modle")])
def test_what_cannot_be_is_refused(said: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        spec(**said)
