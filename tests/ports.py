"""A free port on loopback."""

from __future__ import annotations

import socket

from headrace.stack.ports import candidates


def free_port() -> int:
    """One that no connection to elsewhere takes while the server that is to have it is away."""
    for port in candidates():
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(s.getsockname()[1])
    raise AssertionError("no port is free")
