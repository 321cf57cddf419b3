"""Where Kafka and the registry are. The order: the environment, `headrace.toml`, the embedded stack's own note.

    HEADRACE_BOOTSTRAP, HEADRACE_REGISTRY        addresses
    headrace.toml   [kafka]                      any librdkafka property, e.g. "bootstrap.servers", "sasl.password"
                    [registry] url = "…"         and any property of confluent_kafka's SchemaRegistryClient
    HEADRACE_LOGIN                               a JSON file of librdkafka properties to log in with
    HEADRACE_CONNECT                             or [connect] url = "…": the worker of `headrace connectors`, and how to
                                                 get in (headrace/connectctl/client.py); [connect.java] the same of a
                                                 Kafka Connect for connectors in Java, by default the stack's own
    MLFLOW_TRACKING_URI                          or [mlflow] uri = "…": the model registry; else one in .headrace/mlflow
    .headrace/stack.json                         written by `headrace up`
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.errors import BrokerError, ConfigError, Finding, RegistryError


@dataclass(frozen=True, slots=True)
class Settings:
    """What a project runs against. `state` is its `.headrace` folder."""

    project: Path
    bootstrap: str | None
    registry_url: str | None
    kafka: Mapping[str, Any] = field(default_factory=dict, repr=False)  # it may hold a password
    registry: Mapping[str, Any] = field(default_factory=dict)
    mlflow_uri: str | None = None
    connect: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """[connect]: `url` and how to get in; under `java` the same of Kafka Connect, by default the stack's own."""
    login: str | None = None
    """The file whose properties are among those of `kafka`: for the processes we start."""

    @property
    def state(self) -> Path:
        return self.project / ".headrace"

    def client(self, **overrides: Any) -> dict[str, Any]:
        """librdkafka properties for one client: the user's, then ours. Raises BrokerError when no broker is known."""
        if not self.bootstrap:
            raise BrokerError("no Kafka broker is known",
                              hint="start one with `headrace up`, or set HEADRACE_BOOTSTRAP to a cluster of yours")
        return {**self.kafka, "bootstrap.servers": self.bootstrap, "log_level": 3,
                **{k.replace("_", "."): v for k, v in overrides.items()}}

    def registry_client(self) -> dict[str, Any]:
        """Properties for SchemaRegistryClient. Raises RegistryError when no registry is known."""
        if not self.registry_url:
            raise RegistryError("no schema registry is known",
                                hint="start one with `headrace up`, or set HEADRACE_REGISTRY to one of yours")
        return {**self.registry, "url": self.registry_url}


def find_project(start: Path | None = None) -> Path:
    """The nearest folder, upwards from `start`, with a headrace.toml, flows/ or .headrace/; else `start` itself."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "headrace.toml").is_file() or (folder / "flows").is_dir() or (folder / ".headrace").is_dir():
            return folder
    return here


def _login(file: str | None) -> dict[str, Any]:
    """The properties in a login's file. Raises ConfigError, which does not say what else stands in it."""
    try:
        found = json.loads(Path(file).read_text()) if file else {}
    except (OSError, ValueError) as error:
        why = "it is no JSON" if isinstance(error, ValueError) else str(error)
        raise ConfigError([Finding(str(file), 0, f"the login to Kafka cannot be read: {why}")]) from None
    if not isinstance(found, dict):
        raise ConfigError([Finding(str(file), 0, "the login to Kafka is no object of librdkafka's properties")])
    return found


def load(project: Path | None = None) -> Settings:
    """Settings of a project; reads the environment and files, connects to nothing. Raises ConfigError."""
    project = project or find_project()
    file = project / "headrace.toml"
    try:
        written: dict[str, Any] = tomllib.loads(file.read_text()) if file.is_file() else {}
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Finding(str(file), 0, f"not TOML: {error}")]) from error
    kafka, registry = dict(written.get("kafka", {})), dict(written.get("registry", {}))
    note = project / ".headrace" / "stack.json"
    stack: dict[str, Any] = json.loads(note.read_text()) if note.is_file() else {}
    connect = dict(written.get("connect", {}))
    if given := os.environ.get("HEADRACE_CONNECT"):
        connect["url"] = given
    if stack.get("connect"):
        connect["java"] = {"url": stack["connect"], **connect.get("java", {})}
    bootstrap, url = kafka.pop("bootstrap.servers", None), registry.pop("url", None)
    bootstrap = os.environ.get("HEADRACE_BOOTSTRAP") or bootstrap or stack.get("bootstrap")
    given, kept = os.environ.get("HEADRACE_LOGIN"), stack.get("login") if bootstrap == stack.get("bootstrap") else None
    return Settings(project=project, kafka={**_login(kept), **kafka, **_login(given)}, registry=registry,
                    bootstrap=bootstrap, login=given or kept,
                    registry_url=os.environ.get("HEADRACE_REGISTRY") or url or stack.get("registry"),
                    mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI") or written.get("mlflow", {}).get("uri"),
                    connect=connect)
