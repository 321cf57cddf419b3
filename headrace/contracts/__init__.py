"""Contracts: Great Expectations suites, judged at stream speed with Great Expectations' own verdicts.

    contract = compile_suite(load("schemas/departure.expectations.json"), schema)
    report = contract.check(rows)        # report.row_mask, report.counts, report.reasons(index), report.failures

Each expectation is judged in one of three ways, and `contract.explain()` says which and why: *compiled* to Arrow
kernels; *whole*, by Great Expectations itself on the batch (imported only then); or settled by the *schema* before any
record comes. Verdicts over many records (unique, means, counts) are refused: they would depend on where a batch ends.
"""

from __future__ import annotations

from headrace.contracts.contract import Check, Contract, Report, compile_suite
from headrace.contracts.suite import Expectation, Suite, load, parse

__all__ = ["Check", "Contract", "Expectation", "Report", "Suite", "compile_suite", "load", "parse"]
