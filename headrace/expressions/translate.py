"""From a syntax tree to typed Polars expressions. What has no entry here does not exist for expressions.

Every node is typed as it is translated, on an empty frame, so that a comparison of text with a number is refused when
the flow is planned and never coerced. SQL's three-valued logic holds throughout: null in, null out, unless stated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
from sqlglot import exp

from headrace.errors import ExpressionError
from headrace.expressions import casting, functions, gate, kinds
from headrace.expressions.kinds import BOOLEAN, NULL, NUMBER, TEXT, TIME

Columns = dict[str, tuple[str, pa.Field]]
"""Column → (its name inside Polars, its field)."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A translated node."""

    expr: pl.Expr
    dtype: pl.DataType
    nullable: bool
    """Whether it can be null on a row on which no CAST fails."""
    literal: Any = None
    """Its value, where the node is a literal other than NULL."""

    @property
    def kind(self) -> str:
        return kinds.kind(self.dtype)


@dataclass(frozen=True, slots=True)
class Cast:
    """One CAST that can fail on a row."""

    operand: pl.Expr
    failed: pl.Expr
    shown: str
    target: str


class Translator:
    """Translates one expression; `casts` and `used` fill up as it goes."""

    def __init__(self, text: str, where: str, columns: Columns) -> None:
        self.text, self.where, self.columns = text, where, columns
        self.casts: list[Cast] = []
        self.used: dict[str, None] = {}
        self.reached: list[pl.Expr] = []
        """What must hold for the node in hand to be evaluated at all: the branches of CASE it stands in."""
        entering = {n: t for n, t in columns.items() if kinds.refused(t[1].type) is None}
        arrays = [kinds.entering(pa.array([], type=f.type)) for _, f in entering.values()]
        made = pl.from_arrow(pa.RecordBatch.from_arrays(arrays, names=[i for i, _ in entering.values()]))
        assert isinstance(made, pl.DataFrame)
        self.empty = made

    def refuse(self, node: exp.Expression, why: str, what_to_do: str) -> ExpressionError:
        return gate.refuse(self.where, self.text, node, why, what_to_do)

    def make(self, node: exp.Expression, expr: pl.Expr, of: Iterable[Typed] | bool, literal: Any = None) -> Typed:
        """A translated node with its type; it can be null when one of its operands, `of`, can (or by word). Raises
        ExpressionError when Polars finds no type for it."""
        try:
            dtype = self.empty.lazy().select(expr.alias("it")).collect_schema()["it"]
        except pl.exceptions.PolarsError as error:
            told = f"it does not type: {str(error).splitlines()[0]}"
            raise self.refuse(node, told, "cast the operands to one type") from error
        return Typed(expr, dtype, of if isinstance(of, bool) else any(t.nullable for t in of), literal)

    def typed(self, node: exp.Expression) -> Typed:
        """Translates a node and all below it. Raises ExpressionError."""
        handler = _NODES.get(type(node))
        if handler is not None:
            return handler(self, node)
        function = functions.find(node)
        if function is not None:
            return self._call(node, function)
        raise self.refuse(node, *gate.why_not(node))

    def of(self, node: exp.Expression, *wanted: str, why: str) -> Typed:
        """Translates an operand that must be of one of the kinds wanted (or null)."""
        typed = self.typed(node)
        if typed.kind not in (*wanted, NULL):
            raise self.refuse(node, f"{why} takes {' or '.join(wanted)}, and this is {kinds.told(typed.dtype)}",
                              "CAST(… AS …) changes a type")
        return typed

    def same(self, node: exp.Expression, operands: list[exp.Expression], why: str) -> list[Typed]:
        """Translates operands that must be of one kind. A text literal beside a time is read as that time."""
        typed = [self.typed(o) for o in operands]
        time = next((t.dtype for t in typed if t.kind == TIME), None)
        if time is not None:
            typed = [self._as_time(o, t, time) for o, t in zip(operands, typed, strict=True)]
        found = {t.kind: t for t in typed if t.kind != NULL}
        if len(found) > 1 or (time is not None and len({type(t.dtype) for t in typed if t.kind == TIME}) > 1):
            told = sorted({kinds.told(t.dtype) for t in typed if t.kind != NULL})
            raise self.refuse(node, f"{why} takes values of one type, and these are {' and '.join(told)}",
                              "CAST(… AS …) changes a type")
        return typed

    def _as_time(self, node: exp.Expression, typed: Typed, time: pl.DataType) -> Typed:
        if not (typed.kind == TEXT and isinstance(typed.literal, str)):
            return typed
        value = casting.cast(pl.lit(typed.literal), pl.String(), time)
        assert value is not None
        if pl.select(value).item() is None:
            raise self.refuse(node, f"{gate.quote(typed.literal)} is not a {kinds.told(time)}",
                              "write it as '2013-02-08' or '2013-02-08 17:30:00'")
        return self.make(node, value, False)

    def _call(self, node: exp.Expression, function: functions.Function) -> Typed:
        given = function.arguments(node)
        if given is None or not function.least <= len(given) <= len(function.takes):
            raise self.refuse(node, f"{function.name} is written {function.shown}",
                              "docs/expressions.md lists the functions")
        typed = []
        for argument, wanted in zip(given, function.takes, strict=False):
            if wanted.startswith("literal "):
                typed.append(self._literal(argument, wanted.removeprefix("literal "), function))
            else:
                typed.append(self.of(argument, *wanted.split("|"), why=function.name))
        expr = function.build(*typed)
        if isinstance(expr, str):
            raise self.refuse(node, expr, f"{function.name} is written {function.shown}")
        return self.make(node, expr, typed)

    def _literal(self, node: exp.Expression, wanted: str, function: functions.Function) -> Typed:
        typed = self.typed(node)
        types = {"text": str, "whole": int}[wanted]
        if not isinstance(typed.literal, types) or isinstance(typed.literal, bool):
            told = wanted.replace("whole", "whole number")
            raise self.refuse(node, f"{function.name} takes a {told} written out here",
                              f"{function.name} is written {function.shown}")
        return typed


def _column(t: Translator, node: exp.Expression) -> Typed:
    parts = [p.name for p in node.parts]
    name = parts[0]
    if name not in t.columns:
        near = gate.nearest(name, t.columns)
        raise t.refuse(node, f"there is no column {gate.quote(name)}",
                       f"did you mean {near}?" if near else f"there are {', '.join(t.columns) or 'none'}")
    inside, field = t.columns[name]
    type_, nullable = field.type, field.nullable
    why = kinds.refused(type_)
    if why is not None:
        raise t.refuse(node, f"{name} is {type_}: {why}",
                       "take the parts you need out of it in a processor of your own")
    t.used[name] = None
    expr = pl.col(inside)
    for part in parts[1:]:
        known = [f.name for f in type_] if pa.types.is_struct(type_) else []
        if part not in known:
            near = gate.nearest(part, known)
            raise t.refuse(node, f"{name} has no field {gate.quote(part)}",
                           f"did you mean {near}?" if near else f"it has {', '.join(known)}" if known else
                           f"{name} is {type_}, which has no fields")
        expr, nullable = expr.struct.field(part), nullable or type_.field(part).nullable
        type_ = type_.field(part).type
    return t.make(node, expr, nullable)


def _dot(t: Translator, node: exp.Expression) -> Typed:
    base, part = t.typed(node.this), node.expression.name
    known = [f.name for f in base.dtype.fields] if isinstance(base.dtype, pl.Struct) else []
    if part not in known:
        raise t.refuse(node, f"there is no field {gate.quote(part)} in it", f"it has {', '.join(known) or 'none'}")
    return t.make(node, base.expr.struct.field(part), True)


def _constant(t: Translator, node: exp.Expression) -> Typed:
    if isinstance(node, exp.Null):
        return t.make(node, pl.lit(None), True)
    if isinstance(node, exp.Boolean):
        return t.make(node, pl.lit(bool(node.this)), False, bool(node.this))
    written = str(node.this)
    if node.args.get("is_string"):
        return t.make(node, pl.lit(written, dtype=pl.String), False, written)
    value = int(written) if written.isdigit() else float(written)
    if isinstance(value, int) and value > 2**63 - 1:
        raise t.refuse(node, "it does not fit in 64 bits", "write it as a decimal number, e.g. 1e19")
    return t.make(node, pl.lit(value, dtype=pl.Int64 if isinstance(value, int) else pl.Float64), False, value)


def _logic(t: Translator, node: exp.Expression) -> Typed:
    typed = [t.of(p, BOOLEAN, why=node.key.upper()) for p in gate.links(node)]
    parts = [p.expr.cast(pl.Boolean) for p in typed]
    return t.make(node, (pl.all_horizontal if isinstance(node, exp.And) else pl.any_horizontal)(parts), typed)


def _not(t: Translator, node: exp.Expression) -> Typed:
    operand = t.of(node.this, BOOLEAN, why="NOT")
    return t.make(node, ~operand.expr.cast(pl.Boolean), [operand])


def _comparison(t: Translator, node: exp.Expression) -> Typed:
    left, right = t.same(node, [node.this, node.expression], "a comparison")
    if kinds.OTHER in (left.kind, right.kind):
        raise t.refuse(node, "lists and records cannot be compared", "compare their fields")
    safe = isinstance(node, exp.NullSafeEQ | exp.NullSafeNEQ)
    if NULL in (left.kind, right.kind) and not safe:
        return t.make(node, pl.lit(None, dtype=pl.Boolean), True)
    return t.make(node, _COMPARE[type(node)](left.expr, right.expr), False if safe else [left, right])


def _is(t: Translator, node: exp.Expression) -> Typed:
    operand, against = node.this, node.expression
    if isinstance(against, exp.Null):
        return t.make(node, t.typed(operand).expr.is_null(), False)
    if isinstance(against, exp.Boolean):
        value = t.of(operand, BOOLEAN, why="IS TRUE").expr.cast(pl.Boolean)
        return t.make(node, value.eq_missing(pl.lit(bool(against.this))), False)
    raise t.refuse(node, "IS takes NULL, TRUE or FALSE", "use =, or IS NOT DISTINCT FROM")


def _in(t: Translator, node: exp.Expression) -> Typed:
    if node.args.get("query") or node.args.get("unnest") or node.args.get("field"):
        raise t.refuse(node, "IN takes a list written out", "write IN ('a', 'b', …)")
    value, *members = t.same(node, [node.this, *node.expressions], "IN")
    nulls = [m for m in members if m.kind == NULL]
    known = [m for m in members if m.kind != NULL]
    if all(m.literal is not None for m in known) and value.kind in (TEXT, NUMBER):
        wide = pl.String() if value.kind == TEXT else pl.Int64() if value.dtype.is_integer() and all(
            isinstance(m.literal, int) for m in known) else pl.Float64()
        hit = value.expr.cast(wide).is_in(pl.Series([m.literal for m in known], dtype=wide).implode())
    else:
        hit = pl.any_horizontal([value.expr == m.expr for m in known] or [pl.lit(False)])
    return t.make(node, hit | pl.lit(None, dtype=pl.Boolean) if nulls else hit, [value, *members])


def _between(t: Translator, node: exp.Expression) -> Typed:
    if node.args.get("symmetric"):
        raise t.refuse(node, "SYMMETRIC is not known here", "write the lower bound first")
    value, low, high = t.same(node, [node.this, node.args["low"], node.args["high"]], "BETWEEN")
    return t.make(node, (value.expr >= low.expr) & (value.expr <= high.expr), [value, low, high])


def _like(t: Translator, node: exp.Expression) -> Typed:
    escape = None
    if isinstance(node, exp.Escape):
        escape, node = node.expression.name, node.this
        if len(escape) != 1:
            raise t.refuse(node, "ESCAPE takes one character", "e.g. LIKE '50!%' ESCAPE '!'")
    if not isinstance(node, exp.Like | exp.ILike) or not isinstance(node.expression, exp.Literal):
        raise t.refuse(node, "LIKE takes a pattern written out", "write LIKE 'N%'")
    value = t.of(node.this, TEXT, why="LIKE")
    hit = functions.like(value.expr.cast(pl.String), node.expression.name, escape, isinstance(node, exp.ILike))
    return t.make(node, ~hit if node.args.get("negate") else hit, [value])


def _wide(typed: Typed) -> pl.Expr:
    """A number ready for arithmetic: whole ones of 64 bits, so that 32 bits never overflow in between."""
    if typed.dtype.is_integer() or typed.kind == NULL:
        return typed.expr.cast(pl.Int64)
    return typed.expr.cast(pl.Float64) if typed.dtype == pl.Float32 else typed.expr


def _arithmetic(t: Translator, node: exp.Expression) -> Typed:
    parts = gate.links(node) if isinstance(node, gate.CHAINS) else [node.this, node.expression]
    if any(isinstance(p, exp.Interval) for p in parts):
        return _moved(t, node, parts)
    typed = [t.of(p, NUMBER, why=f"{_SIGNS[type(node)]}") for p in parts]
    out = _wide(typed[0])
    for part in typed[1:]:
        out = _ARITHMETIC[type(node)](out, _wide(part))
    zero = isinstance(node, exp.Div | exp.IntDiv | exp.Mod) and not typed[1].literal
    return t.make(node, out, zero or typed)


def _moved(t: Translator, node: exp.Expression, parts: list[exp.Expression]) -> Typed:
    """A time plus or minus INTERVAL '1' hour; units of fixed length only."""
    if len(parts) != 2 or not isinstance(parts[1], exp.Interval) or not isinstance(node, exp.Add | exp.Sub):
        raise t.refuse(node, "an interval is added to or taken from a time", "write it as ts + INTERVAL '90' minute")
    time, interval = t.of(parts[0], TIME, why="an interval"), parts[1]
    unit = (interval.text("unit") or "").lower().rstrip("s") + "s"
    number = interval.this.name if isinstance(interval.this, exp.Literal) else ""
    if unit not in ("weeks", "days", "hours", "minutes", "seconds", "milliseconds") or not number.isdigit():
        raise t.refuse(node, "the interval is not a whole number of weeks, days, hours, minutes, seconds or "
                       "milliseconds", "write it as INTERVAL '90' minute")
    if time.dtype == pl.Time:
        raise t.refuse(node, "an interval moves a date or a timestamp, not a time of day", "build a timestamp first")
    span = pl.duration(**{unit: int(number)}, time_unit="us")
    start = time.expr.cast(pl.Datetime("us")) if time.dtype == pl.Date else time.expr
    return t.make(node, start + span if isinstance(node, exp.Add) else start - span, [time])


def _negative(t: Translator, node: exp.Expression) -> Typed:
    inner = t.of(node.this, NUMBER, why="-")
    return t.make(node, -_wide(inner), [inner], -inner.literal if isinstance(inner.literal, int | float) else None)


def _joined(t: Translator, node: exp.Expression) -> Typed:
    parts = [t.of(p, TEXT, why="||") for p in gate.links(node)]
    return t.make(node, pl.concat_str([p.expr.cast(pl.String) for p in parts]), parts)


def _case(t: Translator, node: exp.Expression) -> Typed:
    if isinstance(node, exp.If):
        pairs, default, subject = [(node.this, node.args["true"])], node.args.get("false"), None
    else:
        pairs = [(i.this, i.args["true"]) for i in node.args["ifs"]]
        default, subject = node.args.get("default"), node.this
    conditions: list[pl.Expr] = []
    for condition, _ in pairs:
        whole = exp.EQ(this=subject.copy(), expression=condition.copy()) if subject is not None else condition
        conditions.append(t.of(whole, BOOLEAN, why="WHEN").expr.cast(pl.Boolean).fill_null(False))
    branches: list[Typed] = []
    for at, branch in enumerate([*(b for _, b in pairs), default or exp.Null()]):
        mine = conditions[at: at + 1] + [~c for c in conditions[:at]]
        t.reached += mine
        branches.append(t.typed(branch))
        del t.reached[len(t.reached) - len(mine):]
    found = sorted({kinds.told(b.dtype) for b in branches if b.kind != NULL})
    if len({b.kind for b in branches if b.kind != NULL}) > 1:
        raise t.refuse(node, f"the branches of CASE are of one type, and these are {' and '.join(found)}",
                       "CAST(… AS …) changes a type")
    out = branches[-1].expr
    for condition_, branch_ in zip(reversed(conditions), reversed(branches[:-1]), strict=True):
        out = pl.when(condition_).then(branch_.expr).otherwise(out)
    return t.make(node, out, branches)


def _cast(t: Translator, node: exp.Expression) -> Typed:
    operand, written = t.typed(node.this), node.args["to"]
    if node.args.get("format") or node.args.get("default"):
        raise t.refuse(node, "CAST takes a type only", "write CAST(x AS integer)")
    target = casting.target(written)
    if target is None:
        raise t.refuse(node, f"{written.sql(dialect=gate.DIALECT)} is not a type here", f"there are {casting.NAMES}")
    value = casting.cast(operand.expr, operand.dtype, target)
    if value is None:
        raise t.refuse(node, f"{kinds.told(operand.dtype)} cannot become {kinds.told(target)}",
                       "docs/expressions.md lists the casts there are")
    if operand.literal is not None:
        if pl.select(value).item() is None and not isinstance(node, exp.TryCast):
            raise t.refuse(node, f"{gate.quote(str(operand.literal))} is not a {kinds.told(target)}",
                           "mend the literal")
    elif type(node) is exp.Cast and not casting.total(operand.dtype, target):
        failed = operand.expr.is_not_null() & value.is_null()
        shown = node.this.sql(dialect=gate.DIALECT)
        t.casts.append(Cast(operand.expr, pl.all_horizontal([failed, *t.reached]), shown,
                            f"a {kinds.told(target)}" if target != pl.Int32 else "a whole number of 32 bits"))
    tried = isinstance(node, exp.TryCast) and not casting.total(operand.dtype, target) and operand.literal is None
    return t.make(node, value, tried or [operand])


def _coalesce(t: Translator, node: exp.Expression) -> Typed:
    typed = t.same(node, [node.this, *node.expressions], "coalesce")
    return t.make(node, pl.coalesce([v.expr for v in typed]), all(v.nullable for v in typed))


def _nullif(t: Translator, node: exp.Expression) -> Typed:
    left, right = t.same(node, [node.this, node.expression], "nullif")
    return t.make(node, pl.when((left.expr == right.expr).fill_null(False)).then(None).otherwise(left.expr), True)


def _extremes(t: Translator, node: exp.Expression) -> Typed:
    typed = t.same(node, [node.this, *node.expressions], node.key)
    pick = pl.max_horizontal if isinstance(node, exp.Greatest) else pl.min_horizontal
    return t.make(node, pick([v.expr for v in typed]), all(v.nullable for v in typed))


def _concat(t: Translator, node: exp.Expression) -> Typed:
    parts = [t.of(p, TEXT, why="concat").expr.cast(pl.String) for p in node.expressions]
    return t.make(node, pl.concat_str(parts, ignore_nulls=True), False)


def _paren(t: Translator, node: exp.Expression) -> Typed:
    return t.typed(node.this)


def _local(t: Translator, node: exp.Expression) -> Typed:
    """ts AT TIME ZONE 'America/New_York': what the clocks there show, as a timestamp without a zone."""
    time, zone = t.of(node.this, TIME, why="AT TIME ZONE"), node.args["zone"]
    if not (isinstance(time.dtype, pl.Datetime) and time.dtype.time_zone):
        raise t.refuse(node, "AT TIME ZONE takes a timestamp with time zone", "CAST(… AS timestamptz) takes it for UTC")
    name = zone.name if isinstance(zone, exp.Literal) else ""
    try:
        pl.Series([0]).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(name)
    except pl.exceptions.PolarsError as error:
        raise t.refuse(node, f"{gate.quote(name)} is not a time zone", "write it as 'America/New_York'") from error
    return t.make(node, time.expr.dt.convert_time_zone(name).dt.replace_time_zone(None), [time])


def _no_zero(divisor: pl.Expr) -> pl.Expr:
    """Division by zero gives null, as in DuckDB, rather than an infinity that wanders on."""
    return pl.when(divisor == 0).then(None).otherwise(divisor)


_COMPARE: dict[type[exp.Expression], Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    exp.EQ: pl.Expr.eq, exp.NEQ: pl.Expr.ne, exp.GT: pl.Expr.gt, exp.GTE: pl.Expr.ge, exp.LT: pl.Expr.lt,
    exp.LTE: pl.Expr.le, exp.NullSafeEQ: pl.Expr.eq_missing, exp.NullSafeNEQ: pl.Expr.ne_missing}
_ARITHMETIC: dict[type[exp.Expression], Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    exp.Add: lambda a, b: a + b, exp.Sub: lambda a, b: a - b, exp.Mul: lambda a, b: a * b,
    exp.Div: lambda a, b: a.cast(pl.Float64) / _no_zero(b.cast(pl.Float64)),
    exp.IntDiv: lambda a, b: a // _no_zero(b), exp.Mod: lambda a, b: a % _no_zero(b),
    exp.Pow: lambda a, b: a.cast(pl.Float64).pow(b.cast(pl.Float64))}
_SIGNS = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.IntDiv: "//", exp.Mod: "%", exp.Pow: "power"}
_NODES: dict[type[exp.Expression], Callable[[Translator, exp.Expression], Typed]] = {
    exp.Column: _column, exp.Dot: _dot, exp.Literal: _constant, exp.Boolean: _constant, exp.Null: _constant,
    exp.Paren: _paren,
    exp.And: _logic, exp.Or: _logic, exp.Not: _not, exp.Is: _is, exp.In: _in, exp.Between: _between,
    exp.Like: _like, exp.ILike: _like, exp.Escape: _like, exp.Neg: _negative, exp.DPipe: _joined, exp.Case: _case,
    exp.If: _case, exp.Cast: _cast, exp.TryCast: _cast, exp.Coalesce: _coalesce, exp.Nullif: _nullif,
    exp.AtTimeZone: _local, exp.Greatest: _extremes, exp.Least: _extremes, exp.Concat: _concat,
    **dict.fromkeys(_COMPARE, _comparison), **dict.fromkeys(_ARITHMETIC, _arithmetic)}
