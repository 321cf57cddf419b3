"""What is held against a window that no Great Expectations suite has a word for: unique over the window, order within a
partition, volume and freshness. They stand on positions and times of records, never on a clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from headrace.config import Config
from headrace.contracts.suite import SEVERITIES
from headrace.errors import SchemaError
from headrace.eventtime import Duration
from headrace.marked import nearest

EXAMPLES_MAX = 20
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


class VolumeConfig(Config):
    """How many records a window has."""

    min: int = Field(0, ge=0, description="At least so many. With 1 or more, windows without any record are told too, "
                     "once a later one has some.")
    max: int | None = Field(None, ge=0, description="At most so many.")
    change_max: float | None = Field(None, gt=0, description="At most this part more, or less, than the windows before "
                                     "had on average: 0.5 is half as much again, or half.")
    windows: int = Field(7, ge=2, le=100, description="How many windows before are averaged; with fewer than two there "
                         "is no verdict on the change.")


class WatchConfig(Config):
    """One thing to hold against each window: `unique`, `order`, `volume` or `freshness`."""

    unique: list[str] | None = Field(None, min_length=1, description="No two records of a window have the same values "
                                     "in these columns. Records with a null in one are passed over.")
    order: str | None = Field(None, description="Within a partition, values of this column never go down.")
    volume: VolumeConfig | None = Field(None, description="How many records a window has.")
    freshness: Duration | None = Field(None, description="How old the newest data may become: at each record, its "
                                       "Kafka timestamp less the latest event time before it. Needs a window by time.")
    severity: str = Field("critical", description="critical: the window is not well; warning and info: it is told.",
                          json_schema_extra={"enum": list(SEVERITIES)})
    id: str | None = Field(None, description="Its name in verdicts; left out: the kind and its columns.")

    @model_validator(mode="after")
    def _one_kind(self) -> WatchConfig:
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"say one of {', '.join(KINDS)}{f', not {len(kinds)}' if kinds else ''}")
        if self.severity not in SEVERITIES:
            raise ValueError(f"“{self.severity}” is no severity: {', '.join(SEVERITIES)}")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def columns(self) -> list[str]:
        return self.unique or ([self.order] if self.order else [])

    @property
    def range(self) -> tuple[float | None, float | None]:
        """Between what its observed number is to be; None: no bound."""
        if self.volume is not None:
            return self.volume.min or None, self.volume.max
        return (None, self.freshness) if self.freshness is not None else (0, 0)

    @property
    def name(self) -> str:
        return self.id or "__".join([self.kind, *self.columns])


KINDS = ("unique", "order", "volume", "freshness")


@dataclass(frozen=True, slots=True)
class Told:
    """What a watch says of a window. `observed` is a number: records doubled, or out of order; of a volume, records;
    of freshness, milliseconds; None where nothing could be said."""

    watch: WatchConfig
    success: bool
    observed: float | None
    says: str
    """What was found, in a few words."""
    examples: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        return {"id": self.watch.name, "type": self.watch.kind, "severity": self.watch.severity,
                "success": self.success, "columns": self.watch.columns, "observed": self.observed, "says": self.says,
                "range": list(self.watch.range), "examples": list(self.examples)}


def check(watches: Sequence[WatchConfig], schema: pa.Schema, *, timed: bool) -> None:
    """Raises SchemaError for columns that are not there or cannot be ordered, and for two of one name."""
    names = [watch.name for watch in watches]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SchemaError(f"two checks have the name “{twice[0]}”", hint="give one of them an `id`")
    for watch in watches:
        for column in watch.columns:
            if column not in schema.names:
                raise SchemaError(f"`{watch.kind}`: “{column}” is no column of the rows{nearest(column, schema.names)}")
        if watch.order is not None and not _has_order(schema.field(watch.order).type):
            raise SchemaError(f"`order`: {watch.order} is {schema.field(watch.order).type}; it must be a number or "
                              "a time")
        if watch.freshness is not None and not timed:
            raise SchemaError("`freshness` needs the records' event time", hint="a window of `time`, `on` a column")


def _has_order(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_timestamp(type_)
                or pa.types.is_date(type_) or pa.types.is_time(type_))


def out_of_order(column: pa.Array, last: float | None) -> tuple[Ints, float | None]:
    """Of one partition's records, in their order: which are below one before them; and the highest value, to be given
    back with the records that follow. Nulls and NaN are passed over."""
    there = pc.and_(column.is_valid(), pc.invert(pc.fill_null(pc.is_nan(column), False))) if pa.types.is_floating(
        column.type) else column.is_valid()
    index = np.flatnonzero(there.to_numpy(zero_copy_only=False))
    if not len(index):
        return np.array([], np.int64), last
    values = _numbers(column.take(pa.array(index)))
    first = values[:1] if last is None else np.array([last], values.dtype)
    highest = np.maximum.accumulate(np.concatenate([first, values]))
    return index[values < highest[:-1]], highest[-1].item()


def _numbers(column: pa.Array) -> np.ndarray[Any, Any]:
    """Integers as they are, times as the integers they are."""
    type_ = column.type
    if pa.types.is_floating(type_):
        return np.asarray(column.cast(pa.float64()).to_numpy())
    if pa.types.is_integer(type_):
        return np.asarray(column.to_numpy())
    whole = pa.int32() if type_.bit_width == 32 else pa.int64()
    return np.asarray(column.view(whole).to_numpy())


def behind(stamps_ms: Ints, highest_ms: Ints, before_ms: int | None) -> Ints:
    """At each record, how far the latest event time before it lies behind its Kafka timestamp, in milliseconds."""
    first = highest_ms[:1] if before_ms is None else np.array([before_ms])
    late: Ints = np.maximum(stamps_ms - np.concatenate([first, highest_ms[:-1]]), 0)
    return late


def unique(watch: WatchConfig, rows: pa.RecordBatch | None, most: int) -> Told:
    """On a window's rows, or None when they were more than `most`."""
    if rows is None:
        return Told(watch, False, None, f"cannot be judged: more than {most:,} records")
    named = pa.Table.from_batches([rows.select(list(dict.fromkeys(watch.columns)))]).drop_null()
    groups = named.group_by(named.column_names, use_threads=False).aggregate([([], "count_all")])
    twice = groups.filter(pc.greater(groups["count_all"], 1))
    doubled = int(pc.sum(twice["count_all"]).as_py() or 0) - twice.num_rows
    examples = [f"{', '.join(str(row[c])[:100] for c in named.column_names)}: {row['count_all']} times"
                for row in twice.slice(0, EXAMPLES_MAX).to_pylist()]
    return Told(watch, not doubled, doubled, f"{_records(doubled, 'repeats', 'repeat')} another one's "
                f"{', '.join(watch.columns)}" if doubled else "none is repeated", examples)


def order(watch: WatchConfig, found: Mapping[str, Any]) -> Told:
    n = found.get("count", 0)
    return Told(watch, not n, n, f"{_records(n, 'has', 'have')} a {watch.order} below an earlier one" if n else
                "in order", found.get("examples", ()))


def _records(n: int, one: str, many: str) -> str:
    return f"1 record {one}" if n == 1 else f"{n:,} records {many}"


def volume(watch: WatchConfig, rows: int, before: Sequence[int]) -> Told:
    """`before` are the counts of the windows before, the last one last."""
    config = watch.volume
    assert config is not None
    wrong = []
    if rows < config.min:
        wrong.append(f"at least {config.min:,} are expected")
    if config.max is not None and rows > config.max:
        wrong.append(f"at most {config.max:,} are expected")
    past = before[-config.windows:]
    if config.change_max is not None and len(past) >= 2:
        mean = float(np.mean(past))
        if mean and abs(rows - mean) > config.change_max * mean:
            wrong.append(f"the {len(past)} windows before had {mean:,.4g} on average")
    return Told(watch, not wrong, rows, f"{_records(rows, '', '').strip()}"
                + (f"; {', and '.join(wrong)}" if wrong else ""))


def freshness(watch: WatchConfig, worst_ms: int | None) -> Told:
    assert watch.freshness is not None
    if worst_ms is None:
        return Told(watch, True, None, "no record")
    ok = worst_ms <= watch.freshness
    return Told(watch, ok, worst_ms, f"the newest data were up to {worst_ms / 1000:,.4g} s old"
                + ("" if ok else f"; at most {watch.freshness / 1000:,.4g} s are allowed"))
