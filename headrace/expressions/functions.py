"""The functions expressions have. A table: what each takes, how it is written, what it does in Polars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl
from sqlglot import exp

from headrace.expressions.kinds import NUMBER, TEXT, TIME


@dataclass(frozen=True, slots=True)
class Function:
    """`takes` has a kind for each argument, or `literal text` / `literal whole`; `build` gives an expression, or a
    text that says what is wrong with the arguments."""

    name: str
    shown: str
    takes: tuple[str, ...]
    least: int
    build: Callable[..., pl.Expr | str]
    keys: tuple[str, ...] = ("this", "expression")
    """Where sqlglot keeps the arguments in the node."""
    fixed: tuple[tuple[str, Any], ...] = ()
    """Arguments of the node that must be exactly so (or absent)."""

    def arguments(self, node: exp.Expression) -> list[exp.Expression] | None:
        """The arguments given, in order; None when the node carries something that is not in the table."""
        if isinstance(node, exp.Anonymous):
            return list(node.expressions)
        given = [node.args[k] for k in self.keys if node.args.get(k) is not None]
        known = {*self.keys, *_MARKS, *(k for k, _ in self.fixed)}
        if any(v not in (None, False, []) and k not in known for k, v in node.args.items()):
            return None
        return given if all(isinstance(g, exp.Expression) for g in given) else None


_MARKS = {"safe", "typed", "coalesce", "big_int", "binary", "dialect"}  # notes of sqlglot to itself, for transpiling

_REGEX_SPECIAL = frozenset("\\.+*?()|[]{}^$#&-~")


def escaped(text: str) -> str:
    """A text as a regular expression that matches it and nothing else."""
    return "".join("\\" + c if c in _REGEX_SPECIAL else c for c in text)


def like(value: pl.Expr, pattern: str, escape: str | None, ignore_case: bool) -> pl.Expr:
    """LIKE: `%` any characters, `_` one; no escape character unless given."""
    out, at = [], 0
    while at < len(pattern):
        c = pattern[at]
        if c == escape and at + 1 < len(pattern):
            at += 1
            out.append(escaped(pattern[at]))
        else:
            out.append({"%": ".*", "_": "."}.get(c) or escaped(c))
        at += 1
    body = "".join(out)
    inner = body.removeprefix(".*").removesuffix(".*")
    if not ignore_case and inner == escaped(plain := pattern.strip("%")) and escape is None and "_" not in plain:
        match body.startswith(".*") or body == ".*", body.endswith(".*"):
            case False, False:
                return value == pl.lit(plain)
            case False, True if pattern.count("%") == 1:
                return value.str.starts_with(plain)
            case True, False if pattern.count("%") == 1:
                return value.str.ends_with(plain)
            case True, True if pattern.count("%") == 2 and plain:
                return value.str.contains(plain, literal=True)
    return value.str.contains(f"(?s{'i' if ignore_case else ''})\\A{body}\\z")


def _text(build: Callable[..., pl.Expr | str]) -> Callable[..., pl.Expr | str]:
    """The first argument as text, even where it is a bare NULL."""
    return lambda first, *rest: build(first.expr.cast(pl.String), *rest)


def _substring(value: pl.Expr, start: Any, length: Any = None) -> pl.Expr | str:
    if start.literal < 1 or (length is not None and length.literal < 0):
        return "positions begin at 1, and a length is not negative"
    return value.str.slice(start.literal - 1, None if length is None else length.literal)


def _round(value: Any, decimals: Any = None) -> pl.Expr | str:
    digits = 0 if decimals is None else decimals.literal
    if not 0 <= digits <= 15:
        return "the digits are between 0 and 15"
    expr: pl.Expr = value.expr
    if value.dtype.is_integer():
        return expr
    return (expr if value.dtype.is_decimal() else expr.cast(pl.Float64)).round(digits, mode="half_away_from_zero")


def _whole(name: str) -> Callable[..., pl.Expr | str]:
    return lambda value: value.expr if value.dtype.is_integer() else getattr(value.expr.cast(pl.Float64), name)()


def _regexp(value: pl.Expr, pattern: Any) -> pl.Expr | str:
    try:
        pl.select(pl.lit("x").str.contains(pattern.literal))
    except pl.exceptions.PolarsError as error:
        told = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"the pattern is not a regular expression: {told[-1] if told else error}"
    return value.str.contains(pattern.literal)


_PARTS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "year": lambda t: t.dt.year(), "quarter": lambda t: t.dt.quarter(), "month": lambda t: t.dt.month(),
    "week": lambda t: t.dt.week(), "day": lambda t: t.dt.day(), "hour": lambda t: t.dt.hour(),
    "minute": lambda t: t.dt.minute(), "second": lambda t: t.dt.second(), "isodow": lambda t: t.dt.weekday(),
    "dow": lambda t: t.dt.weekday() % 7, "dayofweek": lambda t: t.dt.weekday() % 7,
    "doy": lambda t: t.dt.ordinal_day(), "dayofyear": lambda t: t.dt.ordinal_day()}
_CLOCK_PARTS = {"hour", "minute", "second"}
_TRUNCATE = {"year": "1y", "quarter": "1q", "month": "1mo", "week": "1w", "day": "1d", "hour": "1h", "minute": "1m",
             "second": "1s"}


def _utc(value: Any) -> pl.Expr:
    """A time in UTC, whatever zone its column is written in."""
    expr: pl.Expr = value.expr
    if isinstance(value.dtype, pl.Datetime) and value.dtype.time_zone not in (None, "UTC"):
        return expr.dt.convert_time_zone("UTC")
    return expr


def _part(name: str, value: Any) -> pl.Expr | str:
    name = name.lower().rstrip("s") if name.lower() not in _PARTS else name.lower()
    if name == "epoch":
        if value.dtype == pl.Time:
            return "a time of day has no epoch"
        return _utc(value).cast(pl.Datetime("us", getattr(value.dtype, "time_zone", None) and "UTC")).dt.epoch(
            "us").cast(pl.Float64) / 1e6
    if name not in _PARTS:
        return f"there is no part “{name}”: there are {', '.join(_PARTS)}, epoch"
    if value.dtype == pl.Date and name in _CLOCK_PARTS:
        return pl.when(value.expr.is_null()).then(None).otherwise(pl.lit(0, dtype=pl.Int64))
    if value.dtype == pl.Time and name not in _CLOCK_PARTS:
        return f"a time of day has no {name}"
    return _PARTS[name](_utc(value)).cast(pl.Int64)


def _truncate(value: Any, unit: str) -> pl.Expr | str:
    every = _TRUNCATE.get(unit.lower())
    if every is None:
        return f"there is no unit “{unit.lower()}”: there are {', '.join(_TRUNCATE)}"
    if value.dtype == pl.Time or (value.dtype == pl.Date and unit.lower() in _CLOCK_PARTS):
        return "a date is truncated to days and longer, and a time of day not at all"
    return _utc(value).dt.truncate(every)


def _number(name: str) -> Callable[..., pl.Expr | str]:
    return lambda value: getattr(value.expr.cast(pl.Float64), name)()


def _abs(value: Any) -> pl.Expr:
    expr: pl.Expr = value.expr
    return (expr.cast(pl.Int64) if value.dtype.is_integer() else expr).abs()


_TABLE: dict[type[exp.Expression], Function] = {
    exp.Abs: Function("abs", "abs(x)", (NUMBER,), 1, _abs),
    exp.Round: Function("round", "round(x [, digits])", (NUMBER, "literal whole"), 1, _round, ("this", "decimals")),
    exp.Floor: Function("floor", "floor(x)", (NUMBER,), 1, _whole("floor"), ("this",)),
    exp.Ceil: Function("ceil", "ceil(x)", (NUMBER,), 1, _whole("ceil"), ("this",)),
    exp.Sqrt: Function("sqrt", "sqrt(x)", (NUMBER,), 1, _number("sqrt"), ("this",)),
    exp.Ln: Function("ln", "ln(x)", (NUMBER,), 1, _number("log"), ("this",)),
    exp.Exp: Function("exp", "exp(x)", (NUMBER,), 1, _number("exp"), ("this",)),
    exp.Sign: Function("sign", "sign(x)", (NUMBER,), 1, lambda v: v.expr.sign().cast(pl.Int64), ("this",)),
    exp.Lower: Function("lower", "lower(text)", (TEXT,), 1, _text(lambda v: v.str.to_lowercase()), ("this",)),
    exp.Upper: Function("upper", "upper(text)", (TEXT,), 1, _text(lambda v: v.str.to_uppercase()), ("this",)),
    exp.Length: Function("length", "length(text)", (TEXT,), 1,
                         _text(lambda v: v.str.len_chars().cast(pl.Int64)), ("this",)),
    exp.Substring: Function("substr", "substr(text, start [, length])", (TEXT, "literal whole", "literal whole"), 2,
                            _text(_substring), ("this", "start", "length")),
    exp.Left: Function("left", "left(text, n)", (TEXT, "literal whole"), 2,
                       _text(lambda v, n: v.str.head(n.literal) if n.literal >= 0 else "n is not negative")),
    exp.Right: Function("right", "right(text, n)", (TEXT, "literal whole"), 2,
                        _text(lambda v, n: v.str.tail(n.literal) if n.literal >= 0 else "n is not negative")),
    exp.StartsWith: Function("starts_with", "starts_with(text, prefix)", (TEXT, TEXT), 2,
                             _text(lambda v, p: v.str.starts_with(p.expr.cast(pl.String)))),
    exp.EndsWith: Function("ends_with", "ends_with(text, suffix)", (TEXT, TEXT), 2,
                           _text(lambda v, p: v.str.ends_with(p.expr.cast(pl.String)))),
    exp.Contains: Function("contains", "contains(text, part)", (TEXT, "literal text"), 2,
                           _text(lambda v, p: v.str.contains(p.literal, literal=True))),
    exp.Replace: Function("replace", "replace(text, from, to)", (TEXT, "literal text", "literal text"), 3,
                          _text(lambda v, a, b: v.str.replace_all(a.literal, b.literal, literal=True)),
                          ("this", "expression", "replacement")),
    exp.RegexpLike: Function("regexp_like", "regexp_like(text, 'pattern')", (TEXT, "literal text"), 2, _text(_regexp)),
}
_PART_NODES = {exp.Year: "year", exp.Quarter: "quarter", exp.Month: "month", exp.Week: "week", exp.Day: "day",
               exp.Hour: "hour", exp.Minute: "minute", exp.Second: "second", exp.DayOfWeek: "dow",
               exp.DayOfYear: "doy"}


def _trim(node: exp.Expression) -> Function:
    side = str(node.args.get("position") or "BOTH").upper()
    name = {"BOTH": "strip_chars", "LEADING": "strip_chars_start", "TRAILING": "strip_chars_end"}[side]
    return Function("trim", "trim(text), ltrim(text), rtrim(text), trim(BOTH 'x' FROM text)", (TEXT, "literal text"),
                    1, _text(lambda v, c=None: getattr(v.str, name)(" " if c is None else c.literal)),
                    fixed=(("position", side),))


def find(node: exp.Expression) -> Function | None:
    """The function a node calls, or None."""
    if isinstance(node, exp.Trim):
        return _trim(node)
    if isinstance(node, exp.Extract):
        unit = str(node.this.name)
        return Function("extract", "extract(hour FROM ts)", (TIME,), 1, lambda v: _part(unit, v), ("expression",),
                        fixed=(("this", unit),))
    if type(node) in _PART_NODES:
        part = _PART_NODES[type(node)]
        return Function(part, f"{part}(ts)", (TIME,), 1, lambda v: _part(part, v), ("this",))
    if isinstance(node, exp.TimestampTrunc | exp.DateTrunc):
        unit = str(node.args["unit"].name)
        return Function("date_trunc", "date_trunc('hour', ts)", (TIME,), 1, lambda v: _truncate(v, unit), ("this",),
                        fixed=(("unit", unit), ("unabbreviate", True)))
    if isinstance(node, exp.Anonymous) and str(node.this).lower() == "date_part":
        return Function("date_part", "date_part('hour', ts)", ("literal text", TIME), 2,
                        lambda p, v: _part(p.literal, v))
    return _TABLE.get(type(node))
