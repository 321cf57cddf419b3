"""Small state by source partition. It rides in the metadata of the committed offset, so it is exactly as old as the
offset beside it: a crash neither forgets nor repeats.

The metadata is one JSON text: `{"n": nonce of the batch's transaction, "s": {step: {…}}}`, at most 4,095 characters
(the broker's default bound), never with a NUL.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from copy import deepcopy
from typing import Any

from headrace.errors import UserError
from headrace.processor import Partition, SmallState

METADATA_CHARS_MAX = 4095


def read_metadata(text: str | None) -> tuple[str | None, dict[str, Any]]:
    """(nonce, state by step) of a committed offset's metadata; foreign or empty metadata is no state."""
    try:
        value = json.loads(text or "{}")
        return value.get("n"), dict(value.get("s", {}))
    except (ValueError, AttributeError, TypeError):
        return None, {}


class StateStore:
    """Three layers: committed; sealed, with a transaction under way; and what the batch in hand has changed."""

    def __init__(self) -> None:
        self._committed: dict[Partition, dict[str, Any]] = {}
        self._sealed: dict[Partition, dict[str, Any]] = {}
        self._overlay: dict[Partition, dict[str, Any]] = {}

    def restore(self, partition: Partition, by_step: dict[str, Any]) -> None:
        """What a partition's committed metadata held, on assignment."""
        self.forget([partition])
        self._committed[partition] = by_step

    def forget(self, partitions: Collection[Partition]) -> None:
        """These partitions are another worker's now."""
        for partition in partitions:
            for layer in (self._committed, self._sealed, self._overlay):
                layer.pop(partition, None)

    def _below(self, partition: Partition) -> dict[str, Any]:
        return self._sealed.get(partition, self._committed.get(partition, {}))

    def of(self, partition: Partition, step: str) -> SmallState:
        """A step's state for one partition, to read and change; it counts once its batch is committed."""
        mine = self._overlay.get(partition)
        if mine is None:
            mine = self._overlay[partition] = deepcopy(self._below(partition))
        state: SmallState = mine.setdefault(step, {})
        return state

    def changed(self) -> bool:
        """Whether the batch in hand changed anything."""
        return any(mine != self._below(partition) and any(mine.values()) for partition, mine in self._overlay.items())

    def metadata(self, partition: Partition, nonce: str) -> str:
        """The text to commit with this partition's offset. Raises UserError when it is over the bound."""
        by_step = self._overlay.get(partition, self._below(partition))
        held = {step: state for step, state in by_step.items() if state}
        text = json.dumps({"n": nonce, "s": held} if held else {"n": nonce}, separators=(",", ":"))
        if len(text) > METADATA_CHARS_MAX:
            sizes = ", ".join(f"{step} {len(json.dumps(state))}" for step, state in held.items())
            raise UserError(f"the small state of {partition[0]}/{partition[1]} takes {len(text)} characters, "
                            f"{METADATA_CHARS_MAX} fit in an offset's metadata ({sizes})",
                            hint="fewer or wider windows, or a trigger in a flow of its own")
        return text

    def seal(self) -> None:
        """The batch in hand goes to its transaction (the last one is decided); a next one may be processed over it."""
        assert not self._sealed, "two transactions under way"
        self._sealed, self._overlay = self._overlay, {}

    def commit(self) -> None:
        """The sealed transaction is committed: what it changed now counts."""
        self._committed.update(self._sealed)
        self._sealed = {}

    def mark(self) -> dict[Partition, dict[str, Any]]:
        """What the batch in hand has changed so far, for `back`."""
        return deepcopy(self._overlay)

    def back(self, mark: dict[Partition, dict[str, Any]]) -> None:
        self._overlay = mark

    def undo(self) -> None:
        """The batch in hand is thrown away; what is sealed stands."""
        self._overlay = {}

    def drop(self) -> None:
        """The sealed transaction is aborted, and with it the batch in hand: as the committed offsets have it."""
        self._sealed, self._overlay = {}, {}
