"""The file source: CSV, JSON Lines, Parquet or an Avro container, once to its end or for as long as it grows."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from headrace.codec import AvroSchema
from headrace.config import Config
from headrace.errors import UserError
from headrace.ingest import FORMATS, Options, Piece, Reader, open_reader

HEAD_BYTES = 4096
"""A file is known again by a checksum of so many bytes of its beginning."""

Texts = Annotated[tuple[str, ...], BeforeValidator(lambda v: v.split(",") if isinstance(v, str) else v)]
Delimiter = Annotated[str, BeforeValidator(lambda v: "\t" if v in ("\\t", "tab") else v)]


class FileSourceConfig(Config):
    """A connector of class `file`. Keys are Kafka Connect's where it has them."""

    connector_class: Literal["file"] = Field(alias="connector.class", description="`file`, or `FileSource`.")
    file: str = Field(min_length=1, description="The file to read; relative to the project's folder.")
    format: Literal["csv", "jsonl", "parquet", "avro"] | None = Field(
        None, description="What the file is. Left out: by its suffix.")
    topic: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$", description="The topic to write.")
    schema_name: str = Field(
        alias="schema", min_length=1, description="The records' shape: `departure` is schemas/departure.avsc. It is "
        "registered as <topic>-value.")
    key: str | None = Field(None, description="The field that becomes the record's key, as text. Left out: no key.")
    timestamp_column: str | None = Field(
        None, alias="timestamp.column", description="The field that becomes the record's time: a timestamp, a date, or "
        "a long of milliseconds. Left out: the time of writing.")
    tasks_max: int = Field(1, alias="tasks.max", ge=1, description="A file is read in order by one task, whatever is "
                           "asked for.")
    batch_records: int = Field(20_000, alias="batch.records", ge=1, le=200_000, description="Records in a transaction, "
                               "at most.")
    rate_records_per_second: float | None = Field(
        None, alias="rate.records.per.second", gt=0, description="No faster than this. Left out: as fast as it goes.")
    errors_tolerance: Literal["none", "all"] = Field(
        "none", alias="errors.tolerance", description="`none`: a bad record stops the connector before its batch; "
        "`all`: bad records go to the dead-letter topic or, where none is named, to the log.")
    dead_letters: str | None = Field(
        None, alias="errors.deadletterqueue.topic.name", pattern=r"^[A-Za-z0-9._-]{1,249}$", description="The topic "
        "for the original bytes of bad records, with the reasons in headers. Needs errors.tolerance=all.")
    partitions: int = Field(
        1, alias="topic.creation.default.partitions", ge=1, le=10_000, description="Partitions of the topic where it "
        "is absent. A topic that exists is left as it is.")
    replication_factor: int = Field(
        -1, alias="topic.creation.default.replication.factor", ge=-1, description="Copies of it; -1 is the broker's "
        "default.")
    retention_ms: int | None = Field(
        None, alias="topic.creation.default.retention.ms", ge=-1, description="How long the new topic keeps records, "
        "in milliseconds. Left out: for ever with a timestamp.column, since event times may be old; else as the "
        "broker says.")
    delimiter: Delimiter = Field(",", alias="csv.delimiter", min_length=1, max_length=1, description="Between the "
                                 "cells; `\\t` is a tab.")
    null_values: Texts = Field(("", "NA"), alias="csv.null.values", description="Cells that are null where the schema "
                               "allows null, with commas between.")
    tail: bool = Field(False, description="true: go on watching for lines that are appended; false: end at the end.")

    @model_validator(mode="after")
    def _together(self) -> FileSourceConfig:
        if self.format is None and Path(self.file).suffix.lower() not in FORMATS:
            raise ValueError(f"format: the suffix of “{self.file}” tells none; say csv, jsonl, parquet or avro")
        if self.tail and self.kind not in ("csv", "jsonl"):
            raise ValueError(f"tail: {self.kind} files do not grow, they are written whole")
        if self.dead_letters and self.errors_tolerance == "none":
            raise ValueError("errors.deadletterqueue.topic.name: nothing goes there with errors.tolerance=none; set "
                             "errors.tolerance=all")
        if self.delimiter in '"\r\n':
            raise ValueError("csv.delimiter: a quote or a line end cannot be the delimiter")
        return self

    @property
    def kind(self) -> str:
        return self.format or FORMATS[Path(self.file).suffix.lower()]

    def topic_config(self) -> dict[str, str]:
        """The properties to create the topic with."""
        retention = self.retention_ms if self.retention_ms is not None else -1 if self.timestamp_column else None
        return {} if retention is None else {"retention.ms": str(retention)}


class FileSource:
    """Batches of a file's rows, and positions to go on from. One thread uses it, after `open`."""

    Config: ClassVar[type[FileSourceConfig]] = FileSourceConfig

    def __init__(self, config: FileSourceConfig, *, project: Path) -> None:
        self.config = config
        self.path = project / config.file
        self._reader: Reader | None = None

    @property
    def partition(self) -> dict[str, str]:
        """What the positions are of, as Kafka Connect names it."""
        return {"filename": self.config.file}

    def open(self, schema: AvroSchema, position: Mapping[str, int] | None) -> None:
        """Go to `position`, None for the beginning. Raises UserError (no file, another file), SchemaError."""
        tabs = self.path.suffix.lower() == ".tsv" and "delimiter" not in self.config.model_fields_set
        delimiter = "\t" if tabs else self.config.delimiter
        options = Options(delimiter, self.config.null_values)
        if position is not None and self.path.is_file() and self._head(position["head_bytes"])[1] != position["head"]:
            raise UserError(f"{self.path} is another file now: it does not begin as it did when it was read before",
                            hint="--reset begins at its start")
        self._reader = open_reader(self.path, schema, format=self.config.kind, options=options, position=position,
                                   grows=self.config.tail)

    @property
    def unused(self) -> Sequence[str]:
        """Columns of the file that the schema lacks."""
        return () if self._reader is None else self._reader.unused

    def read(self, records_max: int) -> Piece | None:
        """The next records; None at the end, or, with `tail`, when nothing was appended. Raises UserError."""
        assert self._reader is not None, "open() first"
        return self._reader.read(records_max)

    def position(self, piece: Piece) -> dict[str, int]:
        """What to store with the piece: `open` goes on behind it."""
        size, head = self._head(min(HEAD_BYTES, piece.position.get("byte", HEAD_BYTES)))
        return {**piece.position, "head": head, "head_bytes": size}

    def _head(self, size: int) -> tuple[int, int]:
        with self.path.open("rb") as file:
            raw = file.read(size)
        return len(raw), zlib.crc32(raw)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


SOURCE: type[Any] = FileSource
"""What `headrace connect` runs for `connector.class: file`."""
