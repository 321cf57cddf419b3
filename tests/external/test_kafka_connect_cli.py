"""`headrace connectors` against the real Kafka Connect: the whole life of connectors, as people type it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import main
from headrace.connect.server import serve
from headrace.settings import Settings
from headrace.stack.connect import answers
from tests.ports import free_port

pytestmark = pytest.mark.external

STRING = "org.apache.kafka.connect.storage.StringConverter"
JAVA = "org.apache.kafka.connect.file.FileStream{}Connector"
WILD = Path(__file__).parents[1] / "contract" / "wild"
TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Done:
    stdout: str
    stderr: str


class Shell:
    """`headrace connectors …` in a project's folder; each of its connectors has a name of this test's own."""

    def __init__(self, project: Path, url: str, topic: str) -> None:
        self.project, self.url, self.topic, self.mark = project, url, topic, uuid.uuid4().hex[:8]

    def __call__(self, *arguments: str, code: int = 0, connect: str | None = None) -> Done:
        """In this process, as `headrace` does it: a process each would take most of the time."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.project)
            patch.setenv("HEADRACE_CONNECT", self.url if connect is None else connect)
            patch.setenv("COLUMNS", "200")
            patch.setattr(sys, "argv", ["headrace", "connectors", *arguments])
            patch.setattr(sys, "stdin", io.StringIO())
            with pytest.raises(SystemExit) as ended:
                main()
        assert (ended.value.code or 0) == code, f"{arguments}: {ended.value.code}\n{out.getvalue()}{err.getvalue()}"
        return Done(out.getvalue(), err.getvalue())

    def json(self, *arguments: str, code: int = 0) -> list[Any]:
        return [json.loads(line) for line in self(*arguments, "--json", code=code).stdout.splitlines()]

    def name(self, what: str) -> str:
        return f"{what}-{self.mark}"

    def write(self, what: str, **config: str) -> Path:
        """A connector file. `what` is "lines-in", a source, or anything else, a sink."""
        kind = "Source" if what == "lines-in" else "Sink"
        path = self.project / "connectors" / f"{what}.json"
        keys = {"connector.class": JAVA.format(kind), "tasks.max": "1", "file": str(self.project / f"{what}.txt"),
                "topic" if kind == "Source" else "topics": self.topic, "key.converter": STRING,
                "value.converter": STRING, **{k.replace("__", "."): v for k, v in config.items()}}
        path.write_text(json.dumps({"name": self.name(what), "config": keys}, indent=1))
        return path

    def state(self, what: str) -> str:
        [told] = self.json("status", self.name(what), code=0)
        return str(told["state"])

    def clear(self) -> None:
        for name in self.there():
            self("delete", name, "--yes")

    def there(self) -> set[str]:
        return {row["name"] for row in self.json("list") if row["name"].endswith(self.mark)}


@pytest.fixture
def shell(project: Settings, kafka_connect: str, topic: Callable[..., str]) -> Iterator[Shell]:
    made = Shell(project.project, kafka_connect, topic("lines"))
    yield made
    made.clear()


@contextmanager
def our_worker(project: Settings) -> Iterator[str]:
    """A worker of ours with nothing but its REST API, in this process; gone at the end, with its topics' group."""
    port, stop = free_port(), threading.Event()
    running = threading.Thread(target=serve, args=(project,), kwargs={
        "listen": f"127.0.0.1:{port}", "group": f"cli-{uuid.uuid4().hex[:8]}", "stop": stop})
    running.start()
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers("127.0.0.1", port), "our worker answers")
        yield url
    finally:
        stop.set()
        running.join(TIMEOUT_S)
        assert not running.is_alive()


@pytest.fixture(params=["kafka-connect", "ours"])
def both(request: pytest.FixtureRequest, project: Settings, topic: Callable[..., str]) -> Iterator[Shell]:
    """The same commands, to the real Kafka Connect and to ours."""
    theirs = request.param == "kafka-connect"
    with nullcontext(request.getfixturevalue("kafka_connect")) if theirs else our_worker(project) as url:
        made = Shell(project.project, url, topic("lines"))
        yield made
        made.clear()


def until(happens: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not happens():
        assert time.monotonic() < deadline, f"{what}: not within {TIMEOUT_S} s"
        time.sleep(0.2)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_from_files_to_running_and_back(both: Shell) -> None:
    (both.project / "lines-in.txt").write_text("one\ntwo\n")
    both.write("lines-in")
    both.write("lines-out")
    assert "right, says" in both("validate").stderr
    planned = both("plan")
    assert f"+ create {both.name('lines-in')}" in planned.stdout
    assert "\x1b" not in planned.stdout  # colours are for terminals
    assert both.there() == set()

    applied = both("apply")
    assert f"{both.name('lines-in')}: RUNNING (task 0 RUNNING)" in applied.stderr
    assert both.there() == {both.name("lines-in"), both.name("lines-out")}
    out = both.project / "lines-out.txt"
    until(lambda: lines(out) == ["one", "two"], "the lines come out")

    again = both("apply")
    assert "0 to create, 0 to change, 2 unchanged" in again.stderr
    assert {change["action"] for change in both.json("plan")} == {"unchanged"}

    other = both.project / "elsewhere.txt"
    both.write("lines-out", file=str(other))
    [_, changed] = both.json("plan")
    assert changed["action"] == "change"
    assert changed["changes"] == {"file": {"before": str(out), "after": str(other)}}
    both("apply")
    with (both.project / "lines-in.txt").open("a") as appended:
        appended.write("three\n")
    until(lambda: lines(other) == ["three"], "the changed sink writes elsewhere, and goes on where it stood")
    assert lines(out) == ["one", "two"]

    (both.project / "connectors" / "lines-out.json").unlink()
    assert "to delete" not in both("plan").stderr
    doomed = [change for change in both.json("plan", "--prune") if change["name"] == both.name("lines-out")]
    assert [change["action"] for change in doomed] == ["delete"]
    assert "--yes does it without asking" in both("apply", "--prune", code=2).stderr
    assert both.name("lines-out") in both.there()
    both("apply", "--prune", "--yes")
    assert both.there() == {both.name("lines-in")}


def test_pause_resume_stop_restart(both: Shell) -> None:
    (both.project / "lines-in.txt").write_text("one\n")
    both.write("lines-in")
    both("apply")
    name = both.name("lines-in")
    for verb, state in (("pause", "PAUSED"), ("resume", "RUNNING"), ("stop", "STOPPED"), ("resume", "RUNNING")):
        both(verb, name)
        until(lambda state=state: both.state("lines-in") == state, verb)  # type: ignore[misc]
    until(lambda: bool(both.json("status", name)[0]["tasks"]), "its task is back")
    both("restart", name)
    both("restart", name, "--task", "0")
    until(lambda: [task["state"] for task in both.json("status", name)[0]["tasks"]] == ["RUNNING"], "restarted")
    both("pause", name)
    assert f"{name}: PAUSED" in both("apply").stderr  # what a person paused stays so


def test_offsets(both: Shell) -> None:
    source, sink = both.name("lines-in"), both.name("lines-out")
    file, out = both.project / "lines-in.txt", both.project / "lines-out.txt"
    file.write_text("one\ntwo\n")
    both.write("lines-in")
    both.write("lines-out")
    both("apply")
    until(lambda: lines(out) == ["one", "two"], "the lines come out")
    both("stop", source)
    until(lambda: both.state("lines-in") == "STOPPED", "stopped")
    stored = json.loads(both("offsets", "get", source).stdout)
    assert stored == {"offsets": [{"partition": {"filename": str(file)}, "offset": {"position": 8}}]}
    stored["offsets"][0]["offset"]["position"] = 4
    (both.project / "there.json").write_text(json.dumps(stored))
    refused = both("offsets", "set", sink, "there.json", code=2).stderr
    assert f"`headrace connectors stop {sink}` first" in refused
    assert "altered successfully" in both("offsets", "set", source, "there.json").stderr
    assert json.loads(both("offsets", "get", source).stdout) == stored
    both("resume", source)
    until(lambda: lines(out) == ["one", "two", "two"], "it goes on at the second line")
    both("stop", sink)
    until(lambda: both.state("lines-out") == "STOPPED", "stopped")
    assert "Nobody is there to answer" in both("offsets", "reset", sink, code=2).stderr
    assert "reset successfully" in both("offsets", "reset", sink, "--yes").stderr
    both("resume", sink)
    until(lambda: lines(out) == ["one", "two", "two"] * 2, "the sink begins anew")
    assert "not JSON" in both("offsets", "set", sink, str(file), code=2).stderr


def test_a_failure_is_told_with_its_cause(shell: Shell) -> None:
    shell.write("lines-out", file=str(shell.project / "no-such-folder" / "out.txt"))
    failed = shell("apply", code=1)
    assert f"{shell.name('lines-out')}: RUNNING (task 0 FAILED)" in failed.stderr
    assert "Couldn't find or create file" in failed.stderr
    assert "NoSuchFileException" in failed.stderr
    assert "\tat " not in failed.stderr  # the trace's frames are the log's
    assert "restart" in failed.stderr
    [row] = [row for row in shell.json("list") if row["name"] == shell.name("lines-out")]
    assert (row["state"], row["tasks"]) == ("FAILED", "0/1")
    told = shell("status", shell.name("lines-out"), code=1)
    assert "Couldn't find or create file" in told.stderr
    assert shell("apply", code=1).stderr.count("FAILED") == 1  # unchanged, and still not well
    shell.write("lines-out")
    shell("apply")


def test_what_is_refused_has_file_and_line(shell: Shell) -> None:
    """What this machine can tell, and what only the worker can; nothing is half done."""
    shell.write("lines-out")
    wrong = shell.write("lines-in", tasks__max="many")
    for command in ("validate", "plan", "apply"):
        assert "lines-in.json:5: error: tasks.max: “many” is no whole number" in shell(command, code=1).stderr
    keys = json.loads(wrong.read_text())
    keys["config"] |= {"connector.class": "MirrorSourceConnector", "value.converter": "io.acme.NoSuchConverter"}
    wrong.write_text(json.dumps(keys, indent=1))
    for command in ("validate", "apply"):
        said = shell(command, code=1).stderr
        assert "lines-in.json:5: error: tasks.max: Invalid value many for configuration tasks.max" in said
        assert "lines-in.json:9: error: value.converter: Invalid value io.acme.NoSuchConverter" in said
    [listed] = shell.json("validate", code=1)
    assert {one["line"] for one in listed} >= {5, 9}
    assert shell.there() == set()


def test_secrets_are_masked_and_still_compared(shell: Shell) -> None:
    (shell.project / "lines-in.txt").touch()
    shell.write("lines-in", connection__password="tiger-one", odd="jdbc://me:tiger-two@db/x")
    first = shell("plan")
    shell("apply")
    shell.write("lines-in", connection__password="tiger-three", odd="jdbc://me:tiger-two@db/x")
    second, third = shell("plan"), shell("plan", "--json")
    assert "connection.password = [hidden] → [hidden] (another one)" in second.stdout
    assert "connection.password" in third.stdout
    shell("apply")
    assert "unchanged" in shell("plan").stdout
    assert not any("tiger" in text for done in (first, second, third) for text in (done.stdout, done.stderr))


def test_an_initial_state_is_kept(both: Shell) -> None:
    path = both.write("lines-in")
    (both.project / "lines-in.txt").touch()
    path.write_text(json.dumps({**json.loads(path.read_text()), "initial_state": "STOPPED"}))
    assert f"{both.name('lines-in')}: STOPPED" in both("apply").stderr
    assert both.state("lines-in") == "STOPPED"


@pytest.mark.parametrize("name", ["jdbc-sink.json", "s3-sink.json", "debezium-postgres.json", "snowflake-sink.json",
                                  "hdfs-sink.properties", "jdbc-alias.properties", "vendor-of-ones-own.json"])
def test_a_class_that_nobody_has(shell: Shell, name: str) -> None:
    said = shell("apply", str(WILD / name), code=2).stderr
    assert "no such connector" in said
    assert shell.url in said
    assert "plugin folder" in said
    assert "of ours" in said


def test_a_slip_in_a_class_the_worker_has(shell: Shell) -> None:
    (shell.project / "slip.properties").write_text("name=slip\nconnector.class=MirorSourceConnector\n")
    assert "did you mean “MirrorSourceConnector”?" in shell("apply", "slip.properties", code=2).stderr


def test_java_goes_to_kafka_connect_and_ours_stay_here(shell: Shell, tmp_path: Path) -> None:
    """Nobody listens where ours would: a file in Java goes to --java-url all the same, one of ours is told so."""
    nobody = "http://127.0.0.1:9"
    mirror = json.loads((WILD / "mirror-source.json").read_text())
    mirror["name"] = shell.name("mirror")
    mirror["config"] |= {f"{side}.cluster.bootstrap.servers": os.environ["HEADRACE_BOOTSTRAP"]
                         for side in ("source", "target")} | {"topics": f"none-{shell.mark}"}
    (shell.project / "mirror.json").write_text(json.dumps({**mirror, "initial_state": "STOPPED"}))
    (shell.project / "headrace.toml").write_text(f'[connect.java]\nurl = "{shell.url}"\n')
    planned = shell("plan", "mirror.json", connect="")
    assert f"+ create {shell.name('mirror')}: {mirror['config']['connector.class']}, at {shell.url}" in planned.stdout
    shell("apply", "mirror.json", connect="")
    assert shell.there() == {shell.name("mirror")}
    shell.write("lines-in")  # FileStreamSource, which ours runs, too
    said = shell("apply", "--url", nobody, "--java-url", shell.url, code=3).stderr
    assert "no Connect worker answers at http://127.0.0.1:9" in said
    assert "`headrace connect`" in said
    assert shell.there() == {shell.name("mirror")}


def test_plugins_and_unknown_names(shell: Shell) -> None:
    assert {JAVA.format("Source"), JAVA.format("Sink")} <= {row["class"] for row in shell.json("plugins")}
    shell.write("lines-in")
    (shell.project / "lines-in.txt").touch()
    shell("apply", "--no-wait")
    said = shell("pause", shell.name("line-in"), code=2).stderr
    assert f"did you mean “{shell.name('lines-in')}”?" in said


def test_the_shell_completes_names(shell: Shell) -> None:
    shell.write("lines-in")
    (shell.project / "lines-in.txt").touch()
    shell("apply", "--no-wait")
    typed = f"headrace connectors pause lines-in-{shell.mark[:4]}"
    asked = {"_HEADRACE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": "3"}
    for url, expected in ((shell.url, [shell.name("lines-in")]), ("http://127.0.0.1:9", [])):
        done = subprocess.run([Path(sys.executable).with_name("headrace")], cwd=shell.project, capture_output=True,
                              text=True, env={**os.environ, "HEADRACE_CONNECT": url, **asked}, timeout=30)
        assert done.stdout.split() == expected
        assert done.stderr == ""


def test_the_fixture_is_kafka_connect(kafka_connect: str) -> None:
    with urllib.request.urlopen(kafka_connect, timeout=30) as answer:
        assert json.load(answer)["version"] == "4.3.1"
