"""A process is found by its token at any moment of its start."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from headrace.stack import supervise

pytestmark = pytest.mark.unit
TOKEN = "5f0c0ffee"


def test_a_shell_that_ends_while_we_look_leaves_what_it_started(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    pidfile = tmp_path / "kafka.pid"
    supervise.write_whole(pidfile, {"pid": None, "token": TOKEN})
    shell = subprocess.Popen(["/bin/sh", "-c", 'sleep 0.3; "$@" &', "-", sys.executable, "-c",
                              "import time; time.sleep(60)", f"-Dheadrace.token={TOKEN}"])
    listings = 0

    def processes() -> Iterator[psutil.Process]:
        """All of them; the first time the shell is listed, and gone when somebody looks."""
        nonlocal listings
        listings += 1
        found = list(everyone())
        if listings == 1:
            assert shell.pid in [each.pid for each in found]
            shell.wait()
        return iter(found)

    everyone = psutil.process_iter
    monkeypatch.setattr(psutil, "process_iter", processes)
    running = supervise.find(pidfile)
    assert running is not None
    assert running.pid != shell.pid
    assert supervise.stop(pidfile, 5)
    end = time.monotonic() + 60
    while psutil.pid_exists(running.pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert not psutil.pid_exists(running.pid)
