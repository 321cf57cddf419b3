"""Ports and pidfiles: what does not need Java to be shown."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.stack import supervise
from headrace.stack.part import HOST
from headrace.stack.ports import choose

pytestmark = pytest.mark.unit


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        held.listen()
        yield held.getsockname()[1]


def unused() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def test_the_usual_port_when_it_is_free() -> None:
    port = unused()
    assert choose({"kafka": port}, {}) == {"kafka": port}


def test_another_when_it_is_taken(taken: int) -> None:
    chosen = choose({"kafka": taken}, {})["kafka"]
    assert chosen not in (0, taken)


def test_who_listens_is_this_process_and_no_other(taken: int) -> None:
    mine, other = (supervise.Running(pid, 0, 0.0) for pid in (os.getpid(), os.getppid()))
    assert mine.listens(taken)
    assert not mine.listens(unused())
    assert not other.listens(taken)


def test_the_last_one_before_the_usual_one() -> None:
    last, usual = unused(), unused()
    assert choose({"kafka": usual}, {"kafka": last}) == {"kafka": last}
    assert choose({"kafka": usual}, {"kafka": last}, taken={last}) == {"kafka": usual}


def test_any_ports_differ() -> None:
    chosen = choose(dict.fromkeys("abcdefgh", 0), {})
    assert len(set(chosen.values())) == 8
    assert all(chosen.values())


def test_a_number_used_again_is_not_our_process(tmp_path: Path) -> None:
    pidfile = tmp_path / "kafka.pid"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        pidfile.write_text(json.dumps({"pid": other.pid, "token": "0123456789abcdef"}))
        assert supervise.find(pidfile) is None
        assert not supervise.stop(pidfile, timeout_s=1)
        assert other.poll() is None, "stopped a process of somebody else's"
        assert other.stdin
        other.stdin.close()
    assert not pidfile.exists()


def test_a_start_cut_off_before_its_pid_was_known_is_found_by_its_token(tmp_path: Path) -> None:
    pidfile = tmp_path / "kafka.pid"
    pidfile.write_text(json.dumps({"pid": None, "token": "fedcba9876543210"}))
    assert supervise.find(pidfile) is None
    with subprocess.Popen([sys.executable, "-c", "input()", "-Dheadrace.token=fedcba9876543210"],
                          stdin=subprocess.PIPE) as cut_off:
        found = supervise.find(pidfile)
        assert found
        assert found.pid == cut_off.pid
        assert supervise.stop(pidfile, timeout_s=10)
        assert cut_off.poll() is not None


def test_a_process_is_found_while_it_becomes_another_program(tmp_path: Path) -> None:
    pidfile, script = tmp_path / "kafka.pid", tmp_path / "again.sh"
    script.write_text('exec /bin/sh "$0" "$@"\n')
    with subprocess.Popen(["/bin/sh", script, "-Dheadrace.token=0011223344556677"]) as ever_new:
        try:
            pidfile.write_text(json.dumps({"pid": ever_new.pid, "token": "0011223344556677"}))
            found = [supervise.find(pidfile) for _ in range(1000)]
        finally:
            ever_new.kill()
    assert all(found), f"not found {found.count(None)} times of 1,000"


def test_no_pidfile_is_nothing_running(tmp_path: Path) -> None:
    assert supervise.find(tmp_path / "none.pid") is None
    assert not supervise.stop(tmp_path / "none.pid", timeout_s=1)


def test_tail_gives_the_last_lines_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    assert supervise.tail(log, 5) == []
    log.write_text("".join(f"line {n} {'x' * 200}\n" for n in range(20_000)))
    assert [line.split()[1] for line in supervise.tail(log, 3)] == ["19997", "19998", "19999"]
    assert os.path.getsize(log) > supervise.TAIL_BYTES
