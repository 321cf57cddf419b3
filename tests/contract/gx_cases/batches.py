"""Batches made of the values that part implementations, for the differential tests against Great Expectations."""

from __future__ import annotations

import datetime as dt
import decimal
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

UTC = dt.UTC
BIG = 2**53
INF, NAN = float("inf"), float("nan")
TEXTS = ["", "a", "b", "B", "5", "1", "1.0", "True", "it's", "x\"y", "a`b", "a@b & c | d # e", "ü", "ÄÖ", "日本", "😀",
         "a\n", "N1\n", "x\ny", "\\n", "\x0b", " a ", "2013-02-08", "2013-02-08T00:00:00", "2013-02-30", "N123AA",
         "n123aa", "N1", "٣", "N٣", "ſ", "\u212a", "e\u0301", "[1, 2]", "{\"a\": 1}", "{0}", "NaN", "null", "None",
         "abc def"]
TIMES = [dt.datetime(2013, 2, 8), dt.datetime(2013, 2, 8, 0, 0, 0, 1), dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
         dt.datetime(2013, 2, 9, 5), dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)]
MILLIS = [t.replace(microsecond=1000) for t in TIMES]
ZONED = [t.replace(tzinfo=UTC) for t in TIMES]
DECIMALS = [decimal.Decimal(d) for d in ("0.00", "1.00", "0.10", "-1.00", "5.00", "123456789012345.67")]
COLUMNS: Mapping[str, tuple[pa.DataType, Sequence[Any]]] = {
    "i8": (pa.int8(), [-128, -1, 0, 1, 5, 127]), "i16": (pa.int16(), [-(2**15), -1, 0, 1, 2**15 - 1]),
    "i32": (pa.int32(), [-(2**31), -1, 0, 1, 2, 5, 100, 2**31 - 1]), "j32": (pa.int32(), [-1, 0, 1, 2, 3, 5]),
    "k32": (pa.int32(), list(range(60))), "u8": (pa.uint8(), [0, 1, 5, 255]),
    "u32": (pa.uint32(), [0, 1, 5, 2**32 - 1]), "u64": (pa.uint64(), [0, 1, 5, BIG, BIG + 1, 2**63, 2**64 - 1]),
    "i64": (pa.int64(), [-(2**63), -BIG - 1, -1, 0, 1, 5, BIG - 1, BIG, BIG + 1, BIG + 2, 2**63 - 1]),
    "j64": (pa.int64(), [0, 1, 2, 3, 5, 8, 13, 1000, BIG + 1]),
    "f64": (pa.float64(), [0.0, -0.0, 1.0, 0.1, 5.0, NAN, INF, -INF, 1e300, 5e-324, float(BIG)]),
    "g64": (pa.float64(), [0.0, -0.0, 1.0, 0.1, 0.2, 5.0, 7.5, 1e6, 1 / 3, -7.25, NAN]),
    "f32": (pa.float32(), [0.0, -0.0, 1.0, 0.1, 5.0, NAN, INF, 16777216.0, 16777218.0, 3e38]),
    "g32": (pa.float32(), [0.0, 1.0, 0.1, 0.2, 5.0, 7.5, 1e6, 1 / 3]),
    "s": (pa.string(), TEXTS), "t": (pa.string(), TEXTS[:8]), "ls": (pa.large_string(), TEXTS[:8]),
    "e": (pa.dictionary(pa.int8(), pa.string()), TEXTS[1:4]),
    "b": (pa.bool_(), [True, False]), "c": (pa.bool_(), [True, False]),
    "ts": (pa.timestamp("us"), TIMES), "tt": (pa.timestamp("us"), TIMES[:3]), "ms": (pa.timestamp("ms"), MILLIS),
    "sec": (pa.timestamp("s"), [t.replace(microsecond=0) for t in TIMES]), "ns": (pa.timestamp("ns"), TIMES),
    "far": (pa.timestamp("us"), [*TIMES, dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)]),
    "tz": (pa.timestamp("us", "UTC"), ZONED), "uz": (pa.timestamp("us", "UTC"), ZONED[:3]),
    "bz": (pa.timestamp("ms", "Europe/Berlin"), [t.replace(tzinfo=UTC) for t in MILLIS]),
    "d": (pa.date32(), [t.date() for t in TIMES]), "tm": (pa.time32("ms"), [dt.time(1), dt.time(2, 3)]),
    "dec": (pa.decimal128(20, 2), DECIMALS), "bin": (pa.binary(), [b"", b"a", b"\xff"]),
    "du": (pa.duration("us"), [dt.timedelta(0), dt.timedelta(days=-1, microseconds=1)]),
    "null": (pa.null(), [None]), "list": (pa.list_(pa.int32()), [[], [1], [1, 2], [None]]),
    "struct": (pa.struct([("a", pa.int64())]), [{"a": 1}, {"a": None}, {"a": BIG + 1}])}
SMALL = ["i8", "i16", "i32", "j32", "k32", "u8", "u32"]
WHOLE = [*SMALL, "u64", "i64", "j64"]
FLOATS = ["f64", "g64", "f32", "g32"]
NUMBERS = [*WHOLE, *FLOATS]
TEXT = ["s", "t", "ls"]
BOOLS = ["b", "c"]
MOMENTS = ["ts", "tt", "ms", "sec", "ns", "far", "tz", "uz", "bz"]
EDGES = [BIG - 1, BIG, BIG + 1, BIG + 2]
SLOW = ["dec", "list", "struct"]
"""Great Expectations walks its stack for every such value when it serialises it."""
SIZES = (0, 1, 2, 7, 20, 20, 20, 50, 50, 60, 60, 60, 300)


def batch(rng: random.Random, names: Sequence[str] = tuple(COLUMNS), sizes: Sequence[int] = SIZES) -> pa.RecordBatch:
    """Rows of these columns; each with its own share of nulls, all or none among them, and of repeated values."""
    n = rng.choice(sizes)
    arrays, kept = [], [name for name in names if n <= 60 or name not in SLOW]
    for type_, pool in (COLUMNS[name] for name in kept):
        nulls = rng.choice([0.0, 0.0, 0.05, 0.3, 0.5, 1.0])
        edge = [0.0, -0.0, NAN] if pa.types.is_floating(type_) else EDGES if type_ == pa.int64() else pool
        some = rng.choice([pool, pool, edge, rng.sample(pool, min(2, len(pool)))])
        arrays.append(pa.array([None if rng.random() < nulls else rng.choice(some) for _ in range(n)], type=type_))
    return pa.RecordBatch.from_arrays(arrays, names=kept)


def few(rng: random.Random) -> list[str]:
    """Some columns, of every family: Great Expectations' time grows with the width of a batch."""
    return [*rng.sample(SMALL, 2), "j64", rng.choice(["i64", "u64"]), rng.choice(["f64", "g64"]),
            rng.choice(["f32", "g32"]), "s", rng.choice(["t", "ls"]), "b", *rng.choice([["ts", "tt"], ["tz", "uz"]]),
            rng.choice(["ms", "sec", "ns", "far", "bz"]), "d",
            *rng.sample(["c", "e", "tm", "dec", "bin", "du", "null", "list", "struct"], 2)]
