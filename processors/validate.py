"""validate: holds records against a contract, a Great Expectations suite."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from headrace.batch import Batch
from headrace.config import Config
from headrace.contracts import Action, Contract, Report, Shadow, Suite, actions_of, compile_suite, load, suite_path
from headrace.processor import Context, Processor

log = logging.getLogger("headrace.validate")


class ValidateConfig(Config):
    suite: str = Field(description="The suite: a name, for schemas/<name>.expectations.json, or a path from the "
                                   "project's folder.", examples=["departure", "contracts/strict.json"])
    parameters: dict[str, Any] = Field(default_factory=dict, description="Values of the suite's parameters.")
    actions: dict[str, Action] = Field(
        default_factory=dict, examples=[{"warning": "quarantine", "distance_plausible": "count"}],
        description="What is done with records that break an expectation: by severity, or by the expectation's id, "
                    "which comes first. Left out: critical is quarantine, warning tag, info count.")
    shadow: float = Field(0, ge=0, le=1, description="The share of the batches that Great Expectations itself judges "
                          "too, to compare the verdicts. Needs the extra gx.")


class Validate(Processor):
    """Outputs: `success`; and `failure`, the records that are to be quarantined, with every reason. A record that is to
    be tagged goes on with the ids of what it breaks in the header `headrace.tags`. Counts: metric `expectation`,
    labelled by its id; and `shadow`, labelled `same` or `different`: verdicts compared with Great Expectations."""

    Config = ValidateConfig
    _contract: Contract

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        config: ValidateConfig = self.config
        suite = load(suite_path(self.project, config.suite))
        self._actions = actions_of(suite, config.actions)
        self._contract = compile_suite(suite, schema, config.parameters, stream=True)
        self._rejecting, self._tagging = (frozenset(id_ for id_, action in self._actions.items() if action == wanted)
                                          for wanted in ("quarantine", "tag"))
        self._shadow = Shadow(self._contract, config.shadow) if config.shadow else None
        return {"success": schema, "failure": schema}

    @property
    def suite(self) -> Suite:
        """What it holds records against; there once `outputs` was called."""
        return self._contract.suite

    def notes(self, schema: pa.Schema) -> list[str]:
        notes = self._contract.notes(self._actions)
        if self._shadow is not None:
            notes.append(f"shadow: {self.config.shadow:.3g} of the batches go to Great Expectations too, some 15 ms a "
                         "batch and expectation")
        return notes

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        report = self._contract.check(batch.rows)
        for id_, n in report.counts.items():
            if n:
                ctx.count("expectation", id_, n)
        if self._shadow is not None and len(batch) and self._shadow.due(_place(batch, 0)):
            _compare(self._shadow, batch, report, ctx)
        tags = report.tags(self._tagging)
        passed = batch if tags is None else batch.with_tags(tags)
        keep = report.passing(self._rejecting)
        if keep.false_count == 0:
            return {"success": passed}
        out = pc.invert(keep)
        index = np.flatnonzero(out.to_numpy(zero_copy_only=False))
        rejected = batch.take(out).with_reasons(report.reasons(index, self._rejecting))
        return {"success": passed.take(keep), "failure": rejected} if keep.true_count else {"failure": rejected}


def _compare(shadow: Shadow, batch: Batch, report: Report, ctx: Context) -> None:
    """Says where Great Expectations itself judges a batch in another way. The records go by our verdict."""
    for one in shadow.compare(batch.rows, report):
        differing = one.differing
        ctx.count("shadow", "different" if len(differing) else "same", 1)
        if len(differing):
            row, words = int(differing[0]), {True: "unexpected", False: "expected"}
            log.error("verdicts differ", extra={
                "flow": ctx.flow, "step": ctx.step, "expectation": one.id, "record": _place(batch, row),
                "headrace": words[row in one.ours], "great_expectations": words[row in one.theirs],
                "records": len(differing), "unexpected": len(one.ours), "unexpected_gx": len(one.theirs)})


def _place(batch: Batch, row: int) -> str:
    """Where a row came from: topic/partition@offset."""
    meta = batch.meta
    return f"{meta.topics()[row]}/{meta.partitions()[row]}@{meta.offsets()[row]}"
