"""The suite of ten by Great Expectations on pandas, as its documentation has it: context, data source and suite once,
`batch.validate` for each frame. The result format is its default (BASIC: counts, and no list of the rows)."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import contracts_suite as ten
import great_expectations as gx
import pandas as pd
import pyarrow as pa
from great_expectations.data_context.types.base import ProgressBarsConfig

warnings.simplefilter("ignore")
logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
context = gx.get_context(mode="ephemeral")
context.variables.progress_bars = ProgressBarsConfig(globally=False)
batches = context.data_sources.add_pandas("flights").add_dataframe_asset("rows").add_batch_definition_whole_dataframe(
    "batch")
suite = context.suites.add(gx.ExpectationSuite(**ten.suite()))
ours = [one["id"] for one in ten.suite()["expectations"]]  # the context gives ids of its own, in the same order
named = dict(zip((one.id for one in suite.expectations), ours, strict=True))


def check(frame: pd.DataFrame) -> dict[str, int]:
    result: Any = batches.get_batch(batch_parameters={"dataframe": frame}).validate(suite)
    return {named[one.expectation_config.id]: int(one.result["unexpected_count"]) for one in result.results}


table = pa.ipc.open_file(ten.file()).read_all()
ten.tell("gx", gx.__version__, [rows.to_pandas() for rows in table.to_batches()], table.to_pandas(), check)
