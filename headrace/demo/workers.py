"""The demo's workers: `headrace run` in processes of their own, so that they can be killed like anybody's."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from headrace.demo.folder import Run, Staged
from headrace.errors import EnvironmentFault
from headrace.settings import Settings
from headrace.supervisor import python_command

STOP_S = 20.0
LOG_LINES = 8


@dataclass(slots=True)
class Worker:
    """One worker process of one flow."""

    staged: Staged
    process: subprocess.Popen[bytes]
    log: Path

    def running(self) -> bool:
        """Whether it lives. Raises EnvironmentFault, with the end of its log, when it ended badly by itself."""
        code = self.process.poll()
        if code:
            lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            raise EnvironmentFault(f"the worker of {self.staged.flow} ended with exit code {code}",
                                   hint="\n  ".join((f"the end of {self.log}:", *lines)))
        return code is None

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, which finishes the batch in hand; SIGKILL if that takes too long."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass(slots=True)
class Crew:
    """All workers of a run; whatever happens, none outlives it."""

    run: Run
    settings: Settings
    workers: list[Worker] = field(default_factory=list)

    def start(self, staged: Staged, *, drain: bool, batch: int) -> Worker:
        """A worker of this flow, in the run's folder."""
        log = self.run.folder / "logs" / f"{staged.act}-{staged.flow}.log"
        where = {"HEADRACE_BOOTSTRAP": self.settings.bootstrap or "",
                 "HEADRACE_REGISTRY": self.settings.registry_url or ""}
        command = python_command("run", str(staged.path), "--group", staged.group, "--batch", str(batch),
                                 *(["--drain"] if drain else []))
        with log.open("ab") as opened:  # a worker that was killed leaves its lines to the next
            process = subprocess.Popen(command, cwd=self.run.folder, env={**os.environ, **where},
                                       stdin=subprocess.DEVNULL, stdout=opened, stderr=opened)
        worker = Worker(staged, process, log)
        self.workers.append(worker)
        return worker

    @contextmanager
    def dismissed(self) -> Iterator[None]:
        """Stops them all at the end."""
        try:
            yield
        finally:
            for worker in self.workers:
                worker.stop()
