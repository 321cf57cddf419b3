"""Row-level expectations as Arrow kernels over one column. Each verdict is that of Great Expectations' pandas engine.

A compiler takes an expectation and the schema and gives a `Kernel`, or a text that says why there is none (the
expectation then runs whole), or raises SuiteError where the verdict could only ever be an error. What makes a verdict
Great Expectations' own (its conversions to pandas, its coercions) is noted where it is honoured; tests/contract holds
every kernel to the installed library.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts import times
from headrace.contracts.patterns import Answers, Search
from headrace.contracts.suite import Expectation
from headrace.contracts.texts import characters
from headrace.errors import MissingExtra

Bad = Callable[[pa.RecordBatch], pa.BooleanArray | None]
"""Rows → which break the expectation (null counts as no), or None when no row does."""
Test = Callable[[pa.Array], "pa.BooleanArray | None"]
EXACT = 2**53
"""Up to here a whole number is itself as a 64-bit float, which is what Great Expectations makes of bounds."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's value, in the text of a reason."""

    name: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """A compiled expectation. `says` is its reason, with columns where values go."""

    bad: Bad
    says: Sequence[str | Column]
    judged: Callable[[pa.RecordBatch], int]
    """How many rows it judges: what `mostly` is a share of."""
    raises: Callable[[pa.RecordBatch], str | None] | None = None
    """What Great Expectations raises on a batch some row of which it cannot judge: here that row alone is bad."""


Compiler = Callable[[Expectation, pa.Schema], "Kernel | str"]


def present(array: pa.Array) -> pa.BooleanArray | None:
    """Where a value is there (NaN is none, as in pandas), or None when it is everywhere."""
    if pa.types.is_floating(array.type):
        valid = pc.invert(pc.is_null(array, nan_is_null=True))
        return None if valid.false_count == 0 else valid
    return None if array.null_count == 0 else pc.is_valid(array)


def some(bad: pa.BooleanArray) -> pa.BooleanArray | None:
    """The mask, or None when nothing is in it."""
    return bad if bad.true_count else None


def values_judged(name: str) -> Callable[[pa.RecordBatch], int]:
    def judged(rows: pa.RecordBatch) -> int:
        valid = present(rows.column(name))
        return rows.num_rows if valid is None else int(valid.true_count)
    return judged


def is_number(value: Any) -> bool:
    """A number that is a 64-bit float, or near one."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond 64-bit floats
        return False


def is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def is_whole(type_: pa.DataType) -> bool:
    """Whole numbers that pandas compares as whole or as 64-bit floats; uint64 is neither, and runs whole."""
    return pa.types.is_integer(type_) and not pa.types.is_uint64(type_)


def is_float(type_: pa.DataType) -> bool:
    return bool(pa.types.is_float32(type_) or pa.types.is_float64(type_))


def nullity(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """Null and not null; for these alone, rows without a value count."""
    name, wants_null = e.columns[0], e.type == "expect_column_values_to_be_null"

    def bad(rows: pa.RecordBatch) -> pa.BooleanArray | None:
        array = rows.column(name)
        valid = present(array)
        if wants_null:
            return some(pa.repeat(True, len(array)) if valid is None else valid)
        return None if valid is None else pc.invert(valid)

    says = (f"{name} is ", Column(name), ", and should be null") if wants_null else (f"{name} is null",)
    return Kernel(bad, says, lambda rows: int(rows.num_rows))


def between(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """Bounds on numbers, dates and timestamps."""
    name, low, high = e.columns[0], e.kwargs.get("min_value"), e.kwargs.get("max_value")
    type_ = schema.field(name).type
    if low is None and high is None:
        e.wrong("neither min_value nor max_value is given", "give one of them, or both")
    above, below = (e.kwargs.get(k) or False for k in ("strict_min", "strict_max"))
    if not isinstance(above, bool) or not isinstance(below, bool):
        return "strict_min or strict_max is not true or false"
    if is_text(type_):
        e.wrong("the column is text, and Great Expectations' bounds are numbers and times",
                "compare lengths (expect_column_value_lengths_to_be_between) or match a regular expression")
    if is_whole(type_) or is_float(type_):
        bounds = _numbers(e, low, high, type_)
        build: Callable[..., Test] = _between_whole if is_whole(type_) else _between_float
    elif pa.types.is_timestamp(type_) or pa.types.is_date32(type_):
        bounds, build = _times(e, low, high, type_), _between_times
    else:
        return f"bounds on {type_}"
    if isinstance(bounds, str):
        return bounds
    if None not in bounds and bounds[0] > bounds[1]:
        e.wrong(f"min_value {low} is greater than max_value {high}", "swap them")
    test = build(type_, *bounds, above, below)
    says = (f"{name} is ", Column(name), f", not {_range(low, high, above, below)}")
    return Kernel(lambda rows: test(rows.column(name)), says, values_judged(name))


def _range(low: Any, high: Any, strict_low: bool, strict_high: bool) -> str:
    """The bounds as a reader would say them."""
    parts = [("above " if strict_low else "at least ") + str(low)] if low is not None else []
    parts += [("below " if strict_high else "at most ") + str(high)] if high is not None else []
    return f"between {low} and {high}" if len(parts) == 2 and not (strict_low or strict_high) else " and ".join(parts)


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(e: Expectation, low: Any, high: Any, type_: pa.DataType) -> tuple[Any, Any] | str:
    """Bounds as Great Expectations holds them, 64-bit floats, or why it must read them itself."""
    bounds = [b for b in (low, high) if b is not None]
    if any(isinstance(b, str) and not _numeric(b) for b in bounds):
        e.wrong(f"the column is {type_}, and a bound is the text {bounds}", "bounds of a number are numbers")
    if not all(map(is_number, bounds)):
        return "a bound is not a plain number"
    return None if low is None else float(low), None if high is None else float(high)


def _times(e: Expectation, low: Any, high: Any, type_: pa.DataType) -> tuple[Any, Any] | str:
    """Bounds as days (date) or microseconds (timestamp) since 1970, or why Great Expectations must read them."""
    try:
        return _time(e, low, type_), _time(e, high, type_)
    except ValueError as error:
        return f"a bound is in an unusual form: {error}"


def _time(e: Expectation, bound: Any, type_: pa.DataType) -> int | None:
    """One bound. Great Expectations reads ten characters as a date, which compares with dates only, and a longer text
    as a timestamp. Raises ValueError for a text that Python does not read."""
    if bound is None:
        return None
    if not isinstance(bound, str):
        e.wrong(f"the column is {type_}, and a bound is {bound!r}", "write it as \"2013-02-08T00:00:00\"")
    if pa.types.is_date32(type_):
        if len(bound) != 10:
            e.wrong(f"the column holds dates, and the bound “{bound}” is not one", "write it as \"2013-02-08\"")
        return (dt.date.fromisoformat(bound) - dt.date(1970, 1, 1)).days
    if len(bound) == 10:
        e.wrong(f"the column holds timestamps, and Great Expectations reads “{bound}” as a date",
                f"write it as \"{bound}T00:00:00{'Z' if type_.tz else ''}\"")
    moment = dt.datetime.fromisoformat(bound)
    if (moment.tzinfo is None) != (type_.tz is None):
        e.wrong(f"the column {'has' if type_.tz else 'has no'} time zone, and the bound “{bound}” "
                f"{'has none' if type_.tz else 'has one'}", "end it in Z" if type_.tz else "leave the zone out")
    start = dt.datetime(1970, 1, 1, tzinfo=dt.UTC if moment.tzinfo else None)
    return (moment - start) // dt.timedelta(microseconds=1)


def _between_whole(type_: pa.DataType, low: float | None, high: float | None, strict_low: bool,
                   strict_high: bool) -> Test:
    if pa.types.is_int64(type_) and any(b is not None and abs(b) >= EXACT for b in (low, high)):
        as_floats = _between_float(pa.float64(), low, high, strict_low, strict_high)
        return lambda array: as_floats(pc.cast(array, pa.float64(), safe=False))
    first = None if low is None else math.floor(low) + 1 if strict_low else math.ceil(low)
    last = None if high is None else math.ceil(high) - 1 if strict_high else math.floor(high)
    return _inside(type_, first, last)


def _inside(type_: pa.DataType, first: int | None, last: int | None) -> Test:
    """Whole numbers first … last, both inclusive. `min_max` answers for a clean batch at a tenth of the cost."""
    bits, signed = type_.bit_width, pa.types.is_signed_integer(type_)
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    first, last = (least if first is None else first), (most if last is None else last)
    none_fits = first > most or last < least or first > last
    low, high = pa.scalar(max(first, least), type_) if not none_fits else None, None
    high = pa.scalar(min(last, most), type_) if not none_fits else None

    def test(array: pa.Array) -> pa.BooleanArray | None:
        if none_fits:
            return some(pc.is_valid(array))
        seen = pc.min_max(array)
        if not seen["min"].is_valid or (seen["min"].as_py() >= first and seen["max"].as_py() <= last):
            return None
        return pc.or_(pc.less(array, low), pc.greater(array, high))
    return test


def _between_float(type_: pa.DataType, low: float | None, high: float | None, strict_low: bool,
                   strict_high: bool) -> Test:
    """A comparison with NaN is false, and so NaN is not bad: Great Expectations takes it for a null."""
    def test(array: pa.Array) -> pa.BooleanArray | None:
        under = None if low is None else (pc.less_equal if strict_low else pc.less)(array, pa.scalar(low))
        over = None if high is None else (pc.greater_equal if strict_high else pc.greater)(array, pa.scalar(high))
        return some(under if over is None else over if under is None else pc.or_(under, over))
    return test


def _between_times(type_: pa.DataType, low: int | None, high: int | None, strict_low: bool,
                   strict_high: bool) -> Test:
    """Bounds in microseconds (or days) against the column's own unit, as whole numbers, so that nothing overflows."""
    per = {"s": 10**6, "ms": 10**3}.get(getattr(type_, "unit", ""), 1)
    times = 1000 if getattr(type_, "unit", "") == "ns" else 1
    first = None if low is None else low * times // per + 1 if strict_low else -(-low * times // per)
    last = None if high is None else -(-high * times // per) - 1 if strict_high else high * times // per
    raw = pa.int32() if pa.types.is_date32(type_) else pa.int64()
    test = _inside(raw, first, last)
    return lambda array: test(array.view(raw))


def in_set(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """Membership, and its opposite."""
    name, members = e.columns[0], e.kwargs.get("value_set")
    type_ = schema.field(name).type
    if not isinstance(members, list):
        e.wrong(f"value_set is {members!r}", "value_set is a list")
    wanted = _members(type_, members)
    if isinstance(wanted, str):
        return wanted
    negate = e.type == "expect_column_values_to_not_be_in_set"
    options = pc.SetLookupOptions(value_set=wanted, skip_nulls=True)

    def bad(rows: pa.RecordBatch) -> pa.BooleanArray | None:
        array = rows.column(name)
        found = pc.call_function("is_in", [array if array.type == wanted.type else array.cast(wanted.type)], options)
        wrong = found if negate else pc.invert(found)
        if not wrong.true_count:
            return None
        valid = present(array)
        return wrong if valid is None else some(pc.and_(wrong, valid))

    shown = ", ".join(map(str, members[:8])) + (", …" if len(members) > 8 else "")
    says = (f"{name} is ", Column(name), f", {'in' if negate else 'not in'} the set {{{shown}}}")
    return Kernel(bad, says, values_judged(name))


def _members(type_: pa.DataType, members: list[Any]) -> pa.Array | str:
    """The set as an Arrow array to look values up in, or why pandas' own `isin` must decide."""
    if is_text(type_):
        return pa.array([m for m in members if isinstance(m, str)], type=type_)
    if is_whole(type_) and all(isinstance(m, int) and not isinstance(m, bool) and abs(m) < EXACT for m in members):
        return pa.array(members, type=pa.int64())
    if is_whole(type_) and type_.bit_width <= 32 and all(is_number(m) and abs(m) < EXACT for m in members):
        return pa.array([int(m) for m in members if m == int(m)], type=pa.int64())
    if is_float(type_) and all(is_number(m) and (isinstance(m, float) or abs(m) < EXACT) for m in members):
        return pa.array([float(m) for m in members] + [-float(m) for m in members if m == 0], type=pa.float64())
    if pa.types.is_boolean(type_) and all(isinstance(m, bool) for m in members):
        return pa.array(members, type=pa.bool_())
    return f"a set of {', '.join(sorted({type(m).__name__ for m in members})) or 'nothing'} for a column of {type_}"


def regex(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """A regular expression found, or not found; one or a list."""
    name, type_ = e.columns[0], schema.field(e.columns[0]).type
    several, negate = e.type.endswith("_list"), "_not_" in e.type
    patterns = e.kwargs.get("regex_list") if several else [e.kwargs.get("regex")]
    if not isinstance(patterns, list) or not patterns or not all(isinstance(p, str) for p in patterns):
        e.wrong(f"{'regex_list' if several else 'regex'} is {patterns if several else patterns[0]!r}",  # type: ignore[index]
                "a regular expression is a text, and regex_list a list of them")
    match_on = e.kwargs.get("match_on") or "any"
    if match_on not in ("any", "all"):
        e.wrong(f"match_on is {match_on!r}", "match_on is any or all")
    if not is_text(type_):
        return f"a regular expression on {type_}: pandas turns the values into text first, nulls changing how"
    searches = []
    for pattern in patterns:
        try:
            searches.append(Search(pattern))
        except Exception as error:
            e.wrong(f"“{pattern}” is not a regular expression: {error}", "mend the pattern")
    combine = pc.and_ if match_on == "all" and not negate else pc.or_

    def bad(rows: pa.RecordBatch) -> pa.BooleanArray | None:
        column = rows.column(name)
        found = searches[0](column)
        for search in searches[1:]:
            found = combine(found, search(column))
        return some(found if negate else pc.invert(found))

    told = "matches" if negate else "does not match" if len(patterns) == 1 else f"does not match {match_on} of"
    says = (f"{name} is ", Column(name), f", which {told} {', '.join(patterns)}")
    return Kernel(bad, says, values_judged(name))


def lengths(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """The length of a text in characters (code points)."""
    name, type_ = e.columns[0], schema.field(e.columns[0]).type
    equal = e.type == "expect_column_value_lengths_to_equal"
    low, high = [e.kwargs.get(k) for k in (("value", "value") if equal else ("min_value", "max_value"))]
    if low is None and high is None:
        e.wrong("no length is given", "give value" if equal else "give min_value or max_value, or both")
    if not is_text(type_):
        return f"the length of {type_}: pandas turns the values into text first, nulls changing how"
    if not all(b is None or (isinstance(b, int) and not isinstance(b, bool)) for b in (low, high)):
        return "a length is not a whole number"
    strict = [e.kwargs.get(k) or False for k in ("strict_min", "strict_max")]
    if not all(isinstance(s, bool) for s in strict):
        return "strict_min or strict_max is not true or false"
    first = None if low is None else low + strict[0]
    last = None if high is None else high - strict[1]
    test = _inside(pa.int32() if pa.types.is_string(type_) else pa.int64(), first, last)
    wanted = f"of {low} characters" if equal else f"{_range(low, high, *strict)} characters long"
    return Kernel(lambda rows: test(characters(rows.column(name))), (f"{name} is ", Column(name), f", not {wanted}"),
                  values_judged(name))


def parseable(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """Text that Python reads as JSON, as JSON of a schema, or as a time of a form; asked once per distinct value."""
    name, type_ = e.columns[0], schema.field(e.columns[0]).type
    if not is_text(type_):
        return f"reading {type_}, which is not text"
    asked = _ASKED[e.type](e)
    if isinstance(asked, str):
        return asked
    ask, wanted = asked
    answers = Answers(ask)

    def bad(rows: pa.RecordBatch) -> pa.BooleanArray | None:
        return some(pc.invert(answers(rows.column(name))))
    raises = _raises(name) if e.type == "expect_column_values_to_match_json_schema" else None
    return Kernel(bad, (f"{name} is ", Column(name), f", not {wanted}"), values_judged(name), raises)


def _raises(name: str) -> Callable[[pa.RecordBatch], str | None]:
    """What Python's json raises on the first text that is no JSON."""
    answers = Answers(lambda value: _reads(json.loads, value))

    def raises(rows: pa.RecordBatch) -> str | None:
        column = rows.column(name)
        at = pc.index(answers(column), pa.scalar(False)).as_py()
        return None if at < 0 else _said(column[at].as_py())
    return raises


def _said(text: str) -> str:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""


Asked = tuple[Callable[[str], bool], str]


def _strftime(e: Expectation) -> Asked | str:
    form = e.kwargs.get("strftime_format")
    if not isinstance(form, str):
        e.wrong(f"strftime_format is {form!r}", "e.g. \"%Y-%m-%d\"")
    try:
        return times.reads(form), f"a time written {form}"
    except ValueError as error:
        return f"Python says of the form: {error}"


def _json_schema(e: Expectation) -> Asked | str:
    """Text that is no JSON at all makes Great Expectations raise, and the batch lose its verdict; here it is bad."""
    try:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for
    except ImportError as error:
        raise MissingExtra("gx", f"{e.file}: {e.type}") from error
    wanted = e.kwargs.get("json_schema")
    if not isinstance(wanted, dict):
        return "json_schema is not an object"
    validator = validator_for(wanted)
    try:
        validator.check_schema(wanted)
    except SchemaError as error:
        e.wrong(f"json_schema is no JSON Schema: {error.message}", "mend the schema")
    if elsewhere := [ref for ref in _references(wanted) if not _leads_inside(wanted, ref)]:
        return f"json_schema refers to {elsewhere[0]}"
    fits = validator(wanted).is_valid
    return lambda value: _reads(json.loads, value) and bool(fits(json.loads(value))), "JSON of the schema"


def _references(schema: Any) -> Iterator[str]:
    """What a JSON Schema refers to, and the bases that change what a reference means."""
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef", "$id", "$recursiveRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _leads_inside(schema: Any, ref: str) -> bool:
    """Whether a reference is a plain JSON pointer to a part of the schema."""
    here = schema
    for part in ref.removeprefix("#").split("/")[1:]:
        if not isinstance(here, Mapping) or part not in here:
            return False
        here = here[part]
    return ref == "#" or ref.startswith("#/")


_ASKED: dict[str, Callable[[Expectation], Asked | str]] = {
    "expect_column_values_to_match_strftime_format": _strftime,
    "expect_column_values_to_match_json_schema": _json_schema,
    "expect_column_values_to_be_json_parseable": lambda e: (lambda value: _reads(json.loads, value), "JSON")}


def _reads(function: Callable[..., Any], *given: Any) -> bool:
    try:
        function(*given)
    except (ValueError, RecursionError):
        return False
    return True
