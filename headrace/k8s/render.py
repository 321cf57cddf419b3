"""A flow's manifests for Kubernetes: made from its plan, the same bytes for the same flow, nothing sent anywhere.

    ServiceAccount, ConfigMap (the flow's files), Deployment or StatefulSet, Service (metrics), PodDisruptionBudget,
    ScaledObject (KEDA, on consumer lag)
    with loop:            a second Deployment of one replica, with a Role that may create Jobs
    with network policy:  who may speak to the pods, and to whom they may

What the pods find: the flow's files under /project (a read-only ConfigMap, or the image), `.headrace` and /tmp as
scratch, Kafka and the registry by HEADRACE_BOOTSTRAP and HEADRACE_REGISTRY.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from headrace.errors import UserError
from headrace.governed import PARTS
from headrace.loop.dispatch.base import Resources
from headrace.loop.dispatch.pods import by_digest, container_security, limits, pod_security
from headrace.plan import Plan

Manifest = dict[str, Any]
PORT = 8080
CONFIG_BYTES_MAX = 1_000_000  # of a ConfigMap; etcd takes 1.5 MB with all that is around it
STOP_S = 60  # SIGTERM finishes the batch in hand
FOLDERS = {"flows": ("*.yaml", "*.yml"), "schemas": ("*.avsc", "*.expectations.json"), "processors": ("*.py",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a rendering is made with. `replicas` is the number to run, with KEDA the least; `replicas_max` the most,
    by default a replica a partition. `secret` is a Secret with a `headrace.toml` (passwords, TLS)."""

    image: str
    allow_tags: bool = False
    namespace: str | None = None
    bootstrap: str = "kafka:9092"
    registry: str = "http://registry:8081"
    mlflow: str | None = None
    replicas: int = 1
    replicas_max: int | None = None
    resources: Resources = field(default_factory=lambda: Resources(cpu=1, memory_mb=1024))
    scratch_mb: int = 1024
    stateful: bool = False
    loop: bool = False
    loop_memory_mb: int = 3072
    in_image: bool = False
    secret: str | None = None
    keda: bool = True
    keda_trigger: str = "kafka"
    lag_threshold: int = 50_000
    network_policy: bool = False
    may_cancel: bool = False


def manifests(plan: Plan, options: Options) -> list[Manifest]:
    """The flow's objects, in an order in which they can be applied. Raises UserError for an image by tag, a name that
    Kubernetes does not take, and files too large for a ConfigMap."""
    if not (options.allow_tags or by_digest(options.image)):
        raise UserError(f"the image {options.image} is named by a tag, which may be another image tomorrow",
                        hint="name it by digest (name@sha256:…), or allow tags")
    if options.loop and not options.namespace:
        raise UserError("the loop's RoleBinding must name the namespace of its account", hint="say --namespace")
    if options.loop and not plan.spec.models:
        raise UserError(f"{plan.flow} declares no `models`, so it has no loop to run", hint="leave --loop out")
    name = object_name(plan.flow)
    files = {} if options.in_image else project_files(plan)
    config = _config_map(name, files) if files else None
    workload = _workload(plan, name, config, options)
    made = [_account(name), *([config] if config else []), workload, _service(name), _budget(name)]
    if options.keda:
        made.append(_scaled(plan, name, workload["kind"], options))
    if options.loop:
        made += _loop(plan, name, config, options)
    if options.network_policy:
        made.append(_network_policy(name, options))
    if options.namespace:
        for each in made:
            each["metadata"] = {"name": each["metadata"]["name"], "namespace": options.namespace, **each["metadata"]}
    return made


def object_name(flow: str) -> str:
    """The flow's name as a DNS label. Raises UserError when none comes of it."""
    name = re.sub(r"[^a-z0-9]+", "-", flow.lower()).strip("-")
    if not name or len(name) > 40 or not name[0].isalpha():  # suffixes of ours and of ReplicaSets make it longer
        raise UserError(f"“{flow}” makes no Kubernetes name: 1 to 40 letters, digits and “-”, a letter first")
    return name


def project_files(plan: Plan) -> Mapping[str, str]:
    """The text files the flow needs, by their path in the project: itself, all schemas and suites, and the processors
    of its own that it uses. headrace's own schemas and processors are in the image."""
    paths = {plan.path.resolve()}
    schemas = plan.project / "schemas"
    paths |= {path for pattern in FOLDERS["schemas"] for path in schemas.rglob(pattern)
              if path.relative_to(schemas).parts[0] != "control"}
    for step in plan.steps:
        home = Path(inspect.getfile(type(step.processor))).resolve()
        if home.parent == plan.project.resolve() / "processors" and not type(
                step.processor).__module__.startswith("headrace."):
            paths.add(home)
    project = plan.project.resolve()
    found = {path.resolve().relative_to(project).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)
             if path.resolve().is_relative_to(project)}
    if (size := sum(map(len, (text.encode() for text in found.values())))) > CONFIG_BYTES_MAX:
        raise UserError(f"the flow's files have {size:,} bytes; a ConfigMap takes {CONFIG_BYTES_MAX:,}",
                        hint="put the project into the image, and say --in-image")
    return dict(sorted(found.items()))


# ── the parts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _labels(name: str, component: str | None = None) -> dict[str, str]:
    return {"app.kubernetes.io/name": "headrace", "app.kubernetes.io/instance": name,
            **({"app.kubernetes.io/component": component} if component else {})}


def _object(api: str, kind: str, name: str, flow: str, component: str | None = None, **rest: Any) -> Manifest:
    labels = {**_labels(flow, component), "app.kubernetes.io/managed-by": "headrace"}
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "labels": labels}, **rest}


def _account(name: str) -> Manifest:
    return _object("v1", "ServiceAccount", name, name, automountServiceAccountToken=False)


def _key(path: str) -> str:
    """A ConfigMap's key has no slashes."""
    return path.replace("/", ".")


def _config_map(name: str, files: Mapping[str, str]) -> Manifest:
    """Named by its contents, so that a changed flow is a new map and the workload rolls."""
    told = hashlib.sha256("\0".join(part for item in files.items() for part in item).encode()).hexdigest()[:10]
    return _object("v1", "ConfigMap", f"{name}-files-{told}", name, immutable=True,
                   data={_key(path): text for path, text in files.items()})


def _volumes(config: Manifest | None, files: Mapping[str, str], options: Options) -> tuple[list[Any], list[Any]]:
    """(volumes, mounts): each folder of the project from the map, the secret's headrace.toml, and scratch."""
    volumes: list[Any] = [{"name": "state", "emptyDir": {"sizeLimit": f"{options.scratch_mb}Mi"}},
                          {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}]
    mounts: list[Any] = [{"name": "state", "mountPath": "/project/.headrace"}, {"name": "tmp", "mountPath": "/tmp"}]
    for folder in FOLDERS if config else ():
        items = [{"key": _key(path), "path": path.partition("/")[2]} for path in files if path.startswith(f"{folder}/")]
        if items and config:
            volumes.append({"name": folder, "configMap": {"name": config["metadata"]["name"], "items": items}})
            mounts.append({"name": folder, "mountPath": f"/project/{folder}", "readOnly": True})
    if options.secret:
        volumes.append({"name": "settings", "secret": {"secretName": options.secret, "defaultMode": 0o440}})
        mounts.append({"name": "settings", "mountPath": "/project/headrace.toml", "subPath": "headrace.toml",
                       "readOnly": True})
    return volumes, mounts


def _probe(path: str, port: str = "http", **rest: int) -> Manifest:
    return {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 5, **rest}


def _pod(plan: Plan, name: str, component: str, arguments: list[str], config: Manifest | None, options: Options,
         **more: Any) -> Manifest:
    """A hardened pod of one container that runs `headrace` with these arguments."""
    volumes, mounts = _volumes(config, project_files(plan) if config else {}, options)
    environment = {"HEADRACE_BOOTSTRAP": options.bootstrap, "HEADRACE_REGISTRY": options.registry, "HOME": "/tmp",
                   **({"MLFLOW_TRACKING_URI": options.mlflow} if options.mlflow else {})}
    container = {
        "name": component, "image": options.image, "imagePullPolicy": "IfNotPresent", "args": arguments,
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": limits(more.pop("resources", options.resources)), "securityContext": container_security(),
        "volumeMounts": mounts, "terminationMessagePolicy": "FallbackToLogsOnError", **more.pop("container", {})}
    return {"metadata": {"labels": _labels(name, component)},
            "spec": {"serviceAccountName": name, "automountServiceAccountToken": False, "enableServiceLinks": False,
                     "securityContext": pod_security(), "terminationGracePeriodSeconds": STOP_S, **more,
                     "containers": [container], "volumes": volumes}}


def _workload(plan: Plan, name: str, config: Manifest | None, options: Options) -> Manifest:
    """A replica more than there are partitions would have nothing to read and never be ready, so an update may not
    start one before another has gone: no surge."""
    arguments = ["run", plan.path.stem, "--http", str(PORT), "--http-host", "0.0.0.0"]
    selector = _labels(name, "worker")
    pod = _pod(plan, name, "worker", arguments, config, options,
               topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                                           "whenUnsatisfiable": "ScheduleAnyway",
                                           "labelSelector": {"matchLabels": selector}}],
               container={"ports": [{"name": "http", "containerPort": PORT}],
                          "startupProbe": _probe("/health", periodSeconds=2, failureThreshold=60),
                          "livenessProbe": _probe("/health", periodSeconds=15, failureThreshold=3),
                          "readinessProbe": _probe("/ready", periodSeconds=5, failureThreshold=2)})
    replicas = {} if options.keda else {"replicas": options.replicas}  # KEDA's autoscaler owns the number
    spec = {**replicas, "selector": {"matchLabels": selector}, "template": pod}
    if options.stateful:
        return _object("apps/v1", "StatefulSet", name, name, "worker", spec={
            **spec, "serviceName": name, "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"}})
    return _object("apps/v1", "Deployment", name, name, "worker", spec={
        **spec, "revisionHistoryLimit": 3,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}})


def _service(name: str) -> Manifest:
    """For whoever scrapes /metrics: headless, since each pod has counters of its own. A StatefulSet needs it too."""
    return _object("v1", "Service", name, name, "worker", spec={
        "clusterIP": "None", "selector": _labels(name, "worker"), "publishNotReadyAddresses": True,
        "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]})


def _budget(name: str) -> Manifest:
    return _object("policy/v1", "PodDisruptionBudget", name, name, "worker", spec={
        "maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": _labels(name, "worker")}})


def _scaled(plan: Plan, name: str, kind: str, options: Options) -> Manifest:
    """KEDA's ScaledObject: a replica for every `lag_threshold` records the group is behind, at most one a partition.

    What is behind the last commit but will never be read (markers of transactions) must keep no replica busy.
    """
    partitions = next(t.partitions for t in plan.topics if t.name == plan.source.config.topic)
    most = min(options.replicas_max or partitions, partitions)
    least = min(options.replicas, most)
    metadata = {"bootstrapServers": options.bootstrap, "consumerGroup": f"headrace.{plan.flow}",
                "topic": plan.source.config.topic, "lagThreshold": str(options.lag_threshold),
                "offsetResetPolicy": "earliest", "allowIdleConsumers": "false", "excludePersistentLag": "true"}
    return _object("keda.sh/v1alpha1", "ScaledObject", name, name, "worker", spec={
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name},
        "minReplicaCount": least, "maxReplicaCount": most, "pollingInterval": 15, "cooldownPeriod": 300,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {  # each step is a rebalance
            "scaleUp": {"stabilizationWindowSeconds": 0},
            "scaleDown": {"stabilizationWindowSeconds": 300,
                          "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}}},
        "triggers": [{"type": options.keda_trigger, "metadata": metadata}]})


def _loop(plan: Plan, name: str, config: Manifest | None, options: Options) -> Iterator[Manifest]:
    """One process that decides, and may ask the API server for Jobs: its own account, its own Role."""
    loop = f"{name}-loop"
    verbs = ["create", "get", "list", "watch", *(["delete"] if options.may_cancel else [])]
    yield _object("v1", "ServiceAccount", loop, name, "loop", automountServiceAccountToken=False)
    yield _object("rbac.authorization.k8s.io/v1", "Role", loop, name, "loop", rules=[
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": verbs},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])  # a Job's result is its pod's last word
    yield _object("rbac.authorization.k8s.io/v1", "RoleBinding", loop, name, "loop",
                  roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": loop},
                  subjects=[{"kind": "ServiceAccount", "name": loop, "namespace": options.namespace}])
    ports = [{"name": part, "containerPort": PORT + at} for at, part in enumerate(PARTS)]
    pod = _pod(plan, name, "loop", ["loop", "run", plan.path.stem, "--http", str(PORT), "--http-host", "0.0.0.0"],
               config, options, resources=replace(options.resources, memory_mb=options.loop_memory_mb),
               container={"ports": ports,  # a part that dies is started again inside; one that hangs is not
                          "startupProbe": _probe("/health", PARTS[0], periodSeconds=2, failureThreshold=90),
                          "livenessProbe": _probe("/health", PARTS[0], periodSeconds=15, failureThreshold=3)})
    pod["spec"] |= {"serviceAccountName": loop, "automountServiceAccountToken": True}
    yield _object("apps/v1", "Deployment", loop, name, "loop", spec={
        "replicas": 1, "revisionHistoryLimit": 3, "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": _labels(name, "loop")}, "template": pod})


def _network_policy(name: str, options: Options) -> Manifest:
    """For the workers: in, only to the metrics' port; out, only to DNS, Kafka and the registry."""
    registry = urlsplit(options.registry)
    ports = {int(server.rpartition(":")[2]) for server in options.bootstrap.split(",")}
    ports.add(registry.port or (443 if registry.scheme == "https" else 80))
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return _object("networking.k8s.io/v1", "NetworkPolicy", name, name, "worker", spec={
        "podSelector": {"matchLabels": _labels(name, "worker")}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"protocol": "TCP", "port": PORT}]}],
        "egress": [{"ports": dns}, {"ports": [{"protocol": "TCP", "port": port} for port in sorted(ports)]}]})
