"""Quarantine: what a flow holds back, byte for byte as it came, with headers that say who held it, why, and where from.

    headrace.flow, headrace.step     who
    headrace.reasons                 JSON list of "<id>: <what is wrong>"
    headrace.source                  topic/partition@offset, for people
    headrace.src                     the same for machines (`headrace trace`, `headrace quarantine replay`)
    headrace.time                    when, ISO 8601 UTC, to the millisecond
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import repeat
from operator import add

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Batch, Headers, Index, Meta, Outgoing, Rejects

FLOW, STEP, REASONS, SOURCE, TIME = ("headrace.flow", "headrace.step", "headrace.reasons", "headrace.source",
                                     "headrace.time")
ROOM_BYTES = 65_536
"""Of a topic's max.message.bytes, for the headers that we add."""
OURS = frozenset({FLOW, STEP, REASONS, SOURCE, TIME})
_quoted = json.JSONEncoder(ensure_ascii=False).encode  # kept, and given one text at a time: quicker than json.dumps
_ESCAPED = np.isin(np.arange(256), [*range(0x20), *b'"\\'])  # by byte: in UTF-8 none of them is part of another


def _lists(reasons: pa.ListArray) -> list[bytes]:
    """Each list of texts as JSON."""
    texts = reasons.flatten()
    quoted = pc.binary_join_element_wise('"', texts, '"', "")
    data = texts.buffers()[2]
    if data is not None and _ESCAPED[np.frombuffer(data, np.uint8)].any():
        quoted = pa.array(map(_quoted, texts.to_pylist()), pa.string())
    ends = pc.subtract(reasons.offsets, reasons.offsets[0])
    joined = pc.binary_join(pa.ListArray.from_arrays(ends, quoted), ", ")
    made: list[bytes] = pc.binary_join_element_wise("[", joined, "]", "").cast(pa.binary()).to_pylist()
    return made


def _places(meta: Meta) -> list[bytes]:
    """topic/partition@offset of each record."""
    where = (pa.array(part).cast(pa.string()) for part in (meta.partitions(), meta.offsets()))
    at = pc.binary_join_element_wise(*where, "@")
    made: list[bytes] = pc.binary_join_element_wise(pa.array(meta.topics(), pa.string()), at, "/").cast(
        pa.binary()).to_pylist()
    return made


class QuarantineSink:
    """Writes failures and rejects to one topic."""

    def __init__(self, topic: str, flow: str, *, now_ms: Callable[[], int]) -> None:
        self.topic, self.flow, self.now_ms = topic, flow, now_ms

    def hold(self, batch: Batch, step: str) -> Outgoing:
        """A batch of a step's failure relationship."""
        reasons = (_lists(batch.reasons) if batch.reasons is not None
                   else repeat(b'["unmatched: no reason was given"]', len(batch)))
        return self._outgoing(batch.meta, reasons, step)

    def reject(self, rejects: Rejects) -> Outgoing:
        """Records that never became rows, or whose result could not be sent."""
        return self._outgoing(rejects.meta, _lists(pa.array(rejects.reasons, pa.list_(pa.string()))), rejects.step)

    def _outgoing(self, meta: Meta, reasons: Iterable[bytes], step: str) -> Outgoing:
        time = datetime.fromtimestamp(self.now_ms() / 1e3, UTC).isoformat(timespec="milliseconds").encode()
        fixed: Headers = [(FLOW, self.flow.encode()), (STEP, step.encode()), (TIME, time)]
        facts = zip(repeat(REASONS), reasons, strict=False), zip(repeat(SOURCE), _places(meta), strict=False)
        said = map(list, zip(*map(repeat, fixed), *facts, strict=False))
        own = meta.untagged_headers()
        if any(meta.source_headers()):
            own = [[h for h in headers if h[0] not in OURS] for headers in own]
        return meta.as_it_came(self.topic, list(map(add, own, said)))


def too_large(meta: Meta, bytes_max: int) -> Index | None:
    """Which records, with their keys and headers and room for ours, a topic would refuse; None for none of them."""
    room = bytes_max - min(ROOM_BYTES, bytes_max // 4)
    payloads = meta.payloads()
    if max(map(len, filter(None, payloads)), default=0) <= room // 2:
        return None
    sizes = [len(value or b"") + len(key or b"") + sum(len(name) + len(said or b"") for name, said in headers)
             for value, key, headers in zip(payloads, meta.keys(), meta.untagged_headers(), strict=True)]
    large = np.flatnonzero(np.array(sizes) > room)
    return large if len(large) else None


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


__all__ = ["FLOW", "OURS", "REASONS", "ROOM_BYTES", "SOURCE", "STEP", "TIME", "QuarantineSink", "join", "too_large"]
