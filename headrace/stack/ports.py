"""Ports: the usual ones where they are free, else any."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Iterator, Mapping

from headrace.stack.part import HOST, Ports

QUIET = range(20_000, 32_768)
"""Below the ports that a system gives to whoever connects: while a server is away, a client may sit on one of those."""
TRIES = 50


def candidates(*preferred: int) -> Iterator[int]:
    """The preferred ports in turn, 0 being none, then quiet ones, at last any."""
    yield from filter(None, preferred)
    yield from random.sample(QUIET, TRIES)
    yield 0


def choose(wanted: Ports, last: Mapping[str, int], taken: Collection[int] = ()) -> dict[str, int]:
    """A port for every name in `wanted`: the one it had last time, else the wanted one, else any that is free.

    0 asks for any. `taken` are ports that only look free: somebody was quicker.
    """
    chosen: dict[str, int] = {}
    held: list[socket.socket] = []
    try:
        for name, usual in wanted.items():
            for port in candidates(last.get(name, usual), usual):
                if port in taken:
                    continue
                held.append(bound := socket.socket())
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    bound.bind((HOST, port))
                except OSError:
                    continue
                chosen[name] = bound.getsockname()[1]
                break
    finally:
        for one in held:  # only now, so that no two names get the same
            one.close()
    return chosen
