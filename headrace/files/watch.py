"""The files of a folder, or of a pattern, in the order of their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from headrace.ingest import FORMATS

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload")
"""Suffixes of files that somebody is still writing: passed over, as hidden ones are."""


class Stamp(NamedTuple):
    """What tells a file from another of its name."""

    size: int
    mtime_ns: int


def stamp_of(path: Path) -> Stamp:
    at = path.stat()
    return Stamp(at.st_size, at.st_mtime_ns)


def is_pattern(text: str) -> bool:
    return re.search(r"[*?\[]", text) is not None


class NamedFiles:
    """The files that `given`, a folder or a pattern, means in a project. `format` None: those with a suffix we know."""

    def __init__(self, project: Path, given: str, format: str | None, done_folder: str | None) -> None:
        self.project, self.given, self.format = project, given, format
        self.done = (project / done_folder).resolve() if done_folder else None

    def may_be(self) -> bool:
        return is_pattern(self.given) or (self.project / self.given).is_dir()

    def scan(self, finished: Mapping[str, Stamp]) -> list[str]:
        """Names relative to the project (absolute where they are outside), without those that are finished and the
        same still. Raises OSError where the folder is gone."""
        folder = self.project / self.given
        if is_pattern(self.given):
            pattern = Path(self.given)
            root = Path(pattern.anchor) if pattern.is_absolute() else self.project
            found = root.glob(str(pattern.relative_to(pattern.anchor)))
        else:
            found = folder.iterdir()
        return [name for name in sorted(self._name(path) for path in found if self._counts(path))
                if name not in finished or stamp_of(self.project / name) != finished[name]]

    def _name(self, path: Path) -> str:
        return (path.relative_to(self.project) if path.is_relative_to(self.project) else path).as_posix()

    def _counts(self, path: Path) -> bool:
        suffix = path.suffix.lower()
        if path.name.startswith(".") or suffix in UNFINISHED or not path.is_file():
            return False
        if self.done is not None and path.parent.resolve() == self.done:
            return False
        return self.format is not None or suffix in FORMATS
