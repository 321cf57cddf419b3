"""From a Retrain event to exactly one run somewhere, and its result back.

    base.py        the contract (Dispatcher, Status, Resources, Refused) and `dispatcher(kind, config)`
    queue.py       who is next: a bounded queue with priorities, as plain state
    breaker.py     leave alone what is down: a circuit breaker, as plain state
    local.py       a process on this machine, with limits; local_run.py is its supervisor
    webhook.py     a signed HTTP POST; and `verify` for webhooks that come to us (MLflow's)
    airflow.py     a DAG run of Airflow 3
    kubernetes.py  a Job
    kubeflow.py    a run of a pipeline
"""

from __future__ import annotations

from headrace.loop.dispatch.base import (
    KINDS,
    OVER,
    Dispatcher,
    Refused,
    Resources,
    ResourcesConfig,
    Status,
    config_class,
    dispatcher,
    request_from_json,
)

__all__ = ["KINDS", "OVER", "Dispatcher", "Refused", "Resources", "ResourcesConfig", "Status", "config_class",
           "dispatcher", "request_from_json"]
