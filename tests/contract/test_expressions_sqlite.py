"""Three-valued logic against SQLite: random boolean and whole-number expressions over every mix of nulls."""

from __future__ import annotations

import itertools
import random
import sqlite3
from contextlib import closing

import pyarrow as pa
import pytest

from headrace.expressions import compile_many

pytestmark = pytest.mark.contract

VALUES = [None, 0, 1, 2, -3]
ROWS = [*itertools.product(VALUES, VALUES, [None, True, False], [None, "", "ab", "b%"])]
NAMES = ["x", "y", "p", "s"]
TEXTS = ["'a%'", "'%b'", "'%'", "'_b'", "'b!%' ESCAPE '!'", "'ab'", "''"]


def number(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(["x", "y", "1", "2", "-1", "x"])
    a, b = number(rng, depth - 1), number(rng, depth - 1)
    return rng.choice([f"({a} + {b})", f"({a} - {b})", f"({a} * {b})", f"coalesce({a}, {b})", f"nullif({a}, {b})",
                       f"abs({a})", f"CASE WHEN {truth(rng, depth - 1)} THEN {a} ELSE {b} END",
                       f"CASE {a} WHEN {b} THEN 1 WHEN 2 THEN {a} END", "length(s)"])


def truth(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(["p", "x > 0", "p IS NULL", "TRUE", f"s LIKE {rng.choice(TEXTS)}"])
    a, b = truth(rng, depth - 1), truth(rng, depth - 1)
    x, y, z = (number(rng, depth - 1) for _ in range(3))
    return rng.choice([
        f"({a} AND {b})", f"({a} OR {b})", f"(NOT {a})", f"({x} {rng.choice(['=', '<>', '<', '<=', '>', '>='])} {y})",
        f"({x} IN ({y}, {z}))", f"({x} NOT IN (1, {rng.choice(['2', 'NULL'])}))", f"({x} BETWEEN {y} AND {z})",
        f"({x} NOT BETWEEN {y} AND {z})", f"({x} IS NULL)", f"(({a}) IS NOT NULL)", f"({x} IS DISTINCT FROM {y})",
        f"(s NOT LIKE {rng.choice(TEXTS)})", f"(s IN ('ab', {rng.choice(['NULL', chr(39) * 2])}))",
        f"(({a}) IS TRUE)", f"(({a}) IS NOT FALSE)"])


@pytest.mark.parametrize("seed", range(8))
def test_sqlite_agrees(seed: int) -> None:
    rng = random.Random(seed)
    texts = {f"e{at}": truth(rng, 3) if at % 2 else number(rng, 3) for at in range(40)}
    columns = [*zip(*ROWS, strict=True)]
    types = [pa.int32(), pa.int32(), pa.bool_(), pa.string()]
    rows = pa.record_batch([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=NAMES)
    mine = compile_many(texts, rows.schema).evaluate(rows).arrays
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("PRAGMA case_sensitive_like = ON")
        db.execute("CREATE TABLE t (x INTEGER, y INTEGER, p INTEGER, s TEXT)")
        db.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", ROWS)
        for name, text in texts.items():
            theirs = [r[0] for r in db.execute(f"SELECT {text} FROM t ORDER BY rowid")]
            ours = [None if v is None else int(v) for v in mine[name].to_pylist()]
            assert ours == theirs, text
