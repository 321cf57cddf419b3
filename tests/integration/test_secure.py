"""`headrace up --secure`: who may what, what a refused login says, and that no password is told anywhere."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from headrace import settings, topics
from headrace.errors import BrokerError, UserError
from headrace.faust import credentials
from headrace.settings import Settings
from headrace.stack import secure
from headrace.stack.leash import leash
from headrace.stack.lifecycle import ANY_PORTS, Where, up
from headrace.stack.tools import kafka_tool
from headrace.topics import TopicPlan, ensure
from tests.committed import committed_records
from tests.faults.test_kill import load, start, write_flow
from tests.integration.test_stack import OURS, headrace, ours, states

pytestmark = pytest.mark.integration

NOWHERE = {**OURS, "HEADRACE_LOGIN": ""}
LONG_S = 290.0
"""A refusal that came only with this time-out would come after the test's own."""
SEEN: set[str] = set()
"""Command lines and environments of every process that ran in the stack's folder while it started."""
TOLD: list[str] = []
"""What commands printed."""


def look(folder: Path, stop: threading.Event) -> None:
    """What any user of the machine sees of a process, and what its own user does."""
    while not stop.wait(0.1):
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                if str(folder) in line:
                    SEEN.add(line)
                    SEEN.add(str(sorted(process.environ().items())))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue


@pytest.fixture(scope="module")
def stack_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("secure stack")
    stop = threading.Event()
    looking = threading.Thread(target=look, args=(folder, stop), daemon=True)
    with leash(folder), pytest.MonkeyPatch.context() as patch:
        for name in NOWHERE:
            patch.delenv(name, raising=False)
        looking.start()
        up(folder, ports=ANY_PORTS, security=True)
        stop.set()
        looking.join()
        yield folder
    assert not ours(folder)


@pytest.fixture
def login(stack_folder: Path) -> Callable[[str], Settings]:
    """login("reader") are the settings of that user."""
    here = settings.load(stack_folder)

    def of(user: str) -> Settings:
        return replace(here, kafka=secure.login(Where(stack_folder).secure, user))

    return of


@pytest.fixture
def worker(stack_folder: Path) -> Settings:
    """What a command in the project's folder finds by itself."""
    return settings.load(stack_folder)


def passwords(folder: Path) -> set[str]:
    return {secure.login(Where(folder).secure, user)["sasl.password"] for user in secure.USERS}


def told(*arguments: str, cwd: Path, login: Path | None = None) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        if login:
            patch.setenv("HEADRACE_LOGIN", str(login))
        done = headrace(*arguments, cwd=cwd)
    TOLD.append(done.stdout + done.stderr)
    return done


def code_of(error: KafkaException | KafkaError) -> str:
    return str((error.args[0] if isinstance(error, KafkaException) else error).name())


def produced(found: Settings, topic: str) -> str:
    """What becomes of a record: "" or the name of the error."""
    reports: list[KafkaError | None] = []
    producer = Producer(found.client(message_timeout_ms=20_000))
    producer.produce(topic, b"x", on_delivery=lambda error, message: reports.append(error))
    producer.flush(60)
    return "" if reports == [None] else code_of(reports[0])  # type: ignore[arg-type]


def consumed(found: Settings, topic: str, group: str) -> str:
    """What becomes of a member of this group: "" where it gets a record."""
    reader = Consumer(found.client(group_id=group, auto_offset_reset="earliest"))
    try:
        reader.subscribe([topic])
        while True:
            message = reader.poll(30)
            assert message is not None, "neither a record nor an error"
            if message.error() is None:
                return ""
            if message.error().code() != KafkaError._ALL_BROKERS_DOWN:
                return code_of(message.error())
    finally:
        reader.close()


def transacted(found: Settings, transactional_id: str) -> str:
    try:
        Producer(found.client(transactional_id=transactional_id)).init_transactions(30)
    except KafkaException as error:
        return code_of(error)
    return ""


def asked(futures: dict[Any, Any]) -> str:
    """What an admin's request becomes."""
    try:
        [future.result(60) for future in futures.values()]
    except KafkaException as error:
        return code_of(error)
    return ""


def test_settings_find_the_login_and_nothing_else_gets_it(stack_folder: Path, worker: Settings,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    assert (worker.kafka["sasl.username"], worker.kafka["security.protocol"]) == ("worker", "sasl_ssl")
    assert states(stack_folder) == {"kafka": "running", "registry": "running"}
    assert told("status", cwd=stack_folder).returncode == 0
    monkeypatch.setenv("HEADRACE_BOOTSTRAP", "elsewhere:9092")
    assert settings.load(stack_folder).kafka == {}, "the login went to another cluster"
    monkeypatch.setenv("HEADRACE_LOGIN", str(stack_folder / "none.json"))
    with pytest.raises(UserError, match="the login to Kafka cannot be read"):
        settings.load(stack_folder)


def test_what_each_role_may_and_may_not(login: Callable[[str], Settings]) -> None:
    worker, reader = login("worker"), login("reader")
    assert ensure(worker, [TopicPlan("roles", 1)]) == ["roles"]
    assert produced(worker, "roles") == ""
    assert produced(reader, "roles") == "TOPIC_AUTHORIZATION_FAILED"

    assert consumed(worker, "roles", "headrace.roles") == ""
    assert consumed(worker, "roles", "other") == "GROUP_AUTHORIZATION_FAILED"
    assert consumed(reader, "roles", "reader.roles") == ""
    assert consumed(reader, "roles", "headrace.roles") == "GROUP_AUTHORIZATION_FAILED"
    assert consumed(login("admin"), "roles", "other") == ""

    assert transacted(worker, "headrace.roles") == ""
    assert transacted(worker, "other") == "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"
    assert transacted(reader, "headrace.roles") == "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"

    with pytest.raises(BrokerError, match="cannot be created") as refused:
        ensure(reader, [TopicPlan("by.reader", 1)])
    assert "user “reader” may not do this with the topic" in str(refused.value)
    clients = {found.kafka["sasl.username"]: AdminClient(found.client()) for found in (worker, reader, login("admin"))}
    everything = AclBinding(ResourceType.TOPIC, "*", ResourcePatternType.LITERAL, "User:reader", "*",
                            AclOperation.ALL, AclPermissionType.ALLOW)
    for name in ("worker", "reader"):
        assert asked(clients[name].delete_topics(["roles"])) == "TOPIC_AUTHORIZATION_FAILED"
        assert asked(clients[name].create_acls([everything])) == "CLUSTER_AUTHORIZATION_FAILED"
        assert not any(topic.startswith("__") for topic in clients[name].list_topics(timeout=60).topics)
    assert asked(clients["reader"].create_topics([NewTopic("by.reader", 1)])) == "TOPIC_AUTHORIZATION_FAILED"
    assert asked(clients["admin"].delete_topics(["roles"])) == ""


def test_a_flow_runs_and_commands_speak_to_it(stack_folder: Path, worker: Settings) -> None:
    ensure(worker, [TopicPlan("readings", 4)])
    write_flow(stack_folder, "readings", "readings")
    load(worker, "readings", 1_000)
    running = start(stack_folder, "readings", "--drain")
    TOLD.append(running.communicate(timeout=90)[1])
    assert running.returncode == 0, TOLD[-1]
    assert len(committed_records(worker, "readings.checked", "readings.quarantine")) == 1_000
    lag = told("lag", "--json", cwd=stack_folder)
    assert lag.returncode == 0, lag.stderr
    assert "headrace.readings" in lag.stdout
    shown = told("consume", "readings.checked", "--from-beginning", "-n", "3", cwd=stack_folder)
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) == 3
    assert "headrace.readings" in kafka_tool("kafka-consumer-groups", ["--list"], settings=worker)


def test_faust_logs_in_too(worker: Settings) -> None:
    import asyncio

    from aiokafka import AIOKafkaConsumer

    made = credentials(worker.client())

    async def ask() -> set[str]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=worker.bootstrap, security_protocol=made.protocol.value,
            sasl_mechanism=made.mechanism.value, sasl_plain_username=made.username, sasl_plain_password=made.password,
            ssl_context=made.ssl_context)
        await consumer.start()
        try:
            return set(await consumer.topics())
        finally:
            await consumer.stop()

    ensure(worker, [TopicPlan("for.faust", 1)])
    assert "for.faust" in asyncio.run(ask())


@pytest.mark.full
def test_a_flow_of_one_who_may_not_says_what_is_missing(stack_folder: Path, worker: Settings) -> None:
    wide = {"denied.dead-letter": {"max.message.bytes": "20971520"}}
    for topic in ("denied", "denied.checked", "denied.quarantine", "denied.dead-letter"):
        ensure(worker, [TopicPlan(topic, 1, wide.get(topic, {}))])
    write_flow(stack_folder, "denied", "denied")
    refused = told("run", "denied", "--drain", cwd=stack_folder, login=Where(stack_folder).secure / "reader.json")
    assert refused.returncode == 3, refused.stderr
    assert "producer headrace.denied." in refused.stderr
    assert "user “reader” may not use this transactional id" in refused.stderr
    named = told("run", "denied", "--drain", "--group", "theirs", cwd=stack_folder)
    assert named.returncode == 3, named.stderr
    assert "theirs" in named.stderr
    assert "user “worker” may not be in this consumer group" in named.stderr


def test_a_sink_nobody_may_write_ends_the_flow_and_says_so(stack_folder: Path, login: Callable[[str], Settings],
                                                           worker: Settings) -> None:
    """A right that is taken away: aborted transactions, not a flow that turns for ever without a word."""
    ensure(worker, [TopicPlan("shut", 1), TopicPlan("shut.checked", 1), TopicPlan("shut.quarantine", 1)])
    client = AdminClient(login("admin").client())
    for topic in ("shut.checked", "shut.quarantine"):
        assert asked(client.create_acls([AclBinding(
            ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:worker", "*", AclOperation.WRITE,
            AclPermissionType.DENY)])) == ""
    write_flow(stack_folder, "shut", "shut")
    flow = stack_folder / "flows/shut.yaml"
    flow.write_text(flow.read_text().replace("partitions: 4", "partitions: 1"))
    producer = Producer(worker.client())
    for n in range(5):
        producer.produce("shut", b"no record", str(n))
    assert producer.flush(60) == 0
    ended = told("run", "shut", "--drain", cwd=stack_folder)
    assert ended.returncode == 3
    assert "user “worker” may not do this with the topic" in ended.stderr


@pytest.mark.parametrize(("changed", "says", "check"), [
    ({"sasl.password": "canary-wrong-password"}, "invalid credentials", "“worker” by SCRAM-SHA-512: are sasl.user"),
    ({"sasl.username": "nobody"}, "invalid credentials", "login of user “nobody”"),
    ({"ssl.ca.location": None}, "certificate verify failed", "not trusted: is the system's trust store"),
    ({"sasl.mechanism": "PLAIN"}, "PLAIN", "by PLAIN: are sasl.username")],
    ids=["password", "user", "authority", "mechanism"])
@pytest.mark.timeout(60)
def test_a_refused_login_is_told_at_once(worker: Settings, monkeypatch: pytest.MonkeyPatch,
                                         changed: dict[str, Any], says: str, check: str) -> None:
    monkeypatch.setattr(topics, "CONNECT_TIMEOUT_S", LONG_S)
    kafka = {key: value for key, value in {**worker.kafka, **changed}.items() if value is not None}
    with pytest.raises(BrokerError) as refused:
        topics.admin(replace(worker, kafka=kafka))
    assert "refuses" in refused.value.what
    assert says in refused.value.what
    assert check in str(refused.value.hint)
    TOLD.append(str(refused.value))
    assert "canary-wrong-password" not in str(refused.value)


def test_a_flow_tells_it_too(stack_folder: Path, worker: Settings, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({**worker.kafka, "sasl.password": "canary-wrong-password"}))
    write_flow(stack_folder, "wrong", "readings")
    refused = told("run", "wrong", "--drain", cwd=stack_folder, login=wrong)
    assert refused.returncode == 3, refused.stderr
    assert "the broker refuses the login of user “worker”" in refused.stderr
    assert "canary-wrong-password" not in refused.stdout + refused.stderr


def test_a_client_without_a_login_gets_nowhere(worker: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "CONNECT_TIMEOUT_S", 2.0)
    for kafka in ({}, {"security.protocol": "ssl", "ssl.ca.location": worker.kafka["ssl.ca.location"]}):
        with pytest.raises(BrokerError, match=r"does not answer|refuses"):
            topics.admin(replace(worker, kafka=kafka))


def test_secure_is_kept_and_refused_where_it_was_not(stack_folder: Path, tmp_path: Path) -> None:
    assert up(stack_folder)["bootstrap"] == settings.load(stack_folder).bootstrap
    assert settings.load(stack_folder).kafka["security.protocol"] == "sasl_ssl"
    (tmp_path / ".headrace/stack/kafka").mkdir(parents=True)
    refused = told("up", "--secure", cwd=tmp_path)
    assert refused.returncode == 2
    assert "is that of a stack without users" in refused.stderr


def content(path: Path) -> str:
    """Of a file; nothing of a folder, and of what the running broker deletes meanwhile."""
    try:
        return path.read_bytes().decode("latin-1") if path.is_file() else ""
    except FileNotFoundError:
        return ""


def test_no_password_is_told_anywhere(stack_folder: Path) -> None:
    """The last of this file: whatever ran before has had its chance."""
    secrets, where = passwords(stack_folder), Where(stack_folder)
    assert len(secrets) == len(secure.USERS)
    assert any("StorageTool" in line for line in SEEN), "nobody looked while storage was formatted"
    assert len(TOLD) > 5
    for told_ in (*SEEN, *TOLD, where.note.read_text(), *(log.read_text() for log in where.folder.glob("*.log*"))):
        assert not any(secret in told_ for secret in secrets), told_[:200]
    holding = [path for path in stack_folder.rglob("*") if any(secret in content(path) for secret in secrets)]
    assert {path.name for path in holding} == {*(f"{user}.json" for user in secure.USERS), "server.properties"}
    lax = [path for path in (*holding, where.secure / "server.pem") if stat.S_IMODE(path.stat().st_mode) != 0o600]
    assert not lax
    assert {stat.S_IMODE(path.stat().st_mode) for path in (where.secure, where.folder)} == {0o700}
    assert not list(where.secure.glob("*.new")) + list(where.secure.glob("users*"))
    assert os.environ.get("HEADRACE_LOGIN") is None
