"""What every test shares: a real broker and a real registry, topics of one's own, a project folder.

Where they come from, in this order: HEADRACE_BOOTSTRAP with HEADRACE_REGISTRY; Docker, through testcontainers; the
embedded stack, in a temporary folder. A broker that cannot be had fails the tests: it never skips them.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

from headrace.secrets import KNOWN
from headrace.settings import Settings

hypothesis_settings.register_profile("headrace", deadline=None, database=None)  # no test asserts a time
hypothesis_settings.load_profile("headrace")

TOPIC_TIMEOUT_S = 60
MEMORY_BYTES = 8 << 30
"""How much room there must be for temporary folders in memory."""
LONG_FIRST = ("external", "faults", "integration", "contract")
"""The tiers whose tests begin before the others."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--secure", action="store_true", help="the embedded stack with TLS, users and rules of access: "
                     "tests log in as headrace's worker does, and as its admin where they create topics")
    parser.addoption("--faults", choices=("short", "full"), default="short", help="how often things are broken on "
                     "purpose, where a test makes a difference")


def pytest_configure(config: pytest.Config) -> None:
    """Temporary folders are in memory where there is room, unless TMPDIR says otherwise: a disk that others use keeps a
    broker waiting for ten seconds and more."""
    memory = Path("/dev/shm")
    if "TMPDIR" not in os.environ and memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_BYTES:
        os.environ["TMPDIR"] = str(memory)
        tempfile.tempdir = None  # it is looked up anew


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long ones first, so that no worker waits at the end: `make` tells pytest-xdist to keep the order.

    Without `--faults full`, tests marked `full` are left out, and counted as deselected.
    """
    items.sort(key=lambda item: next((at for at, tier in enumerate(LONG_FIRST) if item.get_closest_marker(tier)), 9))
    if config.getoption("--faults") == "full":
        return
    left = [item for item in items if item.get_closest_marker("full")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


@dataclass(frozen=True, slots=True)
class Stack:
    """A broker and a registry that answer. `settings` points to them, with a temporary project folder; on a secure
    stack as its admin. `login` is then the file of who may only what `headrace run` needs."""

    bootstrap: str
    registry: str
    settings: Settings
    login: str | None = None

    def at(self, project: Path) -> Settings:
        """What a project folder runs against."""
        return Settings(project, self.bootstrap, self.registry, kafka=_properties(self.login), login=self.login)


@pytest.fixture(autouse=True)
def known_secrets() -> Iterator[None]:
    """What a test's process came to know as secret is forgotten after it: another test may print the same word."""
    before = dict(vars(KNOWN))
    yield
    vars(KNOWN).update(before)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Stack]:
    secure = pytestconfig.getoption("--secure")
    with (_embedded(secure=True) if secure else _given() or _docker() or _embedded()) as (bootstrap, registry, keys):
        admin, worker = (str(keys / f"{user}.json") if keys else None for user in ("admin", "worker"))
        settings = Settings(tmp_path_factory.mktemp("project"), bootstrap, registry, kafka=_properties(admin),
                            login=admin)
        yield Stack(bootstrap, registry, settings, worker)


def _properties(login: str | None) -> dict[str, Any]:
    return dict(json.loads(Path(login).read_text())) if login else {}


@pytest.fixture
def project(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A project folder of this test's own; commands run in it, here or in a process, find the stack."""
    for folder in ("flows", "schemas", "processors", "connectors"):
        (tmp_path / folder).mkdir()
    (tmp_path / "headrace.toml").write_text(
        f'[kafka]\n"bootstrap.servers" = "{stack.bootstrap}"\n[registry]\nurl = "{stack.registry}"\n')
    monkeypatch.setenv("HEADRACE_BOOTSTRAP", stack.bootstrap)
    monkeypatch.setenv("HEADRACE_REGISTRY", stack.registry)
    if stack.login:
        monkeypatch.setenv("HEADRACE_LOGIN", stack.login)
    return stack.at(tmp_path)


@pytest.fixture
def topic(stack: Stack) -> Iterator[Callable[..., str]]:
    """topic(name="t", partitions=1, **config) creates a topic with a name of its own and gives that name.

    `config` is Kafka's, underscores for dots: topic("flights", 4, cleanup_policy="compact"). Deleted when the test
    ends, and nothing in it before: tests date records years ago, and Kafka looks every five minutes for what is old.
    """
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient(stack.settings.client())
    made: list[str] = []

    def create(name: str = "t", partitions: int = 1, **config: object) -> str:
        unique = f"{name}.{uuid.uuid4().hex[:10]}"
        properties = {"retention.ms": "-1", **{key.replace("_", "."): str(value) for key, value in config.items()}}
        asked = NewTopic(unique, num_partitions=partitions, replication_factor=1, config=properties)
        admin.create_topics([asked], operation_timeout=TOPIC_TIMEOUT_S)[unique].result(TOPIC_TIMEOUT_S)
        made.append(unique)
        return unique

    yield create
    if made:
        for done in admin.delete_topics(made).values():
            done.exception(TOPIC_TIMEOUT_S)  # a test may have deleted its own


Found = tuple[str, str, Path | None]
"""(bootstrap, registry, the folder with logins)."""


def _given() -> AbstractContextManager[Found] | None:
    """The addresses in the environment, where both stand."""
    bootstrap, registry = os.environ.get("HEADRACE_BOOTSTRAP"), os.environ.get("HEADRACE_REGISTRY")
    if bool(bootstrap) != bool(registry):
        pytest.fail("HEADRACE_BOOTSTRAP and HEADRACE_REGISTRY go together: set both, or neither", pytrace=False)
    return nullcontext((bootstrap, registry, None)) if bootstrap and registry else None


def _docker() -> AbstractContextManager[Found] | None:
    """Containers, where a Docker engine answers."""
    from headrace.stack.containers import engine_answers

    return _containers() if engine_answers() else None


@contextmanager
def _containers() -> Iterator[Found]:
    from headrace.stack.containers import containers

    with containers() as (bootstrap, registry):
        yield bootstrap, registry, None


@contextmanager
def _embedded(*, secure: bool = False) -> Iterator[Found]:
    """The embedded stack, on ports of its own; gone with this process, however it ends."""
    import psutil

    from headrace.stack.leash import leash
    from headrace.stack.lifecycle import ANY_PORTS, Where, status, up

    folder = Path(tempfile.mkdtemp(prefix="headrace-tests-"))
    with leash(folder, delete=True):
        addresses = up(folder, ports=ANY_PORTS, security=secure)
        pids = [part.pid for part in status(folder) if part.pid]
        yield addresses["bootstrap"], addresses["registry"], Where(folder).secure if secure else None
    left = [pid for pid in pids if psutil.pid_exists(pid)]
    assert not left, f"the tests left processes behind: {left}"
