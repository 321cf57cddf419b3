"""A partial made of plain functions over a state that is plain data, and the ways a state becomes bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pyarrow as pa

from headrace.contracts.verdict import Verdict

S = TypeVar("S")


def never(state: Any) -> bool:
    return False


@dataclass(slots=True)
class Fold(Generic[S]):
    """A `Partial`. `judge` is the verdict on one batch without the detour over bytes."""

    measure: Callable[[pa.RecordBatch], S]
    """Rows → state."""
    join: Callable[[S, S], S]
    say: Callable[[S], Verdict]
    dump: Callable[[S], bytes] = field(default=lambda state: json.dumps(state).encode())
    load: Callable[[bytes], S] = field(default=lambda data: json.loads(data))
    estimate: bool = False
    rough: Callable[[S], bool] = never

    def of(self, rows: pa.RecordBatch) -> bytes:
        return self.dump(self.measure(rows))

    def merge(self, left: bytes, right: bytes) -> bytes:
        return self.dump(self.join(self.load(left), self.load(right)))

    def verdict(self, state: bytes) -> Verdict:
        return self.say(self.load(state))

    def judge(self, rows: pa.RecordBatch) -> Verdict:
        return self.say(self.measure(rows))

    def estimated(self, state: bytes) -> bool:
        """Whether the verdict on this very state is an estimate."""
        return self.rough(self.load(state))


def pack(facts: Any, blobs: Sequence[bytes]) -> bytes:
    """Facts (JSON) and binary parts in one. The same input gives the same bytes."""
    head = json.dumps([facts, [len(b) for b in blobs]]).encode()
    return b"".join([len(head).to_bytes(4, "big"), head, *blobs])


def unpack(data: bytes) -> tuple[Any, list[bytes]]:
    """What was packed."""
    at = 4 + int.from_bytes(data[:4], "big")
    facts, lengths = json.loads(data[4:at])
    blobs = []
    for length in lengths:
        blobs.append(data[at:at + length])
        at += length
    return facts, blobs
