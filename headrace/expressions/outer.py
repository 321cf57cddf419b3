"""The outer call of an aggregate, `avg(arr_delay > 15)`: its name, and the scalar expression in it as text.

The gate refuses aggregates in expressions, since those see one record; a step that aggregates takes the call apart by
this, and has the inside compiled as any other expression.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlglot import exp

from headrace.expressions import gate

CALLS: dict[type[exp.Expression], str] = {
    exp.Count: "count", exp.Sum: "sum", exp.Avg: "avg", exp.Min: "min", exp.Max: "max", exp.Stddev: "stddev",
    exp.StddevSamp: "stddev", exp.First: "first", exp.Last: "last"}


class Call(NamedTuple):
    """`inner` is None for `count(*)`."""

    name: str
    inner: str | None
    distinct: bool = False


def aggregate_call(text: str, *, where: str) -> Call:
    """What is aggregated how. Raises ExpressionError; `where` names the text in the message."""
    tree = gate.parse(text, where).unnest()
    name = CALLS.get(type(tree))
    if name is None:
        raise gate.refuse(where, text, tree, "it is not one aggregate of an expression",
                          f"write {', '.join(f'{n}(…)' for n in dict.fromkeys(CALLS.values()))} or count(DISTINCT …) "
                          "around a scalar expression; what is made of aggregates goes into a `derive` step below")
    inner = tree.this
    if isinstance(inner, exp.Distinct):
        if name != "count" or len(inner.expressions) != 1:
            raise gate.refuse(where, text, inner, "DISTINCT stands in count, before one expression",
                              "write count(DISTINCT tailnum)")
        return Call(name, inner.expressions[0].sql(dialect=gate.DIALECT), True)
    if any(isinstance(part, exp.Expression | list) for key, part in tree.args.items() if key != "this" and part):
        raise gate.refuse(where, text, tree, f"{name} takes one expression", "greatest and least compare several")
    if isinstance(inner, exp.Star):
        if name != "count" or any(inner.args.values()):
            raise gate.refuse(where, text, inner, "a star stands alone, in count", "write count(*)")
        return Call(name, None)
    if inner is None:
        raise gate.refuse(where, text, tree, f"{name} lacks its expression", f"write {name}(arr_delay)")
    return Call(name, inner.sql(dialect=gate.DIALECT))
