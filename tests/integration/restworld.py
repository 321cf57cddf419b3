"""Connect workers for tests: in this process, or in one of their own that can be killed."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.connect.server import serve
from headrace.settings import Settings
from tests.ports import free_port
from tests.unit.restkit import Answer, ask

READY_S = 60.0
SCRIPT = """
import signal, sys, threading
from pathlib import Path
from headrace import logs, settings
from headrace.connect.server import serve
logs.set_up("debug")
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
serve(settings.load(Path(sys.argv[1])), listen=sys.argv[2], group=sys.argv[3], stop=stop)
"""


@dataclass(slots=True)
class Worker:
    """A worker and its address. `heard` has the text of every answer it gave."""

    address: str
    process: subprocess.Popen[bytes] | None = None
    heard: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        answer = ask(self.address, method, path, body)
        self.heard.append(f"{answer.headers} {answer.text}")
        return answer

    def state(self, name: str) -> tuple[str, list[str]]:
        told = self.ask("GET", f"/connectors/{name}/status").data
        return told["connector"]["state"], [task["state"] for task in told["tasks"]]

    def until(self, path: str, holds: Callable[[Any], bool], seconds: float = READY_S) -> Any:
        """GET until the answer's data are as wanted; these."""
        end = time.monotonic() + seconds
        while not holds(data := self.ask("GET", path).data):
            assert time.monotonic() < end, f"{path} stays {data}"
            time.sleep(0.1)
        return data


def group() -> str:
    return f"g{uuid.uuid4().hex[:10]}"


@contextmanager
def inside(settings: Settings, of: str | None, files: tuple[Path, ...] = ()) -> Iterator[Worker]:
    """A worker in this process; it ends with the block, and raises what it ended by."""
    stop, worker = threading.Event(), Worker(f"http://127.0.0.1:{free_port()}")
    ended: list[BaseException] = []

    def run() -> None:
        try:
            serve(settings, files=files, listen=worker.address, group=of or group(), stop=stop)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        _await(worker, lambda: not ended)
        yield worker
    finally:
        stop.set()
        thread.join(READY_S)
        assert not thread.is_alive()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()  # a connection that was being accepted as the loop ended, not in some later test
        if ended:
            raise ended[0]


@contextmanager
def process(project: Path, of: str, log: Path) -> Iterator[Worker]:
    """A worker in a process of its own, its log at debug level; it is ended with the block, however it is then."""
    address = f"127.0.0.1:{free_port()}"
    with log.open("ab") as out:
        started = subprocess.Popen([sys.executable, "-c", SCRIPT, str(project), address, of], stdout=out, stderr=out)
    worker = Worker(f"http://{address}", started)
    try:
        _await(worker, lambda: started.poll() is None)
        yield worker
    finally:
        started.terminate()
        try:
            started.wait(60)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def _await(worker: Worker, alive: Callable[[], bool]) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end and alive():
        try:
            if worker.ask("GET", "/health").status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("the worker did not become ready")
