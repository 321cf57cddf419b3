"""Which worker: for a file by its class, for a connector by who has it.

There are two at most: the one at --url, HEADRACE_CONNECT or [connect] url (by default where ours listens), and a Kafka
Connect for connectors in Java, at --java-url, [connect.java] url, or the stack's own (`headrace up --connect`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.connect import wild
from headrace.connect.config import Connector
from headrace.connectctl.client import Access, Client, Unreachable
from headrace.errors import UserError
from headrace.marked import closest
from headrace.settings import Settings

DEFAULT_URL = "http://127.0.0.1:8083"
START_OURS, START_JAVA = "`headrace connect`", "`headrace up --connect`"


@dataclass(slots=True)
class Worker:
    """A worker, and what it said about itself, asked once."""

    client: Client
    said: bool
    """Somebody named it, so that its silence is an error."""
    _root: dict[str, Any] = field(default_factory=dict)
    _plugins: dict[str, dict[str, Any]] = field(default_factory=dict)
    _asked: bool = False

    @property
    def url(self) -> str:
        return self.client.url

    @property
    def answers(self) -> bool:
        """False where nobody is. Raises Unreachable where somebody named it."""
        try:
            self._root = self._root or self.client.get()
        except Unreachable:
            if self.said:
                raise
            return False
        return True

    @property
    def version(self) -> str:
        return str(self._root.get("version", "?")) if self.answers else "?"

    @property
    def plugins(self) -> dict[str, dict[str, Any]]:
        """Its connectors by class: {"class", "type", "version"}. Raises Unreachable."""
        if not self._asked:
            listed = self.client.get("connector-plugins", connectorsOnly="true")
            self._plugins, self._asked = {one["class"]: one for one in listed}, True
        return self._plugins

    def has(self, connector: Connector) -> bool:
        """Whether it can run it."""
        names = {connector.cls, connector.full_name}
        return any(names.intersection(wild.aliases(one)) for one in self.plugins)

    def connectors(self) -> dict[str, dict[str, Any]]:
        """Those it has: {name: {"info": {"config", "tasks", "type"}, "status": …}}."""
        found: dict[str, dict[str, Any]] = self.client.get("connectors", expand=["info", "status"])
        return found


@dataclass(frozen=True, slots=True)
class Workers:
    """Those that commands speak to. Use it in a `with`: it closes their connections."""

    ours: Worker
    java: Worker | None = None
    only: bool = False
    """--url was given without --java-url: that worker, and no other."""

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.known:
            worker.client.close()

    @property
    def known(self) -> list[Worker]:
        return [self.ours, *([self.java] if self.java else [])]

    @property
    def present(self) -> list[Worker]:
        """Those that answer. Raises Unreachable when none does, or one that somebody named does not."""
        found = [worker for worker in self.known if worker.answers]
        if not found:
            self.ours.client.get()  # raises, and says where nobody is
        return found

    def for_file(self, connector: Connector) -> Worker:
        """Where a file goes. Raises UserError when nobody has its class, Unreachable."""
        if connector.full_name is not None:
            if self.ours.answers and not self.ours.has(connector) and self.java and self.java.has(connector):
                return self.java
            candidates = [self.ours]
        else:
            candidates = [worker for worker in ([self.ours] if self.only else [self.java, self.ours])
                          if worker is not None and worker.answers]
        if not candidates:
            raise UserError(f"{connector.name}: {connector.cls} is a Java class, and no Kafka Connect is known",
                            hint=f"start one: {START_JAVA}; or say where it is: --java-url, or [connect.java] url in "
                                 f"headrace.toml\n  {wild.near(connector.cls)}")
        for worker in candidates:
            if worker.has(connector):
                return worker
        raise UserError(f"{connector.name}: no such connector: {connector.cls} is not at "
                        + " nor at ".join(f"{worker.url} (version {worker.version})" for worker in candidates),
                        hint=_meant(connector, candidates))

    def owner(self, name: str) -> Worker:
        """Who has the connector. Raises UserError: nobody, or two."""
        found, names = [], set()
        for worker in self.present:
            there = worker.client.get("connectors")
            names.update(there)
            if name in there:
                found.append(worker)
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"there is a connector “{name}” at each of {' and '.join(one.url for one in found)}",
                            hint="--url says which is meant")
        meant = closest(name, names)
        raise UserError(f"there is no connector “{name}” at {' nor at '.join(one.url for one in self.present)}"
                        + (f"; did you mean “{meant}”?" if meant else ""),
                        hint="`headrace connectors list` shows what there is")


def _meant(connector: Connector, candidates: Sequence[Worker]) -> str:
    there = [name for worker in candidates for name in worker.plugins]
    meant = closest(connector.cls, {alias for name in there for alias in wild.aliases(name)})
    lines = [f"did you mean “{meant}”?"] if meant else []
    if connector.full_name is None:
        lines.append("a connector in Java is its jars in Kafka Connect's plugin folder (the stack's: "
                     ".headrace/connect/plugins, or --connect-plugins), and a restart")
        lines.append(wild.near(connector.cls))
    return "\n  ".join(dict.fromkeys([*lines, "`headrace connectors plugins` shows what there is"]))


def workers(settings: Settings, url: str | None = None, java_url: str | None = None,
            timeout_s: float | None = None) -> Workers:
    """The workers of a project, or at the addresses given. Connects to nothing. Raises UserError."""
    section = dict(settings.connect)
    java = dict(section.pop("java", {}))
    if timeout_s is not None:
        section["timeout_s"] = java["timeout_s"] = timeout_s
    said = bool(url or section.get("url"))
    ours = Worker(Client(Access.of({**section, "url": url or section.get("url") or DEFAULT_URL}), start=START_OURS),
                  said)
    only = bool(url and not java_url)
    if java_url:
        java["url"] = java_url
    if only or not java.get("url") or Access.of(java).url == ours.client.access.url:
        return Workers(ours, None, only)
    return Workers(ours, Worker(Client(Access.of(java), start=START_JAVA), bool(java_url)))
