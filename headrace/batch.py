"""Records in bulk: `Frames` as they were polled, `Batch` as Arrow rows with the positions they came from.

Nothing here walks records one by one in Python: columns are built by `map` over C methods, on first use, and kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import compress, repeat
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Header = tuple[str, bytes | None]
Headers = list[Header]
Index = np.ndarray[Any, np.dtype[np.int64]]

SOURCE_HEADER = "headrace.src"
"""Where an output record came from: big-endian int32 partition, int64 offset, then the topic in UTF-8."""
SPAN_HEADER = "headrace.span"
"""Where a record made of many came from: big-endian int32 partition, int64 first, int64 last offset, then the topic."""
TAGS_HEADER = "headrace.tags"
"""What was remarked on a record that went on: ids of expectations it breaks, joined by commas, in UTF-8."""


class Message(Protocol):
    """What we use of `confluent_kafka.Message`; `headrace.testing.Record` has the same methods."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> Any: ...
    def value(self) -> Any: ...
    def timestamp(self) -> tuple[int, int]: ...
    def headers(self) -> Any: ...


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Offsets first … last of one partition, both inclusive."""

    topic: str
    partition: int
    offset_first: int
    offset_last: int

    def __str__(self) -> str:
        if self.offset_first == self.offset_last:
            return f"{self.topic}/{self.partition}@{self.offset_first}"
        return f"{self.topic}/{self.partition}@{self.offset_first}-{self.offset_last}"

    def header(self) -> Header:
        """The lineage header a record made of this span carries."""
        return SPAN_HEADER, (self.partition.to_bytes(4, "big", signed=True) + self.offset_first.to_bytes(8, "big")
                             + self.offset_last.to_bytes(8, "big") + self.topic.encode())


def read_lineage(headers: Iterable[Header] | None) -> Span | None:
    """The span a record's headers say it came from, or None for an origin."""
    for name, value in headers or ():
        if value is None:
            continue
        if name == SOURCE_HEADER and len(value) > 12:
            at = int.from_bytes(value[4:12], "big")
            return Span(value[12:].decode(), int.from_bytes(value[:4], "big", signed=True), at, at)
        if name == SPAN_HEADER and len(value) > 20:
            return Span(value[20:].decode(), int.from_bytes(value[:4], "big", signed=True),
                        int.from_bytes(value[4:12], "big"), int.from_bytes(value[12:20], "big"))
    return None


class Frames:
    """Raw records as polled. Every column is a list or array as long as the frames, built when first asked for.

    `topic` names the one topic they are all of; left out, each record is asked for its own.
    """

    def __init__(self, messages: Sequence[Message], topic: str | None = None) -> None:
        self.messages = messages
        self.topic = topic

    def __len__(self) -> int:
        return len(self.messages)

    def _each(self, method: str) -> Iterator[Any]:
        """One method of every message: the method itself is looked up once, which is a third of the calls' cost."""
        if not self.messages:
            return iter(())
        return map(getattr(type(self.messages[0]), method), self.messages)

    @cached_property
    def values(self) -> list[bytes | None]:
        return list(self._each("value"))

    @cached_property
    def keys(self) -> list[bytes | None]:
        return list(self._each("key"))

    @cached_property
    def topics(self) -> list[str]:
        return [self.topic] * len(self) if self.topic else list(self._each("topic"))

    @cached_property
    def partitions(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        return np.fromiter(self._each("partition"), dtype=np.int32, count=len(self))

    @cached_property
    def offsets(self) -> Index:
        return np.fromiter(self._each("offset"), dtype=np.int64, count=len(self))

    @cached_property
    def timestamps_ms(self) -> list[int]:
        """Of the source record, milliseconds since 1970; 0 where it has none."""
        return list(map(itemgetter(1), self._each("timestamp")))

    @cached_property
    def source_headers(self) -> list[Headers | None]:
        """As they came."""
        return list(self._each("headers"))

    @cached_property
    def out_headers(self) -> list[Headers]:
        """What an output made of each record carries: its own headers, and the position it came from."""
        n = len(self)
        position = np.zeros(n, dtype=[("partition", ">i4"), ("offset", ">i8")])
        position["partition"], position["offset"] = self.partitions, self.offsets
        topics = {self.topic} if self.topic else set(self.topics)
        if len(topics) == 1:
            raw = str(topics.pop()).encode()
            wide = np.zeros(n, dtype=[("at", "V12"), ("topic", f"V{len(raw)}")])
            wide["at"], wide["topic"] = position.view("V12"), np.void(raw)
            places = wide.view(f"V{12 + len(raw)}").tolist()
        else:
            places = list(map(bytes.__add__, position.view("V12").tolist(), map(str.encode, self.topics)))
        own = self.source_headers
        if not any(own):
            return list(map(list, zip(zip(repeat(SOURCE_HEADER), places))))
        return [[*(h for h in (headers or ()) if h[0] not in (SOURCE_HEADER, SPAN_HEADER)), (SOURCE_HEADER, place)]
                for headers, place in zip(own, places, strict=False)]

    def spans(self) -> list[Span]:
        """One span a partition: the first and last offset seen."""
        out: list[Span] = []
        names = {self.topic} if self.topic else set(self.topics)
        topics = np.array(self.topics, dtype=object) if len(names) > 1 else None
        for name in sorted(map(str, names)):
            mine = slice(None) if topics is None else topics == name
            partitions, offsets = self.partitions[mine], self.offsets[mine]
            for partition in np.unique(partitions).tolist():
                at = offsets[partitions == partition]
                out.append(Span(name, partition, int(at.min()), int(at.max())))
        return out


class Emitted(Frames):
    """Frames of records that were made here from many (events, aggregates): a span, a key and a time each."""

    def __init__(self, spans: Sequence[Span], keys: Sequence[bytes | None], timestamps_ms: Sequence[int]) -> None:
        super().__init__(())
        n = len(spans)
        self._n = n
        self.values = [None] * n
        self.keys = list(keys)
        self.topics = [s.topic for s in spans]
        self.partitions = np.array([s.partition for s in spans], dtype=np.int32)
        self.offsets = np.array([s.offset_last for s in spans], dtype=np.int64)
        self.timestamps_ms = list(timestamps_ms)
        self.source_headers = [None] * n
        self.out_headers = [[s.header()] for s in spans]

    def __len__(self) -> int:
        return self._n


class Gathered(Frames):
    """Frames put together from rows of other frames, one to one, so that they can leave as one batch."""

    def __init__(self, parts: Sequence[Meta]) -> None:
        super().__init__(())
        self.values = [v for part in parts for v in part.values()]
        self.keys = [k for part in parts for k in Meta.keys(part)]
        self.topics = [t for part in parts for t in part.topics()]
        self.partitions = np.concatenate([part.partitions() for part in parts])
        self.offsets = np.concatenate([part.offsets() for part in parts])
        self.timestamps_ms = [t for part in parts for t in part.timestamps_ms()]
        self.source_headers = [h for part in parts for h in part.source_headers()]
        self.out_headers = [h for part in parts for h in part.untagged_headers()]

    def __len__(self) -> int:
        return len(self.values)


@lru_cache(maxsize=4096)
def _tags(*said: bytes) -> bytes:
    """Tags of several steps as one header: each once, in the order they were given."""
    return b",".join(dict.fromkeys(tag for each in said for tag in each.split(b",") if tag))


def _tagged(headers: Headers, tags: bytes) -> Headers:
    """A record's headers with tags besides those it came with."""
    before = [value for name, value in headers if name == TAGS_HEADER and value]
    return [*(h for h in headers if h[0] != TAGS_HEADER), (TAGS_HEADER, _tags(*before, tags))]


def _chosen(column: Sequence[Any], index: Index) -> Iterator[Any]:
    """The chosen cells, in the order of `index`. Where that rises and has most of the column, a mask is quicker."""
    if 4 * len(index) < len(column) or not (index[1:] > index[:-1]).all():
        return map(column.__getitem__, index.tolist())
    mask = np.zeros(len(column), dtype=np.bool_)
    mask[index] = True
    return compress(column, mask.tobytes())


def _pick(column: list[Any], index: Index | None) -> list[Any]:
    return column if index is None else list(_chosen(column, index))


class Picked(Sequence[Any]):
    """Chosen cells of a column, fetched as they are gone through: a list of them would touch every object twice more,
    once to be made and once to be dropped, and that is what a record costs most."""

    __slots__ = ("_column", "_index")

    def __init__(self, column: Sequence[Any], index: Index) -> None:
        self._column, self._index = column, index

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[Any]:
        return _chosen(self._column, self._index)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return Picked(self._column, self._index[at])
        return self._column[self._index[at]]

    def __eq__(self, other: object) -> bool:
        return list(self) == (list(other) if isinstance(other, Picked) else other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Meta:
    """Where each row came from: a selection (`index`, None for all) of the frames polled; and what was remarked on it
    on its way here (`tags`: a string a row, or null; None for no tags at all)."""

    frames: Frames
    index: Index | None = None
    tags: pa.StringArray | None = None

    def __len__(self) -> int:
        return len(self.frames) if self.index is None else len(self.index)

    def take(self, index: Index) -> Meta:
        tags = None if self.tags is None else self.tags.take(pa.array(index))
        return Meta(self.frames, index if self.index is None else self.index[index], tags)

    def tagged(self, tags: pa.StringArray) -> Meta:
        """With these tags behind those there are."""
        if self.tags is not None:
            tags = pc.coalesce(pc.binary_join_element_wise(self.tags, tags, ","), self.tags, tags)
        return Meta(self.frames, self.index, tags)

    def values(self) -> list[bytes | None]:
        """The source payloads, byte for byte."""
        return _pick(self.frames.values, self.index)

    def keys(self) -> list[bytes | None]:
        return _pick(self.frames.keys, self.index)

    def timestamps_ms(self) -> list[int]:
        return _pick(self.frames.timestamps_ms, self.index)

    def headers(self) -> list[Headers]:
        """What the outputs carry: the record's own headers, its lineage and its tags."""
        headers = self.untagged_headers()
        if self.tags is None:
            return headers
        headers = list(headers)
        at = np.flatnonzero(self.tags.is_valid().to_numpy(zero_copy_only=False))
        for i, tags in zip(at.tolist(), self.tags.drop_null().cast(pa.binary()).to_pylist(), strict=True):
            headers[i] = _tagged(headers[i], tags)
        return headers

    def untagged_headers(self) -> list[Headers]:
        """What an output carries that is the record as it came: its own headers and its lineage."""
        return _pick(self.frames.out_headers, self.index)

    def outgoing(self, topic: str, values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None,
                 headers: Sequence[Headers] | None = None) -> Outgoing:
        """These payloads under the keys, timestamps and headers of what they came from, where no others are given."""
        frames = self.frames
        if headers is None:
            headers = self._lazily(frames.out_headers) if self.tags is None else self.headers()
        return Outgoing(topic, values, self._lazily(frames.keys) if keys is None else keys,
                        self._lazily(frames.timestamps_ms), headers)

    def as_it_came(self, topic: str, headers: Sequence[Headers]) -> Outgoing:
        """The source payloads, keys and timestamps, byte for byte, with these headers."""
        return self.outgoing(topic, self._lazily(self.frames.values), headers=headers)

    def payloads(self) -> Sequence[bytes | None]:
        """As `values`, fetched as they are gone through."""
        return self._lazily(self.frames.values)

    def _lazily(self, column: list[Any]) -> Sequence[Any]:
        return column if self.index is None else Picked(column, self.index)

    def source_headers(self) -> list[Headers | None]:
        return _pick(self.frames.source_headers, self.index)

    def topics(self) -> list[str]:
        return _pick(self.frames.topics, self.index)

    def partitions(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        return self.frames.partitions if self.index is None else self.frames.partitions[self.index]

    def offsets(self) -> Index:
        return self.frames.offsets if self.index is None else self.frames.offsets[self.index]


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrow rows and the positions they came from, one to one. Immutable: every method gives a new one.

    `reasons` stands on the batches of a `failure` relationship: a `list<string>` a row, each `"<id>: <what is wrong>"`.
    """

    rows: pa.RecordBatch
    meta: Meta
    reasons: pa.Array | None = None

    def __post_init__(self) -> None:
        assert self.rows.num_rows == len(self.meta), "a row without a position, or a position without a row"

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def take(self, mask: pa.BooleanArray) -> Batch:
        """The rows where `mask` is true (null counts as false), in order."""
        index = np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))
        if len(index) == len(self):
            return self
        return Batch(self.rows.filter(mask), self.meta.take(index),
                     None if self.reasons is None else self.reasons.filter(mask))

    def with_rows(self, rows: pa.RecordBatch) -> Batch:
        """The same positions with other columns."""
        return Batch(rows, self.meta, self.reasons)

    def with_reasons(self, reasons: pa.Array) -> Batch:
        return Batch(self.rows, self.meta, reasons)

    def with_tags(self, tags: pa.StringArray) -> Batch:
        """The same rows with tags behind those they have: a string a row, ids joined by commas; null for none. What is
        made of a row carries them in the header `headrace.tags`; a quarantine writes it as it came, without them."""
        return Batch(self.rows, self.meta.tagged(tags), self.reasons)


def gather(batches: Sequence[Batch]) -> Batch:
    """Batches of equal columns, of any frames, as one, in the order given."""
    if len(batches) == 1:
        return batches[0]
    rows = pa.Table.from_batches([batch.rows for batch in batches]).combine_chunks().to_batches()
    schema, metas = batches[0].rows.schema, [batch.meta for batch in batches]
    tags = [pa.nulls(len(meta), pa.string()) if meta.tags is None else meta.tags for meta in metas]
    return Batch(rows[0] if rows else pa.RecordBatch.from_pylist([], schema=schema), Meta(
        Gathered(metas), tags=pa.concat_arrays(tags) if any(meta.tags is not None for meta in metas) else None))


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Encoded records for one topic, column by column, ready for the producer."""

    topic: str
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
    headers: Sequence[Headers]
    partition: int = -1
    """Where they must go; -1 leaves it to the keys."""

    def __len__(self) -> int:
        return len(self.values)

    def __post_init__(self) -> None:
        n = len(self.values)
        assert n == len(self.keys) == len(self.timestamps_ms) == len(self.headers), "columns of unequal length"


@dataclass(frozen=True, slots=True)
class Rejects:
    """Source records that cannot go on, whole: the payload did not decode, or the result cannot be sent. `dead`: they
    belong to the dead letters, not in the quarantine."""

    meta: Meta
    reasons: Sequence[Sequence[str]]
    step: str
    dead: bool = False
