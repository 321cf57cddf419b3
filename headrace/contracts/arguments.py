"""Which arguments each type of expectation takes, as of Great Expectations 1.24.1, which refuses all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_CONDITION = "row_condition condition_parser"
_BOUNDS = "min_value max_value strict_min strict_max"
_COLUMN = f"column {_CONDITION}"
_ANYWHERE = frozenset(["result_format", "catch_exceptions", "meta", "notes", "description", "batch_id", "windows"])
_TABLE = {  # what they take → types, without expect_
    f"{_COLUMN} mostly": "column_values_to_be_null column_values_to_not_be_null column_values_to_be_json_parseable "
                         "column_values_to_be_dateutil_parseable column_values_to_be_unique",
    f"{_COLUMN} mostly value_set": "column_values_to_be_in_set column_values_to_not_be_in_set",
    f"{_COLUMN} mostly {_BOUNDS}": "column_values_to_be_between column_value_lengths_to_be_between",
    f"{_COLUMN} mostly value": "column_value_lengths_to_equal",
    f"{_COLUMN} mostly regex": "column_values_to_match_regex column_values_to_not_match_regex",
    f"{_COLUMN} mostly regex_list match_on": "column_values_to_match_regex_list",
    f"{_COLUMN} mostly regex_list": "column_values_to_not_match_regex_list",
    f"{_COLUMN} mostly strftime_format": "column_values_to_match_strftime_format",
    f"{_COLUMN} mostly json_schema": "column_values_to_match_json_schema",
    f"{_COLUMN} mostly type_": "column_values_to_be_of_type",
    f"{_COLUMN} mostly type_list": "column_values_to_be_in_type_list",
    f"{_COLUMN} mostly strictly": "column_values_to_be_increasing column_values_to_be_decreasing",
    f"{_COLUMN} mostly threshold double_sided": "column_value_z_scores_to_be_less_than",
    f"{_COLUMN} mostly method multiplier": "column_values_to_not_be_outliers",
    f"column_A column_B {_CONDITION} mostly ignore_row_if": "column_pair_values_to_be_equal",
    f"column_A column_B {_CONDITION} mostly ignore_row_if or_equal": "column_pair_values_a_to_be_greater_than_b",
    f"column_A column_B {_CONDITION} mostly ignore_row_if value_pairs_set": "column_pair_values_to_be_in_set",
    f"column_list {_CONDITION} mostly ignore_row_if": "multicolumn_values_to_be_equal compound_columns_to_be_unique "
                                                      "select_column_values_to_be_unique_within_record",
    f"column_list {_CONDITION} mostly ignore_row_if sum_total": "multicolumn_sum_to_equal",
    f"{_COLUMN} {_BOUNDS}": " ".join(f"column_{what}_to_be_between" for what in (
        "max", "min", "mean", "median", "stdev", "sum", "unique_value_count", "proportion_of_unique_values",
        "proportion_of_non_null_values")),
    f"{_COLUMN} quantile_ranges allow_relative_error": "column_quantile_values_to_be_between",
    f"{_COLUMN} value_set ties_okay": "column_most_common_value_to_be_in_set",
    f"{_COLUMN} value_set": "column_distinct_values_to_be_in_set column_distinct_values_to_contain_set "
                            "column_distinct_values_to_equal_set",
    f"{_CONDITION} {_BOUNDS}": "table_row_count_to_be_between", f"{_CONDITION} value": "table_row_count_to_equal",
    "column column_index": "column_to_exist", "column type_": "column_type_to_be",
    "value": "table_column_count_to_equal", "min_value max_value": "table_column_count_to_be_between",
    "column_list": "table_columns_to_match_ordered_list", "column_set exact_match": "table_columns_to_match_set"}


def _taken() -> Iterator[tuple[str, frozenset[str]]]:
    for names, types in _TABLE.items():
        for type_ in types.split():
            yield f"expect_{type_}", _ANYWHERE.union(names.split())


TAKEN: Mapping[str, frozenset[str]] = dict(_taken())
"""Of every type that is compiled."""
