"""The loop's proof: every record of its topics read back, every prediction made again by the version that signed it,
and each decision held against what followed.

Nothing is taken from the workers' own word but what they decided: features come from the package's tables, outcomes
from its arrivals, and the versions from the model registry.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.control import Retrain, Switch
from headrace.demo.baselines import POLICIES, Known, known
from headrace.demo.data import Flights
from headrace.demo.loop import Cast
from headrace.demo.replay import BEGIN, WATCHED, WEEK_MS, landings
from headrace.demo.told import Told
from headrace.demo.verify import read
from headrace.demo.watch import Lags
from headrace.errors import BrokerError
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.plan import SinkPlan

GATED = "gated"
GAIN_MIN, SHORTFALL_MAX, RETRAINS_MAX = 0.02, 0.008, 6
"""Over the year the loop must beat the model trained once by so much, and be at most so far behind the best policy."""
LATER_MS = 8 * WEEK_MS
"""How long after a rejection the rejected version is held against the one that stayed."""
WRONG_FROM = 0.01
"""A rejection was wrong if the challenger would have been better by more: the gate judges by seven days of flights."""
MONTHS = 12
LATE_MIN = 15
PREDICTION = ("p_late", "model_version")


@dataclass(slots=True)
class Verdict:
    """What the referee found: `summary` is the summary's `loop`, `faults` what is not as it must be."""

    summary: dict[str, Any]
    faults: list[str]
    lost: int
    doubled: int
    explained: Sequence[tuple[Mapping[str, Any], str]] = ()
    """Each retraining as `headrace loop explain` has it: data and text."""


@dataclass(slots=True)
class Read:
    """The loop's data topics: a place a flight, from 0. `p` is NaN and `version` "" where there is none."""

    scored: Any
    labelled: Any
    unlabelled: Any
    strays: Any
    p: Any
    version: Any
    late: Any
    """What the labelled topic says: 1.0, 0.0, or NaN where it has no such flight."""
    quarantined: int
    strangers: int = 0
    differing: int = 0
    """Flights whose prediction is one thing in the scored topic and another in the labelled one."""


def rows(settings: Settings, sink: SinkPlan, *columns: str) -> pa.Table:
    """`flight_id` and these columns of every committed record of a topic. Raises BrokerError for one that cannot be
    read."""
    from headrace import codec
    from headrace.codec import Decoder
    from headrace.registry import Registry

    assert sink.schema is not None
    schema = sink.schema.json
    schema["fields"] = [each for each in schema["fields"] if each["name"] in ("flight_id", *columns)]
    decoder = Decoder(codec.parse(json.dumps(schema)), Registry(settings.registry_client()).schema)
    parts = []
    for messages in read(settings, sink.name):
        found = decoder.decode(list(map(methodcaller("value"), messages)))
        if found.rejects:
            raise BrokerError(f"{sink.name}: {len(found.rejects)} records cannot be read: {found.rejects[0][1]}")
        parts.append(found.rows)
    return pa.Table.from_batches(parts, decoder.reader.arrow)


def collect(settings: Settings, cast: Cast) -> Read:
    """All of them. A topic's counts are by flight: 1 is as it should be."""
    sinks = [sink for name in ("predictions", "outcomes") for sink in cast.stage.flows[name].plan.sinks]
    n, strangers = len(cast.flights), 0

    def of(name: str) -> SinkPlan:
        return next(sink for sink in sinks if sink.name.startswith(f"flights.{name}."))

    def counted(table: pa.Table) -> tuple[Any, Any, Any]:
        """(how often each flight is there, which rows are of known flights, their places)."""
        nonlocal strangers
        place = table.column("flight_id").to_numpy() - 1
        inside = (place >= 0) & (place < n)
        strangers += int(np.count_nonzero(~inside))
        return np.bincount(place[inside], minlength=n), inside, place[inside]

    predicted = rows(settings, of("scored"), *PREDICTION)
    labelled = rows(settings, of("labelled"), *PREDICTION, "arr_delay")
    scored_n, inside, place = counted(predicted)
    p, version = np.full(n, np.nan), np.full(n, "", dtype=object)
    p[place], version[place] = _scores(predicted, inside)
    labelled_n, inside, place = counted(labelled)
    late = np.full(n, np.nan)
    late[place] = (labelled.column("arr_delay").to_numpy() > LATE_MIN)[inside]
    again, signed_ = _scores(labelled, inside)
    differing = int(np.count_nonzero((signed_ != version[place]) | ~_same(again, p[place])))
    return Read(scored_n, labelled_n, counted(rows(settings, of("unlabelled")))[0],
                counted(rows(settings, of("landings.strays")))[0], p, version, late,
                sum(map(len, read(settings, of("upcoming.quarantine").name))), strangers, differing)


def _scores(table: pa.Table, inside: Any) -> tuple[Any, Any]:
    made = table.column("p_late").fill_null(float("nan")).to_numpy()[inside]
    version = table.column("model_version").fill_null("").to_numpy(zero_copy_only=False)[inside]
    return made, version.astype(object)


def _same(one: Any, other: Any) -> Any:
    return (one == other) | (np.isnan(one) & np.isnan(other))


@dataclass(frozen=True, slots=True)
class Truth:
    """What came of the flights, by the package: `late` is 1.0, 0.0 or NaN (never landed), times in ms since 1970."""

    late: Any
    departs_ms: Any
    arrives_ms: Any

    @property
    def landed(self) -> Any:
        return ~np.isnan(self.late)


def truth_of(flights: Flights) -> Truth:
    """By flight, from 0."""
    rows_, late, arrives = landings(flights), np.full(len(flights), np.nan), np.zeros(len(flights), dtype=np.int64)
    place = rows_.column("flight_id").to_numpy() - 1
    late[place] = rows_.column("arr_delay").to_numpy() > LATE_MIN
    arrives[place] = rows_.column("arrived_at").cast(pa.int64()).to_numpy()
    return Truth(late, flights.at_ms, arrives)


def conserved(it: Read, truth: Truth, join: Any) -> tuple[int, int, list[str]]:
    """(lost, doubled, faults) of the loop's flows. `join` is that step's config.

    Each departure is predicted or in the quarantine; each predicted flight that landed is labelled, once. What landed
    without a prediction is among the strays, and what was predicted and never landed among the unlabelled, but for
    those that may still find each other."""
    scored, landed, faults = it.scored > 0, truth.landed, []
    lost = len(scored) - int(scored.sum()) - it.quarantined
    waits = (int(truth.departs_ms[scored].max(initial=0)) - join.before - join.late,
             int(truth.arrives_ms.max(initial=0)) - join.within - join.late)
    wanted = {"labelled": (it.labelled, scored & landed, scored & landed),
              "strays": (it.strays, ~scored & landed & (truth.arrives_ms < waits[0]), ~scored & landed),
              "unlabelled": (it.unlabelled, scored & ~landed & (truth.departs_ms < waits[1]), scored & ~landed)}
    for name, (found, must, may) in wanted.items():
        missing, extra = int(np.count_nonzero(must & (found == 0))), int(np.count_nonzero(~may & (found > 0)))
        lost += missing
        if missing or extra:
            faults.append(f"{name}: {missing} flights are missing, {extra} do not belong there")
    doubled = it.strangers + sum(int(np.maximum(found - 1, 0).sum())
                                 for found in (it.scored, it.labelled, it.unlabelled, it.strays))
    if lost or doubled:
        faults.append(f"of {len(scored):,} departures and {int(landed.sum()):,} landings {lost} are lost and {doubled} "
                      "doubled")
    if turned := int(np.count_nonzero((it.labelled > 0) & (it.late != truth.late))):
        faults.append(f"{turned} labels differ from what came of the flights")
    if it.differing:
        faults.append(f"{it.differing} predictions changed between the scored and the labelled topic")
    return lost, doubled, faults


def versions_due(switches: Sequence[Switch], at_ms: Any) -> Any:
    """The version in charge at each time, by the switches' event times; "" before the first."""
    due = np.full(len(at_ms), "", dtype=object)
    for switch in switches:
        due[at_ms >= round(switch.at.timestamp() * 1000)] = switch.to
    return due


def signed(settings: Settings, it: Read, facts: Known, switches: Sequence[Switch]) -> list[str]:
    """Whether every prediction from March on was made by the version in charge, and is what that version says: each is
    made again, from the package's tables. Raises UserError for a version that does not load."""
    from headrace.loop.models import open_registry

    faults = []
    scored = it.scored > 0
    due = versions_due(switches, facts.at_ms)
    begun = facts.at_ms >= round(BEGIN.timestamp() * 1000)
    if unsigned := int(np.count_nonzero(scored & begun & ((it.version == "") | np.isnan(it.p)))):
        faults.append(f"{unsigned} predictions are not there, or without the version that made them")
    if others := int(np.count_nonzero(scored & (it.version != due))):
        faults.append(f"{others} predictions are signed by another version than the one in charge")
    store = open_registry(settings.mlflow_uri, settings.project)
    for version in sorted(set(it.version[scored]) - {""}, key=int):
        mine = scored & (it.version == version)
        again = store.load(WATCHED, version).predict(facts.rows.filter(pa.array(mine)))
        if wrong := int(np.count_nonzero(again != it.p[mine])):
            faults.append(f"{wrong} of {int(mine.sum())} predictions signed by version {version} are not what it says")
    return faults


def followed(settings: Settings, told: Told, it: Read, facts: Known, truth: Any) -> list[dict[str, Any]]:
    """Every rejection, and how its best challenger would have done against the version that stayed."""
    from headrace.loop.measures import auc
    from headrace.loop.models import open_registry

    out = []
    for trigger, each in told.retrainings.items():
        if each.state != "rejected" or each.answer is None or each.answer.version is None:
            continue
        begin = round(each.answer.at.timestamp() * 1000)
        mine = (it.labelled > 0) & (facts.at_ms >= begin) & (facts.at_ms < begin + LATER_MS)
        later, y = facts.rows.filter(pa.array(mine)), truth[mine]
        store = open_registry(settings.mlflow_uri, settings.project)
        scores = {version: auc(y, store.load(WATCHED, version).predict(later)) if len(np.unique(y)) == 2 else None
                  for version in filter(None, (each.answer.champion, each.answer.version))}
        stayed, rejected = scores.get(each.answer.champion or ""), scores[each.answer.version]
        known_ = stayed is not None and rejected is not None
        out.append({"trigger": trigger, "at": each.answer.at.date().isoformat(), "version": each.answer.version,
                    "champion": each.answer.champion, "reasons": list(each.answer.reasons),
                    "weeks": round(min(LATER_MS, max(0, int(facts.at_ms[-1]) - begin)) / WEEK_MS, 1),
                    "flights": int(mine.sum()), "auc_champion": _round(stayed), "auc_rejected": _round(rejected),
                    "rightly": bool(rejected - stayed <= WRONG_FROM) if known_ else None})  # type: ignore[operator]
    return out


def monthly(y: Any, scores: Mapping[str, Any], facts: Known, which: Any) -> dict[str, dict[str, float]]:
    """Policy → month → AUC, of the same flights for all."""
    from headrace.loop.measures import auc

    return {name: {str(month): auc(y[mine], made[mine]) for month in facts.months
                   if (mine := which & (facts.month == month)).any()} for name, made in scores.items()}


def agreed(settings: Settings, cast: Cast, told: Told) -> tuple[list[str], int]:
    """(faults, entries): one request, one run and one verdict for each cause, all of it in the audit log."""
    from headrace.loopview import log

    faults = []
    asked = [each.request for each in told.retrainings.values()]
    runs = Counter(each.result.mlflow_run for each in told.retrainings.values() if each.result)
    folders = len(list(cast.reckoned.parent.glob(".headrace/runs/*/exit.json")))
    gates = sum(each.answer is not None and each.answer.about == "gate" for each in told.retrainings.values())
    causes = Counter((request.measure, request.window) for request in asked)
    if not len(asked) == len(runs) == folders == gates or None in runs or max([*runs.values(), *causes.values()]) > 1:
        faults.append(f"{len(asked)} requests to train, {len(runs)} runs in {folders} folders and {gates} verdicts of "
                      "the gate: there must be as many of each")
    blessed = [each.answer.version for each in told.retrainings.values() if each.answer and each.state == "blessed"]
    if [switch.to for switch in told.switches] != blessed:
        faults.append(f"the switches were to {', '.join(s.to for s in told.switches) or 'none'}, and blessed were "
                      f"{', '.join(map(str, blessed)) or 'none'}")
    chain = log.check(log.entries(settings, cast.stage.control))
    faults += [f"audit, entry {flaw['seq']}: {flaw['message']}" for flaw in chain["flaws"][:3]]
    events = told.verdicts + len(asked) + told.results + len(told.switches)
    if chain["entries"] != events:
        faults.append(f"the audit log has {chain['entries']} entries of {events} events")
    return faults, int(chain["entries"])


def judge(settings: Settings, cast: Cast, told: Told) -> Verdict:
    """All of it. `settings` are those of the run's folder. The baselines must be reckoned. Raises BrokerError,
    RegistryError, UserError."""
    from headrace import loopview
    from headrace.loopview.explain import explained as explain

    facts, it = known(cast.flights, settings.project), collect(settings, cast)
    truth = truth_of(cast.flights)
    join = next(step for step in cast.stage.flows["outcomes"].plan.steps if step.kind == "join").processor.config
    lost, doubled, faults = conserved(it, truth, join)
    faults += signed(settings, it, facts, told.switches)
    more, entries = agreed(settings, cast, told)
    faults += more
    reckoned = np.load(cast.reckoned)
    if not np.array_equal(facts.valid, it.scored > 0):
        faults.append("the baselines were trained on other flights than were predicted")
    scores = {**{name: reckoned[name] for name in POLICIES}, GATED: it.p}
    by_month = monthly(truth.late, scores, facts, it.labelled > 0)
    means = {name: float(np.mean(list(each.values()))) for name, each in by_month.items()}
    triggers = [each.request for each in told.retrainings.values() if each.request.measure != "asked"]
    retrains = {**{name: int(reckoned[f"{name}.trained"]) - 1 for name in POLICIES}, GATED: len(told.retrainings) - 1}
    faults += too_little(means, retrains, whole=cast.flights.days[-1].date.month == MONTHS)
    history = loopview.read(settings, cast.stage.control)
    explained = [explain(history, trigger) for trigger in told.retrainings]
    summary = {
        "mean_auc": {name: _round(value) for name, value in means.items()},
        "monthly_auc": {name: {month: _round(value) for month, value in each.items()}
                        for name, each in by_month.items()},
        "retrains": retrains, "triggers": len(triggers), "switches": max(0, len(told.switches) - 1),
        "rejections": sum(each.state == "rejected" for each in told.retrainings.values()),
        "in_charge": [{"version": s.to, "since": s.at.date().isoformat(), "trigger": s.trigger} for s in told.switches],
        "asked": [_asked(each.request, each.state) for each in told.retrainings.values()],
        "rejected": followed(settings, told, it, facts, truth.late),
        "predictions": int(it.scored.sum()), "labelled": int(it.labelled.sum()), "audit_entries": entries}
    return Verdict(summary, faults, lost, doubled, [(data, loopview.explain_text(data)) for data in explained])


def _asked(request: Retrain, state: str) -> dict[str, Any]:
    return {"trigger": request.id, "at": request.at.date().isoformat(), "rule": request.measure,
            "reason": request.reason, "outcome": state}


def too_little(means: Mapping[str, float], retrains: Mapping[str, int], *, whole: bool) -> Iterator[str]:
    """What the loop owes by the year, and did not bring; of part of a year nothing but the budget."""
    if retrains[GATED] > RETRAINS_MAX:
        yield f"{retrains[GATED]} retrainings; at most {RETRAINS_MAX} are allowed"
    if not whole:
        return
    gated, best = means[GATED], max(POLICIES, key=lambda name: means[name])
    if not gated >= means["static"] + GAIN_MIN:
        yield f"AUC {gated:.4f} with the loop, {means['static']:.4f} without: {GAIN_MIN:g} more is owed"
    if not gated >= means[best] - SHORTFALL_MAX:
        yield f"AUC {gated:.4f} with the loop, {means[best]:.4f} with {best}: at most {SHORTFALL_MAX:g} less is allowed"


def lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The outcome in words."""
    means = summary["mean_auc"]
    yield "mean AUC by month: " + ", ".join(f"{name} {value:.3f}" for name, value in means.items())
    for each in summary["rejected"]:
        if each["rightly"] is not None:
            yield (f"version {each['version']} was rejected {'rightly' if each['rightly'] else 'WRONGLY'}: in the "
                   f"{each['weeks']:g} weeks that followed {each['auc_rejected']:.3f}, and version {each['champion']}, "
                   f"which stayed, {each['auc_champion']:.3f}")


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def offsets_left(settings: Settings, cast: Cast) -> int:
    """Records that a group of the loop has still to process."""
    with closing(Lags(settings, cast.stage.groups())) as lags:
        return sum(sum(lags.left(name).values()) for name in cast.stage.groups())


