"""What a user would write to copy a topic into PostgreSQL: an upsert for each record, a commit for each 1,000.

    python postgres_loop.py TOPIC RECORDS DSN TABLE
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import job
import psycopg
from confluent_kafka import Consumer

topic, records, dsn, table = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
names = [field["name"] for field in job.RAW_IN["fields"]]
key = ["time_hour", "carrier", "flight", "origin"]
upsert = (f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))}) "
          f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET "
          + ", ".join(f"{name} = EXCLUDED.{name}" for name in names if name not in key))
consumer = Consumer({"bootstrap.servers": job.BOOTSTRAP, "group.id": table, "auto.offset.reset": "earliest",
                     "enable.auto.commit": False, "isolation.level": "read_committed"})
consumer.subscribe([topic])
done, begun = 0, 0.0
with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
    while done < records:
        messages = consumer.consume(1_000, 0.5)
        if not messages:
            continue
        begun = begun or time.perf_counter()
        for message in messages:
            cursor.execute(upsert, tuple(job.decode(message.value()).values()))
        connection.commit()
        consumer.commit(asynchronous=False)
        done += len(messages)
job.result("postgres_loop", done, time.perf_counter() - begun, table, table)
