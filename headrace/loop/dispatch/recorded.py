"""What the model registry says of a training: for dispatchers whose runs cannot say it themselves, or not all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace import settings
from headrace.control import Retrain


def recorded(request: Retrain, project: Path, *, uri: str | None = None) -> Mapping[str, Any] | None:
    """The result of the finished MLflow run with the request's trigger; None when there is none.

    Asked is the server at `uri`, else the project's own (MLFLOW_TRACKING_URI, [mlflow] uri), else nobody: what runs
    elsewhere does not write into this machine's embedded store. Raises Retriable when the server does not answer, and
    MissingExtra without MLflow.
    """
    where = uri or settings.load(project).mlflow_uri
    if where is None:
        return None
    from headrace.loop.models import open_registry
    from headrace.loop.train import result_of

    logged = open_registry(where, project).logged(request.id, request.model)
    found: dict[str, Any] | None = None if logged is None else json.loads(result_of(request, logged).to_json())
    return found
