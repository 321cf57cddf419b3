"""One detached process: start it, find it again later from another process, stop it.

A number alone does not say whose process it is, since numbers are used again: each process carries a token of its own
in its command line, and the pidfile holds both.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from headrace.stack.part import Launch

DETACH = 'exec 3>&-; "$@" >>"$0" 2>&1 </dev/null & echo $!'
"""The shell ends at once, so the process belongs to init: none of ours has to reap it, and none takes it along."""
TAIL_BYTES = 64 * 1024
EXEC_TIMEOUT_S, EXEC_POLL_S = 2.0, 0.005
"""A kernel thread, which may have the number of a process long gone, has no command line either, ever."""
KERNEL_THREADS = 2
"""The process whose children they all are."""
CLOCK_TICKS_S = 2.0
"""How far apart the clock of files and that of processes may be."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process that lives and is ours."""

    pid: int
    rss_bytes: int
    started_s: float
    """Seconds since 1970."""

    def listens(self, port: int) -> bool:
        """Is it this process that listens on this port? Another one's broker or registry would answer just as well."""
        try:
            return any(held.status == psutil.CONN_LISTEN and held.laddr.port == port
                       for held in psutil.Process(self.pid).net_connections("tcp"))
        except psutil.NoSuchProcess:
            return False


def start(launch: Launch, pidfile: Path, log: Path) -> int:
    """Start in a session of its own, with its output going to `log`; its pid, which the pidfile holds by then."""
    token = secrets.token_hex(8)
    write_whole(pidfile, {"pid": None, "token": token})  # first: who is interrupted here still leaves a way to find it
    java, *rest = launch.argv
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.is_file():
        log.replace(log.with_suffix(".log.1"))
    started = subprocess.run(["/bin/sh", "-c", DETACH, str(log), java, f"-Dheadrace.token={token}", *rest],
                             env={**os.environ, **launch.env}, cwd=launch.cwd, start_new_session=True,
                             stdout=subprocess.PIPE, text=True, check=True)
    pid = int(started.stdout)
    write_whole(pidfile, {"pid": pid, "token": token})
    return pid


def find(pidfile: Path) -> Running | None:
    """The process a pidfile speaks of, if it lives and is the one that was started."""
    try:
        written = json.loads(pidfile.read_text())
        process = (psutil.Process(written["pid"]) if written["pid"] else
                   _search(written["token"], pidfile.stat().st_mtime))
        if not _carries(written["token"], _command_line(process)):
            return None
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return Running(process.pid, process.memory_info().rss, process.create_time())
    except (FileNotFoundError, psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _command_line(process: psutil.Process) -> list[str]:
    """Its arguments; while it is changing into another program Linux shows none for a moment: that is waited out."""
    deadline = time.monotonic() + EXEC_TIMEOUT_S
    line: list[str] = process.cmdline()
    while not line and time.monotonic() < deadline and process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(EXEC_POLL_S)
        line = process.cmdline()
    return line


def _carries(token: str, line: list[str]) -> bool:
    return f"-Dheadrace.token={token}" in line


def _search(token: str, since_s: float) -> psutil.Process:
    """The process with this token, by looking at every one; at those begun since then until they show their arguments.

    It may be the shell that is about to start ours, or has just done so: that shell may end while we look at others,
    and leave a process that was not there when we began. So we look until there is none that we have not seen.
    """
    seen: set[psutil.Process] = set()
    while new := set(psutil.process_iter()) - seen:
        for process in new:
            try:
                young = process.create_time() > since_s - CLOCK_TICKS_S and process.ppid() != KERNEL_THREADS
                if _carries(token, _command_line(process) if young else process.cmdline()):
                    return process
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        seen |= new
    raise psutil.NoSuchProcess(0, msg=f"none has the token {token}")


def stop(pidfile: Path, timeout_s: float, told: Callable[[str], None] = lambda text: None) -> bool:
    """Ask it to end, wait, then kill; remove the pidfile. Was there anything to stop?"""
    found = False
    while running := find(pidfile):  # a shell, and then what it had started before it ended
        found = True
        try:
            process = psutil.Process(running.pid)
            process.terminate()
            try:
                process.wait(timeout_s)
            except psutil.TimeoutExpired:
                told(f"process {running.pid} did not end in {timeout_s:g} s: killed")
                process.kill()
                process.wait(timeout_s)
        except psutil.NoSuchProcess:
            pass
    pidfile.unlink(missing_ok=True)
    return found


def tail(log: Path, lines: int, end: int | None = None) -> list[str]:
    """The last lines of a log, or none when there is none; those up to byte `end`, if that is said."""
    if not log.is_file():
        return []
    with log.open("rb") as opened:
        end = opened.seek(0, os.SEEK_END) if end is None else end
        start = opened.seek(max(0, end - max(TAIL_BYTES, 400 * lines)))
        return opened.read(end - start).decode(errors="replace").splitlines()[-lines:]


def write_whole(path: Path, value: object) -> None:
    """JSON that a reader sees whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(value, indent=1) + "\n")
    new.replace(path)
