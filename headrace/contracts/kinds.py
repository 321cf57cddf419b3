"""What kind of expectation each type is: does it judge a row, a batch, or the schema? A table, as of 1.24.1."""

from __future__ import annotations

import difflib

from headrace.contracts.suite import Expectation

ROWS: frozenset[str] = frozenset({
    "expect_column_values_to_be_null", "expect_column_values_to_not_be_null", "expect_column_values_to_be_in_set",
    "expect_column_values_to_not_be_in_set", "expect_column_values_to_be_between",
    "expect_column_values_to_match_regex", "expect_column_values_to_not_match_regex",
    "expect_column_values_to_match_regex_list", "expect_column_values_to_not_match_regex_list",
    "expect_column_value_lengths_to_equal", "expect_column_value_lengths_to_be_between",
    "expect_column_values_to_match_strftime_format", "expect_column_values_to_be_json_parseable",
    "expect_column_values_to_be_dateutil_parseable", "expect_column_values_to_match_json_schema",
    "expect_column_pair_values_to_be_equal", "expect_column_pair_values_a_to_be_greater_than_b",
    "expect_column_pair_values_to_be_in_set", "expect_multicolumn_sum_to_equal",
    "expect_multicolumn_values_to_be_equal", "expect_select_column_values_to_be_unique_within_record"})
"""A verdict per row, which depends on that row alone."""

SCHEMA: frozenset[str] = frozenset({
    "expect_column_to_exist", "expect_table_columns_to_match_set", "expect_table_columns_to_match_ordered_list",
    "expect_table_column_count_to_equal", "expect_table_column_count_to_be_between",
    "expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list", "expect_column_type_to_be"})
"""A verdict the schema settles before any record comes."""

_ORDER = "it compares each record with its neighbours"
_ONE = "it judges a batch as one"
_WHOLE = "its verdict depends on where a batch ends"
BATCH: dict[str, str] = {
    "expect_column_values_to_be_unique": "it compares each record with all others",
    "expect_compound_columns_to_be_unique": "it compares each record with all others",
    "expect_column_values_to_be_increasing": _ORDER, "expect_column_values_to_be_decreasing": _ORDER,
    "expect_column_value_z_scores_to_be_less_than": "it compares each record with the mean of all",
    "expect_column_values_to_not_be_outliers": "it compares each record with the spread of all",
    **dict.fromkeys((
        "expect_column_distinct_values_to_be_in_set", "expect_column_distinct_values_to_contain_set",
        "expect_column_distinct_values_to_equal_set", "expect_column_kl_divergence_to_be_less_than",
        "expect_column_max_to_be_between", "expect_column_mean_to_be_between", "expect_column_median_to_be_between",
        "expect_column_min_to_be_between", "expect_column_most_common_value_to_be_in_set",
        "expect_column_proportion_of_non_null_values_to_be_between",
        "expect_column_proportion_of_unique_values_to_be_between", "expect_column_quantile_values_to_be_between",
        "expect_column_stdev_to_be_between", "expect_column_sum_to_be_between",
        "expect_column_unique_value_count_to_be_between", "expect_table_row_count_to_be_between",
        "expect_table_row_count_to_equal", "expect_column_bootstrapped_ks_test_p_value_to_be_greater_than",
        "expect_column_chisquare_test_p_value_to_be_greater_than",
        "expect_column_pair_cramers_phi_value_to_be_less_than",
        "expect_column_parameterized_distribution_ks_test_p_value_to_be_greater_than"), _ONE)}
"""Verdicts over many records, and why each is one."""

_NO_PANDAS: frozenset[str] = frozenset({
    "expect_column_values_to_match_like_pattern", "expect_column_values_to_match_like_pattern_list",
    "expect_column_values_to_not_match_like_pattern", "expect_column_values_to_not_match_like_pattern_list"})
_DATABASE: frozenset[str] = frozenset({
    "unexpected_rows_expectation", "expect_query_results_to_match_comparison",
    "expect_table_row_count_to_equal_other_table"})


AGGREGATE: frozenset[str] = frozenset(type_ for type_, why in BATCH.items() if why == _ONE)
"""Of these, those whose verdict is about all rows as one, and no row is to blame."""


def kind_of(e: Expectation) -> str:
    """row, batch (a verdict about each row that depends on the others), aggregate, or schema. Raises SuiteError for
    types that are not there, or are for databases only."""
    if e.type in ROWS or e.type in SCHEMA:
        return "row" if e.type in ROWS else "schema"
    if e.type in BATCH:
        return "aggregate" if e.type in AGGREGATE else "batch"
    refuse_unfit(e)
    raise AssertionError("refused above")


def refuse_unfit(e: Expectation) -> None:
    """Raises SuiteError for an expectation that cannot be judged record by record; returns for the others."""
    if e.type in ROWS or e.type in SCHEMA:
        return
    if e.type in BATCH:
        e.wrong(f"{e.type} is a verdict over many records ({BATCH[e.type]}), and in a stream {_WHOLE}",
                "leave it out of this suite; it needs a window: processor validate_window")
    if e.type in _NO_PANDAS:
        e.wrong(f"{e.type} is for databases only: Great Expectations has it for no data frame",
                "write the pattern as a regular expression: expect_column_values_to_match_regex")
    if e.type in _DATABASE:
        e.wrong(f"{e.type} asks a database", "a stream has none; leave it out of this suite")
    near = difflib.get_close_matches(e.type, [*ROWS, *SCHEMA, *BATCH], n=1)
    e.wrong(f"there is no expectation “{e.type}”", (f"did you mean {near[0]}? " if near else "")
            + "docs/contracts.md lists those that can be used; custom expectations are not known here")
