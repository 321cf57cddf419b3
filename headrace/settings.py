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

Values in headrace.toml may refer to what stands elsewhere, `${env:NAME}`, `${file:/path:key}`, `${dir:/path:file}`
(headrace/secrets.py); they are looked up here, once.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from headrace.errors import BrokerError, ConfigError, Finding, RegistryError, UserError
from headrace.secrets import KNOWN, REFERENCE, in_url, is_secret, resolved, secrets_of, shown

FILE = "headrace.toml"
TABLES = ("kafka", "registry", "connect", "mlflow")


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """What a project runs against. `state` is its `.headrace` folder. Its repr shows no secret."""

    project: Path
    bootstrap: str | None
    registry_url: str | None
    kafka: Mapping[str, Any] = field(default_factory=dict)
    registry: Mapping[str, Any] = field(default_factory=dict)
    mlflow_uri: str | None = None
    connect: Mapping[str, Any] = field(default_factory=dict)
    """[connect]: `url` and how to get in; under `java` the same of Kafka Connect, by default the stack's own."""
    login: str | None = None
    """The file whose properties are among those of `kafka`: for the processes we start."""

    def __repr__(self) -> str:
        told = {one.name: _shown(one.name, getattr(self, one.name)) for one in fields(self)}
        return KNOWN.text(f"Settings({', '.join(f'{name}={value!r}' for name, value in told.items())})")

    @property
    def state(self) -> Path:
        return self.project / ".headrace"

    def client(self, **overrides: Any) -> dict[str, Any]:
        """librdkafka properties for one client: the user's, then ours. Raises BrokerError when no broker is known."""
        if not self.bootstrap:
            raise BrokerError("no Kafka broker is known",
                              hint="start one with `headrace up`, or set HEADRACE_BOOTSTRAP to a cluster of yours")
        return {"reconnect.backoff.max.ms": 2_000,  # a broker that is back is noticed soon, not only after 10 s
                **self.kafka, "bootstrap.servers": self.bootstrap, "log_level": 3,
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
    """Settings of a project; reads the environment and files, connects to nothing. Their secrets are KNOWN from then
    on. Raises ConfigError, also for a reference to what is not there."""
    project = project or find_project()
    written = _looked_up(project / FILE)
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
    made = Settings(project=project, kafka={**_login(kept), **kafka, **_login(given)}, registry=registry,
                    bootstrap=bootstrap, login=given or kept,
                    registry_url=os.environ.get("HEADRACE_REGISTRY") or url or stack.get("registry"),
                    mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI") or written.get("mlflow", {}).get("uri"),
                    connect=connect)
    urls = {"registry": made.registry_url, "mlflow": made.mlflow_uri}
    for table in (made.kafka, made.registry, made.connect, made.connect.get("java", {}), urls):
        KNOWN.learn(secrets_of(table))
    return made


def _shown(key: str, value: Any) -> Any:
    return {k: _shown(k, v) for k, v in value.items()} if isinstance(value, Mapping) else shown(key, value)


def _written(file: Path) -> tuple[str, dict[str, Any]]:
    """The text and the data of a headrace.toml; empty where there is none. Raises ConfigError."""
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        return text, tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([Finding(str(file), 0, f"not TOML: {error}")]) from error


def _looked_up(file: Path) -> dict[str, Any]:
    """The tables of a headrace.toml with what their references stand for; all that is not there at once."""
    text, data = _written(file)
    missing = []

    def look_up(table: Mapping[str, Any], place: str) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in table.items():
            if isinstance(value, Mapping):
                out[key] = look_up(value, f"{place}.{key}")
                continue
            try:
                out[key] = resolved(value) if isinstance(value, str) else value
            except UserError as error:
                missing.append(Finding(str(file), _line(text, place, key), f"[{place}] {key}: {error}"))
        return out

    tables = {name: look_up(data.get(name, {}), name) for name in TABLES}
    if missing:
        raise ConfigError(missing)
    return tables


def lint(file: Path) -> list[Finding]:
    """Secrets that a headrace.toml writes out, and references that are none, each at its line."""
    try:
        text, data = _written(file)
    except ConfigError as error:
        return list(error.findings)
    found = []

    def look(table: Mapping[str, Any], place: str) -> None:
        for key, value in table.items():
            if isinstance(value, Mapping):
                look(value, f"{place}.{key}")
            elif isinstance(value, str) and (said := _unsafe(key, value)):
                found.append(Finding(str(file), _line(text, place, key), f"[{place}] {key}: {said}", "warning"))

    for name in TABLES:
        look(data.get(name, {}), name)
    return found


def _unsafe(key: str, value: str) -> str | None:
    if REFERENCE.search(value):
        return None
    if "${" in value:
        return f"“{shown(key, value)}” is no reference: write ${{env:NAME}}, ${{file:/path:key}} or ${{dir:/path:file}}"
    if (is_secret(key) and value) or in_url(value):
        return "a secret that whoever sees this file can read: write \"${env:NAME}\" (or ${file:/path:key}, " \
               "${dir:/path:file}), and change the secret if the file was shared"
    return None


def _line(text: str, place: str, key: str) -> int:
    """The line of a key in a table, as near as TOML is read by lines: else the table's, else 0."""
    table, at, best = "", 0, 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            table, at = header[1].replace(" ", "").replace('"', ""), number
            best = at if table == place else best
        elif table == place and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return best
