"""Poison: records that break a step. A batch that breaks one is sieved: only the culprits leave, as dead letters.

    the whole breaks ─► its halves, in order, over what passed before them ─► … ─► one record that breaks alone

What passes is kept as it came out, what breaks leaves no trace in the state, and all of it is one batch again, for one
transaction: each step's state is as if the culprits had never come, and the order per key holds. A culprit costs about
2 log2(n) runs of ever smaller parts. Where too many break, the fault is the step's, and nothing leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaException

from headrace.batch import Frames, Message
from headrace.errors import HeadraceError, UserError
from headrace.flow import PoisonSpec
from headrace.pipeline import Outputs, Pipeline
from headrace.state import State

log = logging.getLogger("headrace.poison")
SPARED = (HeadraceError, OSError, MemoryError, ImportError, NotImplementedError, KafkaException)
"""What is no record's fault: the configuration, the disk, the network, the memory, the program."""
TOLD_MAX = 5
SAID_CHARS = 300


@dataclass(frozen=True, slots=True)
class Culprit:
    """A record that breaks a step, by its place in the batch."""

    at: int
    step: str
    reason: str


@dataclass(slots=True)
class Budget:
    """How many records may be poison: `records_max` beyond `share_max` of all that is read."""

    spec: PoisonSpec
    used: float = 0.0

    def most(self, records: int) -> int:
        """Of so many records."""
        return int(self.spec.records_max + self.spec.share_max * records - self.used)

    def spend(self, culprits: int, records: int) -> None:
        self.used = max(0.0, self.used + culprits - self.spec.share_max * records)


def poisonous(error: BaseException) -> bool:
    """Whether an error out of a step may be the fault of a record. A panic of a library in Rust is no Exception."""
    if isinstance(error, Exception):
        return not isinstance(error, SPARED)
    return type(error).__name__ == "PanicException"


def run(pipeline: Pipeline, messages: Sequence[Message], state: State, budget: Budget) -> Outputs:
    """A batch through the pipeline. What breaks a step goes to the dead letters, and the rest is as without it.

    Raises what `pipeline.run` raises that is no poison, and UserError where too many records break a step.
    """
    out = _attempt(pipeline, messages)
    if isinstance(out, Outputs):
        if budget.used:
            budget.spend(0, len(messages))
        return out
    state.undo()
    return _sieved(pipeline, messages, state, budget, out)


def _attempt(pipeline: Pipeline, messages: Sequence[Message]) -> Outputs | BaseException:
    try:
        return pipeline.run(messages)
    except BaseException as error:
        if not poisonous(error):
            raise
        return error


def _sieved(pipeline: Pipeline, messages: Sequence[Message], state: State, budget: Budget,
            error: BaseException) -> Outputs:
    n, most = len(messages), budget.most(len(messages))
    passed: list[Outputs] = []
    culprits: list[Culprit] = []

    def sieve(first: int, end: int, made: Outputs | BaseException) -> None:
        """`made` is what an attempt at messages[first:end] came to."""
        if isinstance(made, Outputs):
            passed.append(made)
        elif end - first == 1:
            culprits.append(_culprit(first, pipeline.at, made))
            _tell(messages[first], culprits, made)
            if len(culprits) > most:
                raise _too_many(culprits, end, most) from made
        else:
            middle = (first + end) // 2
            for at, upto in ((first, middle), (middle, end)):
                before = state.mark()
                part = _attempt(pipeline, messages[at:upto])
                if not isinstance(part, Outputs):
                    state.back(before)
                sieve(at, upto, part)

    sieve(0, n, error)
    budget.spend(len(culprits), n)
    out = Outputs.joined(passed, n, Frames(messages).spans())
    pipeline.bury([messages[c.at] for c in culprits], [c.step for c in culprits], [c.reason for c in culprits], out)
    return out


def _culprit(at: int, step: str, error: BaseException) -> Culprit:
    said = " ".join(str(error).split())
    return Culprit(at, step, f"poison: {type(error).__name__} in {step}: {said[:SAID_CHARS]}")


def _tell(message: Message, culprits: Sequence[Culprit], error: BaseException) -> None:
    if len(culprits) <= TOLD_MAX:
        log.warning("poison", exc_info=error, extra={
            "record": f"{message.topic()}/{message.partition()}@{message.offset()}", "step": culprits[-1].step,
            "reason": culprits[-1].reason})


def _too_many(culprits: Sequence[Culprit], read: int, most: int) -> UserError:
    return UserError(
        f"{culprits[-1].step} breaks: {len(culprits)} of the first {read:,} records of a batch are poison to it, and "
        f"{most} may be; the last: {culprits[-1].reason.removeprefix('poison: ')}",
        hint="nothing of the batch was committed. Mend the step, or let the flow bear more: "
             "`poison: {records_max: …, share_max: …}`")
