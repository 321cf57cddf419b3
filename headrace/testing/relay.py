"""One client's connection through the proxy: two readers, two senders, a queue between."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from headrace.testing.faults import Action, Held, Script
from headrace.testing.frames import Address, Api, Request, addresses, capped, readdressed, request

log = logging.getLogger(__name__)

TO_BROKER, TO_CLIENT = "to broker", "to client"
FRAMES_MAX = 64
"""Waiting for their time in one direction of one connection; what comes after waits in its sender's socket."""
PIECES_PER_S = 20
FRAME_BYTES_MAX = 1 << 28
"""A broker takes 100 MB; the first bytes of TLS, read as a length, are more than this."""
_NO_LINGER = struct.pack("ii", 1, 0)

Locate = Callable[[str, int], Awaitable[tuple[str, int]]]
"""A broker's address → where the proxy listens for it."""


@dataclass(slots=True)
class _Parcel:
    """A frame, with its length in front, due at a time of the loop's clock."""

    due: float
    data: bytes
    held: Held | None = None


@dataclass(slots=True)
class _Asked:
    """A request that the broker has not answered yet."""

    request: Request
    action: Action | None
    held: Held | None


class Relay:
    """Carries frames both ways until one side hangs up. What the client sent before it did still goes to the broker."""

    def __init__(self, script: Script, locate: Locate, client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
                 broker: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.script, self.locate = script, locate
        self._from_client, self._client = client
        self._from_broker, self._broker = broker
        self._to_broker: asyncio.Queue[_Parcel | None] = asyncio.Queue(FRAMES_MAX)
        self._to_client: asyncio.Queue[_Parcel | None] = asyncio.Queue(FRAMES_MAX)
        self._asked: dict[int, _Asked] = {}
        self._holding: list[Held] = []
        self._carried = 0

    async def run(self) -> None:
        """Until both sides are done."""
        tasks = [asyncio.create_task(work) for work in (
            self._requests(), self._send(self._to_broker, self._broker, TO_BROKER),
            self._answers(), self._send(self._to_client, self._client, TO_CLIENT))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            reset(self._client)
            reset(self._broker)

    def cut(self) -> None:
        """Reset the client's connection, and the broker's too unless a request is held on its way to it."""
        reset(self._client)
        if all(held.gate.is_set() for held in self._holding):
            reset(self._broker)

    async def _requests(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                data = await _frame(self._from_client)
                due = asyncio.get_running_loop().time() + self.script.link.to_broker_s
                asked = request(data[4:])
                self.script.requests[asked.api_key] += 1
                action, held = self._harmed(asked)
                if action is Action.RESET:
                    self.cut()
                    break
                if action is Action.HOLD_AND_CUT:
                    reset(self._client)
                self._asked[asked.correlation_id] = _Asked(asked, action, held)
                await self._to_broker.put(_Parcel(due, data, held))
        await self._to_broker.put(None)

    def _harmed(self, asked: Request) -> tuple[Action | None, Held | None]:
        """What is done to a request; the fault is told, so that it does no more than was asked for."""
        fault = self.script.fault(asked)
        if fault is None:
            return None, None
        held = Held() if fault.action in (Action.HOLD, Action.HOLD_AND_CUT) else None
        if held:
            self._holding.append(held)
        fault.note(held)
        return fault.action, held

    async def _answers(self) -> None:
        try:
            await self._take_answers()
        finally:
            for held in self._holding:
                if not held.answer.done():
                    held.answer.set_exception(ConnectionResetError("the broker hung up before it answered"))
                    held.answer.exception()  # seen: nobody need wait for it
        await self._to_client.put(None)

    async def _take_answers(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                data = await _frame(self._from_broker)
                due = asyncio.get_running_loop().time() + self.script.link.to_client_s
                asked = self._asked_for(int.from_bytes(data[4:8], "big"))
                if asked is not None:
                    self.script.answers[asked.request.api_key] += 1
                    if asked.held is not None:
                        asked.held.answer.set_result(data[8:])
                    if asked.action is Action.DROP_ANSWER:
                        continue
                    if asked.action is Action.RESET_ANSWER:
                        self.cut()
                        break
                    data = await self._rewritten(asked.request, data)
                await self._to_client.put(_Parcel(due, data))

    def _asked_for(self, correlation_id: int) -> _Asked | None:
        """The request of this answer; those before it, which a broker answers in order, want none (acks=0)."""
        if correlation_id not in self._asked:
            return None
        while True:
            first = next(iter(self._asked))
            asked = self._asked.pop(first)
            if first == correlation_id:
                return asked

    async def _rewritten(self, asked: Request, data: bytes) -> bytes:
        frame = data[4:]
        if asked.api_key == Api.API_VERSIONS:
            frame = capped(asked.version, frame)
        found = addresses(asked.api_key, asked.version, frame)
        if found:
            places = {(a.host, a.port): await self.locate(a.host, a.port) for a in found if a.host}

            def place(named: Address) -> tuple[str, int]:
                return places[named.host, named.port]

            frame = readdressed(asked.api_key, asked.version, frame, place)
        return len(frame).to_bytes(4, "big") + frame

    async def _send(self, parcels: asyncio.Queue[_Parcel | None], writer: asyncio.StreamWriter, way: str) -> None:
        """Each parcel in its turn and at its time. Goes on taking when nobody is there to receive any more."""
        loop = asyncio.get_running_loop()
        while parcel := await parcels.get():
            if parcel.held is not None:
                await parcel.held.gate.wait()
            if (wait := parcel.due - loop.time()) > 0:
                await asyncio.sleep(wait)
            with contextlib.suppress(OSError):
                await self._carry(parcel.data, writer, way)
        with contextlib.suppress(OSError):
            if writer is self._broker:
                if self._holding:
                    await asyncio.wait([held.answer for held in self._holding])
                writer.write_eof()  # the broker hangs up when it has answered what came before
            else:
                writer.close()

    async def _carry(self, data: bytes, writer: asyncio.StreamWriter, way: str) -> None:
        loop = asyncio.get_running_loop()
        at = 0
        while at < len(data) and not writer.is_closing():
            link = self.script.link
            size = len(data) - at
            if link.bytes_per_s is not None:
                size = min(size, max(1, link.bytes_per_s // PIECES_PER_S))
                start = max(loop.time(), self.script.free_at.get(way, 0.0))
                self.script.free_at[way] = start + size / link.bytes_per_s
                await asyncio.sleep(self.script.free_at[way] - loop.time())
            ends = link.reset_after_bytes is not None and self._carried + size >= link.reset_after_bytes
            if ends:
                size = max(0, (link.reset_after_bytes or 0) - self._carried)
            writer.write(data[at:at + size])
            self._carried += size
            if ends:
                self.cut()
                return
            await writer.drain()
            at += size


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame with its length. Raises EOFError, OSError."""
    size = await reader.readexactly(4)
    if (length := int.from_bytes(size, "big")) > FRAME_BYTES_MAX:
        log.warning("what passes is not Kafka's protocol in plain text: is it TLS?")
        raise ConnectionAbortedError
    return size + await reader.readexactly(length)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection at once, with RST."""
    if not writer.is_closing():
        with contextlib.suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
