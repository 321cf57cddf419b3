"""A worker's whole state: small and keyed together, sealed, committed and dropped as one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from headrace.processor import Partition
from headrace.state.bottom import Bottom
from headrace.state.keyed import KeyedState, View
from headrace.state.small import StateStore


class State:
    """`small` rides with the offsets, `keyed` in its changelog; both are as old as the committed offsets."""

    def __init__(self, bytes_max: int) -> None:
        self.small = StateStore()
        self.keyed = KeyedState(bytes_max)

    def assign(self, small: Mapping[Partition, dict[str, Any]], keyed: Mapping[int, Bottom]) -> None:
        """What the partitions that are ours now have committed."""
        for partition, by_step in small.items():
            self.small.restore(partition, by_step)
        for number, bottom in keyed.items():
            self.keyed.assign(number, bottom)

    def forget(self, partitions: Collection[Partition]) -> None:
        self.small.forget(partitions)
        self.keyed.forget({number for _, number in partitions})

    def view(self, step: str, partition: Partition) -> View:
        return self.keyed.view(partition[1], step)

    def changed(self) -> bool:
        """Whether the batch in hand changed anything."""
        return self.small.changed() or self.keyed.changed()

    def seal(self) -> None:
        self.small.seal()
        self.keyed.seal()

    def commit(self, delivered: Mapping[tuple[str, int], int]) -> None:
        """`delivered` is the last known offset in each partition of the changelog."""
        self.small.commit()
        self.keyed.commit({number: offset + 1 for (_, number), offset in delivered.items()})

    def mark(self) -> Any:
        """What the batch in hand has changed so far, for `back`."""
        return self.small.mark(), self.keyed.mark()

    def back(self, mark: Any) -> None:
        """Whatever the batch in hand changed since `mark` was never there."""
        small, keyed = mark
        self.small.back(small)
        self.keyed.back(keyed)

    def undo(self) -> None:
        self.small.undo()
        self.keyed.undo()

    def drop(self) -> None:
        self.small.drop()
        self.keyed.drop()
