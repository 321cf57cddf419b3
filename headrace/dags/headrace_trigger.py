"""headrace_trigger: reads headrace.retrain and starts a run of headrace_retrain for each event. A file for Airflow's
dags folder, for those who want no flow to dispatch.

Not an AssetWatcher: asset events that come close together make one run of several. Here each event becomes one POST
with a run id of its own, and its Kafka offset is committed only when Airflow has stored the run: a worker that dies in
between reads the event again, and Airflow answers that the run is there. The DAG is @continuous: there is always one
run of it, listening for LISTEN_S. Read from the worker's environment, besides what headrace_retrain reads:
    HEADRACE_BOOTSTRAP, HEADRACE_REGISTRY   Kafka and the schema registry (or headrace.toml in HEADRACE_PROJECT)
    HEADRACE_AIRFLOW_CONFIG                 JSON: {"url": "http://…:8080", "username": "…"}
    HEADRACE_AIRFLOW_PASSWORD               the password
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

LISTEN_S = 3600
TERM_WAIT_S = 30


@dag(schedule="@continuous", catchup=False, max_active_runs=1, tags=["headrace"], doc_md=__doc__)
def headrace_trigger() -> None:
    @task(retries=10, retry_delay=timedelta(seconds=10))
    def forward() -> None:
        import os
        import subprocess

        project = os.environ.get("HEADRACE_PROJECT") or os.path.expanduser("~")
        seconds = os.environ.get("HEADRACE_LISTEN_S", str(LISTEN_S))
        command = [os.environ.get("HEADRACE_PYTHON", "python"), "-m", "headrace.loop.dispatch.forward", "--to",
                   "airflow", "--config", os.environ["HEADRACE_AIRFLOW_CONFIG"], "--project", project,
                   "--seconds", seconds]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=project)
        try:
            for line in process.stdout or ():
                print(line, end="")  # a line an event, in the task's log
            if process.wait():
                raise RuntimeError(f"forward ended with {process.returncode}; its reason is above")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(TERM_WAIT_S)

    forward()


headrace_trigger()
