"""Records made up from an Avro schema: the same for the same seed, record by record, wherever a run begins.

What a field gets is told by its type and its name (`id` grows, `price` has two digits behind the point, `city` is one),
or by these properties beside the field's type in the schema:

    "headrace.range": [1, 10]              numbers, dates and times within these, both included
    "headrace.values": ["a", "b"]          one of these
    "headrace.grows": true                 1, 2, 3, … (from the range's first), as `id` does
    "headrace.null": 0.5                   the share of nulls, where null is allowed
    "headrace.length": [0, 3]              items of an array or a map
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AwareDatetime, Field, model_validator

from headrace.codec import AvroSchema
from headrace.codec.types import Type
from headrace.config import TOPIC_NAME, Config
from headrace.connector import Pulled
from headrace.errors import SchemaError
from headrace.ingest.values import Misfit, of
from headrace.records import Column
from headrace.records.records import one

U64 = np.ndarray[Any, np.dtype[np.uint64]]
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
ITEMS_MAX = 64
"""Of an array or a map."""
WORDS_MAX = 1000
DAY_MS = 86_400_000


class DatagenConfig(Config):
    """A connector of class `datagen`."""

    topic: str = Field(pattern=TOPIC_NAME, description="The topic to write.")
    schema_name: str = Field(alias="schema", min_length=1, description="The records' shape: `departure` is "
                             "schemas/departure.avsc.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Another seed, other records.")
    records_max: int | None = Field(None, alias="records.max", ge=0, description="How many in all, restarts included. "
                                    "Left out: without end.")
    rate: float | None = Field(None, alias="rate.records.per.second", gt=0, description="No faster than this. Needed "
                               "without records.max, or a disk would soon be full.")
    null_share: float = Field(0.1, alias="null.share", ge=0, le=1, description="How many of the values that may be "
                              "null are, 0 … 1.")
    start_time: AwareDatetime = Field(
        datetime.fromisoformat("2026-01-01T00:00:00Z"), alias="start.time", description="The first record's time, ISO "
        "8601 with a zone: what timestamps begin with.")
    time_step_ms: int = Field(1000, alias="time.step.ms", ge=1, le=10 * DAY_MS, description="From one record's time to "
                              "the next one's, in milliseconds.")

    @model_validator(mode="after")
    def _bounded(self) -> DatagenConfig:
        if self.records_max is None and self.rate is None:
            raise ValueError("records.max: neither this nor rate.records.per.second is given: how many, or how fast?")
        return self


class DatagenSource:
    """Record n is a function of the seed and n, so that a position is a number."""

    Config: ClassVar[type[DatagenConfig]] = DatagenConfig
    wants_schema: ClassVar[bool] = True

    def __init__(self, config: DatagenConfig, *, project: Path) -> None:
        self.config = config
        self.schema: AvroSchema | None = None
        self.ended = False
        self.partition = {"datagen": config.topic}

    def open(self, stored: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> None:
        """Raises SchemaError for a property that does not fit its field."""
        assert self.schema is not None, "the schema is set before"
        self._rows = maker(self.schema, self.config)
        self._next = int((stored(self.partition) or {}).get("record", 0))
        self.ended = False

    def pull(self, records_max: int) -> Pulled | None:
        """Never waits: whoever runs it keeps to the rate."""
        first, last = self._next, self._next + records_max
        if self.config.records_max is not None:
            last = min(last, self.config.records_max)
        if last <= first:
            self.ended = True
            return None
        rows, self._next = self._rows(first, last - first), last
        assert self.schema is not None
        made = one(self.config.topic, Column.of_rows(rows, name=self.schema.name or None))
        return Pulled(self.partition, {"record": last}, [made], where=lambda i: f"record {first + i}")

    def committed(self, pulled: Pulled) -> None:
        """Nobody waits for it."""

    def close(self) -> None:
        """There is nothing open."""


SOURCE = DatagenSource


def maker(schema: AvroSchema, config: DatagenConfig) -> Callable[[int, int], pa.RecordBatch]:
    """(first record, how many) → rows of schema.arrow. Raises SchemaError."""
    whole = _Maker(config).of(schema.type, schema.json, schema.type.name.rpartition(".")[2], "", {})

    def rows(first: int, count: int) -> pa.RecordBatch:
        numbers = np.arange(first, first + count, dtype=np.uint64)
        made = whole(_Points(numbers, numbers))
        return pa.RecordBatch.from_arrays(made.flatten(), schema=schema.arrow)

    return rows


@dataclass(frozen=True, slots=True)
class _Points:
    """Where values are wanted: the record of each, and a number that no other value of its field has."""

    record: U64
    at: U64

    def __len__(self) -> int:
        return len(self.at)


Values = Callable[[_Points], pa.Array]


def drawn(seed: int, at: U64) -> U64:
    """A random number for each of `at`: SplitMix64, whose n-th number needs none of those before."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (at + np.uint64(1)) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: U64 = z ^ (z >> np.uint64(31))
    return mixed


def _share(numbers: U64) -> np.ndarray[Any, np.dtype[np.float64]]:
    """In [0, 1)."""
    return np.ldexp((numbers >> np.uint64(11)).astype(np.float64), -53)


def _within(numbers: U64, low: int, high: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Whole numbers low … high, both included."""
    span = high - low + 1
    offset = numbers if span >= 1 << 64 else numbers % np.uint64(span)
    with np.errstate(over="ignore"):
        found: np.ndarray[Any, np.dtype[np.int64]] = (offset + np.uint64(low % (1 << 64))).view(np.int64)
    return found


NUMBERS: Sequence[tuple[str, float, float, int]] = (
    (r"lat(itude)?", -90, 90, 5), (r"lon(gitude)?|lng", -180, 180, 5),
    (r"price|amount|cost|total|fee|salary|balance", 1, 1000, 2), (r"probability|share|ratio|p", 0, 1, 4),
    (r"temp(erature)?", -20, 40, 1), (r"humidity|percent(age)?|pct", 0, 100, 1),
    (r"age", 18, 90, 0), (r"year", 2000, 2026, 0), (r"month", 1, 12, 0), (r"day", 1, 28, 0), (r"hour", 0, 23, 0),
    (r"minute|second", 0, 59, 0), (r"quantity|qty|count", 1, 20, 0), (r"port", 1024, 65535, 0),
    (r"distance", 10, 5000, 0), (r"delay", -20, 180, 0), (r"rating|score", 1, 5, 0), (r"id", 1, 1000, 0),
)
"""The last word of a field's name → the range of its values, and digits behind the point."""
WORDS: Mapping[str, Sequence[str]] = {
    "name": ("Ada", "Alan", "Barbara", "Donald", "Edsger", "Frances", "Grace", "John", "Katherine", "Leslie", "Tim"),
    "surname": ("Allen", "Dijkstra", "Hopper", "Johnson", "Knuth", "Lamport", "Liskov", "Lovelace", "Turing"),
    "city": ("Berlin", "Boston", "Cairo", "Lagos", "Lima", "London", "Madrid", "Mumbai", "Osaka", "Oslo", "Paris"),
    "country": ("BR", "DE", "EG", "ES", "FR", "GB", "IN", "JP", "NG", "NO", "PE", "US"),
    "currency": ("EUR", "GBP", "JPY", "USD"), "status": ("new", "open", "held", "done"),
    "color": ("red", "green", "blue", "black", "white"), "carrier": ("AA", "B6", "DL", "EV", "UA", "WN"),
    "origin": ("EWR", "JFK", "LGA"), "dest": ("ATL", "BOS", "LAX", "MIA", "ORD", "SFO"),
    "email": tuple(f"user{n}@example.com" for n in range(WORDS_MAX)),
    "url": tuple(f"https://example.com/{n}" for n in range(WORDS_MAX)),
    "ip": tuple(f"192.0.2.{n}" for n in range(1, 255)), "phone": tuple(f"+1-202-555-{n:04}" for n in range(100, 200)),
}
"""The last word of a field's name → what its text may be."""
TIMES = re.compile(r"ts|timestamp|at|ms")
"""The last word of the name of a long that is milliseconds since 1970."""


class _Maker:
    """Makes, for each type of a schema, the function that gives its values."""

    def __init__(self, config: DatagenConfig) -> None:
        self.config = config
        self.named: dict[str, Any] = {}
        self.start_ms = int(config.start_time.timestamp() * 1000)

    def seed(self, path: str, what: str = "") -> int:
        return int.from_bytes(hashlib.blake2b(f"{self.config.seed}/{path}/{what}".encode(), digest_size=8).digest())

    def of(self, type_: Type, written: Any, name: str, path: str, said: Mapping[str, Any]) -> Values:
        """`written` is the type's JSON, `said` the properties of its field."""
        said = {**_properties(written), **said}
        while isinstance(written, dict) and isinstance(written["type"], dict | list):
            written = written["type"]
            said = {**_properties(written), **said}
        if type_.name:
            written = self.named.setdefault(type_.name, written)  # later uses have its name only
        if type_.kind == "union":
            return self.union(type_, written, name, path, said)
        if "headrace.values" in said:
            return self.choice(type_, [self.value(type_, v, path) for v in said["headrace.values"]], path)
        nested = {"record": self.record, "array": self.collection, "map": self.collection}.get(type_.kind)
        if nested is not None and type_.logical is None:
            return nested(type_, written, name, path, said)
        return self.plain(type_, name, path, said)

    def value(self, type_: Type, given: Any, path: str) -> Any:
        try:
            return of(type_, given, path)
        except Misfit as misfit:
            raise SchemaError(f"a property of {misfit}") from misfit

    def bounds(self, type_: Type, said: Mapping[str, Any], path: str, low: Any, high: Any) -> tuple[Any, Any]:
        """headrace.range, or what it is without. Dates and times as numbers of what Arrow counts."""
        given = said.get("headrace.range")
        if given is None:
            return low, high
        if not isinstance(given, list) or len(given) != 2:
            raise SchemaError(f"{path}: headrace.range is a list of two, not {given!r}")
        if type_.kind in ("float", "double") or type_.logical == "decimal":
            found = [float(v) for v in given if isinstance(v, int | float)]
        else:
            storage = pa.int32() if type_.kind == "int" else pa.int64()
            found = [pa.scalar(self.value(type_, v, path), type_.arrow).cast(storage).as_py() for v in given]
        if len(found) != 2 or found[0] > found[1]:
            raise SchemaError(f"{path}: headrace.range {given!r} is no range of {type_.label}")
        return found[0], found[1]

    # ---- what holds others

    def union(self, type_: Type, written: Any, name: str, path: str, said: Mapping[str, Any]) -> Values:
        some = [(branch, text) for branch, text in zip(type_.branches, written, strict=True) if branch.kind != "null"]
        share = float(said.get("headrace.null", self.config.null_share)) if type_.nullable else 0.0
        seed, which = self.seed(path, "null"), self.seed(path, "branch")
        alone = len(some) == 1
        makers = [self.of(branch, text, name, path if alone else f"{path}|{at}", said if alone else {})
                  for at, (branch, text) in enumerate(some)]

        def nulls(points: _Points) -> np.ndarray[Any, np.dtype[np.bool_]]:
            return _share(drawn(seed, points.at)) < share

        def optional(points: _Points) -> pa.Array:
            values = makers[0](points)
            gone = nulls(points)
            return values.take(pa.array(np.arange(len(points)), mask=gone)) if gone.any() else values

        def general(points: _Points) -> pa.Array:
            chosen = drawn(which, points.at) % np.uint64(max(1, len(makers)))
            members = [make(points).take(pa.array(np.arange(len(points)), mask=chosen != at))
                       for at, make in enumerate(makers)]
            return pa.StructArray.from_arrays(members, fields=list(type_.arrow), mask=pa.array(nulls(points)))

        if not makers:
            return lambda points: pa.nulls(len(points), type_.arrow)
        return optional if len(makers) == 1 else general

    def record(self, type_: Type, written: Any, name: str, path: str, said: Mapping[str, Any]) -> Values:
        makers = []
        for field, text in zip(type_.fields, written["fields"], strict=True):
            own = _properties(text)
            grows = field.name in ("id", f"{type_.name.rpartition('.')[2].lower()}_id") and not path
            own = {"headrace.grows": True, **own} if grows else own
            makers.append(self.of(field.type, text["type"], field.name, f"{path}.{field.name}".lstrip("."), own))
        fields = list(type_.arrow)
        if not makers:
            return lambda points: pa.array([{}] * len(points), type_.arrow)
        return lambda points: pa.StructArray.from_arrays([make(points) for make in makers], fields=fields)

    def collection(self, type_: Type, written: Any, name: str, path: str, said: Mapping[str, Any]) -> Values:
        low, high = said.get("headrace.length", (0, 3))
        if not 0 <= low <= high <= ITEMS_MAX:
            raise SchemaError(f"{path}: headrace.length is two numbers, 0 … {ITEMS_MAX}")
        inner = written["items" if type_.kind == "array" else "values"]
        items, seed = self.of(type_.item, inner, name.removesuffix("s"), f"{path}[]", {}), self.seed(path, "length")

        def make(points: _Points) -> pa.Array:
            lengths = _within(drawn(seed, points.at), low, high)
            offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
            place = np.arange(offsets[-1], dtype=np.uint64) - np.repeat(offsets[:-1], lengths).astype(np.uint64)
            with np.errstate(over="ignore"):
                at = np.repeat(points.at, lengths) * np.uint64(ITEMS_MAX) + place
            values = items(_Points(np.repeat(points.record, lengths), at))
            if type_.kind == "array":
                return pa.ListArray.from_arrays(pa.array(offsets), values, type=type_.arrow)
            keys = pa.array([f"{name}{n}" for n in range(ITEMS_MAX)]).take(pa.array(place.astype(np.int64)))
            return pa.MapArray.from_arrays(pa.array(offsets), keys, values, type=type_.arrow)

        return make

    # ---- plain values

    def choice(self, type_: Type, values: Sequence[Any], path: str) -> Values:
        if not values:
            raise SchemaError(f"{path}: headrace.values is empty")
        words, seed = pa.array(values, type_.arrow), self.seed(path)
        return lambda points: words.take(pa.array(_within(drawn(seed, points.at), 0, len(values) - 1)))

    def plain(self, type_: Type, name: str, path: str, said: Mapping[str, Any]) -> Values:
        kind, logical = type_.kind, type_.logical or ""
        if logical == "decimal":
            return self.decimal(type_, name, path, said)
        if logical == "uuid" or (kind == "string" and name in ("uuid", "guid")):
            seeds = self.seed(path, "high"), self.seed(path, "low")
            return lambda points: _uuids(*(drawn(seed, points.at) for seed in seeds))
        if logical == "duration":
            parts = list(zip(type_.arrow, (12, 28, DAY_MS - 1), strict=True))
            return lambda points: pa.StructArray.from_arrays(
                [pa.array(_within(drawn(self.seed(path, f.name), points.at), 0, high), f.type) for f, high in parts],
                fields=[f for f, _ in parts])
        if kind in ("bytes", "fixed"):
            return self.bytes(type_, path)
        if kind == "boolean":
            seed = self.seed(path)
            return lambda points: pa.array(drawn(seed, points.at) & np.uint64(1) == 1)
        if kind == "enum":
            return self.choice(type_, type_.symbols, path)
        if kind == "null":
            return lambda points: pa.nulls(len(points))
        if kind == "string":
            return self.text(type_, name, path, said)
        if kind in ("float", "double"):
            return self.real(type_, name, path, said)
        return self.whole(type_, name, path, said)

    def text(self, type_: Type, name: str, path: str, said: Mapping[str, Any]) -> Values:
        if said.get("headrace.grows"):
            return lambda points: pc.binary_join_element_wise(
                f"{name.removesuffix('_id')}-", pa.array(points.at + np.uint64(1)).cast(pa.string()), "")
        word = _last_word(name)
        words = WORDS.get(name) or WORDS.get(word) or [f"{word}-{n}" for n in range(WORDS_MAX)]
        return self.choice(type_, words, path)

    def real(self, type_: Type, name: str, path: str, said: Mapping[str, Any]) -> Values:
        low, high, digits = _usual(name, 0.0, 1.0, 6)
        low, high = self.bounds(type_, said, path, low, high)
        seed = self.seed(path)
        return lambda points: pa.array(np.round(low + _share(drawn(seed, points.at)) * (high - low), digits or 6),
                                       type_.arrow)

    def whole(self, type_: Type, name: str, path: str, said: Mapping[str, Any]) -> Values:
        """Integers, and what is stored as one: dates, times."""
        logical, seed = type_.logical or "", self.seed(path)
        arrow = pa.int32() if type_.kind == "int" else pa.int64()
        most = 2 ** (31 if type_.kind == "int" else 63) - 1
        if said.get("headrace.grows"):
            low, high = self.bounds(type_, said, path, 1, most)
            span = np.uint64(high - low + 1)
            return lambda points: pa.array((points.at % span).astype(np.int64) + low).cast(arrow).cast(type_.arrow)
        if "timestamp" in logical or (type_.kind == "long" and not logical and TIMES.fullmatch(_last_word(name))):
            per_ms = {"micros": 1000, "nanos": 1_000_000}.get(logical.rpartition("-")[2], 1)
            return self.time(type_, path, said, per_ms)
        if logical == "date":
            first = self.start_ms // DAY_MS
            low, high = self.bounds(type_, said, path, first - 365, first)
        elif logical.startswith("time-"):
            low, high = self.bounds(type_, said, path, 0, (DAY_MS if type_.kind == "int" else DAY_MS * 1000) - 1)
        else:
            usual = _usual(name, 0, 999, 0)
            low, high = self.bounds(type_, said, path, int(usual[0]), int(usual[1]))
        return lambda points: pa.array(_within(drawn(seed, points.at), low, high)).cast(arrow).cast(type_.arrow)

    def time(self, type_: Type, path: str, said: Mapping[str, Any], per_ms: int) -> Values:
        """From the start, a step a record and a part of one; or anywhere in the range."""
        seed, step = self.seed(path), self.config.time_step_ms * per_ms
        low, high = self.bounds(type_, said, path, None, None)
        if low is not None:
            return lambda points: pa.array(_within(drawn(seed, points.at), low, high)).cast(type_.arrow)
        first = self.start_ms * per_ms
        return lambda points: pa.array(points.record.astype(np.int64) * step + first + _within(
            drawn(seed, points.at), 0, step - 1)).cast(type_.arrow)

    def decimal(self, type_: Type, name: str, path: str, said: Mapping[str, Any]) -> Values:
        low, high, _ = _usual(name, 0.0, 1000.0, 2)
        low, high = self.bounds(type_, said, path, low, high)
        most = 10 ** min(type_.precision, 18) - 1
        unscaled = [max(-most, min(most, round(v * 10**type_.scale))) for v in (low, high)]
        seed, words = self.seed(path), 2 if type_.precision <= 38 else 4

        def make(points: _Points) -> pa.Array:
            values = np.empty((len(points), words), np.int64)  # little-endian, two's complement
            values[:, 0] = _within(drawn(seed, points.at), *unscaled)
            values[:, 1:] = (values[:, 0] >> 63)[:, None]
            return pa.Array.from_buffers(type_.arrow, len(points), [None, pa.py_buffer(values)])

        return make

    def bytes(self, type_: Type, path: str) -> Values:
        size = type_.size if type_.kind == "fixed" else 16
        seeds = [self.seed(path, str(n)) for n in range(-(-size // 8))]

        def make(points: _Points) -> pa.Array:
            columns = [drawn(seed, points.at)[:, None] for seed in seeds]
            raw = np.hstack(columns).view(np.uint8)[:, :size] if columns else np.empty((len(points), 0), np.uint8)
            fixed = pa.Array.from_buffers(pa.binary(size), len(points), [None, pa.py_buffer(raw.tobytes())])
            return fixed.cast(type_.arrow)

        return make


def _properties(written: Any) -> dict[str, Any]:
    return {k: v for k, v in written.items() if k.startswith("headrace.")} if isinstance(written, dict) else {}


def _last_word(name: str) -> str:
    """of “unitPrice” and “unit_price” it is “price”."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().rpartition("_")[2]


def _usual(name: str, low: float, high: float, digits: int) -> tuple[float, float, int]:
    word = _last_word(name)
    return next(((a, b, d) for pattern, a, b, d in NUMBERS if re.fullmatch(pattern, word)), (low, high, digits))


_HEX = np.frombuffer("".join(f"{n:02x}" for n in range(256)).encode(), np.uint8).reshape(256, 2)
_DIGITS = np.array([at for at in range(36) if at not in (8, 13, 18, 23)])


def _uuids(high: U64, low: U64) -> pa.Array:
    """Version 4, as text."""
    raw = np.stack([high, low], axis=1).view(np.uint8)
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    text = np.full((len(raw), 36), ord("-"), np.uint8)
    text[:, _DIGITS] = _HEX[raw].reshape(len(raw), 32)
    offsets = np.arange(len(raw) + 1, dtype=np.int32) * 36
    return pa.StringArray.from_buffers(len(raw), pa.py_buffer(offsets), pa.py_buffer(text))
