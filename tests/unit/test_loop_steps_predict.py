"""`predict` by itself: who predicts, canaries and shadows, what does not fit, and the loader behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.batch import Batch, Frames, Meta
from headrace.errors import HeadraceError, Retriable, SchemaError, UserError
from headrace.loop.models import Loaded
from headrace.loop.serving import Deployment, Server, Serving
from headrace.processor import Context
from headrace.processors.predict import Predict
from headrace.settings import Settings
from headrace.testing import Record

pytestmark = pytest.mark.unit


class Line:
    """As a pipeline of scikit-learn's, but a straight line."""

    feature_names_in_ = np.array(["x"])
    named_steps: dict[str, Any] = {}

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def __getitem__(self, at: int) -> Line:
        return self

    def predict_proba(self, frame: Any) -> Any:
        ones = frame["x"].to_numpy() * self.slope
        return np.column_stack([1 - ones, ones])


def loaded(version: str, slope: float = 1.0, features: tuple[str, ...] = ("x",)) -> Loaded:
    return Loaded("m", version, Line(slope), features, 0)


INPUT = pa.schema([("id", pa.int64()), ("x", pa.float64())])


class Fixed:
    """A server that serves one thing."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving

    def now(self) -> Serving:
        return self.serving

    settled = now


def predicting(serving: Serving | None = None, **config: Any) -> Callable[[pa.RecordBatch], dict[str, Any]]:
    step = Predict(Predict.Config.model_validate({"model": "m", **config}), project=Path())
    step.outputs(INPUT)
    ctx = Context("f", "s", Path())
    step.open(ctx)
    if serving is not None:
        step._server = Fixed(serving)  # type: ignore[assignment]
        step._topic = "headrace.models"

    def run(rows: pa.RecordBatch) -> dict[str, Any]:
        frames = Frames([Record(b"", "t", 0, n, str(i).encode()) for n, i in enumerate(rows["id"].to_pylist())])
        out = step.process(Batch(rows, Meta(frames)), ctx)
        assert all(batch.rows.schema.equals(step.outputs(INPUT)[name]) for name, batch in out.items())
        return {name: batch.rows for name, batch in out.items()}

    return run


def input_rows(n: int, first: int = 0) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(np.arange(first, first + n)), pa.array(np.linspace(0, 1, n))],
                                      schema=INPUT)


def serving(mode: str, share: float = 0.3) -> Serving:
    one, two = loaded("1"), loaded("2", 0.5)
    return Serving(Deployment("1", None if mode == "full" else "2", mode, share, 4), {"1": one, "2": two})


def test_without_a_model() -> None:
    out = predicting()(input_rows(3))["success"]
    assert (out["prediction"].null_count, out["model_version"].null_count) == (3, 3)
    out = predicting(Serving(), missing="null")(input_rows(3))["success"]
    assert out["model_version"].null_count == 3
    with pytest.raises(Retriable, match=r"no version of m is in charge yet: headrace\.models has no switch of it"):
        predicting(Serving())(input_rows(3))


@pytest.mark.parametrize("swap", ["when_ready", "at_once"])
def test_the_version_in_charge(swap: str) -> None:
    rows = input_rows(5)
    out = predicting(serving("full"), **{"as": "p", "version_as": "by"}, swap=swap)(rows)
    assert set(out) == {"success"}
    assert out["success"]["p"].to_pylist() == rows["x"].to_pylist()
    assert out["success"]["by"].to_pylist() == ["1"] * 5


@pytest.mark.parametrize("key", ["id", None])
def test_a_canary_sticks_to_its_keys(key: str | None) -> None:
    run, rows = predicting(serving("canary"), key=key, arm_as="arm"), input_rows(4_000)
    out = run(rows)["success"]
    theirs = np.array(out["model_version"].to_pylist()) == "2"
    assert 0.25 < theirs.mean() < 0.35
    x = rows["x"].to_numpy()
    np.testing.assert_array_equal(out["prediction"].to_numpy(), np.where(theirs, x * 0.5, x))
    assert out["arm"].to_pylist() == np.where(theirs, "challenger", "champion").tolist()
    cut_ = pa.concat_arrays([run(rows.slice(at_, 100))["success"]["model_version"] for at_ in range(0, 4_000, 100)])
    assert cut_.equals(out["model_version"])


def test_a_shadow_is_asked_and_not_heard() -> None:
    rows = input_rows(4)
    alone = predicting(serving("shadow"))(rows)
    assert set(alone) == {"success"}
    both = predicting(serving("shadow"), shadow=True)(rows)
    assert both["success"]["model_version"].to_pylist() == ["1"] * 4
    assert both["shadow"]["model_version"].to_pylist() == ["2"] * 4
    assert both["shadow"]["prediction"].to_pylist() == [x * 0.5 for x in rows["x"].to_pylist()]


def test_what_predict_cannot_do_is_said_at_plan_time() -> None:
    def plan(schema: pa.Schema, **config: Any) -> Any:
        return Predict(Predict.Config.model_validate({"model": "m", **config}), project=Path()).outputs(schema)

    with pytest.raises(SchemaError, match="already"):
        plan(INPUT.append(pa.field("prediction", pa.int8())))
    with pytest.raises(SchemaError, match="is no column"):
        plan(INPUT, key="nowhere")
    with pytest.raises(SchemaError, match="cannot be split by"):
        plan(INPUT, key="x")


@pytest.mark.parametrize(("schema", "what"), [
    (pa.schema([("id", pa.int64())]), "reads x, which the rows lack"),
    (pa.schema([("x", pa.timestamp("ms"))]), "cannot read such rows"),
    (pa.schema([("x", pa.string())]), "cannot read such rows")])
def test_a_version_that_does_not_fit_is_not_swapped_in(schema: pa.Schema, what: str) -> None:
    step = Predict(Predict.Config.model_validate({"model": "m"}), project=Path())
    step.outputs(schema)
    with pytest.raises(UserError, match=what):
        step._check(loaded("1"))


def test_a_loader_survives_what_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken artifact raises anything; the version before stays, and the next one is served without delay."""
    class Store:
        def load(self, model: str, version: str) -> Loaded:
            if version == "2":
                raise KeyError("pickled_model")
            return loaded(version)

    server = Server.__new__(Server)
    monkeypatch.setattr("headrace.loop.serving.Registry", lambda client: type("R", (), {"schema": None})())
    monkeypatch.setattr("headrace.loop.serving.Follower", lambda *_: type(
        "F", (), {"settle": lambda self, s: None, "close": lambda self: None})())
    server.__init__(Settings(Path(), "nowhere:1", "http://nowhere:1"), "m", topic="t",  # type: ignore[misc]
                    store=lambda: Store())
    server._loader.start()

    def want(version: str, epoch: int) -> None:
        with server._changed:
            server._wanted, server._trouble = Deployment(version, epoch=epoch), None
            server._changed.notify_all()

    try:
        want("1", 1)
        assert server.settled(5).deployment.champion == "1"
        want("2", 2)
        with pytest.raises(HeadraceError, match="version 2 cannot serve: KeyError"):
            server.settled(5)
        assert server.now().deployment.champion == "1"
        want("3", 3)
        assert server.settled(1.5).deployment.champion == "3", "and not only after the next try of the broken one"
    finally:
        server.close()
