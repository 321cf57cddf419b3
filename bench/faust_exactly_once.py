"""What Faust's own `exactly_once` does under `kill -9`: the command behind docs/decisions/0002.

    python bench/faust_exactly_once.py [--records N] [--kills N]

Copies a topic with a Faust agent in an environment of its own, kills the worker while it works, lets the last one
finish (or stand still for a minute), and counts with a read_committed reader. Takes several minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import time
import uuid
from collections import Counter

import job
from run import WORK, broker, environment

APP = '''
import os
import faust
app = faust.App(os.environ["TAG"], broker="kafka://" + os.environ["HEADRACE_BOOTSTRAP"], datadir=os.environ["DATADIR"],
                web_enabled=False, topic_disable_leader=True, store="memory://", processing_guarantee="exactly_once",
                consumer_auto_offset_reset="earliest", broker_commit_interval=1.0, topic_partitions=4)
options = {"value_type": bytes, "value_serializer": "raw", "key_type": bytes, "key_serializer": "raw"}
source, sink = app.topic(os.environ["TAG"] + "-in", **options), app.topic(os.environ["TAG"] + "-out", **options)

@app.agent(source)
async def copy(stream):
    async for key, value in stream.items():
        await sink.send(key=key, value=value)
'''


def produce(topic: str, records: int) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": job.BOOTSTRAP, "queue.buffering.max.messages": 1_000_000})
    for n in range(records):
        producer.produce(topic, b"%d" % n, b"%d" % (n % 50))
    assert producer.flush(60) == 0


def read(topic: str) -> list[bytes]:
    """Every committed value."""
    from confluent_kafka import Consumer, TopicPartition

    reader = Consumer({"bootstrap.servers": job.BOOTSTRAP, "group.id": uuid.uuid4().hex, "enable.partition.eof": True,
                       "isolation.level": "read_committed", "auto.offset.reset": "earliest"})
    reader.assign([TopicPartition(topic, p, 0) for p in range(job.PARTITIONS)])
    found, ended = [], set()
    while len(ended) < job.PARTITIONS:
        for message in reader.consume(10_000, 1.0):
            if message.error():
                ended.add(message.partition())
            else:
                found.append(message.value())
    reader.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=60_000)
    parser.add_argument("--kills", type=int, default=6)
    given = parser.parse_args()
    tag = f"faust-{uuid.uuid4().hex[:6]}"
    home = WORK / "faust-exactly-once"
    home.mkdir(parents=True, exist_ok=True)
    (home / "copying.py").write_text(APP)
    with broker():
        job.BOOTSTRAP = os.environ["HEADRACE_BOOTSTRAP"]
        job.create(f"{tag}-in", f"{tag}-out")
        produce(f"{tag}-in", given.records)
        command = [str(environment("faust")), "-m", "faust", "-A", "copying", "worker", "-l", "warn"]
        env = {**os.environ, "TAG": tag, "DATADIR": str(home / "data")}
        for at in range(given.kills + 1):
            worker = subprocess.Popen(command, cwd=home, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if at < given.kills:
                time.sleep(8 + 0.7 * at)
                worker.kill()
            else:
                _finish(f"{tag}-out", given.records)
                worker.send_signal(signal.SIGTERM)
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        counted = Counter(read(f"{tag}-out"))
    doubled = sum(counted.values()) - len(counted)
    print(f"{given.records:,} records in, {given.kills} × kill -9: {doubled:,} doubled, "
          f"{given.records - len(counted):,} lost")


def _finish(topic: str, records: int) -> None:
    """Until all distinct records are out, or nothing came for a minute; ten minutes at most."""
    seen, still = 0, 0
    for _ in range(60):
        time.sleep(10)
        found = read(topic)
        if len(set(found)) == records:
            return
        still = still + 1 if len(found) == seen else 0
        seen = len(found)
        if still >= 6:
            return


if __name__ == "__main__":
    main()
