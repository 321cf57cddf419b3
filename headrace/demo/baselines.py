"""What needs no loop, reckoned beside it: the same model trained once, and retrained every month whatever happens.

    python -m headrace.demo.baselines FLOW.yaml OUT.npz [--last YYYY-MM-DD]

    static            trained once, on January and February
    last_two_months   retrained on the first of every month, on the two months before
    cumulative        retrained on the first of every month, on all so far

Features, algorithm and seed are those that the flow declares. Each training has exactly the rows that the loop could
have at that time: flights that pass the contract on departures, whose outcome was known. A process of its own, which
steps back for the loop. OUT.npz has `flight_id` and, for each policy, the probability of every flight from March on
(NaN before), and how often it was trained.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.demo.data import Flights

if TYPE_CHECKING:
    from headrace.loop.training import ModelSpec

POLICIES: Mapping[str, int | None] = {"static": 0, "last_two_months": 2, "cumulative": None}
"""Name → how many months back each training goes; None is all so far, 0 is no training after the first."""
FIRST_MONTH = 3
NICE = 15
"""Nobody waits for it before the year is over."""
YEAR, DAY_BEGINS_H = 2013, 5


@dataclass(frozen=True, slots=True)
class Known:
    """The flights as a training may see them: rows of features and outcome, which of them pass the contract, the month
    of each in New York."""

    rows: pa.Table
    valid: Any
    month: Any
    at_ms: Any

    @property
    def months(self) -> list[int]:
        """Those in which there are predictions."""
        return [int(month) for month in np.unique(self.month) if month >= FIRST_MONTH]


def known(flights: Flights, project: Path) -> Known:
    """The rows, and what the suite `departure` of a project says of them. Raises MissingExtra, ContractError."""
    from headrace.contracts import compile_suite, load
    from headrace.demo import features

    suite = load(project / "schemas" / "departure.expectations.json")
    valid = compile_suite(suite, flights.departures.schema).check(flights.departures).row_mask
    month = np.array([day.date.month for day in flights.days])[flights.day]
    return Known(features.rows(flights), valid.to_numpy(zero_copy_only=False), month, flights.at_ms)


def begin_ms(month: int) -> int:
    """When a month begins in New York."""
    return round(datetime(YEAR, month, 1, DAY_BEGINS_H, tzinfo=UTC).timestamp() * 1000)


def reckon(spec: ModelSpec, it: Known, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Policy → a probability for every flight, and `<policy>.trained`. The same rows are trained on once."""
    from headrace.loop import training

    fitted: dict[bytes, Any] = {}
    out: dict[str, Any] = {}
    for policy, back in POLICIES.items():
        scores, trained = np.full(it.rows.num_rows, np.nan), 0
        for month in it.months:
            as_of = begin_ms(FIRST_MONTH if back == 0 else month)
            since = begin_ms(month - back) if back else 0
            mask = it.valid & training.known(spec, it.rows, as_of) & (it.at_ms >= since)
            key = np.packbits(mask).tobytes()
            if key not in fitted:
                began = time.perf_counter()
                fitted[key] = training.fit(spec, it.rows.filter(pa.array(mask)), "all", as_of)
                say(f"{policy}, month {month}: {int(mask.sum()):,} rows, {time.perf_counter() - began:.1f} s")
            trained += back != 0 or month == FIRST_MONTH
            mine = it.month == month
            scores[mine] = training.predict(fitted[key], it.rows.filter(pa.array(mine)))
        out |= {policy: scores, f"{policy}.trained": trained}
    return out


def spec_of(flow: Path) -> ModelSpec:
    """The model that a flow declares. Raises ConfigError."""
    from headrace.flow import load
    from headrace.loop.training import ModelSpec

    [(name, declared)] = load(flow).models.items()
    return ModelSpec.model_validate({"name": name, **declared["learn"]})


def main(arguments: Sequence[str] | None = None) -> int:
    """See the top. The exit code."""
    from headrace.demo import data

    parser = argparse.ArgumentParser(prog="python -m headrace.demo.baselines", description="What needs no loop.")
    parser.add_argument("flow", type=Path, help="the flow that declares the model")
    parser.add_argument("out", type=Path, help="where the predictions go")
    parser.add_argument("--last", type=date.fromisoformat, default=date.max, help="the last day")
    asked = parser.parse_args(arguments)
    os.nice(NICE)
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    flights = data.flights(last=asked.last)
    spec = spec_of(asked.flow)
    made = reckon(spec, known(flights, Path.cwd()), lambda text: print(text, file=sys.stderr, flush=True))
    part = asked.out.with_suffix(".part.npz")
    np.savez(part, flight_id=flights.departures["flight_id"].to_numpy(), **made)
    part.replace(asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
