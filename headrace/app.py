"""The host: Faust's worker gives signals, supervision, timers and the web server; our engine is a service in it.

Faust's own Kafka client is not on the data path (docs/decisions/0002), so its app never connects to a broker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import faust
from faust.app.base import BootStrategy
from mode import Service

from headrace.worker import Worker

STALLED_S = 60.0


class NoKafka(BootStrategy):  # type: ignore[misc]
    """Boot without Faust's consumer and producer."""

    enable_kafka = False


class HostApp(faust.App):  # type: ignore[misc]
    BootStrategy = NoKafka


class Engine(Service):  # type: ignore[misc]
    """Runs a worker's blocking cycle in a thread, from the host's start to its stop."""

    def __init__(self, worker: Worker, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.worker = worker
        self.stopping = threading.Event()
        self.ended = threading.Event()
        self.error: BaseException | None = None

    async def on_start(self) -> None:
        threading.Thread(target=self._cycle, name="engine", daemon=True).start()

    def _cycle(self) -> None:
        try:
            self.worker.run(self.stopping)
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()
            if not self.stopping.is_set():
                os.kill(os.getpid(), signal.SIGTERM)  # drained, or failed: the host ends too

    async def on_stop(self) -> None:
        self.stopping.set()
        await asyncio.get_running_loop().run_in_executor(None, self.ended.wait)

    def healthy(self) -> bool:
        """The cycle has turned within the last minute."""
        return not self.ended.is_set() and time.monotonic() - self.worker.observer.alive_at < STALLED_S

    def ready(self) -> bool:
        """Partitions are assigned."""
        return self.healthy() and self.worker.observer.assigned


def _pages(app: faust.App, engine: Engine) -> None:
    @app.page("/metrics")  # type: ignore[untyped-decorator]
    async def metrics(view: Any, request: Any) -> Any:
        return view.bytes(engine.worker.observer.exposition(), content_type="text/plain")

    @app.page("/health")  # type: ignore[untyped-decorator]
    async def health(view: Any, request: Any) -> Any:
        return view.json({"healthy": engine.healthy()}, status=200 if engine.healthy() else 503)

    @app.page("/ready")  # type: ignore[untyped-decorator]
    async def ready(view: Any, request: Any) -> Any:
        return view.json({"ready": engine.ready()}, status=200 if engine.ready() else 503)


def host(worker: Worker, state: Path, *, http_port: int | None = None, http_host: str = "127.0.0.1") -> None:
    """Run a worker until SIGTERM, SIGINT, its drain, or its failure, which is raised here.

    With `http_port`: `/metrics` (Prometheus), `/health` (the cycle turns), `/ready` (partitions are assigned).
    """
    logging.getLogger(__name__).setLevel(logging.WARNING)  # where mode logs every start and stop of a service
    datadir = state / "faust" / worker.id
    datadir.mkdir(parents=True, exist_ok=True)
    app = HostApp(f"headrace-{worker.plan.flow}", broker="kafka://127.0.0.1:1", store="memory://",
                  datadir=str(datadir), web_enabled=http_port is not None,
                  web_port=http_port or 6066, web_bind=http_host, web_in_thread=False)
    engine = Engine(worker)
    if http_port is not None:
        _pages(app, engine)
    hosted = faust.Worker(app, engine, quiet=True, override_logging=False, redirect_stdouts=False, loglevel="WARN")
    hosted.spinner = None  # it writes terminal codes between the log's lines
    try:
        hosted.execute_from_commandline()
    except SystemExit as end:
        if engine.error is None and end.code not in (0, None):
            raise
    if engine.error is not None:
        raise engine.error
