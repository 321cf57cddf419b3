"""An HTTP proxy that does harm by script: between a client and a real server."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAULTS = ("500 before", "500 after", "cut before", "cut after", "half an answer", "silence before", "silence after")
"""What may be done to a request, before or after the server has it."""


class Proxy(ThreadingHTTPServer):
    """Forwards to `url`; the next of `faults` is done to each request for a DAG run. `late_s`: every answer waits."""

    daemon_threads = True

    def __init__(self, url: str, silence_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(url).netloc
        self.faults: deque[str] = deque()
        self.done: list[str] = []
        self.late_s = 0.0
        self.silence_s = silence_s

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def script(self, faults: Iterable[str]) -> None:
        self.faults = deque(faults)
        self.done = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.faults.popleft() if "dagRuns" in self.path and self.server.faults else ""
        if fault:
            self.server.done.append(f"{fault}: {self.command}")
        if not fault.endswith("before"):
            status, headers, answer = self._forward(body)
            time.sleep(self.server.late_s)
        if fault.startswith("silence"):
            time.sleep(self.server.silence_s)
        if fault.startswith(("silence", "cut")):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault.startswith("500"):
            self._answer(500, {}, b'{"detail": "by the proxy"}')
        else:
            self._answer(status, headers, answer, whole=fault != "half an answer")

    do_GET = do_POST = do_PATCH = do_DELETE = _any

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        with contextlib.closing(upstream):
            kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            upstream.request(self.command, self.path, body, kept)
            got = upstream.getresponse()
            return got.status, {"Content-Type": got.headers.get("Content-Type", "")}, got.read()

    def _answer(self, status: int, headers: dict[str, str], body: bytes, whole: bool = True) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if whole else body[:len(body) // 2])
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def between(url: str, silence_s: float) -> Iterator[Proxy]:
    proxy = Proxy(url, silence_s)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join(60)
