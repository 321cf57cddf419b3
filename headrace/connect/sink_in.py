"""What a sink's task polled, as records: decoded by the converters, with key, headers, time and position, transformed.

A poll becomes a few `Records`: one for each topic, structure of values and structure of keys that it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from headrace.batch import Frames, Headers, Index
from headrace.connect.errors_report import Rejected
from headrace.connect.source_out import AVRO, class_name, converter, registry_of
from headrace.connect.spec import Spec, converter_keys
from headrace.errors import SchemaError
from headrace.records import Column, Failure, Records
from headrace.records.converters import SIMPLE_HEADERS, Converter, header_converter_of
from headrace.records.records import Header
from headrace.settings import Settings

Place = tuple[str, int]
"""(topic, partition)"""
STRING = "org.apache.kafka.connect.storage.StringConverter"
Groups = list[tuple[Index, Column]]
"""(places in the poll, in order; what is there): those of one structure together."""


@dataclass(slots=True)
class Batch:
    """What one put takes. `messages` are the poll, to tell where a record came from; `bad` go no further."""

    messages: Sequence[Any]
    ends: Mapping[Place, int]
    records: list[Records] = field(default_factory=list)
    bad: list[Rejected] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.records))

    def without(self, refused: Mapping[int, str]) -> Batch:
        """The same, but for the records at these places in the poll."""
        gone = np.array(sorted(refused), np.int64)
        left = []
        for each in self.records:
            keep = np.flatnonzero(~np.isin(each.index, gone))
            if len(keep):
                left.append(each if len(keep) == len(each) else each.take(keep))
        return replace(self, records=left, bad=[])

    def rejected(self, one: Failure) -> Rejected:
        """A record of the poll, as it came."""
        message = self.messages[one.index]
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        return Rejected(stage=one.stage, by=one.by, reasons=(one.reason,), where=f"{topic}/{partition}@{offset}",
                        value=message.value(), key=message.key(), headers=message.headers(),
                        timestamp_ms=message.timestamp()[1], topic=topic, partition=partition, offset=offset)


class Inbound:
    """Not used by two threads at a time. `decode` raises Retriable while the registry does not answer."""

    def __init__(self, spec: Spec, settings: Settings) -> None:
        registry = registry_of(settings)
        if registry is None and spec.common.value_converter is None:
            settings.registry_client()  # says what to do
        self.spec = spec
        self.values = converter(spec, "value", registry, AVRO)
        self.keys = converter(spec, "key", registry, STRING)
        named = spec.common.header_converter or SIMPLE_HEADERS
        self.header_class = class_name(named)
        self.headers = header_converter_of(named, converter_keys(spec.keys, "header"))
        self.value_class = class_name(spec.common.value_converter or AVRO)
        self.key_class = class_name(spec.common.key_converter or STRING)

    def decode(self, frames: Frames, ends: Mapping[Place, int]) -> Batch:
        """The poll as a batch to put."""
        batch = Batch(frames.messages, ends)
        failures: list[Failure] = []
        times = np.array(frames.timestamps_ms, np.int64)
        for topic, at in _by_topic(frames):
            failures += self._topic(topic, at, frames, times, batch.records)
        if self.spec.chain and batch.records:
            batch.records, more = self.spec.chain.apply(batch.records)
            failures += more
        batch.records = [each for each in batch.records if len(each)]
        batch.bad = [batch.rejected(one) for one in sorted(failures, key=lambda one: one.index)]
        return batch

    def _topic(self, topic: str, at: Index | None, frames: Frames, times: Index,
               out: list[Records]) -> list[Failure]:
        """The records of one topic; `at` are their places in the poll, None for all."""
        failed: dict[int, Failure] = {}
        places = np.arange(len(frames)) if at is None else at

        def some(column: Sequence[Any]) -> Sequence[Any]:
            return column if at is None else list(map(column.__getitem__, at.tolist()))

        def told(stage: str, by: str, why: Mapping[int, str]) -> None:
            for i, reason in why.items():
                failed.setdefault(i, Failure(int(places[i]), stage, by, reason))

        keys = self._read(topic, some(frames.keys), self.keys, lambda why: told("KEY_CONVERTER", self.key_class, why))
        values = self._read(topic, some(frames.values), self.values,
                            lambda why: told("VALUE_CONVERTER", self.value_class, why))
        headers, why = self._headers(topic, some(frames.source_headers))
        told("HEADER_CONVERTER", self.header_class, why)
        if why:
            fine = np.ones(len(places), np.bool_)
            fine[list(why)] = False
            values = _among(values, np.flatnonzero(fine))
        for index, value, key in joined(values, keys, len(places)):
            here = places if index is None else places[index]
            chosen = headers if headers is None or index is None else [headers[i] for i in index.tolist()]
            out.append(Records(topic=topic, value=value, key=key, index=here, timestamps_ms=times[here],
                               headers=chosen, partitions=frames.partitions[here].astype(np.int64),
                               offsets=frames.offsets[here]))
        return list(failed.values())

    def _headers(self, topic: str, raw: Sequence[Headers | None]) -> tuple[list[list[Header]] | None, dict[int, str]]:
        """The headers of each record, None where no record has any, and why those of a record cannot be read."""
        if not any(raw):
            return None, {}
        out: list[list[Header]] = []
        failed = {}
        for at, each in enumerate(raw):
            try:
                out.append(self.headers.decode(topic, each) if each else [])
            except SchemaError as error:
                failed[at] = str(error)
                out.append([])
        return out, failed

    @staticmethod
    def _read(topic: str, payloads: Sequence[bytes | None], how: Converter, told: Any) -> Groups:
        if not any(payloads) and all(one is None for one in payloads):
            return [(np.arange(len(payloads)), Column.nothing(len(payloads)))]
        groups, why = how.decode(topic, payloads)
        told(why)
        return groups


def _by_topic(frames: Frames) -> Iterator[tuple[str, Index | None]]:
    topics = frames.topics
    names = list(dict.fromkeys(topics))
    if len(names) == 1:
        yield names[0], None
        return
    column = np.array(topics, dtype=object)
    for name in names:
        yield name, np.flatnonzero(column == name)


def joined(values: Groups, keys: Groups, n: int) -> Iterator[tuple[Index | None, Column, Column]]:
    """(places, values, keys) of every pair of structures that meet; None for places is all of the n."""
    for vat, value in values:
        for kat, key in keys:
            if len(vat) == n and len(kat) == n:
                yield None, value, key
                continue
            common, left, right = np.intersect1d(vat, kat, assume_unique=True, return_indices=True)
            if len(common):
                yield (common, value if len(common) == len(vat) else value.take(left),
                       key if len(common) == len(kat) else key.take(right))


def _among(groups: Groups, at: Index) -> Groups:
    """Of the groups what is at these places."""
    out = []
    for places, column in groups:
        keep = np.flatnonzero(np.isin(places, at))
        if len(keep):
            out.append((places[keep], column.take(keep)))
    return out
