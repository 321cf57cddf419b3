"""For tests of the Connect worker's REST API: a client, tasks that do as they are told, the API in this process."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.connect import store
from headrace.connect.herder import Herder
from headrace.connect.spec import Spec
from headrace.connect.tasks import Done
from headrace.settings import Settings

READY_S = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; `data` is its JSON, None where there is no body."""

    status: int
    data: Any
    headers: dict[str, str]
    text: str


def ask(address: str, method: str, path: str, body: Any = None, *, content_type: str | None = "application/json",
        timeout_s: float = 60.0) -> Answer:
    """One request; `body` is sent as JSON, or as it is where it is bytes."""
    host, _, port = address.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
    try:
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if content_type is not None and raw is not None else {}
        connection.request(method, path, raw, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        kind = answer.getheader("Content-Type") or ""
        data = json.loads(text) if text and (kind.startswith("application/json") or text[0] in "{[") else None
        return Answer(answer.status, data, dict(answer.getheaders()), text)
    finally:
        connection.close()


@dataclass(slots=True)
class Scripted:
    """A task that does nothing, and reports what the test says."""

    spec: Spec
    number: int
    report: Callable[[str, str | None], None]
    done: Done
    error: BaseException | None = None
    calls: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self.calls.append("start")
        self.report("PAUSED" if "pause" in self.calls else "RUNNING", None)

    def pause(self) -> None:
        self.calls.append("pause")
        if "start" in self.calls:
            self.report("PAUSED", None)

    def resume(self) -> None:
        self.calls.append("resume")
        if not self.ended.is_set():
            self.report("RUNNING", None)

    def stop(self) -> None:
        self.calls.append("stop")
        self.ended.set()

    def join(self, timeout_s: float) -> bool:
        return self.ended.wait(timeout_s)

    def fail(self, trace: str, error: BaseException | None = None) -> None:
        self.error = error
        self.ended.set()
        self.report("FAILED", trace)


class Stage:
    """A herder whose tasks are scripted; `clock` is its time, `made` every task it made."""

    def __init__(self, project: Path, kept: store.Store | None = None) -> None:
        self.now = 1_000_000.0
        self.made: list[Scripted] = []
        self.herder = Herder(Settings(project, None, None), kept or store.Memory(), worker_id="here:1", group="g",
                             make=self.make, clock=lambda: self.now)

    def make(self, spec: Spec, number: int, settings: Settings, report: Callable[[str, str | None], None]) -> Scripted:
        task = Scripted(spec, number, report, Done(spec.name))
        self.made.append(task)
        return task


@contextmanager
def levels_kept() -> Iterator[None]:
    """The levels of this process's loggers are afterwards as they were."""
    there = {name: getattr(one, "level", 0) for name, one in logging.root.manager.loggerDict.items()}
    root = logging.root.level
    yield
    logging.root.setLevel(root)
    for name, one in logging.root.manager.loggerDict.items():
        if isinstance(one, logging.Logger):
            one.setLevel(there.get(name, logging.NOTSET))


def lines(project: Path, **more: str) -> dict[str, str]:
    """A source's configuration that is right, in `project`."""
    (project / "in.txt").write_text("one\ntwo\n")
    return {"connector.class": "FileStreamSource", "file": "in.txt", "topic": "t", **more}


@contextmanager
def served(herder: Herder) -> Iterator[str]:
    """The REST API of a herder on a free port of the loopback: its address."""
    from aiohttp import web

    from headrace.connect.rest.app import application

    ready, end = threading.Event(), threading.Event()
    found: list[str] = []

    async def main() -> None:
        runner = web.AppRunner(application(herder, cluster_id="cluster"), access_log=None, handle_signals=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.append("http://{}:{}".format(*runner.addresses[0][:2]))
        ready.set()
        await asyncio.to_thread(end.wait)
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(READY_S)
        yield found[0]
    finally:
        end.set()
        thread.join(READY_S)
