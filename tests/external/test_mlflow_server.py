"""The model store behind a real `mlflow server`: the same promises as embedded, with writers in several processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from headrace.loop.models import ModelStore, open_registry
from headrace.settings import Settings
from tests.integration.test_train import filled, finished, request
from tests.integration.test_train import start as start_trainer
from tests.ports import free_port
from tests.unit.test_loop_models import active_runs, log, pipeline, rows

pytestmark = [pytest.mark.external, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
BOOT_S = 120
WRITES = """
import sys
from pathlib import Path
from headrace.loop.models import open_registry
from tests.unit.test_loop_models import log, pipeline
uri, project, trigger, model = sys.argv[1:]
store = open_registry(uri, Path(project))
fitted = {"all": pipeline(0), "recent": pipeline(1)}
print("ready", flush=True)
sys.stdin.readline()
print(log(store, trigger, fitted, model).mlflow_run, flush=True)
"""
PROMOTES = """
import sys
from pathlib import Path
from headrace.loop.models import open_registry
uri, project, model, *epochs = sys.argv[1:]
store = open_registry(uri, Path(project))
store.models()
print("ready", flush=True)
sys.stdin.readline()
for epoch in map(int, epochs):
    store.set_alias(model, "champion", str(1 + epoch % 2), epoch)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a database and artifacts of its own; gone, with its workers, when the module ends."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2",
               "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"]
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as told:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=told, stderr=told, start_new_session=True)
    try:
        _await(f"http://127.0.0.1:{port}/health", process, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        family = [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        for each in family:
            each.kill()
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes], told: Path) -> None:
    end = time.monotonic() + BOOT_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"the MLflow server did not start:\n{told.read_text()[-3000:]}", pytrace=False)


@pytest.fixture
def store(server: str, tmp_path: Path) -> ModelStore:
    return open_registry(server, tmp_path)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    return {"all": pipeline(0), "recent": pipeline(1)}


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process that has imported everything, and waits for a line."""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_logged_found_loaded(store: ModelStore, fitted: dict[str, Any]) -> None:
    first = log(store, "t1", fitted, "served")
    assert log(store, "t1", fitted, "served") == first == store.logged("t1", "served")
    table = rows(500, 5)
    loaded = store.load("served", first.candidates["recent"])
    np.testing.assert_array_equal(loaded.predict(table), fitted["recent"].predict_proba(table.to_pandas())[:, 1])
    assert loaded.reference == {"rows": 400}
    assert [(each.version, each.candidate) for each in store.versions("served")] == [("2", "recent"), ("1", "all")]
    assert store.compare("served", "1", "2")["metrics"] == {"auc": (0.7, 0.65)}


def test_writers_at_once(store: ModelStore, server: str, tmp_path: Path) -> None:
    """Each with a project folder of its own, as on machines of their own: only the server is between them."""
    writers = [start(WRITES, server, str(tmp_path / str(n)), "t1", "race") for n in range(3)]
    for each in writers:
        go(each)
    runs = {each.communicate(timeout=120)[0].strip() for each in writers}
    assert [each.returncode for each in writers] == [0, 0, 0]
    assert len(runs) == 1
    assert [run.info.run_id for run in active_runs(store, "race", "t1")] == list(runs)
    assert sorted(str(each.candidate) for each in store.versions("race")) == ["all", "recent"]


def test_a_writer_killed_again_and_again(store: ModelStore, server: str, tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    print(f"seed {seed}")
    half_made = 0
    for _ in range(5):
        writer = start(WRITES, server, str(tmp_path), "t1", "killed")
        go(writer)
        time.sleep(chance.uniform(0.0, 1.2))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        experiment = store.client.get_experiment_by_name("killed")
        if experiment is not None:
            half_made += any(run.info.status == "RUNNING" for run in active_runs(store, "killed", "t1"))
    at_last = start(WRITES, server, str(tmp_path), "t1", "killed")
    go(at_last)
    run = at_last.communicate(timeout=120)[0].strip()
    print(f"{half_made} kills left a half-made run")
    assert [(each.info.run_id, each.info.status) for each in active_runs(store, "killed", "t1")] == [(run, "FINISHED")]
    assert sorted(str(each.candidate) for each in store.versions("killed")) == ["all", "recent"], f"seed {seed}"
    logged = store.logged("t1", "killed")
    assert logged is not None
    assert set(logged.candidates.values()) == {each.version for each in store.versions("killed")}


def test_trainers_by_url(server: str, project: Settings, topic: Callable[..., str], tmp_path: Path) -> None:
    """One killed, then two at once on machines of their own: the event is trained once, and the model loads."""
    asked = request(filled(project, topic))
    killed = start_trainer(project, asked, MLFLOW_TRACKING_URI=server)
    assert killed.stderr is not None
    next(line for line in killed.stderr if line.startswith("fitted weighted"))
    time.sleep(0.5)
    killed.kill()
    killed.communicate()
    elsewhere = Settings(tmp_path / "elsewhere", project.bootstrap, project.registry_url)
    elsewhere.project.mkdir()
    one, two = [finished(each) for each in [start_trainer(each, asked, MLFLOW_TRACKING_URI=server)
                                            for each in (project, elsewhere)]]
    assert one == two
    assert not (project.state / "mlflow/mlflow.db").exists()
    store = open_registry(server, tmp_path)
    assert [run.info.run_id for run in active_runs(store, "flight-delay", asked.id)] == [one["mlflow_run"]]
    assert {str(each.candidate): each.version for each in store.versions("flight-delay")} == one["candidates"]
    assert store.load("flight-delay", one["version"]).reference["baseline"]["auc"] == one["metrics"]["all.auc"]


def test_epochs_from_several_writers(store: ModelStore, server: str, tmp_path: Path, fitted: dict[str, Any]) -> None:
    """One writer a model is the rule. Where it is broken, the greatest epoch is in force all the same."""
    log(store, "t1", fitted, "epochs")
    seed = random.randrange(1 << 30)
    epochs = list(range(1, 41))
    random.Random(seed).shuffle(epochs)
    writers = [start(PROMOTES, server, str(tmp_path / str(n)), "epochs", *map(str, epochs[n::4])) for n in range(4)]
    for each in writers:
        go(each)
    for each in writers:
        each.communicate(timeout=200)
    assert [each.returncode for each in writers] == [0] * 4
    assert store.resolve("epochs", "champion") == "1", f"seed {seed}: epoch 40 gave it to version 1"
    assert str(store.client.get_model_version_by_alias("epochs", "champion").version) == "1", f"seed {seed}"
    assert store.history("epochs")[-1].epoch == 40
    assert not store.set_alias("epochs", "champion", "2", 39)
