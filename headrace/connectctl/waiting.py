"""Until a connector is what it was told to be, or has failed: its status, asked again and again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.connectctl.client import Refused
from headrace.connectctl.workers import Worker

PAUSE_S = 0.25
STEADY_S = 1.0
"""A state must last so long: right after a change, a worker still tells of the tasks before it."""
NO_TASKS_S = 5.0
"""Without a task it must last longer: most connectors have some soon, a few have nothing to do."""
TRACE_LINES = 3
CAUSES_MAX = 3


@dataclass(frozen=True, slots=True)
class Status:
    """A connector's state and its tasks', as its worker tells."""

    name: str
    state: str
    kind: str
    worker_id: str
    tasks: tuple[Mapping[str, Any], ...]
    trace: str = ""

    @property
    def failed(self) -> bool:
        return self.state == "FAILED" or any(task["state"] == "FAILED" for task in self.tasks)

    @property
    def failures(self) -> list[str]:
        """Why, shortened: for the connector, or for each task that failed."""
        told = [f"connector: {shortened(self.trace)}"] if self.state == "FAILED" else []
        return told + [f"task {task['id']}: {shortened(str(task.get('trace') or ''))}" for task in self.tasks
                       if task["state"] == "FAILED"]

    def is_(self, state: str) -> bool:
        """Whether it is, with all its tasks, what it was told to be."""
        return self.state == state and all(task["state"] == state for task in self.tasks)


def shortened(trace: str) -> str:
    """A Java or Python trace: how it begins, and its causes."""
    lines = [line for line in trace.strip().splitlines() if line.strip()]
    if lines and lines[0].startswith("Traceback"):  # Python's: the error stands last
        return lines[-1]
    frames = [line for line in lines if line.lstrip().startswith(("at ", "... "))]
    said = [line for line in lines if line not in frames]
    causes = [line for line in said if line.startswith("Caused by:")]
    return "\n    ".join([*(line for line in said if line not in causes)][:TRACE_LINES] + causes[-CAUSES_MAX:])


def status_of(told: Mapping[str, Any]) -> Status:
    """From the answer to GET /connectors/{name}/status."""
    connector = told["connector"]
    return Status(told["name"], connector["state"], str(told.get("type") or "?"), str(connector.get("worker_id") or ""),
                  tuple(told.get("tasks") or ()), str(connector.get("trace") or ""))


def status(worker: Worker, name: str) -> Status:
    """Of a connector that may be too new to have one: then it is UNASSIGNED. Raises Refused."""
    try:
        return status_of(worker.client.get("connectors", name, "status"))
    except Refused as refused:
        if refused.status != 404:
            raise
        worker.client.get("connectors", name)  # raises where it is not there at all
        return Status(name, "UNASSIGNED", "?", "", ())


def wait(worker: Worker, name: str, state: str, timeout_s: float, *, changed: bool = True) -> Status:
    """The status once it is `state` or has failed, steadily where it was just `changed`, or the time is over."""
    deadline = time.monotonic() + timeout_s
    since, before = time.monotonic(), ""
    while True:
        now = status(worker, name)
        verdict = "failed" if now.failed else f"there {bool(now.tasks)}" if now.is_(state) else ""
        if verdict != before:
            since, before = time.monotonic(), verdict
        steady_s = 0.0 if not changed else STEADY_S if now.tasks or now.failed or state == "STOPPED" else NO_TASKS_S
        if (verdict and time.monotonic() - since >= steady_s) or time.monotonic() >= deadline:
            return now
        time.sleep(PAUSE_S)
