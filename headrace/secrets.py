"""Secrets: where they are written, and that nobody sees them.

They stand elsewhere, and files refer to them as to Kafka Connect's providers:

    ${env:NAME}               an environment variable
    ${file:/path:key}         a key of a properties file, or of a flat JSON object
    ${dir:/path:file}         a file of a folder, as Kubernetes mounts its Secrets

They are looked up when a process starts, and kept in no file, topic, answer or log. What was looked up, and what is
written under a key that is secret by its name, the process has KNOWN from then on, and takes out of all it says.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO, cast
from urllib.parse import quote

from headrace import properties
from headrace.errors import UserError

HIDDEN = "[hidden]"
"""What stands in a secret's place: Kafka's own word for it."""
SECRET_BYTES_MIN = 4
"""Shorter secrets are hidden under their keys, but not looked for in texts: too much else would read the same."""
LINE_CHARACTERS_MIN = 16
"""Lines of a secret of several, a key in PEM say, are looked for one by one from this length."""
REFERENCE = re.compile(r"\$\{(env|file|dir):(?:([^}:]*):)?([^}]*)\}")
_ONLY_REFERENCE = re.compile(r"\s*\$\{[^{}]*\}\s*")
_NAMES = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|private[._-]?key|api[._-]?key|access[._-]?key|authori[sz]ation"
    r"|jaas\.config|user\.info|key[._-]pem|(^|[._-])pwd?$", re.IGNORECASE)
_PLACES = re.compile(r"[._-](env|file|location|path|url|uri|source|ms)$", re.IGNORECASE)
"""Endings of keys that say where a secret is, who gives one, or how long it lives."""
_WITHIN = (re.compile(r"(?P<before>://[^/?#@\s:]*:)(?P<secret>(?:[^/?#@\s]|@(?=[^/?#\s]*@))+)(?=@)"),
           re.compile(r"(?P<before>(?:passw(?:or)?d|passphrase|secret|token|api_?key)\s*[=:]\s*)"
                      r"(?P<secret>\"[^\"]+\"|'[^']+'|\$\{[^{}]*\}|[^&;,\s\"']+)", re.IGNORECASE))
"""Secrets within a value, whatever its key: the password of a URL, `password=…` of a JDBC URL or a JAAS line."""


def resolved(text: str) -> str:
    """The text with what its references stand for, which is KNOWN from now on. Raises UserError naming the reference,
    never a value."""
    def look_up(found: re.Match[str]) -> str:
        value = _looked_up(found[1], found[2], found[3], found[0])
        KNOWN.learn([value])
        return value

    return REFERENCE.sub(look_up, text)


def references(config: Mapping[str, Any]) -> dict[str, str]:
    """The keys whose values have references, and these values."""
    return {key: text for key, text in config.items() if isinstance(text, str) and REFERENCE.search(text)}


def is_reference(value: str) -> bool:
    """Whether a value is nothing but a reference to what stands elsewhere; it may be one of Kafka Connect's own."""
    return _ONLY_REFERENCE.fullmatch(value) is not None


def _looked_up(provider: str, path: str | None, key: str, shown: str) -> str:
    if provider == "env":
        if path:
            raise UserError(f"{shown}: write ${{env:NAME}}")
        if key not in os.environ:
            raise UserError(f"{shown}: there is no environment variable {key}")
        return os.environ[key]
    if not path or not key:
        raise UserError(f"{shown}: write ${{{provider}:/path:{'key' if provider == 'file' else 'file name'}}}")
    return _of_file(Path(path), key, shown) if provider == "file" else _of_folder(Path(path), key, shown)


def _of_file(path: Path, key: str, shown: str) -> str:
    text = _read(path, shown)
    try:
        keys = json.loads(text) if text.lstrip().startswith("{") else {k: v for _, k, v in properties.entries(text)}
    except json.JSONDecodeError:
        raise UserError(f"{shown}: {path} is not JSON") from None
    if key not in keys:
        raise UserError(f"{shown}: {path} has no key “{key}”")
    return str(keys[key])


def _of_folder(path: Path, key: str, shown: str) -> str:
    if "/" in key or key in ("", ".", ".."):
        raise UserError(f"{shown}: “{key}” is no file name")
    return _read(path / key, shown).removesuffix("\n")


def _read(path: Path, shown: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"{shown}: {path} cannot be read: {why}") from None


def is_secret(key: str, typed: Iterable[str] = ()) -> bool:
    """Whether the value of `key` is to be hidden: by its type (pydantic's SecretStr, ConfigDef's PASSWORD), of which
    `typed` are the keys, or by its name (`connection.password`, `api.key`, …)."""
    return key in typed or (_NAMES.search(key) is not None and _PLACES.search(key) is None)


def shown(key: str, value: Any, typed: Iterable[str] = ()) -> Any:
    """The value of `key` as anybody may see it. One that is nothing but a reference is no secret; the password in a
    URL (`postgresql://me:secret@host/db`) is one, whatever the key is called."""
    if not isinstance(value, str) or not value or is_reference(value):
        return value
    if is_secret(key, typed):
        return HIDDEN
    for pattern in _WITHIN:
        value = pattern.sub(lambda found: found["before"] + _hidden(found["secret"]), value)
    return value


def _hidden(secret: str) -> str:
    return secret if is_reference(secret.strip("\"'")) else HIDDEN


def within(value: str) -> set[str]:
    """The secrets within a value, whatever its key."""
    found = {match["secret"].strip("\"'") for pattern in _WITHIN for match in pattern.finditer(value)}
    return {text for text in found if not is_reference(text)}


def in_url(value: str) -> bool:
    """Whether a text has a URL with a password that is written out."""
    return any(not is_reference(match["secret"]) for match in _WITHIN[0].finditer(value))


def secrets_of(config: Mapping[str, Any], typed: Iterable[str] = ()) -> set[str]:
    """The texts that a configuration wants hidden."""
    found = set()
    for key, value in config.items():
        if not isinstance(value, str) or is_reference(value):
            continue
        if is_secret(key, typed):
            found |= {value, value.partition(":")[2]} if key.endswith("user.info") else {value}
        found |= within(value)
    return {text for text in found if len(text.encode(errors="replace")) >= SECRET_BYTES_MIN and text != HIDDEN}


class Scrubber:
    """Takes known secrets out of texts. Any thread may use it; what it was told it never forgets."""

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None

    def learn(self, secrets: Iterable[str]) -> None:
        """Those of fewer than SECRET_BYTES_MIN bytes are passed over."""
        long = [text for text in secrets if len(text.encode(errors="replace")) >= SECRET_BYTES_MIN and text != HIDDEN]
        new = {form for text in long for form in _forms(text)} - self._known
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
    """A secret as it stands in plain text, in a URL, in Python's repr, in JSON, and in JSON of these; and its lines."""
    plain = {text, repr(text)[1:-1], quote(text, safe="", errors="replace")}
    plain |= {line for line in map(str.strip, text.splitlines()) if len(line) >= LINE_CHARACTERS_MIN}
    quoted = plain | _in_json(plain)
    return quoted | _in_json(quoted)


def _in_json(texts: Iterable[str]) -> set[str]:
    return {json.dumps(one, ensure_ascii=ascii_)[1:-1] for one in texts for ascii_ in (True, False)}


KNOWN = Scrubber()
"""What this process has come to know. There is one, since whatever writes a line may meet any of them."""


class _Scrubbed:
    """A text stream whose every write goes through KNOWN."""

    def __init__(self, inner: TextIO) -> None:
        self._inner = inner

    def write(self, text: str) -> int:
        self._inner.write(KNOWN.text(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def scrubbed(stream: TextIO) -> TextIO:
    """The stream without KNOWN secrets: logs, messages and tracebacks of a process go to such a stderr."""
    return stream if isinstance(stream, _Scrubbed) else cast(TextIO, _Scrubbed(stream))
