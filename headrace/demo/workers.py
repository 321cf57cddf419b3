"""The demo's processes: `headrace run` and the like, each by itself, so that it can be killed like anybody's."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from headrace.demo.folder import Run, Staged
from headrace.errors import EnvironmentFault, Retriable
from headrace.settings import Settings
from headrace.supervisor import python_command

STOP_S = 20.0
LOG_LINES = 8


@dataclass(slots=True)
class Worker:
    """One process: the worker of a flow, a part of the loop, or what reckons beside them."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def running(self) -> bool:
        """Whether it lives. Raises EnvironmentFault, with the end of its log, when it ended badly by itself."""
        code = self.process.poll()
        if code:
            lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            raise EnvironmentFault(f"the worker of {self.name} ended with exit code {code}",
                                   hint="\n  ".join((f"the end of {self.log}:", *lines)))
        return code is None

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ask_to_stop(self) -> None:
        """SIGTERM, which finishes the batch in hand."""
        if self.process.poll() is None:
            self.process.terminate()

    def stop(self, within_s: float = STOP_S) -> None:
        """The same, and wait for it; SIGKILL if that takes too long."""
        self.ask_to_stop()
        try:
            self.process.wait(max(within_s, 0.1))
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass(slots=True)
class Crew:
    """All processes of a run; whatever happens, none outlives it."""

    run: Run
    settings: Settings
    workers: list[Worker] = field(default_factory=list)

    def start(self, staged: Staged, *, drain: bool, batch: int) -> Worker:
        """A worker of this flow, in the run's folder."""
        return self.spawn(staged.flow, f"{staged.act}-{staged.flow}", python_command(
            "run", str(staged.path), "--group", staged.group, "--batch", str(batch), *(["--drain"] if drain else [])))

    def spawn(self, name: str, log: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> Worker:
        """A process in the run's folder, told where the cluster is and to keep its models in the run."""
        file = self.run.folder / "logs" / f"{log}.log"
        where = {"HEADRACE_BOOTSTRAP": self.settings.bootstrap or "",
                 "HEADRACE_REGISTRY": self.settings.registry_url or "", "MLFLOW_TRACKING_URI": self.run.mlflow_uri,
                 **({"HEADRACE_LOGIN": self.settings.login} if self.settings.login else {})}
        with file.open("ab") as opened:  # a worker that was killed leaves its lines to the next
            process = subprocess.Popen(command, cwd=self.run.folder, env={**os.environ, **where, **(env or {})},
                                       stdin=subprocess.DEVNULL, stdout=opened, stderr=opened)
        worker = Worker(name, process, file)
        self.workers.append(worker)
        return worker

    @contextmanager
    def dismissed(self) -> Iterator[None]:
        """Stops them all at the end, at once, and then the trainings: those outlive who asked for them."""
        try:
            yield
        finally:
            for worker in self.workers:
                worker.ask_to_stop()
            end = time.monotonic() + STOP_S
            for worker in self.workers:
                worker.stop(end - time.monotonic())
            self._end_trainings()

    def _end_trainings(self) -> None:
        from headrace.loop.dispatch.local import Local, LocalConfig

        local = Local(LocalConfig.model_validate({}), project=self.run.folder)
        for request in self.run.folder.glob(".headrace/runs/*/request.json"):
            with suppress(Retriable):  # it was killed, and the kernel is slow
                local.cancel(request.parent.name, None)
