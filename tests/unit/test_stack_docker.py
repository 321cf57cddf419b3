"""Whether a Docker engine answers, asked of sockets that do and that do not."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from headrace.stack.containers import engine_answers

pytestmark = pytest.mark.unit


def serve_once(listening: socket.socket, reply: bytes) -> None:
    connection, _ = listening.accept()
    with connection:
        assert connection.recv(100).startswith(b"GET /_ping ")
        connection.sendall(reply)


@pytest.mark.parametrize(("reply", "answers"), [(b"HTTP/1.1 200 OK\r\n\r\nOK", True), (b"", False),
                                                (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", False)])
def test_an_engine_is_one_that_says_200(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: bytes,
                                        answers: bool) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        serving = threading.Thread(target=serve_once, args=(listening, reply))
        serving.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 's'}")
        assert engine_answers() is answers
        serving.join()
    assert not engine_answers(), "the socket is there still, and nobody listens"


def test_no_socket_is_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'none'}")
    assert not engine_answers()
