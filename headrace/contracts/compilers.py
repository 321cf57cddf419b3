"""Which compiler each type of expectation has."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa

from headrace.contracts import across, kernels, lists, pairs
from headrace.contracts.aggregates import AGGREGATES, Aggregate
from headrace.contracts.arguments import TAKEN
from headrace.contracts.kernels import Kernel
from headrace.contracts.suite import Expectation
from headrace.contracts.tables import TABLES, compile_table
from headrace.contracts.typed import of_type, to_be

Compiler = Callable[[Expectation, pa.Schema], Kernel | Aggregate | str]
COMPILERS: Mapping[str, Compiler] = {
    **AGGREGATES, **dict.fromkeys(TABLES, compile_table),
    "expect_column_values_to_be_null": kernels.nullity, "expect_column_values_to_not_be_null": kernels.nullity,
    "expect_column_values_to_be_between": kernels.between,
    "expect_column_values_to_be_in_set": kernels.in_set, "expect_column_values_to_not_be_in_set": kernels.in_set,
    "expect_column_values_to_match_regex": kernels.regex, "expect_column_values_to_not_match_regex": kernels.regex,
    "expect_column_values_to_match_regex_list": kernels.regex,
    "expect_column_values_to_not_match_regex_list": kernels.regex,
    "expect_column_value_lengths_to_equal": kernels.lengths,
    "expect_column_value_lengths_to_be_between": kernels.lengths,
    "expect_column_values_to_match_strftime_format": kernels.parseable,
    "expect_column_values_to_be_json_parseable": kernels.parseable,
    "expect_column_values_to_match_json_schema": kernels.parseable,
    "expect_column_pair_values_to_be_equal": pairs.pair,
    "expect_column_pair_values_a_to_be_greater_than_b": pairs.pair,
    "expect_column_pair_values_to_be_in_set": pairs.in_set,
    "expect_multicolumn_values_to_be_equal": lists.equal_values,
    "expect_select_column_values_to_be_unique_within_record": lists.different_values,
    "expect_multicolumn_sum_to_equal": lists.sum_equals,
    "expect_column_values_to_be_unique": across.unique, "expect_compound_columns_to_be_unique": across.compound_unique,
    "expect_column_values_to_be_increasing": across.order, "expect_column_values_to_be_decreasing": across.order,
    "expect_column_value_z_scores_to_be_less_than": across.z_scores,
    "expect_column_values_to_not_be_outliers": across.outliers,
    "expect_column_values_to_be_of_type": of_type, "expect_column_values_to_be_in_type_list": of_type,
    "expect_column_type_to_be": to_be}


def compiled(e: Expectation, schema: pa.Schema) -> Kernel | Aggregate | str:
    """The expectation in Arrow, or why it is not. Raises SuiteError where the verdict could only ever be an error."""
    compiler = COMPILERS.get(e.type)
    if compiler is None:
        return "there is no kernel for this type"
    unknown = [k for k, v in e.kwargs.items() if k not in TAKEN[e.type] and v is not None]
    return f"it has {', '.join(unknown)}" if unknown else compiler(e, schema)
