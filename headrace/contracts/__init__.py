"""Contracts: Great Expectations suites, judged at stream speed with Great Expectations' own verdicts.

    contract = compile_suite(load("schemas/departure.expectations.json"), schema)
    report = contract.check(rows)        # report.row_mask, report.counts, report.reasons(index), report.failures

Each expectation is judged in one of three ways, and `contract.explain()` says which and why: *compiled* to Arrow
kernels; *whole*, by Great Expectations itself on the batch (imported only then); or settled by the *schema* before any
record comes. Verdicts over many records (unique, means, counts) are refused: they would depend on where a batch ends.
"""

from __future__ import annotations

from headrace.contracts.actions import Action, actions_of
from headrace.contracts.contract import Check, Contract, compile_suite
from headrace.contracts.report import Report
from headrace.contracts.shadow import Shadow
from headrace.contracts.suite import Expectation, Suite, load, parse, suite_path
from headrace.contracts.windows.windowed import Windowed

__all__ = ["Action", "Check", "Contract", "Expectation", "Report", "Shadow", "Suite", "Windowed", "actions_of",
           "compile_suite", "load", "parse", "suite_path"]
