"""The file sink: records as parts of a folder, or as lines of one file that grows; exactly once either way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow.compute as pc
from pydantic import Field, model_validator

from headrace.batch import Index
from headrace.config import Config
from headrace.connector import RecordsRefused
from headrace.errors import Retriable, UserError
from headrace.files.appended import Appended
from headrace.files.parts import Parts
from headrace.files.places import Place, origin
from headrace.ingest import FORMATS

if TYPE_CHECKING:
    from headrace.records import Records

RETRY_AFTER_S = 1.0
NO_VALUE = "it has no value; the transform Filter drops such records"


class FileSinkConfig(Config):
    """A sink of class `file`."""

    file: str | None = Field(None, min_length=1, description="The file that takes all records, a line each; relative "
                             "to the project's folder.")
    folder: str | None = Field(None, min_length=1, description="In place of `file`: a folder of parts, <topic>/"
                               "<partition>/<first offset>-<next offset>, the topic being the one that is read.")
    format: Literal["jsonl", "csv", "parquet", "avro", "text"] | None = Field(
        None, description="What is written; `text` is each value's text. Left out: by the suffix of `file`, else "
        "`text`; jsonl in a folder. Parquet and Avro need a folder.")

    @model_validator(mode="after")
    def _together(self) -> FileSinkConfig:
        if (self.file is None) == (self.folder is None):
            raise ValueError("file: say where to write, either by `file` or by `folder`")
        if self.file is not None and self.kind in ("parquet", "avro"):
            raise ValueError(f"format: {self.kind} files do not grow, they are written whole: set `folder`, not `file`")
        return self

    @property
    def kind(self) -> str:
        if self.format is not None or self.file is None:
            return self.format or "jsonl"
        return FORMATS.get(Path(self.file).suffix.lower(), "text")


class FileSink:
    """Records → files. One thread uses it; others may write to the same file or folder."""

    Config: ClassVar[type[Config]] = FileSinkConfig
    exactly_once: ClassVar[bool] = True
    batch_records: ClassVar[int] = 100_000
    linger_s: ClassVar[float] = 1.0

    def __init__(self, config: FileSinkConfig, *, project: Path, name: str) -> None:
        self.config = config
        self.parts = Parts(project / config.folder, config.kind) if config.folder is not None else None
        self.appended = Appended(project / (config.file or ""), config.kind, name)

    def open(self, partitions: Collection[Place]) -> Mapping[Place, int]:
        """Where the files say each of them goes on."""
        try:
            if self.parts is None:
                return self.appended.open(partitions)
            found = {place: self.parts.open(place) for place in partitions}
        except OSError as error:
            raise _translated(error) from error
        return {place: at for place, at in found.items() if at is not None}

    def put(self, records: Sequence[Records], ends: Mapping[Place, int]) -> None:
        """A part for each partition, or lines at the end of the file. A folder's partitions are stored one by one: of
        a put that fails between them, the rest is stored by the next."""
        if self.config.kind != "text":
            reasons = {at: NO_VALUE for each in records for at in each.index[_null(each)].tolist()}
            if reasons:
                raise RecordsRefused(reasons)
        try:
            if self.parts is None:
                return self.appended.put(records, ends)
            for place, mine in _by_place(records, ends).items():
                self.parts.put(place, mine, ends[place])
        except OSError as error:
            raise _translated(error) from error

    def alter(self, positions: Mapping[Place, int | None]) -> None:
        """Go on elsewhere at the next `open`: at an offset; None is where Kafka's committed offset says. Raises
        UserError for a folder, whose parts are the offsets."""
        if self.parts is not None:
            raise UserError("where a folder of parts goes on is told by the names of the parts",
                            hint=f"move the parts away that shall be written again: {self.parts.folder}")
        self.appended.alter(positions)

    def close(self) -> None:
        pass


def _null(records: Records) -> Index:
    """Positions of those without a value."""
    return np.flatnonzero(pc.is_null(records.value.values).to_numpy(zero_copy_only=False))


def _by_place(records: Sequence[Records], ends: Mapping[Place, int]) -> dict[Place, list[Records]]:
    """The records of each partition."""
    found: dict[Place, list[Records]] = {}
    for each in records:
        topic = origin(each, ends)
        if topic is None:
            raise UserError(f"which topic were the records of {each.topic} read from?",
                            hint="give each topic that is renamed by a transform a connector of its own")
        assert each.partitions is not None, "records of a sink come from partitions"
        for partition in np.unique(each.partitions).tolist():
            mine = np.flatnonzero(each.partitions == partition)
            found.setdefault((topic, partition), []).append(each if len(mine) == len(each) else each.take(mine))
    return found


def _translated(error: OSError) -> Retriable | UserError:
    said = f"{error.filename or 'the file'}: {error.strerror or error}"
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError | FileExistsError):
        return UserError(said)
    return Retriable(said, retry_after_s=RETRY_AFTER_S, hint="is the disk full?")
