"""Text columns that repeat themselves, which are judged once per distinct value, against Great Expectations itself. The
batches of the other differential tests are too small for that."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest

from headrace.contracts import compile_suite, parse, texts
from tests.contract.gx_oracle import quiet

pytestmark = pytest.mark.contract

ROWS = 4_200
VALUES = ["", "a", "N123AB", "N12", "N1é", "a\n", "\n", "١٢", "a b", "a\u00a0b", "ſ", "🛫", "x" * 300, "2013-02-08",
          None]
PATTERNS = [r"^N[1-9][0-9A-Z]{2,4}$", r"\d", r"^\w+$", r"a$", r"\s", r"\bb", r"^$", r"(?i)S", r"a\Z"]


def written() -> list[dict[str, Any]]:
    def of(type_: str, column: str, **kwargs: object) -> dict[str, Any]:
        return {"type": f"expect_column_{type_}", "kwargs": {"column": column, **kwargs}}

    return [*(of("values_to_match_regex", "odd", regex=pattern) for pattern in PATTERNS),
            *(of("values_to_not_match_regex", "plain", regex=pattern) for pattern in PATTERNS[:4]),
            of("values_to_match_regex_list", "odd", regex_list=PATTERNS[:3], match_on="all"),
            *(of("value_lengths_to_be_between", column, min_value=1, max_value=6) for column in ("odd", "plain")),
            of("values_to_match_strftime_format", "odd", strftime_format="%Y-%m-%d")]


def test_columns_that_repeat_themselves_have_great_expectations_verdicts() -> None:
    choose = random.Random(6)
    rows = pa.record_batch({"odd": pa.array(choose.choices(VALUES, k=ROWS), pa.string()), "plain": pa.array(
        choose.choices(["N123AB", "N12", "ab", "", "2013-02-08", None], k=ROWS), pa.string())})
    assert all(map(texts.repeats, rows.columns))
    asked = [{**e, "id": str(at), "meta": {}} for at, e in enumerate(written())]
    with quiet() as oracle:
        told = oracle.judge(rows, asked)
    suite = parse({"name": "repeats", "expectations": asked}, "repeats.expectations.json")
    contract = compile_suite(suite, rows.schema)
    assert {tier for _, tier, _ in contract.tiers} == {"compiled"}
    verdicts = contract.check(rows).verdicts
    assert len(told) == len(asked) == len(verdicts)
    for e, verdict in verdicts:
        theirs = told[int(e.id)]
        assert not verdict.raised
        assert verdict.success == theirs.success, e
        for name in ("unexpected_count", "unexpected_index_list", "missing_count", "unexpected_percent"):
            assert verdict.result[name] == theirs.result[name], (e, name)
