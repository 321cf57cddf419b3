"""Row-level expectations over several columns as Arrow kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.kernels import Column, Kernel, is_float, is_number, is_text, is_whole, present, some
from headrace.contracts.suite import Expectation

Scope = Callable[[list[pa.Array]], "pa.BooleanArray | None"]
"""Columns → the rows that are judged, or None for all."""

_IGNORE = {"neither": "never", "never": "never",
           "both_values_are_missing": "all", "all_values_are_missing": "all",
           "either_value_is_missing": "any", "any_value_is_missing": "any"}


def _scope(e: Expectation, default: str) -> Scope | None:
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


def _kernel(e: Expectation, scope: Scope, good: Callable[[list[pa.Array]], pa.BooleanArray],
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


def _alike(arrays: list[pa.Array]) -> list[pa.Array]:
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


def pair(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """A equal to B, A greater than B. A row with one of the two missing is bad, unless it is ignored."""
    if len(e.columns) != 2 or not all(isinstance(e.kwargs.get(k), str) for k in ("column_A", "column_B")):
        e.wrong("column_A or column_B is missing", "give both")
    a, b = e.columns
    why = _comparable([schema.field(c).type for c in (a, b)])
    scope = _scope(e, "both_values_are_missing")
    if why is not None or scope is None:
        return why or "an unusual ignore_row_if"
    compare, told = pc.equal, "equal to"
    if e.type == "expect_column_pair_values_a_to_be_greater_than_b":
        or_equal = e.kwargs.get("or_equal") or False
        if not isinstance(or_equal, bool):
            return "or_equal is not true or false"
        compare, told = (pc.greater_equal, "at least") if or_equal else (pc.greater, "greater than")
    says = (f"{a} is ", Column(a), f", not {told} {b}, which is ", Column(b))
    return _kernel(e, scope, lambda arrays: compare(*_alike(arrays)), says)


def _list(e: Expectation, schema: pa.Schema) -> list[pa.DataType] | str:
    """The types of column_list when all are one simple type, or why pandas decides."""
    listed = e.kwargs.get("column_list")
    if not isinstance(listed, list) or len(listed) < 2 or not all(isinstance(c, str) for c in listed):
        e.wrong(f"column_list is {listed!r}", "column_list names two columns or more")
    types = [schema.field(c).type for c in listed]
    small = all(pa.types.is_integer(t) and t.bit_width <= 32 for t in types)
    if small or all(pa.types.is_string(t) for t in types):
        return types
    return f"columns of {', '.join(sorted(set(map(str, types))))}"


def _same(a: pa.Array, b: pa.Array) -> pa.BooleanArray:
    """Equal, two nulls being equal; never null."""
    equal = pc.fill_null(pc.equal(a, b), False)
    return pc.or_(equal, pc.and_(pc.is_null(a), pc.is_null(b))) if a.null_count and b.null_count else equal


def equal_values(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """All columns of the list hold one value; nulls are equal to each other."""
    types, scope = _list(e, schema), _scope(e, "all_values_are_missing")
    if isinstance(types, str) or scope is None:
        return types if isinstance(types, str) else "an unusual ignore_row_if"
    return _kernel(e, scope, lambda arrays: reduce(pc.and_, [_same(arrays[0], a) for a in arrays[1:]]),
                   _listed(e, "are not equal"))


def different_values(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """No two columns of the list hold one value; two nulls are one value."""
    types, scope = _list(e, schema), _scope(e, "all_values_are_missing")
    if isinstance(types, str) or scope is None:
        return types if isinstance(types, str) else "an unusual ignore_row_if"
    return _kernel(e, scope, lambda arrays: pc.invert(reduce(pc.or_, [_same(a, b) for a, b in
                                                                      combinations(arrays, 2)])),
                   _listed(e, "are not all different"))


def sum_equals(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """The columns of the list add up to a total; a null among them makes it wrong."""
    types, scope = _list(e, schema), _scope(e, "all_values_are_missing")
    total = e.kwargs.get("sum_total")
    if isinstance(types, str) or scope is None or not is_number(total) or not pa.types.is_integer(types[0]):
        return types if isinstance(types, str) else "a sum of other than whole numbers"
    wanted = pa.scalar(float(total))  # type: ignore[arg-type]
    return _kernel(e, scope, lambda arrays: pc.equal(pc.cast(reduce(pc.add, [pc.cast(a, pa.int64()) for a in arrays]),
                                                             pa.float64()), wanted),
                   _listed(e, f"do not add up to {total}"))


def _listed(e: Expectation, told: str) -> tuple[str | Column, ...]:
    says: list[str | Column] = []
    for name in e.columns:
        says += [", " if says else "", f"{name} ", Column(name)]
    return (*says, f" {told}")
