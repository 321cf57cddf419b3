"""Files: a source of records from CSV, JSON Lines, Parquet, Avro or text, and a sink that writes them."""

from __future__ import annotations

from headrace.files.sink import FileSink
from headrace.files.source import FileSource, FileSourceConfig

SOURCE, SINK = FileSource, FileSink

__all__ = ["SINK", "SOURCE", "FileSink", "FileSource", "FileSourceConfig"]
