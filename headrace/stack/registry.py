"""Apicurio, the schema registry, behind Confluent's API; its schemas in an H2 file, so that they outlive a restart."""

from __future__ import annotations

import http.client
from pathlib import Path

from headrace.stack.java import QUIET, java
from headrace.stack.part import HOST, Launch, Part, Ports

API = "/apis/ccompat/v7"
HEAP = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""It answers a few requests a minute: start quickly, stay small."""


def _launch(bundle: Path, data: Path, ports: Ports) -> Launch:
    data.mkdir(parents=True, exist_ok=True)
    # In `cwd`: a path may hold what a JDBC URL may not. Written at once: a kill would take the last half second along.
    env = {"APICURIO_DATASOURCE_URL": "jdbc:h2:file:./registry;WRITE_DELAY=0",
           "QUARKUS_HTTP_HOST": HOST,
           "QUARKUS_HTTP_PORT": str(ports["registry"]),
           "QUARKUS_MANAGEMENT_HOST": HOST,  # else on every interface, at 9000, where a second stack would not start
           "QUARKUS_MANAGEMENT_PORT": "0",
           "QUARKUS_HTTP_ACCESS_LOG_ENABLED": "false",  # a line for every look-up would bury what went wrong
           "QUARKUS_LOG_CONSOLE_FORMAT": "%d{yyyy-MM-dd'T'HH:mm:ss.SSS} %p %c{1} - %m%n"}
    return Launch([str(java()), *QUIET, *HEAP, "-jar", str(bundle / "quarkus-run.jar")], env, data)


def _address(ports: Ports) -> str:
    return f"http://{HOST}:{ports['registry']}{API}"


def answers(host: str, port: int) -> bool:
    """Does a registry answer there, as Confluent's would? Within two seconds; never raises."""
    asked = http.client.HTTPConnection(host, port, timeout=2)
    try:
        asked.request("GET", f"{API}/subjects")
        return asked.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()


REGISTRY = Part("registry", {"registry": 8081}, _launch, _address, lambda ports: answers(HOST, ports["registry"]),
                bundle="registry")
