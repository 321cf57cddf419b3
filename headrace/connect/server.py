"""`headrace connect` as a worker: the herder, its store and the REST API, until it is told to stop.

With files it keeps nothing and takes no more than they say (Kafka Connect's standalone mode), though the API works on
them while it runs; without, it goes on with what the worker before it was told, which stands in Kafka.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from headrace.connect import config, store
from headrace.connect.herder import Herder
from headrace.connect.plugins import Refused
from headrace.errors import ConfigError, Fenced, Finding, UserError
from headrace.secrets import KNOWN
from headrace.settings import Settings
from headrace.topics import CONNECT_TIMEOUT_S, admin

log = logging.getLogger("headrace.connect")


def serve(settings: Settings, *, files: Sequence[Path] = (), listen: str | None = "127.0.0.1:8083",
          group: str = "headrace-connect", stop: threading.Event) -> None:
    """Run until `stop`, then end the tasks after their batches in hand. `listen` None: no REST API.

    Raises ConfigError for files that are wrong, UserError when the address cannot be listened at, BrokerError when
    Kafka is not there, Fenced when another worker takes this group over.
    """
    host, port = _address(listen) if listen is not None else ("127.0.0.1", 0)
    worker_id = f"{host}:{port}"
    fenced: list[Fenced] = []

    def shut_out(error: Fenced) -> None:
        fenced.append(error)
        stop.set()

    kept: store.Store = store.Memory() if files else store.Topics(settings, group, worker_id, shut_out)
    herder = Herder(settings, kept, worker_id=worker_id, group=group, scrubber=KNOWN)
    if listen is None:
        _run(herder, files, stop)
    else:
        _with_rest(herder, files, host, port, stop)
    if fenced:
        raise Fenced(f"another worker has taken over the group “{group}”: {fenced[0].what}",
                     hint="one worker a group: give this one a --group of its own, or let it end")


def _run(herder: Herder, files: Sequence[Path], stop: threading.Event) -> None:
    def take_files() -> None:
        for path in files:
            _create(herder, path)

    try:
        herder.start(take_files)
        log.info("the worker is ready", extra={"worker": herder.worker_id, "connectors": herder.names()})
        stop.wait()
    finally:
        herder.stop()


def _create(herder: Herder, path: Path) -> None:
    """The connector of a file. Raises ConfigError."""
    written = config.read(path)
    try:
        herder.create(str(written.name), {key: str(value) for key, value in written.keys.items()}, str(written.state))
    except Refused as error:
        raise ConfigError([Finding(str(path), 0, herder.scrubber.text(error.message))]) from None


def _with_rest(herder: Herder, files: Sequence[Path], host: str, port: int, stop: threading.Event) -> None:
    """The API answers from the beginning (GET /health says 503 until the worker is ready), and to the end."""
    from aiohttp import web

    from headrace.connect.rest.app import application

    async def main() -> None:
        runner = web.AppRunner(application(herder, cluster_id=await asyncio.to_thread(_cluster_id, herder.settings)),
                               access_log=None, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, reuse_address=True).start()
        except OSError as error:
            await runner.cleanup()
            raise UserError(f"cannot listen at {host}:{port}: {error.strerror}",
                            hint="is another worker running? give this one another --listen") from error
        if not ip_address(runner.addresses[0][0]).is_loopback:
            log.warning("whoever reaches this address can change the connectors", extra={"listen": f"{host}:{port}"})
        herder.worker_id = ":".join(map(str, runner.addresses[0][:2]))
        try:
            await asyncio.to_thread(_run, herder, files, stop)
        finally:
            await runner.cleanup()

    asyncio.run(main())


def _cluster_id(settings: Settings) -> str | None:
    """Raises BrokerError when Kafka does not answer."""
    from confluent_kafka import KafkaException

    client = admin(settings)  # kept: its answers are lost with it
    try:
        return str(client.describe_cluster().result(CONNECT_TIMEOUT_S).cluster_id)
    except KafkaException as error:
        log.warning("the cluster's id is not known", extra={"error": str(error)})
        return None


def _address(listen: str) -> tuple[str, int]:
    """Host and port of “host:port”, “[::1]:8083” or “:8083”. Raises UserError."""
    host, colon, port = listen.removeprefix("http://").rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise UserError(f"“{listen}” is no address to listen at", hint="write host:port, e.g. 127.0.0.1:8083")
    return host.strip("[]") or "127.0.0.1", int(port)
