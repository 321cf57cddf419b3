"""The standard job in Faust, at least once (its exactly_once doubles records, see docs/decisions).

    TOPIC=… RECORDS=… python faust_peer.py worker -l warn
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import faust
import job

topic, records = os.environ["TOPIC"], int(os.environ["RECORDS"])
tag, ok, bad = job.fresh("faust")
app = faust.App(tag, broker=f"kafka://{job.BOOTSTRAP}", value_serializer="raw", key_serializer="raw", store="memory://",
                topic_partitions=job.PARTITIONS, web_enabled=False, stream_wait_empty=False,
                consumer_auto_offset_reset="earliest", producer_linger=0.02, datadir=os.environ["DATADIR"])
source, to_ok, to_bad = (app.topic(name, value_type=bytes, value_serializer="raw") for name in (topic, ok, bad))
seen = {"records": 0, "begun": 0.0}
SECONDS_MAX = 30.0


@app.agent(source)
async def run(stream: Any) -> None:
    async for event in stream.events():
        seen["begun"] = seen["begun"] or time.perf_counter()
        record = job.decode(event.value)
        if job.valid(record):
            await to_ok.send(key=event.key, value=job.encode(job.enrich(record)))
        else:
            await to_bad.send(key=event.key, value=event.value)
        seen["records"] += 1
        seconds = time.perf_counter() - seen["begun"]
        if seen["records"] >= records or seconds > SECONDS_MAX:
            job.result("faust", int(seen["records"]), seconds, ok, bad)
            os._exit(0)


if __name__ == "__main__":
    app.main()
