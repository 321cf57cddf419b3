"""Workers as they are (worker, checkpoint, connectors.kafka, state) over the model of a broker, driven call by call.

Each process is a thread of which one runs at a time, and each call to a client is where the schedule may leave it,
kill it or break the call. What is committed is compared with a fold over the input whenever a transaction ends.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import headrace.checkpoint
import headrace.connectors.kafka
import headrace.peek
import headrace.worker
from headrace import plan as plans
from headrace.batch import Frames, Outgoing
from headrace.errors import BrokerError, Fenced, Retriable
from headrace.observe import Observer
from headrace.pipeline import Outputs
from headrace.settings import Settings
from headrace.state import read_metadata
from headrace.state.bottom import Memory
from headrace.worker import Worker
from tests.unit.fakeclients import FakeAdmin, FakeConsumer, FakeProducer, Fault, Killed
from tests.unit.kafkamodel import Broker, Clock, Entry, Refused, Txn

PARTITIONS = 2
KEYS = 2
BATCH_MAX = 16
ENOUGH = 10**9
FLOW = """\
flow: fold
owner: tests
source:
  kafka: {topic: in, schema: number}
sinks:
  out: {from: source, kafka: {}}
drop: [source.reject]
"""


class Kept(Memory):
    """A copy of a partition's state that outlives its process."""


class Fold:
    """In the pipeline's place: each record becomes one that has all the state it was made with."""

    stateful, ticking, at = True, (), "fold"

    def __init__(self, world: World, plan: Any, *, state: Any, store: Any, **rest: Any) -> None:
        self.world, self._state, self._store = world, state, store
        self._away: int | None = None
        """The partition whose schemas cannot be had."""

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def settled(self) -> None:
        pass

    def bury(self, *given: Any) -> None:
        raise AssertionError("no record here is poison")

    def revoked(self, partitions: Any) -> None:
        pass

    def unreadable(self, messages: Sequence[Any]) -> dict[tuple[str, int], int]:
        offsets = [message.offset() for message in messages if message.partition() == self._away]
        return {("in", self._away): offsets[0]} if self._away is not None and offsets else {}

    def run(self, messages: Sequence[Any]) -> Outputs:
        process = self.world.running
        assert process is not None
        if (fault := process.gate("pipeline")) is not None:
            self._away = 0 if fault.applied else None
            raise Retriable("the registry is away", retry_after_s=1.0)
        frames = Frames(messages, "in")
        out = Outputs(len(messages), frames.spans(), frames=[frames])
        made: dict[int, list[bytes]] = {}
        for partition, value in zip(frames.partitions.tolist(), frames.values, strict=True):
            assert value is not None
            at = ("in", partition)
            small, store = self._state("fold", at), self._store("fold", at)
            [before] = store.get([key_of(value)])
            count = int(before or b"0") + 1
            store.put([key_of(value)], [b"%d" % count])
            small["n"], small["h"] = small.get("n", 0) + 1, zlib.crc32(value, small.get("h", 0))
            made.setdefault(partition, []).append(b"%s|%d|%d|%d" % (value, small["n"], small["h"], count))
        for partition, values in made.items():
            n = len(values)
            out.sinks[f"out/{partition}"] = Outgoing("out", values, [None] * n, [1] * n, [[]] * n, partition)
        return out


def key_of(value: bytes) -> bytes:
    return b"k%d" % (zlib.crc32(value) % KEYS)


class Folded:
    """What a partition's input comes to: the outputs, the small state and the keyed one, after each record."""

    def __init__(self, values: Sequence[bytes]) -> None:
        self.outputs: list[bytes] = []
        self.small: dict[str, int] = {}
        self.keyed: dict[bytes, int] = {}
        h = 0
        for n, value in enumerate(values, 1):
            h = zlib.crc32(value, h)
            count = self.keyed[key_of(value)] = self.keyed.get(key_of(value), 0) + 1
            self.small = {"n": n, "h": h}
            self.outputs.append(b"%s|%d|%d|%d" % (value, n, h, count))


class Inline:
    """In the place of `Calls`: what would not return is a fault of the schedule's."""

    def __init__(self, producer: FakeProducer) -> None:
        pass

    def __call__(self, call: Callable[[], Any], within_s: float) -> None:
        call()

    def close(self) -> None:
        pass


class Deferred:
    """A future whose work is done when it is asked for, or, if the process is prompt, at once."""

    def __init__(self, work: Callable[[], bool], prompt: bool) -> None:
        self._work, self._result, self._error = work, False, None
        self._over = False
        if prompt:
            self.done()

    def done(self) -> bool:
        if not self._over:
            self._over = True
            try:
                self._result = self._work()
            except BaseException as error:
                self._error = error
        return True

    def result(self) -> bool:
        if self._error is not None:
            raise self._error
        return self._result


class Worked:
    """A worker's process. It runs until `go` says; at each call it may be stopped, for good or for a while."""

    def __init__(self, world: World, slot: int) -> None:
        self.world, self.broker, self.late, self.slot = world, world.broker, world.late, slot
        self.worker = Worker(world.plan, world.settings, instance=f"slot{slot}", batch_max=BATCH_MAX,
                             observer=world.observer)
        self.deaf = self.eager = self.prompt = False
        self.early = 0
        self.ended = False
        self.error: BaseException | None = None
        self.batch_in_hand = False
        self._killed = False
        self._left = 0
        self._until: str | None = None
        self._faults: dict[str, tuple[Fault, int]] = {}
        self._stop = threading.Event()
        self._wake, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=f"slot{slot}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._wake.acquire()
        try:
            if not self._killed:
                self.worker.run(self._stop)
        except BaseException as error:
            self.error = error
        self.ended = True
        self._back.release()

    def go(self, calls: int, until: str | None = None) -> bool:
        """Run for so many calls, or until one called so is about to be made; whether it was. Raises what no
        worker may end with."""
        if self.ended:
            return False
        self._left, self._until = calls, until
        self.world.running = self
        self._wake.release()
        self._back.acquire()
        self.world.running = None
        if self.ended:
            self._thread.join()
            self._judge()
        return not self.ended and self._until is None and until is not None

    def _judge(self) -> None:
        error = self.error
        if isinstance(error, Fenced):
            assert self.slot in self.world.shared, f"{error}, though nobody else was started under its name"
        elif error is not None and not isinstance(error, (Killed, BrokerError)):
            raise error

    def gate(self, call: str) -> Fault | None:
        if self._killed:
            raise Killed
        while self._left <= 0 or call == self._until:
            if call == self._until:
                self._until = None
            self._back.release()
            self._wake.acquire()
            if self._killed:
                raise Killed
        self._left -= 1
        fault, times = self._faults.get(call, (None, 0))
        if fault is not None:
            self._faults.pop(call)
            if times > 1:
                self._faults[call] = fault, times - 1
        return fault

    def breaks(self, call: str, fault: Fault) -> None:
        """The next calls of this name go so."""
        self._faults[call] = fault, fault.times

    def die(self) -> None:
        self._killed = True
        raise Killed

    def heal(self) -> None:
        self._faults.clear()
        self.deaf = self.eager = self.prompt = False
        self.early = 0

    def kill(self) -> None:
        self._killed = True
        if not self.ended:
            self.go(ENOUGH)

    def stop(self) -> None:
        self._stop.set()


class World:
    """The broker, the processes of each slot, and what must hold of both."""

    current: World

    def __init__(self, plan: plans.Plan, settings: Settings, observer: Observer) -> None:
        World.current = self
        self.plan, self.settings, self.observer = plan, settings, observer
        self.clock = Clock()
        self.broker = Broker(self.clock, {"in": PARTITIONS, "out": PARTITIONS, "headrace.fold.state": PARTITIONS})
        self.broker.ended = self._ended
        self.late: list[Callable[[], None]] = []
        self.copies: dict[Path, tuple[Kept, Worked]] = {}
        self.running: Worked | None = None
        self.slots: dict[int, Worked] = {}
        self.zombies: list[Worked] = []
        self.shared: set[int] = set()
        """Slots of which two processes were alive at once."""
        self.breach: AssertionError | None = None
        self._made = 0

    def produce(self, partition: int, n: int, outcome: bool | None) -> None:
        """Records of no transaction, or of one that was committed or aborted: it leaves a marker."""
        log = self.broker.logs["in", partition]
        txn = None if outcome is None else Txn("upstream", 0.0, outcome)
        for _ in range(n):
            self._made += 1
            log.append(Entry(b"k", b"%d:%d" % (partition, self._made), 1, txn))
        if txn is not None:
            log.append(Entry(txn=txn, marker=True))

    def start(self, slot: int) -> Worked:
        """A process; one that is there goes on, if anybody lets it, as a zombie."""
        before = self.slots.get(slot)
        if before is not None and not before.ended:
            self.zombies.append(before)
            self.shared.add(slot)
        self.slots[slot] = Worked(self, slot)
        return self.slots[slot]

    def processes(self) -> list[Worked]:
        return [*self.slots.values(), *self.zombies]

    def late_comes(self) -> None:
        """A request of long ago reaches the broker; nobody waits for what it says."""
        with suppress(Refused):
            self.late.pop()()

    def copy(self, folder: Path) -> Kept:
        """The copy in this folder; a new one where another process, still there, has that open."""
        assert self.running is not None
        kept, owner = self.copies.get(folder, (Kept(), self.running))
        if owner is not self.running and not owner.ended:
            kept = Kept()
        self.copies[folder] = kept, self.running
        return kept

    def close(self) -> None:
        for process in self.processes():
            process.kill()

    # ── what must hold ───────────────────────────────────────────────────────────────────────────────────────────

    def _ended(self, txn: Txn) -> None:
        """A breach is told by the schedule: whoever ends a transaction might take it for an error of its own."""
        if txn.outcome and self.breach is None:
            try:
                self.check()
            except AssertionError as error:
                self.breach = error

    def check(self) -> None:
        """What is committed, each output once and in order, is what the committed offsets imply; so is the state."""
        for p in range(PARTITIONS):
            offset, metadata = self.broker.group.offsets.get(("in", p), (0, None))
            log = self.broker.logs["in", p]
            assert offset <= len(log), f"in/{p}: committed up to {offset}, and it has {len(log)}"
            wanted = Folded([entry.value or b"" for entry in log[:offset] if entry.counts])
            got = [entry.value for entry in self.broker.logs["out", p] if entry.counts]
            assert got == wanted.outputs, f"in/{p} up to {offset}: {got}\nwanted {wanted.outputs}"
            small = read_metadata(metadata)[1].get("fold", {})
            assert small == wanted.small, f"in/{p} up to {offset}: small state {small}, wanted {wanted.small}"
            kept = _keyed({e.key: e.value for e in self.broker.logs["headrace.fold.state", p] if e.counts})
            assert kept == wanted.keyed, f"in/{p} up to {offset}: keyed state {kept}, wanted {wanted.keyed}"

    def settle(self) -> None:
        """Everything is well again: late requests arrive, zombies go on until they end, and what is left is done."""
        while self.late:
            self.late_comes()
        for process in self.processes():
            process.heal()
        for zombie in self.zombies:
            zombie.go(60)
            zombie.kill()
        self.broker.group.members = {
            id: m for id, m in self.broker.group.members.items() if m.instance in self._instances()}
        self.broker.group.rebalance()
        for _ in range(80):
            for slot in range(len(self.slots)):
                if self.slots[slot].ended:
                    self.start(slot)
                self.slots[slot].go(12)
                self.clock.sleep(0.1)
            if self._done():
                break
        assert self._done(), f"no progress: {self.broker.group.offsets}, {[p.error for p in self.processes()]}"
        self._check_end()

    def _instances(self) -> set[str]:
        return {process.worker.id for process in self.slots.values()}

    def _done(self) -> bool:
        return all(self.broker.group.offsets.get(("in", p), (0, None))[0] == len(self.broker.logs["in", p])
                   for p in range(PARTITIONS))

    def _check_end(self) -> None:
        for slot in self.slots.values():
            slot.go(12)
        if self.breach is not None:
            raise self.breach
        self.check()
        hanging = [place for place, log in self.broker.logs.items() if log.end() != len(log)]
        assert self.shared or not hanging, f"transactions that nobody ends: {hanging}"  # shared: its time-out ends it
        for slot in self.slots.values():
            for number in slot.worker.state.keyed.partitions():
                copy = slot.worker.state.keyed._held[number].bottom
                assert isinstance(copy, Kept)
                wanted = Folded([e.value or b"" for e in self.broker.logs["in", number] if e.counts])
                assert _keyed(dict(copy.scan(b"", None))) == wanted.keyed, f"the copy of {number}"


def _keyed(entries: Mapping[Any, Any]) -> dict[bytes, int]:
    """Entries of the changelog, or of a copy of it, as the fold has them."""
    return {key.partition(b"\0v")[2]: int(value[8:]) for key, value in entries.items() if value is not None}


def project(folder: Path) -> tuple[plans.Plan, Settings, Observer]:
    """A flow to run: of its parts only the topics' names matter."""
    for kind in ("flows", "schemas"):
        (folder / kind).mkdir()
    (folder / "schemas" / "number.avsc").write_text(
        '{"type": "record", "name": "number", "fields": [{"name": "n", "type": "int"}]}')
    (folder / "flows" / "fold.yaml").write_text(FLOW)
    return plans.load(folder / "flows" / "fold.yaml", folder), Settings(folder, "model", None), Observer("fold")


@contextmanager
def modelled() -> Iterator[pytest.MonkeyPatch]:
    """Clients, clock and surroundings of the worker's modules are those of `World.current`."""

    def world() -> World:
        return World.current

    def running() -> Worked:
        process = World.current.running
        assert process is not None
        return process

    clock: Any = SimpleNamespace(CLOCK_MONOTONIC=1, **{
        name: lambda *given, name=name: getattr(world().clock, name)(*given)
        for name in ("monotonic", "time", "perf_counter", "clock_gettime", "sleep")})
    executor = SimpleNamespace(submit=lambda work: Deferred(work, running().prompt))
    worker: dict[str, Any] = {
        "Registry": lambda client: SimpleNamespace(register=lambda *given: 1, schema=None),
        "ensure": lambda *given: [], "existing": lambda *given: {"in": PARTITIONS},
        "topic_ids": lambda settings, topics: dict.fromkeys(topics, "id"),
        "message_bytes_max": lambda settings, topics: {t: 1 << (20 if t == "in" else 23) for t in topics},
        "Pipeline": lambda plan, **given: Fold(world(), plan, **given), "Rocks": lambda folder: world().copy(folder),
        "steady": nullcontext, "ThreadPoolExecutor": lambda *given, **named: nullcontext(executor),
        "gc": SimpleNamespace(collect=lambda: 0)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Settings, "registry_client", lambda self: {})
        for name, value in worker.items():
            patch.setattr(headrace.worker, name, value)
        patch.setattr(headrace.checkpoint, "Calls", Inline)
        for module in (headrace.worker, headrace.checkpoint, headrace.peek, headrace.connectors.kafka):
            patch.setattr(module, "time", clock)
        patch.setattr(headrace.checkpoint, "Producer", lambda conf, logger=None: FakeProducer(running(), conf))
        patch.setattr(headrace.connectors.kafka, "admin", lambda settings: FakeAdmin(running()))
        for reads in (headrace.peek, headrace.connectors.kafka):
            patch.setattr(reads, "Consumer", lambda conf, logger=None: FakeConsumer(running(), conf))
        yield patch
