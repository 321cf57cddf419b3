"""Row conditions as Arrow masks, with the meaning Great Expectations gives them on pandas: `DataFrame.query`.

A condition is data ({"type": "comparison" | "nullity" | "and" | "or", …}, as Great Expectations writes it) or a text in
its parser's grammar (`col("distance") > 500`, `col("tailnum").notNull()`). What a comparison means: comparisons.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.comparisons import KERNELS, Test, comparison, member, negated
from headrace.contracts.suite import Expectation

Keeps = Callable[[pa.RecordBatch], pa.BooleanArray]
CONDITIONS_MAX = 100
"""As in Great Expectations."""
_COMPARISON = '{"type": "comparison", "column": {"name": …}, "operator": "==", "parameter": …}'
_WORD = r"[ \t\r\n]*+([0-9A-Za-zÀ-ÖØ-öø-ÿ!#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~ \t]+)"
_TEXT = rf"""(?:"{_WORD}"|'{_WORD}')"""
_GRAMMAR = re.compile(
    rf"""\s*col\("([^"\r\n]*)"\)\s*(?:(\.(?i:notnull)\(\))|(==|!=|<=|>=|<|>)\s*"""
    rf"""(?:([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)|{_TEXT}|date\(\s*{_TEXT}\s*\)))\s*""")


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled row_condition: rows → which of them it keeps; never null. The rows are a batch as it came, not a part
    of one: what pandas makes of a column depends on whether there is a null in it."""

    keeps: Keeps
    columns: tuple[str, ...]
    """The columns it reads."""

    def __call__(self, rows: pa.RecordBatch) -> pa.BooleanArray:
        return self.keeps(rows)


def compile_condition(e: Expectation, schema: pa.Schema) -> Condition | str:
    """The row_condition of an expectation that has one, or why only Great Expectations can say what it keeps. Raises
    SuiteError: for code, a column that is not there, and what Great Expectations would refuse."""
    written = e.kwargs.get("row_condition")
    refuse_code(e)
    if isinstance(written, str):
        written = _read(written)
    if isinstance(written, str):
        return written
    if not isinstance(written, dict):
        e.wrong(f"row_condition is {written!r}", f"write it as an object: {_COMPARISON}")
    if sum("conditions" not in part for part in _all(written) if isinstance(part, dict)) > CONDITIONS_MAX:
        e.wrong(f"its row_condition is made of more than {CONDITIONS_MAX} conditions", "leave some out")
    named: list[str] = []
    keeps = _compile(e, schema, written, named, "")
    return keeps if isinstance(keeps, str) else Condition(keeps, tuple(dict.fromkeys(named)))


def refuse_code(e: Expectation) -> None:
    """Raises SuiteError for a row_condition that pandas or Spark would run as code: a text without Great Expectations'
    own parser, or a condition of type pass_through."""
    written = e.kwargs.get("row_condition")
    own = str(e.kwargs.get("condition_parser")).startswith("great_expectations")
    if isinstance(written, str) and not own:
        e.wrong("its row_condition is a text without condition_parser, which pandas would run as code",
                "write it as an object, or add \"condition_parser\": \"great_expectations\" to col(\"…\") > 5")
    if any("pass_through_filter" in part for part in _all(written) if isinstance(part, dict)):
        e.wrong("its row_condition is of type pass_through: code, which could do anything",
                f"write it as {_COMPARISON}")


def keep(rows: pa.RecordBatch, kept: pa.BooleanArray) -> pa.RecordBatch:
    """The rows kept, as pandas would hold them: a column of whole numbers that loses all its nulls by this comes as
    64-bit floats, since pandas made it so before the condition was asked. For verdicts over many rows (across.py,
    aggregates). A verdict on a row alone needs no part of a batch: ask it of the whole, and keep the mask where the
    condition does."""
    out = rows.filter(kept)
    for at, (before, after) in enumerate(zip(rows.columns, out.columns, strict=True)):
        if pa.types.is_integer(before.type) and before.null_count and not after.null_count:
            name = rows.schema.field(at).name
            out = out.set_column(at, pa.field(name, pa.float64()), pc.cast(after, pa.float64(), safe=False))
    return out


def _read(text: str) -> dict[str, Any] | str:
    """A text of Great Expectations' grammar as a condition, or why it must read it itself: past a condition it reads
    no further, and says nothing of what it leaves out."""
    found = _GRAMMAR.fullmatch(text)
    if found is None:
        return f"its row_condition “{text}” is not one plain condition"
    column, notnull, op, number, *texts = found.groups()
    if notnull:
        return {"type": "nullity", "column": {"name": column}, "is_null": False}
    value: Any = next((t for t in texts if t is not None), None)
    if number is not None:
        value = int(number) if number.lstrip("+-").isdecimal() else float(number)
    return {"type": "comparison", "column": {"name": column}, "operator": op, "parameter": value}


def _all(written: Any) -> Iterator[Any]:
    """A condition, and those it is made of."""
    yield written
    if isinstance(written, dict) and isinstance(written.get("conditions"), list):
        for part in written["conditions"]:
            yield from _all(part)


def _compile(e: Expectation, schema: pa.Schema, written: Any, named: list[str], inside: str) -> Keeps | str:
    """One condition, which stands in an “and”, an “or”, or in none; the columns it names go to `named`."""
    kind = written.get("type") if isinstance(written, dict) else None
    if kind in ("and", "or"):
        return _group(e, schema, written, named, inside)
    column = written.get("column") if isinstance(written, dict) else None
    name = column.get("name") if isinstance(column, dict) else None
    if kind not in ("comparison", "nullity") or not isinstance(name, str):
        e.wrong(f"its row_condition has {written!r}, which is none", f"write it as {_COMPARISON} or "
                "{\"type\": \"nullity\", \"column\": {\"name\": …}, \"is_null\": …}")
    if name not in schema.names:
        e.wrong(f"its row_condition names the column “{name}”, which is not there",
                f"there are {', '.join(schema.names)}")
    if not (name.isascii() and name.isidentifier()):
        return f"its row_condition has the column “{name}”, whose name pandas spells otherwise"
    named.append(name)
    if kind == "nullity":
        return _nullity(e, name, written.get("is_null"))
    test = _test(e, schema.field(name).type, written.get("operator"), written.get("parameter"))
    return f"its row_condition on {name}: {test}" if isinstance(test, str) else _on(name, test)


def _on(name: str, test: Test) -> Keeps:
    return lambda rows: test(rows.column(name))


def _group(e: Expectation, schema: pa.Schema, written: dict[str, Any], named: list[str], inside: str) -> Keeps | str:
    """“and” and “or”. Great Expectations allows “and” in both, “or” in none."""
    kind, parts = written["type"], written.get("conditions")
    if not isinstance(parts, list):
        e.wrong(f"its row_condition has {kind} with {parts!r}", f"{kind} has a list of conditions")
    if kind == "or" and inside:
        e.wrong(f"its row_condition has an or inside an {inside}, which Great Expectations refuses",
                "turn it inside out: an or of ands, or two expectations")
    if not parts:
        return f"its row_condition has an empty {kind}"
    made = [_compile(e, schema, part, named, kind) for part in parts]
    why = next((m for m in made if isinstance(m, str)), None)
    if why is not None:
        return why
    combine = pc.and_ if kind == "and" else pc.or_
    return lambda rows: reduce(combine, [m(rows) for m in made if not isinstance(m, str)])


def _nullity(e: Expectation, name: str, is_null: Any) -> Keeps:
    if not isinstance(is_null, bool):
        e.wrong(f"its row_condition says is_null {is_null!r}", "is_null is true or false")

    def keeps(rows: pa.RecordBatch) -> pa.BooleanArray:
        null = pc.is_null(rows.column(name), nan_is_null=True)
        return null if is_null else pc.invert(null)
    return keeps


def _test(e: Expectation, type_: pa.DataType, op: Any, value: Any) -> Test | str:
    """A comparison with a value, or membership in a list. Raises SuiteError for what Great Expectations refuses."""
    if op in ("IN", "NOT_IN"):
        _check_list(e, op, value)
        found = member(type_, value)
        return found if isinstance(found, str) or op == "IN" else negated(found)
    if op not in KERNELS:
        e.wrong(f"its row_condition has the operator {op!r}", f"one of {', '.join(KERNELS)}, IN, NOT_IN")
    if value is None:
        e.wrong(f"its row_condition compares with null ({op})", "ask {\"type\": \"nullity\", \"is_null\": …} instead")
    return comparison(type_, op, value)


def _check_list(e: Expectation, op: str, values: Any) -> None:
    """Raises SuiteError for what Great Expectations refuses as a list."""
    if not isinstance(values, list):
        e.wrong(f"its row_condition has {op} with {values!r}", "the parameter is a list")
    kinds = {"text" if type(v) is str else "numbers" if type(v) in (int, float) else type(v).__name__ for v in values}
    if len(kinds) > 1 or not kinds <= {"text", "numbers"}:
        e.wrong(f"its row_condition has {op} with a list of {', '.join(sorted(kinds))}",
                "a list holds texts only, or numbers only")
