"""Expectations about many rows together, compiled to Arrow: means, extremes, counts, distinct values, quantiles."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.contracts.aggregates import counts, distinct, extremes, moments, quantiles
from headrace.contracts.aggregates.aggregate import Aggregate, Compiler, Partial

AGGREGATES: Mapping[str, Compiler] = {
    "expect_column_max_to_be_between": extremes.extreme,
    "expect_column_min_to_be_between": extremes.extreme,
    "expect_column_mean_to_be_between": moments.mean,
    "expect_column_stdev_to_be_between": moments.stdev,
    "expect_column_sum_to_be_between": moments.sum_,
    "expect_column_median_to_be_between": quantiles.median,
    "expect_column_quantile_values_to_be_between": quantiles.quantiles,
    "expect_column_unique_value_count_to_be_between": distinct.uniqueness,
    "expect_column_proportion_of_unique_values_to_be_between": distinct.uniqueness,
    "expect_column_proportion_of_non_null_values_to_be_between": counts.non_null_proportion,
    "expect_column_most_common_value_to_be_in_set": distinct.most_common,
    "expect_column_distinct_values_to_be_in_set": distinct.value_set,
    "expect_column_distinct_values_to_contain_set": distinct.value_set,
    "expect_column_distinct_values_to_equal_set": distinct.value_set,
    "expect_table_row_count_to_be_between": counts.row_count,
    "expect_table_row_count_to_equal": counts.row_count}
"""Type → its compiler."""

__all__ = ["AGGREGATES", "Aggregate", "Compiler", "Partial"]
