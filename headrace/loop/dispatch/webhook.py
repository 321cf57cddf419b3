"""webhook: the request as a signed HTTP POST to whatever trains; and `verify`, for webhooks that come to us.

    POST url      the request's JSON, with `resources` beside it; webhook-id and idempotency-key are the trigger's id,
                  and webhook-signature is "v1," + base64(HMAC-SHA256(secret, "<id>.<timestamp>.<body>"))
                  2xx taken · 409 there already · 408, 425, 429, 5xx, no answer: try again · anything else: refused
    GET status    {"state": …, "run": …, "reason": …, "result": {…}}, where a status URL is given; 404: not known

That is the scheme of Standard Webhooks, and MLflow signs its own webhooks alike under other header names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from pydantic import Field

from headrace.config import Config
from headrace.control import Retrain
from headrace.errors import HeadraceError, Retriable, UserError
from headrace.loop.dispatch import rest
from headrace.loop.dispatch.base import Refused, Resources, State, Status, tail
from headrace.secrets import KNOWN, resolved

SECRET_PREFIX = "whsec_"
TOLERANCE_S = 300.0
HEADERS = (("webhook-id", "webhook-timestamp", "webhook-signature"),
           ("x-mlflow-delivery-id", "x-mlflow-timestamp", "x-mlflow-signature"))
"""Id, timestamp, signature, as Standard Webhooks and as MLflow name them."""
STATES: Mapping[str, State] = {
    "queued": "queued", "pending": "queued", "accepted": "queued", "running": "running", "started": "running",
    "succeeded": "succeeded", "success": "succeeded", "completed": "succeeded", "failed": "failed", "failure": "failed",
    "error": "failed", "cancelled": "failed", "canceled": "failed", "unknown": "unknown"}
"""The words people use."""


class Unverified(HeadraceError):
    """A webhook that is not from whom it says, or not from now: answer 401, and do nothing."""


class WebhookConfig(Config):
    """An HTTP service that trains."""

    url: str = Field(description="Where requests are POSTed.", pattern="^https?://")
    status_url: str | None = Field(
        None, pattern="^https?://", description="Where a run's status is read; `{trigger}` and `{run}` stand for the "
        "ids. Without one a request is over once it is delivered, and the trainer reports by itself.")
    cancel_url: str | None = Field(None, pattern="^https?://", description="Where a DELETE ends a run; as status_url.")
    secret_env: str | None = Field(None, description="The environment variable with the signing secret; `whsec_…` is "
                                   "base64, anything else taken as it is.")
    secret_file: Path | None = Field(None, description="Or the file with it.")
    timeout_s: float = Field(10, gt=0, le=300, description="How long to wait for an answer.")
    headers: Mapping[str, str] = Field({}, description="Further headers, e.g. for a proxy. Secrets by reference, "
                                       "e.g. `Authorization: Bearer ${env:PROXY_TOKEN}`.")


def key_of(secret: str) -> bytes:
    """The HMAC key: what is behind `whsec_`, from base64; else the secret's own bytes, as MLflow does it."""
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise UserError(f"a secret that begins with {SECRET_PREFIX} goes on in base64: {error}") from error


def sign(secret: str, id: str, timestamp_s: int | str, body: bytes) -> str:
    """The signature's header: `v1,` and base64 of HMAC-SHA256 of `<id>.<timestamp>.<body>`."""
    made = hmac.new(key_of(secret), f"{id}.{timestamp_s}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(made).decode()}"


def verify(headers: Mapping[str, str], body: bytes, secret: str, tolerance_s: float = TOLERANCE_S, *,
           now_s: float | None = None) -> str:
    """The delivery's id: keep those you have acted on, since deliveries are repeated. `body` is the raw one, as
    received. Takes Standard Webhooks' headers and MLflow's, in any case. Compares in constant time. Raises Unverified.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    names = next((names for names in HEADERS if names[2] in lower), None)
    if names is None:
        raise Unverified("the webhook has no signature", hint=f"one of the headers {', '.join(h[2] for h in HEADERS)}; "
                         "the sender has no secret set")
    id, timestamp, signatures = (lower.get(name, "") for name in names)
    if not id or not timestamp.isascii() or not timestamp.isdigit():
        raise Unverified(f"the webhook needs {names[0]}, and {names[1]} in seconds since 1970; they are {id!r} and "
                         f"{timestamp!r}")
    expected = sign(secret, id, timestamp, body).encode()
    # All are compared, each in constant time: a sender that changes its secret signs with both for a while.
    good = [hmac.compare_digest(expected, each.encode()) for each in signatures.split(" ")]
    if not any(good):
        raise Unverified(f"the webhook {id!r} is not signed with our secret")
    age_s = (time.time() if now_s is None else now_s) - int(timestamp)
    if abs(age_s) > tolerance_s:
        raise Unverified(f"the webhook {id!r} was signed {age_s:.0f} s ago; at most {tolerance_s:.0f} s are taken",
                         hint="it is a replay, or one of the clocks is wrong")
    return id


class Webhook:
    """See the module."""

    name = "webhook"

    def __init__(self, config: WebhookConfig, *, project: Path) -> None:
        self.config = config
        self.project = project

    def submit(self, request: Retrain, resources: Resources) -> Status:
        body = json.dumps({**json.loads(request.to_json()), "resources": asdict(resources)},
                          ensure_ascii=False).encode()
        answer = rest.call("POST", self.config.url, body=body, what="the webhook", timeout_s=self.config.timeout_s,
                           headers={"Content-Type": "application/json", "Idempotency-Key": request.id,
                                    **self._signed(request.id, body)})
        if answer.status != 409:
            _check(answer, self.config.url)
        said = answer.json if isinstance(answer.json, dict) else {}
        run = str(said.get("run") or said.get("id") or request.id)
        return self._delivered(run) if self.config.status_url is None else Status("queued", run)

    def poll(self, trigger: str, run: str | None) -> Status:
        """Without a status URL: `unknown` while it is not known whether the request went out (`run` is None), and
        `succeeded`, without a result, once it did."""
        if self.config.status_url is None:
            return self._delivered(run) if run else Status("unknown")
        answer = self._ask("GET", self.config.status_url, trigger, run)
        if answer.status == 404:
            return Status("unknown", run)
        _check(answer, self.config.status_url)
        said = answer.json
        state = STATES.get(str(said.get("state")).lower()) if isinstance(said, dict) else None
        if state is None:
            raise Retriable(f"the webhook's status of {trigger} has no state we know: {answer.text!r}",
                            retry_after_s=rest.RETRY_S, hint=f"its JSON has `state`, one of {', '.join(STATES)}")
        result = said.get("result")
        return Status(state, str(said.get("run") or run or trigger), tail(str(said.get("reason") or "")),
                      result if isinstance(result, dict) else None)

    def cancel(self, trigger: str, run: str | None) -> None:
        if self.config.cancel_url is not None:
            answer = self._ask("DELETE", self.config.cancel_url, trigger, run)
            if answer.status not in (404, 409, 410):
                _check(answer, self.config.cancel_url)

    def _delivered(self, run: str | None) -> Status:
        return Status("succeeded", run, "delivered; this webhook has no status URL, and reports by itself")

    def _ask(self, method: str, template: str, trigger: str, run: str | None) -> rest.Answer:
        url = template.replace("{trigger}", quote(trigger, safe="")).replace("{run}", quote(run or trigger, safe=""))
        return rest.call(method, url, what="the webhook", timeout_s=self.config.timeout_s,
                         headers=self._signed(trigger, b""))

    def _signed(self, id: str, body: bytes) -> dict[str, str]:
        secret = self._secret()
        now_s = int(time.time())
        signature = {"webhook-signature": sign(secret, id, now_s, body)} if secret else {}
        try:
            further = {name: resolved(value) for name, value in self.config.headers.items()}
        except UserError as error:
            raise Refused(f"the webhook's headers: {error}") from error
        return {**further, "webhook-id": id, "webhook-timestamp": str(now_s), **signature}

    def _secret(self) -> str | None:
        """Read at each call, so that a new one needs no restart."""
        if self.config.secret_env:
            if not os.environ.get(self.config.secret_env):
                raise Refused(f"the webhook's secret, {self.config.secret_env}, is not in the environment")
            return resolved(f"${{env:{self.config.secret_env}}}")
        if self.config.secret_file:
            try:
                secret = (self.project / self.config.secret_file).read_text().strip()
            except OSError as error:
                raise Refused(f"the webhook's secret cannot be read: {error}") from error
            KNOWN.learn([secret])
            return secret
        return None


def _check(answer: rest.Answer, url: str) -> None:
    """Raises Retriable or Refused, as the answer's status says."""
    if 200 <= answer.status < 300:
        return
    said = f"the webhook at {url} answered {answer.status}: {answer.text}"
    if answer.later:
        raise Retriable(said, retry_after_s=answer.retry_after_s())
    raise Refused(said, hint=f"it points to {answer.headers['location']}: write that URL"
                  if "location" in answer.headers else None)
