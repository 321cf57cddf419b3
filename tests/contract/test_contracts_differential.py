"""Every expectation against Great Expectations itself: generated suites on generated batches, the same verdicts.

Batches are made of the values that part implementations (nulls, NaN, signed zeros, infinities, the ends of 64 bits,
2^53 and its neighbours, text beyond ASCII, newlines, decimals, dates, times with and without zone, nothing at all);
suites have several expectations of every type on them, with odd arguments, row conditions, parameters and severities
among the usual ones (gx_cases). What is compared: gx_compare.

A seed that fails is in the test's name: run it again with -k "[17]". `make test` has the first SHORT seeds, `make
cases` and CI have all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pytest

from headrace.contracts import contract
from headrace.contracts.compilers import COMPILERS
from headrace.contracts.kernels import is_number
from tests.contract.gx_cases import KINDS, case
from tests.contract.gx_compare import REFUSED, differences, ours, theirs, unblamed
from tests.contract.gx_oracle import Oracle, quiet, raised

pytestmark = pytest.mark.contract

SEEDS, SHORT, EACH = range(88), 24, 60
TIERS = ("compiled", "borrowed", "whole")
COUNTS: Counter[tuple[str, str]] = Counter()
RUN: set[int] = set()


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with quiet() as made, unblamed():
        yield made


@pytest.mark.parametrize("seed", [pytest.param(n, marks=[pytest.mark.full] if n >= SHORT else []) for n in SEEDS])
def test_verdicts_are_those_of_great_expectations(oracle: Oracle, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of odd seeds on all cores, as large batches are judged."""
    monkeypatch.setattr(contract, "THREADED_ROWS", 0 if seed % 2 else math.inf)
    asked = case(seed, EACH)
    told, mine = theirs(oracle, asked), ours(asked)
    for at, each in mine.items():
        type_ = asked.written[at]["type"]
        COUNTS[type_, each.tier] += each.tier == REFUSED or at in told
        COUNTS[type_, "raised"] += at in told and bool(told[at].raised) and each.tier != REFUSED
    RUN.add(seed)
    found = [what for _, what in differences(asked, mine, told)]
    assert not found, "\n".join(found)


def test_enough_was_judged(capsys: pytest.CaptureFixture[str]) -> None:
    """Run with the test above: every expectation, and nearly all of them compiled."""
    if len(RUN) < SHORT:
        pytest.skip("needs the whole module")
    judged = {tier: sum(n for (_, t), n in COUNTS.items() if t == tier) for tier in (*TIERS, "raised", REFUSED)}
    total = sum(judged[tier] for tier in TIERS)
    with capsys.disabled():
        print(f"\n{total} expectations judged on {len(RUN)} batches: {judged}")
        print(f"{'':75}" + "".join(f"{tier:>10}" for tier in (*TIERS, "raised", REFUSED)))
        for type_ in sorted(KINDS):
            print(f"  {type_:73}" + "".join(f"{COUNTS[type_, tier]:10}" for tier in (*TIERS, "raised", REFUSED)))
    share = len(RUN) / len(SEEDS)
    assert total >= 5000 * share
    assert min(sum(COUNTS[type_, tier] for tier in TIERS) for type_ in KINDS) >= 30 * share
    assert min(COUNTS[type_, "compiled"] for type_ in KINDS if type_ in COMPILERS) >= 10 * share
    assert judged["compiled"] > 0.75 * total
    assert judged[REFUSED] < 0.06 * total


def test_every_expectation_is_asked_about(oracle: Oracle) -> None:
    """All that Great Expectations exports, but for those it can judge in databases alone, or not at all."""
    import great_expectations.expectations as exported
    from great_expectations.expectations.expectation import Expectation

    types = {getattr(cls, "expectation_type", "") for cls in vars(exported).values()
             if isinstance(cls, type) and issubclass(cls, Expectation)} - {""}
    assert types - set(KINDS) == {
        "expect_column_values_to_match_like_pattern", "expect_column_values_to_match_like_pattern_list",
        "expect_column_values_to_not_match_like_pattern", "expect_column_values_to_not_match_like_pattern_list",
        "expect_query_results_to_match_comparison",
        "expect_table_row_count_to_equal_other_table", "unexpected_rows_expectation"}
    assert set(KINDS) <= types
    rows = pa.record_batch({"s": pa.array(["a"]), "t": pa.array(["b"])})
    like = {"type": "expect_column_values_to_match_like_pattern", "kwargs": {"column": "s", "like_pattern": "a"}}
    among = {"type": "expect_multicolumn_values_to_be_unique", "kwargs": {"column_list": ["s", "t"]}}
    told = oracle.judge(rows, [like, among])
    assert raised(told[0])
    assert 1 not in told  # its file is there, but Great Expectations gives no result


def test_numbers_beyond_floats_are_no_bounds() -> None:
    assert not is_number(10**400)
    assert not is_number(math.inf)
    assert is_number(2**63)
