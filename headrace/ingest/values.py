"""JSON values as Python values of an Avro type: one at a time, exact, with place and reason of what does not fit.

    bytes, fixed      text, one character a byte (U+0000 … U+00FF), as in Avro's own JSON encoding
    decimal           text or a number, within precision and scale
    date, time, timestamp      ISO 8601 text, or the raw number; a timestamp without a zone is UTC
    unions            a value that one branch takes, or {"branch": value}
This is what JSON Lines *means*; `jsonl.py` has a faster way for plain schemas, held to agree with it by a test.
"""

from __future__ import annotations

import decimal
import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NoReturn

from headrace.codec.types import MISSING, Field, Type, value_of
from headrace.marked import nearest

BITS = {"int": 31, "long": 63}
EPOCH = datetime(1970, 1, 1)
PER_S = {"millis": 10**3, "micros": 10**6, "nanos": 10**9}


class Misfit(ValueError):
    """A value that is not of its type. The message begins with the field's path."""


def no(path: str, value: Any, type_: Type) -> NoReturn:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    raise Misfit(f"{path}: {shown[:80]}{'…' if len(shown) > 80 else ''} is not {article(type_)}")


def article(type_: Type) -> str:
    """“a timestamp-millis”, “an int”: a type as messages name it."""
    if type_.kind == "union" and len(type_.some) == 1:
        type_ = type_.some[0]
    word = type_.logical or (type_.label if type_.kind in ("union", "fixed") else
                             f"{type_.kind} {type_.name}".strip())
    if type_.logical == "decimal":
        word = f"decimal({type_.precision},{type_.scale})"
    if type_.kind == "enum":
        return f"one of {', '.join(type_.symbols)}"
    return f"{'an' if word[0] in 'aeiou' and not word.startswith('u') else 'a'} {word}"


def row(fields: tuple[Field, ...], value: Any, path: str = "") -> dict[str, Any]:
    """A JSON object as the values of a record's fields. Raises Misfit."""
    if not isinstance(value, dict):
        raise Misfit(f"{path or 'the record'} is not a JSON object")
    out = {}
    for one in fields:
        here = f"{path}.{one.name}" if path else one.name
        given = value.get(one.name, MISSING)
        if given is MISSING:
            if one.default is not MISSING:
                out[one.name] = value_of(one.type, one.default)
            elif one.type.nullable:
                out[one.name] = None
            else:
                raise Misfit(f"{here} is missing")
        else:
            out[one.name] = of(one.type, given, here)
    if len(value) > len(fields) or not value.keys() <= out.keys():
        names = [f.name for f in fields]
        unknown = next(k for k in value if k not in out)
        raise Misfit(f"the schema has no field “{f'{path}.' if path else ''}{unknown}”{nearest(unknown, names)}")
    return out


def of(type_: Type, value: Any, path: str) -> Any:
    """A JSON value as the Python value that `pa.array([…], type_.arrow)` takes. Raises Misfit."""
    if type_.kind == "union":
        return _union(type_, value, path)
    if type_.logical is not None:
        return LOGICAL[type_.logical](type_, value, path)
    return KINDS[type_.kind](type_, value, path)


def _union(type_: Type, value: Any, path: str) -> Any:
    some = type_.some
    if value is None:
        return None if type_.nullable else no(path, value, type_)
    if len(some) == 1:
        if isinstance(value, dict) and len(value) == 1 and some[0].kind not in ("record", "map"):
            (name, inner), = value.items()
            if name in (some[0].kind, some[0].name):  # Avro's own JSON encoding: {"string": "x"}
                return of(some[0], inner, path)
        return of(some[0], value, path)
    if isinstance(value, dict) and len(value) == 1:
        (name, inner), = value.items()
        for member, branch in zip(type_.members, some, strict=True):
            if name in (member, branch.name or branch.kind):
                return {member: of(branch, inner, path)}
    for member, branch in zip(type_.members, some, strict=True):
        try:
            return {member: of(branch, value, path)}
        except Misfit:
            continue
    return no(path, value, type_)


def _integer(type_: Type, value: Any, path: str) -> int:
    if isinstance(value, float | decimal.Decimal) and value == value // 1:
        value = int(value)  # 3.0: how pandas writes integers beside nulls
    if not isinstance(value, int) or isinstance(value, bool):
        no(path, value, type_)
    if not -(1 << BITS[type_.kind]) <= value < 1 << BITS[type_.kind]:
        raise Misfit(f"{path}: {value} is out of the range of {article(type_)}")
    return value


def _real(type_: Type, value: Any, path: str) -> float:
    if not isinstance(value, int | float | decimal.Decimal) or isinstance(value, bool):
        no(path, value, type_)
    try:
        return float(value)
    except OverflowError:
        raise Misfit(f"{path}: {value} is out of the range of {article(type_)}") from None


def _text(type_: Type, value: Any, path: str) -> str:
    if not isinstance(value, str):
        no(path, value, type_)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Misfit(f"{path}: half a surrogate pair is no text") from None
    if type_.kind == "enum" and value not in type_.symbols:
        no(path, value, type_)
    return value


def _bytes(type_: Type, value: Any, path: str) -> bytes:
    if not isinstance(value, str):
        no(path, value, type_)
    try:
        raw = value.encode("latin-1")
    except UnicodeEncodeError:
        raise Misfit(f"{path}: a character above U+00FF is no byte") from None
    if type_.kind == "fixed" and len(raw) != type_.size:
        raise Misfit(f"{path}: {len(raw)} bytes where {article(type_)} has {type_.size}")
    return raw


def _array(type_: Type, value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        no(path, value, type_)
    return [of(type_.item, v, f"{path}[{i}]") for i, v in enumerate(value)]


def _map(type_: Type, value: Any, path: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        no(path, value, type_)
    return [(_text(Type("string"), k, path), of(type_.item, v, f"{path}.{k}")) for k, v in value.items()]


def _null(type_: Type, value: Any, path: str) -> None:
    return None if value is None else no(path, value, type_)


def _boolean(type_: Type, value: Any, path: str) -> bool:
    return value if isinstance(value, bool) else no(path, value, type_)


def _decimal(type_: Type, value: Any, path: str) -> decimal.Decimal:
    context = decimal.Context(prec=100)
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float | decimal.Decimal):
            no(path, value, type_)
        exact = decimal.Decimal(repr(value) if isinstance(value, float) else value, context)
        if not exact.is_finite():
            no(path, value, type_)
        scaled = exact.quantize(decimal.Decimal(1).scaleb(-type_.scale), context=context)
    except decimal.InvalidOperation:
        no(path, value, type_)
    if scaled != exact or abs(scaled.scaleb(type_.scale, context)) >= 10**type_.precision:
        no(path, value, type_)
    return scaled


def _uuid(type_: Type, value: Any, path: str) -> str:
    import uuid

    try:
        return str(uuid.UUID(_text(Type("string"), value, path)))
    except (ValueError, Misfit):
        no(path, value, type_)


def _raw(type_: Type, value: Any, path: str) -> int | None:
    """A temporal value given as the number Avro stores."""
    return _integer(type_.plain(), value, path) if isinstance(value, int) and not isinstance(value, bool) else None


def _timestamp(type_: Type, value: Any, path: str) -> Any:
    raw = _raw(type_, value, path)
    if raw is not None:
        return raw
    local, unit = type_.logical.startswith("local-"), type_.logical.rpartition("-")[2]  # type: ignore[union-attr]
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        no(path, value, type_)
    if local and at.tzinfo is not None:
        raise Misfit(f"{path}: “{value}” has a zone, {article(type_)} has none")
    plain = at if at.tzinfo is None else at.astimezone(UTC).replace(tzinfo=None)
    micros = (plain - EPOCH) // timedelta(microseconds=1)
    per = PER_S[unit]
    scaled, rest = (micros // (10**6 // per), micros % (10**6 // per)) if per <= 10**6 else (micros * 1000, 0)
    if rest or not -(1 << 63) <= scaled < 1 << 63:
        raise Misfit(f"{path}: “{value}” is finer or farther than {article(type_)} holds")
    return scaled


def _date(type_: Type, value: Any, path: str) -> Any:
    raw = _raw(type_, value, path)
    if raw is not None:
        return raw
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        no(path, value, type_)


def _time(type_: Type, value: Any, path: str) -> Any:
    raw = _raw(type_, value, path)
    per = 1000 if type_.logical == "time-millis" else 1
    if raw is not None:
        return raw if 0 <= raw * per < 86_400 * 10**6 else no(path, value, type_)
    try:
        at = time.fromisoformat(value)
    except (TypeError, ValueError):
        no(path, value, type_)
    if at.tzinfo is not None or (per == 1000 and at.microsecond % 1000):
        no(path, value, type_)
    return at


def _duration(type_: Type, value: Any, path: str) -> dict[str, int]:
    names = ("months", "days", "millis")
    if not isinstance(value, dict) or set(value) != set(names):
        no(path, value, type_)
    if not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 32 for v in value.values()):
        no(path, value, type_)
    return {n: value[n] for n in names}


def _record(type_: Type, value: Any, path: str) -> dict[str, Any]:
    return row(type_.fields, value, path)


KINDS: Mapping[str, Callable[[Type, Any, str], Any]] = {
    "null": _null, "boolean": _boolean, "int": _integer, "long": _integer, "float": _real, "double": _real,
    "string": _text, "enum": _text, "bytes": _bytes, "fixed": _bytes, "array": _array, "map": _map, "record": _record,
}
LOGICAL: Mapping[str, Callable[[Type, Any, str], Any]] = {
    "decimal": _decimal, "uuid": _uuid, "date": _date, "time-millis": _time, "time-micros": _time,
    "duration": _duration,
    **{f"{local}timestamp-{unit}": _timestamp for local in ("", "local-") for unit in PER_S},
}


def plain(type_: Type, value: Any) -> Any:
    """A value of an Arrow row as JSON has it: what `of` reads again as the same value."""
    if value is None:
        return None
    if type_.kind == "union":
        if len(type_.some) == 1:
            return plain(type_.some[0], value)
        for member, branch in zip(type_.members, type_.some, strict=True):
            if value.get(member) is not None:
                return {member: plain(branch, value[member])}
        return None
    if type_.kind == "record":
        return {f.name: plain(f.type, value[f.name]) for f in type_.fields}
    if type_.kind == "array":
        return [plain(type_.item, v) for v in value]
    if type_.kind == "map":
        return {k: plain(type_.item, v) for k, v in value}
    if isinstance(value, datetime | date | time):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return str(value) if isinstance(value, decimal.Decimal) else value
