"""The verdict of an expectation that judges rows (a map expectation) from the mask of the rows that break it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.results.values import listed
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict

LISTED_MAX, SAMPLED_MAX = 200, 20
"""Values in `unexpected_list`, and in the lists called partial. Rows are all listed."""
NULLITY = frozenset({"expect_column_values_to_be_null", "expect_column_values_to_not_be_null"})
"""They judge nulls as rows like others, and so tell of none that is missing."""


def map_verdict(e: Expectation, rows: pa.RecordBatch, mask: pa.BooleanArray | None, judged: int, *,
                index: np.ndarray[Any, np.dtype[np.int64]] | None = None,
                whole: pa.RecordBatch | None = None) -> Verdict:
    """The verdict on a batch of a column, a pair of columns or a list of columns, judged row by row.

    `rows` are those its row_condition leaves, with the columns it names; `mask`, of their length, says which break it
    (null counts as no), or None when none does; `judged` is how many of them it judges. `index` gives the place of
    each row in the whole batch and `whole` that batch (its nulls settle which numbers are listed as floats); without
    them, `rows` is the whole batch. At most LISTED_MAX values are converted.
    """
    bad = pa.array([], pa.uint64()) if mask is None else pc.indices_nonzero(mask)
    places = (bad.to_numpy() if index is None else index[bad.to_numpy()]).tolist()
    values = _values(e, rows, bad.slice(0, LISTED_MAX), rows if whole is None else whole)
    result = count_verdict(e, rows.num_rows, judged, len(places), values[:SAMPLED_MAX])
    counts = _counts(values)
    result |= {} if counts is None else {"partial_unexpected_counts": counts}
    result |= {"partial_unexpected_index_list": places[:SAMPLED_MAX], "unexpected_list": values,
               "unexpected_index_list": places, "unexpected_index_query": f"df.filter(items={places}, axis=0)"}
    return Verdict(holds(e, judged, len(places)), result)


def count_verdict(e: Expectation, rows: int, judged: int, bad: int, values: Sequence[Any]) -> dict[str, Any]:
    """Of the result what follows from counts: `rows` there are, `judged` of them count, `bad` break it; `values` are
    the first that do."""
    percent = _percent(bad, judged)
    result: dict[str, Any] = {"element_count": rows, "unexpected_count": bad, "unexpected_percent": percent,
                              "partial_unexpected_list": values}
    if e.type not in NULLITY:
        missing = rows - judged
        result |= {"missing_count": missing, "missing_percent": _percent(missing, rows),
                   "unexpected_percent_total": _percent(bad, rows), "unexpected_percent_nonmissing": percent}
    return result


def holds(e: Expectation, judged: int, bad: int) -> bool:
    """In floating point, as it comes: 1 - bad / judged would differ in the last digit."""
    return not judged or (judged - bad) / judged >= e.mostly


def _percent(part: int, total: int) -> float | None:
    return part / total * 100 if total else None


def _values(e: Expectation, rows: pa.RecordBatch, at: pa.Array, whole: pa.RecordBatch) -> list[Any]:
    """Values of a column, tuples of a pair, dicts of a list of columns."""
    pair = e.kwargs.get("column_A") is not None
    columns = [listed(rows.column(c), at, whole.column(c), "numpy" if pair else "series") for c in e.columns]
    if pair:
        return list(zip(*columns, strict=True))
    if e.kwargs.get("column_list") is not None:
        return [dict(zip(e.columns, row, strict=True)) for row in zip(*columns, strict=True)]
    return columns[0]


def _counts(values: Sequence[Any]) -> list[dict[str, Any]] | None:
    """The values listed most often, by count, then value; None where they have no order or no hash, as lists have
    none. Of values that occur alike, the first SAMPLED_MAX to come are in it."""
    keys = [tuple(v.values()) for v in values] if values and isinstance(values[0], dict) else values
    try:
        common = sorted(Counter(keys).most_common(SAMPLED_MAX), key=lambda pair: (-pair[1], pair[0]))
    except TypeError:
        return None
    return [{"value": value, "count": count} for value, count in common]
