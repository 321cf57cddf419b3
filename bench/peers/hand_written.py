"""What a user would write by hand: confluent-kafka and fastavro, one transaction per 10,000 records.

    python hand_written.py TOPIC RECORDS          a backlog
    python hand_written.py TOPIC 0 OUT            for ever, keeping the source's timestamps, for the latency
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import job
from confluent_kafka import Consumer, Producer

topic, records = sys.argv[1], int(sys.argv[2])
tag, ok, bad = job.fresh("hand")
if len(sys.argv) > 3:
    ok = sys.argv[3]
batch, wait_s = (10_000, 0.5) if records else (10_000, 0.02)
consumer = Consumer({"bootstrap.servers": job.BOOTSTRAP, "group.id": tag, "auto.offset.reset": "earliest",
                     "enable.auto.commit": False, "isolation.level": "read_committed"})
producer = Producer({"bootstrap.servers": job.BOOTSTRAP, "transactional.id": tag, "linger.ms": 20,
                     "compression.type": "lz4", "queue.buffering.max.messages": 1_000_000})
producer.init_transactions()
consumer.subscribe([topic])
done, begun = 0, 0.0
while not records or done < records:
    messages = consumer.consume(batch, wait_s)
    if not messages:
        continue
    begun = begun or time.perf_counter()
    producer.begin_transaction()
    for m in messages:
        record = job.decode(m.value())
        if job.valid(record):
            producer.produce(ok, job.encode(job.enrich(record)), m.key(), timestamp=m.timestamp()[1])
        else:
            producer.produce(bad, m.value(), m.key(), timestamp=m.timestamp()[1])
    producer.send_offsets_to_transaction(consumer.position(consumer.assignment()), consumer.consumer_group_metadata())
    producer.commit_transaction()
    done += len(messages)
job.result("hand_written", done, time.perf_counter() - begun, ok, bad)
