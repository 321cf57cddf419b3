"""Keyed state: bytes by key for each step and source partition, in layers like the small state's.

    committed   the bottom (RocksDB), which changes only after a transaction is committed
    sealed      with the transaction under way
    overlay     what the batch in hand has changed

What a batch changes goes to a compacted changelog in the batch's own transaction, so that whoever gets the partition
next has exactly what the committed offsets imply. Partitions of equal number of a flow's sources share their state.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import merge
from itertools import repeat
from operator import itemgetter
from typing import Any

import numpy as np

from headrace.errors import UserError
from headrace.state.bottom import Bottom, successor

Changes = dict[bytes, bytes | None]
VALUE, INDEX = b"v", b"x"
NEVER = bytes(8)
_ABSENT: Any = object()


class Layers:
    """What is changed over a bottom, of one kind of entries. Keys here are whole: step, NUL, `v` or `x`, the step's."""

    def __init__(self, bottom: Bottom) -> None:
        self.bottom = bottom
        self.sealed: Changes = {}
        self.overlay: Changes = {}

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found = list(map(self.overlay.get, keys, repeat(_ABSENT)))
        for layer in (self.sealed.get, None):
            missing = [at for at, value in enumerate(found) if value is _ABSENT]
            if not missing:
                break
            asked = [keys[at] for at in missing]
            values = self.bottom.get(asked) if layer is None else list(map(layer, asked, repeat(_ABSENT)))
            for at, value in zip(missing, values, strict=True):
                found[at] = value
        return found

    def scan(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Entries in the order of their keys, as the overlay has them; a snapshot of the layers above the bottom."""
        above = {k: v for layer in (self.sealed, self.overlay) for k, v in layer.items()
                 if k >= start and (end is None or k < end)}
        below = self.bottom.scan(start, end)
        if not above:
            return below
        mine: list[tuple[bytes, bytes]] = sorted((k, v) for k, v in above.items() if v is not None)
        return merge(((k, v) for k, v in below if k not in above), mine, key=itemgetter(0))

    def seal(self) -> None:
        assert not self.sealed, "two transactions under way"
        self.sealed, self.overlay = self.overlay, {}

    def undo(self) -> None:
        self.overlay = {}

    def drop(self) -> None:
        self.sealed, self.overlay = {}, {}


class Partitioned:
    """The layers of one partition: the steps' values, and when they expire, which the changelog need not be told."""

    def __init__(self, bottom: Bottom) -> None:
        self.bottom = bottom
        self.values, self.index = Layers(bottom), Layers(bottom)
        self.stale: Changes = {}
        """Deletions that the changelog is still to be told: of what was there before the partition began anew."""
        self.telling = False

    def begin_anew(self) -> None:
        self.stale = {key: None for key, _ in self.bottom.scan(b"", None) if not _is_index(key)}
        self.bottom.clear()

    def apply(self, next_offset: int | None) -> None:
        """What is sealed is committed."""
        changes = {**self.values.sealed, **self.index.sealed}
        if changes:
            self.bottom.apply(changes, next_offset)
        self.values.sealed, self.index.sealed = {}, {}
        if self.telling:
            self.stale, self.telling = {}, False


class View:
    """What one step sees of one partition: get, put, delete, scan and expire, by its own keys.

    Keys and values are bytes. What is put counts once the batch is committed; after an abort it was never there.
    """

    def __init__(self, held: Partitioned, step: str) -> None:
        self._held, self._step = held, step
        self._values = step.encode() + b"\0" + VALUE
        self._index = step.encode() + b"\0" + INDEX

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, None where there is none. One call for many keys is much cheaper than many calls."""
        found = self._held.values.get(list(map(self._values.__add__, keys)))
        return [None if value is None else value[8:] for value in found]

    def put(self, keys: Sequence[bytes], values: Sequence[bytes], expire_ms: Sequence[int] | None = None) -> None:
        """Set every key. An entry with an `expire_ms` (above 0) is removed by `expire` once that time is reached."""
        if expire_ms is None:
            self._held.values.overlay.update(zip(map(self._values.__add__, keys), map(NEVER.__add__, values),
                                                 strict=True))
            return
        when: list[bytes] = np.array(expire_ms, ">u8").view("V8").tolist()
        self._held.values.overlay.update(zip(map(self._values.__add__, keys), map(bytes.__add__, when, values),
                                             strict=True))
        self._held.index.overlay.update(zip(map(bytes.__add__, map(self._index.__add__, when), keys), repeat(b"")))

    def delete(self, keys: Sequence[bytes]) -> None:
        self._held.values.overlay.update(zip(map(self._values.__add__, keys), repeat(None)))

    def scan(self, prefix: bytes = b"", start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) in the order of the keys: those that begin with `prefix`, from prefix + start up to, and
        without, prefix + end."""
        low = self._values + prefix
        high = successor(low) if end is None else low + end
        cut = len(self._values)
        for key, value in self._held.values.scan(low + start, high):
            yield key[cut:], value[8:]

    def part(self, name: str) -> View:
        """A view of the step's own, with keys and an order of expiry beside this one's."""
        return View(self._held, f"{self._step}/{name}")

    def expire(self, now_ms: int) -> int:
        """Remove what expires at or before `now_ms` (event time); how many entries that were."""
        return len(self.due(now_ms))

    def due(self, now_ms: int, since_ms: int = 0) -> list[tuple[bytes, bytes]]:
        """Remove what expires at or before `now_ms`, and give it: (key, value), the first to expire first.

        `since_ms` spares a walk over what was removed before: nothing may be left that expires earlier.
        """
        if now_ms < max(1, since_ms):
            return []
        cut = len(self._index)
        low, high = (self._index + at.to_bytes(8, "big") for at in (max(0, since_ms), now_ms + 1))
        indexed = [key for key, _ in self._held.index.scan(low, high)]
        if not indexed:
            return []
        mine = list(map(itemgetter(slice(cut + 8, None)), indexed))
        values = self._held.values.get(list(map(self._values.__add__, mine)))
        gone = [(key, value[8:]) for index, key, value in zip(indexed, mine, values, strict=True)
                if value is not None and value[:8] == index[cut:cut + 8]]  # else it was put again, to live longer
        self._held.index.overlay.update(zip(indexed, repeat(None)))
        self._held.values.overlay.update(zip(map(self._values.__add__, map(itemgetter(0), gone)), repeat(None)))
        return gone


class KeyedState:
    """The keyed state of all partitions a worker has, by partition number."""

    def __init__(self, bytes_max: int = 8 << 30) -> None:
        self.bytes_max = bytes_max
        self._held: dict[int, Partitioned] = {}

    def assign(self, partition: int, bottom: Bottom) -> None:
        self.forget([partition])
        self._held[partition] = Partitioned(bottom)

    def begin_anew(self, partitions: Collection[int]) -> None:
        """Drop all that these partitions hold, with the next transaction: their offsets were reset, or the topics made
        anew, and their state belongs to records that are not theirs any more."""
        for partition in partitions:
            self._held[partition].begin_anew()

    def forget(self, partitions: Collection[int]) -> None:
        """Another worker has these now."""
        for partition in partitions:
            gone = self._held.pop(partition, None)
            if gone is not None:
                gone.bottom.close()

    def view(self, partition: int, step: str) -> View:
        """A step's state of one partition. A partition that is not assigned has no state, and must not be asked for."""
        return View(self._held[partition], step)

    def partitions(self) -> list[int]:
        return sorted(self._held)

    def pending(self) -> dict[int, Changes]:
        """What the batch in hand changed, by partition, as the changelog takes it: values have their time in them."""
        found = {partition: {**held.stale, **held.values.overlay} if held.stale else held.values.overlay
                 for partition, held in self._held.items()}
        return {partition: changes for partition, changes in found.items() if changes}

    def changed(self) -> bool:
        return any(held.values.overlay or held.index.overlay for held in self._held.values())

    def _layers(self) -> Iterator[Layers]:
        for held in self._held.values():
            yield from (held.values, held.index)

    def seal(self) -> None:
        for held in self._held.values():
            held.values.seal()
            held.index.seal()
            held.telling = bool(held.stale)

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        """The sealed transaction is committed; `next_offsets` is where the changelog goes on, as far as is known."""
        for partition, held in self._held.items():
            held.apply(next_offsets.get(partition))

    def mark(self) -> list[Changes]:
        """What the batch in hand has changed so far, for `back`."""
        return [dict(layers.overlay) for layers in self._layers()]

    def back(self, mark: Sequence[Changes]) -> None:
        for layers, overlay in zip(self._layers(), mark, strict=True):
            layers.overlay = overlay

    def undo(self) -> None:
        for layers in self._layers():
            layers.undo()

    def drop(self) -> None:
        for layers in self._layers():
            layers.drop()

    def check(self) -> dict[int, int]:
        """Bytes held, about, by partition. Raises UserError for one that has outgrown its bound: nothing is lost."""
        sizes = {partition: held.bottom.size_bytes() for partition, held in self._held.items()}
        for partition, size in sizes.items():
            if size > self.bytes_max:
                raise UserError(f"the state of partition {partition} takes {size:,} bytes; its bound is "
                                f"{self.bytes_max:,}", hint="shorter windows, more partitions, or a wider `state: "
                                "{bytes_max: …}` in the flow")
        return sizes

    def close(self) -> None:
        self.forget(list(self._held))


def _is_index(key: bytes) -> bool:
    return key[key.index(b"\0") + 1:][:1] == INDEX


def with_index(key: bytes, value: bytes | None) -> Changes:
    """An entry of the changelog as changes of the bottom: the value, and its place in the index if it expires."""
    out: Changes = {key: value}
    if value is not None and value[:8] != NEVER:
        step = key[:key.index(b"\0") + 1]
        out[step + INDEX + value[:8] + key[len(step) + 1:]] = b""
    return out
