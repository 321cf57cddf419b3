"""The real Kafka Connect, one distributed worker, for connectors written in Java; also the oracle of our tests.

Its jars are Kafka's and a few more (bundle “connect”). Connectors of the user's go in the plugin folder, each a jar or
a folder of jars; what they are told, where they stand and how they are is kept in three topics of the broker.
"""

from __future__ import annotations

import http.client
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.stack import secure
from headrace.stack.jars import pinned
from headrace.stack.java import QUIET, java
from headrace.stack.javaclient import java_client, properties
from headrace.stack.kafka import HEAP, all_brokers
from headrace.stack.part import HOST, Launch, Part, Ports

MAIN = "org.apache.kafka.connect.cli.ConnectDistributed"
LOG4J = """\
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{yyyy-MM-dd'T'HH:mm:ss.SSS} %p %c{1} %X{connector.context}- %m%n
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
"""
SINGLE_WORKER = {
    "key.converter": "org.apache.kafka.connect.json.JsonConverter",  # as in Kafka's connect-distributed.properties
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "config.storage.replication.factor": "-1",  # the brokers' own default
    "offset.storage.replication.factor": "-1",
    "offset.storage.partitions": "4",
    "status.storage.replication.factor": "-1",
    "status.storage.partitions": "1",
    "config.providers": "env,file,dir",
    "config.providers.env.class": "org.apache.kafka.common.config.provider.EnvVarConfigProvider",
    "config.providers.file.class": "org.apache.kafka.common.config.provider.FileConfigProvider",
    "config.providers.dir.class": "org.apache.kafka.common.config.provider.DirectoryConfigProvider",
}
STOP_TIMEOUT_S = 30.0


def part(plugins: Sequence[Path] = (), *, bootstrap: str | None = None, group: str = "connect",
         own: Mapping[str, str] | None = None, login: Mapping[str, Any] | None = None) -> Part:
    """The worker. Left out: `plugins` is .headrace/connect/plugins of the project, `bootstrap` the stack's own Kafka,
    `login` (as librdkafka is told it) the stack's own for workers.

    `group` begins the names of its three topics (…-configs, …-offsets, …-status); `own` are properties over
    ours.
    """
    def launch(bundle: Path, data: Path, ports: Ports) -> Launch:
        data.mkdir(parents=True, exist_ok=True)
        folders = list(plugins) or [data.parent.parent / "connect" / "plugins"]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        keys = data.parent / "secure"
        known = login or (secure.login(keys, secure.WORKER) if keys.is_dir() and not bootstrap else {})
        given = {**SINGLE_WORKER, **_login(known), "bootstrap.servers": bootstrap or all_brokers(ports),
                 "group.id": f"{group}-cluster",
                 **{f"{what}.storage.topic": f"{group}-{what}s" for what in ("config", "offset")},
                 "status.storage.topic": f"{group}-status",
                 "listeners": address(ports), "rest.advertised.host.name": HOST,
                 "plugin.path": ",".join(str(folder.resolve()) for folder in folders), **(own or {})}
        config, log4j = data / "connect.properties", data / "log4j2.properties"
        secure.write_private(config, properties(given))
        log4j.write_text(LOG4J)
        logging = f"-Dlog4j2.configurationFile={log4j}"
        return Launch([str(java()), *QUIET, *HEAP, logging, "-cp", _class_path(bundle), MAIN, str(config)], {}, data)

    return Part("connect", {"connect": 18083}, launch, address, lambda ports: answers(HOST, ports["connect"]),
                bundle="connect")


def _login(kafka: Mapping[str, Any]) -> dict[str, str]:
    """The worker's own, and that of the clients it makes for connectors."""
    return {f"{whose}{key}": value for key, value in java_client(kafka).items()
            for whose in ("", "producer.", "consumer.", "admin.")}


def address(ports: Ports) -> str:
    return f"http://{HOST}:{ports['connect']}"


def _class_path(bundle: Path) -> str:
    """Its jars and those of Kafka's bundle beside it, but for Kafka's logging, of which there can be only one."""
    kafka = sorted((bundle.parent / pinned()["kafka"].folder).glob("*.jar"))
    return ":".join([f"{bundle}/*", *(str(jar) for jar in kafka if not jar.name.startswith("slf4j-simple-"))])


def answers(host: str, port: int) -> bool:
    """Does a worker answer there, and is it ready for requests? Within two seconds; never raises."""
    asked = http.client.HTTPConnection(host, port, timeout=2)
    try:
        asked.request("GET", "/health")
        return asked.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()


CONNECT = part()


@contextmanager
def running(bootstrap: str, folder: Path, *, port: int = 0, plugins: Sequence[Path] = (),
            properties: Mapping[str, str] | None = None, login: Mapping[str, Any] | None = None,
            timeout_s: float = 120.0) -> Iterator[str]:
    """A worker of its own for the cluster at `bootstrap`, its URL; gone at the end with its topics, however it ends.

    `folder` takes its files; port 0 is any. Raises StackError with the end of its log when it does not start.
    """
    from headrace.stack.jars import fetch
    from headrace.stack.leash import leash
    from headrace.stack.lifecycle import Boot, Where

    group = f"connect-{uuid.uuid4().hex[:8]}"
    worker = part(plugins, bootstrap=bootstrap, group=group, own=properties, login=login)
    bundles = fetch({name: pinned()[name] for name in ("kafka", "connect")})
    try:
        with leash(folder):
            boot = Boot(Where(folder.resolve()), bundles, {"connect": port}, lambda text: None)
            boot.start([worker])
            boot.wait([worker], time.monotonic() + timeout_s)
            yield address(boot.ports)
    finally:
        _forget({**(login or {}), "bootstrap.servers": bootstrap, "log_level": 0},
                [f"{group}-{what}" for what in ("configs", "offsets", "status")])


def _forget(client: Mapping[str, Any], topics: list[str]) -> None:
    from confluent_kafka.admin import AdminClient

    admin = AdminClient(dict(client))
    for done in admin.delete_topics(topics).values():
        done.exception(STOP_TIMEOUT_S)  # one that was never made is as good as deleted
