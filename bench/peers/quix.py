"""The standard job in Quix Streams, exactly once.    python quix.py TOPIC RECORDS"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import job
from quixstreams import Application
from quixstreams.models import Deserializer, Serializer

topic, records = sys.argv[1], int(sys.argv[2])
tag, ok, bad = job.fresh("quix")


class Flight(Deserializer):
    def __call__(self, value: bytes, ctx: Any) -> Any:
        return job.decode(value)


class Valid(Serializer):
    def __call__(self, value: Any, ctx: Any) -> bytes:
        return job.encode(value)


class Unchanged(Serializer):
    def __call__(self, value: Any, ctx: Any) -> bytes:
        return job.encode(value, job.IN, job.HEAD_IN)


app = Application(broker_address=job.BOOTSTRAP, consumer_group=tag, auto_offset_reset="earliest",
                  processing_guarantee="exactly-once", commit_interval=1.0, commit_every=10_000, loglevel="WARNING",
                  producer_extra_config={"linger.ms": 20, "compression.type": "lz4"})
source = app.topic(topic, value_deserializer=Flight(), key_deserializer="bytes")
to_ok = app.topic(ok, value_serializer=Valid(), key_serializer="bytes")
to_bad = app.topic(bad, value_serializer=Unchanged(), key_serializer="bytes")
seen = {"records": 0, "begun": 0.0}


def count(record: Any) -> Any:
    seen["begun"] = seen["begun"] or time.perf_counter()
    seen["records"] += 1
    return record


flights = app.dataframe(source).apply(count)
flights[flights.apply(job.valid)].apply(job.enrich).to_topic(to_ok)
flights[flights.apply(lambda r: not job.valid(r))].to_topic(to_bad)
app.run(count=records)
job.result("quix", int(seen["records"]), time.perf_counter() - seen["begun"], ok, bad)
