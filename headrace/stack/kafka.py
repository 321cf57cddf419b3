"""Kafka's nodes, each broker and controller at once (KRaft): one, or several that keep each other's copies."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from headrace.errors import StackError
from headrace.stack import secure
from headrace.stack.cluster import Cluster
from headrace.stack.java import SHORT_LIVED, command
from headrace.stack.javaclient import properties
from headrace.stack.part import HOST, Launch, Part, Ports

PAUSES = ("-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:+ExplicitGCInvokesConcurrent")
HEAP = ("-Xms256m", "-Xmx1g", *PAUSES)
HEAP_EACH = ("-Xms128m", "-Xmx512m", *PAUSES)
"""Where several share the machine."""
LOGGING = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.log.kafka.server=info",
           "-Dorg.slf4j.simpleLogger.log.kafka.authorizer.logger=info",  # what was denied to whom
           "-Dorg.slf4j.simpleLogger.showDateTime=true",
           "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
           "-Dorg.slf4j.simpleLogger.showThreadName=false")
FORMAT_TIMEOUT_S = 60
USUAL_PORT = 9092

SINGLE_NODE = {
    "auto.create.topics.enable": "false",  # a flow declares its topics; a typing error must not make one
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",  # 50 by default: this many logs to open at every start
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",  # nobody waits for a second consumer on a laptop
    "message.max.bytes": "10485760",  # of a batch, compressed
    "num.network.threads": "2",
    "num.io.threads": "4",
}
"""Shared with docker-compose.yml (as KAFKA_… variables); a unit test holds them to agree."""


def nodes(cluster: Cluster, folder: Path = Path()) -> tuple[Part, ...]:
    """A part for each broker: “kafka” where there is one, else “kafka-1” and so on. `folder` is that of the stack."""
    return tuple(_node(cluster, number, folder / "secure" if cluster.secure else None) for number in cluster.numbers)


def _node(cluster: Cluster, number: int, keys: Path | None) -> Part:
    name, controller = _names(cluster, number)

    def launch(bundle: Path, data: Path, ports: Ports) -> Launch:
        data.mkdir(parents=True, exist_ok=True)
        config = data / "server.properties"
        told = _properties(cluster, number, data, ports) | (secure.broker_properties(keys) if keys else {})
        secure.write_private(config, properties(told))
        if not (data / "log" / "meta.properties").is_file():
            _format(cluster, bundle, data, config, keys)
        heap = HEAP if cluster.brokers == 1 else HEAP_EACH
        return Launch(command((*heap, *LOGGING), bundle, "kafka.Kafka", str(config)), {}, data)

    def address(ports: Ports) -> str:
        return f"{HOST}:{ports[name]}"

    def ready(ports: Ports) -> bool:
        return answers(address(ports), number, secure.login(keys, secure.ADMIN) if keys else {})

    usual = USUAL_PORT + 2 * (number - 1)
    return Part(name, {name: usual, controller: usual + 1}, launch, address, ready, bundle="kafka",
                knows=frozenset(_names(cluster, other)[1] for other in cluster.numbers))


def _names(cluster: Cluster, number: int) -> tuple[str, str]:
    """Of a node and its port for clients; of its port for controllers."""
    which = f"-{number}" if cluster.brokers > 1 else ""
    return f"kafka{which}", f"controller{which}"


def all_brokers(ports: Ports) -> str:
    """What clients are told: every broker, so that the first word need not be with one that is away."""
    return ",".join(f"{HOST}:{port}" for name, port in sorted(ports.items()) if name.partition("-")[0] == "kafka")


def _properties(cluster: Cluster, number: int, data: Path, ports: Ports) -> dict[str, str]:
    client, controller = (ports[name] for name in _names(cluster, number))
    return {
        **SINGLE_NODE,
        **(_replicated(cluster.copies) if cluster.brokers > 1 else {}),
        "process.roles": "broker,controller",
        "node.id": str(number),
        "controller.quorum.voters": ",".join(f"{other}@{HOST}:{ports[_names(cluster, other)[1]]}"
                                             for other in cluster.numbers),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"CLIENT://{HOST}:{client},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"CLIENT://{HOST}:{client}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "log.dirs": str(data / "log"),
    }


def _replicated(copies: int) -> dict[str, str]:
    """No rack is told: all are on this machine. A write counts once two have it."""
    topics = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
    return {**{f"{topic}.replication.factor": str(copies) for topic in topics},
            **{f"{topic}.min.isr": "2" for topic in topics[1:]},  # the offsets' is min.insync.replicas
            "default.replication.factor": str(copies),
            "min.insync.replicas": "2",
            "initial.broker.registration.timeout.ms": "180000",  # the first one waits while the others are formatted
            "log.cleaner.dedupe.buffer.size": str(16 << 20)}  # 128 MB each by default, held from the start


def _format(cluster: Cluster, bundle: Path, data: Path, config: Path, keys: Path | None) -> None:
    with ExitStack() as ends:
        users = ends.enter_context(secure.format_arguments(keys)) if keys else []
        formatting = command(SHORT_LIVED, bundle, "kafka.tools.StorageTool", "format", "-t", cluster.id,
                             "-c", str(config), *users)
        done = subprocess.run(formatting, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, cwd=data)
    if done.returncode:
        said = done.stdout + done.stderr
        raise StackError(f"Kafka's storage in {data} could not be formatted:\n"
                         f"{(secure.hidden(keys, said) if keys else said)[-2000:]}",
                         hint="`headrace down --purge` starts afresh, without the data")


def answers(bootstrap: str, number: int = 1, login: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Does a broker answer there, naming this node as alive? Within a second; never raises."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        client = AdminClient({**login, "bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": 1000})
        return number in client.list_topics(timeout=1).brokers
    except KafkaException:
        return False


KAFKA, = nodes(Cluster())
"""The one of a stack of one broker."""
