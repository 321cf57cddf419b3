"""MLflow, opened: quietly, without its globals, and safely when several processes meet a fresh database."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import MissingExtra, Retriable, UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5.0
FLAGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",       # its default, 7 with waits that double, holds a caller for minutes
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""What MLflow is told in the process that uses it, unless the user has said otherwise."""
LOUD = ("alembic", "mlflow.store.db.utils", "urllib3.connectionpool")
"""What they warn of is in the error that is raised."""
MISSING = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND")


class StoreUnreachable(Retriable):
    """The model store does not answer, or cannot do what was asked now."""


class NoSuchModel(UserError):
    """There is no such model, version or alias in the model store."""


def is_server(uri: str) -> bool:
    """Whether the store is behind HTTP; else it is a database that we open ourselves."""
    return uri.startswith(("http://", "https://", "databricks"))


def connect(uri: str, folder: Path) -> MlflowClient:
    """A client that answers. `folder` is `.headrace/mlflow` of the project; a database in it is made when it is not
    there. Raises MissingExtra, StoreUnreachable."""
    for name, value in FLAGS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise MissingExtra("ml", "the model registry (MLflow)") from error
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    if is_server(uri):
        return MlflowClient(uri, uri)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "open.lock"), asking(uri):  # two that both find no tables would both make them
        if uri == embedded_uri(folder) and not (folder / "mlflow.db").exists():
            _make(folder)
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
    return client


def _make(folder: Path) -> None:
    """The database with its tables. They are made beside it: one that was killed in the midst could not be mended."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    log.info("making the model store %s; its tables take some seconds, once", folder / "mlflow.db")
    for left in folder.glob("mlflow.db.part*"):
        left.unlink()
    part = folder.resolve() / "mlflow.db.part"
    make: Any = SqlAlchemyStore
    make(f"sqlite:///{part}", str(folder.resolve() / "artifacts")).engine.dispose()
    part.replace(folder / "mlflow.db")


def embedded_uri(folder: Path) -> str:
    """The embedded store's database."""
    return f"sqlite:///{folder.resolve()}/mlflow.db"


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process of this machine at a time; the kernel lets go when the process ends, however it ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def asking(uri: str, missing: str = "") -> Iterator[None]:
    """MLflow's errors as ours: StoreUnreachable; NoSuchModel with the text `missing`, where it is given."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        if missing and error.error_code in MISSING:
            raise NoSuchModel(missing, hint="`headrace models list` shows what there is") from error
        raise StoreUnreachable(f"the model store {shown(uri)} refuses: {_short(error, uri)}",
                               retry_after_s=RETRY_AFTER_S, hint=_hint(uri)) from error
    except (RequestException, SQLAlchemyError, OSError) as error:
        raise StoreUnreachable(f"no answer from the model store {shown(uri)}: {_short(error, uri)}",
                               retry_after_s=RETRY_AFTER_S, hint=_hint(uri)) from error


def shown(uri: str) -> str:
    """The address for messages: without a password."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _short(error: Exception, uri: str) -> str:
    return " ".join(str(error).replace(uri, shown(uri)).split())[:300]


def _hint(uri: str) -> str:
    return "is it running, and is [mlflow] uri in headrace.toml, or MLFLOW_TRACKING_URI, right?" if is_server(uri) \
        else "is its folder writable, and its disk not full?"
