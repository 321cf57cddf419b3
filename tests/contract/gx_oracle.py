"""Great Expectations, set up on its own, not by headrace: what every verdict of ours is held to."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa


class Oracle:
    """Great Expectations, set up here on its own, not by headrace."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import great_expectations as gx
            from great_expectations.data_context.types.base import (
                DataContextConfig,
                InMemoryStoreBackendDefaults,
                ProgressBarsConfig,
            )
        context = gx.get_context(mode="ephemeral", project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False), analytics_enabled=False,
            progress_bars=ProgressBarsConfig(globally=False)))
        asset = context.data_sources.add_pandas("oracle").add_dataframe_asset("rows")
        self.batches, self.suite = asset.add_batch_definition_whole_dataframe("batch"), gx.ExpectationSuite

    def takes(self, written: Mapping[str, Any]) -> bool:
        try:
            self.suite(name="one", expectations=[written])
        except Exception:
            return False
        return True

    def judge(self, rows: pa.RecordBatch, written: Sequence[Mapping[str, Any]],
              values: Mapping[str, Any] | None = None) -> dict[int, Any]:
        """Position → Great Expectations' result; expectations it refuses to build are absent. `values` are those of
        suite parameters."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch = self.batches.get_batch(batch_parameters={"dataframe": rows.to_pandas()})
            built = [{**e, "id": str(at)} for at, e in enumerate(written) if self.takes(e)]
            done = batch.validate(self.suite(name="all", expectations=built), expectation_parameters=values or {},
                                  result_format={"result_format": "COMPLETE"})
        return {int(r.expectation_config.id): r for r in done.results}


@contextmanager
def quiet() -> Iterator[Oracle]:
    """An oracle that does not log what it is asked to refuse."""
    logging.disable(logging.CRITICAL)
    try:
        yield Oracle()
    finally:
        logging.disable(logging.NOTSET)


def messages(result: Any) -> tuple[str, ...]:
    """What its metrics raised, in either of the shapes that is told."""
    info = result.exception_info
    parts = [info] if "raised_exception" in info else info.values()
    return tuple(str(part["exception_message"]) for part in parts if part["raised_exception"])


def raised(result: Any) -> bool:
    """Whether a metric raised."""
    return bool(messages(result))
