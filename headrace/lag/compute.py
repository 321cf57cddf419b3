"""What lag is, and where it is going: pure functions of offsets, timestamps and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.processor import Partition

LEVEL_SHARE = 0.01  # a change of the lag below this share of it, over the samples, is no trend


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """One partition, as one group stands in it. Offsets are the next ones to be read or written.

    `end` is what a read_committed reader can reach (the last stable offset); `open` is what lies beyond it, in open
    transactions. `committed` is None when the group has no offset here. `lag_s` is the age in seconds of the oldest
    record not read, by that record's own timestamp: 0.0 when there is none, None when it is not known.
    `markers` is what of the lag is surely no record (transaction markers, aborted and compacted records).
    """

    start: int | None
    end: int | None
    committed: int | None
    open: int = 0
    lag_s: float | None = None
    markers: int = 0

    @property
    def position(self) -> int | None:
        """Where the group reads on: retention may have deleted what it committed."""
        return None if self.committed is None or self.start is None else max(self.committed, self.start)

    @property
    def lag(self) -> int | None:
        """Records from there to the end; None when the group has committed nothing, or the partition has no leader."""
        return None if self.end is None or self.position is None else max(0, self.end - self.position)


@dataclass(frozen=True, slots=True)
class GroupLag:
    """A group at one moment. `state` is Kafka's: stable, empty, preparing_rebalancing, completing_rebalancing, dead."""

    group: str
    state: str
    partitions: Mapping[Partition, PartitionLag] = field(default_factory=dict)

    @property
    def lag(self) -> int:
        """Records, over all partitions where it is known."""
        return sum(p.lag or 0 for p in self.partitions.values())

    @property
    def lag_s(self) -> float | None:
        """The age of the oldest record not read; None when some partition's is not known and none is."""
        known = [p.lag_s for p in self.partitions.values() if p.lag_s is not None]
        return max(known) if known else None if self.lag else 0.0


def age_s(now_ms: int, timestamp_ms: int) -> float | None:
    """Seconds since a record's timestamp, never below 0; None for a record without one."""
    return None if timestamp_ms <= 0 else max(0.0, (now_ms - timestamp_ms) / 1e3)


@dataclass(frozen=True, slots=True)
class Trend:
    """Where a group's lag is going. Rates in records/s; `eta_s` is when it will be 0 at these rates, None for never."""

    direction: str  # growing | shrinking | level
    read_rate: float
    write_rate: float
    eta_s: float | None


def trend(samples: Sequence[tuple[float, GroupLag]]) -> Trend | None:
    """From (seconds, group) samples, oldest first, of one group; None before there are two at different times.

    Only partitions in both the first and the last sample count, so that a new one is no jump.
    """
    if len(samples) < 2 or samples[-1][0] <= samples[0][0]:
        return None
    (begun, before), (now, after) = samples[0], samples[-1]
    seconds = now - begun
    read = written = was = left = 0
    for at, new in after.partitions.items():
        old = before.partitions.get(at)
        if old is None or old.position is None or new.position is None or old.end is None or new.end is None:
            continue
        read += new.position - old.position
        written += new.end - old.end
        was += old.lag or 0
        left += new.lag or 0
    shrunk = was - left
    direction = "level" if abs(shrunk) <= LEVEL_SHARE * max(was, left) else "shrinking" if shrunk > 0 else "growing"
    eta_s = 0.0 if left == 0 else left * seconds / shrunk if direction == "shrinking" else None
    return Trend(direction, max(0, read) / seconds, max(0, written) / seconds, eta_s)


def as_json(groups: Mapping[str, GroupLag], trends: Mapping[str, Trend | None] | None = None) -> dict[str, Any]:
    """The document `headrace lag --json` prints."""
    out: dict[str, Any] = {}
    for name, group in groups.items():
        topics: dict[str, dict[str, Any]] = {}
        for (topic, partition), p in sorted(group.partitions.items()):
            topics.setdefault(topic, {})[str(partition)] = {
                "committed": p.committed, "end": p.end, "start": p.start, "lag": p.lag, "lag_s": p.lag_s,
                "open": p.open, "markers": p.markers}
        out[name] = {"lag": group.lag, "lag_s": group.lag_s, "state": group.state, "topics": topics}
        moving = (trends or {}).get(name)
        if moving is not None:
            out[name] |= {"trend": moving.direction, "eta_s": moving.eta_s, "read_per_s": moving.read_rate,
                          "written_per_s": moving.write_rate}
    return {"groups": out}
