"""Expectations about several columns in a row as Arrow kernels: all equal, all different, or adding up."""

from __future__ import annotations

from functools import reduce
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.kernels import Kernel, is_float, is_number, is_text, is_whole
from headrace.contracts.pairs import Scope, as_compared, interleaved, named, row_kernel, scoped
from headrace.contracts.suite import Expectation

ADDED_MAX = 7
"""Columns that numpy adds up from left to right; more it adds up in portions."""
_T = pa.types


def _listed(e: Expectation, schema: pa.Schema) -> tuple[list[pa.DataType], Scope] | str:
    """The types of column_list and the rows that are judged, or why pandas decides."""
    listed, scope = e.kwargs.get("column_list"), scoped(e, "all_values_are_missing")
    if not isinstance(listed, list) or len(listed) < 2 or not all(isinstance(c, str) for c in listed):
        e.wrong(f"column_list is {listed!r}", "column_list names two columns or more")
    if scope is None:
        return "an unusual ignore_row_if"
    if len(set(listed)) < len(listed):
        return "a column beside itself"
    return [schema.field(c).type for c in listed], scope


def _strange(types: list[pa.DataType], numbers: bool) -> str | None:
    """Why columns of these types are left to pandas, or None where they are all numbers, or all of one type that
    equals itself as in pandas."""
    if numbers or all(map(is_text, types)):
        return None
    one = types[0]
    if set(types) == {one} and (_T.is_timestamp(one) or _T.is_date32(one) or _T.is_boolean(one) or _T.is_decimal(one)):
        return None
    return f"columns of {', '.join(sorted(set(map(str, types))))}"


def _same(a: pa.Array, b: pa.Array) -> pa.BooleanArray:
    """Equal, two values that are missing being equal; never null."""
    equal, missing = pc.fill_null(pc.equal(a, b), False), [pc.is_null(x, nan_is_null=True) for x in (a, b)]
    return pc.or_(equal, pc.and_(*missing))


def equal_values(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """All columns of the list hold one value; nulls are equal to each other."""
    made = _listed(e, schema)
    if isinstance(made, str):
        return made
    types, scope = made
    why = _strange(types, all(is_whole(t) or is_float(t) for t in types))
    return why or row_kernel(e, scope, lambda arrays: reduce(pc.and_, [
        _same(*as_compared([arrays[0], a])) for a in arrays[1:]]), named(e, "are not equal"))


def different_values(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """No two columns of the list hold one value; two nulls are one value."""
    made = _listed(e, schema)
    if isinstance(made, str):
        return made
    types, scope = made
    why = _strange(types, all(_T.is_integer(t) or is_float(t) for t in types))
    return why or row_kernel(e, scope, lambda arrays: pc.invert(reduce(pc.or_, [
        _same(a, b) for a, b in combinations(interleaved(arrays), 2)])), named(e, "are not all different"))


def sum_equals(e: Expectation, schema: pa.Schema) -> Kernel | str:
    """The columns of the list add up to a total; a value that is missing makes the sum wrong."""
    made, total = _listed(e, schema), e.kwargs.get("sum_total")
    if isinstance(made, str):
        return made
    types, scope = made
    if not is_number(total) or not all(_T.is_integer(t) or is_float(t) for t in types) or len(types) > ADDED_MAX:
        return "a sum of other than a few numbers"
    wanted = float(total)  # type: ignore[arg-type]

    def good(arrays: list[pa.Array]) -> pa.BooleanArray:
        return pa.array(_sum(interleaved(arrays)) == wanted)
    return row_kernel(e, scope, good, named(e, f"do not add up to {total}"))


def _sum(arrays: list[pa.Array]) -> np.ndarray[Any, Any]:
    """As numpy adds: whole numbers in 64 bits, past which they wrap around."""
    columns = [a.to_numpy(zero_copy_only=False) for a in arrays]
    kind = columns[0].dtype.kind
    with np.errstate(all="ignore"):
        return reduce(np.add, [c if kind == "f" else c.astype(f"{kind}8") for c in columns])
