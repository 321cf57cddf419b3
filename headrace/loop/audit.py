"""The audit log: entries that each carry the hash of the one before, so that what was changed later is seen.

    first = entry(GENESIS, 0, at_ms, "departures/policy", "trigger", "flight-delay", {"why": …}, source)
    verify([first, …])                  # [] or what is wrong, and from which entry on
    verify(entries, anchor=last_known)  # sees, too, that the end was cut off

The chain shows tampering by whoever does not rewrite all that follows. An anchor kept elsewhere (the last hash: in a
ticket, in git, on paper) shows that as well; without one, neither a cut tail nor a chain forged whole can be seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headrace.batch import Span

TOPIC = "headrace.audit"
AVSC = "schemas/control/audit.avsc"
GENESIS = "0" * 64
"""What the first entry has for the hash before it."""
HASHED = ("seq", "previous", "at", "actor", "action", "subject", "event", "topic", "partition", "offset")
"""The fields a hash is of: all but itself."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a chain at `seq`: changed | removed | inserted | reordered | unlinked | cut."""

    seq: int
    kind: str
    message: str


def entry(previous: str, seq: int, at_ms: int, actor: str, action: str, subject: str, event: Mapping[str, Any],
          source: Span) -> dict[str, Any]:
    """A record of schemas/control/audit.avsc. `seq` counts from 0, `previous` is the hash of seq - 1 (GENESIS at 0),
    `at_ms` is milliseconds since 1970, `source` is the record that caused it (its last offset counts).

    Raises ValueError or TypeError if `event` is no JSON: NaN and infinity are none.
    """
    made = {"seq": seq, "previous": previous, "at": datetime.fromtimestamp(at_ms / 1000, UTC), "actor": actor,
            "action": action, "subject": subject, "event": canonical(event), "topic": source.topic,
            "partition": source.partition, "offset": source.offset_last}
    return {"seq": seq, "hash": hash_of(made), **{k: v for k, v in made.items() if k != "seq"}}


def canonical(value: Any) -> str:
    """JSON in one form: keys sorted, no blanks, UTF-8 as it is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hash_of(record: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of the entry's canonical JSON without its own hash; times as whole milliseconds."""
    at = record["at"]
    plain = {name: record[name] for name in HASHED} | {
        "at": round(at.timestamp() * 1000) if isinstance(at, datetime) else at}
    return hashlib.sha256(canonical(plain).encode()).hexdigest()


def verify(entries: Sequence[Mapping[str, Any]], *, anchor: str | None = None, previous: str = GENESIS,
           first: int = 0) -> list[Flaw]:
    """What is wrong with a chain, in the order of its entries; [] when nothing is.

    A part of a chain is checked by saying what came before it: `first` is the number it begins with and `previous` the
    hash before that. `anchor` is a hash known to belong to it: if no entry has it, the end was cut or rewritten.
    """
    numbers = {record["seq"] for record in entries}
    flaws: list[Flaw] = []
    expected, linked = first, previous
    seen: set[int] = set()
    for record in entries:
        seq = record["seq"]
        flaws += _place(seq, expected, seen, numbers)
        if hash_of(record) != record["hash"]:
            flaws.append(Flaw(seq, "changed", "its content is not what its hash was made of"))
        if seq == expected and record["previous"] != linked:
            flaws.append(Flaw(seq, "unlinked", "the hash it names is not that of the entry before it: one of the two "
                              "was made or exchanged later"))
        if seq >= expected:
            expected, linked = seq + 1, record["hash"]
        seen.add(seq)
    if anchor is not None and anchor not in (previous, *(record["hash"] for record in entries)):
        flaws.append(Flaw(expected, "cut", f"no entry has the anchor's hash {anchor[:16]}…: the end was cut off or "
                          "rewritten"))
    return flaws


def _place(seq: int, expected: int, seen: set[int], numbers: set[int]) -> list[Flaw]:
    """What is wrong with an entry's number, where `expected` should come."""
    if seq in seen:
        return [Flaw(seq, "inserted", "there are two entries of this number")]
    if seq < expected:
        return [Flaw(seq, "reordered", f"it stands after {expected - 1}")]
    gone = sorted(set(range(expected, seq)) - numbers) if seq - expected <= len(numbers) else [expected, seq - 1]
    if not gone:
        return []  # the missing ones come later, and are told there
    return [Flaw(gone[0], "removed", f"{gone[0]} … {gone[-1]} are not there" if len(gone) > 1 else "it is not there")]
