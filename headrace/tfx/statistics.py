"""Rows → TFX's DatasetFeatureStatisticsList, by Polars: a feature a column, a struct's members by their path.

Meanings as in TFDV: a list counts all its values, std_dev is the population's, NaN is left out of the numbers and
counted in the histograms, histograms have ten buckets each of equal width and of equal count. Booleans and times are
whole numbers, times in their column's own unit; decimals are floats.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.tfx import proto

if TYPE_CHECKING:
    import polars as pl

Message = Any
BUCKETS, TOP_MAX = 10, 20


def statistics(rows: pa.Table | pa.RecordBatch, name: str = "") -> Message:
    """A DatasetFeatureStatisticsList of one data set. Raises MissingExtra."""
    import polars as pl

    module = proto("statistics")
    made = module.DatasetFeatureStatisticsList()
    data = made.datasets.add(name=name, num_examples=rows.num_rows, weighted_num_examples=rows.num_rows)
    frame = pl.from_arrow(pa.table(rows))
    assert isinstance(frame, pl.DataFrame)
    for column in frame.get_columns():
        _feature(data, (column.name,), column)
    return made


def _feature(data: Message, path: tuple[str, ...], column: pl.Series) -> None:
    """Adds the statistics of one column, and those of a struct's members after it."""
    import polars as pl

    made = data.features.add()
    made.path.step.extend(path)
    values, lengths = column, None
    if isinstance(column.dtype, pl.List | pl.Array):
        lengths = column.drop_nulls().list.len() if isinstance(column.dtype, pl.List) else column.drop_nulls().arr.len()
        values = column.drop_nulls().explode(empty_as_null=False)
    kind, part, numbers = _kind(made, values)
    made.type = made.Type.Value(kind)
    _common(part.common_stats, column, lengths)
    values = values.drop_nulls()
    if kind in ("INT", "FLOAT"):
        _numeric(part, numbers.drop_nulls())
    elif kind == "STRING":
        _texts(part, values)
    elif kind == "BYTES":
        sizes = values.bin.size()
        part.unique = values.n_unique()
        if len(sizes):
            part.avg_num_bytes, part.min_num_bytes, part.max_num_bytes = sizes.mean(), sizes.min(), sizes.max()
            part.max_num_bytes_int = sizes.max()
    else:
        for field in values.struct.fields if values.dtype == pl.Struct else []:
            _feature(data, (*path, field), values.struct.field(field))


def _kind(made: Message, values: pl.Series) -> tuple[str, Message, pl.Series]:
    """(type, the part of the message for it, the values as numbers where they are)."""
    import polars as pl

    dtype = values.dtype
    if dtype.is_float() or dtype.is_decimal():
        return "FLOAT", made.num_stats, values.cast(pl.Float64)
    if dtype.is_integer() or dtype.is_temporal() or dtype == pl.Boolean:
        return "INT", made.num_stats, values.to_physical().cast(pl.Int64)
    if dtype == pl.Binary:
        return "BYTES", made.bytes_stats, values
    if isinstance(dtype, pl.Struct):
        return "STRUCT", made.struct_stats, values
    return "STRING", made.string_stats, values


def _common(part: Message, column: pl.Series, lengths: pl.Series | None) -> None:
    missing = column.null_count()
    here = len(column) - missing
    part.num_missing, part.num_non_missing = missing, here
    if not here:
        return
    if lengths is None:
        part.min_num_values = part.max_num_values = part.avg_num_values = 1
        part.tot_num_values = here
    else:
        part.min_num_values, part.max_num_values = lengths.min(), lengths.max()
        part.avg_num_values, part.tot_num_values = lengths.mean(), lengths.sum()


def _numeric(part: Message, values: pl.Series) -> None:
    nan = int(values.is_nan().sum()) if values.dtype.is_float() else 0
    values = values.drop_nans() if nan else values
    part.num_zeros = int((values == 0).sum())
    if not len(values):
        return
    part.mean, part.std_dev = values.mean(), values.std(ddof=0)
    part.min, part.median, part.max = values.min(), values.median(), values.max()
    finite = values.filter(values.is_finite()) if values.dtype.is_float() else values
    for kind, buckets in (("STANDARD", _even(finite)), ("QUANTILES", _quantiles(finite))):
        drawn = part.histograms.add(num_nan=nan, num_undefined=len(values) - len(finite))
        drawn.type = drawn.HistogramType.Value(kind)
        for low, high, count in buckets:
            drawn.buckets.add(low_value=low, high_value=high, sample_count=count)


def _even(values: pl.Series) -> Iterator[tuple[float, float, float]]:
    """Buckets of equal width; all but the last without their upper end."""
    import numpy as np

    if len(values):
        counts, edges = np.histogram(values.to_numpy(), BUCKETS)
        yield from zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)


def _quantiles(values: pl.Series) -> Iterator[tuple[float, float, float]]:
    """Buckets of equal count."""
    import numpy as np

    if len(values):
        edges = np.quantile(values.to_numpy(), np.linspace(0, 1, BUCKETS + 1)).tolist()
        for low, high in pairwise(edges):
            yield low, high, len(values) / BUCKETS


def _texts(part: Message, values: pl.Series) -> None:
    """Top values by how often they are, then by themselves."""
    import polars as pl

    values = values.cast(pl.String)
    part.unique = values.n_unique()
    if not len(values):
        return
    part.avg_length = values.str.len_bytes().mean()
    top = values.alias("value").value_counts(name="n").sort(["n", "value"], descending=[True, False]).head(TOP_MAX)
    for rank, (value, n) in enumerate(top.iter_rows()):
        part.top_values.add(value=value, frequency=n)
        part.rank_histogram.buckets.add(low_rank=rank, high_rank=rank, label=value, sample_count=n)
