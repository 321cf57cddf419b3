"""HTTP: a webhook or a polled URL as a source of records, and a sink that sends them in requests."""

from __future__ import annotations

from headrace.web.sink import HttpSink
from headrace.web.source import HttpSource

SOURCE, SINK = HttpSource, HttpSink

__all__ = ["SINK", "SOURCE", "HttpSink", "HttpSource"]
