"""Records cut into requests: a JSON array, JSON lines, or one record each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from headrace.batch import Index
from headrace.errors import UserError
from headrace.files.jsontext import texts
from headrace.files.places import Place, origin
from headrace.records import Column, Records

Body = Literal["array", "lines", "record", "text"]
CONTENT: Mapping[Body, str] = {"array": "application/json", "lines": "application/x-ndjson",
                               "record": "application/json", "text": "text/plain; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class Cells:
    """Records of one partition, each as the bytes it has in a body, in the order of their offsets."""

    topic: str
    """As a transform may have changed it: what `${topic}` is in a URL."""
    place: Place
    values: Sequence[bytes]
    keys: Sequence[str] | None
    index: Index
    offsets: Index

    def __len__(self) -> int:
        return len(self.values)

    def part(self, first: int, last: int) -> Cells:
        return Cells(self.topic, self.place, self.values[first:last],
                     None if self.keys is None else self.keys[first:last], self.index[first:last],
                     self.offsets[first:last])

    def halves(self) -> tuple[Cells, Cells]:
        middle = len(self) // 2
        return self.part(0, middle), self.part(middle, len(self))

    def body(self, kind: Body) -> bytes:
        if kind == "array":
            return b"[" + b",".join(self.values) + b"]"
        return b"\n".join([*self.values, b""]) if kind == "lines" else self.values[0]

    def identity(self, connector: str) -> str:
        """The same for the same records, whoever sends them when."""
        return f"{connector}/{self.place[0]}/{self.place[1]}/{self.offsets[0]}-{self.offsets[-1]}"

    def url(self, template: str) -> str:
        made = template.replace("${topic}", quote(self.topic, safe=""))
        return made if self.keys is None else made.replace("${key}", quote(self.keys[0], safe=""))


def cells(records: Sequence[Records], ends: Mapping[Place, int], kind: Body, *, keyed: bool) -> list[Cells]:
    """Every partition's records. Raises UserError where it cannot be told which topic they are of."""
    found: dict[tuple[str, Place], list[Cells]] = {}
    for each in records:
        topic = origin(each, ends)
        if topic is None or each.partitions is None or each.offsets is None:
            raise UserError(f"which topic were the records of {each.topic} read from?",
                            hint="give each topic that is renamed by a transform a connector of its own")
        values, keys = _bytes(each, kind), _keys(each) if keyed else None
        for partition in np.unique(each.partitions).tolist():
            at = np.flatnonzero(each.partitions == partition)
            place = (topic, partition)
            found.setdefault((each.topic, place), []).append(Cells(
                each.topic, place, [values[i] for i in at], None if keys is None else [keys[i] for i in at],
                each.index[at], each.offsets[at]))
    return [_in_order(some) for some in found.values()]


def _in_order(some: Sequence[Cells]) -> Cells:
    """As one, by offset."""
    offsets = np.concatenate([each.offsets for each in some])
    order = np.argsort(offsets, kind="stable")
    values = [value for each in some for value in each.values]
    keys = None if some[0].keys is None else [key for each in some for key in each.keys or ()]
    index = np.concatenate([each.index for each in some])
    return Cells(some[0].topic, some[0].place, [values[i] for i in order],
                 None if keys is None else [keys[i] for i in order], index[order], offsets[order])


def _bytes(records: Records, kind: Body) -> list[bytes]:
    if kind == "text":
        return [value or b"" for value in _text(records.topic, records.value)]
    made: list[bytes] = texts(records.value.values).cast(pa.large_binary()).to_pylist()
    return made


def _keys(records: Records) -> list[str]:
    return [(key or b"").decode() for key in _text(records.topic, records.key)]


def _text(topic: str, column: Column) -> list[bytes | None]:
    from headrace.records.converters import converter_of

    return converter_of("string", {}, False, None).encode(topic, column)[0]


def requests(some: Cells, records_max: int, bytes_max: int) -> Iterator[Cells]:
    """Cut from the first on, so that the cuts are the same whenever it begins at the same offset."""
    first, size = 0, 0
    for at, value in enumerate(some.values):
        if at > first and (at - first == records_max or size + len(value) > bytes_max):
            yield some.part(first, at)
            first, size = at, 0
        size += len(value) + 1
    if first < len(some):
        yield some.part(first, len(some))
