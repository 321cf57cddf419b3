"""JSON bodies cut into records, byte for byte as they came, and records as columns: of a schema, or of none."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from headrace.batch import Index
from headrace.codec import AvroSchema
from headrace.ingest import jsonl
from headrace.ingest.text import Cutter
from headrace.records import Column

SPACE = re.compile(r"[ \t\r\n]*")
JSON_CONVERTER = "org.apache.kafka.connect.json.JsonConverter"


class Malformed(ValueError):
    """A body that is not what it should be. The message says where and why."""


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


DECODER = json.JSONDecoder(parse_constant=_no_constant)


def text_of(body: bytes) -> str:
    """Raises Malformed."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8: byte {error.start + 1}") from error


def members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """(name or number, start, end) of each value within the JSON array or object at `at`; and last ("", end, end),
    `end` being the place behind it all. Raises Malformed."""
    named, close = text[at:at + 1] == "{", {"{": "}", "[": "]"}[text[at]]
    at, number = _skip(text, at + 1), 0
    while text[at:at + 1] != close:
        if number:
            if text[at:at + 1] != ",":
                raise Malformed(f"not JSON: “,” or “{close}” is missing at character {at + 1}")
            at = _skip(text, at + 1)
        name = str(number)
        if named:
            name, at = _value(text, at)
            at = _skip(text, at)
            if not isinstance(name, str) or text[at:at + 1] != ":":
                raise Malformed(f"not JSON: a name and “:” are missing at character {at + 1}")
            at = _skip(text, at + 1)
        _, end = _value(text, at)
        yield name, at, end
        at, number = _skip(text, end), number + 1
    yield "", at + 1, at + 1


def _skip(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    assert found is not None
    return found.end()


def _value(text: str, at: int) -> tuple[Any, int]:
    """A JSON value, and the place behind it."""
    try:
        return DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error} from character {at + 1} on") from error


def pointed(text: str, pointer: str) -> tuple[int, int] | None:
    """Where in a JSON text the value of a JSON pointer (RFC 6901) is; None when it is not there. Raises Malformed."""
    at = _skip(text, 0)
    _, end = _value(text, at)
    if _skip(text, end) != len(text):
        raise Malformed(f"not JSON: more behind its end, at character {end + 1}")
    for token in pointer.split("/")[1:]:
        wanted = token.replace("~1", "/").replace("~0", "~")
        if text[at:at + 1] not in ("{", "["):
            return None
        found = [(start, stop) for name, start, stop in members(text, at) if name == wanted and stop > start]
        if not found:
            return None
        at, end = found[-1]  # a name that is there twice: the last one counts, as in any parser
    return at, end


def records(text: str, at: int = 0, end: int | None = None) -> list[bytes]:
    """The items of an array, or the one object there is. Raises Malformed."""
    if text[at:at + 1] == "[":
        *items, (_, last, _) = members(text, at)
        if end is None and _skip(text, last) != len(text):
            raise Malformed(f"not JSON: more after the array, at character {last + 1}")
        return [_line(text[start:stop]) for _, start, stop in items]
    return [_line(text[at:end])]


def split(body: bytes) -> list[bytes]:
    """The records of a body: an array's items, one object, or JSON Lines. Raises Malformed."""
    text = text_of(body)
    at = _skip(text, 0)
    if at == len(text):
        raise Malformed("the body is empty")
    if text[at] == "[":
        return records(text, at)
    if text[at] == "{":
        try:
            _, end = _value(text, at)
        except Malformed:
            end = -1  # JSON Lines, maybe: whose line is at fault is told by whoever reads them
        if _skip(text, max(end, 0)) == len(text):
            return [_line(text[at:end])]
    return [line.strip().encode() for line in text.split("\n") if line.strip(" \t\r")]


def _line(text: str) -> bytes:
    """In one line: a line end within JSON is a space."""
    return text.replace("\n", " ").replace("\r", " ").encode()


@dataclass(frozen=True, slots=True)
class Made:
    """Records as columns: (places among the records given, column), and by place what could not be made."""

    columns: list[tuple[Index, Column]] = field(default_factory=list)
    reasons: Mapping[int, Sequence[str]] = field(default_factory=dict)


Maker = Callable[[Sequence[bytes]], Made]
"""JSON records, one line each → columns."""


def maker(schema: AvroSchema | None, topic: str) -> Maker:
    """Of the schema's type or, without one, as Kafka Connect's JSON converter reads JSON without schemas."""
    return _typed(schema) if schema is not None else _free(topic)


def _typed(schema: AvroSchema) -> Maker:
    convert = jsonl.converter(schema)

    def make(raws: Sequence[bytes]) -> Made:
        cutter = Cutter(io.BytesIO(b"\n".join([*raws, b""])))
        made = Made([], {})
        reasons: dict[int, Sequence[str]] = {}
        while (cut := cutter.next(len(raws))) is not None:
            piece = convert(cut)
            if len(piece.at):
                made.columns.append((np.asarray(piece.at) - 1, Column.of_rows(piece.rows, name=schema.name or None)))
            reasons |= {bad.at - 1: bad.reasons for bad in piece.bad}
        return Made(made.columns, reasons)

    return make


def _free(topic: str) -> Maker:
    from headrace.records.converters import converter_of

    converter = converter_of(JSON_CONVERTER, {"schemas.enable": "false"}, False, None)

    def make(raws: Sequence[bytes]) -> Made:
        reasons: dict[int, Sequence[str]] = {}
        for at, raw in enumerate(raws):
            try:
                if not isinstance(DECODER.decode(raw.decode()), dict):
                    reasons[at] = ("not a JSON object",)
            except json.JSONDecodeError as error:
                reasons[at] = (f"not JSON: {error.msg} at character {error.pos + 1}",)
            except (ValueError, RecursionError) as error:
                reasons[at] = (f"not JSON: {error}",)
        good = np.array([at for at in range(len(raws)) if at not in reasons], dtype=np.int64)
        columns, failures = converter.decode(topic, [raws[at] for at in good.tolist()])
        reasons |= {int(good[at]): (why,) for at, why in failures.items()}
        return Made([(good[index], column) for index, column in columns], reasons)

    return make
