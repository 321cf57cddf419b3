"""A real Airflow 3.3.2 for tests: its own cached environment, a temporary home, its three parts started one by one.

`airflow standalone` is not used: it leaves its children behind when it is ended. What is started here ends with the
tests, even when they are killed: a watcher holds the other end of a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace.loop.dispatch.airflow import Airflow, AirflowConfig
from headrace.stack.connect import running
from tests.conftest import Stack
from tests.external import environments
from tests.external.postgres import Postgres, postgres
from tests.ports import free_port

LOCK = Path(__file__).with_name("airflow.lock")
DAGS = Path(__file__).parents[2] / "headrace" / "dags"
PARTS = ("api-server", "scheduler", "dag-processor")
BOOT_TIMEOUT_S = 150
WATCH = """
import os, signal, sys
sys.stdin.read()
for group in sys.argv[1:]:
    try:
        os.killpg(int(group), signal.SIGKILL)
    except ProcessLookupError:
        pass
"""
TRAIN = """
import json, os, sys, time
request = json.load(open(sys.argv[1]))
with open(os.path.join("trained", request["id"]), "a") as trained:
    trained.write(f"{os.getpid()}\\n")
time.sleep(request["threshold"])
if "nan" in request["reason"]:
    sys.exit("the loss is nan after 3 epochs")
json.dump({"version": "7", "metrics": {"auc": 0.7}, "model": request["model"]}, open(sys.argv[2], "w"))
"""


@dataclass(frozen=True, slots=True)
class Server:
    """An Airflow that answers. `project` is the folder its workers run headrace in, with trained/<trigger>: a line for
    each process that trained."""

    url: str
    project: Path
    home: Path
    password_env: str

    def dispatcher(self, url: str | None = None, **config: Any) -> Airflow:
        return Airflow(AirflowConfig(url=url or self.url, username="headrace", password_env=self.password_env,
                                     **config), project=self.project)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """JSON of /api/v2/…, as the tests' own eyes."""
        login = json.dumps({"username": "headrace", "password": os.environ[self.password_env]}).encode()
        token = _http("POST", f"{self.url}/auth/token", login, {})["access_token"]
        return _http(method, f"{self.url}/api/v2/{path}", None if body is None else json.dumps(body).encode(),
                     {"Authorization": f"Bearer {token}"})

    def runs(self, trigger: str, dag: str = "headrace_retrain") -> list[dict[str, Any]]:
        """The DAG runs that there are for a trigger, whatever they are called."""
        found = self.api("GET", f"dags/{dag}/dagRuns?limit=100")["dag_runs"]
        return [run for run in found if run["conf"].get("request", {}).get("id") == trigger]

    def trained(self, trigger: str) -> int:
        """How many processes have trained for a trigger."""
        file = self.project / "trained" / trigger
        return len(file.read_text().split()) if file.exists() else 0


def _http(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> Any:
    asked = urllib.request.Request(url, data=body, method=method,
                                   headers={"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)


def _settings(home: Path, project: Path, port: int) -> dict[str, str]:
    """Airflow's settings, and the few that the DAGs read."""
    url = f"http://127.0.0.1:{port}"
    given = {
        "core__load_examples": "False", "core__dags_folder": str(DAGS), "core__parallelism": "4",
        "core__simple_auth_manager_users": "headrace:admin", "core__unit_test_mode": "False",
        "core__simple_auth_manager_passwords_file": str(home / "passwords.json"),
        "core__execution_api_server_url": f"{url}/execution/", "core__dags_are_paused_at_creation": "True",
        "database__sql_alchemy_conn": f"sqlite:///{home}/airflow.db", "api__host": "127.0.0.1", "api__port": str(port),
        "api__workers": "1", "api_auth__jwt_secret": secrets.token_hex(32), "core__fernet_key": "",
        "scheduler__enable_health_check": "False", "logging__worker_log_server_port": str(free_port()),
        "dag_processor__refresh_interval": "5", "dag_processor__min_file_process_interval": "600"}
    command = ["python", str(project / "train.py"), "{request}", "{result}"]
    return {f"AIRFLOW__{name.upper()}": value for name, value in given.items()} | {
        "AIRFLOW_HOME": str(home), "HEADRACE_PYTHON": sys.executable, "HEADRACE_PROJECT": str(project),
        "HEADRACE_LOCAL_CONFIG": json.dumps({"command": command, "nice": 0}), "HEADRACE_LISTEN_S": "20",
        "HEADRACE_AIRFLOW_CONFIG": json.dumps({"url": url, "username": "headrace"})}


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home, project = tmp_path_factory.mktemp("airflow"), tmp_path_factory.mktemp("project")
    (project / "trained").mkdir()
    (project / "train.py").write_text(TRAIN)
    password, port = secrets.token_hex(8), free_port()
    (home / "passwords.json").write_text(json.dumps({"headrace": password}))
    program = environments.environment("airflow", LOCK) / "bin" / "airflow"
    stale = {name for name in os.environ if name.startswith(("HEADRACE_", "AIRFLOW"))}
    environment = {name: value for name, value in os.environ.items() if name not in stale}
    environment |= {**_settings(home, project, port), "HEADRACE_AIRFLOW_PASSWORD": password,
                    "PATH": f"{program.parent}:{os.environ['PATH']}"}
    subprocess.run([program, "db", "migrate"], env=environment, cwd=home, check=True, capture_output=True)
    server = Server(f"http://127.0.0.1:{port}", project, home, "HEADRACE_TEST_AIRFLOW_PASSWORD")
    with pytest.MonkeyPatch.context() as patch, _started(program, environment, home) as parts:
        patch.setenv(server.password_env, password)
        _answers(server, parts)
        yield server


@contextlib.contextmanager
def _started(program: Path, environment: dict[str, str], home: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Airflow's parts, each in a process group of its own; all gone at the end."""
    parts: list[subprocess.Popen[bytes]] = []
    for name in PARTS:
        with (home / f"{name}.log").open("wb") as log:
            parts.append(subprocess.Popen([program, name], env=environment, cwd=home, stdin=subprocess.DEVNULL,
                                          stdout=log, stderr=subprocess.STDOUT, start_new_session=True))
    watcher = subprocess.Popen([sys.executable, "-c", WATCH, *(str(part.pid) for part in parts)],
                               stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield parts
    finally:
        family = [child for part in parts for child in psutil.Process(part.pid).children(recursive=True)]
        assert watcher.stdin
        watcher.stdin.close()
        watcher.wait(30)
        for part in parts:
            part.wait(30)
        for process in family:  # those in groups of their own
            with contextlib.suppress(psutil.Error):
                process.kill()
        _, left = psutil.wait_procs(family, timeout=30)
        assert not left, f"Airflow left processes behind: {left}"


def _answers(server: Server, parts: list[subprocess.Popen[bytes]]) -> None:
    """Returns when our DAG is there and unpaused."""
    end = time.monotonic() + BOOT_TIMEOUT_S
    while True:
        ended = [name for name, part in zip(PARTS, parts, strict=True) if part.poll() is not None]
        logs = "\n".join(f"{name}: {(server.home / f'{name}.log').read_text()[-3000:]}" for name in ended or PARTS)
        assert not ended, f"Airflow's {', '.join(ended)} ended:\n{logs}"
        assert time.monotonic() < end, f"Airflow did not come up in {BOOT_TIMEOUT_S} s:\n{logs}"
        with contextlib.suppress(OSError, ValueError):
            server.api("GET", "dags/headrace_trigger")
            server.api("PATCH", "dags/headrace_retrain", {"is_paused": False})
            return
        time.sleep(0.5)


@pytest.fixture(scope="session")
def pg() -> Iterator[Postgres]:
    """A real PostgreSQL. A test that stops it starts it again."""
    with postgres() as server:
        yield server


@pytest.fixture
def database(pg: Postgres) -> str:
    """A database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:8]}"
    pg.sql(f"CREATE DATABASE {name}")
    return name


@pytest.fixture(scope="session")
def kafka_connect(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Kafka Connect 4.3.1 beside the tests' broker; gone with its topics at their end."""
    folder = tmp_path_factory.mktemp("kafka-connect")
    properties = {"plugin.discovery": "service_load", "offset.flush.interval.ms": "1000"}
    with running(stack.bootstrap, folder, properties=properties) as url:
        yield url
