"""The standard job, as every engine in the benchmark does it.

flights (Avro in the registry's framing, 19 fields, New York 2013) → six row checks → valid rows get `speed_mph` and
`route` and go to one topic; the others go, unchanged, to a second one. Exactly once where the engine can.

This file is what a user of any of the peers would write, so it depends on confluent-kafka and fastavro only.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import sys
import uuid
from pathlib import Path
from typing import Any

import fastavro

HERE = Path(__file__).resolve().parent
BOOTSTRAP = os.environ.get("HEADRACE_BOOTSTRAP", "127.0.0.1:9092")
RAW_IN = json.loads((HERE / "project/schemas/flight.avsc").read_text())
RAW_OUT = json.loads((HERE / "project/schemas/flight_valid.avsc").read_text())
IN, OUT = fastavro.parse_schema(RAW_IN), fastavro.parse_schema(RAW_OUT)
ID_IN, ID_OUT = int(os.environ.get("BENCH_ID_IN", "1")), int(os.environ.get("BENCH_ID_OUT", "2"))
HEAD_IN, HEAD_OUT = b"\0" + struct.pack(">I", ID_IN), b"\0" + struct.pack(">I", ID_OUT)
CARRIERS = {"9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"}
ORIGINS = {"EWR", "JFK", "LGA"}
TAIL = re.compile(r"^N\d")
PARTITIONS = 4


def valid(r: dict[str, Any]) -> bool:
    return (r["dep_time"] is not None and r["carrier"] in CARRIERS and 50 <= r["distance"] <= 5000
            and r["origin"] in ORIGINS and r["flight"] > 0
            and r["tailnum"] is not None and TAIL.match(r["tailnum"]) is not None)


def enrich(r: dict[str, Any]) -> dict[str, Any]:
    r["speed_mph"] = r["distance"] / r["air_time"] * 60.0 if r["air_time"] else None
    r["route"] = r["origin"] + "-" + r["dest"]
    return r


def decode(payload: bytes) -> dict[str, Any]:
    return fastavro.schemaless_reader(io.BytesIO(payload[5:]), IN, None)  # type: ignore[return-value]


def encode(record: dict[str, Any], schema: Any = None, head: bytes = HEAD_OUT) -> bytes:
    out = io.BytesIO()
    out.write(head)
    fastavro.schemaless_writer(out, schema or OUT, record)
    return out.getvalue()


def create(*names: str) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
    for future in admin.create_topics([NewTopic(n, PARTITIONS, 1) for n in names]).values():
        future.result()


def fresh(engine: str) -> tuple[str, str, str]:
    """(tag, valid topic, bad topic), the topics just created."""
    tag = f"{engine}-{uuid.uuid4().hex[:6]}"
    create(f"{tag}-valid", f"{tag}-bad")
    return tag, f"{tag}-valid", f"{tag}-bad"


def result(engine: str, records: int, seconds: float, valid_topic: str, bad_topic: str) -> None:
    """The one line the runner reads."""
    print(json.dumps({"engine": engine, "records": records, "seconds": seconds, "valid": valid_topic,
                      "bad": bad_topic}), file=sys.__stdout__, flush=True)  # Faust redirects sys.stdout
