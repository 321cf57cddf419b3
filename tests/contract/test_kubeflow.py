"""Kubeflow: runs held against the client's models, claims against a real MLflow store, results from a real registry.

The dispatcher meets a stand-in for the API (kfp_api.py). No real Kubeflow saw it: docs/kubeflow.md says so. The
pipeline itself runs in tests/external/test_kubeflow_local.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigError, Retriable
from headrace.loop.dispatch import kubeflow as module
from headrace.loop.dispatch.base import Refused, Resources, dispatcher
from headrace.loop.dispatch.kubeflow import OWN_PIPELINE, display_name
from headrace.marked import read
from tests.contract.kfp_api import Pipelines, pipelines, unknown
from tests.contract.test_k8s_strict import IMAGE, request

pytestmark = pytest.mark.contract

TRIGGER = "ab" * 32
MLFLOW = "http://mlflow:5000"


@pytest.fixture
def there() -> Iterator[Pipelines]:
    with pipelines() as server:
        yield server


@pytest.fixture
def make(there: Pipelines, tmp_path: Path) -> Any:
    def made(**config: Any) -> Any:
        return dispatcher("kubeflow", {"url": there.url, "image": IMAGE, "mlflow": MLFLOW, "timeout_s": 20.0, **config},
                          project=tmp_path)

    return made


def test_the_stand_in_sees_what_the_models_do_not_know() -> None:
    run = {"display_name": "x", "runtime_config": {"parameters": {"a": 1}}, "state": "RUNNING"}
    assert list(unknown("V2beta1Run", run)) == []
    for wrong in ({"displayName": "x"}, {"display_name": 3}, {"runtime_config": {"params": {}}}, {"state": "GONE"},
                  {"pipeline_version_reference": {"version": "1"}}):
        assert len(list(unknown("V2beta1Run", {**run, **wrong}))) == 1, wrong


def test_one_trigger_is_one_run(there: Pipelines, make: Any) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: make().submit(request(), Resources()), range(16)))
    assert len(there.runs) == there.posts == 1
    assert {status.run for status in found} == {there.runs[0]["run_id"]}
    assert {status.state for status in found} == {"queued"}


def test_what_a_run_is_told(there: Pipelines, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_BOOTSTRAP", "kafka:9092")
    monkeypatch.delenv("HEADRACE_REGISTRY", raising=False)
    make(experiment_id="e1", service_account="trainer").submit(
        request(), Resources(cpu=1.5, memory_mb=3000, seconds_max=600))
    run = there.named()
    parameters = run["runtime_config"]["parameters"]
    assert run["display_name"] == display_name(TRIGGER)
    assert (run["experiment_id"], run["service_account"]) == ("e1", "trainer")
    assert json.loads(parameters.pop("request"))["id"] == parameters.pop("trigger") == TRIGGER
    assert parameters == {"mlflow": MLFLOW, "cpu": "1500m", "memory": "3000Mi", "seconds_max": 600,
                          "bootstrap": "kafka:9092"}
    known = read(OWN_PIPELINE).data["root"]["inputDefinitions"]["parameters"]
    assert {*parameters, "request", "trigger"} <= set(known)
    needed = {name for name, each in known.items() if not each.get("isOptional")}
    assert needed <= {*parameters, "request", "trigger"}
    images = {each["container"]["image"] for each in run["pipeline_spec"]["deploymentSpec"]["executors"].values()}
    assert images == {IMAGE}


def test_an_uploaded_pipeline(there: Pipelines, make: Any) -> None:
    make(pipeline_id="p", pipeline_version_id="v", gpus=True, parameters={"flavour": "x"}).submit(
        request(), Resources(gpu=2))
    run = there.named()
    assert run["pipeline_version_reference"] == {"pipeline_id": "p", "pipeline_version_id": "v"}
    assert (run["runtime_config"]["parameters"]["gpu"], run["runtime_config"]["parameters"]["flavour"]) == ("2", "x")
    assert "pipeline_spec" not in run


@pytest.mark.parametrize("fault", ["500", "500 done", "cut", "slow", "garbage"])
def test_whatever_becomes_of_an_answer_there_is_one_run(there: Pipelines, make: Any, fault: str) -> None:
    there.faults.append(("POST", fault))
    kubeflow = make(timeout_s=5.0 if fault == "slow" else 20.0)
    try:
        status = kubeflow.submit(request(), Resources())
    except Retriable:
        assert fault == "500"
        status = kubeflow.submit(request(), Resources())
    assert len(there.runs) == 1
    assert (status.state, status.run) == ("queued", there.runs[0]["run_id"])
    assert there.posts == (2 if fault == "500" else 1)


@pytest.mark.parametrize("fault", ["500", "cut", "garbage", "401", "429"])
def test_while_the_list_cannot_be_had_nothing_is_created(there: Pipelines, make: Any, fault: str) -> None:
    there.faults.append(("GET", fault))
    with pytest.raises(Retriable):
        make().submit(request(), Resources())
    assert there.runs == []


@pytest.mark.parametrize(("word", "state"), [
    ("PENDING", "queued"), ("RUNNING", "running"), ("CANCELING", "running"), ("FAILED", "failed"),
    ("CANCELED", "failed"), ("SKIPPED", "failed")])
def test_how_it_stands(there: Pipelines, make: Any, word: str, state: str) -> None:
    kubeflow = make()
    assert kubeflow.poll(TRIGGER, None).state == "unknown"
    run = kubeflow.submit(request(), Resources()).run
    there.named(state=word, error={"code": 9, "message": "train: exit code 3"})
    status = kubeflow.poll(TRIGGER, run)
    assert (status.state, status.run) == (state, run)
    assert ("exit code 3" in status.reason) == (state == "failed")


def test_of_several_runs_the_one_that_got_past_its_claim_counts(there: Pipelines, make: Any) -> None:
    """Another machine asked at the same moment. The loser of the claim failed; pages are small."""
    there.page_size = 1
    kubeflow = make()
    kubeflow.submit(request(), Resources())
    first = there.named(state="FAILED")
    for state in ("RUNNING", "FAILED"):
        there.runs.append({**first, "run_id": state, "state": state})
    there.runs.append({**first, "run_id": "other", "state": "SUCCEEDED", "runtime_config": {"parameters": {
        "trigger": "of another digest"}}})
    assert kubeflow.poll(TRIGGER, first["run_id"]).run == "RUNNING"
    kubeflow.cancel(TRIGGER, None)
    assert [each["state"] for each in there.runs] == ["FAILED", "CANCELING", "FAILED", "SUCCEEDED"]


def test_its_result_is_the_registrys(there: Pipelines, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def recorded(wanted: Any, project: Path, *, uri: str | None) -> Any:
        asked.append((wanted.id, wanted.model, uri))
        return {"version": "7"} if len(asked) == 1 else None

    monkeypatch.setattr(module, "recorded", recorded)
    kubeflow = make()
    kubeflow.submit(request(), Resources())
    there.named(state="SUCCEEDED")
    assert kubeflow.poll(TRIGGER, None).result == {"version": "7"}
    assert "no record" in kubeflow.poll(TRIGGER, None).reason
    assert asked == [(TRIGGER, "flight-delay", MLFLOW)] * 2


def test_a_record_in_a_real_registry_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from headrace.loop.dispatch.recorded import recorded
    from headrace.loop.models import open_registry

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = open_registry(None, tmp_path)
    assert recorded(request(), tmp_path) is None  # nobody is asked: an embedded store is not where a pod writes
    uri = f"sqlite:///{next(tmp_path.rglob('mlflow.db'))}"
    assert recorded(request(), tmp_path, uri=uri) is None
    example = pa.table({"x": [0.0, 1.0, 2.0, 3.0]})
    fitted = make_pipeline(LogisticRegression()).fit(example.to_pandas(), [0, 0, 1, 1])
    facts = {**dict.fromkeys(("git_commit", "lock_digest", "image_digest")), "data_digest": "d1", "cpu_s": 1.5,
             "peak_bytes": 7, "ranges": [], "holdout": []}
    logged = store.log_run(TRIGGER, "flight-delay", spec={}, metrics={"all.auc": 0.7}, facts=facts,
                           models={"all": fitted}, references={"all": {}}, example=example)
    found = recorded(request(), tmp_path, uri=uri)
    assert found is not None
    assert (found["trigger"], found["mlflow_run"], found["candidates"], found["data_digest"], found["metrics"]) == (
        TRIGGER, logged.mlflow_run, {"all": "1"}, "d1", {"all.auc": 0.7})
    assert json.loads(json.dumps(found)) == found  # as a pod would have written it


def test_what_is_refused(there: Pipelines, make: Any) -> None:
    for config, resources, wanted in (({}, Resources(gpu=1), "GPUs"), ({"image": None}, Resources(), "image"),
                                      ({"mlflow": None}, Resources(), "MLflow")):
        with pytest.raises(Refused, match=wanted):
            make(**config).submit(request(), resources)
    with pytest.raises(Refused, match="bytes"):
        make().submit(request(reason="x" * 200_000), Resources())
    with pytest.raises(ConfigError, match="go together"):
        make(pipeline_id="p")
    assert there.runs == []


def test_three_claim_and_one_has_it(tmp_path: Path) -> None:
    """Three processes at once, in a real MLflow store; then the owner again, as its retry would."""
    from headrace.loop.models import open_registry

    open_registry(None, tmp_path)  # its tables
    uri = f"sqlite:///{next(tmp_path.rglob('mlflow.db'))}"
    command = [sys.executable, "-W", "ignore", "-m", "headrace.loop.dispatch.claim", "--trigger", "t1",
               "--tracking-uri", uri, "--owner"]
    asking = {owner: subprocess.Popen([*command, owner], stdout=subprocess.PIPE, text=True)
              for owner in map(str, range(3))}
    told = {owner: (process.communicate()[0].strip().splitlines()[-1], process.returncode)
            for owner, process in asking.items()}
    winners = [owner for owner, (_, code) in told.items() if code == 0]
    assert len(winners) == 1, told
    assert {text for text, _ in told.values()} == {f"trigger t1 is {winners[0]}'s"}
    from headrace.loop.dispatch.claim import claim

    assert [claim("t1", owner, uri) for owner in (winners[0], "9")] == winners * 2
    assert claim("t2", "9", uri) == "9"
