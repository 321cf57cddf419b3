"""Where the sources of connectors stand: records of one compacted topic, written in the transactions they belong to.

    key      ["flights-departures", {"filename": "…"}]          connector and source partition, as Kafka Connect has it
    value    {"position": {…}, "nonce": "…"}                    the source's own; the transaction that wrote it
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headrace.batch import Outgoing
from headrace.peek import scan
from headrace.settings import Settings
from headrace.topics import TopicPlan

TOPIC = "headrace.connect.offsets"
PLAN = TopicPlan(TOPIC, 1, {"cleanup.policy": "compact"})


def key_of(connector: str, partition: Mapping[str, Any]) -> bytes:
    return json.dumps([connector, dict(partition)], ensure_ascii=False, sort_keys=True).encode()


def record(key: bytes, position: Mapping[str, Any] | None, nonce: str) -> Outgoing:
    """To be written with the batch that ends at `position`; None forgets it."""
    value = None if position is None else json.dumps({"position": dict(position), "nonce": nonce}).encode()
    return Outgoing(TOPIC, [value], [key], [0], [[]])


def stored(settings: Settings, key: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """(position, nonce) of the last committed batch; (None, None) at the very beginning.

    Read to where the topic ends, past the transactions that are open there: ours is none of them once its producer
    is initialised, but what we committed may stand behind another connector's.
    """
    value: bytes | None = None
    for messages in scan(settings, TOPIC, await_open=True):
        for message in messages:
            if message.key() == key:
                value = message.value()
    if value is None:
        return None, None
    found = json.loads(value)
    return found["position"], found["nonce"]
