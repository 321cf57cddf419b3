"""`headrace run` as processes to be broken: started, killed, stopped, continued; and what they logged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 240.0


def until(true: Callable[[], Any], what: str, within_s: float = PATIENCE_S, every_s: float = 0.05) -> float:
    """Wait for something; how long it took. Raises AssertionError when it does not come."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < within_s, f"waited {within_s:.0f} s in vain for {what}"
        time.sleep(every_s)
    return time.monotonic() - begun


class Worker:
    """One process of `headrace run FLOW …`. `fault` is what `staged` does in it; it never outlives us."""

    def __init__(self, project: Path, flow: str, *more: str, log: Path, fault: dict[str, Any] | None = None,
                 env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.log, self.name = log, log.stem
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "tests.faults.staged", json.dumps(fault or {}), "run", flow, *more],
                cwd=project, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={**os.environ, **(env or {}), "PYTHONPATH": path})

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def told(self, message: str) -> list[dict[str, Any]]:
        """The log's lines with this message."""
        lines = (line for line in self.text.splitlines() if f'"message": "{message}"' in line)
        return [json.loads(line) for line in lines]

    def stacks(self) -> str:
        """Where its threads are, when it hangs."""
        before = len(self.text)
        self.signal(signal.SIGRTMIN)
        time.sleep(1.0)
        return self.text[before:]

    def tail(self) -> str:
        return f"{self.name}, ended with {self.process.poll()}:\n{self.text[-3000:]}"

    def await_(self, message: str, within_s: float = PATIENCE_S) -> None:
        until(lambda: self.told(message) or self.process.poll() is not None, f"“{message}”", within_s)
        assert self.told(message), f"the worker ended before “{message}”: {self.tail()}"

    def await_end(self, within_s: float = PATIENCE_S) -> int:
        """Its exit code."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker goes on for {within_s:.0f} s: {self.tail()}") from None

    def await_stop(self, within_s: float = PATIENCE_S) -> None:
        """Until it has stopped itself (SIGSTOP)."""
        until(lambda: psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED, "SIGSTOP", within_s)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> float:
        """SIGKILL, also when it is stopped; when that was."""
        self.process.kill()
        self.process.wait()
        return time.time()

    def finish(self, within_s: float = 60.0) -> int:
        """SIGTERM: it ends after the batch in hand; its exit code."""
        self.process.terminate()
        return self.await_end(within_s)

    @property
    def rss_mb(self) -> float:
        try:
            return psutil.Process(self.process.pid).memory_info().rss / (1 << 20)
        except psutil.NoSuchProcess:
            return 0.0
