"""What steps that go by event time share: durations as they are written, the times of rows, the rows of a partition."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, WithJsonSchema

from headrace.batch import Meta
from headrace.errors import SchemaError
from headrace.processor import Partition

Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = re.compile(r"(\d{1,9})(ms|s|m|h|d|w)")


def duration_ms(written: Any) -> int:
    """`"15m"` as milliseconds. Raises ValueError."""
    found = _DURATION.fullmatch(written) if isinstance(written, str) else None
    if found is None:
        raise ValueError(f"{written!r} is no duration: a whole number and its unit, e.g. 30s, 15m, 1h, 1d "
                         f"({', '.join(UNITS_MS)})")
    return int(found[1]) * UNITS_MS[found[2]]


Duration = Annotated[int, BeforeValidator(duration_ms),
                     WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$"})]


def by_partition(meta: Meta, keep: Bools | None = None) -> Iterator[tuple[Partition, Ints]]:
    """The rows of each partition (indices, in order), of those to keep."""
    partitions, names = meta.partitions(), meta.topics()
    topics = np.array(names, dtype=object) if len(set(names)) > 1 else None
    for topic in sorted(set(names)):
        mine = np.ones(len(names), dtype=bool) if topics is None else topics == topic
        if keep is not None:
            mine &= keep
        for partition in np.unique(partitions[mine]).tolist():
            yield (topic, partition), np.flatnonzero(mine & (partitions == partition))


def by_number(meta: Meta, keep: Bools) -> Iterator[tuple[int, Ints]]:
    """The rows to keep of each partition number, whatever their topics, which is how keyed state is parted."""
    partitions = meta.partitions()
    for number in np.unique(partitions[keep]).tolist():
        yield number, np.flatnonzero(keep & (partitions == number))


def check_time(column: str, schema: pa.Schema, *, what: str = "window") -> None:
    """Whether the rows have such a column, and it holds times. Raises SchemaError."""
    if column not in schema.names:
        raise SchemaError(f"the {what} is `on` “{column}”, which is no column of the rows; they have "
                          f"{', '.join(schema.names)}")
    held = schema.field(column).type
    if not (pa.types.is_timestamp(held) or pa.types.is_date(held) or pa.types.is_int64(held)):
        raise SchemaError(f"the {what} is `on` “{column}”, which is {held}; it must be a timestamp, a date or a long "
                          "of milliseconds since 1970",
                          hint=f"make one with a `derive` step, e.g. {column}_at: \"CAST({column} AS TIMESTAMP)\"")


def event_times(column: Any) -> tuple[Bools, Ints]:
    """(has a time, milliseconds since 1970) of each row."""
    if not pa.types.is_int64(column.type):
        unit = pa.timestamp("ms", tz=column.type.tz if pa.types.is_timestamp(column.type) else None)
        column = pc.cast(column, unit, safe=False).view(pa.int64())
    present, times = column.is_valid(), column.fill_null(0)
    return present.to_numpy(zero_copy_only=False), times.to_numpy()
