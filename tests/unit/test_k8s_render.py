"""`headrace k8s`: manifests of a flow, what is refused, what `check` finds, and every control of `restricted`."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
import yaml
from typer.testing import CliRunner

from headrace import k8s, plan
from headrace.cli import k8s as commands
from headrace.cli import loop as loop_commands
from headrace.cli import run as run_commands
from headrace.errors import UserError
from headrace.k8s import Options
from headrace.loop.dispatch import inpod
from headrace.loop.dispatch.base import Resources
from headrace.loop.dispatch.pods import container_security, limits, pod_security, restricted

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
FLOW = ROOT / "flows" / "departures.yaml"
LOOP = ROOT / "flows" / "flight-delay.yaml"  # it declares `models`
IMAGE = "registry.example/headrace@sha256:" + "a1" * 32


def rendered(flow: Path = FLOW, **options: Any) -> dict[str, dict[str, Any]]:
    """kind/name → object"""
    made = k8s.manifests(plan.load(flow), Options(**{"image": IMAGE, **options}))
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in made}


def run(*arguments: str) -> Any:
    app = typer.Typer()
    commands.register(app)
    return CliRunner().invoke(app, ["k8s", *arguments])


# ── render ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_there_is() -> None:
    kinds = [name.partition("/")[0] for name in rendered()]
    assert kinds == ["ServiceAccount", "ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "ScaledObject"]
    plain = rendered(LOOP)
    more = [name for name in rendered(LOOP, loop=True, network_policy=True, namespace="n") if name not in plain]
    assert more == ["ServiceAccount/flight-delay-loop", "Role/flight-delay-loop", "RoleBinding/flight-delay-loop",
                    "Deployment/flight-delay-loop", "NetworkPolicy/flight-delay"]


def test_the_same_bytes_each_time() -> None:
    texts = {k8s.dump(k8s.manifests(plan.load(FLOW), Options(image=IMAGE))) for _ in range(3)}
    assert len(texts) == 1


def test_all_of_it_passes_our_own_check() -> None:
    for options in ({}, {"stateful": True, "keda": False},
                    {"flow": LOOP, "loop": True, "network_policy": True, "namespace": "n"},
                    {"in_image": True, "secret": "kafka", "keda_trigger": "apache-kafka"}):
        assert k8s.check(k8s.dump(rendered(**options).values()), "x.yaml") == []


def test_yaml_comes_back_as_it_was() -> None:
    """The files in the map, with their quotes, colons and line ends, above all."""
    made = list(rendered().values())
    assert [document.data for document in k8s.documents(k8s.dump(made), "x.yaml")] == made
    assert rendered()["ConfigMap/" + _map(rendered())]["data"]["flows.departures.yaml"] == FLOW.read_text()


def _map(objects: dict[str, Any]) -> str:
    return next(name.partition("/")[2] for name in objects if name.startswith("ConfigMap/"))


def test_awkward_texts_survive() -> None:
    texts = ["", "yes", "Off", "n", "0o17", "017", "-017", "1:30", "-1:30", "1_000", ".5", "+.inf", "=", "a: b", "- x",
             "tail \n", "tab\there", "ü “x”", "#no", "null", "~", "a\n\n b\n", "\n", "1e3", "12:30:45", "a\r\nb", "'",
             '"', "2013-01-01", "<<", "!x", "&x", "*x", "{x", "  a\nb", "\na"]
    made = [{"kind": "ConfigMap", "data": {f"k{at}": text for at, text in enumerate(texts)}}]
    assert k8s.documents(k8s.dump(made), "x.yaml")[0].data == made[0]
    assert yaml.safe_load(k8s.dump(made)) == made[0]  # of YAML 1.1, as kubectl reads


def test_a_changed_flow_is_a_new_map_and_the_pods_roll(tmp_path: Path) -> None:
    names = []
    for told in ("one", "two"):
        for folder in ("flows", "schemas"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for file in (ROOT / "schemas").glob("departure.*"):
            (tmp_path / "schemas" / file.name).write_text(file.read_text())
        (tmp_path / "flows" / "departures.yaml").write_text(FLOW.read_text() + f"# {told}\n")
        objects = {each["kind"]: each for each in k8s.manifests(
            plan.load(tmp_path / "flows" / "departures.yaml"), Options(image=IMAGE))}
        volumes = objects["Deployment"]["spec"]["template"]["spec"]["volumes"]
        used = {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}
        names.append(objects["ConfigMap"]["metadata"]["name"])
        assert used == {names[-1]}
        assert objects["ConfigMap"]["immutable"] is True
    assert names[0] != names[1]


def test_a_processor_of_the_projects_own_goes_along(tmp_path: Path) -> None:
    for folder in ("flows", "schemas", "processors"):
        (tmp_path / folder).mkdir()
    for file in (ROOT / "schemas").glob("departure.*"):
        (tmp_path / "schemas" / file.name).write_text(file.read_text())
    (tmp_path / "processors" / "mine.py").write_text((ROOT / "processors" / "derive.py").read_text())
    (tmp_path / "processors" / "unused.py").write_text("raise SystemExit\n")
    (tmp_path / "flows" / "departures.yaml").write_text(FLOW.read_text().replace("{derive:", "{mine:"))
    data = next(each["data"] for each in k8s.manifests(plan.load(tmp_path / "flows" / "departures.yaml"),
                                                       Options(image=IMAGE)) if each["kind"] == "ConfigMap")
    assert [key for key in data if key.startswith("processors")] == ["processors.mine.py"]


def test_one_workload_never_runs_more_than_its_partitions_can_feed() -> None:
    """A surge pod would wait for a partition for ever, unready: the update would hang."""
    deployment = rendered()["Deployment/departures"]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert rendered()["ScaledObject/departures"]["spec"]["maxReplicaCount"] == 4  # its topic's partitions
    assert rendered(replicas_max=9)["ScaledObject/departures"]["spec"]["maxReplicaCount"] == 4
    assert rendered(replicas_max=2, replicas=3)["ScaledObject/departures"]["spec"]["minReplicaCount"] == 2


def test_either_the_autoscaler_or_the_manifest_says_how_many() -> None:
    assert "replicas" not in rendered()["Deployment/departures"]["spec"]
    assert rendered(keda=False, replicas=3)["Deployment/departures"]["spec"]["replicas"] == 3


def test_it_scales_what_it_rendered_on_the_group_that_it_runs() -> None:
    for kind in ("Deployment", "StatefulSet"):
        spec = rendered(stateful=kind == "StatefulSet")["ScaledObject/departures"]["spec"]
        assert spec["scaleTargetRef"]["kind"] == kind
    metadata = spec["triggers"][0]["metadata"]
    assert metadata["consumerGroup"] == "headrace.departures"
    assert (metadata["topic"], metadata["allowIdleConsumers"]) == ("flights.departures", "false")


def test_the_arguments_are_ones_that_headrace_takes() -> None:
    objects = rendered(LOOP, loop=True, namespace="n")
    app = typer.Typer()
    for group in (run_commands, loop_commands):
        group.register(app)
    taken: Any = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, command in (("flight-delay", taken["run"]), ("flight-delay-loop", taken["loop"].commands["run"])):
        arguments = objects[f"Deployment/{name}"]["spec"]["template"]["spec"]["containers"][0]["args"]
        assert arguments[:-5] in (["run"], ["loop", "run"])
        assert command.make_context("run", arguments[arguments.index("run") + 1:]).params["http"] == 8080


def test_the_loop_may_do_what_it_must_and_no_more() -> None:
    objects = rendered(LOOP, loop=True, namespace="n")
    rules = objects["Role/flight-delay-loop"]["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in rules] == [
        (["jobs"], ["create", "get", "list", "watch"]), (["pods"], ["list"])]
    more = rendered(LOOP, loop=True, namespace="n", may_cancel=True)["Role/flight-delay-loop"]["rules"]
    assert "delete" in more[0]["verbs"]
    worker, loop = (objects[f"Deployment/{name}"]["spec"]["template"]["spec"]
                    for name in ("flight-delay", "flight-delay-loop"))
    assert (worker["automountServiceAccountToken"], loop["automountServiceAccountToken"]) == (False, True)
    assert objects["Deployment/flight-delay-loop"]["spec"]["replicas"] == 1
    assert loop["containers"][0]["resources"]["limits"]["memory"] == "3072Mi"
    assert [port["containerPort"] for port in loop["containers"][0]["ports"]] == [8080, 8081, 8082, 8083]


@pytest.mark.parametrize(("options", "wanted"), [
    ({"image": "headrace:latest"}, "tag"), ({"image": "headrace@sha256:abc"}, "tag"),
    ({"flow": LOOP, "loop": True}, "--namespace"), ({"loop": True, "namespace": "n"}, "declares no `models`")])
def test_what_is_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        rendered(**options)


@pytest.mark.parametrize(("flow", "name"), [("Late_Flights", "late-flights"), ("a", "a"), ("a__b-", "a-b")])
def test_names(flow: str, name: str) -> None:
    from headrace.k8s.render import object_name

    assert object_name(flow) == name
    with pytest.raises(UserError):
        object_name("f" * 41)


def test_the_command(tmp_path: Path) -> None:
    done = run("render", str(FLOW), "--image", IMAGE, "--out", str(tmp_path), "--namespace", "flights", "--stateful")
    assert (done.exit_code, [file.name for file in tmp_path.iterdir()]) == (0, ["departures.yaml"])
    assert run("check", str(tmp_path / "departures.yaml")).exit_code == 0
    lines = run("render", str(FLOW), "--image", IMAGE, "--json").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines][:2] == ["ServiceAccount", "ConfigMap"]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((tmp_path / "departures.yaml").read_text().replace("allowPrivilegeEscalation: false", "x: y"))
    told = run("check", str(wrong), "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["errors"] == 1


# ── check ────────────────────────────────────────────────────────────────────────────────────────────────────────────

JOB = f"""\
apiVersion: batch/v1
kind: Job
metadata: {{name: j}}
spec:
  podReplacementPolicy: Failed
  podFailurePolicy:
    rules:
      - {{action: FailJob, onExitCodes: {{containerName: c, operator: In, values: [1]}}}}
  template:
    spec:
      restartPolicy: Never
      securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
        - name: c
          image: {IMAGE}
          securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
"""


@pytest.mark.parametrize(("old", "new", "line", "wanted"), [
    ("kind: Job", "kind: Jab", 2, "there is no Jab in batch/v1"),
    ("batch/v1", "apps/v1", 2, "there is no Job in apps/v1"),
    ("{name: j}", "{name: J_}", 3, "is no name"),
    ("Policy: Failed", "Polici: Failed", 5, "spec.podReplacementPolici: unknown field"),
    ("values: [1]", "values: [one]", 8, "valid integer"),
    ("values: [1]", "values: [0]", 8, "exit code 0"),
    ("containerName: c", "containerName: d", 8, "no container “d”"),
    ("Policy: Never", "Policy: Always", 9, "must be Never or OnFailure"),
    ("Policy: Never", "Policy: OnFailure", 6, "needs restartPolicy: Never"),
    ("name: c\n", "name: c\n          container_port: 3\n", 15, "unknown field"),
    ("image: ", "imagePullPolicy: Always\n          image_pull_policy: x\n          image: ", 16, "unknown field"),
    (IMAGE, "headrace:1", 10, "not named by digest"),
    ("runAsNonRoot: true, ", "", 10, "runAsNonRoot"),
    ("metadata: {name: j}\n", "metadata: {name: j}\nmetadata: {name: k}\n", 4, "twice"),
    ("restartPolicy: Never", "restartPolicy: Never\n      volumes: [{name: a, emptyDir: {}}]", None, ""),
    ("image: ", "volumeMounts: [{name: nix, mountPath: /x}]\n          image: ", 10, "no volume of the pod"),
])
def test_what_check_finds(old: str, new: str, line: int | None, wanted: str) -> None:
    assert k8s.check(JOB, "j.yaml") == []
    assert old in JOB
    found = k8s.check(f"# a comment\n---\n{JOB.replace(old, new, 1)}", "j.yaml")
    if line is None:
        assert found == []
    else:
        assert [(f.line, True) for f in found if wanted in f.message] == [(line + 2, True)], found


def test_several_documents_know_each_other() -> None:
    objects = rendered()
    objects["ScaledObject/departures"]["spec"]["scaleTargetRef"]["name"] = "gone"
    (found,) = k8s.check(k8s.dump(objects.values()), "x.yaml")
    assert "scales gone" in found.message
    objects = rendered()
    objects["Deployment/departures"]["spec"]["replicas"] = 2
    (found,) = k8s.check(k8s.dump(objects.values()), "x.yaml")
    assert "autoscaler" in found.message


@pytest.mark.parametrize(("change", "wanted"), [
    ({"lagThreshold": 5}, "valid string"), ({"lagThreshold": "0"}, "pattern"), ({"lagTreshold": "5"}, "unknown field"),
    ({"allowIdleConsumers": "no"}, "'true'"), ({"bootstrapServersFromEnv": "X"}, "bootstrapServers"),
    ({"limitToPartitionsWithLag": "true", "allowIdleConsumers": "true"}, "exclude each other")])
def test_a_scaled_object_that_keda_would_not_take(change: dict[str, Any], wanted: str) -> None:
    each = rendered()["ScaledObject/departures"]
    each["spec"]["triggers"][0]["metadata"] |= change
    assert any(wanted in found.message for found in k8s.check(k8s.dump([each]), "x.yaml"))


def test_what_is_no_manifest() -> None:
    for text, wanted in (("", "has no manifest"), ("a: b", "apiVersion"), ("- x", "apiVersion"), ("{", "not YAML")):
        assert wanted in k8s.check(text, "x.yaml")[0].message


# ── Pod Security, level restricted: a good pod and a bad one for each control ────────────────────────────────────────

GOOD: dict[str, Any] = {
    "securityContext": pod_security(),
    "containers": [{"name": "c", "image": "i", "securityContext": container_security()}]}


def test_good_pods() -> None:
    assert restricted(GOOD) == []
    context = {"runAsNonRoot": True, "seccompProfile": {"type": "Localhost", "localhostProfile": "x"}}
    by_container = {"containers": [{"name": "c", "securityContext": {**container_security(), **context}}]}
    assert restricted(by_container) == []
    assert restricted({**GOOD, "hostUsers": False, "securityContext": {
        "runAsUser": 0, "runAsNonRoot": False, "seccompProfile": {"type": "RuntimeDefault"}}}) == []
    windows = {"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": True}, "containers": [{"name": "c"}]}
    assert restricted(windows) == []
    assert restricted(GOOD, {"container.apparmor.security.beta.kubernetes.io/c": "localhost/x", "other": "y"}) == []


POD = {
    "hostNetwork": True, "hostPID": True, "hostIPC": True,
    "securityContext.runAsNonRoot": False, "securityContext.runAsUser": 0,
    "securityContext.seccompProfile": {"type": "Unconfined"}, "securityContext.appArmorProfile": {"type": "Unconfined"},
    "securityContext.seLinuxOptions": {"type": "spc_t"}, "securityContext.windowsOptions": {"hostProcess": True},
    "securityContext.sysctls": [{"name": "kernel.msgmax", "value": "1"}],
    "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}
CONTAINER = {
    "securityContext.privileged": True, "securityContext.allowPrivilegeEscalation": True,
    "securityContext.capabilities": {"drop": ["NET_RAW"]},
    "securityContext.capabilities.add": ["SYS_ADMIN"], "securityContext.runAsNonRoot": False,
    "securityContext.runAsUser": 0, "securityContext.seccompProfile": {"type": "Unconfined"},
    "securityContext.appArmorProfile": {"type": "Unconfined"}, "securityContext.seLinuxOptions": {"user": "u"},
    "securityContext.procMount": "Unmasked", "securityContext.windowsOptions": {"hostProcess": True},
    "ports": [{"containerPort": 80, "hostPort": 80}],
    "livenessProbe": {"httpGet": {"host": "10.0.0.1", "port": 80}},
    "lifecycle": {"preStop": {"tcpSocket": {"host": "10.0.0.1", "port": 80}}}}


def with_(pod: dict[str, Any], path: str, value: Any, *, container: str | None = None) -> dict[str, Any]:
    changed = copy.deepcopy(pod)
    node = changed
    if container:
        node = copy.deepcopy(changed["containers"][0])
        changed[container] = [*changed["containers"], node] if container == "containers" else [node]
    *parents, last = path.split(".")
    for name in parents:
        node = node.setdefault(name, {})
    node[last] = value
    return changed


@pytest.mark.parametrize("path", POD)
def test_bad_pods(path: str) -> None:
    assert restricted(with_(GOOD, path, POD[path])) != []


@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
@pytest.mark.parametrize("path", CONTAINER)
def test_bad_containers_of_every_kind(path: str, kind: str) -> None:
    assert len(restricted(with_(GOOD, path, CONTAINER[path], container=kind))) == 1


def test_what_must_be_said_and_is_not() -> None:
    for path in ("securityContext.runAsNonRoot", "securityContext.seccompProfile"):
        assert len(restricted(with_(GOOD, path, None))) == 1
    for path in ("allowPrivilegeEscalation", "capabilities"):
        assert len(restricted(with_(GOOD, f"securityContext.{path}", None, container="containers"))) == 1
    assert restricted(GOOD, {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}) != []


def test_limits_are_requests() -> None:
    assert limits(Resources()) == {}
    assert limits(Resources(cpu=0.5, memory_mb=512, gpu=2)) == {
        what: {"cpu": "500m", "memory": "512Mi", "nvidia.com/gpu": "2"} for what in ("requests", "limits")}


# ── inside the pod ───────────────────────────────────────────────────────────────────────────────────────────────────

TRAINER = """
import argparse, json, os, pathlib, sys, time
asked = argparse.ArgumentParser()
asked.add_argument("--request"); asked.add_argument("--result")
asked = asked.parse_args()
told = json.loads(pathlib.Path(asked.request).read_text())
time.sleep(told.get("sleep", 0))
pathlib.Path(asked.result).write_text(json.dumps({"mlflow_run": "m", "at": os.environ.get("MLFLOW_TRACKING_URI"),
                                                  **told}))
sys.exit(told.get("code", 0))
"""


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "toy_trainer.py").write_text(TRAINER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def in_pod(folder: Path, request: str, *more: str) -> tuple[int, Any]:
    target = folder / "termination-log"
    target.unlink(missing_ok=True)
    code = inpod.main(["--request", request, "--result", str(target), "--module", "toy_trainer", *more])
    return code, json.loads(target.read_text()) if target.exists() else None


def test_the_trainers_result_and_exit_code_come_out(trainer: Path) -> None:
    (trainer / "request.json").write_text('{"code": 3, "reason": "no broker"}')
    code, result = in_pod(trainer, str(trainer / "request.json"))
    assert (code, result["reason"]) == (3, "no broker")
    code, result = in_pod(trainer, '{"a": 1}', "--mlflow", "http://m", "--bootstrap", "")
    assert (code, result) == (0, {"mlflow_run": "m", "at": "http://m", "a": 1})


def test_the_real_trainer_refuses_what_is_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2: a Job's podFailurePolicy does not try that again."""
    monkeypatch.chdir(tmp_path)
    assert inpod.main(["--request", '{"id": "x"}', "--result", str(tmp_path / "out")]) == 2


def test_a_training_that_takes_too_long_is_ended(trainer: Path) -> None:
    assert in_pod(trainer, '{"sleep": 60}', "--seconds-max", "0.5") == (3, None)


def test_a_pod_that_is_told_to_stop_stops(trainer: Path) -> None:
    """The training ends with it, and its exit code is that of a signal, which a Job counts and tries again."""
    asked = [sys.executable, "-m", "headrace.loop.dispatch.inpod", "--request", '{"sleep": 60}', "--result",
             str(trainer / "out"), "--module", "toy_trainer"]
    process = subprocess.Popen(asked)
    children = []
    while not children:
        time.sleep(0.05)
        children = psutil.Process(process.pid).children()
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not psutil.pid_exists(children[0].pid)


def test_a_long_result_keeps_what_matters() -> None:
    result = {"spec": "s" * 3000, "ranges": ["r" * 900], "metrics": {f"m{at}": 0.5 for at in range(300)},
              "mlflow_run": "m", "version": "7", "cpu_s": 1.0}
    text = inpod.shortened(result, 4096)
    assert len(text.encode()) <= 4096
    assert json.loads(text) == {"mlflow_run": "m", "version": "7", "cpu_s": 1.0, "metrics": result["metrics"],
                                "left_out": ["spec", "ranges"]}
    assert json.loads(inpod.shortened(result, 80)) == {"left_out": ["spec", "ranges", "metrics", "cpu_s"],
                                                       "mlflow_run": "m", "version": "7"}
    assert json.loads(inpod.shortened(result, 10**6)) == result
