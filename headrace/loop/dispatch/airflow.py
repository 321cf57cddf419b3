"""airflow: the training is one DAG run of Airflow 3, over its REST API (tried with 3.3.2).

    POST /auth/token                                       the token, kept and renewed when it is refused
    POST /api/v2/dags/{dag}/dagRuns                        {"dag_run_id", "logical_date": null, "conf"}
    GET  /api/v2/dags/{dag}/dagRuns/{run}                  its state
    GET  …/taskInstances/{task}/xcomEntries/return_value   what the training said

The run's id is derived from the trigger's, and Airflow holds it unique: a repeat gets 409. Repeats at the same moment
may get 500 as well, and an answer may be lost on the way: then GET that id, and it is known. Not by asset events: three
rapid ones made one run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import Field, model_validator

from headrace.config import Config
from headrace.control import Retrain, digest
from headrace.errors import Retriable
from headrace.loop.dispatch import rest
from headrace.loop.dispatch.base import Refused, Resources, State, Status, tail
from headrace.secrets import KNOWN, resolved

RUN_PREFIX = "headrace__"
STATES: Mapping[str, State] = {"queued": "queued", "restarting": "queued", "running": "running", "success": "succeeded",
                               "failed": "failed"}
MISSING_DAG_RETRY_S = 30.0
"""A DAG file that was just put there is parsed within about half a minute."""
XCOM = "return_value"


class AirflowConfig(Config):
    """An Airflow 3 with the DAG that trains."""

    url: str = Field(description="Where its API server is, e.g. http://airflow:8080.", pattern="^https?://")
    dag_id: str = Field("headrace_retrain", min_length=1, description="The DAG that trains; ours is "
                        "headrace/dags/headrace_retrain.py.")
    username: str | None = Field(None, description="Who asks; with `password_env`.")
    password_env: str = Field("HEADRACE_AIRFLOW_PASSWORD", description="The environment variable with the password.")
    token_env: str | None = Field(None, description="Or the environment variable with a token, where tokens come from "
                                  "somewhere else.")
    train_task: str = Field("train", description="The task whose XCom `reason` says why a run failed.")
    result_task: str = Field("report", description="The task whose XCom return value is the training's result.")
    timeout_s: float = Field(15, gt=0, le=300, description="How long to wait for an answer.")

    @model_validator(mode="after")
    def _one_way_in(self) -> AirflowConfig:
        if (self.username is None) == (self.token_env is None):
            raise ValueError("say who asks: `username` (with `password_env`), or `token_env`")
        return self


def run_id(trigger: str) -> str:
    """The DAG run's id: the trigger's own, where Airflow's rule for ids allows it, else its digest."""
    return RUN_PREFIX + (trigger if re.fullmatch(r"[A-Za-z0-9_.~:+-]{1,200}", trigger) else digest(trigger))


class Airflow:
    """See the module."""

    name = "airflow"

    def __init__(self, config: AirflowConfig, *, project: Path) -> None:
        self.config = config
        self._token: str | None = None

    def submit(self, request: Retrain, resources: Resources) -> Status:
        run = run_id(request.id)
        conf = {"request": json.loads(request.to_json()), "resources": asdict(resources)}
        try:
            answer = self._call("POST", self._dag("dagRuns"), {"dag_run_id": run, "logical_date": None, "conf": conf,
                                                               "note": tail(request.reason, 900) or None})
        except Retriable as error:
            return self._decide(request.id, run, error)
        if answer.later:
            return self._decide(request.id, run, Retriable(self._said(answer), retry_after_s=answer.retry_after_s()))
        if answer.status == 409:
            return self._decide(request.id, run, Retriable(self._said(answer), retry_after_s=rest.RETRY_S))
        if answer.status == 404:
            raise Retriable(self._said(answer), retry_after_s=MISSING_DAG_RETRY_S, hint=(
                f"put headrace/dags/headrace_retrain.py into Airflow's dags folder, or set `dag_id`: Airflow knows no "
                f"“{self.config.dag_id}” (yet)"))
        self._check(answer)
        return self._status(run, answer.json)

    def poll(self, trigger: str, run: str | None) -> Status:
        run = run or run_id(trigger)
        answer = self._call("GET", self._run(run))
        if answer.status == 404:
            return Status("unknown", run)
        self._check(answer)
        return self._status(run, answer.json)

    def cancel(self, trigger: str, run: str | None) -> None:
        status = self.poll(trigger, run)
        if status.state in ("queued", "running"):
            self._check(self._call("PATCH", self._run(run or run_id(trigger)), {"state": "failed"}))

    def _decide(self, trigger: str, run: str, doubt: Retriable) -> Status:
        """What became of a POST that failed or met another: the run is there, or it has to be sent again."""
        status = self.poll(trigger, run)
        if status.state == "unknown":
            raise doubt
        return status

    def _status(self, run: str, said: Any) -> Status:
        """A DAG run as a status: with its result when it is over, and a remark when it cannot begin."""
        word = said.get("state") if isinstance(said, dict) else None
        state = STATES.get(str(word))
        if state is None:
            raise Retriable(f"Airflow says {word!r} of run {run}, which is no state we know",
                            retry_after_s=rest.RETRY_S)
        if state == "succeeded":
            result = self._xcom(run, self.config.result_task, XCOM)
            return Status(state, run, "" if isinstance(result, dict) else "the DAG run says no result",
                          result if isinstance(result, dict) else None)
        if state == "failed":
            why = self._xcom(run, self.config.train_task, "reason")
            return Status(state, run, tail(str(why or f"DAG run {run} of {self.config.dag_id} failed; see its log "
                                               f"in Airflow")))
        if state == "queued":
            dag = self._call("GET", self._dag()).json
            if isinstance(dag, dict) and dag.get("is_paused"):
                return Status(state, run, f"the DAG {self.config.dag_id} is paused in Airflow")
        return Status(state, run)

    def _xcom(self, run: str, task: str, key: str) -> Any:
        answer = self._call("GET", f"{self._run(run)}/taskInstances/{quote(task, safe='')}/xcomEntries/{key}")
        if answer.status == 404:
            return None
        self._check(answer)
        return answer.json.get("value") if isinstance(answer.json, dict) else None

    def _dag(self, rest_of: str = "") -> str:
        return f"/api/v2/dags/{quote(self.config.dag_id, safe='')}" + (f"/{rest_of}" if rest_of else "")

    def _run(self, run: str) -> str:
        return self._dag(f"dagRuns/{quote(run, safe='')}")

    def _said(self, answer: rest.Answer) -> str:
        return f"Airflow at {self.config.url} answered {answer.status}: {answer.text}"

    def _check(self, answer: rest.Answer) -> None:
        if answer.later:
            raise Retriable(self._said(answer), retry_after_s=answer.retry_after_s())
        if not 200 <= answer.status < 300:
            raise Refused(self._said(answer))

    def _call(self, method: str, path: str, body: Any = None) -> rest.Answer:
        """With a token. An old one gets 401, or 403, like one without the right: so each is asked again once."""
        fresh = self._token is None
        answer = self._send(method, path, body)
        if answer.status in (401, 403) and not fresh and self.config.token_env is None:
            self._token = None
            answer = self._send(method, path, body)
        return answer

    def _send(self, method: str, path: str, body: Any) -> rest.Answer:
        if self._token is None or self.config.token_env is not None:
            self._token = self._log_in()
        return self._http(method, path, body, {"Authorization": f"Bearer {self._token}"})

    def _log_in(self) -> str:
        if self.config.token_env is not None:
            return _secret(self.config.token_env)
        answer = self._http("POST", "/auth/token", {"username": self.config.username,
                                                    "password": _secret(self.config.password_env)})
        self._check(answer)
        if not isinstance(answer.json, dict) or "access_token" not in answer.json:
            raise Refused(f"Airflow at {self.config.url} gives no token at /auth/token: is it Airflow 3?")
        token = str(answer.json["access_token"])
        KNOWN.learn([token])
        return token

    def _http(self, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None) -> rest.Answer:
        return rest.call(method, self.config.url.rstrip("/") + path, what="Airflow", timeout_s=self.config.timeout_s,
                         body=None if body is None else json.dumps(body).encode(),
                         headers={"Content-Type": "application/json", **(headers or {})})


def _secret(name: str) -> str:
    if not os.environ.get(name):
        raise Refused(f"the environment variable {name} is not set, and Airflow asks who we are")
    return resolved(f"${{env:{name}}}")
