"""Claims on triggers, kept in MLflow: of all runs that ask for one, however many at once, one owner gets it for good.

    python -m headrace.loop.dispatch.claim --trigger ID --owner RUN [--tracking-uri URI]     0: ours; 1: another's

For orchestrators that start a run twice when they are asked twice (Kubeflow Pipelines). The names of MLflow's
experiments are unique in its database, deleted ones included, and tags come into being with them: so a claim is an
experiment named after the trigger, with its owner as a tag, deleted at once to be out of everybody's sight.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

PREFIX = "headrace.claims/"
OWNER = "headrace.owner"


def claim(trigger: str, owner: str, tracking_uri: str | None = None) -> str:
    """Who has the trigger: `owner`, if nobody had it, else whoever came first. Asking again changes nothing.

    Raises mlflow's MlflowException when the server does not answer.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client, name = MlflowClient(tracking_uri), PREFIX + trigger
    try:
        client.delete_experiment(client.create_experiment(name, tags={OWNER: owner}))
        return owner
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
            raise
    found = client.get_experiment_by_name(name)
    assert found is not None, f"the experiment {name} was there, and is gone: `mlflow gc` ran in between"
    return str(found.tags[OWNER])


def main(arguments: Sequence[str] | None = None) -> int:
    """See the top."""
    parser = argparse.ArgumentParser(description="Claim a trigger for a run.")
    parser.add_argument("--trigger", required=True, help="The retrain request's id.")
    parser.add_argument("--owner", required=True, help="The run that asks.")
    parser.add_argument("--tracking-uri", default="", help="MLflow; default: MLFLOW_TRACKING_URI.")
    asked = parser.parse_args(arguments)
    has = claim(asked.trigger, asked.owner, asked.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"))
    print(f"trigger {asked.trigger} is {has}'s", flush=True)
    return 0 if has == asked.owner else 1


if __name__ == "__main__":
    sys.exit(main())
