"""JsonConverter: JSON with its schema in an envelope, {"schema": …, "payload": …}, or without (`schemas.enable=false`).

Bytes and data are those of Kafka Connect 4.3's own. What it does that may surprise: text after the JSON value is passed
over; text where the schema has a number is read as 0; objects without a schema are written in the order of a Java
HashMap. What Arrow cannot hold is a failure of its record: a decimal of more digits than its type, an unpaired
surrogate, a list of more than 127 kinds of items.
"""

from __future__ import annotations

import decimal
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from headrace.batch import Index
from headrace.errors import SchemaError
from headrace.records.converters import json_schema, structure
from headrace.records.converters.faults import Faults
from headrace.records.converters.json_read import Reader
from headrace.records.converters.json_text import JsonTexts, lines
from headrace.records.converters.text import join
from headrace.records.records import Column
from headrace.records.shape import DECIMAL, Shape

ENVELOPE = ('JsonConverter with schemas.enable requires "schema" and "payload" fields and may not contain additional '
            "fields. If you are trying to deserialize plain JSON data, set schemas.enable=false in your converter "
            "configuration.")
FAILED = "Converting byte[] to Kafka Connect data failed due to serialization error: "
SPACE = " \t\n\r"
DEPTH = "nested too deeply"


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"Non-standard token '{word}'")


def _unsigned(text: str) -> float:
    """Java reads fractions as decimals first, which have no -0.0."""
    return float(text) + 0.0


FRACTIONS: Mapping[str, Callable[[str], Any]] = {"double": float, "unsigned": _unsigned, "exact": decimal.Decimal}


@cache
def _scanner(fractions: str) -> Callable[..., tuple[Any, int]]:
    """What reads a JSON value from a place in a text: (value, place after it)."""
    return json.JSONDecoder(parse_float=FRACTIONS[fractions], parse_constant=_refuse).raw_decode


ZEROS = re.compile(r'("(?:[^"\\]|\\.)*")|(?<![\d.eE+-])(-?)0+(?=\d)', re.DOTALL)
"""Text, which stays; the zeros before a number, which Java passes over."""


def _leniently(payload: bytes, fractions: str) -> Any:
    """A value that was not read at once. Raises ValueError or RecursionError."""
    text = payload.decode(json.detect_encoding(payload)).lstrip(SPACE)
    text = ZEROS.sub(lambda found: found[1] or found[2], text)
    return _scanner(fractions)(text)[0] if text else None


def _minus_zero(payloads: Sequence[bytes | None]) -> bool:
    """Whether there may be a -0.0."""
    return any(b"-0" in payload for payload in payloads if payload is not None)


@dataclass(frozen=True, slots=True)
class JsonConverter:
    envelope: bool = True
    numeric: bool = False
    defaults: bool = True

    @classmethod
    def of(cls, told: Mapping[str, str]) -> JsonConverter:
        """From its configuration, checked before."""
        return cls(told.get("schemas.enable", "true").lower() == "true",
                   told.get("decimal.format", "BASE64").upper() == "NUMERIC",
                   told.get("replace.null.with.default", "true").lower() == "true")

    def encode(self, topic: str, column: Column) -> tuple[list[bytes | None], dict[int, str]]:
        """The payload of each value; why some have none, by position."""
        faults, n = Faults(), len(column)
        values, shape = column.values, column.shape
        if shape is None and values.null_count == n:
            return [None] * n, {}
        texts = JsonTexts(faults, numeric=self.numeric, defaults=self.defaults)
        written = texts.filled(values, shape, np.arange(n))
        if self.envelope:
            written = join(f'{{"schema":{json_schema.written(shape, texts)},"payload":', written, "}")
        payloads: list[bytes | None] = list(lines(written))
        if shape is None and values.null_count:
            for at in np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)).tolist():
                payloads[at] = None
        for at in faults.reasons:
            payloads[at] = None
        return payloads, faults.reasons

    def decode(self, topic: str, payloads: Sequence[bytes | None]) -> tuple[list[tuple[Index, Column]], dict[int, str]]:
        """(positions, column) of each structure, and why some could not be read, by position."""
        reasons: dict[int, str] = {}
        absent = [at for at, payload in enumerate(payloads) if payload is None]
        places = [at for at, payload in enumerate(payloads) if payload is not None]
        found = [(np.array(absent, np.int64), Column.nothing(len(absent)))] if absent else []
        if places:
            found += (self._enveloped if self.envelope else self._bare)(payloads, places, reasons)
        return sorted(found, key=lambda each: int(each[0][0])), reasons

    def _bare(self, payloads: Sequence[bytes | None], places: list[int],
              reasons: dict[int, str]) -> list[tuple[Index, Column]]:
        texts = [payloads[at] for at in places]
        values, at = _parsed(texts, places, reasons, "unsigned" if _minus_zero(texts) else "double")
        return _schemaless(values, at, reasons)

    def _enveloped(self, payloads: Sequence[bytes | None], places: list[int],
                   reasons: dict[int, str]) -> list[tuple[Index, Column]]:
        """Records with the same schema together. A schema is parsed once for all payloads that begin with it."""
        found: list[tuple[Index, Column]] = []
        groups: list[tuple[Shape | None, list[Any], list[int]]] = []
        while places:
            first = payloads[places[0]]
            assert first is not None
            prefix = _prefix(first)
            mine = places[:1] if prefix is None else [at for at in places if _begins(payloads[at], prefix)]
            if prefix is None:
                groups += self._one_by_one(payloads, mine, reasons)
            else:
                groups += self._alike(payloads, mine, prefix, reasons)
            took = set(mine)
            places = [at for at in places if at not in took]
        for shape, values, at in _united(groups):
            found += self._read(shape, values, at, reasons)
        return found

    def _alike(self, payloads: Sequence[bytes | None], places: list[int], prefix: bytes,
               reasons: dict[int, str]) -> list[tuple[Shape | None, list[Any], list[int]]]:
        """Payloads of one beginning, `{"schema":…,"payload":`: only what follows it is parsed."""
        try:
            shape = json_schema.read(json.loads(prefix[:-len(PAYLOAD)] + b"}", parse_float=decimal.Decimal)["schema"],
                                     defaults=self.defaults)
        except SchemaError as error:
            reasons.update(dict.fromkeys(places, error.what))
            return []
        exact = shape is not None and _needs_exact(shape)
        scan, size = _scanner("exact" if exact else "unsigned"), len(prefix)
        groups: list[tuple[Shape | None, list[Any], list[int]]] = [(shape, [], [])]
        others: list[int] = []
        for at in places:
            payload = payloads[at]
            assert payload is not None
            try:
                text = payload[size:].decode()
                value, end = scan(text)
                if text[end:] != "}":
                    raise ValueError
            except (ValueError, RecursionError):
                others.append(at)
                continue
            groups[0][1].append(value)
            groups[0][2].append(at)
        return [*groups, *self._one_by_one(payloads, others, reasons)]

    def _one_by_one(self, payloads: Sequence[bytes | None], places: list[int],
                    reasons: dict[int, str]) -> list[tuple[Shape | None, list[Any], list[int]]]:
        groups: list[tuple[Shape | None, list[Any], list[int]]] = []
        values, kept = _parsed([payloads[at] for at in places], places, reasons, "exact")
        for value, at in zip(values, kept, strict=True):
            if not isinstance(value, dict) or set(value) != {"schema", "payload"}:
                reasons[at] = ENVELOPE
                continue
            try:
                shape = json_schema.read(value["schema"], defaults=self.defaults)
            except SchemaError as error:
                reasons[at] = error.what
                continue
            payload = value["payload"] if shape is not None else _floats(value["payload"])
            groups.append((shape, [payload], [at]))
        return groups

    def _read(self, shape: Shape | None, values: list[Any], places: list[int],
              reasons: dict[int, str]) -> list[tuple[Index, Column]]:
        if shape is None:
            return _schemaless(values, places, reasons)
        faults = Faults()
        try:
            read = Reader(faults, defaults=self.defaults).of(values, shape, np.arange(len(values)))
        except SchemaError as error:
            reasons.update(dict.fromkeys(places, error.what))
            return []
        at = np.array(places, np.int64)
        reasons.update({places[row]: why for row, why in faults.reasons.items()})
        if faults.reasons:
            good = faults.good(len(values))
            read, at = read.take(pa.array(good)), at[good]
        return [(at, Column(read, shape))] if len(at) else []


PAYLOAD = b',"payload":'


def _prefix(payload: bytes) -> bytes | None:
    """The beginning of an envelope up to its payload; None where it is written in another way."""
    if not payload.startswith(b'{"schema":'):
        return None
    try:
        text = payload.decode()
        _, end = _scanner("exact")(text, 10)
    except (ValueError, RecursionError):
        return None
    size = len(text[:end].encode())
    return payload[:size + len(PAYLOAD)] if payload[size:].startswith(PAYLOAD) else None


def _begins(payload: bytes | None, prefix: bytes) -> bool:
    return payload is not None and payload.startswith(prefix)


def _united(groups: list[tuple[Shape | None, list[Any], list[int]]]
            ) -> list[tuple[Shape | None, list[Any], list[int]]]:
    """Groups of equal shapes as one, in the order of their records."""
    if len(groups) == 1:
        return groups if groups[0][1] else []
    united: list[tuple[Shape | None, list[tuple[int, Any]]]] = []
    for shape, values, places in groups:
        for other, pairs in united:
            if other == shape:
                pairs += zip(places, values, strict=True)
                break
        else:
            united.append((shape, list(zip(places, values, strict=True))))
    for _, pairs in united:
        pairs.sort(key=lambda pair: pair[0])
    return [(shape, [value for _, value in pairs], [at for at, _ in pairs]) for shape, pairs in united if pairs]


def _parsed(payloads: Sequence[bytes | None], places: Sequence[int], reasons: dict[int, str], fractions: str
            ) -> tuple[list[Any], list[int]]:
    """(values, their places); what is no JSON gets a reason."""
    scan = _scanner(fractions)
    try:
        texts = [payload.decode() for payload in payloads if payload is not None]
        found = list(map(scan, texts))
        if [end for _, end in found] == list(map(len, texts)):
            return [value for value, _ in found], list(places)
    except (ValueError, RecursionError):
        pass  # one of them
    values: list[Any] = []
    kept: list[int] = []
    for at, payload in zip(places, payloads, strict=True):
        assert payload is not None
        try:
            values.append(_leniently(payload, fractions))
            kept.append(at)
        except (ValueError, RecursionError) as error:
            reasons[at] = FAILED + (DEPTH if isinstance(error, RecursionError) else str(error))
    return values, kept


def _schemaless(values: list[Any], places: list[int], reasons: dict[int, str]) -> list[tuple[Index, Column]]:
    """Columns by structure."""
    if not values:
        return []
    at = np.array(places, np.int64)
    found = []
    for rows, kind in structure.grouped(values):
        mine = values if len(rows) == len(values) else [values[row] for row in rows.tolist()]
        try:
            found.append((at[rows], Column(structure.column(mine, kind))))
        except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError) as error:
            if len(mine) > 1:  # a few of them
                for row in rows.tolist():
                    found += _schemaless([values[row]], [places[row]], reasons)
                continue
            wrapped = _wrapped(mine[0])
            if wrapped != mine[0]:
                found += _schemaless([wrapped], [places[int(rows[0])]], reasons)
            else:
                reasons[places[int(rows[0])]] = f"Arrow cannot hold it: {error}"
    return found


def _wrapped(value: Any) -> Any:
    """Integers of more than 64 bits lose their high ones, as in Java."""
    if type(value) is int:
        low = value & (1 << 64) - 1
        return low - (1 << 64) if low >> 63 else low
    if isinstance(value, list):
        return [_wrapped(each) for each in value]
    return {name: _wrapped(each) for name, each in value.items()} if isinstance(value, dict) else value


def _floats(value: Any) -> Any:
    """Fractions as doubles."""
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, list):
        return [_floats(each) for each in value]
    return {name: _floats(each) for name, each in value.items()} if isinstance(value, dict) else value


def _needs_exact(shape: Shape) -> bool:
    """Whether a double would not do for its fractions."""
    inner = [*(each for _, each in shape.fields), *(each for each in (shape.keys, shape.values) if each)]
    return shape.name == DECIMAL or shape.type == "float32" or any(map(_needs_exact, inner))
