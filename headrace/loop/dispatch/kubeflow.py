"""Trainings as runs of a Kubeflow pipeline (API v2beta1), named after their trigger.

    submit   under our own lock: GET runs?filter=display_name → there: as it stands
                                                              → not: POST runs → 5xx, time-out: list again, and decide
    poll     the runs of that name: one that succeeded, else one that runs, else why it failed

Kubeflow Pipelines lets in two runs of one name, so the lock (of this machine) is not enough: the pipeline's first step
claims the trigger in MLflow (`claim.py`), and a run that comes second fails there, before it trains. Values do not
come back through this API; the result is the model registry's record of the trigger. What was checked against what:
docs/kubeflow.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import Field, model_validator

from headrace.config import Config
from headrace.control import Retrain
from headrace.errors import MissingExtra, Retriable
from headrace.loop.dispatch.base import Refused, Resources, State, Status, request_from_json, tail
from headrace.loop.dispatch.recorded import recorded
from headrace.secrets import KNOWN

STATES: Mapping[str, State] = {
    "RUNTIME_STATE_UNSPECIFIED": "queued", "PENDING": "queued", "PAUSED": "queued", "RUNNING": "running",
    "CANCELING": "running", "SUCCEEDED": "succeeded", "SKIPPED": "failed", "FAILED": "failed", "CANCELED": "failed"}
BEST_FIRST = ("succeeded", "running", "queued", "failed")
"""Of several runs of one trigger, one at most gets past its claim."""
OWN_PIPELINE = Path(__file__).resolve().parents[2] / "kubeflow" / "retrain_pipeline.yaml"
REQUEST_BYTES_MAX = 100_000  # the request is one argument of a command, which may have 128 KiB
RETRY_S = 5.0
REFUSED_S = 60.0
PAGE = 100


class KubeflowConfig(Config):
    """Runs of one pipeline on one Kubeflow Pipelines server."""

    url: str = Field(pattern="^https?://", description="The API's address, e.g. http://ml-pipeline.kubeflow:8888.")
    pipeline_id: str | None = Field(None, description="The uploaded pipeline's id, with `pipeline_version_id`.")
    pipeline_version_id: str | None = Field(None, description="The id of the version of it that is to run.")
    pipeline_spec: str | None = Field(None, description="Or the file of a compiled pipeline, sent along with each run;"
                                      " if nothing is said, headrace's own.")
    image: str | None = Field(None, description="The image, by digest, that headrace's own pipeline trains in.")
    experiment_id: str | None = Field(None, description="The experiment of the runs; the default one, if not said.")
    namespace: str | None = Field(None, description="The profile's namespace, on a server of several users that is not "
                                  "told the experiment.")
    service_account: str | None = Field(None, description="The pods' ServiceAccount.")
    mlflow: str | None = Field(None, description="The MLflow server where triggers are claimed and models registered, "
                               "as the pods see it; the project's own, if not said.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="More parameters of the pipeline.")
    gpus: bool = Field(False, description="The pipeline has a parameter `gpu` and honours it; ours has not.")
    token_file: str | None = Field(None, description="A file with the bearer token.")
    ca_file: str | None = Field(None, description="A file with the server's certificate authority.")
    timeout_s: float = Field(15.0, gt=0, description="Seconds one call to the API may take.")

    @model_validator(mode="after")
    def _one_pipeline(self) -> KubeflowConfig:
        if (self.pipeline_id is None) != (self.pipeline_version_id is None):
            raise ValueError("pipeline_id and pipeline_version_id go together")
        if self.pipeline_id and self.pipeline_spec:
            raise ValueError("say pipeline_id with pipeline_version_id, or pipeline_spec, not both")
        return self


def display_name(trigger: str) -> str:
    """The run's name: retrain-<the first 16 hex digits of the trigger's sha256>, as a Job is called."""
    return f"retrain-{hashlib.sha256(trigger.encode()).hexdigest()[:16]}"


class Kubeflow:
    """See the module. Uses the client of the extra `kubeflow`."""

    name = "kubeflow"

    def __init__(self, config: KubeflowConfig, *, project: Path) -> None:
        self.config = config
        self.project = project
        self._client: Any = None

    def submit(self, request: Retrain, resources: Resources) -> Status:
        if resources.gpu and not self.config.gpus:
            raise Refused(f"the training asks for {resources.gpu} GPUs, and the pipeline for none",
                          hint="name a pipeline with a parameter `gpu`, and set gpus: true")
        body = self._run(request, resources)
        with self._lock(request.id):
            if found := self._runs(request.id):
                return self._status(found)
            try:
                made = self._call("run_service_create_run", "V2beta1Run", body, **self._of_experiment())
            except _Unknown as error:
                if found := self._runs(request.id):
                    return self._status(found)
                raise Retriable(f"the run {body.display_name} could not be created: {error}",
                                retry_after_s=RETRY_S) from error
        return self._status([made])

    def poll(self, trigger: str, run: str | None) -> Status:
        found = self._runs(trigger)
        return self._status(found) if found else Status("unknown", run=run)

    def cancel(self, trigger: str, run: str | None) -> None:
        for each in self._runs(trigger):
            if STATES.get(each.state or "", "running") in ("queued", "running"):
                try:
                    self._call("run_service_terminate_run", "object", each.run_id)
                except _Unknown as error:
                    raise Retriable(f"the run {each.run_id} could not be ended: {error}",
                                    retry_after_s=RETRY_S) from error

    # ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, request: Retrain, resources: Resources) -> Any:
        """The run to create, as the client's model, which checks it."""
        api = _api()
        text, size = request.to_json(), len(request.to_json().encode())
        if size > REQUEST_BYTES_MAX:
            raise Refused(f"the request has {size:,} bytes; a pipeline can be told {REQUEST_BYTES_MAX:,}")
        parameters = {"trigger": request.id, "request": text, "mlflow": self._mlflow(),
                      "cpu": f"{round((resources.cpu or 1.0) * 1000)}m", "memory": f"{resources.memory_mb or 2048}Mi",
                      "seconds_max": resources.seconds_max, **({"gpu": str(resources.gpu)} if self.config.gpus else {}),
                      **self._passed_on(), **self.config.parameters}
        given = self.config
        what = {"pipeline_version_reference": api.V2beta1PipelineVersionReference(
            given.pipeline_id, given.pipeline_version_id)} if given.pipeline_id else {"pipeline_spec": self._spec()}
        return api.V2beta1Run(
            display_name=display_name(request.id), description=f"headrace: {request.reason}"[:200], **what,
            runtime_config=api.V2beta1RuntimeConfig(parameters=parameters), experiment_id=given.experiment_id,
            service_account=given.service_account)

    def _mlflow(self) -> str:
        from headrace import settings

        where = self.config.mlflow or settings.load(self.project).mlflow_uri
        if not where or not where.startswith(("http://", "https://")):
            raise Refused("no MLflow server is known, and the pipeline's runs claim their triggers there",
                          hint="set `mlflow` in the dispatcher's settings, or MLFLOW_TRACKING_URI")
        return where

    def _passed_on(self) -> dict[str, str]:
        """Where Kafka and the registry are, as our own environment says."""
        return {name: os.environ[variable] for name, variable in
                (("bootstrap", "HEADRACE_BOOTSTRAP"), ("registry", "HEADRACE_REGISTRY")) if variable in os.environ}

    def _spec(self) -> dict[str, Any]:
        """The compiled pipeline, with the image it is to train in."""
        from headrace.marked import read

        own = self.config.pipeline_spec is None
        file = OWN_PIPELINE if own else self.project / str(self.config.pipeline_spec)
        spec: dict[str, Any] = read(file).data
        if self.config.image:
            for executor in spec["deploymentSpec"]["executors"].values():
                executor["container"]["image"] = self.config.image
        elif own:
            raise Refused("it is not said in which image headrace's own pipeline trains",
                          hint="set `image` (name@sha256:…) in the dispatcher's settings")
        return spec

    def _of_experiment(self) -> dict[str, str]:
        return {"experiment_id": self.config.experiment_id} if self.config.experiment_id else {}

    # ── what is there ────────────────────────────────────────────────────────────────────────────────────────────

    def _runs(self, trigger: str) -> list[Any]:
        """The trigger's runs. Raises Retriable when that cannot be known now."""
        api = _api()
        wanted = api.V2beta1Filter(predicates=[api.V2beta1Predicate(
            operation="EQUALS", key="display_name", string_value=display_name(trigger))])
        asked = json.dumps(self._connected().sanitize_for_serialization(wanted))
        where = {**self._of_experiment(), **({"namespace": self.config.namespace} if self.config.namespace else {})}
        found: list[Any] = []
        token = ""
        while True:
            try:
                answer = self._call("run_service_list_runs", "V2beta1ListRunsResponse", filter=asked, page_size=PAGE,
                                    sort_by="created_at", **where, **({"page_token": token} if token else {}))
            except _Unknown as error:
                raise Retriable(f"whether there is a run {display_name(trigger)} cannot be known now: {error}",
                                retry_after_s=RETRY_S) from error
            found += [each for each in answer.runs or () if _parameters(each).get("trigger") == trigger]
            token = answer.next_page_token or ""
            if not token:
                return found

    def _status(self, found: list[Any]) -> Status:
        stands = [(STATES.get(each.state or "RUNTIME_STATE_UNSPECIFIED", "running"), each) for each in found]
        state, run = min(stands, key=lambda each: BEST_FIRST.index(each[0]))
        if state == "failed":
            message = run.error.message if run.error else ""
            return Status(state, run=run.run_id, reason=tail(f"Kubeflow says {run.state}: {message or 'see its log'}"))
        if state != "succeeded":
            return Status(state, run=run.run_id)
        result = recorded(request_from_json(str(_parameters(run)["request"])), self.project, uri=self.config.mlflow)
        return Status(state, run=run.run_id, result=result,
                      reason="" if result else "the model registry that is known here has no record of it")

    @contextmanager
    def _lock(self, trigger: str) -> Iterator[None]:
        """Nobody else on this machine asks and creates meanwhile."""
        folder = self.project / ".headrace" / "kubeflow"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{display_name(trigger)}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _call(self, verb: str, kind: str, *arguments: Any, **options: Any) -> Any:
        """One call; its answer as the client's model `kind`. Raises _Unknown when there is no telling whether it was
        done, else Refused or Retriable for a 4xx."""
        from urllib3.exceptions import HTTPError

        api = _api()
        wait_s = (self.config.timeout_s, self.config.timeout_s)  # to connect, to read; the client ignores a lone float
        try:
            answer = getattr(api.RunServiceApi(self._connected()), verb)(
                *arguments, _preload_content=False, _request_timeout=wait_s, **options)
            # The client makes an empty model of whatever it cannot read, so a login page would be a list of no runs.
            if not isinstance(json.loads(answer.data), dict):
                raise ValueError("it is no JSON object")
            return self._connected().deserialize(SimpleNamespace(data=answer.data.decode()), kind)
        except api.ApiException as error:
            status = error.status or 0
            if status == 0 or status >= 500:
                raise _Unknown(f"{status} {error.reason}") from error
            said = f"Kubeflow Pipelines at {self.config.url} answered {status}: {tail(str(error.body or ''), 500)}"
            if status in (401, 408, 429):
                raise Retriable(said, retry_after_s=REFUSED_S if status == 401 else RETRY_S) from error
            raise Refused(said) from error
        except (HTTPError, OSError) as error:
            raise _Unknown(f"{type(error).__name__}: {error}") from error
        except ValueError as error:  # the client could not read the answer: a proxy's page, a body cut short
            raise _Unknown(f"no answer of Kubeflow's: {error}") from error

    def _connected(self) -> Any:
        """The client, made once."""
        if self._client is None:
            made = _api().Configuration(host=self.config.url.rstrip("/"))
            made.client_side_validation = True
            made.retries = False  # a POST is never repeated behind our back
            if self.config.ca_file:
                made.ssl_ca_cert = str(self.project / self.config.ca_file)
            self._client = _api().ApiClient(made)
            if self.config.token_file:
                try:
                    token = (self.project / self.config.token_file).read_text().strip()
                except OSError as error:
                    raise Refused(f"the token for Kubeflow Pipelines cannot be read: {error}") from error
                KNOWN.learn([token])
                self._client.set_default_header("Authorization", f"Bearer {token}")
        return self._client


class _Unknown(Exception):
    """No answer, or a 5xx: it may have been done or not."""


def _parameters(run: Any) -> Mapping[str, Any]:
    config = run.runtime_config
    return (config.parameters if config else None) or {}


def _api() -> Any:
    try:
        import kfp_server_api
    except ModuleNotFoundError as error:
        raise MissingExtra("kubeflow", "dispatching to Kubeflow Pipelines") from error
    return kfp_server_api
