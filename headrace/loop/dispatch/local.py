"""local: the training is a process on this machine, with limits, that outlives the dispatcher and runs once.

    .headrace/runs/<trigger[:16]>/   request.json, plan.json, and what local_run.py writes beside them

The folder is all the state there is, and its `lock` decides: whoever calls `submit` or `poll`, and how many at once,
finds the run that holds the lock, or its exit.json, or starts it (again). `python -m headrace.loop.dispatch.local
--request FILE` does the same from a shell and waits: what the DAG in headrace/dags does on an Airflow worker.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from pydantic import Field

from headrace.config import Config
from headrace.control import Retrain, digest
from headrace.errors import Retriable, UserError
from headrace.loop.dispatch import local_run
from headrace.loop.dispatch.base import Refused, Resources, Status, request_from_json, tail
from headrace.secrets import scrubbed

TRAIN = ("python", "-m", "headrace.loop.train", "--request", "{request}", "--result", "{result}")
LAUNCH_TIMEOUT_S = 30.0
CANCEL_TIMEOUT_S = 20.0
CANCEL_LOOK_S = 0.05
TAIL_BYTES = 16 * 1024
NOT_STARTED: Mapping[int, str] = {local_run.NO_GPU: "waits for a GPU that others use"}
RETRY_S = 5.0
LOOK_S = 0.5
"""How often the shell command looks."""


class LocalConfig(Config):
    """A process on the machine that dispatches."""

    command: tuple[str, ...] = Field(
        TRAIN, min_length=1, description="The training program and its arguments; `{request}` and `{result}` stand for "
        "files: the request, JSON, to read, and the result, a JSON object, to write (or print as the last line). "
        "`python` is the one headrace runs on.")
    env: Mapping[str, str] = Field({}, description="Environment variables for it, besides those of the dispatcher.")
    folder: Path = Field(Path(".headrace/runs"), description="Where runs are kept, in the project.")
    attempts_max: int = Field(3, ge=1, description="How often a run is started when it, or its supervisor, is killed "
                              "or the machine goes down. A training that fails is not tried again.")
    nice: int = Field(10, ge=0, le=19, description="How far it steps back for other processes; 0 not at all.")
    gpus: int | None = Field(None, ge=0, description="GPUs of this machine; counted, if not said.")
    keep_max: int = Field(200, ge=1, description="Runs that are over to keep, with their logs; a new one drops the "
                          "oldest beyond.")


class Local:
    """See the module."""

    name = "local"

    def __init__(self, config: LocalConfig, *, project: Path) -> None:
        self.config = config
        self.project = project.resolve()

    def folder(self, trigger: str) -> Path:
        name = trigger if re.fullmatch(r"[0-9a-f]{16,}", trigger) else digest(trigger)
        return self.project / self.config.folder / name[:16]

    def submit(self, request: Retrain, resources: Resources) -> Status:
        gpus = local_run.gpus_here() if self.config.gpus is None else self.config.gpus
        if resources.gpu > gpus:
            raise Refused(f"the training asks for {resources.gpu} GPUs, and this machine has {gpus}",
                          hint="set `resources: gpu` to what is there, or dispatch to where GPUs are")
        folder = self.folder(request.id)
        there = local_run.read(folder / "request.json")
        if there is not None and there["id"] != request.id:
            raise Refused(f"{folder} holds another request, {there['id']}", hint="remove that folder if it is over")
        if there is None:
            python = (sys.executable, *self.config.command[1:]) if self.config.command[0] == "python" else None
            folder.mkdir(parents=True, exist_ok=True)
            _prune(folder.parent, self.config.keep_max)
            local_run.write_whole(folder / "plan.json", {
                "command": python or self.config.command, "env": dict(self.config.env), "cwd": str(self.project),
                "resources": asdict(resources), "attempts_max": self.config.attempts_max, "nice": self.config.nice,
                "gpus": gpus})
            local_run.write_whole(folder / "request.json", json.loads(request.to_json()))  # last: it is whole now
        return self._see(folder)

    def poll(self, trigger: str, run: str | None) -> Status:
        folder = self.folder(trigger)
        return self._see(folder) if (folder / "request.json").exists() else Status("unknown")

    def cancel(self, trigger: str, run: str | None) -> None:
        """Returns when the run is over. What has not begun never will."""
        folder = self.folder(trigger)
        deadline = time.monotonic() + CANCEL_TIMEOUT_S
        while (folder / "request.json").exists() and not (folder / "exit.json").exists():
            lock = local_run.try_lock(folder / "lock")
            if lock is not None:
                if not (folder / "exit.json").exists():
                    local_run.write_whole(folder / "exit.json", {"code": None, "reason": "cancelled"})
                os.close(lock)
                return
            _signal(folder, signal.SIGTERM)
            if time.monotonic() > deadline:
                raise Retriable(f"the run in {folder} does not end", retry_after_s=RETRY_S)
            time.sleep(CANCEL_LOOK_S)

    def let_go(self, trigger: str) -> None:
        """End the run as a crash would: the next submit or poll starts it again, and counts the attempt."""
        folder = self.folder(trigger)
        _signal(folder, signal.SIGKILL)
        local_run.end_survivors(folder)

    def _see(self, folder: Path) -> Status:
        """How it stands; started, if it should run and does not."""
        over = local_run.read(folder / "exit.json")
        if over is None:
            now_s = time.time()
            lock = local_run.try_lock(folder / "lock")  # the usual case costs no process: it runs
            if lock is not None:
                os.close(lock)
            said = local_run.HELD if lock is None else _launch(folder)
            if said == local_run.HELD and local_run.runner(folder) is None:
                # Its supervisor was killed, and something of the command has outlived it with the lock.
                local_run.end_survivors(folder, before_s=now_s)
            over = local_run.read(folder / "exit.json")
            if over is None:
                reason = NOT_STARTED.get(said, "")
                return Status("queued" if reason else "running", folder.name, reason)
        return _outcome(folder, over)


def _launch(folder: Path) -> int:
    """Ask for the run: what local_run.py ended with. Raises Retriable when that cannot be said."""
    try:
        done = subprocess.run([sys.executable, "-P", local_run.__file__, str(folder)], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=LAUNCH_TIMEOUT_S, start_new_session=True, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Retriable(f"the supervisor of {folder.name} cannot be started: {error}",
                        retry_after_s=RETRY_S) from error
    if done.returncode not in (local_run.STARTED, local_run.HELD, local_run.OVER, local_run.NO_GPU):
        raise Retriable(f"the supervisor of {folder.name} does not start: {tail(done.stderr.decode(errors='replace'))}",
                        retry_after_s=RETRY_S)
    return done.returncode


def _prune(runs: Path, keep_max: int) -> None:
    """Drop the oldest runs that are over."""
    ended: list[tuple[float, Path]] = []
    for file in runs.glob("*/exit.json"):
        with contextlib.suppress(OSError):  # another dispatcher drops it, too
            ended.append((file.stat().st_mtime, file.parent))
    for _, folder in sorted(ended, reverse=True)[keep_max:]:
        shutil.rmtree(folder, ignore_errors=True)


def _signal(folder: Path, number: int) -> None:
    process = local_run.runner(folder)
    if process is not None:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def _last(file: Path) -> str:
    """The end of a log."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            return log.read().decode(errors="replace").strip()
    except OSError:
        return ""


def _result(folder: Path) -> dict[str, Any] | None:
    """What the training wrote, or printed last; None where that is no JSON object."""
    found = local_run.read(folder / "result.json")
    if found is not None:
        return found
    try:
        printed = json.loads(_last(folder / "stdout.log").rpartition("\n")[2])
    except ValueError:
        return None
    return printed if isinstance(printed, dict) else None


def _outcome(folder: Path, over: Mapping[str, Any]) -> Status:
    """exit.json as a status: measures beside what the training says, or the end of its log."""
    measured = {key: over[key] for key in ("cpu_s", "peak_bytes", "wall_s", "attempt") if key in over}
    if over["code"] == 0 and not over["reason"]:
        result = _result(folder)
        if result is not None:
            return Status("succeeded", folder.name, result={**result, **measured})
        over = {**over, "reason": "it ended well, but wrote no result: a JSON object to its --result file, or as the "
                "last line it prints"}
    log = _last(folder / "stderr.log") or _last(folder / "stdout.log")
    return Status("failed", folder.name, tail(f"{over['reason']}\n{tail(log, 1200)}"), measured)


def attend(local: Local, request: Retrain, resources: Resources, *, follow: bool = False) -> Status:
    """Submit, and wait for the end. `follow`: end the run, to be started again, when our own parent is gone."""
    parent = os.getppid()
    status = local.submit(request, resources)
    while not status.over:
        time.sleep(LOOK_S)
        if follow and os.getppid() != parent:
            local.let_go(request.id)
            return Status("queued", status.run, "whoever asked for it is gone")
        with contextlib.suppress(Retriable):
            status = local.poll(request.id, status.run)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one request here and waits. The last line printed is {"state", "reason", "result"}; 0 when it succeeded, 1
    when it failed, 2 when it is refused. SIGTERM ends the run so that calling again starts it again."""
    parser = argparse.ArgumentParser(prog="python -m headrace.loop.dispatch.local", description=main.__doc__)
    parser.add_argument("--request", required=True, help="a file with the request, JSON of a Retrain event; - is stdin")
    parser.add_argument("--resources", default="{}", help='JSON, e.g. {"memory_mb": 2048}')
    parser.add_argument("--config", default="{}", help="JSON of the local dispatcher's config")
    parser.add_argument("--project", type=Path, default=Path(), help="where .headrace is")
    parser.add_argument("--follow", action="store_true", help="end the run when the caller is gone")
    asked = parser.parse_args(argv)
    try:
        request = request_from_json(sys.stdin.read() if asked.request == "-" else Path(asked.request).read_text())
        local = Local(LocalConfig(**json.loads(asked.config)), project=asked.project)

        def stop(*_: object) -> None:
            local.let_go(request.id)
            sys.exit(128 + signal.SIGTERM)

        signal.signal(signal.SIGTERM, stop)
        status = attend(local, request, Resources(**json.loads(asked.resources)), follow=asked.follow)
    except (UserError, ValueError, TypeError) as error:
        print(json.dumps({"state": "refused", "reason": str(error), "result": None}), flush=True)
        return UserError.exit_code
    print(json.dumps({"state": status.state, "reason": status.reason, "result": status.result}), flush=True)
    return 0 if status.state == "succeeded" else 1


if __name__ == "__main__":
    sys.stderr = scrubbed(sys.stderr)
    sys.exit(main())
