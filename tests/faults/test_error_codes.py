"""Every error code a broker may answer, in every request of a transaction: what `headrace.checkpoint` makes of it.

librdkafka's own mock cluster answers the next request of a kind with the code; the transaction is a real one. What must
come of each stands in OUTCOMES. Whatever came, it is held against what was called: said to be committed only when the
last commit succeeded, said to be aborted only when an abort did, and decided only by a producer made anew. And who goes
on afterwards does commit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

import headrace.checkpoint
from headrace.batch import Outgoing
from headrace.checkpoint import Transactions
from headrace.errors import BrokerError, Fenced
from headrace.settings import Settings
from tests.faults.mockcluster import (
    ADD_OFFSETS,
    ADD_PARTITIONS,
    END_TXN,
    INIT_PRODUCER_ID,
    PRODUCE,
    TXN_OFFSET_COMMIT,
    MockCluster,
    mock_cluster,
)

pytestmark = [pytest.mark.full, pytest.mark.faults]

COMMITTED, ABORTED, DECIDED, FENCED, ENDED = "committed", "aborted", "decided", "fenced", "ended"
REQUESTS = {"init": INIT_PRODUCER_ID, "produce": PRODUCE, "partitions": ADD_PARTITIONS, "offsets": ADD_OFFSETS,
            "group": TXN_OFFSET_COMMIT, "commit": END_TXN, "abort": END_TXN}
"""`abort` is the request that ends a transaction whose offsets the group refused."""
RECOVERY_S = 60.0
SLOW_MS = 1_500

RETRIED = ("COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "CONCURRENT_TRANSACTIONS", "NOT_COORDINATOR",
           "_TRANSPORT")
REFUSED = ("GROUP_AUTHORIZATION_FAILED", "ILLEGAL_GENERATION", "INVALID_PRODUCER_ID_MAPPING", "MSG_SIZE_TOO_LARGE",
           "REBALANCE_IN_PROGRESS", "STALE_MEMBER_EPOCH", "TOPIC_AUTHORIZATION_FAILED", "TRANSACTION_ABORTABLE",
           "UNKNOWN_MEMBER_ID", "UNKNOWN_PRODUCER_ID", "OUT_OF_ORDER_SEQUENCE_NUMBER")
FATAL = ("CLUSTER_AUTHORIZATION_FAILED", "INVALID_TXN_STATE", "TRANSACTIONAL_ID_AUTHORIZATION_FAILED")
SHUT_OUT = ("INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED", "FENCED_INSTANCE_ID")
CODES = (*RETRIED, *REFUSED, *FATAL, *SHUT_OUT)
USUAL = {**dict.fromkeys(RETRIED, COMMITTED), **dict.fromkeys(REFUSED, ABORTED), **dict.fromkeys(FATAL, DECIDED),
         **dict.fromkeys(SHUT_OUT, FENCED)}
OUTCOMES: Mapping[str, Mapping[str, str]] = {
    "init": {**dict.fromkeys(CODES, COMMITTED), **dict.fromkeys(
        ("INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED", "CLUSTER_AUTHORIZATION_FAILED",
         "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"), ENDED)},
    "produce": {**USUAL, "CONCURRENT_TRANSACTIONS": ABORTED, "OUT_OF_ORDER_SEQUENCE_NUMBER": DECIDED,
                **dict.fromkeys(FATAL, ABORTED)},
    "partitions": dict(USUAL),
    "offsets": USUAL,
    "group": {**USUAL, "INVALID_PRODUCER_ID_MAPPING": DECIDED},
    "commit": USUAL,
    "abort": {**dict.fromkeys(RETRIED, ABORTED), **dict.fromkeys((*REFUSED, *FATAL), DECIDED),
              **dict.fromkeys(SHUT_OUT, FENCED),
              **dict.fromkeys(("INVALID_PRODUCER_ID_MAPPING", "UNKNOWN_PRODUCER_ID"), ABORTED)},
}
"""What librdkafka flags otherwise in one request than in most stands after `USUAL`."""
NEVER = {("produce", "PRODUCER_FENCED"), ("produce", "FENCED_INSTANCE_ID"), ("partitions", "FENCED_INSTANCE_ID")}
"""What no broker answers."""
CASES = [(stage, code) for stage, outcomes in OUTCOMES.items() for code in outcomes if (stage, code) not in NEVER]


@dataclass(slots=True)
class Case:
    """What came of one code: the outcome, the calls that led to it, how often the producer was made, and what came of
    the transactions after it."""

    outcome: str
    calls: list[str] = field(default_factory=list)
    reopened: int = 0
    asked: int = 0
    after: list[Any] = field(default_factory=list)


class Noted(Producer):
    """The client's producer; `calls` of its thread's case has each call and how it ended."""

    here = threading.local()

    def _noted(self, call: str, *given: Any) -> None:
        try:
            getattr(super(), f"{call}_transaction{'s' if call == 'init' else ''}")(*given)
        except KafkaException as error:
            self.here.calls.append(f"{call} {error.args[0].name()}")
            raise
        self.here.calls.append(call)

    def init_transactions(self, *given: Any) -> None:
        self._noted("init", *given)

    def commit_transaction(self, *given: Any) -> None:
        self._noted("commit", *given)

    def abort_transaction(self, *given: Any) -> None:
        self._noted("abort", *given)


class Bench:
    """A mock cluster, and one transaction on it at a time."""

    def __init__(self, cluster: MockCluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        cluster.create("in")
        cluster.create("out")
        self.settings = Settings(Path(), cluster.bootstrap, None)
        self.group = Consumer(self.settings.client(group_id="g")).consumer_group_metadata()

    def _write(self, transactions: Transactions, decide: Callable[[], bool]) -> bool:
        """The answer to a produce request is waited for, so that it is known when the offsets are sent."""
        fault = transactions.produce([Outgoing("out", [b"x"], [None], [1], [[]])])
        if fault is None:
            with suppress(KafkaException):  # a fatal one: whatever is called next has it too
                transactions.producer.flush(30.0)
        return transactions.commit(fault, [TopicPartition("in", 0, 7, metadata="m")], self.group, decide)

    def _again(self, transactions: Transactions, decide: Callable[[], bool]) -> bool | str:
        """The next transaction; one that ends the worker, as refusals in a row do, has it started again."""
        try:
            return self._write(transactions, decide)
        except BrokerError as error:
            transactions.open()
            return str(error)

    def run(self, stage: str, spoil: Callable[[int], None]) -> Case:
        """One transaction, spoilt in this request, and, unless that ends the worker, others until one is committed."""
        case = Case(ENDED)
        Noted.here.calls = case.calls
        transactions = Transactions(self.settings, f"{self.name}.{time.monotonic_ns()}", topics=["out"])

        def decide() -> bool:
            case.asked += 1
            assert case.calls[-1] == "init", "decided before an older producer was fenced"
            return True

        try:
            if stage == "init":
                spoil(REQUESTS[stage])
            transactions.open()
            if stage == "abort":
                self.cluster.push(TXN_OFFSET_COMMIT, [KafkaError.ILLEGAL_GENERATION])
            if stage != "init":
                spoil(REQUESTS[stage])
            committed = self._write(transactions, decide)
            case.outcome = DECIDED if case.asked else COMMITTED if committed else ABORTED
            case.calls = list(case.calls)
            end = time.monotonic() + RECOVERY_S
            while True not in case.after and time.monotonic() < end:
                case.after.append(self._again(transactions, decide))
        except Fenced:
            case.outcome = FENCED
        except BrokerError:
            case.outcome = ENDED
        finally:
            case.reopened = transactions.reopened
            transactions.close()
            self.cluster.clear(*REQUESTS.values())
        return case


@pytest.fixture(scope="module")
def benches() -> Iterator[Callable[..., Case]]:
    """run(stage, spoil): a cluster for each stage, so that they need not wait for each other."""
    made: dict[str, Bench] = {}
    with pytest.MonkeyPatch.context() as patch, ExitStack() as clusters:
        patch.setattr(headrace.checkpoint, "Producer", Noted)

        def run(stage: str, spoil: Callable[[Bench, int], None]) -> Case:
            if stage not in made:
                made[stage] = Bench(clusters.enter_context(mock_cluster()), stage)
            return made[stage].run(stage, lambda request: spoil(made[stage], request))

        yield run


@pytest.fixture(scope="module")
def answers(request: pytest.FixtureRequest, benches: Callable[..., Case]) -> Mapping[tuple[str, str], Case]:
    """What came of every case that was chosen, the stages side by side."""
    chosen = {item.callspec.params["case"] for item in request.session.items
              if isinstance(item, pytest.Function) and getattr(item, "originalname", "") == "test_an_error_code"}
    found: dict[tuple[str, str], Case] = {}

    def stage_of(name: str) -> None:
        for stage, code in CASES:
            if stage == name and (stage, code) in chosen:
                number = getattr(KafkaError, code)
                found[stage, code] = benches(stage, lambda bench, kind, number=number: bench.cluster.push(
                    kind, [number]))

    with ThreadPoolExecutor(len(REQUESTS)) as executor:
        done: list[Future[None]] = [executor.submit(stage_of, name) for name in REQUESTS]
    for each in done:
        each.result()
    return found


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_an_error_code(case: tuple[str, str], answers: Mapping[tuple[str, str], Case]) -> None:
    stage, code = case
    got = answers[case]
    assert got.outcome == OUTCOMES[stage][code], got
    ended = [call for call in got.calls if not call.startswith("init")]
    if got.outcome == COMMITTED:
        assert ended[-1] == "commit", got
        assert not got.asked, got
    elif got.outcome == ABORTED:
        assert ended[-1] == "abort", got
        assert not got.asked, got
    elif got.outcome == DECIDED:
        assert got.asked == 1, got
        assert got.calls.count("init") == 2, got
    else:
        assert "commit" not in got.calls, got
        assert not got.reopened, got
    assert got.outcome in (FENCED, ENDED) or got.after[-1] is True, got


@pytest.mark.full
@pytest.mark.parametrize("stage", REQUESTS)
def test_an_answer_that_is_late(stage: str, benches: Callable[..., Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than a call may: the call is made again, and what was asked for happens once."""
    monkeypatch.setattr(headrace.checkpoint, "CALL_S", SLOW_MS / 4e3)
    got = benches(stage, lambda bench, kind: bench.cluster.delay(kind, SLOW_MS))
    assert got.outcome == (ABORTED if stage == "abort" else COMMITTED), got
    assert got.after[-1] is True, got


def test_a_cut_during_the_commit_makes_a_new_producer(benches: Callable[..., Case]) -> None:
    """It is committed at the second try; the first may still be under way, and must not end the next transaction."""
    got = benches("commit", lambda bench, kind: bench.cluster.push(kind, [KafkaError._TRANSPORT]))
    assert (got.outcome, got.reopened) == (COMMITTED, 1), got
