"""Offsets as the REST API takes them: Kafka Connect's checks, in its words; then `offsets` reads and writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.connect import offsets
from headrace.connect.herder import Herder
from headrace.connect.plugins import Refused
from headrace.connect.spec import Spec
from headrace.connect.state import Connector
from headrace.errors import UserError

TOPIC, PARTITION, OFFSET = "kafka_topic", "kafka_partition", "kafka_offset"
Change = tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]


def told(herder: Herder, name: str) -> dict[str, Any]:
    """GET /connectors/{name}/offsets"""
    _, spec = herder.spec(name)
    return {"offsets": offsets.listed(spec, herder.settings)}


def alter(herder: Herder, name: str, changes: Sequence[Change]) -> dict[str, Any]:
    """PATCH /connectors/{name}/offsets. Raises Refused."""
    if not changes:
        raise Refused(400, "Partitions / offsets need to be provided for an alter offsets request")
    with herder.exclusively(name):
        one, spec = _stopped(herder, name)
        asked = [_sink_change(*change) for change in changes] if spec.kind == "sink" else [
            _source_change(spec, *change) for change in changes]
        try:
            offsets.alter(spec, herder.settings, asked)
        except UserError as error:
            raise Refused(400, f"Failed to alter offsets for connector {one.name}: {error.what}") from None
    return {"message": "The offsets for this connector have been altered successfully"}


def reset(herder: Herder, name: str) -> dict[str, Any]:
    """DELETE /connectors/{name}/offsets. Raises Refused."""
    with herder.exclusively(name):
        one, spec = _stopped(herder, name)
        try:
            offsets.reset(spec, herder.settings)
        except UserError as error:
            raise Refused(400, f"Failed to reset offsets for connector {one.name}: {error.what}") from None
    return {"message": "The offsets for this connector have been reset successfully"}


def _stopped(herder: Herder, name: str) -> tuple[Connector, Spec]:
    one, spec = herder.spec(name)
    if one.target != "STOPPED" or one.tasks:
        raise Refused(400, "Connectors must be in the STOPPED state before their offsets can be modified. This can be "
                      f"done for the specified connector by issuing a 'PUT' request to the '/connectors/{name}/stop' "
                      "endpoint")
    return one, spec


def _source_change(spec: Spec, partition: Mapping[str, Any] | None,
                   offset: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    if spec.java and offset is not None:
        _check_file_stream(partition, offset)
    if partition is None:
        raise Refused(400, "Partition objects cannot be null")
    return partition, offset


def _check_file_stream(partition: Mapping[str, Any] | None, offset: Mapping[str, Any]) -> None:
    if "position" not in offset:
        raise Refused(400, "Offset objects should either be null or contain the key 'position'")
    position = offset["position"]
    if not isinstance(position, int) or isinstance(position, bool):
        raise Refused(400, "The value for the 'position' key in the offset is expected to be a Long value")
    if position < 0:
        raise Refused(400, "The value for the 'position' key in the offset should be a non-negative value")
    if partition is None:
        raise Refused(400, "Partition objects cannot be null")
    if "filename" not in partition:
        raise Refused(400, "Partition objects should contain the key 'filename'")


def _sink_change(partition: Mapping[str, Any] | None,
                 offset: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    if partition is None:
        raise Refused(400, "The partition for a sink connector offset cannot be null or missing")
    if TOPIC not in partition or PARTITION not in partition:
        raise Refused(400, f"The partition for a sink connector offset must contain the keys '{TOPIC}' and "
                      f"'{PARTITION}'")
    if partition[TOPIC] is None:
        raise Refused(400, "Kafka topic names must be valid strings and may not be null")
    if partition[PARTITION] is None:
        raise Refused(400, "Kafka partitions must be valid numbers and may not be null")
    number = _whole(partition[PARTITION], 1 << 31)
    if number is None:
        raise Refused(400, "Failed to parse the following Kafka partition value in the provided offsets: "
                      f"'{partition[PARTITION]}'. Partition values for sink connectors need to be integers.")
    at = {TOPIC: str(partition[TOPIC]), PARTITION: number}
    if offset is None:
        return at, None
    if OFFSET not in offset:
        raise Refused(400, f"The offset for a sink connector should either be null or contain the key '{OFFSET}'")
    to = _whole(offset[OFFSET], 1 << 63)
    if to is None:
        raise Refused(400, "Failed to parse the following Kafka offset value in the provided offsets: "
                      f"'{offset[OFFSET]}'. Offset values for sink connectors need to be integers.")
    if number < 0 or to < 0:
        raise Refused(400, "Kafka partitions and offsets may not be negative")
    return at, {OFFSET: to}


def _whole(value: Any, bound: int) -> int | None:
    text = "" if isinstance(value, bool) else str(value)
    number = int(text) if re.fullmatch(r"[+-]?[0-9]{1,19}", text) else bound
    return number if -bound <= number < bound else None
