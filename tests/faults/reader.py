"""The independent reader: a process of its own with a plain read_committed consumer, beside whatever is broken.

It decodes with fastavro and knows of headrace no more than two headers: `headrace.src` and, in a quarantine,
`headrace.source`. What it saw comes back as `Found`; a second one, begun at the end, must have seen the same.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import struct
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy as np
from confluent_kafka import Consumer, TopicPartition

UNREADABLE, WRONG, NO_ORIGIN = -1, -2, -3
BYTES_MAX = 4_000
"""The longest readable record of the suite; poison may be longer."""
ROW = np.dtype([("topic", "i2"), ("partition", "i4"), ("offset", "i8"), ("src_partition", "i4"), ("src_offset", "i8"),
                ("n", "i8"), ("key", "u4"), ("digest", "u4")])
"""A record as found: where it is, where it says it comes from, the number in its payload, checksums of its key and of
all of it. `n` is UNREADABLE for what is no reading, WRONG for one whose derived field is."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a reader saw: rows (ROW), alerts as dicts, (time, records so far) of each poll that gave some, and where the
    planted secret stood."""

    rows: np.ndarray[Any, Any]
    alerts: list[dict[str, Any]]
    arrivals: list[tuple[float, int]]
    leaks: list[str]
    reasons: dict[tuple[int, int], str]
    """(partition, offset) of the source → why it was held back, of what cannot be read."""


class Schemas:
    """Schemas by id, from the registry's REST API. Raises KeyError for an id it does not have."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.known: dict[int, Any] = {}

    def __getitem__(self, number: int) -> Any:
        while number not in self.known:
            try:
                with urllib.request.urlopen(f"{self.url}/schemas/ids/{number}", timeout=30) as answer:
                    self.known[number] = fastavro.parse_schema(json.loads(json.load(answer)["schema"]))
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    self.known[number] = None
            except OSError:  # the registry is away: a reader has time
                time.sleep(0.5)
        if self.known[number] is None:
            raise KeyError(number)
        return self.known[number]

    def decode(self, value: bytes | None) -> dict[str, Any]:
        """A framed record. Raises whatever is wrong with it."""
        if len(value or b"") > BYTES_MAX:
            raise ValueError("too deep: fastavro's own stack would break")
        magic, number = struct.unpack_from(">bI", value or b"")
        if magic:
            raise ValueError("the magic byte")
        stream = io.BytesIO(value)
        stream.seek(5)
        record = fastavro.schemaless_reader(stream, self[number])
        if stream.read(1):
            raise ValueError("trailing bytes")
        return dict(record)


def _number(schemas: Schemas, value: bytes | None) -> int:
    try:
        record = schemas.decode(value)
    except Exception:  # of whatever poison there is: a reader that fails on it proves nothing
        return UNREADABLE
    n = int(record.get("n", UNREADABLE))
    return n if record.get("twice", 2 * n) == 2 * n else WRONG


def _origin(headers: Mapping[str, bytes]) -> tuple[int, int]:
    """Partition and offset by `headrace.src`; by `headrace.source` too, where that stands: they must agree."""
    raw = headers.get("headrace.src")
    if raw is None or len(raw) < 13:
        return NO_ORIGIN, NO_ORIGIN
    partition, offset = struct.unpack_from(">iq", raw)
    told = headers.get("headrace.source")
    if told is not None and told.decode() != f"{raw[12:].decode()}/{partition}@{offset}":
        return NO_ORIGIN, NO_ORIGIN
    return partition, offset


def _digest(message: Any, headers: list[tuple[str, bytes]]) -> int:
    return zlib.crc32(repr((message.key(), message.timestamp(), headers)).encode(), zlib.crc32(message.value() or b""))


def _read(conf: dict[str, Any], registry_url: str, topics: Sequence[str], alerts: str, secret: bytes, stop: Any,
          seen: Any, events: Any, answer: Any) -> None:
    """The process: everything of `topics`, until `stop` is set and the end is reached."""
    reader = Consumer({**conf, "group.id": "independent", "enable.auto.commit": False, "auto.offset.reset": "earliest",
                       "isolation.level": "read_committed", "enable.partition.eof": True, "log_level": 0})
    every = [TopicPartition(t, p, 0) for t in topics for p in reader.list_topics(t, 30).topics[t].partitions]
    reader.assign(every)
    schemas, rows, told = Schemas(registry_url), [], []
    arrivals: list[tuple[float, int]] = []
    leaks: set[str] = set()
    reasons: dict[tuple[int, int], str] = {}
    ended: set[tuple[str, int]] = set()
    number = {topic: at for at, topic in enumerate(topics)}
    since: float | None = None
    while len(ended) < len(every):
        if stop.is_set() and since is None:
            since = time.monotonic()
            ended.clear()
            reader.assign(reader.position(every))  # the ends are told anew
        before = len(rows)
        for message in reader.consume(10_000, 0.2):
            topic, partition = message.topic(), message.partition()
            if message.error():
                if since is not None and message.error().name() == "_PARTITION_EOF":
                    ended.add((topic, partition))
                continue
            ended.discard((topic, partition))
            headers, value = message.headers() or [], message.value()
            if secret in (value or b"") or secret in repr((message.key(), headers)).encode():
                leaks.add(topic)
            if topic == alerts:
                told.append(schemas.decode(value))
                n = UNREADABLE
            else:
                n = _number(schemas, value)
            names = dict(headers)
            origin = _origin(names)
            if n == UNREADABLE and "headrace.reasons" in names:
                reasons[origin] = names["headrace.reasons"].decode()
            rows.append((number[topic], partition, message.offset(), *origin, n,
                         zlib.crc32(message.key() or b""), _digest(message, headers)))
        if len(rows) > before:
            arrivals.append((time.time(), len(rows)))
            seen.value, events.value = len(rows) - len(told), len(told)
    reader.close()
    for each in told:
        each.update({name: str(value) for name, value in each.items() if not isinstance(value, int | float | str)})
    answer.send(Found(np.array(rows, dtype=ROW), told, arrivals, sorted(leaks), reasons))
    answer.close()


class Reader:
    """Starts reading at once. `seen` is how many records so far, alerts left out; `end()` reads all that is there."""

    def __init__(self, conf: dict[str, Any], registry_url: str, topics: Sequence[str], alerts: str,
                 secret: bytes) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._stop, self._seen, self._alerts = spawn.Event(), spawn.Value("q", 0), spawn.Value("q", 0)
        self._answer, theirs = spawn.Pipe(duplex=False)
        self.process = spawn.Process(target=_read, daemon=True, name="reader", args=(
            conf, registry_url, list(topics), alerts, secret, self._stop, self._seen, self._alerts,
            theirs))
        self.process.start()
        theirs.close()

    @property
    def seen(self) -> int:
        return int(self._seen.value)

    @property
    def alerts(self) -> int:
        return int(self._alerts.value)

    def end(self, within_s: float = 300.0) -> Found:
        """What it saw. Raises AssertionError when it does not come to an end: a transaction hangs, or it failed."""
        self._stop.set()
        try:
            assert self._answer.poll(within_s), "the independent reader does not come to an end"
            found: Found = self._answer.recv()
        except EOFError as error:
            raise AssertionError("the independent reader failed; see stderr") from error
        finally:
            self.close()
        return found

    def close(self) -> None:
        if self.process.is_alive():
            self.process.join(5)
            self.process.kill()
        self.process.join()
        self._answer.close()
