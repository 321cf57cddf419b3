"""The supervisor of one local run: `python -P local_run.py FOLDER`. It outlives the dispatcher that started it.

FOLDER holds plan.json and request.json (see local.py), and then:
    lock         held (flock) by this process and the training itself, for as long as either lives
    runner.json  {"pid", "created", "attempt", "child"}: who holds the lock
    stdout.log, stderr.log, result.json (the training's own)
    exit.json    how it ended: whoever finds this knows that the run is over

In order: take the lock (or end: HELD); end if there is an exit.json (OVER); count the attempt; take the GPUs (or end:
NO_GPU); fork, so that the caller has its answer while the run goes on; run the command; measure; write exit.json.
Standard library and psutil only, and run by file: it starts in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import json
import math
import os
import resource
import secrets
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

STARTED, HELD, OVER, NO_GPU = 0, 10, 11, 12
"""What the launching process ends with."""
LOOK_S = 0.1
"""How often memory and time are looked at."""
GRACE_S = 5.0
"""Between asking a process to end and ending it."""
PR_SET_PDEATHSIG = 1
MARK = "HEADRACE_RUN"
"""In the environment of every process of a run: its folder. By this its survivors are found."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "LOKY_MAX_CPU_COUNT")


def write_whole(file: Path, value: Any) -> None:
    """JSON in place of what was there: a reader sees all of the old or all of the new, after a power cut too."""
    part = file.with_name(f"{file.name}.{secrets.token_hex(6)}.part")
    with part.open("w") as out:
        json.dump(value, out)
        out.flush()
        os.fsync(out.fileno())
    part.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(file: Path) -> dict[str, Any] | None:
    """The JSON object there; None if there is none, or no whole one."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def try_lock(file: Path) -> int | None:
    """A descriptor that holds the lock, or None if someone has it."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def gpus_here() -> int:
    """NVIDIA devices of this machine."""
    return len(glob.glob("/dev/nvidia[0-9]*"))


def end_survivors(folder: Path, before_s: float = math.inf) -> None:
    """Ends what carries this run's mark and was created before then (seconds since 1970): what a command left behind,
    or an earlier attempt whose supervisor was killed. Returns when they are gone."""
    killed = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if (process.pid != os.getpid() and process.create_time() < before_s
                    and process.environ().get(MARK) == str(folder)):
                process.kill()
                killed.append(process)
    psutil.wait_procs(killed, timeout=GRACE_S)


def runner(folder: Path) -> psutil.Process | None:
    """The living process that runner.json names."""
    noted = read(folder / "runner.json")
    if noted is None:
        return None
    try:
        process = psutil.Process(noted["pid"])
        alive = process.create_time() == noted["created"] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if alive else None


def take_gpus(folder: Path, wanted: int, there: int) -> tuple[list[int], list[int]] | None:
    """(device numbers, descriptors of their locks), or None where too few are free. The locks end with the run."""
    numbers: list[int] = []
    locks: list[int] = []
    for number in range(there):
        if len(numbers) == wanted:
            break
        lock = try_lock(folder.parent / f"gpu-{number}.lock")
        if lock is not None:
            numbers.append(number)
            locks.append(lock)
    if len(numbers) == wanted:
        return numbers, locks
    for lock in locks:
        os.close(lock)
    return None


def limits(plan: dict[str, Any]) -> Callable[[], None]:
    """What the child sets for itself before the command: its end with ours, its processor time, its niceness."""
    cpu = plan["resources"]["cpu"]
    seconds = math.ceil(cpu * plan["resources"]["seconds_max"]) if cpu else None
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    supervisor = os.getpid()

    def apply() -> None:
        if libc:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(1)  # it was killed before the line above
        if seconds:
            hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
            top = seconds if hard == resource.RLIM_INFINITY else min(seconds, hard)
            resource.setrlimit(resource.RLIMIT_CPU, (top, hard))
        os.nice(plan["nice"])

    return apply


def environment(plan: dict[str, Any], folder: Path, gpus: list[int]) -> dict[str, str]:
    """The training's: ours, its GPUs (none, unless asked for), and as many threads as it may have cores."""
    out = {**os.environ, **plan["env"], MARK: str(folder), "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
    if plan["resources"]["cpu"]:
        out |= dict.fromkeys(THREADS, str(math.ceil(plan["resources"]["cpu"])))
    return out


@dataclass(slots=True)
class Watch:
    """Looks at a process group until it ends, or must."""

    child: subprocess.Popen[bytes]
    memory_bytes_max: int | None
    seconds_max: float
    folder: Path
    peak_bytes: int = 0
    cancelled: bool = False
    began_s: float = field(default_factory=time.monotonic)

    def look(self) -> str | None:
        """Why it must end now, or None."""
        if self.cancelled:
            return "cancelled"
        used = 0
        with contextlib.suppress(psutil.Error):
            tree = psutil.Process(self.child.pid)
            for process in (tree, *tree.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    used += process.memory_info().rss
        self.peak_bytes = max(self.peak_bytes, used)
        if self.memory_bytes_max and used > self.memory_bytes_max:
            return (f"it took {used >> 20:,} MiB of memory, and may take {self.memory_bytes_max >> 20:,} "
                    "(`resources: memory_mb`)")
        if time.monotonic() - self.began_s > self.seconds_max:
            return f"it ran longer than {self.seconds_max:g} s (`resources: seconds_max`)"
        return None

    def wait(self) -> str | None:
        """Returns when it has ended: None, or why it was made to."""
        while True:
            why = self.look()
            if why:
                self.end()
                return why
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(LOOK_S)
                return None

    def end(self) -> None:
        """The whole group: asked first, then killed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(GRACE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


def supervise(folder: Path, plan: dict[str, Any], attempt: int, lock: int, gpus: list[int]) -> None:
    """Run the command to its end, and write down how that was."""
    fill = {"{request}": str(folder / "request.json"), "{result}": str(folder / "result.json")}
    command = [fill.get(part, part) for part in plan["command"]]
    (folder / "result.json").unlink(missing_ok=True)  # half of an earlier attempt
    began_s = time.monotonic()
    outcome: dict[str, Any] = {"attempt": attempt, "code": None}
    try:
        with (folder / "stdout.log").open("ab") as out, (folder / "stderr.log").open("ab") as err:
            child = subprocess.Popen(command, cwd=plan["cwd"], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                     env=environment(plan, folder, gpus), pass_fds=(lock,), process_group=0,
                                     preexec_fn=limits(plan))  # one thread lives here, so a preexec_fn is safe
    except OSError as error:
        write_whole(folder / "exit.json", {**outcome, "reason": f"{command[0]!r} does not start: {error}"})
        return
    memory_mb = plan["resources"]["memory_mb"]
    watch = Watch(child, memory_mb and memory_mb << 20, plan["resources"]["seconds_max"], folder)
    signal.signal(signal.SIGTERM, lambda *_: setattr(watch, "cancelled", True))
    note(folder, attempt, child.pid)
    why = watch.wait()
    end_survivors(folder)
    if why is None and child.returncode == -signal.SIGKILL and attempt < plan["attempts_max"]:
        return  # like a supervisor that is killed: without an exit.json, the next poll tries again
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    write_whole(folder / "exit.json", {
        **outcome, "code": child.returncode, "reason": why or ended(child.returncode),
        "cpu_s": round(used.ru_utime + used.ru_stime, 3), "peak_bytes": max(watch.peak_bytes, used.ru_maxrss * unit),
        "wall_s": round(time.monotonic() - began_s, 3)})


def ended(code: int) -> str:
    """What an exit code says, for a person; empty for 0."""
    if code == -signal.SIGXCPU:
        return "it used more processor time than `resources: cpu` × `seconds_max` allows"
    if code == -signal.SIGKILL:
        return "it was killed (signal 9) by someone else, each time: the system does so when memory runs out"
    return f"it ended by signal {-code}" if code < 0 else f"it ended with exit code {code}" if code else ""


def note(folder: Path, attempt: int, child: int | None = None) -> None:
    """Who runs it. The time of creation is kept with the number, since numbers are used again."""
    write_whole(folder / "runner.json", {"pid": os.getpid(), "created": psutil.Process().create_time(),
                                         "attempt": attempt, "child": child})


def main(folder: Path) -> int:
    """What the launching process ends with; the run itself goes on in a process of its own."""
    plan = read(folder / "plan.json")
    assert plan, f"{folder}/plan.json is missing"
    lock = try_lock(folder / "lock")
    if lock is None:
        return HELD
    if (folder / "exit.json").exists():
        return OVER
    attempt = (read(folder / "runner.json") or {"attempt": 0})["attempt"] + 1
    if attempt > plan["attempts_max"]:
        write_whole(folder / "exit.json", {"attempt": attempt - 1, "code": None, "reason": (
            f"whoever ran it died {attempt - 1} times (killed, or the machine went down); it is not tried again")})
        return OVER
    end_survivors(folder)
    taken = take_gpus(folder, plan["resources"]["gpu"], plan["gpus"])
    if taken is None:
        return NO_GPU
    if os.fork():
        return STARTED  # the lock is held on by the child: there is no moment without it
    os.setsid()
    note(folder, attempt)
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(quiet, stream)
    log = os.open(folder / "runner.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 2)
    try:
        supervise(folder, plan, attempt, lock, taken[0])
    except BaseException:
        traceback.print_exc()  # to runner.log; without an exit.json, the next poll tries again
    os._exit(0)  # nothing of the launching process is to be flushed or run twice


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
