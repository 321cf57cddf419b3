"""The file source: CSV, JSON Lines, Parquet, Avro containers or lines of text; one file, or the files of a folder.

A file is a source partition, `{"filename": …}` with the name as it is written in the configuration or, in a folder,
relative to the project. Its position says where in it to go on, and by a checksum of the beginning, that it is the same
file. For `format: text` it is Kafka Connect's own: `{"position": <byte>}`.
"""

from __future__ import annotations

import logging
import shutil
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from headrace.codec import AvroSchema
from headrace.config import TOPIC_NAME, Config
from headrace.connector import Pulled
from headrace.errors import UserError
from headrace.files.lines import LineReader, Lines
from headrace.files.watch import NamedFiles, Stamp, is_pattern, stamp_of
from headrace.ingest import FORMATS, Bad, Options, Reader, open_reader
from headrace.records import Column, Shape
from headrace.records.records import one

log = logging.getLogger("headrace.connect")
HEAD_BYTES = 4096
"""A file is known again by a checksum of so many bytes of its beginning."""
TAIL_S = 0.2
LINE = Shape("string")

Texts = Annotated[tuple[str, ...], BeforeValidator(lambda v: v.split(",") if isinstance(v, str) else v)]
Delimiter = Annotated[str, BeforeValidator(lambda v: "\t" if v in ("\\t", "tab") else v)]


class FileSourceConfig(Config):
    """A connector of class `file`. Keys are Kafka Connect's where it has them."""

    file: str = Field(min_length=1, description="The file to read, a folder of files, or a pattern of files such as "
                      "data/*.csv; relative to the project's folder. Files of a folder are taken in the order of their "
                      "names, whole: write them elsewhere, and move them in.")
    format: Literal["csv", "jsonl", "parquet", "avro", "text"] | None = Field(
        None, description="What the file is. Left out: by its suffix. `text`: every line is a string.")
    topic: str = Field(pattern=TOPIC_NAME, description="The topic to write.")
    delimiter: Delimiter = Field(",", alias="csv.delimiter", min_length=1, max_length=1, description="Between the "
                                 "cells; `\\t` is a tab.")
    null_values: Texts = Field(("", "NA"), alias="csv.null.values", description="Cells that are null where the schema "
                               "allows null, with commas between.")
    tail: bool = Field(False, description="true: go on watching for lines that are appended and, in a folder, for new "
                       "files; false: end at the end.")
    done_folder: str | None = Field(
        None, alias="done.folder", min_length=1, description="Where a file is moved once its last record is in Kafka; "
        "relative to the project's folder. Left out: it stays.")
    schema_name: str | None = Field(
        None, alias="schema", min_length=1, description="The records' shape: `departure` is schemas/departure.avsc. "
        "Every format but `text` needs it.")

    @model_validator(mode="after")
    def _together(self) -> FileSourceConfig:
        suffix = "" if self.file.endswith("/") else Path(self.file).suffix.lower()
        if self.format is None and suffix and suffix not in FORMATS and not is_pattern(suffix):
            raise ValueError(f"format: the suffix of “{self.file}” tells none; say csv, jsonl, parquet, avro or text")
        if self.tail and suffix and not is_pattern(self.file) and self.kind in ("parquet", "avro"):
            raise ValueError(f"tail: {self.kind} files do not grow, they are written whole")
        if self.schema_name is None and self.format != "text":
            raise ValueError("schema: is missing: what are the records? (`format: text` takes lines as they are)")
        if self.delimiter in '"\r\n':
            raise ValueError("csv.delimiter: a quote or a line end cannot be the delimiter")
        return self

    @property
    def kind(self) -> str | None:
        """The format; None where each file's suffix tells it."""
        return self.format or FORMATS.get(Path(self.file).suffix.lower())


class FileSource:
    """Records of one file after the other."""

    Config: ClassVar[type[FileSourceConfig]] = FileSourceConfig
    wants_schema: ClassVar[bool] = True
    batch_records: ClassVar[int] = 100_000
    """A pull is bounded by the block of the file it comes from."""

    def __init__(self, config: FileSourceConfig, *, project: Path) -> None:
        self.config, self.project = config, project
        self.schema: AvroSchema | None = None
        self.ended = False
        self._open: _OpenFile | None = None

    def open(self, stored: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> None:
        """Raises UserError (no file, another file), SchemaError."""
        config = self.config
        self._stored, self._known = stored, dict[str, Mapping[str, Any]]()
        self._finished: dict[str, Stamp] = {}
        self._waiting: deque[str] = deque()
        self.ended = False
        path = self.project / config.file
        self._files = None if path.is_file() else NamedFiles(self.project, config.file, config.format,
                                                             config.done_folder)
        if self._files is not None and not self._files.may_be():
            if not (config.format == "text" and config.tail and path.suffix):  # as Kafka Connect does: it may come yet
                raise UserError(f"there is no file {path}")
            self._files = None
        if self._files is None:
            if config.tail and config.done_folder:
                raise UserError("done.folder: a file that is watched is never done; leave tail out, or name a folder")
            self._next_file()
        else:
            self._waiting.extend(self._files.scan(self._finished))

    def pull(self, records_max: int) -> Pulled | None:
        """None at the end (then `ended`) or, with `tail`, when nothing was appended and no file is new."""
        if self.ended:
            return None
        try:
            return self._pull(records_max)
        except OSError as error:
            raise UserError(f"{error.filename or self.config.file}: {error.strerror or error}") from error

    def _pull(self, records_max: int) -> Pulled | None:
        while self._open is not None or self._next_file():
            assert self._open is not None
            pulled = self._open.pull(records_max)
            if pulled is not None:
                self._known[self._open.name] = pulled.position
                return pulled
            if self._files is None and self.config.tail:
                break
            ended = self._finish(self._open)
            if ended is not None:
                return ended
        else:
            self.ended = not self.config.tail
        if not self.ended:
            time.sleep(TAIL_S)
        return None

    def _next_file(self) -> bool:
        """Opens the next file; False when there is none now."""
        if self._files is None:
            name = self.config.file
            return name not in self._finished and (self.project / name).is_file() and self._begin(name)
        if not self._waiting:
            self._waiting.extend(self._files.scan(self._finished))
        while self._waiting:
            name = self._waiting.popleft()
            if (self.project / name).is_file() and self._begin(name):  # else it was taken away meanwhile
                return True
        return False

    def _begin(self, name: str) -> bool:
        """Opens a file where it stood; False for one that was read to its end before, and is still there."""
        path, stored = self.project / name, {"filename": name}
        position = self._known.get(name) or self._stored(stored)
        if position is not None and "done" in position:
            if Stamp(*position["done"]) == stamp_of(path):  # it is the one: only its move is missing
                self._finished[name] = stamp_of(path)
                self._move(name)
                return False
            position = None
        grows = self._files is None and self.config.tail
        if self.config.kind == "text":
            reader: Reader | LineReader = LineReader(path, byte=(position or {}).get("position", 0), grows=grows)
            self._open = _OpenFile(name, path, self.config.topic, reader, None)
            return True
        assert self.schema is not None
        self._open = _OpenFile(name, path, self.config.topic, self._reader(path, position, grows), self.schema)
        return True

    def _reader(self, path: Path, position: Mapping[str, Any] | None, grows: bool) -> Reader:
        assert self.schema is not None
        config = self.config
        tabs = path.suffix.lower() == ".tsv" and "delimiter" not in config.model_fields_set
        if position is not None and path.is_file() and _head(path, position["head_bytes"])[1] != position["head"]:
            raise UserError(f"{path} is another file now: it does not begin as it did when it was read before",
                            hint="--reset begins at its start")
        reader = open_reader(path, self.schema, format=config.format, position=position, grows=grows,
                             options=Options("\t" if tabs else config.delimiter, config.null_values))
        if reader.unused and path.name not in self._finished:
            log.warning("columns passed over", extra={"file": str(path), "columns": list(reader.unused)})
        return reader

    def _finish(self, done: _OpenFile) -> Pulled | None:
        """At a file's end. Where it is to be moved, that it is done is committed first: a file that comes later by the
        same name is then a new one, and one that could not be moved is not read twice."""
        done.close()
        self._open = None
        self._finished[done.name] = done.stamp  # as it was when it was opened: what came since is seen by `scan`
        if self.config.done_folder is None or not done.path.is_file() or stamp_of(done.path) != done.stamp:
            return None
        self._known[done.name] = {"done": list(done.stamp)}
        return Pulled({"filename": done.name}, self._known[done.name], ())

    def committed(self, pulled: Pulled) -> None:
        """Moves a file that is done to `done.folder`."""
        if "done" in pulled.position:
            self._move(pulled.partition["filename"])

    def _move(self, name: str) -> None:
        """Another file of that name in the folder is kept: this one is numbered."""
        assert self.config.done_folder is not None
        folder, path = self.project / self.config.done_folder, self.project / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            target, number = folder / path.name, 0
            while target.exists():
                number += 1
                target = folder / f"{path.stem}.{number}{path.suffix}"
            shutil.move(path, target)
        except OSError as error:
            raise UserError(f"{path} cannot be moved to {folder}: {error.strerror or error}") from error
        log.info("moved", extra={"file": str(path), "to": str(target)})

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


class _OpenFile:
    """A file that is being read. `schema` is None for lines of text."""

    def __init__(self, name: str, path: Path, topic: str, reader: Reader | LineReader,
                 schema: AvroSchema | None) -> None:
        self.name, self.path, self.topic, self.reader, self.schema = name, path, topic, reader, schema
        self.close = reader.close
        self.stamp = stamp_of(path)
        self._beginning: tuple[int, int] | None = None

    def pull(self, records_max: int) -> Pulled | None:
        piece = self.reader.read(records_max)
        if piece is None:
            return None
        if isinstance(piece, Lines):
            value, position, byte = Column(piece.values, LINE), {"position": piece.byte}, "byte "
        else:
            value = Column.of_rows(piece.rows, name=self.schema.name if self.schema else None)
            position, byte = {**piece.position, **self._head(piece.position.get("byte", HEAD_BYTES))}, ""
        return Pulled({"filename": self.name}, position, [one(self.topic, value)],
                      where=lambda i: f"{self.name}:{byte}{piece.at[i]}", raw=piece.raw,
                      failures=self._failures(piece.bad, byte), more=True)

    def _failures(self, bad: Sequence[Bad], byte: str) -> list[tuple[str, bytes, Sequence[str]]]:
        return [(f"{self.name}:{byte}{each.at}", each.raw, each.reasons) for each in bad]

    def _head(self, byte: int) -> dict[str, int]:
        if self._beginning is None or self._beginning[0] < HEAD_BYTES:
            self._beginning = _head(self.path, min(HEAD_BYTES, byte))
        return {"head": self._beginning[1], "head_bytes": self._beginning[0]}


def _head(path: Path, size: int) -> tuple[int, int]:
    with path.open("rb") as file:
        raw = file.read(size)
    return len(raw), zlib.crc32(raw)
