"""Where a fault happens: a stack, and in it a case, which is one flow, its input, its workers and its reader."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.settings import Settings
from headrace.stack.leash import leash
from headrace.stack.lifecycle import ANY_PORTS, up
from headrace.topics import TopicPlan, ensure, existing
from tests.faults import load
from tests.faults.checker import Outcome, hanging, judge, leaked, recoveries
from tests.faults.load import PARTITIONS, Ids, Input
from tests.faults.reader import Found, Reader
from tests.faults.workers import PATIENCE_S, Worker, until

BATCH = 500


@dataclass(slots=True)
class World:
    """`settings` are those of a stack that runs; `folder` is for the cases' projects. `says` gets a line of progress.

    The stack's own project is `settings.project`, for faults of the broker itself, where `ours` says that it may be
    broken.
    """

    settings: Settings
    folder: Path
    ours: bool = False
    says: Callable[[str], None] = print

    @contextmanager
    def case(self, rng: random.Random, records: int, *, keyed: bool = True, poison: float = 0.01, repeat: float = 0.0,
             large: float = 0.0, fed: bool = True, kafka: Mapping[str, Any] | None = None) -> Iterator[Case]:
        """A case with an input of so many records, all of it in the source where `fed`; over with the block."""
        name = f"f{uuid.uuid4().hex[:10]}"
        case = Case(self, name, Input.draw(rng, records, poison=poison, repeat=repeat, large=large), keyed,
                    dict(kafka or {}))
        try:
            if fed:
                case.feed()
            yield case
        finally:
            case.close()


@contextmanager
def own_stack(home: Path) -> Iterator[World]:
    """A stack of the suite's own, in a folder, gone with the block."""
    with leash(home):
        found = up(home, ports=ANY_PORTS)
        yield World(Settings(home, found["bootstrap"], found["registry"]), home / "cases", ours=True)


@dataclass(slots=True)
class Case:
    """One flow under a fault. Its topics begin with its name."""

    world: World
    name: str
    given: Input
    keyed: bool = True
    kafka: dict[str, Any] = field(default_factory=dict)
    """Further properties of the workers' clients, e.g. another way to the broker."""
    workers: list[Worker] = field(default_factory=list)
    faults: list[float] = field(default_factory=list)
    """When each was: seconds since 1970."""
    fed: int = 0
    secret: str = field(default_factory=lambda: uuid.uuid4().hex)
    """The canary: in the settings of both clients, and nowhere else."""
    ids: Ids = field(init=False)
    reader: Reader = field(init=False)
    found: Found | None = None
    """What the reader beside the faults saw, once it is over."""

    def __post_init__(self) -> None:
        project = self.project
        load.write_flow(project, self.name, keyed=self.keyed)
        settings = self.world.settings
        kafka = {"sasl.password": self.secret, **settings.kafka, **self.kafka}
        registry = {"basic.auth.user.info": f"canary:{self.secret}", **settings.registry}
        kafka.setdefault("bootstrap.servers", settings.bootstrap)
        registry.setdefault("url", settings.registry_url)
        (project / "headrace.toml").write_text("\n".join(
            line for room, table in (("kafka", kafka), ("registry", registry))
            for line in (f"[{room}]", *(f'"{key}" = {json.dumps(value)}' for key, value in table.items()))))
        kept = {"retention.ms": "-1"}
        ensure(settings, [TopicPlan(topic, 1 if topic.endswith(".alerts") else PARTITIONS, kept | (
            {"max.message.bytes": str(load.TAKEN_BYTES_MAX)} if topic in (self.name, self.topics[1]) else {}))
            for topic in (self.name, *self.topics)])
        self.ids = Ids.register(load.bare(str(settings.registry_url)), self.name)
        self.reader = self._reader()

    @property
    def project(self) -> Path:
        return self.world.folder / self.name

    @property
    def topics(self) -> list[str]:
        """Main, quarantine, alerts, and what came again: the order the checker knows them by."""
        last = ["again"] if self.keyed else []
        return [f"{self.name}.{end}" for end in ("checked", "quarantine", "alerts", *last)]

    def _reader(self) -> Reader:
        return Reader(self.world.settings.client(), load.bare(str(self.world.settings.registry_url)), self.topics,
                      f"{self.name}.alerts", self.secret.encode())

    @property
    def seen(self) -> int:
        """Records, alerts left out, that the reader beside the fault has seen."""
        return self.reader.seen

    def feed(self, end: int | None = None, *, evolved: bool = False) -> None:
        """The input up to a position, or all of it, into the source."""
        upto = len(self.given) if end is None else end
        load.feed(self.world.settings.client(), self.name, self.given, self.fed, upto, self.ids, evolved=evolved)
        self.fed = upto

    def start(self, *more: str, batch: int = BATCH, fault: dict[str, Any] | None = None, instance: str | None = None,
              env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> Worker:
        """A worker; the same `instance` as one before takes over what that one had."""
        given = ("--instance", instance) if instance else ()
        worker = Worker(self.project, self.name, "--batch", str(batch), *given, *more, fault=fault, prefix=prefix,
                        log=self.project / f"worker-{len(self.workers)}.log",
                        env={"HEADRACE_BOOTSTRAP": "", "HEADRACE_REGISTRY": "", **(env or {})})
        self.workers.append(worker)
        return worker

    def struck(self) -> None:
        """A fault is done, now."""
        self.faults.append(time.time())

    def drain(self, within_s: float = 240.0, **options: Any) -> None:
        """A worker that goes on to the end."""
        worker = self.start("--drain", **options)
        assert worker.await_end(within_s) == 0, worker.tail()

    def await_seen(self, count: int, within_s: float = PATIENCE_S) -> float:
        """Until the reader has so many; how long it took."""
        def there() -> bool:
            for worker in self.workers[-1:]:
                assert worker.process.poll() in (None, 0), worker.tail()
            return self.seen >= count

        return until(there, f"{count:,} committed records; there are {self.seen:,}", within_s)

    def finish(self) -> Outcome:
        """All invariants. Whoever still works is ended first."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
        client = self.world.settings.client()
        every = [topic for topic in existing(self.world.settings) if self.name in topic]
        open_ = hanging(client, every)
        if open_:  # then no reader comes to an end
            return Outcome(runs=len(self.faults), records=len(self.given), breaches=[f"hanging transactions: {open_}"])
        fresh = self._reader()
        try:
            live, late = self.reader.end(), fresh.end()
        finally:
            fresh.close()
        out = judge(self.name, self.given, live, late)
        self.found = live
        out.runs = len(self.faults)
        out.recoveries_s = recoveries(live, self.faults)
        logs = [place for place in leaked(self.project, self.secret.encode()) if not place.endswith("headrace.toml")]
        out.hold(not logs, f"the planted secret stands in {logs}")
        return out

    def close(self) -> None:
        self.reader.close()
        for worker in self.workers:
            worker.kill()
