"""What a group's steps remember, read from its changelog: for people, while workers run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from headrace.errors import UserError
from headrace.peek import NoTopic, scan
from headrace.settings import Settings
from headrace.state.changelog import topic_of


class Entry(NamedTuple):
    """One that is there. `step` is the step's name, with “/part” where a step keeps several kinds of things."""

    partition: int
    step: str
    key: bytes
    size_bytes: int
    """Of key and value."""
    expires: int
    """When it is removed, as the step counts time (mostly milliseconds of event time); 0 is never."""

    def named(self, step: str) -> bool:
        return self.step.partition("/")[0] == step


class Size(NamedTuple):
    entries: int
    size_bytes: int


def entries(settings: Settings, group: str) -> Iterator[Entry]:
    """The last committed entry of each key, in the order of partitions and keys. Reads the whole changelog, and keeps
    its keys in memory. Raises UserError when there is none, BrokerError."""
    last: dict[tuple[int, bytes], tuple[int, int]] = {}
    try:
        for messages in scan(settings, topic_of(group)):
            for message in messages:
                at, value = (int(message.partition() or 0), bytes(message.key() or b"")), message.value()
                if value is None:
                    last.pop(at, None)
                else:
                    last[at] = len(at[1]) + len(value), int.from_bytes(value[:8], "big")
    except NoTopic as error:
        raise UserError(f"the group {group} has no state: there is no topic {topic_of(group)}",
                        hint="did the flow run yet? with another --group?") from error
    for (partition, whole), (size, expires) in sorted(last.items()):
        step, _, key = whole.partition(b"\0")
        yield Entry(partition, step.decode(), key[1:], size, expires)


def sizes(found: Iterator[Entry]) -> Mapping[tuple[str, int], Size]:
    """(step, partition) → how much."""
    out: dict[tuple[str, int], Size] = {}
    for entry in found:
        before = out.get((entry.step, entry.partition), Size(0, 0))
        out[entry.step, entry.partition] = Size(before.entries + 1, before.size_bytes + entry.size_bytes)
    return dict(sorted(out.items()))
