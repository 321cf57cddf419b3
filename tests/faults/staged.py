"""`headrace …` as it is, in a process that does something to itself at a stage of the cycle: for kills that hit.

    python -m tests.faults.staged '{"stage": "produced", "at": 3, "act": "kill"}' run FLOW …

`stage` is one of STAGES or EVENT_STAGES, `at` its how-manieth passage, `act` kill (SIGKILL), stop (SIGSTOP) or poll (go
on polling, all partitions paused, until the group has rebalanced). `off` takes a safeguard out, one of SAFEGUARDS, to
see that the suite goes red. Only the boundaries of the worker's parts are wrapped; headrace has no switch for tests.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import headrace.checkpoint as checkpoint
import headrace.pipeline as pipeline
from headrace.checkpoint import Transactions
from headrace.connectors.kafka import KafkaSource
from headrace.pipeline import Pipeline

STAGES = ("polled", "decoded", "transformed", "produced", "offsets sent", "mid-commit", "committed")
EVENT_STAGES = ("event sent", "event recorded")
"""Of a dispatcher: the webhook has answered; the transaction that says so is committed."""
SAFEGUARDS = ("fence", "offsets", "metadata", "abort", "dedupe")
PR_SET_PDEATHSIG = 1
COMMIT_S = 0.004
"""A commit takes some milliseconds; a kill in the midst of it falls within these."""
FLUSH_S = 10.0
POLLING_S_MAX = 40.0

_sources: list[KafkaSource] = []


class Fault:
    """Counts the passages of a stage and acts on one of them."""

    def __init__(self, stage: str, at: int, act: str, seed: int = 0) -> None:
        assert stage in (*STAGES, *EVENT_STAGES), stage
        self.stage, self.left, self.act = stage, at, {"kill": _kill, "stop": _stop, "poll": _poll}[act]
        self.chance = random.Random(seed)

    def passes(self) -> bool:
        """Whether this is the passage."""
        self.left -= 1
        return self.left == 0


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _poll() -> None:
    """Poll on, paused, until somebody else has joined the group and it has rebalanced: what a worker never does."""
    source = _sources[-1]
    consumer, before = source.consumer, set(source.assigned)
    consumer.pause(consumer.assignment())
    print(json.dumps({"message": "polling on"}), file=sys.stderr, flush=True)
    end = time.monotonic() + POLLING_S_MAX
    while time.monotonic() < end and set(source.assigned) in (before, set()):
        consumer.consume(1, 0.1)
    consumer.resume(consumer.assignment())


def _after(owner: Any, name: str, then: Callable[..., None]) -> None:
    """Wrap a method: `then(result, self)` once it returned."""
    whole = getattr(owner, name)

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = whole(self, *args, **kwargs)
        then(result, self)
        return result

    setattr(owner, name, wrapped)


def _staged(fault: Fault) -> None:
    """Hang the fault on its stage."""
    def now(*_: Any) -> None:
        if fault.passes():
            fault.act()

    def polled(result: Any, source: Any) -> None:
        if result.messages:
            now()

    def produced(result: Any, transactions: Transactions) -> None:
        if fault.passes():
            if fault.chance.random() < 0.7:
                transactions.producer.flush(FLUSH_S)  # they are on the broker, and not only on their way
            fault.act()

    plain: dict[str, tuple[Any, str, Callable[..., None]]] = {
        "polled": (KafkaSource, "poll", polled), "decoded": (pipeline.Decoder, "decode", now),
        "transformed": (Pipeline, "run", now), "produced": (Transactions, "produce", produced)}
    sent: list[Any] = []
    if fault.stage in EVENT_STAGES:
        from headrace.loop.dispatch.webhook import Webhook

        _after(Webhook, "submit", now if fault.stage == "event sent" else lambda *_: sent.append(1))
        _after(Transactions, "commit", lambda *_: now() if sent else None)
        return
    if fault.stage in plain:
        _after(*plain[fault.stage])
        return

    class Staged(checkpoint.Producer):  # type: ignore[misc,name-defined]
        """The worker's producer."""

        def send_offsets_to_transaction(self, *args: Any) -> None:
            super().send_offsets_to_transaction(*args)
            if fault.stage == "offsets sent":
                now()

        def commit_transaction(self, *args: Any) -> None:
            if fault.stage == "mid-commit" and fault.passes():
                threading.Timer(fault.chance.uniform(0, COMMIT_S), fault.act).start()
            super().commit_transaction(*args)
            if fault.stage == "committed":
                now()

    checkpoint.Producer = Staged  # type: ignore[attr-defined]


def _without(safeguard: str) -> None:
    """Take a safeguard out."""
    assert safeguard in SAFEGUARDS, safeguard
    if safeguard == "fence":
        Transactions._fence = lambda self: None  # type: ignore[method-assign]
    elif safeguard == "dedupe":
        from headrace.processors.dedupe import Dedupe

        def let_all_pass(self: Any, batch: Any, ctx: Any) -> Any:
            return {"success": batch}

        Dedupe.process = let_all_pass  # type: ignore[method-assign]
    else:
        without: dict[str, Callable[..., Any]] = {
            "offsets": lambda whole, self, fault, offsets, group, decide: whole(self, fault, [], group, decide),
            "metadata": lambda whole, self, fault, offsets, group, decide: whole(
                self, fault, offsets, _sources[-1].consumer.consumer_group_metadata(), decide),
            "abort": lambda whole, self, *args: whole(self, *args) or True}
        whole = Transactions.commit

        def commit(self: Transactions, *args: Any) -> Any:
            return without[safeguard](whole, self, *args)

        Transactions.commit = commit  # type: ignore[method-assign]


def main() -> None:
    asked, *arguments = sys.argv[1:]
    told = json.loads(asked)
    faulthandler.register(signal.SIGRTMIN, all_threads=True)  # where it hangs; SIGUSR1 and SIGUSR2 are Faust's own
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nothing outlives the suite
    _after(KafkaSource, "__init__", lambda _, source: _sources.append(source))
    if safeguard := told.pop("off", None):
        _without(safeguard)
    if told:
        _staged(Fault(**told))
    sys.argv = ["headrace", *arguments]
    from headrace.cli import main as headrace

    headrace()


if __name__ == "__main__":
    main()
