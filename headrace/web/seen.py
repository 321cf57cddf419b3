"""Idempotency keys of a webhook, remembered for a while as positions of the source: committed with the records.

Time is cut into SLOTS stretches of the window, one source partition each; a stretch that comes round again is begun
anew. So a transaction writes the keys of the present stretch only, and `window_s` is a promise, not a hope.
"""

from __future__ import annotations

import hashlib
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any

SLOTS = 60
SLOT_KEYS_MAX = 20_000
"""Their record must fit into a Kafka message: about 30 bytes each."""
KEY_BYTES, BODY_BYTES = 12, 6


def digest(raw: bytes, size: int) -> str:
    return urlsafe_b64encode(hashlib.sha256(raw).digest()[:size]).decode()


class Seen:
    """Keys by the stretch of time they came in. `name` tells this listener's partitions from another's."""

    def __init__(self, name: str, window_s: float, stored: Callable[[Mapping[str, Any]], Mapping[str, Any] | None],
                 clock: Callable[[], float] = time.time) -> None:
        self.name, self.clock, self.length_s = name, clock, window_s / SLOTS
        self.slots: dict[int, dict[str, str]] = {}
        for at in range(SLOTS + 1):  # one more than the window has: the present one is not whole
            position = stored(self.partition(at))
            if position is not None and position["length_s"] == self.length_s:
                self.slots[position["stretch"]] = dict(position["keys"])
        self._forget()

    def partition(self, slot: int) -> dict[str, Any]:
        return {"listen": self.name, "slot": slot}

    def _now(self) -> int:
        return int(self.clock() / self.length_s)

    def _forget(self) -> None:
        oldest = self._now() - SLOTS
        self.slots = {stretch: keys for stretch, keys in self.slots.items() if stretch >= oldest}

    def body_of(self, key: str) -> str | None:
        """The digest of the body that came with a key; None for a key that is new."""
        return next((keys[key] for keys in self.slots.values() if key in keys), None)

    def full_for_s(self) -> float:
        """How long no key can be taken: 0 mostly."""
        now = self._now()
        if len(self.slots.get(now, ())) < SLOT_KEYS_MAX:
            return 0.0
        return (now + 1) * self.length_s - self.clock()

    def add(self, keys: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(partition, position) to commit with the records of requests with these keys."""
        now = self._now()
        if now not in self.slots:
            self._forget()
        present = self.slots.setdefault(now, {})
        present.update(keys)
        return self.partition(now % (SLOTS + 1)), {"stretch": now, "length_s": self.length_s, "keys": dict(present)}
