"""Great Expectations itself, on a batch as it comes: for every row-level expectation that has no kernel.

The batch reaches it as `RecordBatch.to_pandas()` with its defaults; that conversion is part of the verdict. A value
on which a metric raises (a text that is no JSON, say) would cost the whole batch its verdict, so the batch is halved
until the rows that raise stand alone; these are bad, with what was raised as the reason.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.contracts.blame import Index, halve
from headrace.contracts.results.values import as_json
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict
from headrace.errors import MissingExtra

RUNS_MAX = 1_000
"""Validations spent on finding the rows of a batch that raise, each some 10 ms; see blame.py."""


class Whole:
    """Great Expectations with some expectations of a suite, ready for batches."""

    def __init__(self, expectations: Sequence[Expectation]) -> None:
        """Imports Great Expectations (3–4 s) and hands it the expectations. Raises MissingExtra, or SuiteError with
        what Great Expectations has against an expectation."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import great_expectations as gx
                from great_expectations.data_context.types.base import (
                    DataContextConfig,
                    InMemoryStoreBackendDefaults,
                    ProgressBarsConfig,
                )
        except ImportError as error:
            kinds = ", ".join(sorted({e.type for e in expectations}))
            raise MissingExtra("gx", f"{expectations[0].file} ({kinds})") from error
        logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
        context = gx.get_context(mode="ephemeral", project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            analytics_enabled=False, progress_bars=ProgressBarsConfig(globally=False)))
        self._batches = context.data_sources.add_pandas("headrace").add_dataframe_asset(
            "rows").add_batch_definition_whole_dataframe("batch")
        self.expectations = tuple(expectations)
        all_ = [configured(e, at) for at, e in enumerate(expectations)]
        apart = {(at,): gx.ExpectationSuite(name=f"headrace {at}", expectations=[c]) for at, c in enumerate(all_)}
        self._suites = apart | {tuple(range(len(all_))): gx.ExpectationSuite(name="headrace", expectations=all_)}

    def judge(self, rows: pa.RecordBatch) -> dict[str, Verdict]:
        """Expectation id → Great Expectations' verdict on the batch."""
        told = self._validate(rows, range(len(self.expectations)))
        return {self.expectations[at].id: verdict for at, verdict in told.items()}

    def blame(self, id_: str, rows: pa.RecordBatch, told: Verdict, *,
              runs_max: int = RUNS_MAX) -> tuple[Index, dict[int, str]]:
        """The rows that break an expectation about rows, in order, and what was raised on those it could not judge."""
        found = _rows(told)
        if not isinstance(found, str):
            return found, {}
        at = [e.id for e in self.expectations].index(id_)
        return halve(rows.num_rows, found, lambda low, n: _rows(self._validate(rows.slice(low, n), [at])[at]), runs_max)

    def _validate(self, rows: pa.RecordBatch, which: Sequence[int]) -> dict[int, Verdict]:
        columns = [c for c in rows.schema.names if c in self._needed(which)] or rows.schema.names
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch = self._batches.get_batch(batch_parameters={"dataframe": rows.select(columns).to_pandas()})
            try:
                done = batch.validate(self._suites[tuple(which)], result_format={"result_format": "COMPLETE"})
            except Exception as error:  # an expectation of types, of which the row_condition raises
                if len(which) == 1:
                    return {which[0]: Verdict(False, {}, str(error))}
                return {at: verdict for one in which for at, verdict in self._validate(rows, [one]).items()}
        return {int(r.expectation_config.id): Verdict(bool(r.success), _json(r), _message(r.exception_info))
                for r in done.results}

    def _needed(self, which: Sequence[int]) -> set[str]:
        """The columns read; all of them where a condition or the schema itself is looked at."""
        if any(self.expectations[at].kwargs.get("row_condition") or not self.expectations[at].columns
               or self.expectations[at].type.startswith("expect_table") for at in which):
            return set()
        return {c for at in which for c in self.expectations[at].columns}


def _rows(told: Verdict) -> Index | str:
    """The rows that break it; or what it raised."""
    index = told.result.get("unexpected_index_list")
    if index is None and told.raised is not None:
        return told.raised
    if index is None and not told.success:
        return "Great Expectations gives no row for this verdict"
    return np.array(index or [], dtype=np.int64)


def configured(e: Expectation, at: int) -> Any:
    """The expectation in Great Expectations' own form, which it has validated. Raises SuiteError with its objection."""
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    try:
        made = ExpectationConfiguration(type=e.type, kwargs={k: v for k, v in e.kwargs.items() if v is not None},
                                        id=str(at))
        made.to_domain_obj()
        return made
    except Exception as error:
        told = "; ".join(line.strip() for line in str(error).splitlines()[1:] or [str(error)])
        e.wrong(f"Great Expectations refuses it: {told}", f"see {e.type} in Great Expectations' gallery")


def _json(told: Any) -> Any:
    """The result object in plain values; durations as text, since Great Expectations cannot serialise them."""
    try:
        return told.to_json_dict()["result"]
    except TypeError:
        return as_json(dict(told.result))


def _message(raised: Mapping[str, Any]) -> str | None:
    """What was raised, out of the two shapes it is given in."""
    parts = [raised] if "raised_exception" in raised else list(raised.values())
    told = [str(p.get("exception_message") or p) for p in parts if p.get("raised_exception")]
    return told[0].splitlines()[0] if told else None
