"""The suite of ten that every library in `bench/contracts.py` runs on flights, what it is timed by, and what it tells.

Each script beside this one (`contracts_<library>.py FOLDER`) says the same ten in its library's own words and hands
`tell` a function from a frame to how many rows break what. It depends on nothing, as the libraries have nothing in
common.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

CARRIERS = ["9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "MQ", "UA", "US", "VX", "WN"]
FAR = ["HNL", "ANC"]
TAIL = r"^N[1-9][0-9A-Z]{2,4}$"
TIME = "%Y-%m-%dT%H:%M:%SZ"


def _expectation(id_: str, type_: str, **kwargs: object) -> dict[str, Any]:
    return {"id": id_, "type": f"expect_{type_}", "kwargs": kwargs, "meta": {}, "severity": "critical"}


SUITE: dict[str, Any] = {"name": "ten", "expectations": [
    _expectation("departed", "column_values_to_not_be_null", column="dep_time"),
    _expectation("distance", "column_values_to_be_between", column="distance", min_value=50, max_value=5000),
    _expectation("delay", "column_values_to_be_between", column="dep_delay", min_value=-30, max_value=480),
    _expectation("carrier", "column_values_to_be_in_set", column="carrier", value_set=CARRIERS),
    _expectation("tailnum", "column_values_to_match_regex", column="tailnum", regex=TAIL),
    _expectation("tailnum_length", "column_value_lengths_to_equal", column="tailnum", value=6),
    _expectation("lands_later", "column_pair_values_a_to_be_greater_than_b", column_A="arr_time",
                 column_B="dep_time", ignore_row_if="either_value_is_missing"),
    _expectation("goes_elsewhere", "select_column_values_to_be_unique_within_record",
                 column_list=["origin", "dest"]),
    _expectation("not_far", "column_values_to_not_be_in_set", column="dest", value_set=FAR),
    _expectation("hour", "column_values_to_match_strftime_format", column="time_hour", strftime_format=TIME)]}
"""As Great Expectations writes it. What is null is not judged, but by the first."""
IDS = [e["id"] for e in SUITE["expectations"]]
ROWS = 1_000, 100_000
"""Rows a call. The first are the second's, in parts: all of them break what the whole breaks."""
CALLS_MIN, PASS_S = 5, 2.0
"""Each size is timed for at least so many calls, and so long; and every frame is checked once."""
Frame = TypeVar("Frame")


def file() -> str:
    """The flights, an Arrow file in record batches of ROWS[0]."""
    return f"{sys.argv[1]}/flights.arrow"


def suite() -> dict[str, Any]:
    """SUITE, without those whose ids the command names after the folder (`contracts_headrace` and `contracts_gx`)."""
    return {**SUITE, "expectations": [e for e in SUITE["expectations"] if e["id"] not in sys.argv[2:]]}


def timed(check: Callable[[Frame], Mapping[str, int]], frames: Sequence[Frame]) -> dict[str, Any]:
    """{ms: the median of a call, which the first, cold ones do not move; calls; broken: {id: rows}}, of `check`."""
    broken, spent = Counter(dict.fromkeys(IDS, 0)), list[float]()
    while len(spent) < max(len(frames), CALLS_MIN) or sum(spent) < PASS_S:
        frame = frames[len(spent) % len(frames)]
        begun = time.perf_counter()
        found = check(frame)
        spent.append(time.perf_counter() - begun)
        if len(spent) <= len(frames):
            broken.update(found)
    return {"ms": statistics.median(spent) * 1e3, "calls": len(spent), "broken": dict(broken)}


def tell(engine: str, version: str, small: Sequence[Frame], large: Frame,
         check: Callable[[Frame], Mapping[str, int]]) -> None:
    """Time both sizes and print the one line that the runner reads. What `check` leaves out, no row breaks."""
    found = {rows: timed(check, frames) for rows, frames in zip(ROWS, (small, [large]), strict=True)}
    print(json.dumps({"engine": engine, "version": version, "rows": found}), flush=True)
