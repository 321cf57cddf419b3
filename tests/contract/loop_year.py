"""The loop, played in process over the year of flights: what the processors do between topics, without the topics.

Weekly windows by scheduled time. At a window's end only what was known by then is used: verdicts are told to the
policy; what it decides is trained at once; the gate judges; what it blesses scores the flights scheduled from then on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.demo import features
from headrace.demo.data import Flights, flights
from headrace.loop import drift, gate, measures, policy, training
from headrace.loop.leak import times_ms

DAY_MS = training.DAY_MS
WEEK_MS = 7 * DAY_MS
BLOCK_MS = 3 * 3_600_000
"""Flights of the same three hours are drawn together by the gate's bootstrap: they share their weather."""
LATER_MS = 8 * WEEK_MS
"""How long after a decision what became of it is looked at."""
MONTHS = range(3, 13)
SPEC = features.MODEL


def at_ms(month: int, day: int = 1) -> int:
    """The beginning of a day in New York."""
    return round(datetime(2013, month, day, features.DAY_BEGINS_H, tzinfo=UTC).timestamp() * 1000)


def begin(window: int) -> int:
    return at_ms(3) + window * WEEK_MS


@dataclass(frozen=True)
class Year:
    """Rows in the order of scheduled time, with their labels (NaN: never), times and months."""

    flights: Flights
    rows: pa.Table
    y: Any
    at: Any
    known: Any
    month: Any
    fitted: dict[tuple[str, int, bytes], Any] = field(default_factory=dict)

    def score(self, model: Any, mask: Any) -> Any:
        """Probabilities where `mask`, NaN elsewhere."""
        scores = np.full(len(self.y), np.nan)
        scores[mask] = training.predict(model, self.rows.filter(pa.array(mask)))
        return scores

    def fit(self, candidate: Any, as_of_ms: int, mask: Any) -> Any:
        """A candidate on the rows of `mask`; the same again is not fitted again."""
        key = (candidate, as_of_ms, hashlib.sha256(np.packbits(mask)).digest())
        if key not in self.fitted:
            self.fitted[key] = training.fit(SPEC, self.rows.filter(pa.array(mask)), candidate, as_of_ms)
        return self.fitted[key]

    def monthly(self, scores: Any) -> list[float]:
        """AUC of March … December, of the flights that have a label."""
        labelled = ~np.isnan(self.y)
        return [measures.auc(self.y[mine], scores[mine]) for mine in (labelled & (self.month == m) for m in MONTHS)]

    def auc(self, scores: Any, first_ms: int, end_ms: int) -> float:
        mine = ~np.isnan(self.y) & (self.at >= first_ms) & (self.at < end_ms)
        return measures.auc(self.y[mine], scores[mine])


def of(flown: Flights, rows: pa.Table) -> Year:
    at, _ = times_ms(rows, SPEC.time)
    known, has = times_ms(rows, SPEC.known_at)
    month = np.array([each.date.month for each in flown.days])[flown.day]
    return Year(flown, rows, training.labels(SPEC, rows), at, np.where(has, known, 2**62), month)


@cache
def year() -> Year:
    flown = flights()
    return of(flown, features.rows(flown))


@dataclass
class Played:
    """What came of it: `scores` are of the model in force at each flight; `log` is JSON, one entry a decision."""

    scores: Any
    log: list[dict[str, Any]] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    rivals: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    """Decision's number → scores of (the champion, the best challenger) for the flights after it."""


Plant = Callable[[dict[str, Any], Any], Mapping[str, Any]]


def champion_of_winter(it: Year) -> tuple[Any, float]:
    """The model of January and February, and its baseline: the AUC on held-out days of one trained without them."""
    as_of = at_ms(3)
    train, out = training.split(SPEC, it.rows, as_of)
    tried = it.fit("all", as_of, train)
    baseline = measures.auc(it.y[out], it.score(tried, out)[out])
    return it.fit("all", as_of, train | out), baseline


def verdicts(it: Year, window: int, scores: Any, baseline: float, by: Any) -> list[dict[str, Any]]:
    """What monitors say of one window at its end."""
    start, end = begin(window), begin(window + 1)
    scheduled = (it.at >= start) & (it.at < end)
    rows = it.rows.filter(pa.array(scheduled))
    observed = 1 - rows.column("temp").null_count / max(rows.num_rows, 1)
    labelled = scheduled & (it.known <= end)
    calm, moved, why = drift.judge(features.DRIFT, by, drift.count(by, rows))
    good, measured, because = measures.performance(features.PERFORMANCE, it.y[labelled], scores[labelled], baseline)
    said = [("quality", observed >= 0.9, {"observed": observed}, [f"weather of {observed:.0%} of the flights"]),
            ("drift", calm, moved, why), ("performance", good, measured, because)]
    return [{"id": f"{about}/{window}", "about": about, "ok": bool(ok), "window": window, "start_ms": start,
             "end_ms": end, "rows": rows.num_rows, "measures": measure, "reasons": reasons}
            for about, ok, measure, reasons in said]


def judged(it: Year, champion: Any, decision: policy.Decision, plant: Plant | None) -> tuple[gate.Blessing, Any, Any]:
    """Trains the candidates a decision asks for and lets the gate judge: (blessing, models by name, champion's AUC)."""
    as_of = decision.as_of_ms
    train, out = training.split(SPEC, it.rows, as_of, decision.since_ms)
    for first, end in decision.excluded:
        bad = (it.at >= first) & (it.at < end)
        train, out = train & ~bad, out & ~bad
    models = {name: it.fit(name, as_of, train) for name in SPEC.candidates}
    scores = {name: it.score(model, out)[out] for name, model in models.items()}
    if plant is not None:
        scores = dict(plant(scores, it.y[out]))
    held = it.rows.filter(pa.array(out))
    blessing = gate.judge(
        features.GATE, it.score(champion, out)[out], scores, it.y[out], blocks=it.at[out] // BLOCK_MS,
        slices={name: held.column(name).to_numpy() for name in SPEC.slices})
    return blessing, models, train


def play(it: Year, *, until_ms: int = 2**62, plant: Plant | None = None) -> Played:
    """The year by windows from March on, or as far as `until_ms`. `plant` may change what the gate gets to see."""
    champion, baseline = champion_of_winter(it)
    by = drift.reference(it.rows.filter(pa.array(training.known(SPEC, it.rows, at_ms(3)))), numeric=SPEC.numeric,
                         categorical=SPEC.categorical)
    done = Played(it.score(champion, it.at >= at_ms(3)))
    state = policy.started(policy.PolicyState(), at_ms(3))
    for window in range((min(until_ms, int(it.at[-1])) - at_ms(3)) // WEEK_MS):
        end = begin(window + 1)
        for verdict in verdicts(it, window, done.scores, baseline, by):
            state, decision = policy.decide(features.POLICY, state, verdict)
            if decision is None:
                continue
            blessing, models, train = judged(it, champion, decision, plant)
            after = it.at >= end
            best = models.get(str(blessing.chosen))
            if best is not None:
                soon = after & (it.at < end + LATER_MS)
                done.rivals[decision.attempt] = (done.scores.copy(), it.score(best, soon))
            state, _ = policy.decide(features.POLICY, state, {
                "about": "gate", "trigger": decision.id, "ok": blessing.blessed, "end_ms": end})
            done.log.append({"at_ms": end, "decision": decision.reason, "rule": decision.rule, "id": decision.id,
                             "attempt": decision.attempt, "blessed": blessing.blessed, "chosen": blessing.chosen,
                             "reasons": list(blessing.reasons), "measures": dict(blessing.measures)})
            if blessing.blessed:
                champion, baseline = best, blessing.measures[f"{blessing.chosen}.auc"]
                by = drift.reference(it.rows.filter(pa.array(train)), numeric=SPEC.numeric,
                                     categorical=SPEC.categorical)
                done.scores[after] = it.score(champion, after)[after]
        state = policy.PolicyState.from_json(json.loads(json.dumps(state.to_json())))
        done.states.append(state.to_json())
    return done


def blind(it: Year, last_months: int | None) -> Any:
    """Scores of a model retrained on the first of every month, whatever happens: on the last months, or on all."""
    scores = np.full(len(it.y), np.nan)
    for m in MONTHS:
        as_of = at_ms(m)
        since = at_ms(m - last_months) if last_months else 0
        model = it.fit("all", as_of, training.known(SPEC, it.rows, as_of) & (it.at >= since))
        mine = it.month == m
        scores[mine] = it.score(model, mine)[mine]
    return scores
