"""The commit as a state machine: thousands of schedules of errors, rebalances, kills and zombies over a model of Kafka.

The worker's own cycle, transactions, source and state run; the clients are fakes (commitworld.py). After each step, and
once all is well again: each input once, in order, no offset ahead of its outputs, and state that is a fold of the
input. A schedule that fails is printed as the steps that make it, the fewest that do. `--hypothesis-seed=N` with
`--faults full` tries others. That the machine would notice is shown by what it says of broken code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import KafkaError
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from headrace import checkpoint
from headrace.checkpoint import ABORT, Transactions
from headrace.state import State
from headrace.worker import Worker
from tests.unit.commitworld import PARTITIONS, Worked, World, modelled, project
from tests.unit.fakeclients import Fault

pytestmark = pytest.mark.unit

SLOTS = 2
SCHEDULES = 1_000
"""Of the same choice each time, on whole code and on broken code: what is red there is green here."""
TIMED_OUT = Fault(KafkaError._TIMED_OUT, "retry")
LOST = [TIMED_OUT, replace(TIMED_OUT, applied=True), replace(TIMED_OUT, times=3), replace(TIMED_OUT, times=20),
        replace(TIMED_OUT, applied=True, times=20)]
LATE = [replace(TIMED_OUT, late=True), replace(TIMED_OUT, late=True, times=20), Fault(KafkaError.NO_ERROR, late=True)]
GIVEN_UP = [Fault(KafkaError._TIMED_OUT, "abort"), Fault(KafkaError._TIMED_OUT, "abort", applied=True),
            Fault(KafkaError._TIMED_OUT, "abort", late=True)]
ABORTS = [Fault(code, "abort") for code in sorted(ABORT)]
FATAL = [Fault(code, applied=applied) for applied in (False, True) for code in (
    KafkaError.INVALID_TXN_STATE, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, KafkaError._FATAL)]
HUNG = [Fault(KafkaError._TIMED_OUT), Fault(KafkaError._TIMED_OUT, late=True)]
"""A call that does not return is given up; what it asked for may be done when nobody waits for it any more."""
AWAY = Fault(KafkaError._TRANSPORT, "retry")
"""The registry does; `applied`: only the schemas of partition 0 are not known yet."""
FAULTS: dict[str, list[Fault]] = {
    "init": [*LOST[:3], FATAL[1]],
    "begin": [FATAL[3]],
    "produce": FATAL[:4],
    "send_offsets": [*LOST, *ABORTS, *FATAL, *HUNG],
    "commit": [*LOST, *LATE, *GIVEN_UP, *ABORTS, *FATAL],
    "abort": [*LOST, *LATE, *FATAL],
    "committed": [TIMED_OUT, Fault(KafkaError.COORDINATOR_NOT_AVAILABLE, "retry")],
    "commit_start": [TIMED_OUT, replace(TIMED_OUT, applied=True), *(
        Fault(code, "plain") for code in (KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION))],
    "watermarks": [TIMED_OUT],
    "consume": [Fault(code, "message") for code in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN,
                                                    KafkaError._MAX_POLL_EXCEEDED)],
    "pipeline": [AWAY, replace(AWAY, applied=True), replace(AWAY, applied=True, times=2)],
}
KILLS = ["init", "begin", "produce", "send_offsets", "commit", "abort", "committed", "consume", "read", "pipeline"]
slots = st.integers(0, SLOTS - 1)
calls = st.integers(1, 40)


class CommitMachine(RuleBasedStateMachine):
    """Two slots, started; what happens to them is drawn."""

    given: tuple[Any, ...]

    def __init__(self) -> None:
        super().__init__()
        self.world = World(*self.given)
        for slot in range(SLOTS):
            self.world.start(slot)

    def _process(self, slot: int) -> Worked:
        """As a supervisor has it: what ended is started again."""
        process = self.world.slots[slot]
        return self.world.start(slot) if process.ended else process

    @rule(partition=st.integers(0, 1), n=st.integers(1, 6), outcome=st.sampled_from([None, None, True, False]))
    def produce(self, partition: int, n: int, outcome: bool | None) -> None:
        self.world.produce(partition, n, outcome)

    @rule(slot=slots, calls=calls, deaf=st.booleans(), early=st.integers(0, 2), eager=st.booleans(),
          prompt=st.booleans())
    def run(self, slot: int, calls: int, deaf: bool, early: int, eager: bool, prompt: bool) -> None:
        """`deaf`: it does not learn of rebalances meanwhile. `early`: records that come before one. `eager`: what is
        produced is sent at once. `prompt`: the commit is over before the next batch is processed."""
        process = self._process(slot)
        process.deaf, process.early, process.eager, process.prompt = deaf, early, eager, prompt
        process.go(calls)

    @rule(slot=slots, fault=st.sampled_from(sorted(FAULTS)).flatmap(
        lambda call: st.sampled_from(FAULTS[call]).map(lambda fault: (call, fault))), calls=calls)
    def break_call(self, slot: int, fault: tuple[str, Fault], calls: int) -> None:
        process = self._process(slot)
        process.breaks(*fault)
        process.go(calls)

    @rule(slot=slots, call=st.sampled_from(KILLS), applied=st.booleans())
    def kill(self, slot: int, call: str, applied: bool) -> None:
        """At its next such call: before it, or after its request went out."""
        process = self._process(slot)
        process.breaks(call, Fault(KafkaError.NO_ERROR, "kill", applied))
        process.go(40)
        process.kill()

    @rule(slot=slots, call=st.sampled_from(KILLS))
    def stop_at(self, slot: int, call: str) -> None:
        """It stands there until it goes on."""
        self._process(slot).go(40, until=call)

    @rule(slot=slots)
    def start_another(self, slot: int) -> None:
        self.world.start(slot)

    @rule(at=st.integers(0, 3), calls=calls, deaf=st.booleans())
    def zombie_goes_on(self, at: int, calls: int, deaf: bool) -> None:
        if self.world.zombies:
            zombie = self.world.zombies[at % len(self.world.zombies)]
            zombie.deaf = deaf
            zombie.go(calls)

    @rule(at=st.integers(0, 3))
    def session_ends(self, at: int) -> None:
        members = sorted(self.world.broker.group.members)
        if members:
            self.world.broker.group.kick(members[at % len(members)])

    @rule()
    def rebalance(self) -> None:
        self.world.broker.group.rebalance()

    @rule(slot=slots, fault=st.sampled_from([*LOST, *LATE]), calls=calls)
    def lose_the_answer(self, slot: int, fault: Fault, calls: int) -> None:
        """Of the next commit; there is something to be committed."""
        self.world.produce(slot, 2, None)
        self.break_call(slot, ("commit", fault), calls)

    @rule(slot=slots, call=st.sampled_from(["send_offsets", "commit"]), fault=st.sampled_from(LATE))
    def late_request_comes(self, slot: int, call: str, fault: Fault) -> None:
        """To a broker at which this process has its next transaction open."""
        process = self._process(slot)
        process.eager = True
        process.breaks("commit", fault)
        for until in ("commit", "begin", call):
            for partition in range(PARTITIONS):
                self.world.produce(partition, 1, None)
            process.go(60, until=until)
        if self.world.late:
            self.world.late_comes()

    @rule(seconds=st.sampled_from([0.3, 5.0, 16.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.sleep(seconds)

    @invariant()
    def holds(self) -> None:
        if self.world.breach is not None:
            raise self.world.breach

    def teardown(self) -> None:
        try:
            if self.world.breach is None:
                self.world.settle()
        finally:
            self.world.close()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[CommitMachine]]:
    logging.disable(logging.CRITICAL)
    CommitMachine.given = project(tmp_path_factory.mktemp("fold"))
    yield CommitMachine
    logging.disable(logging.NOTSET)


def explored(examples: int, *, derandomize: bool = True,
             phases: tuple[Phase, ...] = (Phase.generate, Phase.shrink)) -> settings:
    return settings(max_examples=examples, stateful_step_count=20, derandomize=derandomize, phases=phases,
                    deadline=None, database=None, report_multiple_bugs=False, suppress_health_check=list(HealthCheck))


def test_no_schedule_loses_doubles_or_disorders(machine: type[CommitMachine]) -> None:
    with modelled():
        run_state_machine_as_test(machine, settings=explored(SCHEDULES))


@pytest.mark.full
def test_nor_do_others(machine: type[CommitMachine]) -> None:
    with modelled():
        run_state_machine_as_test(machine, settings=explored(10_000, derandomize=False))


# ── what the machine says of broken code ─────────────────────────────────────────────────────────────────────────────


def _wrapped(patch: pytest.MonkeyPatch, owner: Any, name: str, broken: Callable[..., Any]) -> None:
    """`broken` gets what it stands for, then its arguments."""
    whole = getattr(owner, name)
    patch.setattr(owner, name, lambda *given, **named: broken(whole, *given, **named))


def _stale(self: Transactions) -> frozenset[tuple[str, str, str]]:
    self.producer.poll(0)
    return checkpoint.troubles(self._statistics)


def _applied_early(whole: Any, self: State) -> None:
    whole(self)
    self.commit({})


def _rebalance_overlooked(patch: pytest.MonkeyPatch) -> None:
    """Either alone is made good by the other: the batch in hand is dropped, or the broker refuses its offsets."""
    patch.setattr(Worker, "_poll", lambda self: self.source.poll())
    _wrapped(patch, Worker, "_submit", lambda whole, self, committer, outputs, ends, group, nonce: whole(
        self, committer, outputs, ends, self.source.consumer.consumer_group_metadata(), nonce))


BROKEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no fence": lambda p: p.setattr(Transactions, "_fence", lambda self: None),
    "a fence that trusts old statistics": lambda p: p.setattr(Transactions, "_emission", _stale),
    "no offsets": lambda p: _wrapped(p, Transactions, "commit", lambda whole, self, fault, offsets, *rest: whole(
        self, fault, [], *rest)),
    "no rewind": lambda p: p.setattr(Worker, "_rewind", lambda self, spans: None),
    "unknown counts as committed": lambda p: _wrapped(p, Transactions, "commit", lambda whole, *given: whole(
        *given[:-1], lambda: True)),
    "unknown counts as aborted": lambda p: _wrapped(p, Transactions, "commit", lambda whole, *given: whole(
        *given[:-1], lambda: False)),
    "state before the commit": lambda p: _wrapped(p, State, "seal", _applied_early),
    "state that outlives an abort": lambda p: p.setattr(State, "drop", lambda self: self.commit({})),
    "a rebalance overlooked, and the group asked at the commit": _rebalance_overlooked,
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_code_is_noticed(machine: type[CommitMachine], name: str) -> None:
    with modelled() as patch:
        BROKEN[name](patch)
        with pytest.raises((AssertionError, KeyError)):
            run_state_machine_as_test(machine, settings=explored(SCHEDULES, phases=(Phase.generate,)))
