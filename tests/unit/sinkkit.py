"""What the tests of sinks share: records as a poll has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.records import Column, Records


def records(rows: Sequence[Mapping[str, Any] | None] | pa.Array, *, topic: str, first: int = 0, partition: int = 0,
            keys: Sequence[Any] | None = None, schema: pa.Schema | None = None, key_type: pa.DataType | None = None,
            index: Sequence[int] | None = None) -> Records:
    """Records first … of one partition; None is a tombstone. `index`: their places in the poll, where they are not
    all of it."""
    kind = pa.struct(list(schema)) if schema is not None else None
    values = rows if isinstance(rows, pa.Array) else pa.array(rows, kind)
    n = len(rows)
    at = np.arange(n) if index is None else np.array(index)
    return Records(topic=topic, value=Column(values), timestamps_ms=np.full(n, -1), index=at,
                   key=Column.nothing(n) if keys is None else Column(pa.array(keys, key_type)),
                   partitions=np.full(n, partition), offsets=first + at)
