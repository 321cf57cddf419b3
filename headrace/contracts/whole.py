"""Great Expectations itself, on a batch as it comes: for every row-level expectation that has no kernel.

The batch reaches it as `RecordBatch.to_pandas()` with its defaults; that conversion is part of the verdict. A value
on which a metric raises (a text that is no JSON, say) would cost the whole batch its verdict, so the batch is halved
until the rows that raise stand alone; these are bad, with what was raised as the reason.
"""

from __future__ import annotations

import datetime as dt
import decimal
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.contracts.suite import Expectation
from headrace.errors import MissingExtra

RUNS_MAX = 64
"""Runs of Great Expectations spent on finding the rows of a batch it raises on; the rows left over count as bad."""
Index = np.ndarray[Any, np.dtype[np.int64]]


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
        all_ = [_configured(e, at) for at, e in enumerate(expectations)]
        apart = {(at,): gx.ExpectationSuite(name=f"headrace {at}", expectations=[c]) for at, c in enumerate(all_)}
        self._suites = apart | {tuple(range(len(all_))): gx.ExpectationSuite(name="headrace", expectations=all_)}

    def check(self, rows: pa.RecordBatch) -> dict[str, tuple[Index, dict[int, str]]]:
        """Expectation id → the rows that break it, in order, and what was raised on those it could not judge."""
        out: dict[str, tuple[Index, dict[int, str]]] = {}
        for at, (found, raised) in self._run(rows, range(len(self.expectations))).items():
            errors: dict[int, str] = {}
            if raised is not None:
                found, errors = self._halve(rows, at, raised)
            out[self.expectations[at].id] = found, errors
        return out

    def verdicts(self, rows: pa.RecordBatch) -> list[bool]:
        """Success or not of each expectation on the batch as a whole, for those that judge the schema."""
        results = self._validate(rows, range(len(self.expectations)))
        return [bool(results[at]["success"]) for at in range(len(self.expectations))]

    def _validate(self, rows: pa.RecordBatch, which: Sequence[int]) -> dict[int, Mapping[str, Any]]:
        columns = [c for c in rows.schema.names if c in self._needed(which)] or rows.schema.names
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch = self._batches.get_batch(batch_parameters={"dataframe": rows.select(columns).to_pandas()})
            done = batch.validate(self._suites[tuple(which)], result_format={"result_format": "COMPLETE"})
        return {int(r.expectation_config.id): {"success": r.success, "result": r.result, "raised": r.exception_info}
                for r in done.results}

    def _needed(self, which: Sequence[int]) -> set[str]:
        """The columns read; all of them where a condition or the schema itself is looked at."""
        if any(self.expectations[at].kwargs.get("row_condition") or not self.expectations[at].columns
               or self.expectations[at].type.startswith("expect_table") for at in which):
            return set()
        return {c for at in which for c in self.expectations[at].columns}

    def _run(self, rows: pa.RecordBatch, which: Sequence[int]) -> dict[int, tuple[Index, str | None]]:
        """For each: the rows that break it, and what it raised."""
        out: dict[int, tuple[Index, str | None]] = {}
        for at, got in self._validate(rows, which).items():
            index = got["result"].get("unexpected_index_list")
            told = None if index is not None else _message(got["raised"])
            if index is None and told is None and not got["success"]:
                told = "Great Expectations gives no row for this verdict"
            out[at] = np.array(index or [], dtype=np.int64), told
        return out

    def _halve(self, rows: pa.RecordBatch, at: int, raised: str) -> tuple[Index, dict[int, str]]:
        """The rows that break one expectation that raised on the batch; the rows that raise are among them."""
        bad: list[int] = []
        errors: dict[int, str] = {}
        todo, runs = [(0, rows.num_rows, raised)], 0
        while todo:
            start, size, told = todo.pop()
            if size <= 1 or runs >= RUNS_MAX:
                errors |= dict.fromkeys(range(start, start + size), told)
                continue
            for low, n in ((start, size // 2), (start + size // 2, size - size // 2)):
                runs += 1
                found, again = self._run(rows.slice(low, n), [at])[at]
                if again is not None:
                    todo.append((low, n, again))
                else:
                    bad += (found + low).tolist()
        return np.array(sorted({*bad, *errors}), dtype=np.int64), errors


def _configured(e: Expectation, at: int) -> Any:
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


def _message(raised: Mapping[str, Any]) -> str | None:
    """What was raised, out of the two shapes it is given in."""
    parts = [raised] if "raised_exception" in raised else list(raised.values())
    told = [str(p.get("exception_message") or p) for p in parts if p.get("raised_exception")]
    return told[0].splitlines()[0] if told else None


def samples(schema: pa.Schema) -> list[pa.RecordBatch]:
    """Two batches of a schema: one with a value everywhere, and one with a null besides wherever one may be."""
    first, second = [], []
    for field in schema:
        value = _value(field.type)
        first.append(pa.array([value, value], type=field.type))
        second.append(pa.array([value, None if field.nullable else value], type=field.type))
    return [pa.RecordBatch.from_arrays(arrays, schema=schema) for arrays in (first, second)]


def _value(type_: pa.DataType) -> Any:
    """Some value of a type."""
    t = pa.types
    if t.is_struct(type_):
        return {f.name: _value(f.type) for f in type_}
    if t.is_fixed_size_binary(type_):
        return b"a" * type_.byte_width
    table: list[tuple[Any, Any]] = [
        (t.is_boolean, True), (t.is_integer, 1), (t.is_floating, 1.5), (t.is_decimal, decimal.Decimal(1)),
        (t.is_timestamp, dt.datetime(2013, 2, 8, tzinfo=dt.UTC if getattr(type_, "tz", None) else None)),
        (t.is_date, dt.date(2013, 2, 8)), (t.is_time, dt.time(17, 30)), (t.is_duration, dt.timedelta(1)),
        (t.is_binary, b"a"), (t.is_large_binary, b"a"), (t.is_list, []), (t.is_map, [])]
    return next((value for test, value in table if test(type_)), None if t.is_null(type_) else "a")
