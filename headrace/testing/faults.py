"""What a proxy does to what passes, as data: the link's properties, and faults of single requests."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from headrace.testing.frames import Request


@dataclass(frozen=True, slots=True)
class Link:
    """The network between clients and brokers.

    Latencies in seconds, each way. `bytes_per_s` is shared by all connections, and counts each way for itself. A
    connection that has carried `reset_after_bytes`, both ways together, is reset, in the middle of a frame.
    """

    to_broker_s: float = 0.0
    to_client_s: float = 0.0
    bytes_per_s: int | None = None
    reset_after_bytes: int | None = None


class Action(Enum):
    """What may be done to a request."""

    HOLD = "it waits in the proxy, and what follows on its connection with it"
    HOLD_AND_CUT = "as HOLD, and its client's connection is reset at once"
    RESET = "its connection is reset; the broker does not get it"
    RESET_ANSWER = "the broker gets it; then its connection is reset in place of an answer"
    DROP_ANSWER = "the broker gets it; its answer is thrown away, and the client waits for its time-out"


@dataclass(slots=True)
class Held:
    """A request on its way. Its connection to the broker stays, whatever becomes of the client's."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    answer: asyncio.Future[bytes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Fault:
    """Something done to every request of an API key, until `stop()` or until it was done `times` times.

    With a `transactional_id` only to requests that carry it (Produce, InitProducerId, AddPartitionsToTxn,
    AddOffsetsToTxn, EndTxn, TxnOffsetCommit do). Made by the methods of `Proxy`, used from any thread.
    """

    def __init__(self, action: Action, api_key: int, transactional_id: str | None, times: int | None,
                 loop: asyncio.AbstractEventLoop) -> None:
        self.action, self.api_key, self.transactional_id, self.times = action, api_key, transactional_id, times
        self.done = 0
        """How often it was done so far."""
        self._loop = loop
        self._told = threading.Condition()
        self._held: list[Held] = []

    def wants(self, request: Request) -> bool:
        return (request.api_key == self.api_key and (self.times is None or self.done < self.times)
                and self.transactional_id in (None, request.transactional_id))

    def note(self, held: Held | None) -> None:
        """It is being done once more. Called by the proxy."""
        if held:
            self._held.append(held)
        with self._told:
            self.done += 1
            self._told.notify_all()

    def wait(self, done: int = 1, timeout_s: float = 30.0) -> None:
        """Until it was done this often in all. Raises TimeoutError."""
        with self._told:
            if not self._told.wait_for(lambda: self.done >= done, timeout_s):
                raise TimeoutError(f"{self.action.name} of API key {self.api_key} was done {self.done} times in "
                                   f"{timeout_s:g} s, not {done}")

    def stop(self) -> None:
        """Leave further requests alone. What is held stays held."""
        self.times = 0

    def release(self, timeout_s: float = 30.0) -> list[bytes]:
        """Let go of what is held; the broker's answers, without their length and correlation id, in the order in which
        the requests came. Waits for these answers. Raises TimeoutError, ConnectionError when the broker hung up."""
        return asyncio.run_coroutine_threadsafe(self._release(timeout_s), self._loop).result()

    async def _release(self, timeout_s: float) -> list[bytes]:
        held, self._held = self._held, []
        for one in held:
            one.gate.set()
        async with asyncio.timeout(timeout_s):
            return [await one.answer for one in held]


@dataclass(slots=True)
class Script:
    """What a proxy's connections share, changed while they run."""

    link: Link = field(default_factory=Link)
    faults: list[Fault] = field(default_factory=list)
    requests: Counter[int] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    free_at: dict[str, float] = field(default_factory=dict)
    """By way: when the link has carried what it took on, in the loop's time."""

    def fault(self, request: Request) -> Fault | None:
        return next((fault for fault in self.faults if fault.wants(request)), None)
