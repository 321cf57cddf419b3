"""`gate`: results of trainings in, verdicts on the challengers out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from headrace.batch import Batch, Span
from headrace.config import Config
from headrace.control import Retrain, RetrainResult, Verdict, digest
from headrace.errors import UserError
from headrace.loop.gate import Blessing, GateSpec, judge
from headrace.loop.steps import Said, batch_of, events_of, expect, registry, shape
from headrace.processor import Context, Processor

if TYPE_CHECKING:
    from headrace.loop.models import Loaded, ModelStore
    from headrace.loop.train import Parts
    from headrace.loop.training import ModelSpec

log = logging.getLogger("headrace.gate")
BLOCK_MS = 3 * 3_600_000
"""Rows of three hours are drawn together by the bootstrap: a storm delays neighbours alike."""
LATENCY_ROWS = 20_000


class GateConfig(Config):
    """What challengers must show."""

    models: dict[str, GateSpec] = Field(description="By the model's name.", min_length=1)


class Gate(Processor):
    """Reads `headrace.retrain.results`. A training that succeeded is judged: every candidate against the version in
    charge when it was asked for, on the request's held-out rows. One that failed or was refused is said to have.

    The same result gives the same verdict: the rows are those of the offsets named, the draws are seeded.
    """

    Config: ClassVar[type[Config]] = GateConfig
    own_rows: ClassVar[bool] = True
    main: ClassVar[str] = "verdict"

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        expect(RetrainResult, schema, ("trigger", "status", "candidates"))
        self._shape = shape(Verdict)
        return {"verdict": self._shape}

    def open(self, ctx: Context) -> None:
        self._store = registry(ctx)

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        """Raises Retriable while Kafka or the model registry does not answer."""
        said = []
        for result, at in events_of(batch, RetrainResult):
            if result.model in self.config.models and result.status != "started":
                verdict = self._verdict(result, at, ctx)
                ctx.count("gate", "blessed" if verdict.ok else "not blessed", 1)
                said.append(Said(verdict, verdict.key(), at))
        return {"verdict": batch_of(said, self._shape)} if said else {}

    def _verdict(self, result: RetrainResult, at: Span, ctx: Context) -> Verdict:
        asked_at = result.asked_at or result.at
        common: dict[str, Any] = {
            "id": digest(ctx.flow, ctx.step, result.trigger, result.id), "at": asked_at, "flow": ctx.flow,
            "step": ctx.step, "owner": ctx.owner, "model": result.model, "trigger": result.trigger,
            "champion": result.champion, "topic": at.topic, "partition": at.partition, "offset_first": at.offset_first,
            "offset_last": at.offset_last}
        if result.status != "succeeded":
            return Verdict(about="failed", ok=False, reasons=[f"{result.status}: {result.reason}"], **common)
        try:
            result = self._whole(result, ctx)
            blessing, rows = self._judged(result, asked_at, ctx)
        except UserError as error:
            log.warning("not judged", extra={"trigger": result.trigger, "reason": str(error)})
            return Verdict(about="gate", ok=False, reasons=[f"it could not be judged: {error}"], **common)
        version = result.candidates.get(blessing.chosen or "")
        return Verdict(about="gate", ok=blessing.blessed, version=version, reasons=list(blessing.reasons), rows=rows,
                       labels=rows, measures=dict(blessing.measures), **common)

    def _whole(self, result: RetrainResult, ctx: Context) -> RetrainResult:
        """With the versions that MLflow has for the trigger, where whoever ran it could not bring them back."""
        if result.candidates or ctx.settings is None:
            return result
        logged = self._store().logged(result.trigger, result.model)
        return replace(result, candidates=dict(logged.candidates)) if logged else result

    def _judged(self, result: RetrainResult, asked_at: datetime, ctx: Context) -> tuple[Blessing, int]:
        """The blessing, and how many held-out rows it stands on."""
        from headrace.loop import training
        from headrace.loop.leak import times_ms
        from headrace.loop.train import parts_of, spec_of

        assert ctx.settings is not None, "a gate runs beside Kafka"
        store = self._store()
        request = _request(result, asked_at)
        spec = spec_of(request)
        parts: Parts = parts_of(request, spec, ctx.settings, store)
        y = training.labels(spec, parts.held)
        held = parts.held.filter(pa.array(~np.isnan(y)))
        y = y[~np.isnan(y)]
        scores, infra = {}, {}
        for name, version in _in_order(result, spec):
            infra[name], found = _tried(store, result.model, version, held)
            if found is not None:
                scores[name] = found
        champion = None
        if result.champion:
            champion = store.load(result.model, result.champion).predict(held)
        times, _ = times_ms(held, spec.time)
        blessing = judge(self.config.models[result.model], champion, scores, y, infra=infra, blocks=times // BLOCK_MS,
                         slices={name: held.column(name).to_numpy(zero_copy_only=False) for name in spec.slices})
        return blessing, len(y)


def _request(result: RetrainResult, asked_at: datetime) -> Retrain:
    """The request a result answers, as far as its rows and spec go."""
    first: Mapping[str, Any] = result.ranges[0] if result.ranges else {
        "topic": "", "partition": 0, "offset_first": 0, "offset_last": 0}
    return Retrain(
        id=result.trigger, at=asked_at, flow="", step="", topic=first["topic"], partition=first["partition"], window=0,
        offset_first=first["offset_first"], offset_last=first["offset_last"], window_start=None, window_end=None,
        measure="", condition=None, rows=0, matched=0, observed=0.0, threshold=0.0, model=result.model, reason="",
        ranges=result.ranges, holdout=result.holdout, champion=result.champion, spec=result.spec)


def _in_order(result: RetrainResult, spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """(candidate, version), the most trusted first."""
    for name in spec.candidates:
        if name in result.candidates:
            yield name, result.candidates[name]


def _tried(store: ModelStore, model: str, version: str, held: pa.Table) -> tuple[dict[str, Any], Any]:
    """(infra facts, scores or None) of a challenger: does it load, read the rows, answer in time, how large is it?"""
    try:
        loaded: Loaded = store.load(model, version)
    except UserError as error:
        log.warning("a challenger does not load", extra={"model": model, "version": version, "reason": str(error)})
        return {"loads": False}, None
    facts: dict[str, Any] = {"loads": True, "size_bytes": loaded.size_bytes, "signature_ok": True}
    try:
        begun = time.perf_counter()
        loaded.predict(held.slice(0, LATENCY_ROWS))
        facts["latency_ms"] = (time.perf_counter() - begun) * 1e3
        return facts, loaded.predict(held)
    except UserError:
        return {**facts, "signature_ok": False}, None
