"""local: real processes, really killed: one run a trigger, limits that hold, reasons that tell."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace.control import Retrain, digest
from headrace.errors import ConfigError
from headrace.loop.dispatch import Refused, Resources, Status, dispatcher, local_run, request_from_json
from headrace.loop.dispatch.local import Local, LocalConfig

pytestmark = pytest.mark.unit

FREE = Resources(cpu=None, memory_mb=None, seconds_max=60)
TRAIN = """
import json, os, sys, time
with open({runs!r}, "a") as runs:
    runs.write(f"{{os.getpid()}}\\n")
request = json.load(open(sys.argv[1]))
{body}
json.dump({{"model": request["model"], "version": "7"}}, open(sys.argv[2], "w"))
"""


def request(name: str = "a") -> Retrain:
    return Retrain(id=digest(name), at=datetime(2013, 3, 1, tzinfo=UTC), flow="f", step="s", topic="t", partition=0,
                   window=3, offset_first=0, offset_last=9, window_start=None, window_end=None, measure="count",
                   condition="late", rows=10, matched=4, observed=4.0, threshold=4.0, model="m", reason="it’s time")


def local(tmp_path: Path, body: str = "", **config: Any) -> Local:
    program = tmp_path / "train.py"
    program.write_text(TRAIN.format(runs=str(tmp_path / "runs"), body=body))
    return Local(LocalConfig(command=("python", str(program), "{request}", "{result}"), nice=0, **config),
                 project=tmp_path)


def runs(tmp_path: Path) -> list[int]:
    file = tmp_path / "runs"
    return list(map(int, file.read_text().split())) if file.exists() else []


def until(tmp_path: Path, count: int, seconds: float = 60) -> list[int]:
    """The processes the training has run as, once there are so many."""
    deadline = time.monotonic() + seconds
    while len(runs(tmp_path)) < count:
        assert time.monotonic() < deadline, f"{len(runs(tmp_path))} of {count} runs began"
        time.sleep(0.02)
    return runs(tmp_path)


def over(local: Local, trigger: str, seconds: float = 60) -> Status:
    deadline = time.monotonic() + seconds
    while not (status := local.poll(trigger, None)).over:
        assert time.monotonic() < deadline, status
        time.sleep(0.02)
    return status


def supervisor(local: Local, trigger: str) -> int:
    """Who runs it, once the training has begun."""
    file = local.folder(trigger) / "runner.json"
    deadline = time.monotonic() + 60
    while not file.exists() or json.loads(file.read_text())["child"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(json.loads(file.read_text())["pid"])


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path) -> Iterator[None]:
    yield
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("HEADRACE_RUN", "").startswith(str(tmp_path)):
                left.append(process.cmdline())
                process.kill()
    assert not left, f"a run outlived its end: {left}"


def test_it_runs_once_and_brings_its_result(tmp_path: Path) -> None:
    here = local(tmp_path, "x = bytearray(64 << 20); sum(range(5_000_000))")
    assert here.poll(request().id, None) == Status("unknown")
    assert here.submit(request(), FREE).state == "running"
    status = over(here, request().id)
    assert status.state == "succeeded"
    assert status.result
    assert (status.result["model"], status.result["version"]) == ("m", "7")
    assert status.result["peak_bytes"] > 64 << 20
    assert 0.05 < status.result["cpu_s"] < 30
    assert here.submit(request(), FREE) == status, "asked again, it says the same and runs nothing"
    assert len(runs(tmp_path)) == 1


def test_eight_at_once_are_one_run(tmp_path: Path) -> None:
    here = local(tmp_path, "time.sleep(1)")
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda _: here.submit(request(), FREE).state, range(8)))
    assert set(states) == {"running"}
    assert over(here, request().id).state == "succeeded"
    assert len(runs(tmp_path)) == 1


def test_it_outlives_the_dispatcher_that_is_killed(tmp_path: Path) -> None:
    here = local(tmp_path, "time.sleep(1.5)")
    (tmp_path / "request.json").write_text(request().to_json())
    command = [sys.executable, "-m", "headrace.loop.dispatch.local", "--request", str(tmp_path / "request.json"),
               "--config", here.config.model_dump_json(), "--project", str(tmp_path)]
    for pause_s in random.Random(7).sample([0.0, 0.05, 0.1, 0.2, 0.3], 5):
        caller = subprocess.Popen(command, start_new_session=True)
        if not runs(tmp_path):
            until(tmp_path, 1)
        time.sleep(pause_s)
        caller.kill()
        caller.wait()
    assert over(here, request().id).state == "succeeded"
    assert len(runs(tmp_path)) == 1, "five dispatchers were killed, and the run was started once"


def test_a_killed_supervisor_takes_the_training_along_and_is_started_again(tmp_path: Path) -> None:
    here = local(tmp_path, f"time.sleep(30 if len(open({str(tmp_path / 'runs')!r}).readlines()) == 1 else 0)")
    here.submit(request(), FREE)
    first = until(tmp_path, 1)[0]
    os.kill(supervisor(here, request().id), signal.SIGKILL)
    status = over(here, request().id)
    assert status.state == "succeeded"
    assert status.result
    assert status.result["attempt"] == 2
    assert not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE
    assert len(runs(tmp_path)) == 2


def test_attempts_have_an_end(tmp_path: Path) -> None:
    here = local(tmp_path, "time.sleep(30)", attempts_max=2)
    for attempt in (1, 2):
        here.submit(request(), FREE)
        until(tmp_path, attempt)
        os.kill(supervisor(here, request().id), signal.SIGKILL)
        while here.poll(request().id, None).state == "running" and len(runs(tmp_path)) == attempt == 1:
            time.sleep(0.02)
    status = over(here, request().id)
    assert status.state == "failed"
    assert "died 2 times" in status.reason
    assert len(runs(tmp_path)) == 2


def test_a_grandchild_that_holds_the_lock_does_not_hold_up_the_run(tmp_path: Path) -> None:
    """A command's child in a session of its own keeps the lock's descriptor when everything above it is killed."""
    here = local(tmp_path, f"""
import subprocess
if len(open({str(tmp_path / "runs")!r}).readlines()) == 1:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False, start_new_session=True)
    time.sleep(60)
""")
    here.submit(request(), FREE)
    until(tmp_path, 1)
    time.sleep(0.3)
    os.kill(supervisor(here, request().id), signal.SIGKILL)
    assert over(here, request().id).state == "succeeded"


def test_a_training_that_is_killed_runs_again(tmp_path: Path) -> None:
    here = local(tmp_path, f"""
if len(open({str(tmp_path / "runs")!r}).readlines()) < 3:
    os.kill(os.getpid(), 9)
""", attempts_max=3)
    here.submit(request(), FREE)
    status = over(here, request().id)
    assert (status.state, (status.result or {})["attempt"]) == ("succeeded", 3)
    assert len(runs(tmp_path)) == 3


@pytest.mark.parametrize(("body", "resources", "reason"), [
    ("x = bytearray(300 << 20); time.sleep(30)", Resources(None, 150), "may take 150 (`resources: memory_mb`)"),
    ("time.sleep(30)", Resources(None, None, seconds_max=1), "ran longer than 1 s (`resources: seconds_max`)"),
    ("while True: pass", Resources(0.05, None, seconds_max=20), "more processor time"),
    ("os.kill(os.getpid(), 9)", FREE, "killed (signal 9) by someone else, each time"),
    ("print('so far', file=sys.stderr); raise SystemExit('no such column: dep')", FREE, "no such column: dep"),
    ("raise SystemExit(3)", FREE, "exit code 3"),
    ("sys.argv[2] = os.devnull", FREE, "wrote no result"),
])
def test_how_it_fails_is_said(tmp_path: Path, body: str, resources: Resources, reason: str) -> None:
    here = local(tmp_path, body)
    here.submit(request(), resources)
    status = over(here, request().id)
    assert status.state == "failed"
    assert reason in status.reason
    assert here.submit(request(), resources) == status, "a failure is not tried again"
    assert len(runs(tmp_path)) == (here.config.attempts_max if "signal 9" in reason else 1)


def test_memory_counts_the_whole_tree(tmp_path: Path) -> None:
    hog = "import time; x = bytearray(60 << 20); time.sleep(30)"
    here = local(tmp_path, f"import subprocess; a = [subprocess.Popen([sys.executable, '-c', {hog!r}]) for _ in 'abc']"
                 "\ntime.sleep(30)")
    here.submit(request(), Resources(None, 150))
    assert "of memory" in over(here, request().id).reason


def test_the_result_may_be_the_last_line_printed(tmp_path: Path) -> None:
    here = local(tmp_path, "print('epoch 1'); print('{\"version\": \"9\"}'); sys.argv[2] = os.devnull")
    here.submit(request(), FREE)
    status = over(here, request().id)
    assert status.result
    assert status.result["version"] == "9"


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    here = Local(LocalConfig(command=("no-such-program",)), project=tmp_path)
    here.submit(request(), FREE)
    assert "'no-such-program' does not start" in over(here, request().id).reason


def test_cancel(tmp_path: Path) -> None:
    here = local(tmp_path, "time.sleep(30)")
    here.cancel(request().id, None)  # never there: no error
    here.submit(request(), FREE)
    until(tmp_path, 1)
    supervisor(here, request().id)
    here.cancel(request().id, None)
    here.cancel(request().id, None)
    status = here.poll(request().id, None)
    assert (status.state, status.reason.splitlines()[0]) == ("failed", "cancelled")
    assert here.submit(request(), FREE).state == "failed", "what was cancelled is not run by a late repeat"
    assert len(runs(tmp_path)) == 1


def test_let_go_starts_anew(tmp_path: Path) -> None:
    here = local(tmp_path, f"time.sleep(30 if len(open({str(tmp_path / 'runs')!r}).readlines()) == 1 else 0)")
    here.submit(request(), FREE)
    until(tmp_path, 1)
    supervisor(here, request().id)
    here.let_go(request().id)
    assert over(here, request().id).state == "succeeded"
    assert len(runs(tmp_path)) == 2


def test_gpus(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="asks for 1 GPUs, and this machine has 0"):
        local(tmp_path, gpus=0).submit(request(), Resources(None, None, gpu=1))
    here = local(tmp_path, f"""
sys.argv[2] = os.devnull
print(json.dumps({{"gpus": os.environ["CUDA_VISIBLE_DEVICES"]}}), flush=True)
while not os.path.exists({str(tmp_path / "go")!r}):
    time.sleep(0.02)
""", gpus=3)
    one, two, none = request("one"), request("two"), request("none")
    assert here.submit(one, Resources(None, None, gpu=2)).state == "running"
    assert here.submit(none, FREE).state == "running"
    waits = here.submit(two, Resources(None, None, gpu=2))
    assert (waits.state, waits.reason) == ("queued", "waits for a GPU that others use")
    (tmp_path / "go").touch()
    seen = {name.id: over(here, name.id).result for name in (one, none, two)}
    assert [(seen[name.id] or {}).get("gpus") for name in (one, none, two)] == ["0,1", "", "0,1"]


def test_threads_follow_the_cores(tmp_path: Path) -> None:
    here = local(tmp_path, "print(json.dumps(dict(os.environ))); sys.stdout.flush(); sys.argv[2] = os.devnull",
                 env={"REGION": "JFK"})
    here.submit(request(), Resources(1.5, None))
    found = over(here, request().id).result or {}
    assert (found["OMP_NUM_THREADS"], found["POLARS_MAX_THREADS"], found["REGION"]) == ("2", "2", "JFK")


def test_two_triggers_with_one_folder_are_told_apart(tmp_path: Path) -> None:
    here = local(tmp_path)
    here.submit(request(), FREE)
    other = Retrain(**{**request().to_record(), "id": request().id[:16] + "0" * 48})
    with pytest.raises(Refused, match="holds another request"):
        here.submit(other, FREE)
    over(here, request().id)


def test_a_request_survives_json() -> None:
    read = request_from_json(request().to_json())
    assert read.to_json() == request().to_json()
    assert (read.at, read.spans()) == (request().at, request().spans())


def test_dispatcher_by_name(tmp_path: Path) -> None:
    made = dispatcher("local", {"nice": 3, "folder": "runs"}, project=tmp_path)
    assert made.name == "local"
    with pytest.raises(ConfigError, match="nise"):
        dispatcher("local", {"nise": 3})


def test_the_shell_command(tmp_path: Path) -> None:
    here = local(tmp_path)
    (tmp_path / "request.json").write_text(request().to_json())
    done = subprocess.run([sys.executable, "-m", "headrace.loop.dispatch.local", "--request",
                           str(tmp_path / "request.json"), "--config", here.config.model_dump_json(), "--project",
                           str(tmp_path), "--resources", '{"cpu": 1, "memory_mb": 500}'],
                          capture_output=True, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["state"], said["result"]["version"]) == ("succeeded", "7")
    assert subprocess.run([sys.executable, "-m", "headrace.loop.dispatch.local", "--request", "-", "--resources",
                           '{"memory": 1}'], input=request().to_json(), capture_output=True, text=True,
                          check=False).returncode == 2


def test_old_runs_are_dropped(tmp_path: Path) -> None:
    here = local(tmp_path, keep_max=2)
    for name in "abcd":
        here.submit(request(name), FREE)
        over(here, request(name).id)
    left = [name for name in "abcd" if here.poll(request(name).id, None).state != "unknown"]
    assert left == ["b", "c", "d"], "two that are over, when the last began"


def test_kills_at_random_never_make_two_at_a_time(tmp_path: Path) -> None:
    """Dispatcher, supervisor or training, whichever: eight times. The training says so if another one lives."""
    here = local(tmp_path, f"""
import fcntl
alone = open({str(tmp_path / "alone")!r}, "w")
try:
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    open({str(tmp_path / "OVERLAP")!r}, "w")
time.sleep(0.3)
""", attempts_max=99)
    seed = random.Random(5)
    for trigger in range(8):
        asked = request(str(trigger))
        (tmp_path / "request.json").write_text(asked.to_json())
        caller = subprocess.Popen([sys.executable, "-m", "headrace.loop.dispatch.local", "--request",
                                   str(tmp_path / "request.json"), "--config", here.config.model_dump_json(),
                                   "--project", str(tmp_path)], stdout=subprocess.DEVNULL)
        here.submit(asked, FREE)
        time.sleep(seed.uniform(0, 0.4))
        noted = local_run.read(here.folder(asked.id) / "runner.json") or {"pid": caller.pid, "child": None}
        victim = seed.choice([caller.pid, noted["pid"], noted["child"] or noted["pid"]])
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        status = over(here, asked.id)
        assert status.state == "succeeded", (status, noted, victim)
        caller.kill()
        caller.wait()
    assert not (tmp_path / "OVERLAP").exists(), "two trainings of a trigger lived at the same time"
