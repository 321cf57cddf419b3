"""headrace_retrain: one DAG run trains a model for one Retrain event. A file for Airflow's dags folder.

Airflow needs nothing of headrace: the training is a process of another Python environment, one with `headrace[ml]`.
The run's conf is {"request": <the event>, "resources": {"cpu", "memory_mb", "gpu", "seconds_max"}}, as the dispatcher
`airflow` sends it. Read when a task runs, from the worker's environment:
    HEADRACE_PYTHON        the Python with headrace[ml]; default: python
    HEADRACE_PROJECT       the project folder, on storage that all workers share; default: the worker's home folder
    HEADRACE_LOCAL_CONFIG  JSON for headrace's dispatcher `local`, e.g. {"command": ["./train.sh", "{request}"]}

`train` runs it with limits, once: a second try of the task (the worker died) finds the run there is, in the project's
.headrace/runs, or its result. `report` gives the result as its XCom return value. See docs/airflow.md.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, get_current_context, task

TERM_WAIT_S = 30


@dag(schedule=None, catchup=False, max_active_runs=4, tags=["headrace"], doc_md=__doc__)
def headrace_retrain() -> None:
    # A try costs nothing when the training is over, so there may be many: they are for workers that die.
    @task(retries=5, retry_delay=timedelta(seconds=10))
    def train() -> dict[str, Any]:
        import json
        import os
        import subprocess

        from airflow.sdk.exceptions import AirflowFailException

        context = get_current_context()
        conf = context["dag_run"].conf or {}
        if "request" not in conf:
            raise AirflowFailException('this run has no conf: it wants {"request": <a Retrain event>}')
        project = os.environ.get("HEADRACE_PROJECT") or os.path.expanduser("~")
        command = [os.environ.get("HEADRACE_PYTHON", "python"), "-m", "headrace.loop.dispatch.local", "--request", "-",
                   "--follow", "--resources", json.dumps(conf.get("resources") or {}), "--project", project,
                   "--config", os.environ.get("HEADRACE_LOCAL_CONFIG", "{}")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=project)
        try:
            said, _ = process.communicate(json.dumps(conf["request"]))
        finally:
            if process.poll() is None:  # the task is ended: so is the training, and a later try starts it again
                process.terminate()
                process.wait(TERM_WAIT_S)
        try:
            outcome: dict[str, Any] = json.loads(said.strip().rpartition("\n")[2])
        except ValueError:
            raise RuntimeError(f"{command[0]} ended with {process.returncode} and no outcome: {said!r}") from None
        if outcome["state"] != "succeeded":
            context["ti"].xcom_push(key="reason", value=outcome["reason"])
            raise AirflowFailException(outcome["reason"])
        return dict(outcome["result"])

    @task(retries=5, retry_delay=timedelta(seconds=5))
    def report(result: dict[str, Any]) -> dict[str, Any]:
        return {**result, "dag_run": get_current_context()["dag_run"].run_id}

    report(train())


headrace_retrain()
