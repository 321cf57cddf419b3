"""A model's declaration; the split of its rows by time; fitting a candidate, repeatably; predicting, fast.

The models are plain scikit-learn pipelines over a DataFrame of the feature columns: anything that can load those can
serve them. Fitting and predicting keep to one thread: the same bits everywhere, and on a machine that does other work
as well it is the faster way (OpenMP's threads wait for each other: 4 to 6 times slower on two busy cores).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from headrace.config import Config
from headrace.errors import MissingExtra, UserError
from headrace.expressions import compile_expression
from headrace.loop.leak import check_known, times_ms
from headrace.loop.measures import Floats

if TYPE_CHECKING:
    import polars as pl
    from sklearn.pipeline import Pipeline

    Rows: TypeAlias = pa.Table | pa.RecordBatch | pl.DataFrame

DAY_MS = 86_400_000
Candidate = Literal["all", "recent", "weighted"]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


class HoldoutSpec(Config):
    """Which days are kept for the gate: some whole days of the recent past, so that no row has its like in training."""

    days: int = Field(28, ge=1, description="How far back, in event time, days are held out.")
    every: int = Field(4, ge=2, description="Every so manieth day is held out, counted since 1970. A number that does "
                       "not divide 7 takes all weekdays in turn.")
    day_begins_h: int = Field(0, ge=0, le=23, description="The hour, UTC, at which a day begins.")


class ModelSpec(Config):
    """A model as a flow declares it."""

    name: str = Field(min_length=1, description="Its name in the model registry.")
    target: str = Field(description="A SQL condition, or a column of 0 and 1, over the columns of a labelled row; null "
                        "where there is no label.")
    numeric: tuple[str, ...] = Field((), description="Feature columns that are numbers; null is a value of its own.")
    categorical: tuple[str, ...] = Field((), description="Feature columns that are texts, at most 250 values each.")
    time: str = Field(description="The column with the event time of the prediction.")
    known_at: str = Field(description="The column that says when the label came to be known.")
    algorithm: Literal["hist_gradient_boosting", "logistic"] = Field("hist_gradient_boosting", description="The kind.")
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters of scikit-learn's estimator.")
    seed: int = Field(7, ge=0, description="Of everything that draws lots.")
    candidates: tuple[Candidate, ...] = Field(
        ("all", "recent", "weighted"), min_length=1, description="What to fit and let the gate choose from, the most "
        "trusted first: on all rows so far, on recent ones, on all with older ones weighing less.")
    recent_days: float = Field(60, gt=0, description="How far `recent` goes back from the time of training.")
    half_life_days: float = Field(45, gt=0, description="For `weighted`: the age at which a row counts half.")
    holdout: HoldoutSpec = Field(default_factory=lambda: HoldoutSpec.model_validate({}),
                                 description="What is kept for the gate.")
    slices: tuple[str, ...] = Field((), description="Columns whose values the gate looks at one by one.")

    @property
    def features(self) -> tuple[str, ...]:
        """In the order the pipeline has them: categories first."""
        return (*self.categorical, *self.numeric)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not self.features:
            raise ValueError("a model needs features: `numeric`, `categorical` or both")
        twice = sorted({name for name in self.features if self.features.count(name) > 1})
        if twice:
            raise ValueError(f"named twice among the features: {', '.join(twice)}")
        if self.known_at in self.features:
            raise ValueError(f"“{self.known_at}” says when the label came, and is no feature")
        return self


def table(rows: Rows) -> pa.Table:
    """Rows of any of the three kinds as an Arrow table; nothing is copied where it need not be."""
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    import polars as pl

    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())


def labels(spec: ModelSpec, rows: Rows) -> Floats:
    """The target of each row as 0.0, 1.0, or NaN where there is none. Raises ExpressionError; UserError if a feature
    is what the target is made of, or the target is neither a condition nor 0 and 1."""
    held = table(rows)
    target = compile_expression(spec.target, held.schema, where="`target`")
    leaking = sorted(set(target.columns) & set(spec.features))
    if leaking:
        raise UserError(f"the target of {spec.name} is made of {', '.join(leaking)}, and so no feature can be",
                        hint="a feature is what is known when the prediction is made")
    if not (pa.types.is_boolean(target.type) or pa.types.is_integer(target.type) or pa.types.is_floating(target.type)):
        raise UserError(f"the target of {spec.name} gives {target.type}; it must be a condition, or 0 and 1")
    parts = [target.evaluate(batch) for batch in held.to_batches()]
    if not parts:
        return np.zeros(0)
    numbers: Floats = np.concatenate([pc.cast(pc.cast(part, pa.int8() if pa.types.is_boolean(part.type) else part.type),
                                              pa.float64()).fill_null(float("nan")).to_numpy() for part in parts])
    if not np.isin(numbers[~np.isnan(numbers)], (0.0, 1.0)).all():
        raise UserError(f"the target of {spec.name} has values other than 0 and 1")
    return numbers


def known(spec: ModelSpec, rows: Rows, as_of_ms: int) -> Bools:
    """Which rows have a label that was known at that time."""
    held = table(rows)
    times, timed = times_ms(held, spec.known_at)
    mask: Bools = timed & (times <= as_of_ms) & ~np.isnan(labels(spec, held))
    return mask


def split(spec: ModelSpec, rows: Rows, as_of_ms: int, since_ms: int | None = None) -> tuple[Bools, Bools]:
    """(train, hold out): masks of the rows whose labels were known as of then.

    Held out are every n-th of the last days, after `since_ms`: with the end of the champion's training data there,
    the champion has not seen them either.
    """
    held = table(rows)
    usable = known(spec, held, as_of_ms)
    times, _ = times_ms(held, spec.time)
    kept = spec.holdout
    day = (times - kept.day_begins_h * 3_600_000) // DAY_MS
    begin = as_of_ms - kept.days * DAY_MS
    out: Bools = (times > (begin if since_ms is None else max(begin, since_ms))) & (day % kept.every == 0)
    return usable & ~out, usable & out


def fit(spec: ModelSpec, rows: Rows, candidate: Candidate, as_of_ms: int) -> Pipeline:
    """A pipeline fitted on the labelled ones of these rows: the same rows in the same order, the same bits.

    Raises LeakError for a label not known as of then; UserError where rows of both classes are wanting; MissingExtra.
    """
    held = table(rows)
    y = labels(spec, held)
    labelled = ~np.isnan(y)
    check_known(held, spec.known_at, as_of_ms, labelled)
    times, _ = times_ms(held, spec.time)
    if candidate == "recent":
        labelled &= times >= as_of_ms - spec.recent_days * DAY_MS
    if len(np.unique(y[labelled])) < 2:
        raise UserError(f"{spec.name}, candidate {candidate}: {int(labelled.sum())} labelled rows, not of both classes")
    weights = None
    if candidate == "weighted":
        weights = np.exp2((times[labelled] - as_of_ms) / (spec.half_life_days * DAY_MS))
    model = _pipeline(spec)
    with _one_thread():
        model.fit(_frame(held, spec.features).filter(pa.array(labelled)).to_pandas(), y[labelled],
                  classify__sample_weight=weights)
    return model


def predict(model: Any, rows: Rows) -> Floats:
    """The probability of each row. `model` is a pipeline of `fit`'s, fresh or loaded; others are asked as they are.

    Of ours, categories are looked up in Arrow and not by scikit-learn's encoder, to the same bits in a third of the
    time. Raises UserError for a feature that the rows do not have.
    """
    names = tuple(str(name) for name in model.feature_names_in_)
    held = _frame(table(rows), names)
    if not held.num_rows:
        return np.zeros(0)
    matrix = _encoded(model, held)
    with _one_thread():
        answer = model[-1].predict_proba(matrix) if matrix is not None else model.predict_proba(held.to_pandas())
    ones: Floats = np.ascontiguousarray(answer[:, 1], dtype=np.float64)
    return ones


def _pipeline(spec: ModelSpec) -> Pipeline:
    try:
        from sklearn.compose import ColumnTransformer
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
    except ImportError as missing:
        raise MissingExtra("ml", "training a model") from missing
    categorical, numeric = list(spec.categorical), list(spec.numeric)
    if spec.algorithm == "logistic":
        columns = ColumnTransformer([
            ("category", OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=50), categorical),
            ("number", Pipeline([("fill", SimpleImputer(strategy="median")), ("scale", StandardScaler())]), numeric)])
        return Pipeline([("columns", columns), ("classify", LogisticRegression(**{
            "max_iter": 300, "random_state": spec.seed, **spec.params}))])
    columns = ColumnTransformer([
        ("category", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan,
                                    encoded_missing_value=np.nan, dtype=np.float64), categorical),
        ("number", "passthrough", numeric)])
    trees = HistGradientBoostingClassifier(**{
        "max_iter": 30, "learning_rate": 0.2, "max_leaf_nodes": 15, "min_samples_leaf": 200, "early_stopping": False,
        "random_state": spec.seed, "categorical_features": list(range(len(categorical))) or None, **spec.params})
    return Pipeline([("columns", columns), ("classify", trees)])


def _frame(rows: pa.Table, names: tuple[str, ...]) -> pa.Table:
    """The feature columns, in order: numbers as float64, whether there are nulls among them or not."""
    missing = [name for name in names if name not in rows.schema.names]
    if missing:
        raise UserError(f"the rows lack the features {', '.join(missing)}",
                        hint=f"they have {', '.join(rows.schema.names)}")
    columns = []
    for name in names:
        column = rows.column(name)
        held = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        texts = pa.types.is_string(held) or pa.types.is_large_string(held)
        columns.append(pc.cast(column, pa.string() if texts else pa.float64(), safe=False))
    return pa.table(columns, names=list(names))


def _encoded(model: Any, held: pa.Table) -> Floats | None:
    """What the pipeline's first step would make of the rows, or None where that step is not of our trees' kind."""
    from sklearn.preprocessing import OrdinalEncoder

    steps = getattr(getattr(model, "named_steps", {}).get("columns"), "transformers_", ())
    if not steps or not isinstance(steps[0][1], OrdinalEncoder):
        return None
    encoder, categorical = steps[0][1], list(steps[0][2])
    matrix = np.empty((held.num_rows, held.num_columns))
    for at, name in enumerate(categorical):
        values = pa.array([value for value in encoder.categories_[at].tolist() if isinstance(value, str)], pa.string())
        place = pc.index_in(held.column(name), value_set=values)
        matrix[:, at] = pc.cast(place, pa.float64()).fill_null(float("nan")).to_numpy()
    for at, name in enumerate((n for n in held.column_names if n not in categorical), len(categorical)):
        matrix[:, at] = held.column(name).fill_null(float("nan")).to_numpy()
    return matrix


@cache
def _threads() -> Any:
    """The thread pools of this process; finding them takes milliseconds, and they stay."""
    import sklearn.ensemble  # noqa: F401  (its OpenMP must be loaded to be found)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def _one_thread() -> Iterator[None]:
    with _threads().limit(limits=1):
        yield
