"""What a text column is made of, found out at a small part of the cost of a kernel over it, so that the kernel can be
spared: values that repeat themselves are judged once each, and plain ASCII needs no decoding."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROWS_MIN = 4_096
"""In fewer rows there is nothing to be saved."""
RUNS, RUN = 8, 128
"""The sample: so many runs of so many rows, spread over the column. In runs, sorted values show that they repeat; over
the column, others do."""


def repeats(column: pa.Array) -> bool:
    """Whether a sample says that a text column has so few values, a quarter of its rows or less, that finding them
    costs less than a regular expression over all rows."""
    n = len(column)
    if n < ROWS_MIN:
        return False
    starts = [at * (n - RUN) // (RUNS - 1) for at in range(RUNS)]
    sample = pa.concat_arrays([column.slice(start, RUN) for start in starts])
    # Of n rows drawn from N with D values among them, n² / 2D are there a second time, if no value is commoner than
    # others; with D ≤ N / 4, 2n² / N or more.
    return bool((len(sample) - len(sample.unique())) * n >= 2 * len(sample) ** 2)


def text_of(column: pa.Array) -> bytes:
    """The text of all values, one after the other in UTF-8. Beneath a null there may be text, too."""
    if not len(column):
        return b""
    _, offsets, data = column.buffers()
    kind = np.dtype(np.int32 if pa.types.is_string(column.type) else np.int64)
    ends = np.frombuffer(offsets, kind, len(column) + 1, column.offset * kind.itemsize)
    first, last = int(ends[0]), int(ends[-1])
    return b"" if data is None else bytes(data.slice(first, last - first).to_pybytes())


def all_ascii(column: pa.Array) -> bool:
    """Whether no value of a text column has a character beyond ASCII."""
    return text_of(column).isascii() or bool(pc.all(pc.string_is_ascii(column), min_count=0).as_py())


def has(column: pa.Array, text: str) -> bool:
    """Whether a value of a text column contains `text`."""
    return text.encode() in text_of(column) and bool(
        pc.any(pc.match_substring(column, text), min_count=0).as_py())


def characters(column: pa.Array) -> pa.Array:
    """The number of characters (code points) of each value of a text column."""
    return pc.binary_length(column) if text_of(column).isascii() else pc.utf8_length(column)
