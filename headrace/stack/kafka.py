"""One Kafka node, broker and controller at once (KRaft), for one machine: everything has one replica."""

from __future__ import annotations

import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from headrace.errors import StackError
from headrace.stack.java import SHORT_LIVED, command
from headrace.stack.part import HOST, Launch, Part, Ports

HEAP = ("-Xms256m", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:+ExplicitGCInvokesConcurrent")
LOGGING = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.log.kafka.server=info",
           "-Dorg.slf4j.simpleLogger.showDateTime=true",
           "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
           "-Dorg.slf4j.simpleLogger.showThreadName=false")
FORMAT_TIMEOUT_S = 60

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


def _properties(data: Path, ports: Ports) -> dict[str, str]:
    return {
        **SINGLE_NODE,
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{ports['controller']}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{ports['kafka']},CONTROLLER://{HOST}:{ports['controller']}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{ports['kafka']}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data / "log"),
    }


def escaped(value: str) -> str:
    """As java.util.Properties reads it: a backslash starts an escape; anything not ASCII is written as one."""
    return value.replace("\\", "\\\\").encode("ascii", "backslashreplace").decode().replace("\\x", "\\u00")


def _launch(bundle: Path, data: Path, ports: Ports) -> Launch:
    data.mkdir(parents=True, exist_ok=True)
    config = data / "server.properties"
    config.write_text("".join(f"{key}={escaped(value)}\n" for key, value in _properties(data, ports).items()))
    if not (data / "log" / "meta.properties").is_file():
        _format(bundle, data, config)
    return Launch(command((*HEAP, *LOGGING), bundle, "kafka.Kafka", str(config)), {}, data)


def _cluster_id() -> str:
    """A random one as Kafka makes them: never with a dash in front, which its tools would read as an option."""
    while (made := urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return made


def _format(bundle: Path, data: Path, config: Path) -> None:
    formatting = command(SHORT_LIVED, bundle, "kafka.tools.StorageTool", "format", "-t", _cluster_id(),
                         "-c", str(config))
    done = subprocess.run(formatting, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, cwd=data)
    if done.returncode:
        raise StackError(f"Kafka's storage in {data} could not be formatted:\n{(done.stdout + done.stderr)[-2000:]}",
                         hint="`headrace down --purge` starts afresh, without the data")


def _address(ports: Ports) -> str:
    return f"{HOST}:{ports['kafka']}"


def answers(bootstrap: str) -> bool:
    """Does a broker answer there, naming itself as alive? Within a second; never raises."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": 1000})
        return bool(client.list_topics(timeout=1).brokers)
    except KafkaException:
        return False


KAFKA = Part("kafka", {"kafka": 9092, "controller": 9093}, _launch, _address, lambda ports: answers(_address(ports)))
