"""PostgreSQL: tables read incrementally, and written exactly once."""

from __future__ import annotations

from headrace.pg.sink import PostgresSink
from headrace.pg.source import PostgresSource

SINK, SOURCE = PostgresSink, PostgresSource

__all__ = ["SINK", "SOURCE", "PostgresSink", "PostgresSource"]
