"""One Connect worker's REST API, ours or Kafka Connect's: they are asked alike."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import Field, ValidationError

from headrace.config import Config
from headrace.errors import EnvironmentFault, UserError
from headrace.secrets import resolved

if TYPE_CHECKING:
    import httpx2

BUSY_TIMEOUT_S = 30.0
"""How long a worker may say that it is rebalancing before that is an error."""
BUSY_PAUSE_S = 0.3
BUSY = ("Cannot complete request", "because a rebalance is expected")
"""Parts of what passes by itself, told as 409 or 500; other 409s say that something exists, or stands in the way."""


class Access(Config):
    """How to reach a worker: [connect] or [connect.java] in headrace.toml."""

    url: str = Field(description="The worker's address.", pattern=r"^https?://")
    username: str | None = Field(None, description="For basic authentication.")
    password: str | None = Field(None, repr=False, description="Its password, by reference: `${env:NAME}`.")
    password_env: str | None = Field(None, description="Or the environment variable that has it.")
    ca: str | None = Field(None, description="A file of certificates to trust; left out: the system's.")
    cert: str | None = Field(None, description="The client's own certificate, for mutual TLS.")
    key: str | None = Field(None, description="The key of `cert`, where it is in a file of its own.")
    verify: bool = Field(True, description="false trusts any certificate: for trials only.")
    timeout_s: float = Field(60.0, gt=0, description="How long a request may take, in seconds.")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Access:
        """Raises UserError for keys and values that are none."""
        try:
            return cls.model_validate({**given, "url": str(given.get("url", "")).rstrip("/")})
        except ValidationError as error:
            one = error.errors(include_input=False)[0]
            what = ".".join(map(str, one["loc"]))
            said = f"“{given.get('url')}” is no address, e.g. http://127.0.0.1:8083" if what == "url" else one["msg"]
            raise UserError(f"Connect worker: {what}: {said}",
                            hint="--url, HEADRACE_CONNECT, or [connect] in headrace.toml") from None


class Refused(UserError):
    """The worker answered, and said no."""

    def __init__(self, what: str, status: int, *, hint: str | None = None) -> None:
        super().__init__(what, hint=hint)
        self.status = status


class Unreachable(EnvironmentFault):
    """Nobody answers there, or not as a worker does."""


class Client:
    """Requests to one worker. Used by one thread; `close` it, or use it in a `with`."""

    def __init__(self, access: Access, *, start: str | None = None) -> None:
        """`start` says how such a worker is started, for the hint when none answers."""
        self.access, self.start = access, start
        self.url = _plain(access.url)
        self._http: httpx2.Client | None = None

    def get(self, *path: str, **params: Any) -> Any:
        return self.ask("GET", *path, **params)

    def ask(self, method: str, *path: str, body: Any = None, **params: Any) -> Any:
        """The answer's JSON, None where it has none. Waits while the worker rebalances.

        Raises Refused (4xx), Unreachable (no answer, or none of a worker's), EnvironmentFault (5xx).
        """
        import httpx2

        where = "/" + "/".join(quote(part, safe="") for part in path)
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                sent = {} if body is None else {"json": body}
                answer = self._client().request(method, where, params=params, **sent)
            except httpx2.TimeoutException as error:
                raise Unreachable(f"{self.url} did not answer {method} {where} in {self.access.timeout_s:g} s",
                                  hint="is the worker busy, or cut off? [connect] timeout_s allows longer") from error
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise self._unreachable(error) from error
            busy = answer.status_code in (409, 500) and any(words in answer.text for words in BUSY)
            if busy and time.monotonic() < deadline:
                time.sleep(BUSY_PAUSE_S)
                continue
            return self._checked(answer, f"{method} {where}")

    def _checked(self, answer: httpx2.Response, asked: str) -> Any:
        told = _json(answer)
        if answer.status_code < 300:
            if told is None and answer.content:
                raise Unreachable(f"{self.url} answered {asked} with no JSON: {answer.text[:120]!r}",
                                  hint="is this a Connect worker's address?")
            return told
        said = told.get("message") if isinstance(told, Mapping) else None
        if answer.status_code in (401, 403):
            raise Refused(f"{self.url} refused {asked}: {answer.status_code} {said or answer.reason_phrase}",
                          answer.status_code, hint="check username and password (or password_env) in [connect] of "
                          "headrace.toml, and what this user may do")
        if said is None:
            raise Unreachable(f"{self.url} answered {asked} with {answer.status_code} {answer.reason_phrase}, and not "
                              "as a Connect worker does", hint="is this a Connect worker's address?")
        if answer.status_code >= 500:
            raise EnvironmentFault(f"{self.url}: {asked}: {said}", hint="the worker's log says more")
        raise Refused(f"{self.url}: {said}", answer.status_code)

    def _unreachable(self, error: Exception) -> Unreachable:
        text = str(error) or type(error).__name__
        if "CERTIFICATE" in text or "certificate" in text:
            return Unreachable(f"{self.url}: its certificate is not trusted: {text}",
                               hint="`ca` in [connect] of headrace.toml names the file of the certificates to trust")
        if "SSL" in text or "TLS" in text:
            return Unreachable(f"{self.url}: no TLS there: {text}", hint="http:// or https://? is a client's `cert` "
                               "asked for?")
        start = f"start one: {self.start}; or " if self.start else ""
        return Unreachable(f"no Connect worker answers at {self.url}: {text}",
                           hint=f"{start}say where it is: --url, HEADRACE_CONNECT, or [connect] url in headrace.toml")

    def _client(self) -> httpx2.Client:
        if self._http is None:
            import httpx2

            access = self.access
            password = access.password or ""
            if access.password_env and access.password_env in os.environ:
                password = resolved(f"${{env:{access.password_env}}}")
            self._http = httpx2.Client(base_url=access.url, timeout=access.timeout_s, verify=self._trust(),
                                       auth=(access.username, password) if access.username else None,
                                       headers={"Accept": "application/json"})
        return self._http

    def _trust(self) -> ssl.SSLContext | bool:
        access = self.access
        if not access.url.startswith("https"):
            return True
        try:
            context = ssl.create_default_context(cafile=access.ca)
            if access.cert:
                context.load_cert_chain(access.cert, access.key)
        except OSError as error:
            raise UserError(f"[connect] ca, cert, key: {error}", hint="files in PEM format") from error
        if not access.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _plain(url: str) -> str:
    """Without the user and the password that may stand in it."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _json(answer: httpx2.Response) -> Any:
    try:
        return answer.json() if answer.content else None
    except ValueError:
        return None
