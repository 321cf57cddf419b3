"""Latency at 5,000 records/s: from the source record's timestamp to a read_committed reader's hands.

    python bench/latency.py load TOPIC SECONDS      the paced producer, a process of its own
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from itertools import cycle
from pathlib import Path
from typing import Any

import job

RATE, WARM_S, MEASURED_S = 5_000, 5.0, 20.0


def load(topic: str, seconds: float) -> None:
    """Produce at RATE for so long."""
    from confluent_kafka import Producer
    from load import payloads

    flights = cycle(payloads()[:50_000])
    producer = Producer({"bootstrap.servers": job.BOOTSTRAP, "linger.ms": 1, "partitioner": "murmur2_random"})
    begun, sent = time.perf_counter(), 0
    while (now := time.perf_counter() - begun) < seconds:
        while sent < now * RATE:
            key, value = next(flights)
            producer.produce(topic, value, key)
            sent += 1
        producer.poll(0)
        time.sleep(0.001)
    producer.flush(10)


def _read(topic: str, seconds: float) -> list[float]:
    """Latencies in ms of what arrives after WARM_S."""
    from confluent_kafka import Consumer, TopicPartition

    reader = Consumer({"bootstrap.servers": job.BOOTSTRAP, "group.id": uuid.uuid4().hex, "enable.auto.commit": False,
                       "isolation.level": "read_committed", "auto.offset.reset": "earliest", "fetch.wait.max.ms": 100})
    reader.assign([TopicPartition(topic, p, 0) for p in range(job.PARTITIONS)])
    found: list[float] = []
    begun = 0.0
    end = time.perf_counter() + seconds + WARM_S + 30
    while time.perf_counter() < end and (not begun or time.perf_counter() - begun < WARM_S + seconds):
        messages = reader.consume(1, 0.2)
        if messages:
            messages += reader.consume(50_000, 0)
        now_ms = time.time() * 1e3
        if messages and not begun:
            begun = time.perf_counter()
        if begun and time.perf_counter() - begun > WARM_S:
            found += [now_ms - m.timestamp()[1] for m in messages if not m.error()]
    reader.close()
    return found


def _start(engine: str, tag: str, source: str, valid: str) -> subprocess.Popen[bytes]:
    import run

    if engine == "headrace":
        home = run.project(tag, source)
        command = [sys.executable, "-m", "headrace", "run", "standard", "--group", tag, "--log", "warning"]
        return subprocess.Popen(command, cwd=home)
    return subprocess.Popen([sys.executable, str(job.HERE / "peers/hand_written.py"), source, "0", valid])


def measure(engines: list[str]) -> dict[str, dict[str, Any]]:
    """{engine: {p50_ms, p99_ms, records, rss_mb}}"""
    import numpy as np
    import psutil

    told = {}
    for engine in engines:
        tag = f"latency-{engine}-{uuid.uuid4().hex[:6]}"
        source, valid = f"{tag}-in", f"{tag}-valid"
        job.create(source, valid)
        worker = _start(engine, tag, source, valid)
        time.sleep(5.0)  # both are running before the first record
        loader = subprocess.Popen([sys.executable, str(Path(__file__).resolve()), "load", source,
                                   str(WARM_S + MEASURED_S + 5)], env=dict(os.environ))
        try:
            found = np.array(_read(valid, MEASURED_S))
            rss = psutil.Process(worker.pid).memory_info().rss / 1e6
        finally:
            loader.wait()
            worker.send_signal(signal.SIGTERM if engine == "headrace" else signal.SIGKILL)
            worker.wait()
        assert len(found) > RATE * MEASURED_S / 2, f"{engine}: only {len(found)} records arrived"
        p50, p99 = np.percentile(found, [50, 99]).round(1).tolist()
        told[engine] = {"p50_ms": p50, "p99_ms": p99, "records": len(found), "rss_mb": round(rss)}
    return told


if __name__ == "__main__":
    load(sys.argv[2], float(sys.argv[3]))
