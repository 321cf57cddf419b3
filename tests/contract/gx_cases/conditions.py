"""Row conditions, as objects and as texts of Great Expectations' grammar."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tests.contract.gx_cases.batches import BIG, MOMENTS, TEXTS

OPERATORS = ["==", "!=", "<", "<=", ">", ">="]
NUMBERS = [-129, -1, 0, 1, 5, 127, 300, 2**31, 2**32, BIG - 1, BIG, BIG + 1, -BIG - 1, 2**63, 2**64, -(2**63) - 1,
           2**70, 0.1, -0.0, 1.0, 1.5, 5e-324, 1e300, 16777217, float(BIG), True, False]
MOMENT = ["2013-02-08", "2013-02-08T00:00:00", "2013-02-08 00:00:00.000001", "2013-02-08T00:00:00Z",
          "1969-12-31T23:59:59.9995", "1969-12-31T23:59:59.9995Z", "2013-02-08T01:00:00+01:00", "noon", "2013",
          "2013-02-30", "0001-01-01", "9999-12-31T00:00:00Z"]


def value(rng: random.Random, column: str) -> Any:
    """A parameter, mostly of the column's kind."""
    if rng.random() < 0.04:
        return rng.choice([1, 0.5, True, "a", "5", None, [1]])
    if column in ("s", "t", "ls", "e", "bin"):
        return rng.choice(TEXTS)
    if column in MOMENTS:
        zoned = [m for m in MOMENT if ("Z" in m or "+" in m) == (column in ("tz", "uz", "bz"))]
        return rng.choice(zoned if rng.random() < 0.9 else MOMENT)
    if column in ("d", "tm"):
        return rng.choice(["2013-02-08", "01:00:00", 3])
    return rng.choice(NUMBERS)


def leaf(rng: random.Random, names: Sequence[str]) -> dict[str, Any]:
    """A condition on one column."""
    column = rng.choice(names)
    if rng.random() < 0.12:
        return {"type": "nullity", "column": {"name": column}, "is_null": rng.random() < 0.5}
    if rng.random() < 0.3:
        drawn = [value(rng, column) for _ in range(rng.choice([0, 1, 1, 2, 4]))]
        listed = [v for v in drawn if rng.random() < 0.05 or not isinstance(v, bool | list | None)]
        return {"type": "comparison", "column": {"name": column}, "operator": rng.choice(["IN", "NOT_IN"]),
                "parameter": listed}
    return {"type": "comparison", "column": {"name": column}, "operator": rng.choice(OPERATORS),
            "parameter": value(rng, column)}


def text(rng: random.Random, names: Sequence[str]) -> str:
    """A condition in the grammar of Great Expectations' parser."""
    column = rng.choice(names)
    told = rng.choice(["5", "-1", "+1", "0.1", "5.", "1e0", "9007199254740993", "\"a\"", "'b'", "\" a\"", "\"5\"",
                       "\"ü\"", "\"日\"", "\"\"", "date(\"2013-02-08\")", "\"2013-02-08T00:00:00\"", "'it@s'"])
    return rng.choice([f"col(\"{column}\").notNull()", f"col(\"{column}\") {rng.choice(OPERATORS)} {told}",
                       f"col(\"{column}\"){rng.choice(OPERATORS)}{told}", f"col(\"{column}\") > 1 and col(\"s\") > 2"])


def condition(rng: random.Random, names: Sequence[str]) -> dict[str, Any]:
    """row_condition, and condition_parser for a text."""
    kind = rng.random()
    if kind < 0.1:
        return {"row_condition": text(rng, names), "condition_parser": rng.choice(["great_expectations",
                                                                            "great_expectations__experimental__"])}
    if kind < 0.7:
        return {"row_condition": leaf(rng, names)}
    group: dict[str, Any] = {"type": rng.choice(["and", "or"]), "conditions": [leaf(rng, names) for _ in range(3)]}
    if rng.random() < 0.5:
        group["conditions"][0] = {"type": rng.choice(["and", "and", "and", "or"]),
                                  "conditions": [leaf(rng, names), leaf(rng, names)]}
    return {"row_condition": group}
