"""`headrace connectors` without a worker: addresses, passwords, certificates, what is said when something is wrong."""

from __future__ import annotations

import base64
import datetime
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from headrace import settings
from headrace.connectctl import files
from headrace.connectctl.client import Access, Client, Refused, Unreachable
from headrace.connectctl.waiting import Status, shortened
from headrace.connectctl.workers import DEFAULT_URL, workers
from headrace.errors import ConfigError, EnvironmentFault, HeadraceError, UserError
from headrace.settings import Settings

pytestmark = pytest.mark.unit

Answer = tuple[int, Any]


class Web:
    """A web server on this machine that says what it is told to; `asked` is what it was asked."""

    def __init__(self, answers: Callable[[str], Answer], context: ssl.SSLContext | None = None) -> None:
        self.asked: list[tuple[str, str | None]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.asked.append((self.path, self.headers["Authorization"]))
                status, body = answers(self.path)
                raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_PUT = do_GET

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def web() -> Iterator[Callable[..., Web]]:
    made: list[Web] = []

    def make(answers: Callable[[str], Answer], context: ssl.SSLContext | None = None) -> Web:
        made.append(Web(answers, context))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ask(url: str, **access: Any) -> Any:
    with Client(Access.of({"url": url, **access}), start="`headrace connect`") as client:
        return client.get("connectors")


def test_an_answer_and_a_password(web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch) -> None:
    server = web(lambda path: (200, ["a"]))
    expected = f"Basic {base64.b64encode(b'me:tiger').decode()}"
    monkeypatch.setenv("SOME_PASSWORD", "tiger")
    assert ask(server.url + "/") == ["a"]
    assert ask(server.url, username="me", password="tiger") == ["a"]
    assert ask(server.url, username="me", password_env="SOME_PASSWORD") == ["a"]
    assert ask(server.url.replace("http://", "http://me:tiger@")) == ["a"]
    assert [given for _, given in server.asked] == [None, expected, expected, expected]


@pytest.mark.parametrize(("status", "body", "error", "said"), [
    (404, {"error_code": 404, "message": "Connector x not found"}, Refused, "Connector x not found"),
    (409, {"error_code": 409, "message": "Connector x already exists"}, Refused, "already exists"),
    (401, "who are you", Refused, "check username and password"),
    (403, {"message": "not yours"}, Refused, "not yours"),
    (500, {"error_code": 500, "message": "Request timed out"}, EnvironmentFault, "the worker's log says more"),
    (502, "<html>bad gateway</html>", Unreachable, "is this a Connect worker's address?"),
    (302, "", Unreachable, "is this a Connect worker's address?"),
    (200, "<html>hello</html>", Unreachable, "with no JSON")])
def test_what_is_answered_is_said(web: Callable[..., Web], status: int, body: Any, error: type[HeadraceError],
                                  said: str) -> None:
    server = web(lambda path: (status, body))
    with pytest.raises(error) as told:
        ask(server.url.replace("http://", "http://me:tiger@"))
    assert said in str(told.value)
    assert server.url in str(told.value)  # which one it was
    assert "tiger" not in str(told.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize(("status", "message"), [
    (409, "Cannot complete request momentarily due to stale configuration (typically caused by a concurrent config "
          "change)"),
    (409, "Cannot complete request because of a conflicting operation (e.g. worker rebalance)"),
    (500, "Request cannot be completed because a rebalance is expected")])
def test_a_rebalance_is_waited_for(web: Callable[..., Web], status: int, message: str) -> None:
    answers: list[Answer] = [(status, {"message": message}), (status, {"message": message}), (200, ["a"])]
    server = web(lambda path: answers.pop(0))
    assert ask(server.url) == ["a"]
    assert not answers


def test_names_are_quoted(web: Callable[..., Web]) -> None:
    server = web(lambda path: (200, {}))
    with Client(Access.of({"url": server.url})) as client:
        client.ask("PUT", "connectors", "a/b ?#ü", "pause")
        client.get("connectors", expand=["info", "status"])
    assert [path for path, _ in server.asked] == ["/connectors/a%2Fb%20%3F%23%C3%BC/pause",
                                                  "/connectors?expand=info&expand=status"]


def test_nobody_and_too_late(web: Callable[..., Web]) -> None:
    with pytest.raises(Unreachable) as nobody:
        ask("http://127.0.0.1:9")
    assert "no Connect worker answers at http://127.0.0.1:9" in str(nobody.value)
    assert "HEADRACE_CONNECT" in str(nobody.value)
    go = threading.Event()
    server = web(lambda path: (go.wait(60), (200, []))[1])
    with pytest.raises(Unreachable, match=r"did not answer GET /connectors in 0\.2 s"):
        ask(server.url, timeout_s=0.2)
    go.set()


@pytest.mark.parametrize(("given", "said"), [
    ({"url": "localhost:8083"}, "“localhost:8083” is no address"), ({"url": ""}, "is no address"),
    ({"url": "http://a", "user": "x"}, "user"), ({"url": "http://a", "timeout_s": -1}, "timeout_s")])
def test_settings_that_are_none(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match="Connect worker") as told:
        Access.of(given)
    assert said in str(told.value)


def certificate(folder: Path) -> Path:
    """A certificate of 127.0.0.1's own, with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256()))
    path = folder / "server.pem"
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                       serialization.NoEncryption()) + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_tls(web: Callable[..., Web], tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.load_verify_locations(pem)
    server = web(lambda path: (200, ["a"]), context)
    assert ask(server.url, ca=str(pem)) == ["a"]
    assert ask(server.url, verify=False) == ["a"]
    with pytest.raises(Unreachable, match=r"not trusted(.|\n)*`ca` in"):
        ask(server.url)
    with pytest.raises(UserError, match="ca, cert, key"):
        ask(server.url, ca=str(tmp_path / "none.pem"))
    with pytest.raises(Unreachable, match="https"):
        ask(web(lambda path: (200, [])).url.replace("http:", "https:"), ca=str(pem))
    context.verify_mode = ssl.CERT_REQUIRED  # mutual, from now on
    assert ask(server.url, ca=str(pem), cert=str(pem)) == ["a"]


def test_where_workers_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_CONNECT", raising=False)

    def found(*given: str | None) -> list[tuple[str, bool]]:
        with workers(settings.load(tmp_path), *given) as made:
            return [(worker.url, worker.said) for worker in made.known]

    assert found() == [(DEFAULT_URL, False)]
    (tmp_path / ".headrace").mkdir()
    (tmp_path / ".headrace/stack.json").write_text(json.dumps({"connect": "http://127.0.0.1:18083"}))
    assert found() == [(DEFAULT_URL, False), ("http://127.0.0.1:18083", False)]
    (tmp_path / "headrace.toml").write_text('[connect]\nurl = "http://ours:1"\nusername = "me"\n'
                                            '[connect.java]\nurl = "https://java:2"\n')
    assert found() == [("http://ours:1", True), ("https://java:2", False)]
    monkeypatch.setenv("HEADRACE_CONNECT", "http://env:3")
    assert found() == [("http://env:3", True), ("https://java:2", False)]
    assert found("http://option:4") == [("http://option:4", True)]
    assert found("http://option:4", "http://option:5/") == [("http://option:4", True), ("http://option:5", True)]
    assert found("https://java:2", "https://java:2/") == [("https://java:2", True)]


def test_traces_are_shortened() -> None:
    java = ("org.apache.kafka.connect.errors.ConnectException: it fell\n\tat a.b.C.d(C.java:1)\n\t... 9 more\n"
            "Caused by: java.io.IOException: the disk\n\tat a.b.C.d(C.java:1)\nCaused by: x.Y: is full\n\tat z\n")
    assert shortened(java).split("\n    ") == [
        "org.apache.kafka.connect.errors.ConnectException: it fell", "Caused by: java.io.IOException: the disk",
        "Caused by: x.Y: is full"]
    python = 'Traceback (most recent call last):\n  File "x.py", line 1, in y\n    z()\nheadrace.errors.UserError: so\n'
    assert shortened(python) == "headrace.errors.UserError: so"
    assert shortened("") == ""


def test_what_a_status_says() -> None:
    def of(state: str, *tasks: str) -> Status:
        return Status("c", state, "sink", "", tuple({"id": at, "state": one, "trace": f"T{at}"}
                                                    for at, one in enumerate(tasks)))

    assert of("RUNNING", "RUNNING", "RUNNING").is_("RUNNING")
    assert not of("RUNNING", "RUNNING", "UNASSIGNED").is_("RUNNING")
    assert of("STOPPED").is_("STOPPED")
    assert of("RUNNING", "FAILED", "RUNNING").failed
    assert of("RUNNING", "FAILED", "RUNNING").failures == ["task 0: T0"]


def test_files_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "connectors"
    folder.mkdir()
    with pytest.raises(UserError, match="there are no connector files in"):
        files.paths([], tmp_path)
    for name in ("b.json", "a.json", "c.properties", "d.py"):
        (folder / name).write_text("name=a\n" if name.endswith("s") else '{"name": "a"}')
    assert [path.name for path in files.paths([], tmp_path)] == ["a.json", "b.json", "c.properties"]
    assert files.paths([folder / "a.json", folder], tmp_path)[0] == folder / "a.json"
    with pytest.raises(UserError, match="there is no file"):
        files.paths([tmp_path / "none.json"], tmp_path)
    with pytest.raises(ConfigError) as wrong:
        files.load([], tmp_path)
    assert len(wrong.value.findings) == 3  # of every file at once


def test_a_settings_object_shows_no_password(tmp_path: Path) -> None:
    made = Settings(tmp_path, None, None, connect={"url": "http://a", "password": "tiger"})
    with workers(made) as found:
        assert "tiger" not in repr(made) + repr(found)
