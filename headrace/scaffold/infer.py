"""What a CSV's values say of its columns: their types, and expectations that all of them meet."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace import codec
from headrace.errors import UserError

COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NULLS = ["", "NA"]
SET_MAX = 20
"""More different texts than these are no set of choices."""
SEEN_MIN = 5
"""A set is told only if each of its values was seen so often, on average."""


def read(path: Path) -> pa.Table:
    """The CSV in `path`. Raises UserError: it is not there, has no header or no records, or its names are no names."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    return parse(path.read_bytes(), str(path))


def parse(text: bytes | str, file: str = "the example") -> pa.Table:
    """As `read`, of a CSV in hand. Dates and times in ISO 8601 become such; empty fields and NA become null."""
    import polars as pl

    raw = text.encode() if isinstance(text, str) else text
    try:
        frame = pl.read_csv(io.BytesIO(raw), null_values=NULLS, infer_schema=False)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as CSV: {str(error).splitlines()[0]}") from error
    if frame.height == 0:
        raise UserError(f"{file} has no records", hint="its first line is taken as the names of the columns")
    bad = [name for name in frame.columns if not COLUMN.fullmatch(name)]
    if bad:
        raise UserError(f"{file}: these columns cannot be fields: {', '.join(map(repr, bad))}",
                        hint="Avro takes letters, digits and “_”, no digit first; rename them in the file's first line")
    return pa.table({name: _typed(frame[name]) for name in frame.columns})


def _typed(text: Any) -> Any:
    """A column of text as the first type that all its values are of; text where none is.

    Figures with a zero in front are codes, and stay text. A time without a zone keeps none.
    """
    import polars as pl

    seen = text.drop_nulls()
    if len(seen) == 0:
        return text.to_arrow().cast(pa.string())
    code = seen.str.contains(r"^[+-]?0[0-9]").any()
    tries: tuple[tuple[bool, Any, pa.DataType], ...] = (
        (not code, lambda: text.cast(pl.Int64, strict=False), pa.int64()),
        (not code, lambda: text.cast(pl.Float64, strict=False), pa.float64()),
        (True, lambda: text.str.to_lowercase().replace_strict({"true": True, "false": False}, default=None,
                                                             return_dtype=pl.Boolean), pa.bool_()),
        (True, lambda: text.str.to_date("%Y-%m-%d", strict=False), pa.date32()),
        *((True, partial(text.str.to_datetime, f"%Y-%m-%d{mark}%H:%M:%S%.f%#z", strict=False, time_unit="ms"),
           pa.timestamp("ms", "UTC")) for mark in ("T", " ")),
        *((True, partial(text.str.to_datetime, f"%Y-%m-%d{mark}%H:%M:%S%.f", strict=False, time_unit="ms"),
           pa.timestamp("ms")) for mark in ("T", " ")))
    for possible, make, to in tries:
        if possible and (made := make()).null_count() == text.null_count():
            return made.to_arrow().cast(to)
    return text.to_arrow().cast(pa.string())


@dataclass(frozen=True)
class Shape:
    """A topic's records, as one CSV shows them. Every field may be null: what must not be is the suite's to say, so
    that a bad record reaches the quarantine with its reason."""

    name: str
    table: pa.Table

    @cached_property
    def avsc(self) -> str:
        nullable = pa.schema([pa.field(f.name, f.type, nullable=True) for f in self.table.schema])
        made = json.loads(codec.from_arrow(nullable, name=self.name).text)
        return _listed({"type": "record", "name": self.name}, "fields", made["fields"])

    @cached_property
    def expectations(self) -> list[dict[str, Any]]:
        found = [made for column in self.table.column_names for made in self._of(column)]
        return [{"id": f"{kwargs['column']}_{short}", "type": f"expect_column_values_to_{verb}", "kwargs": kwargs,
                 "severity": "critical", "meta": {}} for short, verb, kwargs in found]

    @property
    def suite(self) -> str:
        return _listed({"name": self.name}, "expectations", self.expectations)

    def _of(self, name: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(id's end, expectation's verb, kwargs) for what holds of all a column's values."""
        column = self.table[name]
        if pa.types.is_floating(column.type):  # to Great Expectations NaN is null
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        values = column.drop_null()
        if column.null_count == 0:
            yield "not_null", "not_be_null", {"column": name}
        if pa.types.is_string(column.type) and len(values):
            seen = sorted(map(str, pc.unique(values).to_pylist()))
            if len(seen) <= SET_MAX and len(values) >= SEEN_MIN * len(seen):
                yield "in_set", "be_in_set", {"column": name, "value_set": seen}
        elif (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) and len(values):
            low, high = (pc.min_max(values)[end].as_py() for end in ("min", "max"))
            if math.isfinite(low) and math.isfinite(high):
                whole = pa.types.is_integer(column.type)
                floor = 0 if 0 <= low < high / 2 else low  # data that begin near zero may come nearer
                yield "between", "be_between", {"column": name, "min_value": outward(floor, -1, whole),
                                                "max_value": outward(high, 1, whole)}

    @cached_property
    def record(self) -> dict[str, Any]:
        """The most complete of the first records, as YAML and JSON can write it."""
        rows = [{k: _writable(v) for k, v in row.items()} for row in self.table.slice(0, 100).to_pylist()]
        return max(rows, key=lambda row: sum(v is not None for v in row.values()))

    @property
    def flaw(self) -> tuple[str, Any] | None:
        """A column and a value for it that the suite rejects, None when it has nothing to reject."""
        for made in self.expectations:
            column = made["kwargs"]["column"]
            match made["type"].removeprefix("expect_column_values_to_"):
                case "not_be_null":
                    return column, None
                case "be_in_set":
                    return column, "no such " + column
                case "be_between":
                    return column, made["kwargs"]["max_value"] * 2 + 1 if made["kwargs"]["max_value"] >= 0 else 1
        return None


def outward(value: float, direction: int, whole: bool) -> float | int:
    """The next number outward of two figures: 1,389 upward is 1,400, -17.2 downward is -18, 2,013 downward is 2,000."""
    if value == 0:
        return 0 if whole else 0.0
    size = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    steps = math.ceil(value / size) if direction > 0 else math.floor(value / size)
    bound = float(f"{steps * size:.3g}")  # without the last digit that multiplying by 0.1 brings
    if (bound - value) * direction < 0:
        bound = float(f"{(steps + direction) * size:.3g}")
    return (math.ceil(bound) if direction > 0 else math.floor(bound)) if whole else bound


def _listed(head: dict[str, Any], name: str, items: list[dict[str, Any]]) -> str:
    """JSON with one item of its list a line, which is how people read and change it."""
    lines = ",\n".join("  " + json.dumps(item, ensure_ascii=False) for item in items)
    return f"{json.dumps(head, ensure_ascii=False)[:-1]}, {json.dumps(name)}: [\n{lines}\n]}}\n"


def _writable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
