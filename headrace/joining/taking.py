"""What a step that brings two sides together asks of their columns: that keys compare, and that no names clash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from headrace.errors import SchemaError
from headrace.marked import nearest

Take = tuple[str, ...] | dict[str, str] | None


def comparable(left: Sequence[str], rows: pa.Schema, right: Sequence[str], other: pa.Schema) -> None:
    """Whether equal values of these columns, in turn, have equal keys. Raises SchemaError."""
    for one, two in zip(left, right, strict=True):
        held = rows.field(one).type, other.field(two).type
        if _kind(held[0]) != _kind(held[1]):
            raise SchemaError(f"`on` compares {one}, which is {held[0]}, with {two}, which is {held[1]}",
                              hint=f"bring them to one type with a `select` step, e.g. cast: {{{two}: …}}")


def _kind(held: pa.DataType) -> str:
    if pa.types.is_integer(held):
        return "int"
    return "string" if pa.types.is_large_string(held) else str(held)


def taken(take: Take, suffix: str | None, left: Sequence[str], right: Sequence[str],
          without: Sequence[str]) -> Mapping[str, str]:
    """Name in the result → column of the right side. `without` is what is left out when nothing is said.

    Raises SchemaError: no such column, or a name that the left side has too.
    """
    if not isinstance(take, dict):
        names = [n for n in right if n not in without] if take is None else take
        take = {n + suffix if suffix and n in left else n: n for n in names}
    for name, column in take.items():
        if column not in right:
            raise SchemaError(f"`take` names “{column}”, which is no column there{nearest(column, right)}",
                              hint=f"there are {', '.join(right)}")
        if name in left:
            raise SchemaError(f"both sides have a column “{name}”", hint="name what is taken, `take: {new_name: "
                              f"{column}}}`, or give it a `suffix: _right`")
    return take
