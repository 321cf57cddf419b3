"""A Kafka proxy that does harm by script, between real clients and a real cluster: for users' tests as well as ours.

    with Proxy("127.0.0.1:9092") as proxy:
        producer = Producer({"bootstrap.servers": proxy.bootstrap, …})
        proxy.link = Link(to_broker_s=0.2, to_client_s=0.2, bytes_per_s=64_000)   # a slow line
        proxy.cut(); time.sleep(5); proxy.heal()                                  # no line
        held = proxy.hold(Api.END_TXN, transactional_id="orders", cut=True)       # a request that comes late
        …
        held.release()

It knows where a message of Kafka's protocol ends, what it asks for, and where an answer names a broker: clients that
find it as their bootstrap server stay on it, whatever they learn. One port on loopback for each broker of the cluster.

Bounds: no TLS (it could not read what passes; SASL over plain text is fine). Clients are told of no Produce newer than
version 9, no Fetch newer than 15 and no share groups, since later answers name brokers in places of their own; Kafka's
Java client needs a newer Produce where transaction.version is 2. A broker that is down looks, through it, like one that
hangs up at once. A request that a client's acks=0 leaves unanswered cannot have its answer dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from headrace.testing.faults import Action, Fault, Link, Script
from headrace.testing.frames import Api
from headrace.testing.relay import Relay, reset

__all__ = ["Action", "Api", "Fault", "Link", "Proxy"]

HOST = "127.0.0.1"
CALL_TIMEOUT_S = 30.0
T = TypeVar("T")


class Proxy:
    """Between clients and the cluster at `bootstrap` ("host:port,…"), from `with` to its end, in a thread of its own.

    Methods may be called from any thread, and hold for connections that are there as well as for later ones.
    """

    def __init__(self, bootstrap: str) -> None:
        self._wanted = [(host.strip("[] "), int(port))
                        for host, _, port in (server.rpartition(":") for server in bootstrap.split(","))]
        self._script = Script()
        self._ports: dict[tuple[str, int], socket.socket] = {}  # bound, never listening: the port stays ours in a cut
        self._servers: list[asyncio.Server] = []
        self._relays: set[Relay] = set()
        self._serving: set[asyncio.Task[Any]] = set()
        self._is_cut = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="headrace-proxy", daemon=True)

    # ── from `with` to its end ───────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Proxy:
        self._thread.start()
        for host, port in self._wanted:
            self._call(self._locate(host, port))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()
        for bound in self._ports.values():
            bound.close()

    @property
    def bootstrap(self) -> str:
        """`bootstrap.servers` for clients that shall come through here."""
        return ",".join(f"{HOST}:{self._ports[at].getsockname()[1]}" for at in self._wanted)

    # ── the line ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def link(self) -> Link:
        """Latency, bandwidth and resets after so many bytes; assign another `Link` to change them."""
        return self._script.link

    @link.setter
    def link(self, link: Link) -> None:
        self._script.link = link
        self._script.free_at.clear()

    def cut(self) -> None:
        """Reset every connection and refuse new ones, until `heal()`. Requests that are held still go out later."""
        self._call(self._cut())

    def heal(self) -> None:
        """Accept connections again."""
        self._call(self._heal())

    # ── single requests ──────────────────────────────────────────────────────────────────────────────────────────

    def hold(self, api_key: int, *, transactional_id: str | None = None, times: int | None = None,
             cut: bool = False) -> Fault:
        """Keep requests back, and with each what follows on its connection, until `release()` of what this returns.

        The broker gets them then, though their client may have hung up since. With `cut` its connection is reset as
        the request comes: the client tries again elsewhere, and what was held is delivered late.
        """
        return self._add(Action.HOLD_AND_CUT if cut else Action.HOLD, api_key, transactional_id, times)

    def reset(self, api_key: int, *, transactional_id: str | None = None, times: int | None = None,
              answered: bool = False) -> Fault:
        """Reset a connection as a request comes that the broker then never gets; if `answered`, as its answer comes:
        what it asked for is done, and the client does not know."""
        return self._add(Action.RESET_ANSWER if answered else Action.RESET, api_key, transactional_id, times)

    def drop(self, api_key: int, *, transactional_id: str | None = None, times: int | None = None) -> Fault:
        """Throw answers away: the broker does what it was asked for, the client waits for its time-out."""
        return self._add(Action.DROP_ANSWER, api_key, transactional_id, times)

    def _add(self, action: Action, api_key: int, transactional_id: str | None, times: int | None) -> Fault:
        fault = Fault(action, api_key, transactional_id, times, self._loop)
        self._script.faults = [*self._script.faults, fault]
        return fault

    # ── what it saw ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def requests(self) -> dict[int, int]:
        """API key → requests that came, those that were held or reset included."""
        return dict(self._script.requests)

    @property
    def answers(self) -> dict[int, int]:
        """API key → answers that came from brokers, those that were dropped included."""
        return dict(self._script.answers)

    @property
    def connections(self) -> int:
        """Connections that are open, on either side."""
        return len(self._relays)

    # ── in the thread of its own ─────────────────────────────────────────────────────────────────────────────────

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_TIMEOUT_S)

    async def _locate(self, host: str, port: int) -> tuple[str, int]:
        """Where we listen for this broker; from now on, if it is new."""
        if (host, port) not in self._ports:
            self._ports[host, port] = _bound(0)
            if not self._is_cut:
                await self._listen(host, port)
        return HOST, int(self._ports[host, port].getsockname()[1])

    async def _listen(self, host: str, port: int) -> None:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving = self._loop.create_task(self._serve(host, port, reader, writer))
            self._serving.add(serving)
            serving.add_done_callback(self._serving.discard)

        listening = _bound(self._ports[host, port].getsockname()[1])
        self._servers.append(await asyncio.start_server(accept, sock=listening))

    async def _serve(self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):  # no broker there: the client sees its connection end
                broker = await asyncio.open_connection(host, port)
                await self._relay(Relay(self._script, self._locate, (reader, writer), broker))
        finally:
            reset(writer)

    async def _relay(self, relay: Relay) -> None:
        self._relays.add(relay)
        try:
            if self._is_cut:
                relay.cut()
            await relay.run()
        finally:
            self._relays.discard(relay)

    async def _cut(self) -> None:
        self._is_cut = True
        for server in self._servers:
            server.close()
        self._servers = []
        for relay in self._relays:
            relay.cut()

    async def _heal(self) -> None:
        if self._is_cut:
            self._is_cut = False
            for host, port in self._ports:
                await self._listen(host, port)

    async def _close(self) -> None:
        await self._cut()
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next round


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((HOST, port))
    return made
