"""A URL that is asked again and again; what of the answer is new are records. Three ways to know it:

    cursor.field      the largest seen, and digests of the records that have it (others may come with the same);
                      position {"cursor": …, "seen": […]}
    next.page         the page, and how many of its records are taken; a page is followed by the one it links to;
                      position {"url": …, "taken": n}
    neither           an answer that is another than the last is taken whole; position {"digest": …, "taken": n,
                      "etag": …, "modified": …}. Its records are doubled where the answer changes between a kill and
                      the next start, while it was taken in parts.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from headrace.errors import Retriable, UserError
from headrace.web.bodies import DECODER, Malformed, pointed, records, text_of
from headrace.web.config import LINK_HEADER, HttpSourceConfig
from headrace.web.retry_after import retry_after_s

WAIT_S_MAX = 0.5
RETRY_S = 1.0
RETRIED = frozenset({408, 425, 429})
"""Besides 5xx, the answers that another try may mend."""
SHOWN = 200
SEEN_MAX = 10_000
DIGEST_CHARS = 16

Position = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side said. `text` is None for 304."""

    url: str
    text: str | None
    headers: Mapping[str, str]
    following: str | None
    """The link to the next page in the header Link, as it stands there."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some records of an answer, and the position behind them."""

    raws: Sequence[bytes]
    url: str
    first: int
    """The number of the first in the answer, from 0."""
    position: Position


class Poller:
    """One thread uses it."""

    def __init__(self, config: HttpSourceConfig, position: Position | None) -> None:
        import httpx2

        assert config.url is not None
        self.config, self.url = config, config.url
        self.position: Position = position or {}
        self._due = 0.0
        self._left: deque[tuple[bytes, int, Position]] = deque()
        """(record, its number in the answer, the position behind it)"""
        self._page = ""
        headers = {"Accept": "application/json"}
        if config.authorization is not None:
            headers["Authorization"] = config.authorization.get_secret_value()
        self._client = httpx2.Client(headers=headers, timeout=config.timeout_ms / 1e3, follow_redirects=False,
                                     verify=config.url.startswith("https"))  # else nothing is to verify

    def close(self) -> None:
        self._client.close()

    def take(self, records_max: int) -> Part | None:
        """None when there is nothing new; it waits a little itself. Raises Retriable, UserError."""
        if not self._left:
            wait_s = self._due - time.monotonic()
            if wait_s > 0:
                time.sleep(min(wait_s, WAIT_S_MAX))
            if wait_s > WAIT_S_MAX:
                return None
            self._due = time.monotonic() + self.config.interval_ms / 1e3  # also when it fails
            self._left.extend(self._ask())
            if not self._left:
                return None
        taken = [self._left.popleft() for _ in range(min(records_max, len(self._left)))]
        self.position = taken[-1][2]
        return Part([raw for raw, _, _ in taken], self._page, taken[0][1], self.position)

    def _ask(self) -> list[tuple[bytes, int, Position]]:
        if self.config.next_page is not None:
            return self._pages()
        return self._beyond() if self.config.cursor_field is not None else self._changed()

    # ---- the three ways

    def _beyond(self) -> list[tuple[bytes, int, Position]]:
        config, position = self.config, self.position
        cursor = position.get("cursor", config.cursor_initial)
        told = {config.cursor_parameter: str(cursor)} if config.cursor_parameter and cursor is not None else {}
        answer = self._get(self.url, told)
        if answer.text is None:
            return []
        last, seen = position.get("cursor"), set(position.get("seen", ()))
        found = []
        for at, raw in enumerate(self._records(answer)):
            value = self._cursor_of(raw, at, answer.url)
            try:
                new = last is None or value > last or (value == last and _digest(raw) not in seen)
            except TypeError:
                raise UserError(f"{answer.url}: record {at}: {config.cursor_field} is {json.dumps(value)}, and was "
                                f"{json.dumps(last)} before: the two do not compare") from None
            if new:
                found.append((value, at, raw))
        try:
            found.sort(key=lambda one: one[0])  # so that a part of them has a position
        except TypeError:
            raise UserError(f"{answer.url}: {config.cursor_field} is text in some records, and a number in "
                            "others") from None
        made: list[tuple[bytes, int, Position]] = []
        alike = sorted(seen)
        for value, at, raw in found:
            alike = [*alike, _digest(raw)] if value == last else [_digest(raw)]
            last = value
            made.append((raw, at, {"cursor": value, "seen": alike}))
        if len(alike) > SEEN_MAX:
            raise UserError(f"{answer.url}: more than {SEEN_MAX:,} records have {config.cursor_field} "
                            f"{json.dumps(last)}: it does not grow")
        if made and self.config.cursor_parameter:
            self._due = 0.0  # there may be more beyond
        return made

    def _cursor_of(self, raw: bytes, at: int, url: str) -> Any:
        value: Any = DECODER.decode(raw.decode())
        place = pointed(raw.decode(), self.config.cursor_pointer) if isinstance(value, dict) else None
        value = DECODER.decode(raw.decode()[place[0]:place[1]]) if place else None
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise UserError(f"{url}: record {at} has no {self.config.cursor_field} that grows: {json.dumps(value)}",
                            hint="cursor.field must be text or a number in every record")
        return value

    def _pages(self) -> list[tuple[bytes, int, Position]]:
        url, taken = str(self.position.get("url", self.url)), int(self.position.get("taken", 0))
        answer = self._get(url, {})
        if answer.text is None:
            return []
        raws = self._records(answer)
        if len(raws) < taken:
            raise UserError(f"{url} has {len(raws)} records, and {taken} were read before: its pages do not only grow "
                            "at the end", hint="is there a cursor.field?")
        made: list[tuple[bytes, int, Position]] = [(raw, at, {"url": url, "taken": at + 1})
                                                   for at, raw in enumerate(raws) if at >= taken]
        following = self._next_of(answer)
        if following is not None:
            self._due = 0.0
            onward = {"url": following, "taken": 0}
            if made:
                made[-1] = (*made[-1][:2], onward)
            else:
                self.position = onward
        return made

    def _next_of(self, answer: Answer) -> str | None:
        """The link to the next page. Only to where we were sent by the configuration: it has our secrets."""
        if self.config.next_page == LINK_HEADER:
            found: Any = answer.following
        else:
            assert answer.text is not None
            place = pointed(answer.text, str(self.config.next_page))
            found = DECODER.decode(answer.text[place[0]:place[1]]) if place else None
        if not found:
            return None
        following = urljoin(answer.url, str(found))
        theirs, ours = urlsplit(following), urlsplit(self.url)
        if (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc):
            raise UserError(f"{answer.url}: its next page is at {theirs.scheme}://{theirs.netloc}, and not at "
                            f"{ours.scheme}://{ours.netloc}", hint="pages elsewhere are not followed")
        return None if following == answer.url else following

    def _changed(self) -> list[tuple[bytes, int, Position]]:
        known = self.position
        conditions = {name: str(known[key]) for name, key in (("If-None-Match", "etag"), ("If-Modified-Since",
                                                                                          "modified")) if key in known}
        answer = self._get(self.url, {}, conditions)
        if answer.text is None:
            return []
        raws = self._records(answer)
        digest = _digest(b"\n".join(raws))
        done = int(known["taken"]) if known.get("digest") == digest else 0
        made: list[tuple[bytes, int, Position]] = [(raw, at, {"digest": digest, "taken": at + 1})
                                                   for at, raw in enumerate(raws) if at >= done]
        if made:
            tags = {key: answer.headers[name] for key, name in (("etag", "etag"), ("modified", "last-modified"))
                    if name in answer.headers}
            made[-1] = (*made[-1][:2], {**made[-1][2], **tags})
        return made

    # ---- one request

    def _records(self, answer: Answer) -> list[bytes]:
        assert answer.text is not None
        self._page = answer.url
        try:
            place = pointed(answer.text, self.config.pointer)
            if place is None:
                raise Malformed(f"there is nothing at {self.config.pointer}")
            return records(answer.text, *place)
        except Malformed as error:
            raise UserError(f"{answer.url}: {error}", hint="is `records.pointer` right?") from error

    def _get(self, url: str, parameters: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
        import httpx2

        try:
            target = httpx2.URL(url).copy_merge_params(dict(parameters))
            with self._client.stream("GET", target, headers=dict(headers or {})) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > self.config.answer_bytes_max:
                        raise UserError(f"{url}: more than {self.config.answer_bytes_max:,} bytes",
                                        hint="ask for fewer, or raise answer.bytes.max")
                self._check(url, response.status_code, response.headers, bytes(body[:SHOWN]))
                text = None if response.status_code == 304 else text_of(bytes(body))
                return Answer(url, text, response.headers, response.links.get("next", {}).get("url"))
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise UserError(f"{url}: {error}") from error
        except Malformed as error:
            raise UserError(f"{url}: {error}") from error
        except httpx2.HTTPError as error:
            raise Retriable(f"{url} does not answer: {error or type(error).__name__}",
                            retry_after_s=RETRY_S) from error

    def _check(self, url: str, status: int, headers: Mapping[str, str], shown: bytes) -> None:
        if 200 <= status < 300 or status == 304:
            return
        said = f"{url} answers {status}: {shown.decode(errors='replace')}"
        if status in RETRIED or status >= 500:
            raise Retriable(said, retry_after_s=retry_after_s(headers.get("retry-after", ""), RETRY_S))
        hint = {401: "is `authorization` right?", 403: "is `authorization` right?"}.get(status)
        if 300 <= status < 400:
            hint = f"it has moved to {headers.get('location')}; redirections are not followed"
        raise UserError(said, hint=hint)


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:DIGEST_CHARS]
