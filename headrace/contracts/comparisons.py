"""One column compared with a value or a list of them, as an Arrow mask: what `DataFrame.query` means by it.

- `!=` is true of rows without a value; every other comparison is false of them. NaN is no value.
- A column of whole numbers with a null in the batch is compared as 64-bit floats, the number beside it with it.
- `==`, `!=` and lists look a text up among the values, and a text is no timestamp, date or number: on such columns `==`
  is true of nothing and `!=` of everything. `<` and its like do read a text as a timestamp, and raise elsewhere.
- Truth values are 1 and 0.
"""

from __future__ import annotations

import datetime as dt
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.kernels import EXACT, is_float, is_number, is_text

Test = Callable[[pa.Array], pa.BooleanArray]
KERNELS: Mapping[str, Any] = {"==": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater,
                              ">=": pc.greater_equal}
PLAIN: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)?)?", re.ASCII)


def comparison(type_: pa.DataType, op: str, value: Any) -> Test | str:
    """A column of a type compared by one of `KERNELS` with a text, a number or a truth value: a mask without nulls, or
    why only Great Expectations can say."""
    if not isinstance(value, str | bool) and not is_number(value):
        return f"a comparison with {value!r}"
    if isinstance(value, str) and op in ("==", "!="):
        found = member(type_, [value])
        return found if isinstance(found, str) or op == "==" else negated(found)
    for fits, build in _BUILDERS:
        if fits(type_):
            made = build(type_, op, value)
            return made if isinstance(made, str) else _filled(made, op == "!=")
    return f"{op} on {type_}"


def negated(test: Test) -> Test:
    return lambda array: pc.invert(test(array))


def _filled(test: Test, null: bool) -> Test:
    """The same with an answer for rows without a value, of which a test says null."""
    return lambda array: pc.fill_null(test(array), null)


def _always(answer: bool) -> Test:
    return lambda array: pa.repeat(answer, len(array))


def _numeric(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or is_float(type_))


def _number(type_: pa.DataType, op: str, value: Any) -> Test | str:
    """Whole numbers exactly, unless the column has a null or the value a fraction; 32-bit floats in 32 bits."""
    if isinstance(value, str):
        return f"a number {op} the text “{value}”"
    value = int(value) if isinstance(value, bool) else value
    try:
        as_float = float(value)
    except OverflowError:
        return "a number beyond 64-bit floats"
    compare, kind = KERNELS[op], pa.float64()
    if pa.types.is_float32(type_):
        with np.errstate(over="ignore"):
            as_float, kind = float(np.float32(as_float)), pa.float32()
    exact = _exactly(type_, op, value) if pa.types.is_integer(type_) and isinstance(value, int) else None

    def test(array: pa.Array) -> pa.BooleanArray:
        if exact is not None and not array.null_count:
            return exact(array)
        return compare(array.cast(kind, safe=False), pa.scalar(as_float, kind))
    return test


def _exactly(type_: pa.DataType, op: str, value: int) -> Test:
    """Whole numbers with a whole number, which may be more or less than any the column can hold."""
    signed = pa.types.is_signed_integer(type_)
    least, most = (-(2 ** (type_.bit_width - 1)), 2 ** (type_.bit_width - 1) - 1) if signed else \
        (0, 2**type_.bit_width - 1)
    if not least <= value <= most:
        return _always(PLAIN[op](0, value))
    compare, beside = KERNELS[op], pa.scalar(value, type_)
    return lambda array: compare(array, beside)


def _truth(type_: pa.DataType, op: str, value: Any) -> Test | str:
    if isinstance(value, str):
        return f"true or false {op} the text “{value}”"
    if abs(value) >= 2**63:
        return f"true or false {op} {value}, which pandas refuses"
    yes, no = (pa.scalar(PLAIN[op](truth, value)) for truth in (1, 0))
    return lambda array: pc.if_else(array, yes, no)


def _text(type_: pa.DataType, op: str, value: Any) -> Test | str:
    """By code points, which is how UTF-8 sorts too."""
    if isinstance(value, str):
        beside = pa.scalar(value, type_)
        return lambda array: KERNELS[op](array, beside)
    return _always(op == "!=") if op in ("==", "!=") else f"a text {op} {value!r}"


def _moment(type_: pa.DataType, op: str, value: Any) -> Test | str:
    """Before or after a moment written as text, as whole numbers of the column's unit."""
    if not isinstance(value, str) or _MOMENT.fullmatch(value) is None:
        return f"a timestamp {op} {value!r}"
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError as error:
        return f"a timestamp {op} “{value}”: {error}"
    if (moment.tzinfo is None) != (type_.tz is None):
        return f"a timestamp {'with' if type_.tz else 'without'} zone {op} “{value}”"
    start = dt.datetime(1970, 1, 1, tzinfo=dt.UTC if moment.tzinfo else None)
    micros = (moment - start) // dt.timedelta(microseconds=1)
    times, per = {"s": (1, 10**6), "ms": (1, 10**3), "us": (1, 1), "ns": (1000, 1)}[type_.unit]
    whole, rest = divmod(micros * times, per)
    if rest:  # between two moments of the column's unit: up to the first, or past it
        op = "<=" if op in ("<", "<=") else ">"
    if abs(whole) >= 2**63:
        return f"a timestamp in nanoseconds {op} “{value}”"
    beside = pa.scalar(whole, pa.int64())
    return lambda array: KERNELS[op](array.view(pa.int64()), beside)


def _stranger(type_: pa.DataType, op: str, value: Any) -> Test | str:
    """Dates and times of day are Python's own in pandas, equal to no text and no number."""
    return _always(op == "!=") if op in ("==", "!=") else f"{type_} {op} {value!r}"


_BUILDERS: Sequence[tuple[Callable[[pa.DataType], Any], Callable[[pa.DataType, str, Any], Test | str]]] = (
    (_numeric, _number), (pa.types.is_boolean, _truth), (is_text, _text), (pa.types.is_timestamp, _moment),
    (pa.types.is_date32, _stranger), (pa.types.is_time32, _stranger))


def member(type_: pa.DataType, values: list[Any]) -> Test | str:
    """Whether a value is one of a list of texts or of numbers; a row without one is not."""
    texts = [v for v in values if isinstance(v, str)]
    numbers = [v for v in values if not isinstance(v, str)]
    if not all(is_number(n) and abs(n) < EXACT for n in numbers):
        return "a list with a number of 2^53 or beyond, or with none"
    if is_text(type_):
        return _among(pa.array(texts, type_))
    if _numeric(type_):
        return _among(pa.array([float(n) for n in numbers] + [-0.0, 0.0] * (0 in numbers), pa.float64()))
    if pa.types.is_boolean(type_):
        yes, no = pa.scalar(1 in numbers), pa.scalar(0 in numbers)
        return _filled(lambda array: pc.if_else(array, yes, no), False)
    if pa.types.is_timestamp(type_) or pa.types.is_date32(type_) or pa.types.is_time32(type_):
        return _always(False)
    return f"a list for {type_}"


def _among(wanted: pa.Array) -> Test:
    options = pc.SetLookupOptions(value_set=wanted, skip_nulls=True)
    return lambda array: pc.call_function("is_in", [array.cast(wanted.type, safe=False)], options)
