"""Writing so that it is there after a power cut, and locks that another process sees."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp-"


def sync_folder(folder: Path) -> None:
    """The names in a folder, as the disk has them."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """With those above it, each known to the one above."""
    missing = [one for one in (folder, *folder.parents) if not one.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        sync_folder(one.parent)


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """A file that is there whole, or not at all: written by another name, synced, renamed."""
    passing = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with passing.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        passing.rename(path)
    except BaseException:
        passing.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among those who lock the same path, in this process and others. The file stays: its removal would let two
    in."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
