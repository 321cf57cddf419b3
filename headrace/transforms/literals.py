"""A value written as text, with its shape, as Kafka Connect reads those of headers: `1`, `true`, `[1, 2]`, `{"a": 1}`.

What is nothing else is a string; what only begins as a list or map is one, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.records import Shape, arrow_of
from headrace.records.shape import DATE, DECIMAL, PRIMITIVES, TIME, TIMESTAMP
from headrace.transforms.base import logical
from headrace.transforms.dateparse import Reader, Unreadable, slow
from headrace.transforms.dates import ISO_DATE, ISO_FULL, ISO_TIME
from headrace.transforms.numbers import big_decimal, wrapped

Literal = tuple[Any, Shape | None]
"""(plain value, shape); a null has no shape."""
DELIMITERS = frozenset(':,{}[]"')
NUMBERS = ("int8", "int16", "int32", "int64", "float32", "float64")
"""From narrow to wide: of two, the wider holds both."""
TEMPORAL = {len(pattern.replace("'", "")): (pattern, shape) for pattern, shape in (
    (ISO_TIME, logical("int32", TIME)), (ISO_FULL, logical("int64", TIMESTAMP)), (ISO_DATE, logical("int32", DATE)))}
"""By the length of the text."""
KINDS = {"date": DATE, "time": TIME, "datetime": TIMESTAMP}
"""Python's types of the temporal ones."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Not(Exception):
    """It is no list or map after all."""


def parse(text: str) -> Literal:
    """The value and the shape of a text. Raises ValueError for a time that no clock shows."""
    if not text:
        return "", Shape("string")
    found = _Parser(text).parse(embedded=False)
    return (None, None) if found is None else found


class _Parser:
    """One text, token by token: a delimiter is a token, and so is what stands between two."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.before = ""
        """The token last taken."""

    def token(self) -> str:
        """The token at this place. A backslash takes the meaning of the delimiter behind it away."""
        start = at = self.at
        escaped = False
        while at < len(self.text):
            char = self.text[at]
            if char == "\\":
                escaped = not escaped
            else:
                if char in DELIMITERS and not escaped:
                    return self.text[start:at] if at > start else char
                escaped = False
            at += 1
        return self.text[start:]

    def more(self) -> bool:
        return self.at < len(self.text)

    def next(self) -> str:
        self.before = self.token()
        self.at += len(self.before)
        return self.before

    def took(self, expected: str) -> bool:
        """Whether the next token, blank ones before it passed over, is this one; then it is taken."""
        if not self.more():
            return False
        token = self.token()
        while not token.strip() and self.at + len(token) < len(self.text):
            self.at += len(token)
            token = self.token()
        if token.strip() != expected:
            return False
        self.at += len(token)
        return True

    def alone(self, word: str, embedded: bool) -> bool:
        start = self.at
        if self.took(word) and (embedded or not self.more()):
            return True
        self.at = start
        return False

    def parse(self, *, embedded: bool) -> Literal | None:
        if not self.more():
            return None
        if embedded and self.took('"'):
            return self.quoted()
        if self.alone("null", embedded):
            return None
        for word in ("true", "false"):
            if self.alone(word, embedded):
                return word == "true", Shape("boolean")
        start = self.at
        try:
            if self.took("["):
                return self.array()
            if self.took("{"):
                return self.map()
        except _Not:
            self.at = start
        token = self.next() if self.more() else ""
        if not token.strip():
            return token, Shape("string")
        return self.single(token.strip(), embedded)

    def single(self, token: str, embedded: bool) -> Literal:
        if token[0].isdigit():
            start = self.at
            rest = "".join(self.next() for _ in range(4) if self.more())
            found = temporal(token + rest) if rest else None
            if found is not None:
                return found
            self.at = start
            found = temporal(token)
            if found is not None:
                return found
        if token[0].isdigit() or token[0] in "+-":
            number = big_decimal(token)
            if number is not None:
                return _number(number)
        if embedded:
            raise _Not
        return self.text, Shape("string")

    def quoted(self) -> Literal:
        parts = []
        while self.more() and not self.took('"'):
            parts.append(self.next())
        content = "".join(parts)
        return temporal(content) or (content, Shape("string"))

    def array(self) -> Literal:
        found: list[Literal] = []
        while self.more():
            if self.took("]"):
                common = _common(found)
                return [_as(common, each) for each, _ in found], Shape("array", values=common)
            if self.took(","):
                raise _Not
            found.append(self.parse(embedded=True) or (None, None))
            start = self.at
            if self.took("]"):
                self.at = start
            elif not self.took(","):
                raise _Not
        raise _Not

    def map(self) -> Literal:
        found: list[tuple[Literal, Literal]] = []
        while self.more():
            if self.took("}"):
                return self.mapped(found)
            if self.took(","):
                raise _Not
            key = self.parse(embedded=True)
            if key is None or key[0] is None or not self.took(":"):
                raise _Not
            value = self.parse(embedded=True) or (None, None)
            self.took(",")
            if isinstance(key[0], list):
                raise ValueError("a list or a map stands among the keys of a map")
            found.append((key, value))
        raise _Not

    @staticmethod
    def mapped(found: list[tuple[Literal, Literal]]) -> Literal:
        """All entries, of which the last of one key counts; for what its values are, every one does."""
        keys, values = _common([key for key, _ in found]), _common([value for _, value in found])
        if keys is None:
            values = None
        last = {(type(key), key): (key, value) for (key, _), (value, _) in found}
        return ([(_as(keys, key), _as(values, value)) for key, value in last.values()],
                Shape("map", keys=keys, values=values))


def _number(number: Decimal) -> Literal:
    """The narrowest type that holds a whole number; float32 for most others."""
    _, _, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    size = abs(number)
    if (size >= 1 or size == 0) and size <= Decimal("1e19") and number == int(number):
        for kind, bits in (("int8", 8), ("int16", 16), ("int32", 32), ("int64", 64)):
            if wrapped(int(number), bits) == int(number):
                return int(number), Shape(kind)
    if exponent != 0:
        with np.errstate(over="ignore"):
            single, double = float(np.float32(float(number))), float(number)
        if not math.isinf(single):
            return single, Shape("float32")
        if not math.isinf(double):
            return double, Shape("float64")
    if abs(exponent) > 38 or len(number.as_tuple().digits) > 38:
        raise ValueError(f"“{number}” is beyond the numbers that can be held")
    return number, Shape("bytes", name=DECIMAL, version=1, parameters=(("scale", str(-exponent)),))


def temporal(text: str) -> Literal | None:
    """A date, a time or both, if the text is as long as one and reads as one."""
    text = text.replace("\\:", ":")
    if len(text) not in TEMPORAL:
        return None
    pattern, shape = TEMPORAL[len(text)]
    reader = Reader(pattern, 0)
    try:
        slow(text, reader)
    except Unreadable:
        return None
    found = EPOCH + timedelta(milliseconds=reader.read(pa.array([text]))[0][0].as_py())
    if shape.name == TIME:
        if found.date() != EPOCH.date():
            raise ValueError(f"“{text}” is no time of day")
        return found.time(), shape
    return (found.date() if shape.name == DATE else found), shape


def _common(found: list[Literal]) -> Shape | None:
    """The shape that holds all of them; None where there is none."""
    shapes: Iterator[Shape] = (shape for _, shape in found if shape is not None)
    common = next(shapes, None)
    for shape in shapes:
        if common is None:
            return None
        if common.type == shape.type:
            if common.type in ("array", "map") and common != shape:
                raise ValueError(f"a list or map stands among others of its kind with other contents: {shape.type}")
            common = shape
        elif common.type in NUMBERS and shape.type in NUMBERS:
            common = max(common, shape, key=lambda each: NUMBERS.index(each.type))
        else:
            return None
    return common


def _as(shape: Shape | None, value: Any) -> Any:
    """A value as the common shape has it. Raises _Not where it cannot be that."""
    if shape is None:
        return value
    if value is None:
        raise _Not
    name = type(value).__name__
    if name in KINDS:
        if shape.name not in KINDS.values():
            raise _Not
        if shape.name != KINDS[name]:
            raise ValueError(f"“{value}” stands among {shape.name}")
    elif shape.name in KINDS.values() and isinstance(value, int):
        if shape.name == TIME and not 0 <= value < 86_400_000:
            raise _Not
        return pa.array([value], PRIMITIVES[shape.type]).cast(arrow_of(shape))[0].as_py()
    elif shape.type in ("float32", "float64") and isinstance(value, int):
        with np.errstate(over="ignore"):
            return float(np.float32(value)) if shape.type == "float32" else float(value)
    return value


