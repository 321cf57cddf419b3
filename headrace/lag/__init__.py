"""Consumer lag, in records and in time, of any group, headrace's or not.

    groups = measure(settings)                   # asks the broker once, read-only
    groups["headrace.departures"].lag            # records

`compute.py` is pure, `read.py` asks the broker.
"""

from __future__ import annotations

from headrace.lag.compute import GroupLag, PartitionLag, Trend, as_json, trend
from headrace.lag.read import Known, measure

__all__ = ["GroupLag", "Known", "PartitionLag", "Trend", "as_json", "measure", "trend"]
