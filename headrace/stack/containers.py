"""The same broker and registry as containers, for those who have Docker.

The images, ports and environment here are those of docker-compose.yml; tests/unit/test_compose.py holds them to agree,
and holds the broker's settings to those of the embedded one.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from headrace.errors import MissingExtra, StackError
from headrace.stack import kafka, registry
from headrace.stack.kafka import SINGLE_NODE
from headrace.stack.ports import choose
from headrace.stack.registry import API

KAFKA_IMAGE = "apache/kafka:4.3.1"
REGISTRY_IMAGE = "apicurio/apicurio-registry:3.3.3"
KAFKA_PORT, REGISTRY_PORT = 9092, 8081
"""What clients on the host use; inside the network the broker is kafka:19092, the registry registry:8081."""
READY_TIMEOUT_S = 180.0
POLL_S = 0.5
PING_TIMEOUT_S = 5.0


def kafka_environment(host: str = "localhost", port: int = KAFKA_PORT) -> dict[str, str]:
    """Of the broker's container, which the host reaches at `host:port`. KAFKA_X_Y is the property x.y."""
    return {
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_NODE_ID": "1",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": f"HOST://:{KAFKA_PORT},NETWORK://:19092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"HOST://{host}:{port},NETWORK://kafka:19092",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "HOST:PLAINTEXT,NETWORK:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "NETWORK",
        "KAFKA_LOG_DIRS": "/var/lib/kafka/data",
        **{f"KAFKA_{key.replace('.', '_').upper()}": value for key, value in SINGLE_NODE.items()},
    }


def registry_environment() -> dict[str, str]:
    """Of the registry's container. It keeps its schemas in Kafka, so that only the broker has a volume."""
    return {
        "APICURIO_STORAGE_KIND": "kafkasql",
        "APICURIO_KAFKASQL_BOOTSTRAP_SERVERS": "kafka:19092",
        "QUARKUS_HTTP_PORT": str(REGISTRY_PORT),
    }


def engine_answers() -> bool:
    """Is there a Docker engine? Asks the usual socket, or that of DOCKER_HOST; a DOCKER_HOST elsewhere is believed."""
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not address.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(PING_TIMEOUT_S)
        try:
            asked.connect(address.removeprefix("unix://"))
            asked.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return asked.recv(64).split(b" ")[1:2] == [b"200"]
        except OSError:
            return False


@contextmanager
def containers() -> Iterator[tuple[str, str]]:
    """Start both, wait until they answer; (bootstrap, registry URL). Gone at the end, also after a crash (Ryuk)."""
    try:
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.docker_client import DockerClient
        from testcontainers.core.network import Network
    except ImportError as error:
        raise MissingExtra("dev", "starting containers") from error

    ports = choose({"kafka": 0, "registry": 0}, {})
    host = DockerClient().host()
    bootstrap, url = f"{host}:{ports['kafka']}", f"http://{host}:{ports['registry']}{API}"
    with ExitStack() as ends:
        network = ends.enter_context(Network())
        for name, image, environment, inside in (
                ("kafka", KAFKA_IMAGE, kafka_environment(host, ports["kafka"]), KAFKA_PORT),
                ("registry", REGISTRY_IMAGE, registry_environment(), REGISTRY_PORT)):
            container = DockerContainer(image, env=environment, network=network, network_aliases=[name])
            ends.enter_context(container.with_bind_ports(inside, ports[name]))
        _wait(lambda: kafka.answers(bootstrap), f"Kafka in a container at {bootstrap}")
        _wait(lambda: registry.answers(host, ports["registry"]), f"the registry in a container at {url}")
        yield bootstrap, url


def _wait(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not ready():
        if time.monotonic() > deadline:
            raise StackError(f"{what} does not answer within {READY_TIMEOUT_S:g} s", hint="`docker logs` may say why")
        time.sleep(POLL_S)
