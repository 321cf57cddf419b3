"""Trainings as Kubernetes Jobs: one Job a trigger, its name derived from it, so that the API server lets in only one.

    submit   POST, dry run: would it be let in, without a warning?  → POST → 201: queued
                                                                          → 409: GET, is it ours? as it stands
                                                                          → 5xx, time-out: GET decides
    poll     GET the Job: its conditions; once it is complete, what its pod wrote as its termination message

The request goes along as an annotation of the pod, which the downward API shows it as a file; the result comes back as
the pod's termination message (at most 4,096 bytes, `inpod.py`). So the dispatcher needs no more than
create, get, list, watch on jobs and list on pods. What was checked against what: docs/kubernetes.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from headrace.config import Config
from headrace.control import Retrain
from headrace.errors import MissingExtra, Retriable
from headrace.loop.dispatch.base import Refused, Resources, Status, request_from_json, tail
from headrace.loop.dispatch.pods import by_digest, container_security, limits, pod_security
from headrace.loop.dispatch.recorded import recorded
from headrace.secrets import KNOWN

TRIGGER = "headrace/trigger"
REQUEST = "headrace/request"
CONTAINER = "train"
PASSED_ON = ("HEADRACE_BOOTSTRAP", "HEADRACE_REGISTRY", "MLFLOW_TRACKING_URI")
"""What the dispatcher's own environment says of where things are, the training is told too."""
REQUEST_BYTES_MAX = 200_000  # all annotations of an object together may have 256 KiB
RETRY_S = 5.0
REFUSED_S = 60.0  # for what a person must mend: a token, a quota


class KubernetesConfig(Config):
    """Jobs in a cluster. Where the cluster is: `host` with `token_file`, else `kubeconfig`, else the pod's own."""

    image: str = Field(description="The image to train in, by digest (name@sha256:…): a tag may be another image "
                                   "tomorrow.")
    allow_tags: bool = Field(False, description="Take an image by its tag all the same, e.g. in a test cluster.")
    namespace: str = Field("default", description="The namespace of the Jobs.")
    command: tuple[str, ...] = Field(
        ("python", "-m", "headrace.loop.dispatch.inpod"), description="What the container runs; `--request FILE "
        "--result FILE` is added.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment of the container, besides where Kafka, "
                                "the registry and MLflow are, which is passed on. No secrets: those go into "
                                "`env_from`.")
    env_from: tuple[str, ...] = Field((), description="Secrets of the namespace whose keys become environment.")
    secret: str | None = Field(None, description="A Secret with the key headrace.toml: passwords and TLS of Kafka and "
                               "the registry.")
    service_account: str = Field("default", description="The pods' ServiceAccount. Its token is not mounted.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of the nodes to run on.")
    cpu: float = Field(1.0, gt=0, description="Cores where the request names none; a pod without limits may take "
                                              "everything.")
    memory_mb: int = Field(2048, ge=64, description="MiB where the request names none.")
    scratch_mb: int = Field(2048, ge=16, description="MiB of /tmp, and of .headrace: nowhere else can the container "
                            "write.")
    retries: int = Field(2, ge=0, le=10, description="How often a pod that failed is started anew (backoffLimit).")
    keep_s: int = Field(604_800, ge=3600, description="Seconds a finished Job is kept; a Job that is gone is unknown, "
                                                      "and a request for it would run again.")
    host: str | None = Field(None, description="The API server's address, https://….")
    token_file: str | None = Field(None, description="A file with the bearer token for `host`.")
    ca_file: str | None = Field(None, description="A file with the certificate authority of `host`.")
    kubeconfig: str | None = Field(None, description="A kubeconfig file; the usual one, if not said and not in a pod.")
    context: str | None = Field(None, description="The context in it; its current one, if not said.")
    timeout_s: float = Field(15.0, gt=0, description="Seconds one call to the API server may take.")
    warnings: Literal["refuse", "pass"] = Field(
        "refuse", description="What to make of the API server's warnings. Pod Security in mode warn lets a wrong Job "
        "in and then its pods do not start, so they are errors.")


def job_name(trigger: str) -> str:
    """The Job of a trigger: retrain-<the first 16 hex digits of the trigger's sha256>."""
    return f"retrain-{hashlib.sha256(trigger.encode()).hexdigest()[:16]}"


def label(text: str) -> str:
    """`text` as a label's value: at most 63 letters, digits, “-”, “_”, “.”, beginning and ending with a letter or
    digit."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:63].strip("._-")


def job(request: Retrain, resources: Resources, config: KubernetesConfig) -> dict[str, Any]:
    """The Job that trains for `request`, as JSON: hardened, limited, ended, and not retried in vain."""
    asked = Resources(cpu=resources.cpu or config.cpu, memory_mb=resources.memory_mb or config.memory_mb,
                      gpu=resources.gpu, seconds_max=resources.seconds_max)
    labels = {"app.kubernetes.io/name": "headrace", "app.kubernetes.io/component": "retrain",
              "app.kubernetes.io/managed-by": "headrace", "headrace/model": label(request.model)}
    return {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": job_name(request.id), "namespace": config.namespace, "labels": labels,
                     "annotations": {TRIGGER: request.id}},
        "spec": {
            "backoffLimit": config.retries,
            "activeDeadlineSeconds": asked.seconds_max,
            "ttlSecondsAfterFinished": config.keep_s,
            "podReplacementPolicy": "Failed",  # never two pods of one Job at once
            "podFailurePolicy": {"rules": [
                # A node that is drained is nobody's fault, and what the request or the flow says wrong (headrace's exit
                # codes 1 and 2) stays wrong.
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [1, 2]}},
            ]},
            "template": {"metadata": {"labels": labels, "annotations": {TRIGGER: request.id,
                                                                         REQUEST: request.to_json()}},
                         "spec": _pod(asked, config)},
        },
    }


def _pod(resources: Resources, config: KubernetesConfig) -> dict[str, Any]:
    _, _, image_digest = config.image.partition("@")
    environment = {"HOME": "/tmp", "TMPDIR": "/tmp",
                   **({"HEADRACE_IMAGE_DIGEST": image_digest} if image_digest else {}), **config.env}
    settings = [{"name": "settings", "secret": {"secretName": config.secret, "defaultMode": 0o440}}]
    return {
        "restartPolicy": "Never",
        "serviceAccountName": config.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        **({"nodeSelector": dict(config.node_selector)} if config.node_selector else {}),
        "containers": [{
            "name": CONTAINER,
            "image": config.image,
            "imagePullPolicy": "IfNotPresent",
            "command": list(config.command),
            "args": ["--request", "/headrace/request.json", "--result", "/dev/termination-log"],
            "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
            **({"envFrom": [{"secretRef": {"name": name}} for name in config.env_from]} if config.env_from else {}),
            "resources": limits(resources),
            "securityContext": container_security(),
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"},
                             {"name": "state", "mountPath": "/project/.headrace"},
                             {"name": "request", "mountPath": "/headrace", "readOnly": True},
                             *([{"name": "settings", "mountPath": "/project/headrace.toml", "subPath": "headrace.toml",
                                 "readOnly": True}] if config.secret else [])],
        }],
        "volumes": [
            *({"name": name, "emptyDir": {"sizeLimit": f"{config.scratch_mb}Mi"}} for name in ("tmp", "state")),
            {"name": "request", "downwardAPI": {"items": [
                {"path": "request.json", "fieldRef": {"fieldPath": f"metadata.annotations['{REQUEST}']"}}]}},
            *(settings if config.secret else []),
        ],
    }


class Kubernetes:
    """Dispatches to a cluster by the client of the extra `kubernetes`."""

    name = "kubernetes"

    def __init__(self, config: KubernetesConfig, *, project: Path) -> None:
        self.config = config
        self.project = project
        self._client: Any = None

    def submit(self, request: Retrain, resources: Resources) -> Status:
        if not (self.config.allow_tags or by_digest(self.config.image)):
            raise Refused(f"the image {self.config.image} is named by a tag, which may be another image tomorrow",
                          hint="name it by digest (name@sha256:…), or set allow_tags: true")
        here = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        body = job(request, resources, self.config.model_copy(update={"env": {**here, **self.config.env}}))
        size = len(request.to_json().encode())
        if size > REQUEST_BYTES_MAX:
            raise Refused(f"the request has {size:,} bytes; a pod can be told {REQUEST_BYTES_MAX:,}")
        if self._create(body, dry_run=True) and self._create(body, dry_run=False):
            return Status("queued", run=job_name(request.id))
        there = self._read(request.id)
        if there is None:
            raise Retriable(f"the Job {job_name(request.id)} was there, and is gone", retry_after_s=RETRY_S)
        return self._status(there, request.id)

    def poll(self, trigger: str, run: str | None) -> Status:
        there = self._read(trigger)
        return Status("unknown", run=run) if there is None else self._status(there, trigger)

    def cancel(self, trigger: str, run: str | None) -> None:
        self._delete(job_name(trigger))

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _create(self, body: Mapping[str, Any], *, dry_run: bool) -> bool:
        """POST the Job. True: it was let in; False: one of that name is there. A dry run stores nothing, so what it
        is warned of is known before there is a Job, and no right to delete is needed."""
        name = body["metadata"]["name"]
        try:
            answer = self._call("BatchV1Api", "create_namespaced_job", self.config.namespace,
                                _client().V1Job.model_validate(body), field_validation="Strict",
                                **({"dry_run": "All"} if dry_run else {}))
        except _Unknown as error:
            if dry_run or self._read_by_name(name) is None:
                raise error.retriable(f"the Job {name} could not be created") from error
            return False  # it is there; whether it is ours the caller looks at
        except _Answer as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return False
            raise error.meaning(f"the Job {name} was not let in") from error
        told = _warnings(answer.headers)
        if told and self.config.warnings == "refuse":
            left = "" if dry_run else self._undo(name)
            raise Refused(f"the API server warns of the Job {name}: {'; '.join(told)}{left}",
                          hint="its pods would not start; mend the namespace's policy or the dispatcher's settings")
        return True

    def _undo(self, name: str) -> str:
        """Delete a Job that should not be; what to add to the message if that was not possible."""
        try:
            self._delete(name)
        except (Refused, Retriable) as error:
            return f" (and it is still there: {error.what})"
        return ""

    def _read(self, trigger: str) -> dict[str, Any] | None:
        """The Job of the trigger. Raises Refused when a Job has its name and is another's."""
        there = self._read_by_name(job_name(trigger))
        if there is not None and (there["metadata"].get("annotations") or {}).get(TRIGGER) != trigger:
            raise Refused(f"the Job {job_name(trigger)} in {self.config.namespace} is not this trigger's",
                          hint=f"its annotation {TRIGGER} is not {trigger}: who made it?")
        return there

    def _read_by_name(self, name: str) -> dict[str, Any] | None:
        try:
            answer = self._call("BatchV1Api", "read_namespaced_job", name, self.config.namespace)
        except _Unknown as error:
            raise error.retriable(f"how the Job {name} stands cannot be known now") from error
        except _Answer as error:
            if error.status == 404:
                return None
            raise error.meaning(f"the Job {name} cannot be read") from error
        found: dict[str, Any] = json.loads(answer.data)
        return found

    def _delete(self, name: str) -> None:
        try:
            self._call("BatchV1Api", "delete_namespaced_job", name, self.config.namespace,
                       propagation_policy="Background")
        except _Unknown as error:
            raise error.retriable(f"the Job {name} could not be deleted") from error
        except _Answer as error:
            if error.status != 404:
                raise error.meaning(f"the Job {name} cannot be deleted; it ends by itself at its deadline") from error

    def _message(self, name: str) -> str:
        """The termination message of the Job's last pod; nothing when it is gone, or not ours to see."""
        try:
            answer = self._call("CoreV1Api", "list_namespaced_pod", self.config.namespace,
                                label_selector=f"batch.kubernetes.io/job-name={name}")
        except _Unknown as error:
            raise error.retriable(f"what the Job {name} said cannot be known now") from error
        except _Answer as error:
            if error.status in (403, 404):
                return ""
            raise error.meaning(f"the pods of the Job {name} cannot be listed") from error
        ended = [state for pod in json.loads(answer.data).get("items") or ()
                 for container in (pod.get("status") or {}).get("containerStatuses") or ()
                 if container.get("name") == CONTAINER and (state := (container.get("state") or {}).get("terminated"))]
        ended.sort(key=lambda state: (state.get("exitCode") == 0, state.get("finishedAt") or ""))
        return str(ended[-1].get("message") or "") if ended else ""

    def _status(self, there: Mapping[str, Any], trigger: str) -> Status:
        name, told = there["metadata"]["name"], there.get("status") or {}
        conditions = {c["type"]: c for c in told.get("conditions") or () if c.get("status") == "True"}
        if "Complete" in conditions:
            return self._succeeded(name, self._message(name), there)
        if failed := conditions.get("Failed"):
            said = self._message(name)
            why = f"{failed.get('reason', '')}: {failed.get('message', '')}".strip(": ")
            return Status("failed", run=name, reason=tail(f"{why}\n{_object(said).get('reason') or said}"))
        # In a Job that is suspended, or waits for a node, no pod is ready.
        return Status("running" if told.get("ready") or told.get("terminating") else "queued", run=name)

    def _succeeded(self, name: str, message: str, there: Mapping[str, Any]) -> Status:
        """With its result: the pod's last word, or, where that is gone or cut, the model registry's record."""
        said = _object(message)
        if not said or "left_out" in said:
            annotations = there["spec"]["template"]["metadata"]["annotations"]
            said |= recorded(request_from_json(annotations[REQUEST]), self.project) or {}
        if not said:
            return Status("succeeded", run=name, reason="its result is neither in the pod's termination message nor in "
                                                        "the model registry that is known here")
        return Status("succeeded", run=name, result=said)

    def _call(self, api: str, verb: str, *arguments: Any, **options: Any) -> Any:
        """One call; its urllib3 response, read. Raises _Answer for the server's no, _Unknown when there is no telling
        whether it was done."""
        from urllib3.exceptions import HTTPError

        client = _client()
        try:
            answer = getattr(getattr(client, api)(self._connected()), verb)(
                *arguments, _preload_content=False, _request_timeout=self.config.timeout_s, **options)
            answer.data  # noqa: B018  read it here, where a cut is caught
            return answer
        except client.ApiException as error:
            status = error.status or 0
            if status == 0 or status >= 500:
                raise _Unknown(f"{status} {error.reason}", _retry_after(error.headers)) from error
            raise _Answer(status, error.body, _retry_after(error.headers)) from error
        except (HTTPError, OSError) as error:
            raise _Unknown(f"{type(error).__name__}: {error}", None) from error

    def _connected(self) -> Any:
        """The client, made once."""
        if self._client is None:
            made = _client().Configuration()
            self._locate(made)
            made.retries = False  # a POST is never repeated behind our back
            self._client = _client().ApiClient(made)
        return self._client

    def _locate(self, made: Any) -> None:
        from kubernetes import config as loading

        given = self.config
        try:
            if given.host:
                made.host = given.host
                if given.token_file:
                    token = (self.project / given.token_file).read_text().strip()
                    KNOWN.learn([token])
                    made.api_key = {"BearerToken": token}
                    made.api_key_prefix = {"BearerToken": "Bearer"}
                if given.ca_file:
                    made.ssl_ca_cert = str(self.project / given.ca_file)
            elif not given.kubeconfig and "KUBERNETES_SERVICE_HOST" in os.environ:
                loading.load_incluster_config(client_configuration=made)
            else:
                file = str(self.project / given.kubeconfig) if given.kubeconfig else None
                loading.load_kube_config(config_file=file, context=given.context, client_configuration=made)
        except (loading.ConfigException, OSError) as error:
            raise Refused(f"no Kubernetes cluster is known: {error}",
                          hint="say host and token_file, or kubeconfig, in the dispatcher's settings") from error


def _client() -> Any:
    """kubernetes.client, imported when it is needed: 0.6 s."""
    try:
        from kubernetes import client
    except ModuleNotFoundError as error:
        raise MissingExtra("kubernetes", "dispatching to Kubernetes") from error
    return client


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Unknown(Exception):
    """No answer, or a 5xx: it may have been done or not."""

    def __init__(self, what: str, retry_after_s: float | None) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s

    def retriable(self, what: str) -> Retriable:
        return Retriable(f"{what}: {self}", retry_after_s=self.retry_after_s or RETRY_S)


class _Answer(Exception):
    """A 4xx with the API's Status object."""

    def __init__(self, status: int, body: str | None, retry_after_s: float | None) -> None:
        told = _object(body or "")
        self.status, self.retry_after_s, self.reason = status, retry_after_s, str(told.get("reason") or "")
        super().__init__(str(told.get("message") or body or ""))

    def meaning(self, what: str) -> Refused | Retriable:
        """Refused, unless time or an administrator may mend it: too many calls, a quota, a token that ran out."""
        said = f"{what}: {self.status} {self}"
        if self.status == 429:
            return Retriable(said, retry_after_s=self.retry_after_s or RETRY_S)
        if self.status in (401, 409) or (self.status == 403 and "exceeded quota" in str(self)):
            return Retriable(said, retry_after_s=REFUSED_S)
        return Refused(said)


def _object(text: str) -> dict[str, Any]:
    """The JSON object that the text is; empty when it is none."""
    try:
        read = json.loads(text)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _retry_after(headers: Any) -> float | None:
    written = (headers or {}).get("Retry-After", "")
    return float(written) if written.isdecimal() else None


_QUOTED = re.compile(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"')


def _warnings(headers: Any) -> list[str]:
    """The texts of a response's Warning headers: `299 - "text"`, several of them in one or in several headers."""
    written = headers.getlist("Warning") if hasattr(headers, "getlist") else [headers.get("Warning") or ""]
    return [re.sub(r"\\(.)", r"\1", text) for line in written for text in _QUOTED.findall(line)]
