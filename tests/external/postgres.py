"""A real PostgreSQL for tests: Debian's package, a cluster in a temporary folder, on loopback, with fsync.

    with postgres() as server:
        psycopg.connect(server.dsn)
        server.kill(); server.start()     # as after a power cut
What is started here ends with the tests, even when they are killed: a watcher holds the other end of a pipe.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
PACKAGE = "postgresql-15"
USER = "postgres"
TIMEOUT_S = 60
WATCH = """
import shutil, subprocess, sys
sys.stdin.read()
folder, *stop = sys.argv[1:]
subprocess.run(stop, capture_output=True)
shutil.rmtree(folder, ignore_errors=True)
"""


@dataclass(slots=True)
class Postgres:
    """A server that answers at `dsn`, as its superuser. `stop`, `kill` and `start` keep port, password and data."""

    folder: Path
    programs: Path
    port: int
    password: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return self.dsn_of("postgres")

    def dsn_of(self, database: str) -> str:
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        """Returns when it takes connections. After a kill it waits for the old one's back ends to notice."""
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(self.folder), "port": str(self.port)}
        command = [str(self.programs / "postgres"), "-D", str(self.data)]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        end = time.monotonic() + TIMEOUT_S
        while not self._answers():
            assert time.monotonic() < end, f"PostgreSQL does not come up:\n{self.log()[-3000:]}"
            if self.process is None or self.process.poll() is not None:
                with (self.folder / "log").open("ab") as log:
                    self.process = subprocess.Popen(as_user(command), stdin=subprocess.DEVNULL, stdout=log,
                                                    stderr=subprocess.STDOUT, cwd=self.folder, start_new_session=True)
            time.sleep(0.05)

    def stop(self) -> None:
        """An orderly end; those who are connected are cut off."""
        self.end(signal.SIGINT)

    def kill(self) -> None:
        """`kill -9`: what is not on disk is gone."""
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(TIMEOUT_S)
            self.process = None

    def _answers(self) -> bool:
        asked = [str(self.programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return self.process is not None and subprocess.run(asked, check=False).returncode == 0

    def sql(self, statement: str, *values: object, database: str = "postgres") -> list[tuple[object, ...]]:
        """One statement in a connection of its own; the rows where it gives any."""
        import psycopg

        with psycopg.connect(self.dsn_of(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A server of one's own. The package is installed by apt-get where it is missing and we may."""
    programs = installed()
    folder = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))  # the server's user must be able to reach it
    server = Postgres(folder, programs, free_port(), secrets.token_hex(8))
    if os.getuid() == 0:
        shutil.chown(folder, USER, USER)
    folder.chmod(0o755)
    secret = folder / "password"
    secret.write_text(server.password)
    stop = as_user([str(programs / "pg_ctl"), "stop", "-m", "immediate", "-D", str(server.data)])
    watcher = subprocess.Popen([sys.executable, "-c", WATCH, str(folder), *stop], stdin=subprocess.PIPE,
                               start_new_session=True)
    try:
        run([str(programs / "initdb"), "-D", str(server.data), "-U", USER, "-E", "UTF8", "--locale=C.UTF-8",
             "--auth=scram-sha-256", "--pwfile", str(secret)], folder)
        server.start()
        yield server
    finally:
        server.end(signal.SIGQUIT)  # nothing of it is needed any more
        assert watcher.stdin
        watcher.stdin.close()
        watcher.wait(TIMEOUT_S)


def installed() -> Path:
    """The folder of the newest version's programs. Fails with what to do."""
    global PROGRAMS
    if not PROGRAMS and os.getuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", PACKAGE]):
            done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stderr[-2000:]}"
        PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    assert PROGRAMS, f"these tests need a PostgreSQL server: apt-get install {PACKAGE}"
    return PROGRAMS[-1].parent


def as_user(command: Sequence[str]) -> list[str]:
    """PostgreSQL refuses to be root."""
    if os.getuid() != 0:
        return list(command)
    known = pwd.getpwnam(USER)
    return ["setpriv", f"--reuid={known.pw_uid}", f"--regid={known.pw_gid}", "--clear-groups", *command]


def run(command: Sequence[str], folder: Path) -> None:
    """Raises AssertionError with what it said."""
    done = subprocess.run(as_user(command), capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, f"{Path(command[0]).name} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
