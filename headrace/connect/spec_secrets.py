"""Values that stand elsewhere: `${env:NAME}`, `${file:/path:key}`, `${dir:/path:file}`, as Kafka Connect's providers.

They are looked up when a task starts, and kept in no file, topic, answer or log: `Hidden` takes them out of texts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from headrace.connect.masks import HIDDEN
from headrace.errors import ConfigError, UserError

REFERENCE = re.compile(r"\$\{(env|file|dir):(?:([^}:]*):)?([^}]*)\}")
SHORT = 4
"""A secret of fewer characters would blot out half of a text, and hides nothing."""


def resolved(text: str) -> str:
    """The text with what its references stand for. Raises UserError naming the reference, never a value."""
    return REFERENCE.sub(lambda found: _looked_up(found[1], found[2], found[3], found[0]), text)


def references(config: Mapping[str, str]) -> dict[str, str]:
    """The keys whose values have references, and these values."""
    return {key: text for key, text in config.items() if isinstance(text, str) and REFERENCE.search(text)}


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
    from headrace.connect.config import read

    try:
        keys = read(path).keys
    except ConfigError as error:
        raise UserError(f"{shown}: {path} {error.findings[0].message.partition(':')[0]}") from None
    if key not in keys:
        raise UserError(f"{shown}: {path} has no key “{key}”")
    return str(keys[key])


def _of_folder(path: Path, key: str, shown: str) -> str:
    if "/" in key or key in ("", ".", ".."):
        raise UserError(f"{shown}: “{key}” is no file name")
    try:
        return (path / key).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{shown}: {path / key} cannot be read: {getattr(error, 'strerror', None) or error}") from None


class Hidden:
    """Takes secrets out of a text. Its own repr has none."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({s for s in secrets if len(s) >= SHORT}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub(HIDDEN, text) if self._pattern else text
