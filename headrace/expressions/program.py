"""Expressions compiled to one Polars selection: its types fixed at plan time, its casts watched at run time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from headrace.errors import ExpressionError
from headrace.expressions import Expressions, gate, kinds
from headrace.expressions.translate import Cast, Columns, Translator


class _Program:
    """What `Expressions` runs. A bare column never enters Polars, a constant is computed once."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.bare: dict[str, str] = {}
        self.constants: dict[str, pa.Scalar] = {}
        self.selected: dict[str, tuple[pl.Expr, pa.DataType]] = {}
        self.casts: list[tuple[str, Cast]] = []
        self.columns: dict[str, str] = {}
        """Column of the input → its name inside Polars, where no name of the user's can mean anything."""

    def frame(self, rows: pa.RecordBatch) -> pl.DataFrame:
        arrays = [kinds.entering(rows.column(name)) for name in self.columns]
        made = pl.from_arrow(pa.RecordBatch.from_arrays(arrays, names=list(self.columns.values())))
        assert isinstance(made, pl.DataFrame)
        return made

    def run(self, rows: pa.RecordBatch) -> tuple[dict[str, pa.Array], pa.BooleanArray | None]:
        n = rows.num_rows
        arrays: dict[str, pa.Array] = {name: rows.column(column) for name, column in self.bare.items()}
        arrays |= {name: pa.repeat(scalar, n) for name, scalar in self.constants.items()}
        failed = None
        if self.selected:
            wanted = [e.alias(f"r{at}") for at, (e, _) in enumerate(self.selected.values())]
            if self.casts:
                wanted.append(pl.any_horizontal([c.failed for _, c in self.casts]).fill_null(False).alias("failed"))
            out = self.frame(rows).with_columns(wanted)  # `select` would give one row for `a = NULL`
            for at, (name, (_, type_)) in enumerate(self.selected.items()):
                array = out[f"r{at}"].to_arrow()
                arrays[name] = array if array.type == type_ else pc.cast(array, type_)
            if self.casts and out["failed"].any():
                failed = out["failed"].to_arrow()
        return {name: arrays[name] for name in self.names}, failed

    def explain(self, rows: pa.RecordBatch) -> list[list[str]]:
        """For rows on which a cast fails: what is wrong with each."""
        texts: list[list[str]] = [[] for _ in range(rows.num_rows)]
        frame = self.frame(rows)
        for name, cast in self.casts:
            hit, values = frame.with_columns(hit=cast.failed, value=cast.operand).select("hit", "value")
            for at in np.flatnonzero(hit.fill_null(False).to_numpy()).tolist():
                shown = gate.quote(str(values[at]))
                texts[at].append(f"{name}: {cast.shown} is {shown}, which is not {cast.target}")
        return texts


def _types(schema: pa.Schema) -> Columns:
    """Name → (name inside Polars, field) of every column."""
    return {field.name: (f"c{at}", field) for at, field in enumerate(schema)}


def compile_texts(texts: Mapping[str, str], schema: pa.Schema, where: Mapping[str, str]) -> Expressions:
    """The work behind `compile_many`; `where` names each expression in messages. Raises ExpressionError."""
    program, fields, columns = _Program(texts), [], _types(schema)
    used: dict[str, None] = {}
    entering: dict[str, None] = {}
    for name, text in texts.items():
        tree = gate.parse(text, where[name]).unnest()
        if isinstance(tree, exp.Column) and not tree.table and tree.name in columns:
            program.bare[name] = tree.name
            used[tree.name] = None
            fields.append(schema.field(tree.name).with_name(name))
            continue
        translator = Translator(text, where[name], columns)
        typed = translator.typed(tree)
        empty = translator.empty.select(typed.expr.alias("it"))["it"].to_arrow()
        type_ = kinds.leaving(empty.type)
        _storable(type_, text, where[name])
        if translator.used:
            program.selected[name] = (typed.expr, type_)
            program.casts += [(name, cast) for cast in translator.casts]
            used |= dict.fromkeys(translator.used)
            entering |= dict.fromkeys(translator.used)
        else:
            program.constants[name] = pc.cast(pl.select(typed.expr).to_series().to_arrow(), type_)[0]
        fields.append(pa.field(name, type_, typed.nullable))
    program.columns = {c: columns[c][0] for c in entering}
    return Expressions(tuple(fields), tuple(used), bool(program.casts), program)


def _storable(type_: pa.DataType, text: str, where: str) -> None:
    if pa.types.is_null(type_):
        raise ExpressionError(f"{where}, {gate.quote(text)}: it is always null, of no type",
                              hint="give it one, e.g. CAST(NULL AS varchar)")
    if pa.types.is_duration(type_):
        raise ExpressionError(f"{where}, {gate.quote(text)}: a span of time has no type in Avro",
                              hint="take its seconds: extract(epoch FROM later) - extract(epoch FROM earlier)")
