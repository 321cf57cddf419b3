"""From text to a syntax tree, with bounds. Nothing is evaluated here, and nothing here knows Polars."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable

import sqlglot
from sqlglot import exp

from headrace.errors import ExpressionError

DIALECT = "duckdb"
CHARACTERS_MAX = 10_000
TOKENS_MAX = 3_000
DEPTH_MAX = 80
"""Of the tree, a chain of the same operator (a AND b AND …, a || b || …) counting once."""

CHAINS: tuple[type[exp.Expression], ...] = (exp.And, exp.Or, exp.DPipe, exp.Add, exp.Mul)

# What people try, and why it is not an expression here. The first class that fits is the answer.
_REFUSED: tuple[tuple[tuple[type[exp.Expression], ...], str, str], ...] = (
    ((exp.Window,), "a window function looks at other records", "use a step made for windows (`trigger`)"),
    ((exp.Query, exp.Subquery, exp.Exists), "a sub-select is not a scalar expression",
     "an expression sees one record only; join or look up in a step of its own"),
    ((exp.Explode, exp.Unnest, exp.UDTF), "a function that makes several rows of one is not a scalar expression",
     "an expression gives exactly one value a record"),
    ((exp.ReadCSV, exp.ReadParquet, exp.Table), "a table function reads files",
     "an expression sees the record's own fields only"),
    ((exp.AggFunc,), "an aggregate looks at more than one record", "use a step made for windows (`trigger`)"),
    ((exp.CurrentDate, exp.CurrentTimestamp, exp.CurrentTime, exp.CurrentDatetime), "a clock gives another answer on "
     "replay", "use a time the record carries"),
    ((exp.Rand, exp.Randn, exp.Uuid), "chance gives another answer on replay", "derive it from the record's own key"),
    ((exp.Placeholder, exp.Parameter), "parameters are not known here", "write the value itself"),
    ((exp.Command, exp.Block), "a statement is not part of a scalar expression", "write an expression, not a command"),
    ((exp.Star,), "a star is not a scalar expression", "name the columns"),
    ((exp.Alias,), "an alias has no meaning here", "the name is the key in the flow file"),
    ((exp.Bracket, exp.Array, exp.Struct, exp.Tuple, exp.JSONExtract), "lists, maps and structs cannot be built or "
     "indexed", "a field of a nested record is written `record.field`"),
)
_CLOCKS = {"now", "today", "current_localtime", "current_localtimestamp", "getdate", "clock_timestamp",
           "transaction_timestamp", "get_current_timestamp", "sysdate", "localtime", "localtimestamp"}


def quote(text: str, length_max: int = 60) -> str:
    """A short quotation of a text, for messages."""
    flat = " ".join(text.split())
    return f"“{flat if len(flat) <= length_max else flat[: length_max - 1] + '…'}”"


def refuse(where: str, text: str, node: exp.Expression | None, why: str, what_to_do: str) -> ExpressionError:
    """The error for a node: which expression, where in it, why not, what to do."""
    spot = ""
    if node is not None:
        at = position(node)
        spot = (f" at character {at + 1}" if at is not None else "") + f", {quote(node.sql(dialect=DIALECT))}"
    return ExpressionError(f"{where}, {quote(text)}{spot}: {why}", hint=what_to_do)


def position(node: exp.Expression) -> int | None:
    """Where the node begins in its text (from 0), as far as the parser kept it."""
    starts = [n.meta["start"] for n in node.walk() if "start" in n.meta]
    return min(starts) if starts else None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, if one is."""
    names = list(known)
    folded = {k.casefold(): k for k in names}
    found = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def why_not(node: exp.Expression) -> tuple[str, str]:
    """Why a node outside the allow-list is refused, and what to do instead."""
    for classes, why, what_to_do in _REFUSED:
        if isinstance(node, classes):
            return why, what_to_do
    if isinstance(node, exp.Anonymous) and str(node.this).lower() in _CLOCKS:
        return "a clock gives another answer on replay", "use a time the record carries"
    if isinstance(node, exp.Func):
        name = str(node.this) if isinstance(node, exp.Anonymous) else node.sql_name().lower()
        return f"the function {name} is not known here", "docs/expressions.md lists the functions there are"
    return f"{node.key.upper()} is not part of a scalar expression", "docs/expressions.md lists what is"


def parse(text: str, where: str) -> exp.Expression:
    """Text → tree, inside the bounds. Raises ExpressionError; the tree is not yet checked against the allow-list."""
    if not isinstance(text, str) or not text.strip():
        raise ExpressionError(f"{where} is empty", hint="write an SQL expression, e.g. \"distance > 2000\"")
    if len(text) > CHARACTERS_MAX:
        raise refuse(where, text, None, f"it has {len(text):,} characters, more than {CHARACTERS_MAX:,}", "shorten it")
    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns of statements, which are refused below
    try:
        tokens = sqlglot.tokenize(text, read=DIALECT)
        if len(tokens) > TOKENS_MAX:
            raise refuse(where, text, None, f"it has {len(tokens):,} parts, more than {TOKENS_MAX:,}", "shorten it")
        tree = sqlglot.parse_one(text, read=DIALECT)
    except sqlglot.errors.SqlglotError as error:
        seen = getattr(error, "errors", None) or [{}]
        at = f" at line {seen[0]['line']}, column {seen[0]['col']}" if "line" in seen[0] else ""
        told = str(seen[0].get("description") or error).strip().rstrip(".").splitlines()[0]
        told = "a function lacks an argument" if told.startswith("Required keyword") else told
        raise refuse(where, text, None, f"this is not an SQL expression{at}: {told}",
                     "text stands in 'single' quotes, odd column names in \"double\" quotes") from error
    except RecursionError as error:
        raise refuse(where, text, None, f"it is nested deeper than {DEPTH_MAX} levels", "split it in steps") from error
    if depth(tree) > DEPTH_MAX:
        raise refuse(where, text, None, f"it is nested deeper than {DEPTH_MAX} levels", "split it in steps")
    return tree


def depth(tree: exp.Expression) -> int:
    """Levels of the tree, without recursion; links of a chain of one operator count once."""
    deepest, stack = 0, [(tree, 1)]
    while stack:
        node, level = stack.pop()
        deepest = max(deepest, level)
        for child in node.iter_expressions():
            same = isinstance(node, CHAINS) and type(child) is type(node)
            stack.append((child, level if same else level + 1))
    return deepest


def links(node: exp.Expression) -> list[exp.Expression]:
    """The operands of a chain of one operator, left to right, without recursion."""
    out: list[exp.Expression] = []
    stack = [node]
    while stack:
        at = stack.pop()
        if type(at) is type(node):
            stack += [at.expression, at.this]
        else:
            out.append(at)
    return out
