"""A stack that ends with the process that wanted it, even when that one is killed: for tests and trials."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.stack.lifecycle import down

WATCH = "import sys; sys.stdin.read(); from headrace.stack.leash import let_go; let_go(sys.argv[1], sys.argv[2:])"
LET_GO_TIMEOUT_S = 60


@contextmanager
def leash(project: Path, *, delete: bool = False) -> Iterator[None]:
    """Within, `up(project)` as you like; at the end its stack is down and purged. `delete` removes the folder too.

    A second process waits for the end of a pipe that this one holds, since the system closes a pipe after a `kill -9`
    as well as after a clean end.
    """
    watcher = subprocess.Popen([sys.executable, "-c", WATCH, str(project.resolve()), *(["delete"] if delete else [])],
                               stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        assert watcher.stdin
        watcher.stdin.close()
        watcher.wait(LET_GO_TIMEOUT_S)


def let_go(project: str, options: list[str]) -> None:
    """What the watcher does at the end."""
    down(Path(project), purge=True)
    if "delete" in options:
        shutil.rmtree(project, ignore_errors=True)
