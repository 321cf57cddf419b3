"""A line to a server that can be cut and mended: whoever goes by its address meets the server, or nobody."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


class Wire:
    """Carries bytes between connections to `port` and the server, one thread a connection."""

    def __init__(self, host: str, port: int) -> None:
        self._there = (host, port)
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Connections end, and new ones are refused."""
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._there)
                self._open += [near, far]
                threading.Thread(target=_carry, args=(near, far), daemon=True).start()


def _carry(near: socket.socket, far: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError), near, far, selectors.DefaultSelector() as either:
        either.register(near, selectors.EVENT_READ, far)
        either.register(far, selectors.EVENT_READ, near)
        while True:
            for key, _ in either.select():
                data = key.fileobj.recv(65_536)  # type: ignore[union-attr]
                if not data:
                    return
                key.data.sendall(data)


@contextmanager
def wire(url: str) -> Iterator[tuple[Wire, str]]:
    """A wire to a server, and the URL by which it is found at its end."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    line = Wire(parts.hostname, parts.port)
    try:
        yield line, parts._replace(netloc=f"127.0.0.1:{line.port}").geturl()
    finally:
        line.cut()
