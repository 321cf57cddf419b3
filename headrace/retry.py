"""Retries: what a step puts on a relationship is tried again, with growing waits, before it leaves by it.

The batch waits in place: `Again` is raised, the worker keeps the batch and polls on, and what is behind it waits too,
so that the order per key holds. When the batch comes again, the rows that were done are not done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace.batch import Batch, Index, Meta, gather
from headrace.errors import Retriable
from headrace.plan import StepPlan
from headrace.processor import Context

Place = tuple[str, int, int]
"""(topic, partition, offset)"""
FAILURE = "failure"


class Again(Retriable):
    """Rows are to be tried again."""


@dataclass(frozen=True, slots=True)
class Memo:
    """What became of `batch` so far: `done` by relationship, `todo` (rows of `batch`) is to be tried again."""

    batch: Batch
    todo: Batch | None
    done: Mapping[str, Batch]

    def of(self, batch: Batch) -> bool:
        """Whether it is this batch's, which came again: the same rows of the same records."""
        return batch.rows.equals(self.batch.rows) and places(batch.meta) == places(self.batch.meta)


class Retries:
    """One step with its `retry`. Where nothing fails, it costs nothing. The step keeps no state: a batch that comes
    again has the state of before, and what is done would be missing from it."""

    def __init__(self, step: StepPlan) -> None:
        assert step.retry is not None, "a step without `retry` is called as it is"
        self.step, self.spec = step, step.retry
        self._memo: Memo | None = None
        self._tries: dict[Place, int] = {}

    def settled(self) -> None:
        """The batch is done."""
        self._memo = None
        self._tries.clear()

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        """As the processor's. Raises Again while rows are to be tried again."""
        memo = self._memo if self._memo is not None and self._memo.of(batch) else Memo(batch, batch, {})
        if memo.todo is None:
            return memo.done
        results = self._attempt(memo.todo, ctx)
        failed = [place for name in self.spec.on if name in results for place in places(results[name].meta)]
        fresh = {place for place in failed if self._tries.get(place, 0) < self.spec.times}
        if not fresh and not self._tries:
            return results
        kept = {name: rows if name not in self.spec.on else _only(rows, fresh, False) for name, rows in results.items()}
        done = _merged(batch, [memo.done, kept])
        self._memo = Memo(batch, _only(batch, fresh, True) if fresh else None, done)
        if fresh:
            self._tries |= {place: self._tries.get(place, 0) + 1 for place in fresh}
            tries = max(map(self._tries.__getitem__, fresh))
            raise Again(f"{self.step.name}: {len(fresh)} rows are tried again, {tries} of {self.spec.times}",
                        retry_after_s=min(self.spec.wait_s * 2.0 ** (tries - 1), self.spec.wait_max_s))
        ctx.count("retried", "rows", len(self._tries))
        return done

    def _attempt(self, rows: Batch, ctx: Context) -> Mapping[str, Batch]:
        """One call of the step. Where it asks for a pause, all of it has failed."""
        try:
            return self.step.processor.process_many([rows], ctx)
        except Retriable as error:
            if FAILURE not in self.spec.on:
                raise
            reason = pa.array([[f"unavailable: {error.what}"]] * len(rows), pa.list_(pa.string()))
            return {FAILURE: rows.with_reasons(reason)}


def places(meta: Meta) -> list[Place]:
    """Where each row came from."""
    return list(zip(meta.topics(), meta.partitions().tolist(), meta.offsets().tolist(), strict=True))


def _only(rows: Batch, chosen: set[Place], inside: bool) -> Batch:
    """The rows whose place is chosen, or is not."""
    return rows.take(pa.array([(place in chosen) is inside for place in places(rows.meta)], pa.bool_()))


def _merged(batch: Batch, parts: Sequence[Mapping[str, Batch]]) -> dict[str, Batch]:
    """Results of parts of `batch` by relationship, in its order."""
    rank = {place: at for at, place in enumerate(places(batch.meta))}
    out = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        found = [part[name] for part in parts if name in part and len(part[name])]
        if found:
            together = _together(found)
            order = np.argsort([rank[place] for place in places(together.meta)], kind="stable")
            out[name] = _ordered(together, order)
    return out


def _together(found: Sequence[Batch]) -> Batch:
    if all(batch.reasons is None for batch in found):
        return gather(found)
    kind = pa.list_(pa.string())
    reasons = [pa.nulls(len(b), kind) if b.reasons is None else b.reasons.cast(kind) for b in found]
    return gather(found).with_reasons(pa.concat_arrays(reasons))


def _ordered(batch: Batch, order: Index) -> Batch:
    at = pa.array(order)
    return Batch(batch.rows.take(at), batch.meta.take(order), None if batch.reasons is None else batch.reasons.take(at))
