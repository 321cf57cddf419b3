"""What the herder knows of connectors and tasks: what they are told, how they are."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from headrace import __version__
from headrace.connect.restart import Restarts
from headrace.connect.spec import Spec
from headrace.connect.tasks import Task

Json = dict[str, Any]


@dataclass(slots=True)
class Status:
    """How a connector or a task is."""

    state: str = "UNASSIGNED"
    trace: str | None = None
    restarts: Restarts = field(default_factory=Restarts)
    kept: Future[None] | None = None
    """The store's promise to keep it."""

    def told(self, worker_id: str) -> Json:
        """As GET …/status has it; what happened is there only if something did."""
        told: Json = {"state": self.state, "worker_id": worker_id, "version": __version__}
        if self.trace:
            told["trace"] = self.trace
        if self.restarts != Restarts():
            told["auto_restart"] = self.restarts.told()
        return told


@dataclass(slots=True)
class Running:
    """A task that was made, and its status."""

    task: Task | None
    status: Status = field(default_factory=Status)


@dataclass(slots=True)
class Connector:
    """All that is known of a connector. `spec` is None while its configuration does not hold: a schema that is gone."""

    name: str
    config: dict[str, str]
    target: str
    spec: Spec | None = None
    kind: str = "unknown"
    typed: frozenset[str] = frozenset()
    """Its keys of secret type."""
    status: Status = field(default_factory=Status)
    tasks: dict[int, Running] = field(default_factory=dict)
    topics: set[str] = field(default_factory=set)


def task_class(spec: Spec) -> str:
    """Java's name where it was named so; else the class itself."""
    if spec.java:
        return spec.cls_name.removesuffix("Connector") + "Task"
    return spec.cls_name
