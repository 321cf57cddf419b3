"""The parent of several workers: one process a flow and slot, watched, and started again when one dies."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

log = logging.getLogger("headrace.supervisor")
RESTARTS_MAX = 10
RESTART_WAIT_S_MAX = 30.0
STEADY_S = 60.0  # a worker that lived this long starts counting afresh
STOP_S = 30.0


@dataclass(slots=True)
class Child:
    """A worker process: what starts it, and how often it died."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0
    again_at: float = 0.0
    done: bool = field(default=False)

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        self.started_at = time.monotonic()
        log.info("worker started", extra={"worker": self.name, "pid": self.process.pid})


def supervise(commands: Mapping[str, Sequence[str]]) -> int:
    """Start every command, watch until all ended well or we are told to stop; the exit code.

    A worker killed by a signal, or by an error of its environment, is started again after 1, 2, 4 … 30 s, at most
    ten times in a row. What a restart cannot mend (bad config: 1 and 2, fenced: 4) ends the others too.
    """
    children = [Child(name, command) for name, command in commands.items()]
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, frame: stopping.append(got))
    try:
        for child in children:
            child.start()
        while not stopping:
            codes = [_watch(child) for child in children]
            if hopeless := [code for code in codes if code is not None]:
                return hopeless[0]
            if all(child.done for child in children):
                return 0
            time.sleep(0.1)
        return 0
    finally:
        _stop(children)


def _watch(child: Child) -> int | None:
    """None while all is well; the exit code once it is hopeless."""
    now = time.monotonic()
    if child.done:
        return None
    if child.process is None:
        if now >= child.again_at:
            child.start()
        return None
    code = child.process.poll()
    if code is None:
        return None
    if code == 0:
        child.done = True
        return None
    child.deaths = 1 if now - child.started_at > STEADY_S else child.deaths + 1
    if code in (1, 2, 4) or child.deaths > RESTARTS_MAX:
        log.error("worker gave up", extra={"worker": child.name, "exit_code": code, "deaths": child.deaths})
        return code if code > 0 else 128 - code
    wait_s = 0.0 if child.deaths == 1 else min(2.0 ** (child.deaths - 2), RESTART_WAIT_S_MAX)
    log.warning("worker died", extra={"worker": child.name, "exit_code": code, "restart_in_s": wait_s})
    child.process, child.again_at = None, now + wait_s
    return None


def _stop(children: Sequence[Child]) -> None:
    running = [c.process for c in children if c.process is not None and c.process.poll() is None]
    for process in running:
        process.terminate()
    end = time.monotonic() + STOP_S
    for process in running:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def python_command(*arguments: str) -> list[str]:
    """This interpreter, running headrace with these arguments."""
    return [sys.executable, "-m", "headrace", *arguments]
