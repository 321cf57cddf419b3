"""The suite of ten by dataframely: `Schema.filter`, its failures counted. A length of 6 is two of its rules, above and
below; pairs, what is not in a set and the form of a time are rules of the schema, in polars' expressions."""

from __future__ import annotations

from collections import Counter

import contracts_polars
import contracts_suite as ten
import dataframely as dy
import polars as pl


class Flight(dy.Schema):
    dep_time = dy.Int32(nullable=False)
    arr_time = dy.Int32(nullable=True)
    distance = dy.Int32(nullable=True, min=50, max=5000)
    dep_delay = dy.Int32(nullable=True, min=-30, max=480)
    carrier = dy.String(nullable=True, check={"in_set": lambda c: c.is_in(ten.CARRIERS)})
    tailnum = dy.String(nullable=True, regex=ten.TAIL, min_length=6, max_length=6)
    origin = dy.String(nullable=True)
    dest = dy.String(nullable=True, check={"not_in_set": lambda c: ~c.is_in(ten.FAR)})
    time_hour = dy.String(nullable=True, check={"time": lambda c: c.str.to_datetime(
        ten.TIME, strict=False).is_not_null() | c.is_null()})

    @dy.rule()
    def lands_later(cls) -> pl.Expr:
        return cls.arr_time.col > cls.dep_time.col

    @dy.rule()
    def goes_elsewhere(cls) -> pl.Expr:
        return cls.origin.col != cls.dest.col


RULES = {"dep_time|nullability": "departed", "distance|min": "distance", "distance|max": "distance",
         "dep_delay|min": "delay", "dep_delay|max": "delay", "carrier|check__in_set": "carrier",
         "tailnum|regex": "tailnum", "tailnum|min_length": "tailnum_length", "tailnum|max_length": "tailnum_length",
         "lands_later": "lands_later", "goes_elsewhere": "goes_elsewhere", "dest|check__not_in_set": "not_far",
         "time_hour|check__time": "hour"}


def check(frame: pl.DataFrame) -> Counter[str]:
    _, failure = Flight.filter(frame)
    broken: Counter[str] = Counter()
    for rule, rows in failure.counts().items():
        broken[RULES[rule]] += rows
    return broken


ten.tell("dataframely", dy.__version__, *contracts_polars.frames(), check)
