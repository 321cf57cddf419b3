"""Expectations about two columns in a row as Arrow kernels, and what they share with those about more (lists.py)."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.kernels import Column, Kernel, is_float, is_text, is_whole, present, some
from headrace.contracts.suite import Expectation

Scope = Callable[[list[pa.Array]], "pa.BooleanArray | None"]
"""Columns → the rows that are judged, or None for all."""

_IGNORE = {"neither": "never", "never": "never",
           "both_values_are_missing": "all", "all_values_are_missing": "all",
           "either_value_is_missing": "any", "any_value_is_missing": "any"}


def scoped(e: Expectation, default: str) -> Scope | None:
    """Which rows `ignore_row_if` leaves to be judged; None for a value of it that is unknown."""
    rule = _IGNORE.get(str(e.kwargs.get("ignore_row_if") or default))
    if rule is None:
        return None

    def scope(arrays: list[pa.Array]) -> pa.BooleanArray | None:
        valid = [present(a) for a in arrays]
        if rule == "never" or (rule == "all" and any(v is None for v in valid)):
            return None
        known = [v for v in valid if v is not None]
        return reduce(pc.or_ if rule == "all" else pc.and_, known) if known else None
    return scope


def row_kernel(e: Expectation, scope: Scope, good: Callable[[list[pa.Array]], pa.BooleanArray],
               says: tuple[str | Column, ...]) -> Kernel:
    """A kernel from what is good; a null in `good` is not good, and rows outside the scope are not judged."""
    names = e.columns

    def bad(rows: pa.RecordBatch) -> pa.BooleanArray | None:
        arrays = [rows.column(n) for n in names]
        wrong = pc.invert(pc.fill_null(good(arrays), False))
        if not wrong.true_count:
            return None
        judged = scope(arrays)
        return wrong if judged is None else some(pc.and_(wrong, judged))

    def judged(rows: pa.RecordBatch) -> int:
        inside = scope([rows.column(n) for n in names])
        return rows.num_rows if inside is None else int(inside.true_count)

    return Kernel(bad, says, judged)


def as_compared(arrays: list[pa.Array]) -> list[pa.Array]:
    """Numbers as pandas compares them: as 64-bit floats as soon as one is a float or, for want of a null among whole
    numbers in pandas, has one."""
    if any(pa.types.is_floating(a.type) or (pa.types.is_integer(a.type) and a.null_count) for a in arrays):
        return [pc.cast(a, pa.float64(), safe=False) for a in arrays]
    return arrays


def _comparable(types: list[pa.DataType]) -> str | None:
    """Why columns of these types are left to pandas, or None."""
    if all(is_whole(t) or is_float(t) for t in types) or all(map(is_text, types)):
        return None
    if all(pa.types.is_timestamp(t) for t in types) and len(set(types)) == 1:
        return None
    return f"a comparison of {' with '.join(map(str, types))}"


def _two(e: Expectation) -> tuple[str, str]:
    if len(e.columns) != 2 or not all(isinstance(e.kwargs.get(k), str) for k in ("column_A", "column_B")):
        e.wrong("column_A or column_B is missing", "give both")
    return e.columns[0], e.columns[1]


def pair(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """A equal to B, A greater than B. A row with one of the two missing is bad, unless it is ignored."""
    a, b = _two(e)
    why = "a column beside itself" if a == b else _comparable([schema.field(c).type for c in (a, b)])
    scope = scoped(e, "both_values_are_missing")
    if why is not None or scope is None:
        return why or "an unusual ignore_row_if"
    compare, told = pc.equal, "equal to"
    if e.type == "expect_column_pair_values_a_to_be_greater_than_b":
        or_equal = e.kwargs.get("or_equal") or False
        if not isinstance(or_equal, bool):
            return "or_equal is not true or false"
        compare, told = (pc.greater_equal, "at least") if or_equal else (pc.greater, "greater than")
    says = (f"{a} is ", Column(a), f", not {told} {b}, which is ", Column(b))
    return row_kernel(e, scope, lambda arrays: compare(*as_compared(arrays)), says)


def in_set(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """The pair is one of a set, asked once per distinct pair. A value that is missing is None in the set, and by
    default rows where both are missing are left out."""
    members, scope, (a, b) = e.kwargs.get("value_pairs_set"), scoped(e, "both_values_are_missing"), _two(e)
    if not isinstance(members, list) or not all(isinstance(m, list | tuple) and len(m) == 2 for m in members):
        e.wrong(f"value_pairs_set is {members!r}", "it is a list of pairs, e.g. [[1, \"a\"], [2, null]]")
    strange = [t for t in (schema.field(c).type for c in (a, b)) if not _hashed(t)]
    if strange or scope is None or a == b or e.kwargs.get("row_condition") is not None:
        return f"pairs with {strange[0]}" if strange else "an unusual ignore_row_if" if scope is None else \
            "a column beside itself" if a == b else "its row_condition, past which Great Expectations looks"
    if not all(v is None or isinstance(v, str | int | float) for m in members for v in m):
        return "value_pairs_set holds other than texts and numbers"
    wanted = {tuple(m) for m in members}

    def good(arrays: list[pa.Array]) -> pa.BooleanArray:
        left, right = (_series(array).dictionary_encode(null_encoding="encode") for array in interleaved(arrays))
        codes = left.indices.to_numpy().astype("int64") * len(right.dictionary) + right.indices.to_numpy()
        values, others = left.dictionary.to_pylist(), right.dictionary.to_pylist()
        seen, places = np.unique(codes, return_inverse=True)
        found = [(values[code // len(others)], others[code % len(others)]) in wanted for code in seen.tolist()]
        return pa.array(np.array(found, dtype=bool)[places])
    says = (f"{a} is ", Column(a), f" and {b} is ", Column(b), ", a pair that is not in the set")
    return row_kernel(e, scope, good, says)


def _hashed(type_: pa.DataType) -> bool:
    t = pa.types
    return bool(is_text(type_) or is_float(type_) or t.is_integer(type_) or t.is_boolean(type_) or t.is_date32(type_)
                or t.is_decimal128(type_) or t.is_binary(type_) or t.is_time(type_))


def interleaved(arrays: list[pa.Array]) -> list[pa.Array]:
    """As pandas holds a row of numbers: all in the one type that numpy finds for them."""
    held = [pc.cast(a, pa.float64(), safe=False) if pa.types.is_integer(a.type) and a.null_count else a for a in arrays]
    if not all(pa.types.is_integer(a.type) or is_float(a.type) for a in held):
        return held
    both = pa.from_numpy_dtype(np.result_type(*(a.type.to_pandas_dtype() for a in held)))
    return [pc.cast(a, both, safe=False) for a in held]


def _series(array: pa.Array) -> pa.Array:
    """NaN as null, and -0.0 as 0.0."""
    if not pa.types.is_floating(array.type):
        return array
    return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), pc.add(array, pa.scalar(0.0, array.type)))


def named(e: Expectation, told: str) -> tuple[str | Column, ...]:
    says: list[str | Column] = []
    for name in e.columns:
        says += [", " if says else "", f"{name} ", Column(name)]
    return (*says, f" {told}")
