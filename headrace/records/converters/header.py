"""Headers: a plain value and its shape ↔ bytes.

SimpleHeaderConverter writes values as text and guesses on reading what they were, as Java's does: 5 is an int8, 1.5 a
float32, [1,2] an array. Where Java's guess loses something (5,6 becomes 5; unlike items keep no schema), it stays text.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from headrace.errors import SchemaError
from headrace.records.converters import java
from headrace.records.records import Column, Header
from headrace.records.shape import DATE, DECIMAL, TIME, TIMESTAMP, Shape, constant

if TYPE_CHECKING:
    from headrace.records.converters import Converter

Sent = list[tuple[str, bytes | None]]
EPOCH, DAY_MS = dt.datetime(1970, 1, 1), 86_400_000
NUMBERS = ("int8", "int16", "int32", "int64", "float32", "float64")
"""From narrow to wide."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?")
TEMPORAL = {10: re.compile(r"(\d+)-(\d+)-(\d+)"), 13: re.compile(r"(\d+):(\d+):(\d+)\.(\d+)Z"),
            24: re.compile(r"(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)\.(\d+)Z")}
"""By their length, as Java tells them."""


class HeaderConverter(Protocol):
    """The headers of records. What fails raises SchemaError: HEADER_CONVERTER is a stage of its own."""

    def encode(self, topic: str, headers: Sequence[Header]) -> Sent:
        """One record's headers as Kafka has them."""

    def decode(self, topic: str, headers: Sequence[tuple[str, bytes | None]]) -> list[Header]:
        """And back."""


@dataclass(frozen=True, slots=True)
class ByConverter:
    """Headers by the converter of values."""

    converter: Converter

    def encode(self, topic: str, headers: Sequence[Header]) -> Sent:
        sent: Sent = []
        for name, value, shape in headers:
            column = Column(pa.array([value]) if shape is None else constant(shape, value), shape)
            payloads, reasons = self.converter.encode(topic, column)
            if reasons:
                raise SchemaError(f"header {name}: {reasons[0]}")
            sent.append((name, payloads[0]))
        return sent

    def decode(self, topic: str, headers: Sequence[tuple[str, bytes | None]]) -> list[Header]:
        read: list[Header] = []
        for name, payload in headers:
            found, reasons = self.converter.decode(topic, [payload])
            if reasons:
                raise SchemaError(f"header {name}: {reasons[0]}")
            read.append((name, found[0][1].values[0].as_py(), found[0][1].shape))
        return read


@dataclass(frozen=True, slots=True)
class SimpleHeaderConverter:
    def encode(self, topic: str, headers: Sequence[Header]) -> Sent:
        return [(name, None if value is None else text_of(value, shape).encode()) for name, value, shape in headers]

    def decode(self, topic: str, headers: Sequence[tuple[str, bytes | None]]) -> list[Header]:
        return [(name, None, None) if payload is None else (name, *_guessed(payload)) for name, payload in headers]


# Values → text


def text_of(value: Any, shape: Shape | None, *, within: bool = False) -> str:
    """A value as SimpleHeaderConverter writes it; `within` another, text is quoted."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if within else value
    if isinstance(value, float):
        single = shape is not None and shape.type == "float32"
        return str(java.floats(pa.array([value], pa.float32() if single else pa.float64()))[0].as_py())
    if isinstance(value, int | decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        return text_of(base64.b64encode(value).decode(), None, within=within)
    if isinstance(value, dt.date | dt.time):
        return _date_text(value)
    return _many(value, shape)


def _many(value: Any, shape: Shape | None) -> str:
    if shape is not None and shape.type == "struct":
        parts = [f"{text_of(name, None, within=True)}:"
                 f"{text_of(each.default if value[name] is None else value[name], each, within=True)}"
                 for name, each in shape.fields]
        return "{" + ",".join(parts) + "}"
    keys, values = (shape.keys, shape.values) if shape else (None, None)
    if isinstance(value, Mapping) or (shape is not None and shape.type == "map"):
        entries = value.items() if isinstance(value, Mapping) else value
        return "{" + ",".join(f"{text_of(key, keys, within=True)}:{text_of(each, values, within=True)}"
                              for key, each in entries) + "}"
    return "[" + ",".join(text_of(each, values, within=True) for each in value) + "]"


def _date_text(value: dt.date | dt.time) -> str:
    """A java.util.Date: in its first day (or before 1970) a time, at midnight a date, else both."""
    if isinstance(value, dt.time):
        moment = dt.datetime.combine(EPOCH, value.replace(tzinfo=None))
    elif isinstance(value, dt.datetime):
        moment = value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
    else:
        moment = dt.datetime.combine(value, dt.time())
    ms = (moment - EPOCH) // dt.timedelta(milliseconds=1)
    time = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}Z"
    if ms < DAY_MS:
        return time
    day: str = moment.date().isoformat()
    return day if ms % DAY_MS == 0 else f"{day}T{time}"


# Text → values


class _Text(Exception):
    """It is neither array nor map: only text."""


@lru_cache(maxsize=4096)
def _guess(payload: bytes) -> tuple[Any, Shape | None]:
    text = payload.decode("utf-8", "replace")
    parser = _Parser(text)
    try:
        return parser.value(within=False)
    except (_Text, RecursionError):
        return text, Shape("string")


def _guessed(payload: bytes) -> tuple[Any, Shape | None]:
    value, shape = _guess(payload)
    return (_copy(value), shape) if isinstance(value, list | dict) else (value, shape)


def _copy(value: Any) -> Any:
    if isinstance(value, list):
        return [_copy(each) for each in value]
    return {key: _copy(each) for key, each in value.items()} if isinstance(value, dict) else value


class _Parser:
    """Tokens are the delimiters :,{}[]" and what stands between them; a backslash takes a delimiter's meaning away."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = re.findall(r'[:,{}\[\]"]|(?:\\.|[^:,{}\[\]"\\]|\\$)+', text, re.DOTALL)
        self.at = 0

    def next(self) -> str:
        """The next token that is not blank."""
        while self.at < len(self.tokens):
            self.at += 1
            if self.tokens[self.at - 1].strip():
                return self.tokens[self.at - 1].strip()
        raise _Text

    def peek(self) -> str:
        before = self.at
        token = self.next()
        self.at = before
        return token

    def ended(self) -> bool:
        return all(not token.strip() for token in self.tokens[self.at:])

    def value(self, *, within: bool) -> tuple[Any, Shape | None]:
        """The next value. Raises _Text where there is none that means anything."""
        token = self.next()
        if within and token == '"':
            return self.quoted()
        if token in "[{":
            found = self.array() if token == "[" else self.map()
        elif token in ("null", "true", "false"):
            found = LITERALS[token]
        else:
            found = self.scalar(token)
        if not within and not self.ended():
            raise _Text
        return found

    def quoted(self) -> tuple[Any, Shape | None]:
        end = self.tokens.index('"', self.at) if '"' in self.tokens[self.at:] else len(self.tokens)
        content = "".join(self.tokens[self.at:end])
        self.at = end + 1
        return _temporal(content) or (content, Shape("string"))

    def scalar(self, token: str) -> tuple[Any, Shape | None]:
        if token[0].isdecimal() and self.at + 4 <= len(self.tokens):  # a time's colons are tokens
            found = _temporal(token + "".join(self.tokens[self.at:self.at + 4]))
            if found:
                self.at += 4
                return found
        found = _temporal(token) if token[0].isdecimal() else None
        if found is None and NUMBER.fullmatch(token):
            found = _number(decimal.Decimal(token))
        if found is None:
            raise _Text
        return found

    def array(self) -> tuple[Any, Shape | None]:
        items: list[Any] = []
        shapes: list[Shape | None] = []
        while self.peek() != "]":
            if self.peek() == ",":
                raise _Text
            item, shape = self.value(within=True)
            items.append(item)
            shapes.append(shape)
            if self.peek() == ",":
                self.next()
                self.peek()
            elif self.peek() != "]":
                raise _Text
        self.next()
        common = _common(shapes, items)
        return [_as(common, each) for each in items], Shape("array", values=common)

    def map(self) -> tuple[Any, Shape | None]:
        entries: dict[Any, Any] = {}
        shapes: list[tuple[Shape | None, Shape | None]] = []
        while self.peek() != "}":
            if self.peek() == ",":
                raise _Text
            key, key_shape = self.value(within=True)
            if key is None or self.next() != ":" or isinstance(key, list | dict):
                raise _Text
            value, shape = self.value(within=True)
            entries[key] = value
            shapes.append((key_shape, shape))
            if self.peek() == ",":
                self.next()
        self.next()
        keys = _common([key for key, _ in shapes], list(entries))
        values = _common([value for _, value in shapes], list(entries.values()))
        made = {_as(keys, key): _as(values, value) for key, value in entries.items()}
        return made, Shape("map", keys=keys, values=values)


LITERALS: Mapping[str, tuple[Any, Shape | None]] = {
    "null": (None, None), "true": (True, Shape("boolean")), "false": (False, Shape("boolean"))}


def _common(shapes: Sequence[Shape | None], values: Sequence[Any]) -> Shape:
    """The shape that all have. Raises _Text where they differ, or some are null and others not."""
    some = [shape for shape in shapes if shape is not None]
    if not some:
        return Shape("string", optional=True)  # of nothing, or of nulls
    if any(value is None for value in values):
        raise _Text
    if all(shape == some[0] for shape in some):
        return some[0]
    if any(shape.type not in NUMBERS or shape.name for shape in some):
        raise _Text
    return max(some, key=lambda shape: NUMBERS.index(shape.type))


def _as(shape: Shape, value: Any) -> Any:
    if shape.type in ("float32", "float64") and isinstance(value, int):
        return float(np.float32(value)) if shape.type == "float32" else float(value)
    return value


def _number(value: decimal.Decimal) -> tuple[Any, Shape]:
    """The narrowest type that holds a number."""
    exponent = value.as_tuple().exponent
    if value == value.to_integral_value() and abs(value.adjusted()) < 19:
        whole = int(value)
        for bits in (8, 16, 32, 64):
            if -(1 << bits - 1) <= whole < 1 << bits - 1:
                return whole, Shape(f"int{bits}")
    with np.errstate(over="ignore"):
        single = float(np.float32(str(value)))
    if exponent and np.isfinite(single):
        return single, Shape("float32")
    if exponent and np.isfinite(float(value)):
        return float(value), Shape("float64")
    scale = -int(exponent)
    return value, Shape("bytes", name=DECIMAL, version=1, parameters=(("scale", str(scale)),))


def _temporal(text: str) -> tuple[Any, Shape] | None:
    """A date, a time or an instant in ISO 8601; days and hours too many roll over, as in Java."""
    text = text.replace("\\:", ":")
    form = TEMPORAL.get(len(text))
    found = form.match(text) if form else None
    if not found:
        return None
    parts = list(map(int, found.groups()))
    try:
        day = _day(*parts[:3]) if len(parts) != 4 else EPOCH
        h, m, s, ms = parts[-4:] if len(parts) != 3 else (0, 0, 0, 0)
        moment = day + dt.timedelta(hours=h, minutes=m, seconds=s, milliseconds=ms)
    except (OverflowError, ValueError):
        return None
    return MADE[len(parts)](moment)


def _day(year: int, month: int, day: int) -> dt.datetime:
    years, month = divmod(month - 1, 12)
    return dt.datetime(year + years, month + 1, 1) + dt.timedelta(days=day - 1)


MADE: Mapping[int, Callable[[dt.datetime], tuple[Any, Shape]]] = {
    3: lambda moment: (moment.date(), Shape("int32", name=DATE, version=1)),
    4: lambda moment: (moment.time(), Shape("int32", name=TIME, version=1)),
    7: lambda moment: (moment.replace(tzinfo=dt.UTC), Shape("int64", name=TIMESTAMP, version=1))}
"""By how many numbers it is made of."""
