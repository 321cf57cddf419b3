"""webhook: what is sent and how each answer is taken, by a real HTTP server; signatures against MLflow's own code."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import HeadraceError, Retriable, UserError
from headrace.loop.dispatch import Refused, Resources, request_from_json, rest
from headrace.loop.dispatch.webhook import TOLERANCE_S, Unverified, Webhook, WebhookConfig, key_of, sign, verify
from tests.unit.test_dispatch_local import request

pytestmark = pytest.mark.unit

Answers = list[tuple[int, dict[str, str], Any]]
SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()


class Trainer:
    """A service that trains: answers by script, remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: Answers = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        trainer = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                trainer.asked.append((self.command, self.path, dict(self.headers.items()), body))
                status, headers, answer = trainer.answers.pop(0)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = _any

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()


@pytest.fixture
def trainer() -> Iterator[Trainer]:
    found = Trainer()
    yield found
    found.server.shutdown()
    found.server.server_close()
    found.thread.join(60)


@pytest.fixture
def hook(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Webhook]:
    monkeypatch.setenv("TRAINER_SECRET", SECRET)

    def make(**config: Any) -> Webhook:
        return Webhook(WebhookConfig(**{"url": f"{trainer.url}/train", "secret_env": "TRAINER_SECRET", **config}),
                       project=tmp_path)

    return make


def test_what_is_sent(trainer: Trainer, hook: Callable[..., Webhook]) -> None:
    trainer.answers = [(202, {}, {"run": "17"})]
    status = hook(status_url=f"{trainer.url}/runs/{{trigger}}", headers={"X-Team": "ops"}).submit(
        request(), Resources(2, 512))
    assert (status.state, status.run) == ("queued", "17")
    (method, path, headers, body), = trainer.asked
    assert (method, path, headers["X-Team"]) == ("POST", "/train", "ops")
    assert headers["Idempotency-Key"] == headers["Webhook-Id"] == request().id
    assert verify(headers, body, SECRET) == request().id
    assert json.loads(body)["resources"] == {"cpu": 2, "memory_mb": 512, "gpu": 0, "seconds_max": 3600}
    assert request_from_json(body.decode()).to_json() == request().to_json()


@pytest.mark.parametrize("status", [200, 201, 202, 204, 409])
def test_taken_or_there_already(trainer: Trainer, hook: Callable[..., Webhook], status: int) -> None:
    trainer.answers = [(status, {}, b"")]
    said = hook().submit(request(), Resources(None, None))
    assert (said.state, said.run) == ("succeeded", request().id), "without a status URL it is over once delivered"
    assert hook().poll(request().id, said.run) == said
    assert hook().poll(request().id, None).state == "unknown"
    assert len(trainer.asked) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_try_again(trainer: Trainer, hook: Callable[..., Webhook], status: int) -> None:
    trainer.answers = [(status, {"Retry-After": "77"}, b"busy"), (status, {}, b"")]
    with pytest.raises(Retriable, match=f"answered {status}: busy") as error:
        hook().submit(request(), Resources(None, None))
    assert error.value.retry_after_s == 77
    with pytest.raises(Retriable) as error:
        hook().submit(request(), Resources(None, None))
    assert error.value.retry_after_s == rest.RETRY_S


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 301])
def test_refused(trainer: Trainer, hook: Callable[..., Webhook], status: int) -> None:
    trainer.answers = [(status, {"Location": f"{trainer.url}/other"}, b"no such model")]
    with pytest.raises(Refused, match=f"answered {status}: no such model"):
        hook().submit(request(), Resources(None, None))
    assert len(trainer.asked) == 1, "a redirect is not followed"


def test_nobody_there(trainer: Trainer, hook: Callable[..., Webhook]) -> None:
    with pytest.raises(Retriable, match="does not answer"):
        hook(url="http://127.0.0.1:9/").submit(request(), Resources(None, None))
    with pytest.raises(UserError, match="http"):
        rest.call("GET", "file:///etc/passwd", timeout_s=1, what="it")


def test_retry_after_as_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    answer = rest.Answer(503, {"retry-after": format_datetime(now + timedelta(seconds=90))}, b"")
    assert answer.retry_after_s(now) == 90
    assert rest.Answer(503, {"retry-after": format_datetime(now - timedelta(days=1))}, b"").retry_after_s(now) == 0
    assert rest.Answer(503, {"retry-after": "soon"}, b"").retry_after_s(now) == rest.RETRY_S


@pytest.mark.parametrize(("said", "state"), [
    ({"state": "pending"}, "queued"), ({"state": "Running"}, "running"), ({"state": "cancelled"}, "failed"),
    ({"state": "success", "result": {"version": "7"}}, "succeeded")])
def test_status(trainer: Trainer, hook: Callable[..., Webhook], said: dict[str, Any], state: str) -> None:
    trainer.answers = [(200, {}, said)]
    status = hook(status_url=f"{trainer.url}/runs/{{run}}?of={{trigger}}").poll("a/b", "r 1")
    assert (status.state, status.result) == (state, said.get("result"))
    assert trainer.asked[0][1] == "/runs/r%201?of=a%2Fb"
    assert verify(trainer.asked[0][2], b"", SECRET) == "a/b"


def test_status_that_does_not_tell(trainer: Trainer, hook: Callable[..., Webhook]) -> None:
    trainer.answers = [(404, {}, b""), (200, {}, {"state": "meditating"}), (500, {}, b""), (403, {}, b"")]
    there = hook(status_url=f"{trainer.url}/runs/{{trigger}}")
    assert there.poll("a", None).state == "unknown"
    with pytest.raises(Retriable, match="meditating"):
        there.poll("a", None)
    with pytest.raises(Retriable):
        there.poll("a", None)
    with pytest.raises(Refused):
        there.poll("a", None)


def test_cancel(trainer: Trainer, hook: Callable[..., Webhook]) -> None:
    trainer.answers = [(204, {}, b""), (404, {}, b"")]
    there = hook(cancel_url=f"{trainer.url}/runs/{{trigger}}")
    there.cancel("a", None)
    there.cancel("a", None)
    assert [asked[:2] for asked in trainer.asked] == [("DELETE", "/runs/a")] * 2
    hook().cancel("a", None)
    assert len(trainer.asked) == 2


def test_the_secret_is_there_or_it_is_refused(hook: Callable[..., Webhook], tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAINER_SECRET")
    with pytest.raises(Refused, match="TRAINER_SECRET"):
        hook().submit(request(), Resources(None, None))
    with pytest.raises(Refused, match="cannot be read"):
        hook(secret_env=None, secret_file="none").submit(request(), Resources(None, None))


def test_standard_webhooks_own_example() -> None:
    """A signature made by the scheme's published rule, by hand: base64 of HMAC-SHA256 under the decoded secret."""
    import hashlib
    import hmac

    body = b'{"test": 2432232314}'
    made = hmac.new(bytes(range(24)), b"msg_1.1614265330." + body, hashlib.sha256).digest()
    assert sign(SECRET, "msg_1", 1614265330, body) == "v1," + base64.b64encode(made).decode()
    with pytest.raises(UserError, match="base64"):
        key_of("whsec_no!")


def test_mlflows_own_deliveries(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What MLflow's own code signs and sends is taken, and nothing that was changed on the way."""
    from mlflow.entities.webhook import Webhook as Registered
    from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent, WebhookStatus
    from mlflow.webhooks import delivery

    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    event = WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED)
    hook = Registered("1", "hook", f"{trainer.url}/mlflow", [event], 0, 0, status=WebhookStatus.ACTIVE,
                      secret="s3cret é")
    trainer.answers = [(200, {}, {})]
    payload: Any = {"name": "flight-delay", "alias": "champion", "version": "7"}
    with delivery._create_webhook_session() as session:
        delivery._send_webhook_request(hook, payload, event, session)
    _, _, headers, body = trainer.asked[0]
    assert json.loads(body)["data"] == payload
    assert verify(headers, body, "s3cret é") == headers["X-MLflow-Delivery-Id"]
    for other in ({"X-MLflow-Delivery-Id": "x"}, {"X-MLflow-Timestamp": str(int(headers["X-MLflow-Timestamp"]) - 1)},
                  {"X-MLflow-Signature": "v1,"}, {"X-MLflow-Signature": "ünsigned"}):
        with pytest.raises(Unverified, match="not signed with our secret"):
            verify({**headers, **other}, body, "s3cret é")
    with pytest.raises(Unverified, match="not signed"):
        verify(headers, body + b" ", "s3cret é")
    with pytest.raises(Unverified, match="not signed"):
        verify(headers, body, "other")


def test_time_and_form() -> None:
    headers = {"Webhook-Id": "1", "Webhook-Timestamp": "1000", "Webhook-Signature": sign("k", "1", 1000, b"{}")}
    assert verify(headers, b"{}", "k", now_s=1000 + TOLERANCE_S) == "1"
    for now_s in (1001 + TOLERANCE_S, 999 - TOLERANCE_S):
        with pytest.raises(Unverified, match="at most 300 s"):
            verify(headers, b"{}", "k", now_s=now_s)
    two = {**headers, "Webhook-Signature": f"v1,AAAA v1a,zz {headers['Webhook-Signature']}"}
    assert verify(two, b"{}", "k", now_s=1000) == "1"
    for bad in ({}, {"webhook-signature": "v1,x"}, {**headers, "Webhook-Timestamp": "1e3"},
                {**headers, "Webhook-Timestamp": "²"}):
        with pytest.raises(HeadraceError):
            verify(bad, b"{}", "k", now_s=1000)


def test_the_forwarder_stays_with_an_event_until_it_is_known(trainer: Trainer, hook: Callable[..., Webhook]) -> None:
    from headrace.loop.dispatch.forward import hand_over

    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) < 4

    there = hook(status_url=f"{trainer.url}/runs/{{trigger}}")
    trainer.answers = [(503, {"Retry-After": "9"}, b""), (500, {}, b""), (202, {}, {"run": "17"})]
    said = hand_over(there, request(), Resources(), wait)
    assert (said["state"], said["run"], said["attempts"]) == ("queued", "17", 3)
    assert waits[0] == 9
    trainer.answers = [(400, {}, b"no such model")]
    assert hand_over(there, request(), Resources(), wait)["state"] == "refused"
    trainer.answers = [(503, {}, b"")] * 9
    with pytest.raises(Retriable):
        hand_over(there, request(), Resources(), wait)
    assert len(waits) == 4, "told to end, it ends, and the event is read again"
