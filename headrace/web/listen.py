"""A webhook: what is posted is kept in a bounded queue until it is in Kafka, and only then answered with 200.

    200  it is in Kafka; or was already, by its idempotency key         413  the body is too large
    400  a record is malformed: nothing of the body is taken            422  its key came with another body
    401  no secret, or the wrong one                                    429  the queue is full: Retry-After
    408  the body does not come to its end                              503  stopping; 504 it takes too long: retry, and
                                                                             with the same key it is not doubled
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.errors import UserError
from headrace.web.bodies import Made, Malformed, split
from headrace.web.seen import BODY_BYTES, KEY_BYTES, Seen, digest

if TYPE_CHECKING:
    from aiohttp import web

    from headrace.web.config import HttpSourceConfig

log = logging.getLogger("headrace.connect")
BODY_S, START_S, STOP_S = 30, 10, 3
TOLD_MAX = 100
"""Malformed records of a body that are told apart."""


class Stopping(Exception):
    """The connector stops; nobody knows yet whether the request came through."""


@dataclass(eq=False, slots=True)
class Request:
    """A request that was taken. `done` ends when its records are in Kafka."""

    records: Sequence[bytes]
    headers: Sequence[tuple[str, str]]
    size: int
    key: str | None = None
    body: str = ""
    done: Future[None] = field(default_factory=Future)


class Listener:
    """The server, in a thread of its own. `check` tells what is wrong with records, without keeping them."""

    def __init__(self, config: HttpSourceConfig, check: Callable[[Sequence[bytes]], Made], seen: Seen) -> None:
        self.config, self.check, self.seen = config, check, seen
        self.host, self.port, self.path = config.address
        self._waiting: deque[Request] = deque()
        self._bytes = 0
        self._ready = threading.Condition()
        """Guards the queue, its bytes, the keys under way and those seen."""
        self._under_way: dict[str, Request] = {}
        self._open: set[Request] = set()
        self._stopping = False

    # ---- the connector's thread

    def start(self) -> None:
        """Raises UserError where it cannot listen."""
        started: Future[int] = Future()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(started,), name=f"listen {self.port}", daemon=True)
        self._thread.start()
        try:
            self.port = started.result(START_S)
        except OSError as error:
            raise UserError(f"listen: {self.host}:{self.port} cannot be listened on: {error.strerror or error}",
                            hint="is another process there? see who, or take another port") from error
        log.info("listening", extra={"url": f"http://{self.host}:{self.port}{self.path}"})

    def take(self, records_max: int, wait_s: float) -> list[Request]:
        """Whole requests, up to so many records (one that has more comes alone); [] when none came meanwhile."""
        taken: list[Request] = []
        with self._ready:
            self._ready.wait_for(lambda: self._waiting, wait_s)
            count = 0
            while self._waiting and (not taken or count + len(self._waiting[0].records) <= records_max):
                taken.append(self._waiting.popleft())
                count += len(taken[-1].records)
        return taken

    def remember(self, requests: Sequence[Request]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What to commit with them."""
        with self._ready:
            return self.seen.add({r.key: r.body for r in requests if r.key is not None})

    def settle(self, requests: Sequence[Request]) -> None:
        """They are in Kafka: they are answered."""
        for one in requests:
            self._release(one, None)

    def stop(self) -> None:
        with self._ready:
            self._stopping = True
            left = list(self._open)
        for one in left:
            self._release(one, Stopping())
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(STOP_S * 2)

    def _release(self, one: Request, why: Exception | None) -> None:
        with self._ready:
            if one not in self._open:
                return
            self._open.discard(one)
            self._bytes -= one.size
            if one.key is not None:
                self._under_way.pop(one.key, None)
        if why is None:
            one.done.set_result(None)
        else:
            one.done.set_exception(why)

    # ---- the server's thread

    def _serve(self, started: Future[int]) -> None:
        try:
            self._loop.run_until_complete(self._server(started))
        except OSError as error:
            started.set_exception(error)
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _server(self, started: Future[int]) -> None:
        from aiohttp import web

        self._end = asyncio.Event()
        app = web.Application(client_max_size=self.config.body_bytes_max)
        app.router.add_post(self.path, self._posted)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
            started.set_result(runner.addresses[0][1])
            await self._end.wait()
        finally:
            await runner.cleanup()

    async def _posted(self, request: web.Request) -> web.Response:
        config = self.config
        if config.secret is not None and config.secret_kind == "header" and not self._allowed(request, b""):
            return answer(401, f"the header {config.secret_name} is missing, or wrong")
        size = request.content_length or config.body_bytes_max
        if size > config.body_bytes_max:
            return answer(413, f"{size:,} bytes, of at most {config.body_bytes_max:,}")
        with self._ready:
            room = not self._bytes or self._bytes + size <= config.queue_bytes_max
            self._bytes += size if room else 0
        if not room:
            return answer(429, "too much is waiting to be written", retry_after_s=1)
        kept = False
        try:
            body = await asyncio.wait_for(request.read(), BODY_S)
            if config.secret is not None and config.secret_kind == "hmac" and not self._allowed(request, body):
                return answer(401, f"the header {config.secret_name} is missing, or does not sign this body")
            made, kept = await self._taken(request, body, size)
            if not isinstance(made, Request):
                return made
        except TimeoutError:
            return answer(408, f"the body did not come within {BODY_S} s")
        finally:
            if not kept:
                with self._ready:
                    self._bytes -= size
        return await self._answered(made)

    def _allowed(self, request: web.Request, body: bytes) -> bool:
        config = self.config
        assert config.secret is not None
        secret = config.secret.get_secret_value().encode()
        given = request.headers.get(config.secret_name, "").encode()
        wanted = secret if config.secret_kind == "header" else (
            b"sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest().encode())
        return hmac.compare_digest(given, wanted)

    async def _taken(self, request: web.Request, body: bytes, size: int) -> tuple[Request | web.Response, bool]:
        """The request in the queue, and whether it is a new one there, or the one under way with the same key; or what
        to answer at once."""
        try:
            records = split(body)
            reasons = (await asyncio.to_thread(self.check, records)).reasons
        except Malformed as error:
            return answer(400, str(error)), False
        if reasons:
            told = [{"record": at, "reasons": list(why)} for at, why in sorted(reasons.items())[:TOLD_MAX]]
            return answer(400, f"{len(reasons)} of {len(records)} records are malformed; none was taken",
                          errors=told), False
        if not records:
            return answer(200, None, records=0), False
        name = request.headers.get(self.config.idempotency_header)
        headers = [(h, request.headers[h]) for h in self.config.headers if h in request.headers]
        one = Request(records, headers, size, digest(name.encode(), KEY_BYTES) if name else None,
                      digest(body, BODY_BYTES))
        with self._ready:
            if self._stopping:
                return answer(503, "stopping; ask again", retry_after_s=1), False
            if one.key is not None and (other := self._repeated(one)) is not None:
                return other, False
            self._open.add(one)
            self._waiting.append(one)
            self._ready.notify()
        return one, True

    def _repeated(self, one: Request) -> Request | web.Response | None:
        """What has the key already; None for a new one, which is under way from now on."""
        assert one.key is not None
        other = self._under_way.get(one.key)
        known = other.body if other is not None else self.seen.body_of(one.key)
        if known is not None and known != one.body:
            return answer(422, f"this {self.config.idempotency_header} came with another body before")
        if known is not None:
            return other or answer(200, None, records=len(one.records), repeated=True)
        if (wait_s := self.seen.full_for_s()) > 0:
            return answer(429, "too many idempotency keys", retry_after_s=wait_s)
        self._under_way[one.key] = one
        return None

    async def _answered(self, one: Request) -> web.Response:
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(one.done)), self.config.answer_timeout_ms / 1e3)
        except Stopping:
            return answer(503, "stopping; ask again", retry_after_s=1)
        except TimeoutError:
            return answer(504, "not in Kafka yet; ask again with the same key, or it may be there twice")
        return answer(200, None, records=len(one.records))


def answer(status: int, message: str | None, *, retry_after_s: float | None = None, **more: Any) -> web.Response:
    from aiohttp import web

    told: Mapping[str, Any] = more if message is None else {"error_code": status, "message": message, **more}
    headers = {} if retry_after_s is None else {"Retry-After": str(max(1, round(retry_after_s)))}
    return web.Response(status=status, text=json.dumps(told, ensure_ascii=False), content_type="application/json",
                        headers=headers)
