"""The verdicts of a suite as Great Expectations serialises them: an ExpectationSuiteValidationResult."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.contracts.results.values import as_json
from headrace.contracts.suite import Expectation, Suite
from headrace.contracts.verdict import Verdict

VERSION = "1.24.1"
"""The Great Expectations whose verdicts these are."""
_IDS = uuid.UUID("6f2d0a54-3c1b-5a0e-9d57-0c8f6b1e7a42")


def suite_result(suite: Suite, verdicts: Sequence[tuple[Expectation, Verdict]], *,
                 meta: Mapping[str, Any]) -> dict[str, Any]:
    """What `ExpectationSuiteValidationResult.to_json_dict()` would give, in the suite's order, to be written as JSON
    or loaded by `ExpectationSuiteValidationResultSchema`.

    `verdicts` come in any order and are matched by id; an expectation without one is left out, as one that was not
    evaluated. Data Docs show these of `meta`: `run_id` ({"run_name": …, "run_time": ISO 8601}), `batch_spec`
    ({"data_asset_name": what the data is called, …}) and `batch_markers`. Its `batch_id` goes to the expectations,
    where Great Expectations has it. Raises ValueError for a verdict on an expectation that is not of the suite.
    """
    known = {e.id: verdict for e, verdict in verdicts}
    strange = known.keys() - {e.id for e in suite.expectations}
    if strange:
        raise ValueError(f"{suite.file} has no expectation {', '.join(sorted(strange))}")
    results = [_result(suite, e, known[e.id], meta.get("batch_id")) for e in suite.expectations if e.id in known]
    evaluated, successful = len(results), sum(r["success"] for r in results)
    return {
        "success": successful == evaluated, "results": results, "suite_name": suite.name, "suite_parameters": {},
        "statistics": {"evaluated_expectations": evaluated, "successful_expectations": successful,
                       "unsuccessful_expectations": evaluated - successful,
                       "success_percent": successful / evaluated * 100 if evaluated else None},
        "meta": as_json({"great_expectations_version": VERSION, **{k: v for k, v in meta.items() if k != "batch_id"}}),
        "id": None}


def _result(suite: Suite, e: Expectation, verdict: Verdict, batch_id: str | None) -> dict[str, Any]:
    """One of the `results`. What was raised stands for its traceback, too: Data Docs want a text there."""
    batch = {} if batch_id is None else {"batch_id": batch_id}
    id_ = _uuid(suite, e)
    mine = {} if id_ == e.id else {"headrace_id": e.id}
    return {
        "success": verdict.success,
        "expectation_config": {"type": e.type, "kwargs": as_json({**e.kwargs, **batch}),
                               "meta": as_json({**e.meta, **mine}), "id": id_, "severity": e.severity},
        "result": as_json(dict(verdict.result)), "meta": {},
        "exception_info": {"raised_exception": verdict.raised is not None, "exception_traceback": verdict.raised,
                           "exception_message": verdict.raised}}


def _uuid(suite: Suite, e: Expectation) -> str:
    """Great Expectations reads a result back only if its ids are UUIDs: the expectation's own, or else one made of the
    names of suite and expectation, the same in every run."""
    try:
        return str(uuid.UUID(e.id))
    except ValueError:
        return str(uuid.uuid5(_IDS, f"{suite.name}/{e.id}"))
