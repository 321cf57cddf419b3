"""Kubernetes: what we render and send, held against Kubernetes' own schemas, twice: the client's models and its JSON.

The dispatcher meets a stand-in for the API server (kube_api.py) that answers, fails and warns as the documentation
says. No real cluster saw any of this: docs/kubernetes.md says so.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes_validate import ValidationError, validate

from headrace import k8s, plan
from headrace.control import Retrain
from headrace.errors import Retriable
from headrace.loop.dispatch.base import Refused, Resources, dispatcher
from headrace.loop.dispatch.kubernetes import TRIGGER, KubernetesConfig, job, job_name, label
from headrace.loop.dispatch.pods import restricted
from tests.contract.kube_api import KUBERNETES, Cluster, cluster

pytestmark = pytest.mark.contract

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "registry.example/headrace@sha256:" + "a1" * 32
COMPLETE = {"type": "Complete", "status": "True", "reason": "CompletionsReached"}


def request(trigger: str = "ab" * 32, **changes: Any) -> Retrain:
    return Retrain(**{
        "id": trigger, "at": datetime(2013, 3, 1, tzinfo=UTC), "flow": "arrivals", "step": "watch", "topic": "flights",
        "partition": 0, "window": 3, "offset_first": 0, "offset_last": 41_999, "window_start": None, "window_end": None,
        "measure": "share", "condition": None, "rows": 42_000, "matched": 7, "observed": 0.3, "threshold": 0.2,
        "model": "flight-delay", "reason": "AUC fell", "ranges": [
            {"topic": "flights", "partition": 0, "offset_first": 0, "offset_last": 41_999}], **changes})


@pytest.fixture
def there() -> Iterator[Cluster]:
    with cluster() as server:
        yield server


@pytest.fixture
def make(there: Cluster, tmp_path: Path) -> Any:
    (tmp_path / "token").write_text("t0ken\n")

    def made(**config: Any) -> Any:
        return dispatcher("kubernetes", {"image": IMAGE, "host": there.url, "token_file": "token", "timeout_s": 20.0,
                                         **config}, project=tmp_path)

    return made


# ── what is sent, against the schemas ────────────────────────────────────────────────────────────────────────────────


def rendered(**options: Any) -> list[dict[str, Any]]:
    made = plan.load(ROOT / "flows" / "flight-delay.yaml")
    return k8s.manifests(made, k8s.Options(image=IMAGE, namespace="flights", loop=True, network_policy=True, **options))


def a_job(**config: Any) -> dict[str, Any]:
    return job(request(), Resources(cpu=1.5, memory_mb=3000, gpu=1, seconds_max=600),
               KubernetesConfig(image=IMAGE, env={"A": "b"}, env_from=("s3",), node_selector={"gpu": "yes"}, **config))


OBJECTS = {f"{each['kind']}/{each['metadata']['name']}": each
           for each in (*rendered(stateful=True, secret="kafka"), *rendered(), a_job())
           if each["kind"] != "ScaledObject"}


@pytest.mark.parametrize("name", OBJECTS)
def test_kubernetes_own_schemas_take_it(name: str) -> None:
    validate(OBJECTS[name], KUBERNETES, strict=True)


@pytest.mark.parametrize("name", OBJECTS)
def test_both_refuse_the_same_mistakes(name: str) -> None:
    """Each field of each object misspelt in turn: the schemas and our check (the client's models) both see it."""
    tried = 0
    for mistaken in misspelt(OBJECTS[name]):
        tried += 1
        with pytest.raises(ValidationError):
            validate(mistaken, KUBERNETES, strict=True)
        found = k8s.check(k8s.dump([mistaken]), "x.yaml")
        assert any("unknown field" in f.message for f in found), (mistaken, found)
    assert tried >= 2


FREE = {"labels", "annotations", "matchLabels", "data", "limits", "requests", "nodeSelector"}
"""Maps whose keys are anybody's."""


def misspelt(whole: Any) -> Iterator[Any]:
    """Copies of an object, each with one more field that there is not, in each mapping that has fixed fields."""
    def places(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        if isinstance(node, dict):
            if not path or (path[-1] not in FREE and (whole["kind"], *path) != ("Service", "spec", "selector")):
                yield path
                for key, value in node.items():
                    yield from places(value, (*path, key))
        elif isinstance(node, list):
            for at, value in enumerate(node):
                yield from places(value, (*path, at))

    for path in places(whole, ()):
        mistaken = node = copy.deepcopy(whole)
        for part in path:
            node = node[part]
        node["noSuchField"] = "x"
        yield mistaken


def test_ours_are_restricted() -> None:
    pods = [each["spec"]["template"]["spec"] for each in OBJECTS.values() if "template" in each.get("spec", {})]
    assert len(pods) == 4
    assert [restricted(pod) for pod in pods] == [[]] * 4


def test_the_job_is_what_the_design_says() -> None:
    made = a_job()
    spec, pod = made["spec"], made["spec"]["template"]["spec"]
    assert made["metadata"]["name"] == job_name("ab" * 32) == "retrain-" + made["metadata"]["name"][8:]
    assert len(made["metadata"]["name"]) == len("retrain-") + 16
    assert (spec["activeDeadlineSeconds"], spec["podReplacementPolicy"]) == (600, "Failed")
    assert {rule["action"] for rule in spec["podFailurePolicy"]["rules"]} == {"Ignore", "FailJob"}
    assert pod["containers"][0]["resources"]["limits"] == pod["containers"][0]["resources"]["requests"] == {
        "cpu": "1500m", "memory": "3000Mi", "nvidia.com/gpu": "1"}
    assert pod["automountServiceAccountToken"] is False
    assert json.loads(made["spec"]["template"]["metadata"]["annotations"]["headrace/request"])["id"] == "ab" * 32


@pytest.mark.parametrize(("model", "value"), [("flight-delay", "flight-delay"), ("späte Flüge!", "sp-te-Fl-ge"),
                                              ("-" * 70 + "x", ""), ("m" * 80, "m" * 63)])
def test_a_model_of_any_name_makes_a_label(model: str, value: str) -> None:
    assert label(model) == value


# ── the dispatcher against the stand-in ──────────────────────────────────────────────────────────────────────────────


def test_one_trigger_is_one_job(there: Cluster, make: Any) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: make().submit(request(), Resources()), range(16)))
    assert len(there.jobs) == 1
    assert {status.run for status in found} == set(there.jobs) == {job_name("ab" * 32)}
    assert {status.state for status in found} == {"queued"}
    assert there.jobs[job_name("ab" * 32)]["metadata"]["annotations"][TRIGGER] == "ab" * 32


def test_a_repeat_does_not_even_try(there: Cluster, make: Any) -> None:
    make().submit(request(), Resources())
    make().submit(request(), Resources())
    assert there.created() == [job_name("ab" * 32)]  # the second met 409 in its dry run


def test_from_queued_to_its_result(there: Cluster, make: Any) -> None:
    kubernetes, name = make(), job_name("ab" * 32)
    assert kubernetes.poll("ab" * 32, None).state == "unknown"
    run = kubernetes.submit(request(), Resources()).run
    assert run == name
    there.jobs[name]["status"] = {"active": 1, "ready": 1}
    assert kubernetes.poll("ab" * 32, run).state == "running"
    there.finish(name, COMPLETE, message=json.dumps({"mlflow_run": "m1", "version": "7", "metrics": {"auc": 0.7}}))
    status = kubernetes.poll("ab" * 32, run)
    assert (status.state, status.result["version"], status.result["mlflow_run"]) == ("succeeded", "7", "m1")
    told = {each["name"]: each["value"] for each in
            there.jobs[name]["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert told["HEADRACE_IMAGE_DIGEST"] == "sha256:" + "a1" * 32
    assert kubernetes.submit(request(), Resources()).state == "succeeded"


def test_without_the_right_to_list_pods_the_result_is_elsewhere(there: Cluster, make: Any) -> None:
    kubernetes = make()
    kubernetes.submit(request(), Resources())
    there.finish(job_name("ab" * 32), COMPLETE, message="{}")
    there.denied.add("pods")
    status = kubernetes.poll("ab" * 32, None)
    assert (status.state, status.result) == ("succeeded", None)
    assert "termination message" in status.reason


def test_a_failure_says_why(there: Cluster, make: Any) -> None:
    kubernetes = make()
    kubernetes.submit(request(), Resources())
    there.finish(job_name("ab" * 32), {"type": "Failed", "status": "True", "reason": "DeadlineExceeded",
                                       "message": "Job was active longer than specified deadline"}, exit_code=137,
                 message="Traceback: the last lines of its log")
    status = kubernetes.poll("ab" * 32, None)
    assert status.state == "failed"
    assert "DeadlineExceeded" in status.reason
    assert "last lines" in status.reason


@pytest.mark.parametrize("fault", ["500", "500 done", "cut", "slow"])
def test_whatever_becomes_of_an_answer_there_is_one_job(there: Cluster, make: Any, fault: str) -> None:
    """Done or not: GET decides, and what is undone is Retriable, and done the next time."""
    there.faults.append(("POST", False, fault))
    kubernetes = make(timeout_s=5.0 if fault == "slow" else 20.0)
    try:
        status = kubernetes.submit(request(), Resources())
    except Retriable:
        assert fault == "500"
        status = kubernetes.submit(request(), Resources())
    assert (status.state, list(there.jobs)) == ("queued", [job_name("ab" * 32)])
    assert len(there.created()) == (2 if fault == "500" else 1)


def test_when_get_fails_too_nothing_is_claimed(there: Cluster, make: Any) -> None:
    there.faults += [("POST", False, "500 done"), ("GET", False, "500")]
    with pytest.raises(Retriable):
        make().submit(request(), Resources())
    assert make().submit(request(), Resources()).state == "queued"
    assert len(there.created()) == 1


def test_a_warning_is_an_error_and_leaves_no_job(there: Cluster, make: Any) -> None:
    there.warnings.append('would violate PodSecurity "restricted:latest": a \\ b')
    with pytest.raises(Refused, match=r'PodSecurity "restricted:latest": a \\ b'):
        make().submit(request(), Resources())
    assert there.created() == []  # the dry run was warned
    assert make(warnings="pass").submit(request(), Resources()).state == "queued"


def test_a_warning_that_comes_late_takes_the_job_away(there: Cluster, make: Any) -> None:
    """The dry run passes over the warning here, as when the namespace's policy changes between the two."""
    kubernetes = make()
    create = kubernetes._create

    def changing(body: Any, *, dry_run: bool) -> bool:
        there.warnings[:] = [] if dry_run else ["late"]
        return bool(create(body, dry_run=dry_run))

    kubernetes._create = changing
    with pytest.raises(Refused, match="late"):
        kubernetes.submit(request(), Resources())
    assert there.jobs == {}
    there.denied.add("DELETE")
    with pytest.raises(Refused, match="still there"):
        kubernetes.submit(request(), Resources())


def test_pod_security_takes_ours(there: Cluster, make: Any) -> None:
    there.pod_security = True
    assert make().submit(request(), Resources(gpu=1)).state == "queued"


def test_a_job_of_that_name_that_is_not_ours(there: Cluster, make: Any) -> None:
    there.jobs[job_name("ab" * 32)] = {"metadata": {"name": job_name("ab" * 32)}, "spec": {}}
    for act in (lambda k: k.submit(request(), Resources()), lambda k: k.poll("ab" * 32, None)):
        with pytest.raises(Refused, match="not this trigger's"):
            act(make())


def test_what_is_refused_and_what_is_tried_again(there: Cluster, make: Any) -> None:
    with pytest.raises(Refused, match="by digest"):
        make(image="headrace:latest").submit(request(), Resources())
    with pytest.raises(Refused, match="bytes"):
        make().submit(request(reason="x" * 300_000), Resources())
    there.faults.append(("POST", True, "403 quota"))
    with pytest.raises(Retriable, match="quota"):
        make().submit(request(), Resources())
    there.faults.append(("POST", True, "429"))
    with pytest.raises(Retriable) as busy:
        make().submit(request(), Resources())
    assert busy.value.retry_after_s == 7
    there.denied.add("POST")
    with pytest.raises(Refused, match="403"):
        make().submit(request(), Resources())
    assert there.jobs == {}
    with pytest.raises(Retriable, match="NewConnectionError"):
        make(host="http://127.0.0.1:9").submit(request(), Resources())


def test_a_wrong_token_may_be_mended(there: Cluster, make: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    with pytest.raises(Retriable, match="401"):
        make().submit(request(), Resources())


def test_cancel_is_idempotent(there: Cluster, make: Any) -> None:
    kubernetes = make()
    kubernetes.submit(request(), Resources())
    kubernetes.cancel("ab" * 32, None)
    kubernetes.cancel("ab" * 32, None)
    assert there.jobs == {}
