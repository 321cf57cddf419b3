"""Whoever takes triggers over HTTP, and fails as it may: 500, 429, too slow, a reset after it has taken one."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("500", "429", "slow", "reset")
WEIGHTS = (1.0, 1.0, 0.03, 1.0)
"""Few are slow: each holds a dispatcher up for its whole time-out."""
SLOW_S = 20.0


class Downstream:
    """`taken` counts each trigger's deliveries that were taken; `did`, the answers. `down` answers all with 500."""

    def __init__(self, rng: random.Random, share: float) -> None:
        self.rng, self.share = rng, share
        self.down = False
        self.taken: Counter[str] = Counter()
        self.did: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.url = ""

    def draw(self) -> str:
        """What to do with a request."""
        with self.lock:
            done = "500" if self.down else "taken"
            if not self.down and self.rng.random() < self.share:
                done = self.rng.choices(FAULTS, WEIGHTS)[0]
            self.did["down" if self.down else done] += 1
            return done

    def take(self, trigger: str) -> None:
        with self.lock:
            self.taken[trigger] += 1


@contextmanager
def downstream(rng: random.Random, share: float = 0.0) -> Iterator[Downstream]:
    """A server on a port of its own, which does a share of its requests wrong."""
    here = Downstream(rng, share)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            done = here.draw()
            if done in ("taken", "slow", "reset"):
                here.take(self.headers["webhook-id"])
            if done == "slow":
                here.ending.wait(SLOW_S)
            if done == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            try:
                self.send_response({"500": 500, "429": 429}.get(done, 202))
                if done == "429":
                    self.send_header("Retry-After", "1")
                self.send_header("Content-Length", "0")
                self.end_headers()
            except OSError:
                self.close_connection = True  # whoever asked did not wait

        def finish(self) -> None:
            try:
                super().finish()
            except (OSError, ValueError):
                pass  # reset

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    here.url = f"http://127.0.0.1:{server.server_port}/train"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield here
    finally:
        here.ending.set()
        server.shutdown()
        server.server_close()
        thread.join()

