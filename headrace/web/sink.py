"""The HTTP sink: records as requests, at least once.

The other side may take a request whose answer is lost: then it comes again. Each carries an `Idempotency-Key` which is
the same for the same records, `<connector>/<topic>/<partition>/<first>-<last offset>`: a server that heeds it makes it
exactly once. Within one poll nothing that was answered is sent again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

import numpy as np
import pyarrow.compute as pc
from pydantic import Field, SecretStr, field_validator, model_validator

from headrace.config import Config
from headrace.connector import RecordsRefused
from headrace.errors import Retriable, UserError
from headrace.files.places import Place
from headrace.web.requests import CONTENT, Body, Cells, cells, requests
from headrace.web.retry_after import retry_after_s

if TYPE_CHECKING:
    import httpx2 as httpx

    from headrace.records import Records

log = logging.getLogger("headrace.connect")
AGAIN = (408, 425, 429)
"""Besides all of 5xx: worth another try."""
OF_THE_CONNECTOR = (401, 403, 404, 405, 407, 410, 411, 501, 505)
"""No other record would fare better."""
WAIT_MAX_S = 10.0
"""Who is to wait longer is left to the task, which can be stopped meanwhile."""
SHOWN_MAX = 300
NO_VALUE = "it has no value; the transform Filter drops such records"


class HttpSinkConfig(Config):
    """A sink of class `http`."""

    url: str = Field(description="Where to send to. `${topic}` is the topic; `${key}`, where each record is a request "
                     "of its own, its key.")
    method: Literal["POST", "PUT", "PATCH"] = Field("POST", description="How.")
    body: Body = Field("array", description="`array`: a JSON array of records; `lines`: JSON Lines; `record`: a "
                       "request for each record, its JSON; `text`: one for each, its text as it is.")
    batch_size: int = Field(500, alias="batch.size", ge=1, le=100_000, description="Records in a request, at most.")
    batch_bytes_max: int = Field(1 << 20, alias="batch.bytes.max", ge=1, description="Bytes of a request of several "
                                 "records, at most.")
    headers: str = Field("", description="Headers to send, as name:value, with commas between.")
    headers_secret: SecretStr = Field(SecretStr(""), alias="headers.secret", description="The same, for those that "
                                      "nobody may see.")
    authorization: SecretStr | None = Field(None, description="The header Authorization, e.g. Bearer ….")
    timeout_ms: int = Field(30_000, alias="timeout.ms", ge=1, description="How long to wait for an answer, in "
                            "milliseconds.")
    retries_max: int = Field(5, alias="retries.max", ge=0, description="How often a request is sent again at once when "
                             "there is no answer, or 408, 425, 429 or 5xx. Then it is for errors.retry.timeout.")
    retry_backoff_ms: int = Field(300, alias="retry.backoff.ms", ge=1, description="Before the first of them, in "
                                  "milliseconds; doubled each time. A Retry-After of the server counts for more.")
    on_4xx: Literal["refuse", "bisect"] = Field(
        "refuse", alias="on.4xx", description="What an answer 4xx means for a request of several records: `refuse`: "
        "none of them can be stored; `bisect`: halves are sent, to find out which.")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be http://… or https://…")
        if parts.username or parts.password:
            raise ValueError("has a password, which everybody would see: use `authorization`")
        return url

    @model_validator(mode="after")
    def _together(self) -> HttpSinkConfig:
        if "${key}" in self.url and self.body in ("array", "lines"):
            raise ValueError("url: ${key} is of one record: body=record or body=text")
        for key, text in (("headers", self.headers), ("headers.secret", self.headers_secret.get_secret_value())):
            if any(":" not in part for part in text.split(",") if part.strip()):
                raise ValueError(f"{key}: each is name:value")
        return self

    def sent_headers(self) -> dict[str, str]:
        text = f"{self.headers},{self.headers_secret.get_secret_value()}"
        pairs = (part.partition(":") for part in text.split(",") if part.strip())
        own = {name.strip(): value.strip() for name, _, value in pairs}
        secret = {"Authorization": self.authorization.get_secret_value()} if self.authorization else {}
        return {"Content-Type": CONTENT[self.body], "User-Agent": "headrace", **own, **secret}


class HttpSink:
    """Records → requests, one after the other. One thread uses it."""

    Config: ClassVar[type[Config]] = HttpSinkConfig
    exactly_once: ClassVar[bool] = False
    batch_records: ClassVar[int] = 5_000

    def __init__(self, config: HttpSinkConfig, *, project: Path, name: str) -> None:
        self.config, self.name = config, name
        self.where = urlsplit(config.url)._replace(query="", fragment="").geturl()
        """As it is told: a query may have a token in it."""
        self._client: httpx.Client | None = None
        self._answered: dict[Place, set[int]] = {}
        """Offsets of the poll in hand that the other side has."""

    def open(self, partitions: Collection[Place]) -> Mapping[Place, int]:
        """Knows nothing: Kafka's committed offsets count."""
        self._answered = {}
        return {}

    def put(self, records: Sequence[Records], ends: Mapping[Place, int]) -> None:
        """A few requests. What was answered before a failure is not sent again with the same poll."""
        null = {at: NO_VALUE for each in records for at in each.index[np.flatnonzero(
            pc.is_null(each.value.values).to_numpy(zero_copy_only=False))].tolist()}
        if null:
            raise RecordsRefused(null)
        most = self.config.batch_size if self.config.body in ("array", "lines") else 1
        reasons: dict[int, str] = {}
        for some in cells(records, ends, self.config.body, keyed="${key}" in self.config.url):
            for request in requests(self._left(some), most, self.config.batch_bytes_max):
                self._deliver(request, reasons)
        if reasons:
            raise RecordsRefused(reasons)
        self._answered = {}

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _left(self, some: Cells) -> Cells:
        """Without what was answered in an earlier try of this poll."""
        had = self._answered.get(some.place)
        if not had:
            return some
        at = [i for i, offset in enumerate(some.offsets.tolist()) if offset not in had]
        keys = None if some.keys is None else [some.keys[i] for i in at]
        return Cells(some.topic, some.place, [some.values[i] for i in at], keys, some.index[at], some.offsets[at])

    def _deliver(self, request: Cells, reasons: dict[int, str]) -> None:
        """Until it is answered. `reasons` takes what the other side refuses."""
        waiting = [request]
        while waiting:
            some = waiting.pop()
            why = self._send(some)
            if why is None:
                self._answered.setdefault(some.place, set()).update(some.offsets.tolist())
            elif len(some) > 1 and (self.config.on_4xx == "bisect" or why.startswith("413")):
                waiting += reversed(some.halves())
            else:
                reasons |= dict.fromkeys(some.index.tolist(), why)

    def _send(self, some: Cells) -> str | None:
        """None when the other side has it; why it refuses. Raises Retriable, UserError."""
        import httpx2 as httpx

        if self._client is None:
            self._client = httpx.Client(timeout=self.config.timeout_ms / 1e3, headers=self.config.sent_headers())
        url, body = some.url(self.config.url), some.body(self.config.body)
        headers = {"Idempotency-Key": some.identity(self.name)}
        backoff_s = self.config.retry_backoff_ms / 1e3
        for attempt in range(self.config.retries_max + 1):
            wait_s = backoff_s * 2**attempt
            try:
                answer = self._client.request(self.config.method, url, content=body, headers=headers)
            except httpx.TransportError as error:
                said = f"{self.where} does not answer: {error or type(error).__name__}"
            except (httpx.InvalidURL, ValueError) as error:
                raise UserError(f"{self.where}: {error}") from error
            else:
                if answer.is_success:
                    return None
                said = f"{answer.status_code} {answer.reason_phrase}: {answer.text[:SHOWN_MAX]}".rstrip(": \n")
                refused = self._refusal(answer, said)
                if refused is not None:
                    return refused
                said = f"{self.where} answers {said}"
                wait_s = max(wait_s, retry_after_s(answer.headers.get("Retry-After", ""), 0.0))
            if attempt == self.config.retries_max or wait_s > WAIT_MAX_S:
                break
            log.info("a request is sent again", extra={"connector": self.name, "wait_s": wait_s, "why": said})
            time.sleep(wait_s)
        raise Retriable(said, retry_after_s=wait_s)

    def _refusal(self, answer: Any, said: str) -> str | None:
        """Why the records are refused; None where it is worth another try. Raises UserError where no record will do."""
        status = answer.status_code
        if status in OF_THE_CONNECTOR or status < 400:
            raise UserError(f"{self.where} answers {said}", hint="are url, method and authorization right?")
        return None if status in AGAIN or status >= 500 else said
