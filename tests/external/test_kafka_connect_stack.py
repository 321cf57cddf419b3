"""`headrace up --connect`: Kafka Connect beside Kafka and the registry, with the user's own plugins; down with them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace import settings
from headrace.errors import StackError
from headrace.stack import connect
from headrace.stack.jars import fetch
from headrace.stack.leash import leash
from headrace.stack.lifecycle import ANY_PORTS, down, status, up

pytestmark = pytest.mark.external

NOWHERE = {"HEADRACE_BOOTSTRAP": "", "HEADRACE_REGISTRY": "", "HEADRACE_CONNECT": ""}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a name that needs care, and a stack of its own."""
    folder = tmp_path_factory.mktemp("zoë's project; a = b")
    with leash(folder):
        yield folder


def headrace(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "headrace", *arguments], cwd=cwd, env={**os.environ, **NOWHERE},
                          capture_output=True, text=True, timeout=120)


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def states(folder: Path) -> dict[str, str]:
    return {part.name: part.state for part in status(folder)}


def test_beside_the_stack_and_down_with_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NOWHERE:
        monkeypatch.delenv(name, raising=False)
    up(project, ports=ANY_PORTS)
    assert set(states(project)) == {"kafka", "registry"}  # only where it was asked for
    addresses = up(project, ports=ANY_PORTS, connect=connect.CONNECT)
    url = addresses["connect"]
    note = json.loads((project / ".headrace/stack.json").read_text())
    assert (note["connect"], set(note["pids"])) == (url, {"kafka", "registry", "connect"})
    assert settings.load(project).connect["java"] == {"url": url}
    assert states(project) == {"kafka": "running", "registry": "running", "connect": "running"}
    assert get(url)["version"] == "4.3.1"
    assert (project / ".headrace/connect/plugins").is_dir()
    shown = headrace("status", cwd=project)
    assert shown.returncode == 0
    assert "connect" in shown.stdout
    assert "Kafka Connect started" in headrace("logs", "connect", "-n", "2000", cwd=project).stdout
    assert "4.3.1" in headrace("connectors", "plugins", "--json", cwd=project).stdout

    [pid] = [part.pid for part in status(project) if part.name == "connect"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=20)
    assert states(project)["connect"] == "died"
    died = headrace("status", cwd=project)
    assert died.returncode == 1
    assert "`headrace up` starts again what died" in died.stderr
    assert up(project, ports=ANY_PORTS)["connect"] == url  # also without being asked for again
    assert states(project)["connect"] == "running"
    assert set(down(project)) == {"kafka", "registry", "connect"}
    assert states(project) == {"kafka": "stopped", "registry": "stopped"}


def test_plugins_of_the_users_own(project: Path, tmp_path: Path) -> None:
    """A folder of jars becomes a plugin with a location of its own: here Kafka's own connectors, a second time."""
    jars = fetch()["connect"]
    plugin = tmp_path / "plugins" / "mine"
    plugin.mkdir(parents=True)
    [jar] = jars.glob("connect-file-*.jar")
    (plugin / jar.name).write_bytes(jar.read_bytes())
    addresses = up(project, ports=ANY_PORTS, connect=connect.part([tmp_path / "plugins"]))
    try:
        log = (project / ".headrace/stack/connect.log").read_text()
        assert f"Loading plugin from: {plugin}" in log
        assert any("FileStreamSource" in one["class"] for one in get(f"{addresses['connect']}/connector-plugins"))
    finally:
        down(project)
    refused = headrace("up", "--connect-plugins", str(tmp_path / "none"), cwd=project)
    assert refused.returncode == 2
    assert "there is no folder" in refused.stderr


def test_a_worker_that_cannot_start_says_why(stack: Any, tmp_path: Path) -> None:
    with (pytest.raises(StackError, match=r"connect ended while starting(.|\n)*no\.such\.Converter"),
          connect.running(stack.bootstrap, tmp_path, properties={"value.converter": "no.such.Converter"})):
        pass
    assert not (tmp_path / ".headrace/stack").exists()


def test_a_worker_of_a_test_leaves_nothing(stack: Any, tmp_path: Path) -> None:
    from confluent_kafka.admin import AdminClient

    def topics() -> set[str]:
        return set(AdminClient(stack.settings.client()).list_topics(timeout=30).topics)

    with connect.running(stack.bootstrap, tmp_path) as url:
        assert get(f"{url}/connectors") == []
        written = (tmp_path / ".headrace/stack/connect/connect.properties").read_text()
        names = set(re.findall(r"\.storage\.topic=(.*)", written))
        assert len(names) == 3
        assert names <= topics()
        [pid] = [part.pid for part in status(tmp_path) if part.name == "connect"]
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert not names & topics()
