"""What a user would write to copy a topic into a Delta table: 10,000 records at a time, an append for each.

    python delta_loop.py TOPIC RECORDS FOLDER
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import job
import pyarrow as pa
from confluent_kafka import Consumer
from deltalake import write_deltalake

topic, records, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
consumer = Consumer({"bootstrap.servers": job.BOOTSTRAP, "group.id": Path(folder).name, "enable.auto.commit": False,
                     "auto.offset.reset": "earliest", "isolation.level": "read_committed"})
consumer.subscribe([topic])
done, begun = 0, 0.0
waiting: list[dict[str, object]] = []
while done < records:
    messages = consumer.consume(10_000 - len(waiting), 0.5)
    begun = begun or (time.perf_counter() if messages else 0.0)
    waiting += [job.decode(message.value()) for message in messages]
    if len(waiting) == 10_000 or done + len(waiting) >= records:
        write_deltalake(folder, pa.Table.from_pylist(waiting), mode="append")
        consumer.commit(asynchronous=False)
        done += len(waiting)
        waiting = []
job.result("delta_loop", done, time.perf_counter() - begun, folder, folder)
