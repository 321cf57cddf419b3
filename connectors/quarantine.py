"""Quarantine: what a flow holds back, byte for byte as it came, with headers that say who held it, why, and where from.

    headrace.flow, headrace.step     who
    headrace.reasons                 JSON list of "<id>: <what is wrong>"
    headrace.source                  topic/partition@offset, for people
    headrace.src                     the same for machines (`headrace trace`, `headrace quarantine replay`)
    headrace.time                    when, ISO 8601 UTC, to the millisecond
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from headrace.batch import Batch, Headers, Meta, Outgoing, Rejects

FLOW, STEP, REASONS, SOURCE, TIME = ("headrace.flow", "headrace.step", "headrace.reasons", "headrace.source",
                                     "headrace.time")
OURS = frozenset({FLOW, STEP, REASONS, SOURCE, TIME})
_quoted = json.JSONEncoder(ensure_ascii=False).encode  # kept, and given one text at a time: quicker than json.dumps


def _reasons(texts: Sequence[str]) -> bytes:
    """As JSON. Not kept for the next time: what outlives its batch stands between the objects of the next."""
    return f"[{', '.join(map(_quoted, texts))}]".encode()


class QuarantineSink:
    """Writes failures and rejects to one topic."""

    def __init__(self, topic: str, flow: str, *, now_ms: Callable[[], int]) -> None:
        self.topic, self.flow, self.now_ms = topic, flow, now_ms

    def hold(self, batch: Batch, step: str) -> Outgoing:
        """A batch of a step's failure relationship."""
        reasons: Sequence[Sequence[str]] = (batch.reasons.to_pylist() if batch.reasons is not None
                                            else [["unmatched: no reason was given"]] * len(batch))
        return self._outgoing(batch.meta, reasons, step)

    def reject(self, rejects: Rejects) -> Outgoing:
        """Records that never became rows, or whose result could not be sent."""
        return self._outgoing(rejects.meta, rejects.reasons, rejects.step)

    def _outgoing(self, meta: Meta, reasons: Sequence[Sequence[str]], step: str) -> Outgoing:
        time = datetime.fromtimestamp(self.now_ms() / 1e3, UTC).isoformat(timespec="milliseconds").encode()
        fixed: Headers = [(FLOW, self.flow.encode()), (STEP, step.encode()), (TIME, time)]
        places = map("{}/{}@{}".format, meta.topics(), meta.partitions().tolist(), meta.offsets().tolist())
        headers = [[*[h for h in own if h[0] not in OURS], *fixed, (REASONS, why), (SOURCE, place.encode())]
                   for own, why, place in zip(meta.untagged_headers(), map(_reasons, reasons), places, strict=True)]
        values = meta.values()
        return Outgoing(self.topic, values, meta.keys(), meta.timestamps_ms(), headers)


def join(parts: Sequence[Outgoing]) -> Outgoing:
    """Several outgoings of one topic as one, in the order of their source is not promised across steps."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    columns: list[list[object]] = [[], [], [], []]
    for part in parts:
        for column, more in zip(columns, (part.values, part.keys, part.timestamps_ms, part.headers), strict=True):
            column.extend(more)
    return Outgoing(first.topic, *columns)  # type: ignore[arg-type]


__all__ = ["FLOW", "OURS", "REASONS", "SOURCE", "STEP", "TIME", "QuarantineSink", "join"]
