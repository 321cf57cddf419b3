"""Row 13, and the last two stages of row 2: triggers on their way to whoever acts on them."""

from __future__ import annotations

import io
import json
import random
import signal
import struct
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fastavro
from confluent_kafka import Producer

from headrace.topics import TopicPlan, ensure
from tests.faults.checker import Outcome, hanging
from tests.faults.downstream import Downstream, downstream
from tests.faults.load import bare, register
from tests.faults.reader import Reader
from tests.faults.row import Size
from tests.faults.staged import EVENT_STAGES
from tests.faults.workers import ROOT, Worker, until
from tests.faults.world import World

FLOW = """
flow: {name}
description: Triggers, handed over.
owner: tests
source:
  kafka: {{topic: {name}, schema: control/retrain, partitions: 1}}
steps:
  send:
    dispatch:
      to: webhook
      with: {{url: "{url}", timeout_s: 2}}
      queue: {{waiting_max: 10000, running_max: {at_a_time}, attempts_max: 1000, backoff_s: 0.1, backoff_s_max: 1,
              done_max: 100000}}
      breaker: {{failures_max: 5, open_s: 1, open_s_max: 2}}
sinks:
  {name}.results: {{from: send, kafka: {{schema: control/results, partitions: 1, retention_ms: -1}}}}
  {name}.quarantine: {{quarantine: {{}}}}
"""
DOWN_S = 6.0
ASKED_WHILE_DOWN_MAX = 12
"""Five to open the breaker, then one a probe, of which there are few in so many seconds; a worker may start twice."""


class Dispatching:
    """A flow that dispatches, its requests, and what it says became of them."""

    def __init__(self, world: World, there: Downstream, count: int, at_a_time: int) -> None:
        self.world, self.there, self.count = world, there, count
        self.name = f"d{uuid.uuid4().hex[:10]}"
        self.project = world.folder / self.name
        (self.project / "flows").mkdir(parents=True)
        (self.project / f"flows/{self.name}.yaml").write_text(FLOW.format(
            name=self.name, url=there.url, at_a_time=at_a_time))
        settings = world.settings
        ensure(settings, [TopicPlan(topic, 1, {"retention.ms": "-1"}) for topic in (self.name, f"{self.name}.results")])
        self.ids = [f"{at:064x}" for at in range(count)]
        schema = json.loads((ROOT / "schemas/control/retrain.avsc").read_text())
        number = register(bare(str(settings.registry_url)), f"{self.name}-value", schema)
        producer = Producer(settings.client(enable_idempotence=True))
        for at, value in enumerate(requests(self.ids, schema, number)):
            producer.produce(self.name, value, f"m{at}")
        assert producer.flush(60) == 0
        self.reader = Reader(settings.client(), bare(str(settings.registry_url)), [f"{self.name}.results"],
                             f"{self.name}.results", b"\0no secret")
        self.workers: list[Worker] = []

    def start(self, fault: dict[str, Any] | None = None) -> Worker:
        worker = Worker(self.project, self.name, "--instance", "one", fault=fault,
                        log=self.project / f"worker-{len(self.workers)}.log",
                        env={"HEADRACE_BOOTSTRAP": str(self.world.settings.bootstrap),
                             "HEADRACE_REGISTRY": str(self.world.settings.registry_url)})
        self.workers.append(worker)
        return worker

    def finish(self) -> Outcome:
        """I3, I5: each trigger was taken, and its start and its end were said, once."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.finish()
        out = Outcome(records=self.count)
        open_ = hanging(self.world.settings.client(), [self.name, f"{self.name}.results"])
        out.hold(not open_, f"hanging transactions: {open_}")
        told = Counter((each["trigger"], each["status"]) for each in self.reader.end().alerts)
        wanted = {(id, status) for id in self.ids for status in ("started", "succeeded")}
        out.triggers_doubled = sum(n - 1 for n in told.values())
        out.lost = len(set(self.ids) - set(self.there.taken))
        out.hold(not out.triggers_doubled, f"{out.triggers_doubled} results doubled")
        out.hold(not out.lost, f"{out.lost} triggers never reached who was to take them")
        out.hold(set(told) == wanted, f"results: {len(wanted - set(told))} absent, {len(set(told) - wanted)} others, "
                 f"e.g. {sorted(wanted - set(told))[:2]}, {sorted(set(told) - wanted)[:2]}")
        out.hold(set(self.there.taken) <= set(self.ids), "triggers were taken that nobody caused")
        out.notes |= {"answers": dict(self.there.did), "delivered again, by the same id":
                      sum(n - 1 for n in self.there.taken.values())}
        return out


def requests(ids: list[str], schema: dict[str, Any], number: int) -> Iterator[bytes]:
    """Requests to train, each for a model of its own: of one there is one run at a time."""
    parsed = fastavro.parse_schema(schema)
    for at, id in enumerate(ids):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, {
            "id": id, "flow": "f", "step": "s", "topic": "t", "partition": 0, "window": at, "offset_first": at,
            "offset_last": at, "measure": "count", "rows": 1, "matched": 1, "observed": 1.0, "threshold": 1.0,
            "at": 1_700_000_000_000 + at, "model": f"m{at}", "spec": "{}"})
        yield struct.pack(">bI", 0, number) + out.getvalue()


@contextmanager
def dispatching(world: World, rng: random.Random, count: int, share: float, at_a_time: int) -> Iterator[Dispatching]:
    with downstream(random.Random(rng.randrange(1 << 30)), share) as there:
        case = Dispatching(world, there, count, at_a_time)
        try:
            yield case
        finally:
            case.reader.close()
            for worker in case.workers:
                worker.kill()


def all_said(case: Dispatching, within_s: float) -> None:
    """Until every trigger's end is said."""
    def there() -> bool:
        assert case.workers[-1].process.poll() is None, case.workers[-1].tail()
        return len(case.there.taken) >= case.count and ended(case) >= case.count

    until(there, f"{case.count} triggers; {len(case.there.taken)} were taken", within_s, every_s=0.5)


def ended(case: Dispatching) -> int:
    """How many results there are, of two for each trigger."""
    return case.reader.alerts // 2


def failing(world: World, rng: random.Random, size: Size) -> Outcome:
    """A third of the requests goes wrong; for a while all of them do, and the circuit breaker leaves it alone."""
    with dispatching(world, rng, size.records, 0.33, 200) as case:
        worker = case.start()
        until(lambda: len(case.there.taken) > size.records // 10, "the first triggers to be taken")
        case.there.down = True
        time.sleep(DOWN_S)
        asked = case.there.did["down"]
        case.there.down = False
        all_said(case, 600)
        trouble = worker.told("dispatcher trouble")
        out = case.finish()
    out.runs = sum(n for kind, n in case.there.did.items() if kind != "taken")
    out.hold(asked <= ASKED_WHILE_DOWN_MAX, f"{asked} requests in {DOWN_S:.0f} s to one who answers none: the breaker "
             "does not open")
    out.hold(bool(trouble), "the log does not tell of the trouble")
    out.notes["asked while it was down"] = asked
    return out


def killed(world: World, rng: random.Random, size: Size) -> Outcome:
    """kill -9 once the webhook has answered, and once that is committed."""
    stages = [*EVENT_STAGES] * size.times
    rng.shuffle(stages)
    with dispatching(world, rng, 1_200, 0.0, 20) as case:
        for stage in stages:
            worker = case.start({"stage": stage, "at": rng.randint(1, 3), "act": "kill"})
            code = worker.await_end()
            assert code == -signal.SIGKILL, f"the stage “{stage}” was not reached: {worker.tail()}"
        case.start()
        all_said(case, 300)
        out = case.finish()
    out.runs = len(stages)
    return out


