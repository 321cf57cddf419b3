"""Java's properties files as keys, values and the line of each."""

from __future__ import annotations

import re
from collections.abc import Iterator

_KEY = re.compile(r"((?:[^\\=:\s]|\\.)+)[ \t\f]*[=: \t\f]?[ \t\f]*(.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\(.)", re.DOTALL)
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def entries(text: str) -> Iterator[tuple[int, str | None, str]]:
    """(line, key, value) as java.util.Properties reads them: comments by # and !, lines that end in a backslash go on,
    \\-escapes. The key is None where a line is no entry; its value is then the line."""
    rest, begun = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        line = line.lstrip(" \t\f")
        if not rest and (not line or line[0] in "#!"):
            continue
        begun = begun if rest else number
        if (len(line) - len(line.rstrip("\\"))) % 2:
            rest += line[:-1]
            continue
        found, rest = _KEY.fullmatch(rest + line), ""
        yield (begun, None, line) if found is None else (begun, _plain(found[1]), _plain(found[2]))


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _CONTROLS.get(m[2], m[2]), text)
