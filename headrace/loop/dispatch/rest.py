"""One HTTP call: an answer whatever its status, or Retriable. Of the standard library, so that no dispatcher over HTTP
needs an extra; redirects are not followed, since a POST would come out of them as a GET."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headrace.errors import Retriable, UserError
from headrace.web.retry_after import retry_after_s

RETRY_S = 5.0
"""When nobody says how long to wait."""
BODY_BYTES_MAX = 16 << 20
QUOTED_CHARACTERS_MAX = 500
OVERLOADED = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` have names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body; None where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def text(self) -> str:
        """The body's beginning, to quote in a reason."""
        return self.body.decode(errors="replace").strip()[:QUOTED_CHARACTERS_MAX]

    @property
    def later(self) -> bool:
        """Whether the other side cannot say, or not now."""
        return self.status >= 500 or self.status in OVERLOADED

    def retry_after_s(self, now: datetime | None = None) -> float:
        """As Retry-After says, in seconds or as a date; else RETRY_S."""
        return retry_after_s(self.headers.get("retry-after", ""), RETRY_S, now)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def call(method: str, url: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None,
         timeout_s: float, what: str) -> Answer:
    """The answer to one request. Raises Retriable when there is none (no connection, a time-out, a cut in between:
    whether it was received is not known), and UserError for a URL that is none. `what` names the other side."""
    asked = urllib.request.Request(_checked(url, what), data=body, method=method, headers={
        "User-Agent": "headrace", "Accept": "application/json", **(headers or {})})
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(asked, timeout=timeout_s) as answer:
            return _read(answer)
    except urllib.error.HTTPError as error:
        with error:
            return _safe_read(error, what, url)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            raise UserError(f"{what} shows a certificate that is not trusted: {_why(error)}",
                            hint="SSL_CERT_FILE names a file of certificates to trust") from error
        raise Retriable(f"{what} does not answer at {url}: {_why(error)}", retry_after_s=RETRY_S) from error


def _why(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__


def _checked(url: str, what: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise UserError(f"the URL of {what} must begin with http:// or https://, and is {url!r}")
    return url


def _safe_read(answer: Any, what: str, url: str) -> Answer:
    try:
        return _read(answer)
    except (OSError, http.client.HTTPException) as error:
        raise Retriable(f"{what} broke off its answer at {url}: {_why(error)}", retry_after_s=RETRY_S) from error


def _read(answer: Any) -> Answer:
    return Answer(answer.status, {name.lower(): value for name, value in answer.headers.items()},
                  answer.read(BODY_BYTES_MAX))
