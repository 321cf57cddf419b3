"""The model store, on an MLflow of its own in SQLite."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace import settings
from headrace.errors import UserError
from headrace.loop.models import Logged, ModelStore, NoSuchModel, StoreUnreachable, open_registry
from headrace.loop.models.record import BEAT, OWNER, TRIGGER, Ledger

pytestmark = [pytest.mark.unit, pytest.mark.timeout(180)]

MODEL = "flight-delay"
ROOT = Path(__file__).resolve().parents[2]


def rows(n: int = 200, seed: int = 7) -> pa.Table:
    chance = np.random.default_rng(seed)
    return pa.table({"distance": chance.normal(1000, 300, n), "carrier": chance.choice(["AA", "B6", "UA"], n)})


def pipeline(seed: int = 7) -> Any:
    """A pipeline as the trainer makes them: categories and gradient boosting."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    table = rows(400, seed)
    late = table["distance"].to_numpy() + 100 * seed > 1000
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    made = make_pipeline(make_column_transformer((encoder, ["carrier"]), remainder="passthrough"),
                         HistGradientBoostingClassifier(max_iter=5, random_state=seed))
    return made.fit(table.to_pandas(), late)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    return {"all": pipeline(0), "recent": pipeline(1)}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """One database for the module: its tables take seconds to make. Every test has a model name of its own."""
    return open_registry(None, tmp_path_factory.mktemp("project"))


@pytest.fixture
def store(shared: ModelStore) -> ModelStore:
    return shared


def log(store: ModelStore, trigger: str, fitted: dict[str, Any], model: str = MODEL) -> Logged:
    return store.log_run(trigger, model, spec={"features": ["distance", "carrier"], "label": "late"},
                         metrics={"all.auc": 0.7, "recent.auc": 0.65, "rows": 400}, models=fitted,
                         facts={"data_digest": f"d-{trigger}", "ranges": [["flights", 0, 0, 399]]},
                         references={each: {"rows": 400} for each in fitted}, example=rows(20))


def active_runs(store: ModelStore, model: str, trigger: str) -> list[Any]:
    experiment = store.client.get_experiment_by_name(model)
    return list(store.client.search_runs([experiment.experiment_id], f"tags.{TRIGGER} = '{trigger}'"))


def test_a_trigger_has_one_run_and_a_version_each(store: ModelStore, fitted: dict[str, Any]) -> None:
    first = log(store, "t1", fitted, "once")
    assert first.candidates == {"all": "1", "recent": "2"}
    assert log(store, "t1", fitted, "once") == first == store.logged("t1", "once")
    assert log(store, "t2", fitted, "once").candidates == {"all": "3", "recent": "4"}
    assert [run.info.status for run in active_runs(store, "once", "t1")] == ["FINISHED"]
    newest, *_, oldest = store.versions("once")
    assert (newest.version, newest.trigger, newest.candidate, newest.metrics) == ("4", "t2", "recent", {"auc": 0.65})
    assert (oldest.version, oldest.trigger, oldest.candidate, oldest.mlflow_run) == ("1", "t1", "all",
                                                                                   first.mlflow_run)
    assert store.logged("t3", "once") is None
    assert store.logged("t1", "another") is None


def test_what_is_loaded_predicts_as_what_was_logged(store: ModelStore, fitted: dict[str, Any]) -> None:
    logged = log(store, "t1", fitted, "same")
    table = rows(1000, 3)
    for candidate, version in logged.candidates.items():
        loaded = store.load("same", version)
        assert (loaded.features, loaded.reference) == (("distance", "carrier"), {"rows": 400})
        assert loaded.size_bytes > 1000
        wide = table.append_column("other", pa.array([1] * 1000)).to_batches()[0]
        expected = fitted[candidate].predict_proba(table.to_pandas())[:, 1]
        np.testing.assert_array_equal(loaded.predict(wide), expected)
    with pytest.raises(UserError, match="reads carrier, which the rows lack"):
        loaded.predict(table.select(["distance"]))


def test_a_half_made_run_of_a_dead_writer_is_made_anew(store: ModelStore, fitted: dict[str, Any]) -> None:
    """As a killed process leaves it: a run, one version of two, no record."""
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    first = log(store, "t0", fitted, "half")
    experiment = store.client.get_experiment_by_name("half").experiment_id
    from headrace.loop.models.record import _machine

    run = store.client.create_run(experiment, tags={TRIGGER: "t1", OWNER: f"{_machine()}/{dead.pid}@1.00", BEAT: "0"})
    source = store.client.get_model_version("half", first.candidates["all"]).source
    store.client.create_model_version("half", source, run.info.run_id, tags={"headrace.trigger": "t1",
                                                                            "headrace.candidate": "all"})
    logged = log(store, "t1", fitted, "half")
    assert {each.version for each in store.versions("half") if each.trigger == "t1"} == set(logged.candidates.values())
    assert logged.mlflow_run != run.info.run_id
    assert [each.info.run_id for each in active_runs(store, "half", "t1")] == [logged.mlflow_run]


def test_a_living_writer_is_waited_for(store: ModelStore, fitted: dict[str, Any]) -> None:
    """Whoever comes second neither writes beside the first, nor takes its run away."""
    log(store, "t0", fitted, "wait")
    from headrace.loop.models.record import _me

    ledger = Ledger(store.client, store.uri, store.folder)
    experiment = store.client.get_experiment_by_name("wait").experiment_id
    run = store.client.create_run(experiment, tags={TRIGGER: "t1", OWNER: _me(), BEAT: "0"})
    with pytest.raises(StoreUnreachable, match="another process has been writing"):
        ledger._claim(experiment, "t1", patience_s=1.2)
    assert [each.info.run_id for each in active_runs(store, "wait", "t1")] == [run.info.run_id]


def test_a_writer_elsewhere_is_dead_once_its_run_stands_still(store: ModelStore, fitted: dict[str, Any],
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.loop.models.record.LEASE_S", 1.5)
    log(store, "t0", fitted, "lease")
    experiment = store.client.get_experiment_by_name("lease").experiment_id
    run = store.client.create_run(experiment, tags={TRIGGER: "t1", OWNER: "another-machine/7@1.00", BEAT: "0"})
    for beat in range(1, 4):  # while it is touched it lives
        threading.Timer(beat * 0.8, store.client.set_tag, (run.info.run_id, BEAT, str(beat))).start()
    began = time.monotonic()
    logged = log(store, "t1", fitted, "lease")
    assert time.monotonic() - began > 3 * 0.8 + 1.5
    assert [each.info.run_id for each in active_runs(store, "lease", "t1")] == [logged.mlflow_run]


def test_writers_at_once(store: ModelStore, fitted: dict[str, Any]) -> None:
    log(store, "t0", fitted, "race")
    found: list[Logged] = []
    writers = [threading.Thread(target=lambda: found.append(log(store, "t1", fitted, "race"))) for _ in range(4)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert len(found) == 4
    assert len({each.mlflow_run for each in found}) == 1
    assert len([each for each in store.versions("race") if each.trigger == "t1"]) == 2
    assert len(active_runs(store, "race", "t1")) == 1


def test_an_older_epoch_never_overwrites_a_newer_one(store: ModelStore, fitted: dict[str, Any]) -> None:
    log(store, "t1", fitted, "epochs")
    with pytest.raises(NoSuchModel, match="no version of epochs is “champion”"):
        store.resolve("epochs", "champion")
    assert store.set_alias("epochs", "champion", "1", 10)
    assert store.set_alias("epochs", "champion", "2", 12)
    assert not store.set_alias("epochs", "champion", "1", 11)
    assert store.set_alias("epochs", "champion", "2", 12), "the same switch again changes nothing"
    assert store.resolve("epochs", "champion") == "2"
    assert store.client.get_model_version_by_alias("epochs", "champion").version == 2
    assert [(each.epoch, each.version) for each in store.history("epochs", "champion")] == [(10, "1"), (12, "2")]
    assert [each.aliases for each in store.versions("epochs")] == [("champion",), ()]


def test_an_alias_left_behind_by_a_dead_writer(store: ModelStore, fitted: dict[str, Any]) -> None:
    """It wrote the epoch and died before the alias: readers are right at once, the next call mends MLflow's alias."""
    log(store, "t1", fitted, "behind")
    store.set_alias("behind", "champion", "2", 5)
    store.client.set_registered_model_alias("behind", "champion", "1")
    assert store.resolve("behind", "champion") == "2"
    assert [each.aliases for each in store.versions("behind")] == [("champion",), ()]
    assert store.set_alias("behind", "champion", "2", 5)
    assert store.client.get_model_version_by_alias("behind", "champion").version == 2


def test_history_is_bounded(store: ModelStore, fitted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.loop.models.store.HISTORY_MAX", 3)
    log(store, "t1", fitted, "long")
    for epoch in range(1, 8):
        store.set_alias("long", "champion", str(1 + epoch % 2), epoch)
    assert [each.epoch for each in store.history("long")] == [5, 6, 7]
    assert store.resolve("long", "champion") == "2"


def test_compare(store: ModelStore, fitted: dict[str, Any]) -> None:
    log(store, "t1", fitted, "pair")
    log(store, "t2", fitted, "pair")
    found = store.compare("pair", "1", "4")
    assert found["metrics"] == {"auc": (0.7, 0.65)}
    assert found["facts"] == {"candidate": ("all", "recent"), "data_digest": ("d-t1", "d-t2")}


def test_what_is_not_there(store: ModelStore, fitted: dict[str, Any]) -> None:
    log(store, "t1", fitted, "there")
    with pytest.raises(NoSuchModel, match="there is no model nowhere"):
        store.versions("nowhere")
    with pytest.raises(NoSuchModel, match="there has no version 99"):
        store.load("there", "99")
    with pytest.raises(UserError, match="is no trigger id"):
        log(store, "it's", fitted, "there")
    assert "there" in store.models()


def test_a_pickled_model_is_refused(store: ModelStore, fitted: dict[str, Any], tmp_path: Path,
                                    caplog: pytest.LogCaptureFixture) -> None:
    """One that somebody logged by hand: loading it could run anything."""
    import mlflow.sklearn

    log(store, "t1", fitted, "pickled")
    caplog.set_level("ERROR", "mlflow")  # it warns of the very thing
    mlflow.sklearn.save_model(fitted["all"], tmp_path / "model", serialization_format="cloudpickle",
                              pip_requirements=["scikit-learn"])
    made = store.client.create_model_version("pickled", str(tmp_path / "model"))
    with pytest.raises(UserError, match="not a scikit-learn pipeline in skops' format"):
        store.load("pickled", str(made.version))


@pytest.mark.parametrize("calls", [os.system, functools.partial(os.system, "true")], ids=["it", "a partial of it"])
def test_a_model_cannot_say_itself_what_is_trusted(store: ModelStore, tmp_path: Path, calls: Any) -> None:
    """skops' list of trusted types is in the model's own files; ours is not taken from there."""
    import mlflow.sklearn
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    from headrace.loop.models.artifact import signature

    name = f"forged-{tmp_path.name}"
    log(store, "t1", {"all": pipeline(0)}, name)
    forged = make_pipeline(FunctionTransformer(calls), FunctionTransformer())
    mlflow.sklearn.save_model(forged, tmp_path / "model", serialization_format="skops", pip_requirements=[],
                              skops_trusted_types=["posix.system", "functools.partial"],
                              signature=signature(rows(5).schema), pyfunc_predict_fn="transform")
    made = store.client.create_model_version(name, str(tmp_path / "model"))
    with pytest.raises(UserError, match=r"types that are not trusted.*posix\.system"):
        store.load(name, str(made.version))
    with pytest.raises(UserError, match="cannot be kept"):
        log(store, "t2", {"all": forged}, name)
    assert active_runs(store, name, "t2") == [], "a writer that failed leaves nothing to wait for"
    assert log(store, "t2", {"all": pipeline(0)}, name).candidates == {"all": "3"}


OPENS = "import sys\nfrom pathlib import Path\nfrom headrace.loop.models import open_registry\n" \
        "print(open_registry(None, Path(sys.argv[1])).models())"


def test_a_fresh_database_opened_by_several_at_once(tmp_path: Path) -> None:
    """And one of them killed while it makes the tables."""
    began = subprocess.Popen([sys.executable, "-c", OPENS, str(tmp_path)], cwd=ROOT)
    end = time.monotonic() + 60
    while not (tmp_path / ".headrace/mlflow/mlflow.db.part").exists() and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.5)
    began.send_signal(signal.SIGKILL)
    began.wait()
    others = [subprocess.Popen([sys.executable, "-c", OPENS, str(tmp_path)], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    told = [each.communicate(timeout=120) for each in others]
    assert [each.returncode for each in others] == [0, 0], told
    assert [(out.strip(), err) for out, err in told] == [("[]", "")] * 2


def test_no_server(tmp_path: Path) -> None:
    store = open_registry("http://user:secret@127.0.0.1:9", tmp_path)
    with pytest.raises(StoreUnreachable, match=r"the model store http://127.0.0.1:9") as told:
        store.models()
    assert "secret" not in str(told.value)


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert settings.load(tmp_path).mlflow_uri is None
    (tmp_path / "headrace.toml").write_text('[mlflow]\nuri = "http://models:5000"\n')
    assert settings.load(tmp_path).mlflow_uri == "http://models:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://others:5000")
    assert settings.load(tmp_path).mlflow_uri == "http://others:5000"
