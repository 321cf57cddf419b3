"""`lookup`: adds what a table says of each row: a compacted topic, or a file; by key, or by key and time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from headrace import codec, keying
from headrace.batch import Batch
from headrace.codec import AvroSchema
from headrace.config import Config
from headrace.errors import EnvironmentFault, UserError
from headrace.eventtime import Duration, check_time, event_times
from headrace.joining.follow import FileRows, TopicRows
from headrace.joining.table import NOWHERE, Table
from headrace.joining.taking import Take, comparable, taken
from headrace.keying import Keys
from headrace.processor import Context, Processor

log = logging.getLogger("headrace.lookup")


class AsOfConfig(Config):
    """Of a table whose rows have times: the latest that is not after the row's own time."""

    left: str = Field(description="The column with the time of a row.")
    right: str = Field(description="The table's column with the time from which its rows hold.")
    within: Duration | None = Field(None, description="How old the table's row may be then, e.g. 2h; any age if left "
                                    "out.")


class LookupConfig(Config):
    """Where the table is, by what its rows are found, and what is taken of them."""

    topic: str | None = Field(None, description="A topic, by custom compacted: the last record of every key counts.")
    file: str | None = Field(None, description="A CSV, JSON Lines, Parquet or Avro file of the project; read again "
                             "when it changes.")
    schema_name: str | None = Field(
        None, alias="schema", description="The table's shape: `plane` is schemas/plane.avsc. A topic needs it; a "
        "file's is taken from its head where it is left out.")
    key: str | tuple[str, ...] = Field(description="The table's column, or columns, by which rows are found.")
    on: str | tuple[str, ...] | None = Field(
        None, description="The columns of the rows that must equal them. Left out: those of the same names.")
    take: Take = Field(None, description="What is added: a list of columns, or {new name: column}. Left out: all but "
                       "the key.")
    suffix: str | None = Field(None, description="Added to the names of columns that the rows have already, e.g. "
                               "_plane.", pattern="^[A-Za-z0-9_]+$")
    missing: Literal["null", "route"] = Field(
        "null", description="Rows that the table has nothing for: null leaves what is taken null, route sends them to "
        "the output `missing` as they came.")
    as_of: AsOfConfig | None = Field(None, description="For tables that have a row a key and time.")
    sample: str | None = Field(None, description="A file that stands for the topic where there is no broker, in "
                               "`headrace test`.")
    rows_max: int = Field(5_000_000, ge=1, description="Rows that the table, which is held in memory, may have.")

    @field_validator("missing", mode="before")
    @classmethod
    def _null(cls, value: Any) -> Any:
        return "null" if value is None else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.topic is None) == (self.file is None):
            raise ValueError("a lookup is in a `topic` or in a `file`")
        if self.topic is not None and self.schema_name is None:
            raise ValueError("a topic needs its `schema`")
        if self.sample is not None and self.topic is None:
            raise ValueError("a `sample` stands for a topic")
        if isinstance(self.take, dict) and self.suffix:
            raise ValueError("`suffix` renames columns that `take` names already")
        if len(self.columns()) != len(self.rows_on()) or not self.columns():
            raise ValueError("`on` names as many columns as `key`, at least one")
        return self

    def columns(self) -> tuple[str, ...]:
        return (self.key,) if isinstance(self.key, str) else self.key

    def rows_on(self) -> tuple[str, ...]:
        return self.columns() if self.on is None else (self.on,) if isinstance(self.on, str) else self.on


class Lookup(Processor):
    """Outputs: `success`, with what the table says added last; and with `missing: route`, `missing`: the rows, as they
    came, for which it has nothing.

    The table is in memory, whole, in every worker. Changes to it are taken in between batches, so that a row meets the
    table as it is when the row is processed: not what it was when the record was written, unless `as_of` says so.
    """

    Config: ClassVar[type[Config]] = LookupConfig

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        """Raises SchemaError: columns that are not there, cannot be compared, or clash. UserError: the file."""
        config: LookupConfig = self.config
        self._schema_of_table = self._avro()
        file = config.file or config.sample
        self._file = FileRows(self._path(file), self._schema_of_table) if file else None
        shape = self._schema_of_table.arrow if self._schema_of_table else self._file.shape  # type: ignore[union-attr]
        keying.check(config.columns(), shape, "key")
        keying.check(config.rows_on(), schema, "on")
        comparable(config.rows_on(), schema, config.columns(), shape)
        if config.as_of:
            check_time(config.as_of.left, schema, what="lookup's left time")
            check_time(config.as_of.right, shape, what="lookup's right time")
        self._shape = shape
        self._keys = Keys(config.rows_on(), schema)
        self._taken = taken(config.take, config.suffix, schema.names, shape.names, config.columns())
        routed = config.missing == "route"
        added = [shape.field(column).with_name(name) for name, column in self._taken.items()]
        self._out = pa.schema([*schema, *(f if routed else f.with_nullable(True) for f in added)],
                              metadata=schema.metadata)
        return {"success": self._out, **({"missing": schema} if routed else {})}

    def _avro(self) -> AvroSchema | None:
        name = self.config.schema_name
        return codec.load(self._path(f"schemas/{name}.avsc")) if name else None

    def _path(self, name: str) -> Path:
        found: Path = self.project / name
        if not found.is_file():
            raise UserError(f"there is no file {found}")
        return found

    def notes(self, schema: pa.Schema) -> list[str]:
        where = self.config.topic or self.config.file
        return [f"{where} is held in memory whole, and its changes are seen between batches: a replay meets the table "
                "as it is then"]

    def _empty(self) -> Table:
        config: LookupConfig = self.config
        return Table(self._shape, config.columns(), config.as_of.right if config.as_of else None, config.rows_max)

    def open(self, ctx: Context) -> None:
        """Reads the table. Raises UserError, BrokerError, RegistryError."""
        self._table = self._empty()
        self._topic: TopicRows | None = None
        if self.config.topic and ctx.settings is not None:
            assert self._schema_of_table is not None, "a topic has a schema"
            self._topic, self._file = TopicRows(ctx.settings, self.config.topic, self._schema_of_table), None
            self._topic.start(self._table)
        elif self._file:
            self._table = self._file.fill(self._empty) or self._table

    def close(self) -> None:
        if self._topic:
            self._topic.close()

    def _refresh(self, ctx: Context) -> None:
        """Take in what has changed. A file that cannot be read now is left as it was read before."""
        try:
            changed = self._topic.more(self._table) if self._topic else 0
            if self._file and (table := self._file.fill(self._empty)) is not None:
                self._table, changed = table, len(table)
        except (UserError, EnvironmentFault, OSError) as error:
            if self._topic:
                raise
            ctx.count("lookup", "unread", 1)
            log.warning("table left as it was", extra={"file": self.config.file, "reason": str(error)})
            return
        ctx.count("lookup", "changed", changed)

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        config: LookupConfig = self.config
        self._refresh(ctx)
        known = np.ones(len(batch), np.bool_)
        for column in config.rows_on():
            known &= batch.rows.column(column).is_valid().to_numpy(zero_copy_only=False)
        keys = self._keys.of(batch.rows)
        if config.as_of:
            timed, ms = event_times(batch.rows.column(config.as_of.left))
            known &= timed
            row = self._table.find_as_of(keys, ms, config.as_of.within)
        else:
            row = self._table.find(keys)
        found = known & (row != NOWHERE)
        ctx.count("lookup", "missing", len(batch) - int(found.sum()))
        if config.missing == "route" and not found.all():
            away = {"missing": batch.take(pa.array(~found))}
            batch, row, found = batch.take(pa.array(found)), row[found], found[found]
        else:
            away = {}
        index = pa.array(row, mask=~found)
        added = [_whole(pc.take(self._table.rows.column(column), index)) for column in self._taken.values()]
        rows = pa.RecordBatch.from_arrays([*batch.rows.columns, *added], schema=self._out)
        return {"success": batch.with_rows(rows), **away}


def _whole(column: pa.ChunkedArray) -> pa.Array:
    made = column.combine_chunks()
    return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made
