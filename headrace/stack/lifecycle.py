"""All parts together: up, down, status. Every command finds them again by what stands in the project's `.headrace/`.

    .headrace/stack.json          where they are, for headrace.settings; there only while they should be running
    .headrace/stack/kafka/        the data, kept across down and up; likewise registry/; of several brokers kafka-1/ …
    .headrace/stack/cluster.json  of how many brokers, and whether clients log in: what the data was made with
    .headrace/stack/secure/       keys and logins of a secure one (secure.py)
    .headrace/stack/kafka.pid     likewise registry.pid, and connect.pid where Kafka Connect was asked for
    .headrace/stack/kafka.log     of this run; kafka.log.1 of the one before
    .headrace/stack/ports.json    of the last run, so that addresses stay the same
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import StackError
from headrace.stack import cluster, secure, supervise
from headrace.stack.connect import CONNECT
from headrace.stack.jars import Progress, fetch, pinned
from headrace.stack.kafka import all_brokers, nodes
from headrace.stack.part import Part, Ports
from headrace.stack.ports import choose
from headrace.stack.registry import REGISTRY

ANY_PORTS = {"kafka": 0, "controller": 0, "registry": 0, "connect": 0}
"""For `up`: of every broker, however many there are."""
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.1
STARTS_MAX = 4
"""Of one part in one `up`: a port that was free may be taken by the time Java binds it."""
PORT_TAKEN = ("Address already in use", "in use by another process", "BindException")
TAIL_LINES = 15

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PartStatus:
    """How one part is: `running`, `silent` (lives, does not answer), `died` or `stopped`."""

    name: str
    state: str
    address: str | None
    pid: int | None
    rss_mb: int | None
    up_s: int | None
    log: Path

    @property
    def obituary(self) -> str:
        """What happened, with the end of the log, for a person."""
        lines = supervise.tail(self.log, TAIL_LINES)
        return "\n".join((f"{self.name} {self.state}; the end of {self.log}:", *(f"  | {line}" for line in lines)))


@dataclass(frozen=True, slots=True)
class Where:
    """The files of one project's stack."""

    project: Path

    @property
    def note(self) -> Path:
        return self.project / ".headrace" / "stack.json"

    @property
    def folder(self) -> Path:
        return self.project / ".headrace" / "stack"

    @property
    def ports(self) -> Path:
        return self.folder / "ports.json"

    @property
    def secure(self) -> Path:
        return self.folder / "secure"

    def pidfile(self, part: Part) -> Path:
        return self.folder / f"{part.name}.pid"

    def log(self, part: Part) -> Path:
        return self.folder / f"{part.name}.log"

    def data(self, part: Part) -> Path:
        return self.folder / part.name


def parts(where: Where) -> tuple[Part, ...]:
    """Those that are, or were, to run in this project; in the order they start: the registry boots while Kafka's
    storage is formatted."""
    found = _parts(where, cluster.kept(where.folder) or cluster.Cluster())
    return (*found, CONNECT) if where.pidfile(CONNECT).is_file() else found


def _parts(where: Where, made: cluster.Cluster) -> tuple[Part, ...]:
    return (REGISTRY, *nodes(made, where.folder))


def _no_word(text: str) -> None:
    pass


def up(project: Path, *, ports: Ports | None = None, progress: Progress | None = None, say: Say = _no_word,
       timeout_s: float = READY_TIMEOUT_S, connect: Part | None = None, brokers: int | None = None,
       security: bool = False) -> dict[str, str]:
    """Start what is not running, wait until it answers; addresses: {"bootstrap": …, "registry": …, "connect": …}.

    `brokers` is how many of them Kafka's data is made for, `security` whether clients log in; left out, both are as
    they were, else one without. `connect` is Kafka Connect's worker; left out, it is started only where it was up and
    has died. The ports are those of last time, else `ports` (by default 9092 and so on, 8081, 18083), else any that is
    free. When it fails or is interrupted, what it started is stopped again. Raises StackError with the end of the log,
    MissingExtra, UserError for another number of brokers.
    """
    where = Where(project.resolve())
    with _alone(where):
        made = cluster.settled(where.folder, brokers, security)
        extra = [connect or CONNECT] if connect or where.pidfile(CONNECT).is_file() else []
        groups = (_parts(where, made), extra)  # Kafka Connect ends where no broker answers
        every = [part for group in groups for part in group]
        known = pinned()
        bundles = fetch({part.bundle: known[part.bundle] for part in every}, progress=progress)
        cluster.keep(where.folder, made)
        if made.secure:
            secure.make(where.secure)
        boot = Boot(where, bundles, ports or {}, say)
        deadline = time.monotonic() + timeout_s
        try:
            for group in groups:
                boot.start([part for part in group if not supervise.find(where.pidfile(part))], group)
                boot.wait(group, deadline)
                if made.secure and group is not extra:
                    secure.grant(all_brokers(boot.ports), where.secure)
        except BaseException:
            _stop(where, boot.started, STOP_TIMEOUT_S)
            raise
        pids = {part.name: running.pid for part in every if (running := supervise.find(where.pidfile(part)))}
        addresses = {"bootstrap": all_brokers(boot.ports), "registry": REGISTRY.address(boot.ports),
                     **{part.name: part.address(boot.ports) for part in extra}}
        login = {"login": str(where.secure / f"{secure.WORKER}.json")} if made.secure else {}
        used = {name: boot.ports[name] for part in every for name in part.ports}
        supervise.write_whole(where.note, {**addresses, **login, "pids": pids, "ports": used})
    return addresses


class Boot:
    """One `up` under way: which parts it started, on which ports."""

    def __init__(self, where: Where, bundles: dict[str, Path], wanted: Ports, say: Say) -> None:
        self.where, self.bundles, self.wanted, self.say = where, bundles, wanted, say
        self.ports = _last_ports(where)
        self.started: dict[Part, float] = {}
        self.starts: dict[str, int] = {}
        self.taken: set[int] = set()

    def start(self, parts: Sequence[Part], group: Sequence[Part] = ()) -> Sequence[Part]:
        """These, on their ports, and those of the group anew that were told other ports; which they are."""
        before = dict(self.ports)
        asked = {name: self.wanted.get(name.partition("-")[0], usual)
                 for part in parts for name, usual in part.ports.items()}
        self.ports |= choose(asked, self.ports, self.taken)
        supervise.write_whole(self.where.ports, self.ports)
        misled = [part for part in group if part not in parts
                  and any(before.get(name) != self.ports[name] for name in part.knows)]
        _stop(self.where, misled, STOP_TIMEOUT_S)
        for part in (both := (*parts, *misled)):
            self.starts[part.name] = self.starts.get(part.name, 0) + 1
            self.started[part] = time.monotonic()
            launch = part.launch(self.bundles[part.bundle], self.where.data(part), self.ports)
            supervise.start(launch, self.where.pidfile(part), self.where.log(part))
        return both

    def wait(self, parts: Sequence[Part], deadline: float) -> None:
        """Until each answers. Raises StackError with the end of its log: it ended, or the time did."""
        waiting = list(parts)
        while waiting:
            for part in tuple(waiting):
                if not (running := supervise.find(self.where.pidfile(part))):
                    waiting += [other for other in self._bury(part, parts) if other not in waiting]
                elif running.listens(self.ports[part.name]) and part.ready(self.ports):
                    waiting.remove(part)
                    took = f", {time.monotonic() - since:.1f} s" if (since := self.started.get(part)) else ""
                    self.say(f"{part.name} answers at {part.address(self.ports)}{took}")
                elif time.monotonic() > deadline:
                    raise StackError(f"{part.name} does not answer at {part.address(self.ports)} in time",
                                     hint=_report(self.where, part))
            time.sleep(POLL_S)

    def _bury(self, part: Part, group: Sequence[Part]) -> Sequence[Part]:
        """It ended while starting: once more when somebody was quicker to its port, else say why. What was started."""
        log = "\n".join(supervise.tail(self.where.log(part), 200))
        if self.starts.get(part.name, 0) >= STARTS_MAX or not any(sign in log for sign in PORT_TAKEN):
            raise StackError(f"{part.name} ended while starting", hint=_report(self.where, part))
        self.taken.update(self.ports[name] for name in part.ports)
        return self.start([part], group)


def down(project: Path, *, purge: bool = False, say: Say = _no_word, timeout_s: float = STOP_TIMEOUT_S) -> list[str]:
    """Stop all, kindly for `timeout_s`; the names of those that ran. `purge` also forgets topics and schemas."""
    where = Where(project.resolve())
    if not where.folder.is_dir():
        return []
    with _alone(where):
        where.note.unlink(missing_ok=True)
        stopped = [*_stop(where, [CONNECT], timeout_s, say), *_stop(where, parts(where), timeout_s, say)]
        if purge:
            shutil.rmtree(where.folder)
    return stopped


def _stop(where: Where, gone: Iterable[Part], timeout_s: float, say: Say = _no_word) -> list[str]:
    """All at once, since a broker waits for others before it ends; the names of those that ran."""
    asked = list(gone)
    with ThreadPoolExecutor(max(1, len(asked))) as pool:
        ran = list(pool.map(lambda part: supervise.stop(where.pidfile(part), timeout_s, say), asked))
    return [part.name for part, did in zip(asked, ran, strict=True) if did]


def status(project: Path) -> list[PartStatus]:
    """How each part is; asks those that live whether they answer, for two seconds at most."""
    where = Where(project.resolve())
    ports = _last_ports(where)
    found: list[PartStatus] = []
    for part in parts(where):
        running = supervise.find(where.pidfile(part))
        if running:
            state = "running" if running.listens(ports[part.name]) and part.ready(ports) else "silent"
            found.append(PartStatus(part.name, state, part.address(ports), running.pid, running.rss_bytes >> 20,
                                    int(time.time() - running.started_s), where.log(part)))
        else:
            state = "died" if where.pidfile(part).is_file() else "stopped"
            found.append(PartStatus(part.name, state, None, None, None, None, where.log(part)))
    return found


def obituary(project: Path) -> str | None:
    """What died, with the end of its log; None when nothing did. For the hint of an error about an absent broker."""
    return "\n".join(part.obituary for part in status(project) if part.state == "died") or None


def _report(where: Where, part: Part) -> str:
    log = where.log(part)
    return "\n  ".join((f"the end of {log}:", *(f"| {line}" for line in supervise.tail(log, TAIL_LINES))))


def _last_ports(where: Where) -> dict[str, int]:
    return dict(json.loads(where.ports.read_text())) if where.ports.is_file() else {}


@contextmanager
def _alone(where: Where) -> Iterator[None]:
    """One up or down at a time in a project; let go by the system however the process ends."""
    where.folder.mkdir(parents=True, exist_ok=True)
    with where.folder.with_suffix(".lock").open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
