"""The embedded stack, for real: up, down, what is kept, what a crash looks like, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from headrace import settings
from headrace.errors import StackError
from headrace.stack import lifecycle, supervise
from headrace.stack.kafka import KAFKA
from headrace.stack.leash import leash
from headrace.stack.lifecycle import ANY_PORTS, Where, down, status, up
from headrace.stack.part import HOST, Ports
from headrace.stack.registry import REGISTRY
from headrace.stack.tools import kafka_tool
from tests.conftest import Stack

pytestmark = pytest.mark.integration

OURS = {"HEADRACE_BOOTSTRAP": "", "HEADRACE_REGISTRY": ""}
"""An environment that points nowhere else."""


def headrace(*arguments: str, cwd: Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "headrace", *arguments], cwd=cwd, env={**os.environ, **OURS},
                          capture_output=True, text=True, timeout=timeout_s)


def ours(folder: Path) -> list[psutil.Process]:
    """Every Java that runs in this folder, whatever the pidfiles say."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        if str(folder) in str(process.info["cwd"]) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a name that needs care, and a stack of its own for the tests that do not harm it."""
    folder = tmp_path_factory.mktemp("zoë's project; a = b")
    with leash(folder):
        yield folder
    assert not ours(folder)


@pytest.fixture
def running(shared: Path) -> Path:
    """Both parts are up when the test begins, whatever the one before did."""
    up(shared, ports=ANY_PORTS)
    return shared


@pytest.fixture(autouse=True)
def _nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from the stack's own note, also where the tests as a whole run against another broker."""
    for name in OURS:
        monkeypatch.delenv(name, raising=False)


@contextmanager
def registry_of(project: Path) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient(settings.load(project).registry_client()) as client:
        yield client


def states(project: Path) -> dict[str, str]:
    return {part.name: part.state for part in status(project)}


def until(happens: Callable[[], bool], what: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.05)


def create(found: settings.Settings, topic: str, partitions: int) -> None:
    admin = AdminClient(found.client())  # kept until the result is in: without a name it would end before
    admin.create_topics([NewTopic(topic, partitions)])[topic].result(60)


def produce(found: settings.Settings, topic: str, values: list[bytes]) -> None:
    producer = Producer(found.client(enable_idempotence=True))
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(60) == 0


def consume(found: settings.Settings, topic: str, n: int) -> list[bytes | None]:
    """The first n records of partition 0; no group is asked, which takes its time where all has just begun."""
    reader = Consumer(found.client(group_id="test", enable_auto_commit="false"))
    try:
        reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        return [message.value() for message in reader.consume(n, 60)]
    finally:
        reader.close()


def test_settings_find_it_and_both_answer(running: Path) -> None:
    found = settings.load(running)
    note = json.loads((running / ".headrace/stack.json").read_text())
    assert (found.bootstrap, found.registry_url) == (note["bootstrap"], note["registry"])
    assert set(note["pids"]) == {"kafka", "registry"}
    assert set(note["ports"]) == {"kafka", "controller", "registry"}
    assert states(running) == {"kafka": "running", "registry": "running"}
    assert AdminClient(found.client()).list_topics(timeout=30).brokers
    with registry_of(running) as registry:
        assert isinstance(registry.get_subjects(), list)


def test_up_again_changes_nothing(running: Path) -> None:
    before = {part.name: part.pid for part in status(running)}
    up(running)
    assert {part.name: part.pid for part in status(running)} == before


def test_a_topic_nobody_declared_is_not_created(running: Path) -> None:
    found = settings.load(running)
    refused: list[object] = []
    producer = Producer(found.client(enable_idempotence=True, message_timeout_ms=3000))
    producer.produce("typing.eror", b"x", on_delivery=lambda error, message: refused.append(error))
    producer.flush(60)
    assert refused[0] is not None
    assert "typing.eror" not in AdminClient(found.client()).list_topics(timeout=30).topics


def test_it_listens_to_this_machine_only(running: Path) -> None:
    java = [process for process in ours(running) if "java" in process.name()]
    assert len(java) == 2
    listening = [at.laddr.ip for process in java for at in process.net_connections("tcp") if at.status == "LISTEN"]
    assert len(listening) >= 3
    assert {address.removeprefix("::ffff:") for address in listening} == {HOST}


def test_transactions_work(running: Path) -> None:
    found = settings.load(running)
    create(found, "once", 1)
    producer = Producer(found.client(transactional_id="t"))
    producer.init_transactions(20)
    for value, end in ((b"aborted", producer.abort_transaction), (b"committed", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce("once", value)
        producer.flush(60)
        end(20)
    assert consume(found, "once", 1) == [b"committed"]


def test_kafkas_own_tools_run(running: Path) -> None:
    found = settings.load(running)
    assert found.bootstrap
    create(found, "tools", 3)
    said = kafka_tool("kafka-topics", ["--bootstrap-server", found.bootstrap, "--describe", "--topic", "tools"])
    assert "PartitionCount: 3" in said
    with pytest.raises(StackError, match="--no-such-option"):
        kafka_tool("kafka-topics", ["--no-such-option"])


def test_another_cluster_in_the_environment_is_pointed_out(running: Path) -> None:
    told = subprocess.run([sys.executable, "-m", "headrace", "status"], cwd=running, capture_output=True, text=True,
                          env={**os.environ, **OURS, "HEADRACE_BOOTSTRAP": "elsewhere:9092"}, timeout=60)
    assert "elsewhere:9092" in told.stderr


def test_logs_follow_shows_what_comes(running: Path) -> None:
    following = subprocess.Popen([sys.executable, "-m", "headrace", "logs", "kafka", "--follow", "-n", "1"],
                                 cwd=running, stdout=subprocess.PIPE, text=True, env={**os.environ, **OURS})
    with following:
        assert following.stdout
        assert following.stdout.readline()
        with Where(running).log(KAFKA).open("a") as log:
            log.write("a line of this test\n")
        assert any("a line of this test" in line for line in following.stdout)
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 0


def test_data_is_kept_across_down_and_up(running: Path) -> None:
    found = settings.load(running)
    create(found, "kept", 1)
    produce(found, "kept", [b"one", b"two"])
    with registry_of(running) as registry:
        number = registry.register_schema("kept-value", Schema('"string"', "AVRO"))
    before = json.loads((running / ".headrace/stack.json").read_text())

    assert sorted(down(running)) == ["kafka", "registry"]
    assert states(running) == {"kafka": "stopped", "registry": "stopped"}
    assert not ours(running)
    assert not (running / ".headrace/stack.json").exists()
    assert down(running) == []

    up(running)
    after = json.loads((running / ".headrace/stack.json").read_text())
    assert after["ports"] == before["ports"]
    assert consume(found, "kept", 2) == [b"one", b"two"]
    with registry_of(running) as registry:
        assert registry.get_latest_version("kept-value").schema_id == number


def test_a_crash_is_seen_told_and_mended(running: Path) -> None:
    victim, other = "registry", "kafka"
    pids = {part.name: part.pid for part in status(running)}
    os.kill(pids[victim] or 0, signal.SIGKILL)
    until(lambda: states(running)[victim] == "died", f"{victim} is seen to be dead")

    told = headrace("status", cwd=running)
    assert told.returncode == 1
    assert f"{victim} died; the end of " in told.stderr
    assert "  | " in told.stderr, "without the end of its log"
    assert "headrace up" in told.stderr
    as_json = headrace("status", "--json", cwd=running)
    assert as_json.returncode == 1
    assert {part["name"]: part["state"] for part in json.loads(as_json.stdout)["parts"]} \
        == {victim: "died", other: "running"}
    assert victim in (lifecycle.obituary(running) or "")

    mended = headrace("up", cwd=running)
    assert mended.returncode == 0, mended.stderr
    now = {part.name: part.pid for part in status(running)}
    assert now[other] == pids[other]
    assert now[victim] != pids[victim]
    assert headrace("status", cwd=running).returncode == 0


def test_what_was_killed_with_its_data_open_starts_again(running: Path) -> None:
    found = settings.load(running)
    create(found, "survives", 1)
    produce(found, "survives", [b"x"])
    with registry_of(running) as registry:
        number = registry.register_schema("survives-value", Schema('"long"', "AVRO"))
    for part in status(running):
        os.kill(part.pid or 0, signal.SIGKILL)
    up(running)
    assert consume(found, "survives", 1) == [b"x"]
    with registry_of(running) as registry:
        assert registry.get_latest_version("survives-value").schema_id == number


def test_what_hangs_is_silent_not_running_and_is_killed_by_down(running: Path) -> None:
    pid = next(part.pid for part in status(running) if part.name == "registry")
    assert pid
    os.kill(pid, signal.SIGSTOP)
    assert states(running)["registry"] == "silent"
    assert headrace("status", cwd=running).returncode == 1
    told: list[str] = []
    down(running, say=told.append, timeout_s=5)
    assert any("killed" in line for line in told)
    assert not ours(running)


def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    storage = Where(tmp_path).data(KAFKA) / "log"
    storage.mkdir(parents=True)
    (storage / "meta.properties").write_text("version=1\ncluster.id=another\nnode.id=77\n")
    with pytest.raises(StackError) as failed:
        up(tmp_path, ports=ANY_PORTS)
    assert "kafka ended while starting" in str(failed.value)
    assert "77" in str(failed.value), "without what Kafka said"
    assert not ours(tmp_path)
    assert states(tmp_path) == {"kafka": "stopped", "registry": "stopped"}


def test_taken_ports_are_stepped_round(shared: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry's is seen to be taken. Kafka's looks free, and another broker takes it before Java binds it, and
    answers in place of ours: shown by a look that sees a held port as free, once."""
    down(shared)
    look = lifecycle.choose
    ports = {**look(ANY_PORTS, {}), "kafka": int(stack.settings.bootstrap.rpartition(":")[2])}
    supervise.write_whole(Where(shared).ports, ports)

    def too_early(wanted: Ports, last: Ports, taken: Collection[int]) -> dict[str, int]:
        chosen = look(wanted, last, taken)
        return {**chosen, "kafka": ports["kafka"]} if "kafka" in chosen and not taken else chosen

    monkeypatch.setattr(lifecycle, "choose", too_early)
    with socket.socket() as registry:
        registry.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        registry.bind((HOST, ports["registry"]))
        registry.listen()
        addresses = up(shared)
    assert addresses["bootstrap"] != KAFKA.address(ports)
    assert addresses["registry"] != REGISTRY.address(ports)
    assert states(shared) == {"kafka": "running", "registry": "running"}


def test_the_commands(running: Path) -> None:
    """up, status, logs and down as a person calls them, from a folder within the project."""
    inner = running / "flows"
    inner.mkdir(exist_ok=True)
    first = headrace("up", "--json", cwd=inner)
    assert first.returncode == 0, first.stderr
    addresses = json.loads(first.stdout)
    with urllib.request.urlopen(f"{addresses['registry']}/subjects", timeout=30) as answer:
        assert answer.status == 200
    shown = headrace("status", "--json", cwd=inner)
    assert shown.returncode == 0
    assert {part["address"] for part in json.loads(shown.stdout)["parts"]} == set(addresses.values())
    assert "Kafka Server started" in headrace("logs", "kafka", "-n", "500", cwd=inner).stdout
    both = headrace("logs", "-n", "3", cwd=inner).stdout.splitlines()
    assert {line.split(" | ")[0] for line in both} == {"kafka", "registry"}
    wrong = headrace("logs", "zookeeper", cwd=inner)
    assert wrong.returncode == 2
    assert "kafka, registry" in wrong.stderr
    assert "registry and kafka stopped" in headrace("down", "--purge", cwd=inner).stderr
    assert not (running / ".headrace/stack").exists(), "what --purge should have deleted"
    assert "nothing was running" in headrace("down", cwd=inner).stderr
    assert headrace("status", cwd=inner).returncode == 1


@pytest.mark.parametrize(("number", "moment"), [(signal.SIGINT, "kafka.pid"), (signal.SIGTERM, "registry.pid")])
def test_an_interrupted_up_leaves_nothing(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    (tmp_path / "headrace.toml").touch()
    supervise.write_whole(Where(tmp_path).ports, lifecycle.choose(ANY_PORTS, {}))
    starting = subprocess.Popen([sys.executable, "-m", "headrace", "up"], cwd=tmp_path, env={**os.environ, **OURS},
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with starting:
        until(lambda: (Where(tmp_path).folder / moment).is_file(), f"{moment} is written")
        starting.send_signal(number)
        _, said = starting.communicate(timeout=60)
    assert starting.returncode != 0
    assert "Traceback" not in said
    assert not ours(tmp_path)
    assert not (tmp_path / ".headrace/stack.json").exists()
    assert states(tmp_path) == {"kafka": "stopped", "registry": "stopped"}


def test_a_leash_holds_when_its_owner_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "leashed"
    folder.mkdir()
    owner = subprocess.Popen([sys.executable, "-c", (
        "import sys, pathlib, time\n"
        "from headrace.stack.leash import leash\n"
        "from headrace.stack.lifecycle import ANY_PORTS, up\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with leash(folder, delete=True):\n"
        "    up(folder, ports=ANY_PORTS, say=lambda text: print(text, flush=True))\n"
        "    print('up', flush=True)\n"
        "    time.sleep(60)\n"), str(folder)], stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout
        assert any(line == "up\n" for line in owner.stdout)
        java = [process for process in ours(folder) if "java" in process.name()]
        assert len(java) == 2
        owner.kill()
    until(lambda: not any(psutil.pid_exists(process.pid) for process in java), "the stack is gone", 40)
    until(lambda: not folder.exists(), "its folder is gone")


def test_the_fixtures_every_other_test_builds_on(stack: Any, topic: Callable[..., str], project: Any) -> None:
    name = topic("fixtures", 3, retention_ms=-1)
    found = settings.load(project.project)
    assert (found.bootstrap, found.registry_url) == (stack.bootstrap, stack.registry)
    admin = AdminClient(found.client())
    assert len(admin.list_topics(name, timeout=30).topics[name].partitions) == 3
    asked = ConfigResource(ConfigResource.Type.TOPIC, name)
    assert admin.describe_configs([asked])[asked].result(60)["retention.ms"].value == "-1"
    assert topic("fixtures") != name
    with SchemaRegistryClient(found.registry_client()) as client:
        assert isinstance(client.get_subjects(), list)
