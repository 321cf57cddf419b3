"""The loop on the year of flights: it must beat what needs no loop, and use nothing before its time.

Compared are the mean of the monthly AUCs, March to December, of four ways with the same features and algorithm:
trained once; retrained every month on the last two months; every month on all so far; and gated, by the loop.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from headrace.demo import features
from headrace.expressions import compile_many
from headrace.loop import training
from headrace.loop.leak import LeakError
from tests.contract import loop_year
from tests.contract.loop_year import LATER_MS, MONTHS, SPEC, Played, Year, at_ms

pytestmark = pytest.mark.contract
APRIL = at_ms(4, 5)
"""After the first decision."""
TOLERANCE = 0.01
"""A rejection may cost so much AUC over the eight weeks that followed: the gate judges by seven days of flights."""


@pytest.fixture(scope="module")
def it() -> Year:
    return loop_year.year()


@pytest.fixture(scope="module")
def played(it: Year) -> Played:
    return loop_year.play(it)


def test_arrivals_are_known_to_the_minute(it: Year) -> None:
    """The same reckoning of the schedule must differ from the flights' by what the airlines say they gained or lost."""
    arrivals = pl.DataFrame(pl.from_arrow(it.flights.arrivals))
    checked = arrivals.with_columns(arrived=features.arrived_at(it.flights),
                                    scheduled=features.scheduled_minutes(it.flights)).drop_nulls("arrived")
    took = (checked["arrived"] - checked["scheduled_at"]).dt.total_minutes()
    assert (took - checked["scheduled"] == checked["arr_delay"]).all()
    assert len(checked) == 327_346
    assert int(np.isnan(it.y).sum()) == 9_430
    assert (it.known[~np.isnan(it.y)] > it.at[~np.isnan(it.y)]).all()


def test_features_are_what_is_known_at_departure(it: Year) -> None:
    departures = it.flights.departures
    assert not {"dep_delay", "dep_time", "air_time", "arr_time", "arr_delay"} & {
        *SPEC.features, *departures.schema.names, *compile_many(features.DERIVED, departures.schema).columns}
    rows = pl.DataFrame(pl.from_arrow(it.rows))
    local = pl.col("scheduled_at").dt.convert_time_zone("America/New_York")
    assert rows.select((local.dt.hour() + local.dt.minute() / 60 - pl.col("hour")).abs().max()).item() < 1e-9
    assert rows.select((local.dt.weekday() - 1 == pl.col("weekday")).all()).item()
    seen = pl.DataFrame(pl.from_arrow(features.weather())).filter(pl.col("origin") == "JFK")
    first = rows.filter(pl.col("origin") == "JFK").row(0, named=True)
    hour = first["scheduled_at"].replace(minute=0) - timedelta(hours=1)
    assert first["temp"] == seen.filter(pl.col("weather_hour") == hour)["temp"].item()


@pytest.mark.full  # `make demo` does the same by real processes, and `.ci/run` holds it to the same figures
def test_the_loop_beats_what_needs_no_loop(it: Year, played: Played) -> None:
    """The acceptance. The table is printed: `pytest -s` shows it."""
    winter, _ = loop_year.champion_of_winter(it)
    ways = {"static": it.score(winter, it.at >= at_ms(3)), "last two months": loop_year.blind(it, 2),
            "cumulative": loop_year.blind(it, None), "gated": played.scores}
    monthly = {name: it.monthly(scores) for name, scores in ways.items()}
    means = {name: float(np.mean(each)) for name, each in monthly.items()}
    print(f"\n{'AUC of month':16}" + "".join(f"{month:7}" for month in MONTHS) + "   mean")
    for name, each in monthly.items():
        print(f"{name:16}" + "".join(f"{value:7.3f}" for value in each) + f"{means[name]:9.4f}")
    for entry in played.log:
        print(entry["rule"], "blessed" if entry["blessed"] else "rejected", entry["chosen"], entry["decision"])
    assert means["gated"] >= means["static"] + 0.02
    assert means["gated"] >= max(value for name, value in means.items() if name != "gated") - 0.008
    assert 1 <= len(played.log) <= 6, "retrains, those in vain among them"


def test_every_decision_was_right_by_what_followed(it: Year, played: Played) -> None:
    """Rejected and blessed alike, held against the eight weeks after; a rejection must have cost next to nothing."""
    assert any(not entry["blessed"] for entry in played.log), "there must be a rejection to check"
    for entry in played.log:
        champion, rival = played.rivals[entry["attempt"]]
        first, end = entry["at_ms"], entry["at_ms"] + LATER_MS
        stayed, changed = it.auc(champion, first, end), it.auc(rival, first, end)
        word = "blessed" if entry["blessed"] else "rejected"
        print(f"\n{word}: champion {stayed:.4f}, {entry['chosen']} {changed:.4f}")
        if entry["blessed"]:
            assert changed > stayed - TOLERANCE
        else:
            assert stayed > changed - TOLERANCE


def test_a_planted_worse_challenger_is_rejected(it: Year, played: Played) -> None:
    """The first decision's challengers, made worse: it is not let through, and the champion goes on scoring."""
    def worse(scores: dict[str, Any], y: Any) -> Mapping[str, Any]:
        lots = np.random.default_rng(1)
        return {name: np.clip(given + lots.normal(0, 0.1, len(y)), 0, 1) for name, given in scores.items()}

    spoilt = loop_year.play(it, until_ms=APRIL, plant=worse)
    (entry,) = spoilt.log
    assert not entry["blessed"]
    assert played.log[0]["blessed"], "as it was, it was good"
    assert 0.55 < entry["measures"]["all.auc"] < entry["measures"]["champion.auc"], "worse, and not absurd"
    assert any("all: auc changes by -" in reason for reason in entry["reasons"])
    assert spoilt.states[-1]["in_flight"] is None
    winter, _ = loop_year.champion_of_winter(it)
    april = it.month == 4
    assert np.array_equal(spoilt.scores[april], it.score(winter, april)[april])


def altered(it: Year, mask: Any) -> Year:
    """The year with the outcome of some flights turned around."""
    delay = pl.Series(pl.from_arrow(it.rows.column("arr_delay").combine_chunks()))
    other = pl.select(pl.when(pl.lit(pl.Series(mask)) & delay.is_not_null())
                      .then(pl.when(delay > 15).then(0).otherwise(90)).otherwise(delay).cast(pl.Int32).alias("x"))["x"]
    at = it.rows.schema.get_field_index("arr_delay")
    return loop_year.of(it.flights, it.rows.set_column(at, "arr_delay", other.to_arrow()))


def test_the_same_seed_the_same_decisions_and_nothing_before_its_time(it: Year, played: Played) -> None:
    """A second run, in which every label that was not known by April has been turned around, decides the same until
    then, to the last digit: it is repeatable, and the future has no way in. Turning the past around shows in it."""
    windows = (APRIL - at_ms(3)) // loop_year.WEEK_MS
    again = loop_year.play(altered(it, it.known > APRIL), until_ms=APRIL)
    assert json.dumps(again.log) == json.dumps(played.log[:1])
    assert again.states == played.states[:windows]
    march = it.month == 3
    assert np.array_equal(again.scores[march], played.scores[march])
    known = (it.known > at_ms(3, 20)) & (it.known <= at_ms(3, 24))
    assert loop_year.play(altered(it, known), until_ms=APRIL).log != again.log


def test_a_planted_leak_is_caught(it: Year) -> None:
    """A flight that is in the air at the time of training, with the label it will have."""
    as_of = at_ms(3) + 15 * 3_600_000
    flying = np.flatnonzero((it.at < as_of) & (it.known > as_of) & ~np.isnan(it.y))
    assert len(flying) > 100
    usable = training.known(SPEC, it.rows, as_of) & (it.at > as_of - 5 * training.DAY_MS)
    assert it.fit("all", as_of, usable) is not None
    usable[flying[0]] = True
    with pytest.raises(LeakError, match="1 labels of"):
        it.fit("all", as_of, usable)


def test_what_the_gate_sees_was_in_no_training(it: Year) -> None:
    for since in (None, at_ms(6)):
        train, out = training.split(SPEC, it.rows, at_ms(6, 21), since)
        assert not (train & out).any()
        assert (it.known[train | out] <= at_ms(6, 21)).all()
        day = (it.at - features.DAY_BEGINS_H * 3_600_000) // training.DAY_MS
        assert not set(day[train]) & set(day[out]), "days are held out whole"
        assert since is None or (it.at[out] > since).all()


def test_the_rows_are_arrow_as_the_stream_has_them(it: Year) -> None:
    """A batch of the stream scores as the table does."""
    model, _ = loop_year.champion_of_winter(it)
    part = it.rows.slice(100_000, 2_000)
    batch: pa.RecordBatch = part.combine_chunks().to_batches()[0]
    assert np.array_equal(training.predict(model, batch), training.predict(model, it.rows)[100_000:102_000])
