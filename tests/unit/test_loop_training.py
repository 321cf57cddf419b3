"""Training: repeatable to the bit, never on a label before its time; predicting as the pipeline itself does."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from headrace.errors import ExpressionError, UserError
from headrace.loop import training
from headrace.loop.leak import LeakError, check_known

pytestmark = pytest.mark.unit
T0 = 1_362_114_000_000
DAY_MS = training.DAY_MS
N, DAYS = 6000, 60
END = T0 + (DAYS + 2) * DAY_MS


def spec(**said: Any) -> training.ModelSpec:
    return training.ModelSpec.model_validate({
        "name": "m", "target": "delay > 15", "numeric": ["temp", "hour"], "categorical": ["carrier"], "time": "at",
        "known_at": "arrived_at", "holdout": {"days": 14, "every": 4}, **said})


def rows(seed: int = 1) -> pa.Table:
    """Sixty days; the delay hangs on carrier and temperature; one row in twenty never has a label."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.integers(T0, T0 + DAYS * DAY_MS, N))
    temp, carrier = rng.normal(0, 1, N), rng.choice(["AA", "B6", "UA"], N)
    delay = 20 * temp + np.where(carrier == "AA", 25, 0) + rng.normal(0, 20, N)
    never = rng.random(N) < 0.05
    return pa.table({
        "at": pa.array(at, pa.timestamp("ms", tz="UTC")), "temp": pa.array(temp, mask=rng.random(N) < 0.1),
        "hour": pa.array(rng.integers(5, 23, N), pa.int32()), "carrier": carrier, "delay": pa.array(delay, mask=never),
        "arrived_at": pa.array(at + rng.integers(3_600_000, DAY_MS, N), pa.timestamp("ms", tz="UTC"), mask=never)})


ROWS = rows()


def test_the_target_is_an_expression() -> None:
    y = training.labels(spec(), ROWS)
    delay = np.array(ROWS.column("delay").to_pylist(), dtype=float)
    assert np.array_equal(np.isnan(y), np.isnan(delay))
    assert np.array_equal(y == 1, delay > 15)
    both = training.labels(spec(), pl.DataFrame(pl.from_arrow(ROWS)))
    assert np.array_equal(both, y, equal_nan=True)
    late = ROWS.append_column("late", pa.array([1, 0] * (N // 2)))
    assert training.labels(spec(target="late"), late).mean() == 0.5
    for target, told in (("delay", "other than 0 and 1"), ("carrier", "must be a condition")):
        with pytest.raises(UserError, match=told):
            training.labels(spec(target=target, categorical=[]), ROWS)
    with pytest.raises(UserError, match="made of delay"):
        training.labels(spec(numeric=["delay"]), ROWS)
    with pytest.raises(ExpressionError):
        training.labels(spec(target="no_such > 1"), ROWS)


def test_a_label_is_known_from_its_time_on() -> None:
    as_of = T0 + 30 * DAY_MS
    usable = training.known(spec(), ROWS, as_of)
    arrived = np.array([None if at is None else at.timestamp() * 1000 for at in ROWS.column("arrived_at").to_pylist()],
                       dtype=float)
    assert np.array_equal(usable, arrived <= as_of)
    check_known(ROWS.filter(pa.array(usable)), "arrived_at", as_of)


@pytest.mark.parametrize("never", [False, True])
def test_a_planted_leak_is_caught(never: bool) -> None:
    as_of = T0 + 30 * DAY_MS
    usable = training.known(spec(), ROWS, as_of)
    planted = int(np.flatnonzero(~usable & ~np.isnan(training.labels(spec(), ROWS)))[0])
    usable[planted] = True
    leaking = ROWS.filter(pa.array(usable)).append_column("__topic", pa.array(["flights"] * int(usable.sum())))
    leaking = leaking.append_column("__partition", pa.array([0] * leaking.num_rows)).append_column(
        "__offset", pa.array(np.flatnonzero(usable)))
    if never:  # a label, and no time at which it came to be known
        place = leaking.schema.get_field_index("arrived_at")
        times = pc_set_null(leaking.column("arrived_at"), int(np.flatnonzero(usable).searchsorted(planted)))
        leaking = leaking.set_column(place, "arrived_at", times)
    with pytest.raises(LeakError, match=f"flights/0@{planted}") as caught:
        training.fit(spec(), leaking, "all", as_of)
    assert len(caught.value.rows) == 1
    assert training.fit(spec(), leaking, "all", END) if not never else True


def pc_set_null(column: Any, at: int) -> pa.Array:
    values = column.to_pylist()
    values[at] = None
    return pa.array(values, column.type)


def test_split_holds_out_whole_recent_days_that_the_champion_has_not_seen() -> None:
    as_of = T0 + 50 * DAY_MS
    train, out = training.split(spec(), ROWS, as_of)
    assert np.array_equal(train | out, training.known(spec(), ROWS, as_of))
    assert not (train & out).any()
    at = np.array([each.timestamp() * 1000 for each in ROWS.column("at").to_pylist()])
    assert set(at[out] // DAY_MS % 4) == {0}
    assert at[out].min() > as_of - 14 * DAY_MS
    assert 3 <= len(set(at[out] // DAY_MS)) <= 4
    since = as_of - 6 * DAY_MS
    assert at[training.split(spec(), ROWS, as_of, since)[1]].min() > since


@pytest.mark.parametrize("algorithm", ["hist_gradient_boosting", "logistic"])
@pytest.mark.parametrize("candidate", ["all", "recent", "weighted"])
def test_fit_is_repeatable_and_predicts(algorithm: str, candidate: Any) -> None:
    from sklearn.metrics import roc_auc_score

    model = spec(algorithm=algorithm, recent_days=30, half_life_days=10)
    one, other = (training.fit(model, ROWS, candidate, END) for _ in range(2))
    fresh = rows(2)
    scores = training.predict(one, fresh)
    assert scores.tobytes() == training.predict(other, fresh).tobytes()
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    y = training.labels(model, fresh)
    assert roc_auc_score(y[~np.isnan(y)], scores[~np.isnan(y)]) > 0.8
    assert pickle.dumps(one[-1].predict_proba(one[:-1].transform(fresh.select(model.features).to_pandas())[:9])) \
        == pickle.dumps(other[-1].predict_proba(other[:-1].transform(fresh.select(model.features).to_pandas())[:9]))


def test_candidates_differ() -> None:
    model = spec(recent_days=20, half_life_days=5)
    made = {name: training.predict(training.fit(model, ROWS, name, END), ROWS).tobytes() for name in model.candidates}
    assert len(set(made.values())) == 3


@pytest.mark.parametrize("algorithm", ["hist_gradient_boosting", "logistic"])
def test_predict_equals_the_pipeline_itself(algorithm: str) -> None:
    """With categories never seen, nulls, and features in another order among other columns."""
    model = training.fit(spec(algorithm=algorithm), ROWS, "all", END)
    odd = ROWS.set_column(3, "carrier", pa.array((["AA", "ZZ", "UA"] if algorithm == "logistic" else
                                                  ["AA", "ZZ", None]) * (N // 3))).slice(0, 900)
    frame = odd.select(list(model.feature_names_in_)).to_pandas().astype({"hour": float})
    theirs = model.predict_proba(frame)[:, 1]
    assert training.predict(model, odd).tobytes() == np.ascontiguousarray(theirs).tobytes()
    batch = odd.select(odd.schema.names[::-1]).combine_chunks().to_batches()[0]
    assert training.predict(model, batch).tobytes() == theirs.tobytes()
    assert training.predict(model, pl.DataFrame(pl.from_arrow(batch))).tobytes() == theirs.tobytes()
    assert len(training.predict(model, odd.slice(0, 0))) == 0
    again = pickle.loads(pickle.dumps(model))
    assert training.predict(again, odd).tobytes() == theirs.tobytes()
    with pytest.raises(UserError, match="lack the features temp"):
        training.predict(model, odd.drop_columns(["temp"]))


def test_what_cannot_be_trained_is_said() -> None:
    early = ROWS.filter(pa.array(training.labels(spec(), ROWS) == 0))
    with pytest.raises(UserError, match="not of both classes"):
        training.fit(spec(), early, "all", END)
    for said, told in (({"numeric": [], "categorical": []}, "needs features"), ({"numeric": ["temp", "temp"]}, "twice"),
                       ({"numeric": ["arrived_at"]}, "is no feature"), ({"algorithm": "magic"}, "algorithm")):
        with pytest.raises(ValueError, match=told):
            spec(**said)
