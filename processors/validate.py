"""validate: holds records against a contract, a Great Expectations suite."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from headrace.batch import Batch
from headrace.config import Config
from headrace.contracts import Contract, compile_suite, load
from headrace.processor import Context, Processor


class ValidateConfig(Config):
    suite: str = Field(description="The suite: a name, for schemas/<name>.expectations.json, or a path from the "
                                   "project's folder.", examples=["departure", "contracts/strict.json"])


class Validate(Processor):
    """Outputs: `success`; and `failure`, the records that a critical expectation rejects, with every reason. An
    expectation of severity `warning` or `info` only counts. Counts: metric `expectation`, labelled by its id."""

    Config = ValidateConfig
    _contract: Contract

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        name: str = self.config.suite
        plain = not name.endswith(".json") and "/" not in name
        path = self.project / (f"schemas/{name}.expectations.json" if plain else name)
        self._contract = compile_suite(load(path), schema)
        return {"success": schema, "failure": schema}

    def notes(self, schema: pa.Schema) -> list[str]:
        return self._contract.notes()

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        report = self._contract.check(batch.rows)
        for id_, n in report.counts.items():
            if n:
                ctx.count("expectation", id_, n)
        keep = report.row_mask
        if keep.false_count == 0:
            return {"success": batch}
        out = pc.invert(keep)
        rejected = batch.take(out).with_reasons(report.reasons(np.flatnonzero(out.to_numpy(zero_copy_only=False))))
        return {"success": batch.take(keep), "failure": rejected} if keep.true_count else {"failure": rejected}
