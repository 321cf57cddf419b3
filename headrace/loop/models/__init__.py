"""The model registry: MLflow, embedded in SQLite by default, a server by URL.

    client.py    opens it: quietly, once, whoever else opens it at the same time; what can go wrong, as errors of ours
    store.py     ModelStore: versions, aliases by epoch, loading
    record.py    one run and one version a candidate for each trigger, whoever is killed meanwhile
    artifact.py  a pipeline as files, and back, without pickle
"""

from headrace.loop.models.artifact import Loaded
from headrace.loop.models.client import NoSuchModel, StoreUnreachable
from headrace.loop.models.record import Logged
from headrace.loop.models.store import ModelStore, Promotion, Version, open_registry

__all__ = ["Loaded", "Logged", "ModelStore", "NoSuchModel", "Promotion", "StoreUnreachable", "Version",
           "open_registry"]
