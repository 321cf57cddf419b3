"""Tasks: what runs a connector, each in a thread of its own. Whoever starts them hears of their states.

    made ──start──► RUNNING ◄──resume── PAUSED            `report(state, trace)` is called from the task's thread
                       │   ───pause──►                     with RUNNING, PAUSED, FAILED (and why) or ENDED (the source
                       ├──► FAILED, with a trace           has no more, or `drain` and it has no more now).
                       ├──► ENDED                          `stop` is not reported: who asked for it waits by `join`.
                       └──stop──► (gone)
A task is started once; to restart is to make another. What it wrote is committed when `join` gives True.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from headrace.connect.spec import Spec, spec_of
from headrace.errors import Fenced, HeadraceError, UserError
from headrace.secrets import KNOWN
from headrace.settings import Settings

log = logging.getLogger("headrace.connect")
RUNNING, PAUSED, FAILED, ENDED = "RUNNING", "PAUSED", "FAILED", "ENDED"
Report = Callable[[str, str | None], None]
"""(state, trace)"""


class Task(Protocol):
    """One task of a connector, as its owner sees it. Every method may be called from any thread."""

    done: Done
    error: BaseException | None
    """What it failed by."""

    def start(self) -> None:
        """Begin; paused, if `pause` was called before."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...

    def stop(self) -> None:
        """Finish the batch in hand and end. Returns at once."""

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; whether it came."""


@dataclass(slots=True)
class Done:
    """What a task has done and committed since it began. Another thread may read it at any time."""

    connector: str
    topic: str = ""
    """The last it wrote to, or read from."""
    records: int = 0
    rejected: int = 0
    seconds: float = 0.0
    position: dict[str, Any] | None = None
    topics: set[str] = field(default_factory=set)
    """All that it wrote to, or read from: Kafka Connect's “active topics”."""


class Controls:
    """How a task's thread is spoken to. `changed` is set whenever something is asked for; `stop` ends every wait."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.changed = threading.Event()
        self.paused = False

    def ask(self, *, paused: bool | None = None, stop: bool = False) -> None:
        self.paused = self.paused if paused is None else paused
        if stop:
            self.stop.set()
        self.changed.set()

    def wait(self, seconds: float) -> None:
        """Until something is asked for, but no longer than `seconds`."""
        self.changed.wait(seconds)
        self.changed.clear()


class Threaded:
    """A task: `run` of a runner, in a thread, its end told. The secrets of its spec are looked up when it starts."""

    def __init__(self, spec: Spec, number: int, settings: Settings, report: Report, *, drain: bool = False) -> None:
        self.spec, self.number, self.settings, self.drain = spec, number, settings, drain
        self.controls = Controls()
        self.done = Done(spec.name)
        self.error: BaseException | None = None
        self._report = report
        self._thread = threading.Thread(target=self._run, name=f"{spec.name}-{number}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def pause(self) -> None:
        self.controls.ask(paused=True)

    def resume(self) -> None:
        self.controls.ask(paused=False)

    def stop(self) -> None:
        self.controls.ask(stop=True)

    def join(self, timeout_s: float) -> bool:
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def report(self, state: str, trace: str | None = None) -> None:
        log.info("task", extra={"connector": self.spec.name, "task": self.number, "state": state})
        self._report(state, trace)

    def _run(self) -> None:
        try:
            self.spec = live(self.spec)
            _runner(self.spec, self).run()
        except BaseException as error:
            self.error = error
            self.report(FAILED, trace_of(error, self.spec))
            return
        if not self.controls.stop.is_set():
            self.report(ENDED)


def task(spec: Spec, number: int, settings: Settings, report: Report, *, drain: bool = False) -> Task:
    """Task `number` (from 0) of a connector, not yet started. With `drain` it ends where there is no more now."""
    return Threaded(spec, number, settings, report, drain=drain)


def _runner(spec: Spec, task: Threaded) -> Any:
    if spec.kind == "source":
        from headrace.connect.source_task import SourceTask

        return SourceTask(spec, task)
    from headrace.connect.sink_task import SinkTask

    return SinkTask(spec, task)


def live(spec: Spec) -> Spec:
    """The spec with its secrets as they are now. Raises UserError."""
    fresh, problems = spec_of(spec.raw, spec.project)
    if fresh is None:
        raise UserError("; ".join(one.message for one in problems))
    return fresh


def trace_of(error: BaseException, spec: Spec) -> str:
    """Why a task failed: what was said, then where. Without the connector's secrets."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, UserError | Fenced):  # what to do is in the message; where in our code it was is not of use
        return KNOWN.text(said)
    frames = "".join(traceback.format_exception(error, limit=-12))
    return KNOWN.text(f"{said}\n{frames}" if isinstance(error, HeadraceError) else frames)
