"""SQL scalar expressions over Arrow rows: compiled once at plan time, evaluated batch by batch by Polars.

    expression = compile_expression("origin || '-' || dest", schema)
    expression.evaluate(rows)                    # pa.Array, one value a row

A text goes through three gates, in this order, and Polars never sees the text itself: bounds on length and depth, one
parse by sqlglot (dialect `duckdb`), and a translation that knows allow-listed scalar nodes only (`translate.py`).
What the translation has no entry for — sub-selects, aggregates, windows, table functions, clocks, chance — is refused
with its position. sqlglot and Polars are imported when the first expression is compiled, not before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["Evaluated", "Expression", "Expressions", "compile_expression", "compile_many"]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What a batch gave: an array per expression, and which rows a CAST failed on."""

    arrays: Mapping[str, pa.Array]
    """In the order of the expressions."""
    failed: pa.BooleanArray | None
    """Rows where some CAST became null although its operand was not; None when there is no such row."""
    _rows: pa.RecordBatch
    _program: Any

    def reasons(self) -> pa.Array:
        """`list<string>` for the rows of `failed`, in order: `"<name>: <operand> is “x”, which is not a <type>"`."""
        if self.failed is None:
            return pa.array([], type=pa.list_(pa.string()))
        index = np.flatnonzero(self.failed.to_numpy(zero_copy_only=False))
        texts: list[list[str]] = self._program.explain(self._rows.take(pa.array(index)))
        return pa.array(texts, type=pa.list_(pa.string()))


@dataclass(frozen=True, slots=True)
class Expressions:
    """Several expressions over the same rows, evaluated in one Polars frame."""

    fields: Sequence[pa.Field]
    """Name and type of each, in the order given; not nullable where no row can make it null, unless a CAST fails."""
    columns: tuple[str, ...]
    """The columns of the input that are read."""
    casts: bool
    """Whether a row can fail: there is a CAST in it whose operand is not a constant."""
    _program: Any

    def evaluate(self, rows: pa.RecordBatch) -> Evaluated:
        """Evaluates all on `rows`, which must have the schema's columns; of types as at plan time."""
        arrays, failed = self._program.run(rows)
        return Evaluated(arrays, failed, rows, self._program)


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression. `type` is the Arrow type of its values; where not `nullable`, only a failed CAST is null."""

    text: str
    type: pa.DataType
    nullable: bool
    columns: tuple[str, ...]
    casts: bool
    _many: Expressions

    def evaluate(self, rows: pa.RecordBatch) -> pa.Array:
        """One value a row; where a CAST fails the value is null (`compile_many` tells which rows those are)."""
        array: pa.Array = self._many.evaluate(rows).arrays["it"]
        return array


def compile_expression(text: str, schema: pa.Schema, *, where: str = "expression") -> Expression:
    """Compiles one expression for rows of `schema`. Raises ExpressionError; `where` names it in the message."""
    from headrace.expressions.program import compile_texts

    many = compile_texts({"it": text}, schema, {"it": where})
    return Expression(text, many.fields[0].type, many.fields[0].nullable, many.columns, many.casts, many)


def compile_many(texts: Mapping[str, str], schema: pa.Schema) -> Expressions:
    """Compiles name → expression, each for rows of `schema` (none sees another's result). Raises ExpressionError."""
    from headrace.expressions.program import compile_texts

    return compile_texts(texts, schema, {name: f"“{name}”" for name in texts})
