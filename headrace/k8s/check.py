"""Manifests checked before a cluster sees them, at least as strictly as its API server would, with lines.

    strict      every field is one that the API of the pinned client knows, with the right type; no field twice
    restricted  pods would be let in under Pod Security level `restricted`
    pinned      images are named by digest                                           (a warning)
    sense       what types cannot say: selectors match their pods, Jobs end, ScaledObjects name what is there

Types come from the models of the `kubernetes` client, which are generated of the API's own OpenAPI description, and for
KEDA's ScaledObject from `keda.py`. What only a running cluster knows (quotas, admission webhooks, what is installed)
nobody checks here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from headrace.errors import ConfigError, Finding, MissingExtra
from headrace.k8s.keda import ScaledObject
from headrace.loop.dispatch.pods import by_digest, containers, restricted
from headrace.marked import Marked, parse

PODS: Mapping[str, tuple[str, ...]] = {
    "Pod": (), "CronJob": ("spec", "jobTemplate", "spec", "template"),
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"), ("spec", "template"))}
"""Kind → where its pod is."""
DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
DOTTED = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
"""Their names may have colons and more."""
Place = tuple[str | int, ...]


def documents(text: str, file: str) -> list[Marked]:
    """The documents of a YAML stream, each with the lines it has in the file. Raises ConfigError."""
    found: list[Marked] = []
    lines = text.splitlines()
    starts = [0, *(at + 1 for at, line in enumerate(lines) if re.fullmatch(r"---(\s.*)?", line))]
    for start, end in zip(starts, [*starts[1:], len(lines) + 1], strict=True):
        chunk = lines[start:end - 1] if end <= len(lines) else lines[start:]
        if any(line.strip() and not line.lstrip().startswith("#") for line in chunk):
            found.append(parse("\n" * start + "\n".join(chunk) + "\n", file))
    return found


def check(text: str, file: str) -> list[Finding]:
    """Everything wrong with the manifests in `text`, by line. Raises MissingExtra without the client's models."""
    try:
        found = documents(text, file)
    except ConfigError as error:
        return list(error.findings)
    if not found:
        return [Finding(file, 0, "has no manifest")]
    findings = [finding for each in found for finding in _one(each)]
    return sorted({*findings, *_together(found)})


def _one(document: Marked) -> Iterator[Finding]:
    yield from document.findings
    data = document.data
    if not isinstance(data, dict) or not all(isinstance(data.get(key), str) for key in ("apiVersion", "kind")):
        yield document.finding((), "is no Kubernetes object: it has no apiVersion and kind")
        return
    model = _model(data["apiVersion"], data["kind"])
    if model is None:
        yield document.finding(("kind",), f"there is no {data['kind']} in {data['apiVersion']} that is known here")
        return
    wrong = list(_strict(model, data))
    yield from (document.finding(place, message) for place, message in wrong)
    if not wrong:
        yield from (document.finding(place, message) for place, message in _sense(data))
        yield from _pods(document)


# ── strict ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _model(api_version: str, kind: str) -> type[BaseModel] | None:
    """The model of what `create` takes in that group and version."""
    if (api_version, kind) == ("keda.sh/v1alpha1", "ScaledObject"):
        return ScaledObject
    try:
        from kubernetes import client
    except ModuleNotFoundError as error:
        raise MissingExtra("kubernetes", "checking Kubernetes manifests") from error
    group, _, version = api_version.rpartition("/")
    group = "".join(part.capitalize() for part in group.removesuffix(".k8s.io").split(".")) or "Core"
    api = getattr(client, f"{group}{version.capitalize()}Api", None)
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()
    create = getattr(api, f"create_namespaced_{snake}", None) or getattr(api, f"create_{snake}", None)
    if create is None:
        return None
    found = inspect.signature(create, eval_str=True).parameters["body"].annotation
    assert isinstance(found, type)
    assert issubclass(found, BaseModel)
    return found


def _strict(model: type[BaseModel], data: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    try:
        read = model.model_validate(data)
    except ValidationError as error:
        for each in error.errors():
            place = tuple(part for part in each["loc"] if isinstance(part, int) or not part.startswith("function-"))
            what = "unknown field" if each["type"] == "extra_forbidden" else each["msg"]
            yield place, f"{_dotted(place)}: {what}"
        return
    # The models also take a field by its Python name (container_port); written back, it has its name in the API.
    yield from _differences(data, read.model_dump(by_alias=True, exclude_unset=True), ())


def _differences(ours: Any, theirs: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key, value in ours.items():
            if key in theirs:
                yield from _differences(value, theirs[key], (*place, key))
            else:
                yield (*place, key), f"{_dotted((*place, key))}: unknown field"
    elif isinstance(ours, list) and isinstance(theirs, list):
        for at, (mine, read) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(mine, read, (*place, at))


def _dotted(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


# ── sense ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pod_of(data: Mapping[str, Any]) -> tuple[Place, Mapping[str, Any]] | None:
    """(where its pod, or pod template, is; it), for kinds that have one."""
    if data["kind"] not in PODS:
        return None
    place = PODS[data["kind"]]
    node: Any = data
    for part in place:
        node = (node or {}).get(part)
    return place, node or {}


def _pods(document: Marked) -> Iterator[Finding]:
    if not (found := pod_of(document.data)):
        return
    place, pod = found
    spec = pod.get("spec") or {}
    for problem in restricted(spec, (pod.get("metadata") or {}).get("annotations")):
        yield document.finding((*place, "spec"), f"not `restricted`: {problem}")
    for who, container in containers(spec):
        if not by_digest(container.get("image") or ""):
            yield document.finding((*place, "spec"), f"{who}: the image {container.get('image')} is not named by "
                                   "digest (name@sha256:…)", "warning")


def _sense(data: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    name = (data.get("metadata") or {}).get("name")
    if data["kind"] not in DOTTED and not (isinstance(name, str) and len(name) <= 253 and DNS_NAME.fullmatch(name)):
        yield ("metadata",), f"metadata.name: {name!r} is no name of an object: small letters, digits, “-” and “.”"
    found = pod_of(data)
    if found is None:
        return
    place, pod = found
    labels = (pod.get("metadata") or {}).get("labels") or {}
    wanted = ((data.get("spec") or {}).get("selector") or {}).get("matchLabels") or {} if place else {}
    if missing := {k: v for k, v in wanted.items() if labels.get(k) != v}:
        yield ("spec", "selector"), f"spec.selector asks for {missing}, which its own pods do not have"
    yield from _mounts(place, pod.get("spec") or {})
    if data["kind"] == "Job":
        yield from _job(data["spec"], pod.get("spec") or {})


def _mounts(place: Place, spec: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    known = {volume["name"] for volume in spec.get("volumes") or ()}
    for who, container in containers(spec):
        for mount in container.get("volumeMounts") or ():
            if mount["name"] not in known:
                yield (*place, "spec"), f"{who} mounts “{mount['name']}”, which is no volume of the pod"


def _job(spec: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """What the API server demands of Jobs beyond their types."""
    policy = pod.get("restartPolicy")
    if policy not in ("Never", "OnFailure"):
        yield ("spec", "template"), "spec.template.spec.restartPolicy: a Job's must be Never or OnFailure"
    if spec.get("podFailurePolicy") and policy != "Never":
        yield ("spec", "podFailurePolicy"), "spec.podFailurePolicy needs restartPolicy: Never"
    if spec.get("podFailurePolicy") and spec.get("podReplacementPolicy") not in (None, "Failed"):
        yield ("spec", "podReplacementPolicy"), "spec.podReplacementPolicy must be Failed beside a podFailurePolicy"
    names = {container.get("name") for _, container in containers(pod)}
    for at, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or ()):
        codes = rule.get("onExitCodes")
        if bool(codes) == bool(rule.get("onPodConditions")):
            yield ("spec", "podFailurePolicy", "rules", at), "a rule has either onExitCodes or onPodConditions"
        if codes and codes.get("containerName") not in (None, *names):
            yield ("spec", "podFailurePolicy", "rules", at), f"there is no container “{codes['containerName']}”"
        if codes and codes.get("operator") == "In" and 0 in (codes.get("values") or ()):
            yield ("spec", "podFailurePolicy", "rules", at), "exit code 0 is no failure"


def _together(found: list[Marked]) -> Iterator[Finding]:
    """What several objects of one file say of each other."""
    there = {(d.data.get("kind"), (d.data.get("metadata") or {}).get("name")): d for d in found
             if isinstance(d.data, dict)}
    workloads = {"Deployment", "StatefulSet"} & {str(kind) for kind, _ in there}
    for (kind, name), document in there.items():
        target = ((document.data.get("spec") or {}).get("scaleTargetRef") or {}) if kind == "ScaledObject" else {}
        if not target or not workloads:
            continue
        pointed = there.get((target.get("kind", "Deployment"), target.get("name")))
        if pointed is None:
            yield document.finding(("spec", "scaleTargetRef"), f"{name} scales {target.get('name')}, which is not here")
        elif (pointed.data.get("spec") or {}).get("replicas") is not None:
            yield pointed.finding(("spec", "replicas"), "spec.replicas is the autoscaler's to set: leave it out, or "
                                  "every apply sets it back")
