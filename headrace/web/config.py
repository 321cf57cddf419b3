"""What the HTTP source is told: to listen, or to poll."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from headrace.config import TOPIC_NAME, Config, Names

ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:/\s]+):(?P<port>\d{1,5})(?P<path>/[^\s?#]*)?")
POINTER = r"^(/.*)?$"
LINK_HEADER = "header"
SECRET_HEADERS = {"header": "X-Webhook-Secret", "hmac": "X-Hub-Signature-256"}


class HttpSourceConfig(Config):
    """A source of class `http`."""

    mode: Literal["listen", "poll"] | None = Field(
        None, description="`listen`: a webhook, to which others post; `poll`: a URL is asked again and again. Left "
        "out: by whether `listen` or `url` is given.")
    topic: str = Field(pattern=TOPIC_NAME, description="The topic to write.")
    listen: str | None = Field(None, description="Where the webhook is: host:port/path, e.g. 127.0.0.1:8088/events. It "
                               "speaks plain HTTP: beyond this machine, let a proxy with TLS stand before it.")
    secret: SecretStr | None = Field(None, min_length=8, description="What senders must know. Left out: everybody may "
                                     "post.")
    secret_kind: Literal["header", "hmac"] = Field(
        "header", alias="secret.kind", description="`header`: the secret itself is sent in a header; `hmac`: the body "
        "is signed with it, as GitHub does: sha256=<HMAC-SHA256 in hex>.")
    secret_header: str | None = Field(
        None, alias="secret.header", min_length=1, description="Which header. Left out: X-Webhook-Secret, and "
        "X-Hub-Signature-256 for hmac.")
    headers: Names = Field((), description="HTTP headers that become headers of the records, with commas between, e.g. "
                           "X-GitHub-Event.")
    body_bytes_max: int = Field(1 << 20, alias="body.bytes.max", ge=1, le=64 << 20, description="Of one request, in "
                                "bytes; a larger one is answered 413.")
    queue_bytes_max: int = Field(
        64 << 20, alias="queue.bytes.max", ge=1, description="Of all requests that are not in Kafka yet, in bytes; "
        "more are answered 429.")
    answer_timeout_ms: int = Field(
        30_000, alias="answer.timeout.ms", ge=1, description="How long a request waits to be in Kafka, in "
        "milliseconds; then it is answered 504.")
    idempotency_header: str = Field(
        "Idempotency-Key", alias="idempotency.header", min_length=1, description="The header by which a repeated "
        "request is known again, e.g. X-GitHub-Delivery.")
    idempotency_window_ms: int = Field(
        600_000, alias="idempotency.window.ms", ge=60_000, le=7 * 86_400_000, description="How long it is known, at "
        "least, in milliseconds.")

    url: str | None = Field(None, description="What is asked, by GET.")
    interval_ms: int = Field(60_000, alias="interval.ms", ge=10, description="From one time to the next, in "
                             "milliseconds.")
    pointer: str = Field("", alias="records.pointer", pattern=POINTER, description="Where in the answer the records "
                         "are: a JSON pointer to an array, e.g. /data/items. Left out: the answer is the array.")
    cursor_field: str | None = Field(
        None, alias="cursor.field", min_length=1, description="A field of the records that grows: only records beyond "
        "the largest seen are taken. A name, or a JSON pointer.")
    cursor_parameter: str | None = Field(
        None, alias="cursor.parameter", min_length=1, description="The parameter of the URL that tells the other side "
        "the largest seen, e.g. since. Left out: it is not told.")
    cursor_initial: str | None = Field(None, alias="cursor.initial", description="What it is told the first time. Left "
                                       "out: nothing.")
    next_page: str | None = Field(
        None, alias="next.page", pattern=r"^(header|/.*)$", description="Where the link to the next page is: a JSON "
        "pointer, e.g. /next, or `header` for the header Link; rel=next. Pages must only ever grow at the end.")
    authorization: SecretStr | None = Field(None, description="The header Authorization, e.g. Bearer ….")
    timeout_ms: int = Field(30_000, alias="timeout.ms", ge=1, description="How long an answer may take, in "
                            "milliseconds.")
    answer_bytes_max: int = Field(64 << 20, alias="answer.bytes.max", ge=1, description="Of one answer, in bytes.")

    @model_validator(mode="after")
    def _together(self) -> HttpSourceConfig:
        mode = self.mode or ("poll" if self.url else "listen")
        needed, other = ("listen", "url") if mode == "listen" else ("url", "listen")
        if getattr(self, needed) is None:
            raise ValueError(f"{needed}: is missing" + ("" if self.mode else "; “listen” or “url” says what to do"))
        if getattr(self, other) is not None:
            raise ValueError(f"{other}: nothing is done with it: the mode is {mode}")
        if mode == "listen":
            found = ADDRESS.fullmatch(self.listen or "")
            if found is None or int(found["port"]) > 65535:
                raise ValueError(f"listen: “{self.listen}” is not host:port/path")
        else:
            parts = urlsplit(self.url or "")
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"url: “{self.url}” is no http:// or https:// URL")
            if parts.username is not None:
                raise ValueError("url: no password in it, where every log would have it; say `authorization`")
        if self.cursor_parameter and not self.cursor_field:
            raise ValueError("cursor.parameter: of what? say cursor.field")
        if self.cursor_field and self.next_page:
            raise ValueError("next.page: a cursor and pages are two ways to go on; take one")
        return self

    @property
    def listens(self) -> bool:
        return self.listen is not None

    @property
    def address(self) -> tuple[str, int, str]:
        """Host, port and path to listen at."""
        found = ADDRESS.fullmatch(self.listen or "")
        assert found is not None, "validated"
        return found["host"].strip("[]"), int(found["port"]), found["path"] or "/"

    @property
    def secret_name(self) -> str:
        return self.secret_header or SECRET_HEADERS[self.secret_kind]

    @property
    def cursor_pointer(self) -> str:
        field = self.cursor_field or ""
        return field if field.startswith("/") else "/" + field.replace("~", "~0").replace("/", "~1")
