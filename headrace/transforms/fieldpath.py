"""Paths to fields: one name (syntax V1), or names between dots, with backticks around those that have dots (V2)."""

from __future__ import annotations


def steps(path: str, syntax: str) -> tuple[str, ...]:
    """The names along a path. Raises ValueError for a backtick without its fellow, and for an empty path in V2."""
    if syntax == "V1":
        return (path,)
    if not path:
        raise ValueError("is empty")
    found: list[str] = []
    at = 0
    while at < len(path):
        if path[at] == "`":
            name, at = _quoted(path, at)
            found.append(name)
        else:
            end = path.find(".", at)
            found.append(path[at:] if end < 0 else path[at:end])
            at = len(path) if end < 0 else end + 1
    if path.endswith("."):
        found.append("")
    return tuple(found)


def _quoted(path: str, opened: int) -> tuple[str, int]:
    """(the name between backticks, where the next begins). A backtick ends the name where a dot, or nothing, follows;
    a backslash before it takes that away."""
    name, start = "", opened + 1
    at = start
    while True:
        at = path.find("`", at)
        escaped = at > 0 and path[at - 1] == "\\"
        if at < 0 or (at == len(path) - 1 and escaped):
            raise ValueError(f"“{path}”: the backtick at position {opened} is not closed; a backslash before it makes "
                             "it part of the name")
        if at == len(path) - 1:
            return name + path[start:at], at + 1
        if path[at + 1] == ".":
            if not escaped:
                return name + path[start:at], at + 2
            name += path[start:at - 1] + "`"
            start = at + 1
        at += 1
