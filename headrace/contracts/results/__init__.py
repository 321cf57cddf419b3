"""Verdicts in Great Expectations' own form: what 1.24.1 says of a batch with result_format COMPLETE, and serialises.

    verdict = map_verdict(e, rows, kernel.bad(rows), kernel.judged(rows))
    suite_result(suite, [(e, verdict), …], meta={"run_id": …})     # JSON that its stores and its Data Docs read
"""

from __future__ import annotations

from headrace.contracts.results.maps import count_verdict, holds, map_verdict
from headrace.contracts.results.suites import suite_result

__all__ = ["count_verdict", "holds", "map_verdict", "suite_result"]
