"""Kafka's wire format, as far as a proxy must read it: who asks for what, and where an answer names a broker.

A frame is what follows the four bytes of its length. https://kafka.apache.org/protocol has the layouts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class Api(IntEnum):
    """API keys of requests; any other number Kafka knows will do as well."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_CLUSTER = 60
    CONSUMER_GROUP_HEARTBEAT = 68
    SHARE_FETCH = 78
    SHARE_ACKNOWLEDGE = 79


NEWEST: dict[int, int] = {Api.PRODUCE: 9, Api.FETCH: 15, Api.METADATA: 13, Api.FIND_COORDINATOR: 6,
                          Api.DESCRIBE_CLUSTER: 2, Api.SHARE_FETCH: -1, Api.SHARE_ACKNOWLEDGE: -1}
"""The newest versions whose answers name brokers nowhere but where `addresses` looks; clients are told of no newer."""

_TRANSACTIONAL: dict[int, int] = {Api.PRODUCE: 9, Api.INIT_PRODUCER_ID: 2, Api.ADD_PARTITIONS_TO_TXN: 3,
                                  Api.ADD_OFFSETS_TO_TXN: 3, Api.END_TXN: 3, Api.TXN_OFFSET_COMMIT: 3}
"""Requests that begin with a transactional id, with their first flexible version."""
_NAMING: dict[int, int] = {Api.METADATA: 9, Api.FIND_COORDINATOR: 3, Api.DESCRIBE_CLUSTER: 0}
"""Answers that name brokers, with their first flexible version."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request's header, and its transactional id where it has one."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str | None
    transactional_id: str | None


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's address in an answer: the bytes [start, end) hold host and port."""

    start: int
    end: int
    host: str
    port: int


class _Cursor:
    """Reads from `at` on; `flexible` strings and arrays have lengths of a byte or more, and tags follow structures."""

    def __init__(self, data: bytes, at: int = 0, flexible: bool = False) -> None:
        self.data, self.at, self.flexible = data, at, flexible

    def number(self, size: int) -> int:
        self.at += size
        if self.at > len(self.data):
            raise ValueError("a frame ends before what it should hold")
        return int.from_bytes(self.data[self.at - size:self.at], "big", signed=True)

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def string(self) -> str | None:
        size = self.varint() - 1 if self.flexible else self.number(2)
        if size < 0:
            return None
        self.at += size
        return self.data[self.at - size:self.at].decode()

    def count(self) -> int:
        return self.varint() - 1 if self.flexible else self.number(4)

    def tags(self) -> None:
        for _ in range(self.varint() if self.flexible else 0):
            self.varint()
            size = self.varint()
            self.at += size


def request(frame: bytes) -> Request:
    """The header of a request."""
    cursor = _Cursor(frame)
    api_key, version, correlation_id = cursor.number(2), cursor.number(2), cursor.number(4)
    client_id = cursor.string()
    transactional_id = None
    if api_key in _TRANSACTIONAL and not (api_key == Api.PRODUCE and version < 3):
        cursor.flexible = version >= _TRANSACTIONAL[api_key]
        cursor.tags()
        transactional_id = cursor.string()
    return Request(api_key, version, correlation_id, client_id, transactional_id)


def addresses(api_key: int, version: int, frame: bytes) -> list[Address]:
    """Where an answer names brokers, in order."""
    if api_key not in _NAMING:
        return []
    cursor = _Cursor(frame, 4, flexible=version >= _NAMING[api_key])
    cursor.tags()  # of the header
    return _READERS[api_key](cursor, version)


def _address(cursor: _Cursor) -> Address:
    start = cursor.at
    host, port = cursor.string() or "", cursor.number(4)
    return Address(start, cursor.at, host, port)


def _metadata(cursor: _Cursor, version: int) -> list[Address]:
    if version >= 3:
        cursor.number(4)  # throttle time
    return _brokers(cursor, rack=version >= 1)


def _brokers(cursor: _Cursor, rack: bool = True, fenced: bool = False) -> list[Address]:
    found = []
    for _ in range(cursor.count()):
        cursor.number(4)  # node id
        found.append(_address(cursor))
        if rack:
            cursor.string()
        if fenced:
            cursor.number(1)
        cursor.tags()
    return found


def _coordinators(cursor: _Cursor, version: int) -> list[Address]:
    if version >= 1:
        cursor.number(4)  # throttle time
    if version < 4:
        cursor.number(2)  # error code
        if version >= 1:
            cursor.string()  # error message
        cursor.number(4)  # node id
        return [_address(cursor)]
    found = []
    for _ in range(cursor.count()):
        cursor.string()  # key
        cursor.number(4)  # node id
        found.append(_address(cursor))
        cursor.number(2)  # error code
        cursor.string()  # error message
        cursor.tags()
    return found


def _cluster(cursor: _Cursor, version: int) -> list[Address]:
    cursor.number(4)  # throttle time
    cursor.number(2)  # error code
    cursor.string()  # error message
    if version >= 1:
        cursor.number(1)  # endpoint type
    cursor.string()  # cluster id
    cursor.number(4)  # controller id
    return _brokers(cursor, fenced=version >= 2)


_READERS: dict[int, Callable[[_Cursor, int], list[Address]]] = {
    Api.METADATA: _metadata, Api.FIND_COORDINATOR: _coordinators, Api.DESCRIBE_CLUSTER: _cluster}


def readdressed(api_key: int, version: int, frame: bytes, to: Callable[[Address], tuple[str, int]]) -> bytes:
    """The answer with every broker's address replaced by what `to` says. An empty host ("not known") stays."""
    flexible = version >= _NAMING.get(api_key, version + 1)
    parts, at = [], 0
    for found in addresses(api_key, version, frame):
        if not found.host:
            continue
        host, port = to(found)
        size = bytes([len(host) + 1]) if flexible else len(host).to_bytes(2, "big")  # of a loopback address: short
        parts += [frame[at:found.start], size, host.encode(), port.to_bytes(4, "big")]
        at = found.end
    return b"".join([*parts, frame[at:]])


def capped(version: int, frame: bytes) -> bytes:
    """An answer to ApiVersions that offers no versions newer than `NEWEST`."""
    cursor = _Cursor(frame, 4)  # its header never has tags
    if cursor.number(2):  # an error: the client asks again, in another version
        return frame
    cursor.flexible = version >= 3
    start = cursor.at
    kept = []
    for _ in range(cursor.count()):
        entry = cursor.at
        api_key, oldest, newest = cursor.number(2), cursor.number(2), cursor.number(2)
        after = cursor.at
        cursor.tags()
        newest = min(newest, NEWEST.get(api_key, newest))
        if newest >= oldest:
            kept.append(frame[entry:entry + 4] + newest.to_bytes(2, "big") + frame[after:cursor.at])
    size = _varint(len(kept) + 1) if cursor.flexible else len(kept).to_bytes(4, "big")
    return b"".join([frame[:start], size, *kept, frame[cursor.at:]])


def _varint(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])
