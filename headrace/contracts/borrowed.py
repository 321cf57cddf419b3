"""Great Expectations' own metric function on the pandas columns, without the validation around it: half a millisecond
for 1,000 rows instead of fifteen. For expectations with a verdict a row, where no Arrow kernel fits.

The function is called as Great Expectations calls it, with the dependencies it names (lengths, means, …); so rows
without a value, `ignore_row_if` and what is raised are as they are there. The columns come as `RecordBatch.to_pandas()`
makes them of the whole batch; a row_condition is asked before (conditions.py), and only one that compiles: the others
are judged whole.

A kernel of this kind takes the batch as it came, never a part of it, and minds the row_condition itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.contracts.conditions import Condition, compile_condition
from headrace.contracts.kernels import Column, Kernel
from headrace.contracts.suite import Expectation
from headrace.contracts.whole import configured
from headrace.errors import MissingExtra

_SETTLED = ("expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list")
"""Judged by the column's type where they can be, not row by row."""
_NULLITY = ("expect_column_values_to_be_null", "expect_column_values_to_not_be_null")


class MetricRaised(Exception):
    """A metric raised on a batch; the text is what it said. Great Expectations' verdict is then no success, an empty
    result and this text as exception_message; a caller may also halve the batch to find the rows that are to blame."""


@dataclass(frozen=True, slots=True)
class _Metric:
    """A metric ready to be computed, and those it needs first. `name` is what the metric that needs it calls it."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    needs: tuple[_Metric, ...]

    def value(self, columns: list[str]) -> Any:
        """On the batch the engine holds, which has these columns."""
        known = {need.name: need.value(columns) for need in self.needs}
        return self.function(**self.arguments, metrics={"table.columns": columns, **known})


def borrow(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """The kernel, or why the expectation must be judged whole. Its functions raise MetricRaised. Imports Great
    Expectations (3–4 s). Raises MissingExtra, and SuiteError with what Great Expectations has against it."""
    if "column_A" in e.kwargs and len(set(e.columns)) == 1:
        return "a column beside itself, whose values Great Expectations lists as arrays"
    condition = compile_condition(e, schema) if e.kwargs.get("row_condition") is not None else None
    if isinstance(condition, str):
        return condition
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from great_expectations.execution_engine import PandasExecutionEngine
            engine = PandasExecutionEngine()
            listed = _listed(e, engine)
    except ImportError as error:
        raise MissingExtra("gx", f"{e.file} ({e.type})") from error
    if isinstance(listed, str):
        return listed
    if condition is not None and "row_condition" not in listed.arguments["metric_domain_kwargs"]:
        return "Great Expectations judges the rows outside its row_condition too, and may then refuse its own result"
    return _kernel(e, engine, listed, condition)


def _listed(e: Expectation, engine: Any) -> _Metric | str:
    """The metric that lists the rows which break the expectation, or why there is none. Raises SuiteError."""
    from great_expectations.exceptions import MetricProviderError
    from great_expectations.expectations.registry import get_metric_kwargs
    from great_expectations.validator.metric_configuration import MetricConfiguration

    apart = {k: v for k, v in e.kwargs.items() if k not in ("row_condition", "condition_parser", "result_format")}
    configuration = configured(replace(e, kwargs=apart), 0)
    name = getattr(configuration.to_domain_obj(), "map_metric", None)
    if not name or e.type in _SETTLED:
        return "it has no metric function that judges rows"
    name = f"{name}.unexpected_index_list"
    try:
        asked = get_metric_kwargs(name, configuration, {"result_format": {"result_format": "COMPLETE"}})
        return _planned(name, MetricConfiguration(name, asked["metric_domain_kwargs"], asked["metric_value_kwargs"]),
                        engine)
    except MetricProviderError as error:
        return f"Great Expectations has no metric for it on pandas: {error}"


def _planned(name: str, metric: Any, engine: Any) -> _Metric:
    """A metric and what it needs, the facts about the table aside."""
    from great_expectations.expectations.registry import get_metric_provider

    owner, function = get_metric_provider(metric.metric_name, engine)
    needs = owner.get_evaluation_dependencies(metric, None, engine, None)
    arguments = {"cls": owner, "execution_engine": engine, "metric_domain_kwargs": metric.metric_domain_kwargs,
                 "metric_value_kwargs": metric.metric_value_kwargs, "runtime_configuration": {}}
    return _Metric(name, function, arguments, tuple(
        _planned(need, of, engine) for need, of in needs.items() if not need.startswith("table.")))


def _kernel(e: Expectation, engine: Any, listed: _Metric, condition: Condition | None) -> Kernel:
    columns = list(dict.fromkeys(e.columns))
    broken = next(need for need in listed.needs if need.name == "unexpected_condition")

    def load(rows: pa.RecordBatch) -> Any:
        frame = rows.select(columns).to_pandas()
        if condition is not None:
            frame = frame[condition(rows).to_numpy(zero_copy_only=False)]
        engine.load_batch_data("rows", frame)
        return frame

    def bad(rows: pa.RecordBatch) -> pa.BooleanArray | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load(rows)
            try:
                index = _index(broken.value(columns), listed, columns)
            except Exception as error:
                raise MetricRaised(str(error)) from error
        if not len(index):
            return None
        out = np.zeros(rows.num_rows, dtype=bool)
        out[index] = True
        return pa.array(out)

    def judged(rows: pa.RecordBatch) -> int:
        frame = load(rows)
        if "column" not in e.kwargs:
            return len(engine.get_domain_records(broken.arguments["metric_domain_kwargs"]))
        return len(frame) if e.type in _NULLITY else int(frame[columns[0]].notnull().sum())

    named: list[str | Column] = []
    for name in e.columns:
        named += [", " if named else "", f"{name} ", Column(name)]
    return Kernel(bad, (*named, f" breaks {e.type}"), judged)


def _index(found: tuple[Any, Any, Any], listed: _Metric, columns: list[str]) -> Any:
    """The rows found unexpected, by number. They are found as a mask over the rows judged, which keep their numbers. A
    mask of other values than true and false selects what it may, or makes Great Expectations raise."""
    mask = found[0]
    if getattr(mask, "dtype", None) == np.bool_ and hasattr(mask, "index"):
        return mask.index.to_numpy()[mask.to_numpy()]
    metrics = {"table.columns": columns, "unexpected_condition": found}
    return np.array(listed.function(**listed.arguments, metrics=metrics), dtype=np.int64)
