"""Counts, latencies and gauges, wrapped around the steps: no processor, source or sink counts for itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import prometheus_client as prom
import psutil

SECONDS = (.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10)


class Observer:
    """The metrics of one worker of one flow, in a registry of its own. Touched once a batch, never once a record."""

    def __init__(self, flow: str, slot: int = 0) -> None:
        self.registry = prom.CollectorRegistry()
        self.labels = {"flow": flow, "slot": str(slot)}
        own, ours = tuple(self.labels), self.registry
        self.records_in = prom.Counter("headrace_records_in", "Source records committed.", own, registry=ours)
        self.records_out = prom.Counter("headrace_records_out", "Records committed, by sink.", (*own, "sink"),
                                        registry=ours)
        self.counts = prom.Counter("headrace_count", "What steps count: expectations not met, rejects, late rows.",
                                   (*own, "step", "metric", "label"), registry=ours)
        self.batches = prom.Counter("headrace_batches", "Transactions, by outcome.", (*own, "outcome"), registry=ours)
        self.step_s = prom.Histogram("headrace_step_seconds", "Time a batch takes in each step.", (*own, "step"),
                                     buckets=SECONDS, registry=ours)
        self.lag = prom.Gauge("headrace_lag_records", "Records not yet read, by partition.", (*own, "partition"),
                              registry=ours)
        self.lag_s = prom.Gauge("headrace_lag_seconds", "Age of the last record read while there is more to read.",
                                own, registry=ours)
        self.state = prom.Gauge("headrace_state_bytes", "Keyed state held, by partition.", (*own, "partition"),
                                registry=ours)
        self.rss = prom.Gauge("headrace_rss_bytes", "Resident memory.", own, registry=ours)
        self.cpu = prom.Gauge("headrace_cpu_seconds", "Processor time used.", own, registry=ours)
        self._process = psutil.Process()
        self.alive_at = time.monotonic()
        self.assigned = False

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.step_s.labels(**self.labels, step=step).observe(time.perf_counter() - begun)

    def committed(self, records_in: int, by_sink: dict[str, int], counts: dict[tuple[str, str, str], int]) -> None:
        """A batch is committed: only now do its counts count."""
        self.records_in.labels(**self.labels).inc(records_in)
        self.batches.labels(**self.labels, outcome="committed").inc()
        for sink, n in by_sink.items():
            self.records_out.labels(**self.labels, sink=sink).inc(n)
        for (step, metric, label), n in counts.items():
            self.counts.labels(**self.labels, step=step, metric=metric, label=label).inc(n)

    def aborted(self) -> None:
        self.batches.labels(**self.labels, outcome="aborted").inc()

    def lagging(self, by_partition: dict[int, int], newest_ms: int) -> None:
        """Lag in records by partition; `newest_ms` is the timestamp of the last record read, 0 for none."""
        for partition, n in by_partition.items():
            self.lag.labels(**self.labels, partition=str(partition)).set(n)
        behind = any(by_partition.values()) and newest_ms > 0
        self.lag_s.labels(**self.labels).set(max(0.0, time.time() - newest_ms / 1e3) if behind else 0.0)

    def holding(self, by_partition: dict[int, int]) -> None:
        """Bytes of keyed state by partition."""
        for partition, size in by_partition.items():
            self.state.labels(**self.labels, partition=str(partition)).set(size)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        self.rss.labels(**self.labels).set(self._process.memory_info().rss)
        times = self._process.cpu_times()
        self.cpu.labels(**self.labels).set(times.user + times.system)
        text: bytes = prom.generate_latest(self.registry)
        return text

    def value(self, name: str, **labels: str) -> float:
        """One sample, 0 when it was never touched; for tests and the summary at the end."""
        found: Any = self.registry.get_sample_value(name, {**self.labels, **labels})
        return float(found or 0.0)
