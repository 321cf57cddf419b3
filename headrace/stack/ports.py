"""Ports: the usual ones where they are free, else any."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping

from headrace.stack.part import HOST, Ports


def choose(wanted: Ports, last: Mapping[str, int], taken: Collection[int] = ()) -> dict[str, int]:
    """A port for every name in `wanted`: the one it had last time, else the wanted one, else any that is free.

    0 asks for any. `taken` are ports that only look free: somebody was quicker.
    """
    chosen: dict[str, int] = {}
    held: list[socket.socket] = []
    try:
        for name, usual in wanted.items():
            for port in (last.get(name, usual), usual, 0):
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
