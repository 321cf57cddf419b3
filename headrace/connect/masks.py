"""Secrets in connector configurations: hidden wherever people or logs see them, kept when what was shown is sent back.

A key is secret by its type (pydantic's SecretStr, ConfigDef's PASSWORD) or by its name (`connection.password`,
`api.key`, …). A value that is nothing but a reference (`${env:PGPASSWORD}`) is no secret and is shown as it is; the
password in a URL (`postgresql://me:secret@host/db`) is one, whatever the key is called.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from headrace.errors import UserError

HIDDEN = "[hidden]"
"""What stands in a secret's place: Kafka's own word for it."""
SECRET_BYTES_MIN = 4
"""Shorter secrets are hidden under their keys, but not looked for in texts: too much else would read the same."""
_NAMES = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|private[._-]?key|api[._-]?key|access[._-]?key|authori[sz]ation"
    r"|jaas\.config|user\.info|(^|[._-])pwd?$", re.IGNORECASE)
_REFERENCE = re.compile(r"\s*\$\{[^{}]*\}\s*")
_WITHIN = (re.compile(r"(?P<before>://[^/?#@\s:]*:)(?P<secret>(?:[^/?#@\s]|@(?=[^/?#\s]*@))+)(?=@)"),
           re.compile(r"(?P<before>(?:passw(?:or)?d|passphrase|secret|token|api_?key)\s*[=:]\s*)"
                      r"(?P<secret>\"[^\"]+\"|'[^']+'|\$\{[^{}]*\}|[^&;,\s\"']+)", re.IGNORECASE))
"""Secrets within a value, whatever its key: the password of a URL, `password=…` of a JDBC URL or a JAAS line."""


def is_secret(key: str, typed: Iterable[str] = ()) -> bool:
    """Whether the value of `key` is to be hidden; `typed` are the keys whose type says so."""
    return key in typed or _NAMES.search(key) is not None


def shown(key: str, value: Any, typed: Iterable[str] = ()) -> Any:
    """The value of `key` as anybody may see it."""
    if not isinstance(value, str) or not value or _REFERENCE.fullmatch(value):
        return value
    if is_secret(key, typed):
        return HIDDEN
    for within in _WITHIN:
        value = within.sub(lambda found: found["before"] + _hidden(found["secret"]), value)
    return value


def _hidden(secret: str) -> str:
    return secret if _REFERENCE.fullmatch(secret.strip("\"'")) else HIDDEN


def masked(config: Mapping[str, Any], typed: Iterable[str] = ()) -> dict[str, Any]:
    """A configuration to show."""
    return {key: shown(key, value, typed) for key, value in config.items()}


def unmasked(config: Mapping[str, Any], kept: Mapping[str, Any] | None, typed: Iterable[str] = ()) -> dict[str, Any]:
    """A configuration that was sent, with the secrets of `kept` where their masks were sent back.

    Raises UserError for a mask that hides nothing: it would be stored as the secret.
    """
    restored = {}
    for key, value in config.items():
        if isinstance(value, str) and HIDDEN in value:
            before = (kept or {}).get(key)
            if before is not None and shown(key, before, typed) == value:
                value = before
            elif is_secret(key, typed) or _within(value):
                raise UserError(f"{key}: {HIDDEN} stands for a secret that was not given before: send the secret")
        restored[key] = value
    return restored


def secrets_of(config: Mapping[str, Any], typed: Iterable[str] = ()) -> set[str]:
    """The texts that a configuration wants hidden."""
    found = set()
    for key, value in config.items():
        if not isinstance(value, str) or _REFERENCE.fullmatch(value):
            continue
        if is_secret(key, typed):
            found.add(value)
        found.update(_within(value))
    return {text for text in found if len(text.encode(errors="replace")) >= SECRET_BYTES_MIN and text != HIDDEN}


def _within(value: str) -> set[str]:
    found = {match["secret"].strip("\"'") for within in _WITHIN for match in within.finditer(value)}
    return {text for text in found if not _REFERENCE.fullmatch(text)}


class Scrubber:
    """Takes known secrets out of texts. Any thread may use it; what it was told it never forgets."""

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None

    def learn(self, secrets: Iterable[str]) -> None:
        new = {form for text in secrets for form in _forms(text)} - self._known
        if new:
            self._known |= new
            longest_first = sorted(self._known, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        return self._pattern.sub(HIDDEN, text) if self._pattern is not None else text

    def data(self, data: Any) -> Any:
        """JSON data with every text in it scrubbed."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, Mapping):
            return {self.text(str(key)): self.data(value) for key, value in data.items()}
        return [self.data(one) for one in data] if isinstance(data, list | tuple) else data


def _forms(text: str) -> set[str]:
    """A secret as it stands in plain text, in JSON, in Python's repr, and in JSON of that."""
    plain = {text, repr(text)[1:-1]}
    return plain | {json.dumps(one, ensure_ascii=ascii_)[1:-1] for one in plain for ascii_ in (True, False)}


class ScrubbingFormatter(logging.Formatter):
    """Another formatter's lines, without the secrets."""

    def __init__(self, inner: logging.Formatter | None, scrubber: Scrubber) -> None:
        super().__init__()
        self.inner, self.scrubber = inner or logging.Formatter(), scrubber

    def format(self, record: logging.LogRecord) -> str:
        return self.scrubber.text(self.inner.format(record))
