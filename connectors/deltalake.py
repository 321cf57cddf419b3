"""The Delta Lake sink: rows are appended to tables, each commit with Kafka's offsets in it, exactly once.

An offset is an application transaction of Delta's protocol, `<connector>/<topic>/<partition>` at version <next offset>:
part of the commit that adds the rows. Whoever commits beside a table's newer version with the same application fails,
looks again, and leaves out what is there. So a put that is repeated does nothing, nor does a zombie's.
Where one put goes to several tables, each has the offsets of all of it, and that of the topic itself comes last.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, SecretStr, field_validator

from headrace.config import Config, Names
from headrace.connector import RecordsRefused
from headrace.errors import MissingExtra, Retriable, UserError
from headrace.files.places import Place, beyond

if TYPE_CHECKING:
    from headrace.records import Records

CONFLICTS_MAX = 10
RETRY_AFTER_S = 1.0
OFFSETS_EVERY_S = 60.0
"""How often offsets alone are committed, where every record of a poll was filtered out."""
NO_VALUE = "it has no value, and a Delta table is appended to: the transform Filter drops such records"


class DeltaSinkConfig(Config):
    """A sink of class `deltalake`."""

    table: str = Field(min_length=1, description="The table: a folder, relative to the project's, or a URI (s3://, "
                       "gs://, az://, …). `${topic}` is the topic's name.")
    partition_by: Names = Field((), alias="partition.by", description="The columns that a new table is partitioned by, "
                                "with commas between.")
    auto_create: bool = Field(True, alias="auto.create", description="true: make a table that is absent, in the shape "
                              "of the records; every column may be null.")
    auto_evolve: bool = Field(True, alias="auto.evolve", description="true: give a table the columns it lacks; they "
                              "are null in the rows it has.")
    storage_options: SecretStr = Field(
        SecretStr("{}"), alias="storage.options", description="What the object store needs, as a JSON object of text: "
        '{"AWS_REGION": "eu-west-1", …}. A secret.')

    @field_validator("storage_options")
    @classmethod
    def _object(cls, given: SecretStr) -> SecretStr:
        try:
            parsed = json.loads(given.get_secret_value())
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict) or not all(isinstance(value, str) for value in parsed.values()):
            raise ValueError("must be a JSON object whose values are text")
        return given


class DeltalakeSink:
    """Records → appended rows. One thread uses it."""

    Config: ClassVar[type[Config]] = DeltaSinkConfig
    exactly_once: ClassVar[bool] = True
    batch_records: ClassVar[int] = 100_000
    """A commit is a file a partition, and an entry of the log that every reader reads: few and large are better."""
    linger_s: ClassVar[float] = 2.0

    def __init__(self, config: DeltaSinkConfig, *, project: Path, name: str) -> None:
        self.config, self.project, self.name = config, project, name
        self._tables: dict[str, Any] = {}
        self._told_s: dict[str, float] = {}

    def open(self, partitions: Collection[Place]) -> Mapping[Place, int]:
        """Where the tables of their topics say each of them goes on."""
        self._tables = {}
        found = {}
        for place in partitions:
            table = self._table(self._uri(place[0]))
            at = None if table is None else table.transaction_version(self._app(place))
            if at is not None and at >= 0:
                found[place] = at
        return found

    def put(self, records: Sequence[Records], ends: Mapping[Place, int]) -> None:
        """A commit a table; see the module's docstring."""
        homes = list(dict.fromkeys(self._uri(topic) for topic, _ in ends))
        groups: dict[str, list[Records]] = {}
        reasons: dict[int, str] = {}
        for each in records:
            dead = np.flatnonzero(pc.is_null(each.value.values).to_numpy(zero_copy_only=False))
            reasons |= dict.fromkeys(each.index[dead].tolist(), NO_VALUE)
            groups.setdefault(self._uri(each.topic), []).append(each)
        uris = [*(uri for uri in groups if uri not in homes), *homes]
        for uri in uris if len(uris) > 1 and not reasons else ():  # what is refused is told before anything is stored
            self._rows(self._table(uri), groups.get(uri, ()), reasons)
        if reasons:
            raise RecordsRefused(reasons)
        for uri in uris:
            self._append(uri, groups.get(uri, ()), ends)

    def alter(self, positions: Mapping[Place, int | None]) -> None:
        """Go on elsewhere at the next `open`: at an offset; None is where Kafka's committed offset says. Raises
        UserError for a topic without a table."""
        for place, at in positions.items():
            table = self._table(self._uri(place[0]), fresh=True)
            if table is None:
                raise UserError(f"{place[0]} has no Delta table yet", hint="its offsets are Kafka's group's")
            self._offsets_only(table, {place: -1 if at is None else at})

    def close(self) -> None:
        self._tables = {}

    # -- one table

    def _append(self, uri: str, groups: Sequence[Records], ends: Mapping[Place, int]) -> None:
        from deltalake import exceptions, write_deltalake

        for attempt in range(CONFLICTS_MAX):
            table = self._table(uri, fresh=attempt > 0)
            try:
                if table is None and not any(map(len, groups)):
                    return
                table = table or self._create(uri, groups)
                stored = self._stored(table, ends)
                fresh = [beyond(each, stored, ends) for each in groups]
                news = {place: at for place, at in ends.items() if at > stored.get(place, -1)}
                reasons: dict[int, str] = {}
                rows = self._rows(table, fresh, reasons)
                if reasons:
                    raise RecordsRefused(reasons)
                if not rows.num_rows:
                    if news and time.monotonic() > self._told_s.get(uri, -OFFSETS_EVERY_S) + OFFSETS_EVERY_S:
                        self._offsets_only(table, news)
                        self._told_s[uri] = time.monotonic()
                    return
                wider = len(rows.schema.names) > len(pa.schema(table.schema().to_arrow()).names)
                write_deltalake(table, rows, mode="append", schema_mode="merge" if wider else None,
                                commit_properties=self._commit(news))
                self._told_s[uri] = time.monotonic()
                return
            except exceptions.CommitFailedError as error:
                failed = error
            except (exceptions.DeltaError, OSError) as error:
                self._tables.pop(uri, None)
                raise _translated(error, uri) from None
        raise Retriable(f"{_shown(uri)}: {CONFLICTS_MAX} commits in a row were in conflict with others: {failed}",
                        retry_after_s=RETRY_AFTER_S)

    def _rows(self, table: Any, groups: Iterable[Records], reasons: dict[int, str]) -> pa.Table:
        """Everything in the columns of the table, and new ones behind them. `reasons` takes what does not fit."""
        some = [(each, each.rows()) for each in groups if len(each)]
        known = pa.schema(table.schema().to_arrow()) if table is not None else pa.schema([])
        target = list(known)
        for _, rows in some:
            for field in rows.schema:
                if field.name not in [has.name for has in target] and not pa.types.is_null(field.type):
                    target.append(pa.field(field.name, _widest(field.name, [rows.schema for _, rows in some])))
        added = [field.name for field in target[len(known):]]
        if table is not None and added and not self.config.auto_evolve:
            raise UserError(f"{_shown(table.table_uri)} has no column {', '.join(added)}",
                            hint="set auto.evolve=true, or drop the field with the transform ReplaceField")
        made = [_fitted(each, rows, target, reasons) for each, rows in some]
        return pa.Table.from_batches([] if reasons else made, schema=pa.schema(target))

    def _table(self, uri: str, *, fresh: bool = False) -> Any:
        """The table, with what we know of it; None when there is none. Raises Retriable, UserError."""
        try:
            from deltalake import DeltaTable, exceptions
        except ImportError as error:
            raise MissingExtra("deltalake", "a Delta table") from error
        try:
            if uri not in self._tables:
                self._tables[uri] = DeltaTable(uri, storage_options=self._options())
            elif fresh:
                self._tables[uri].update_incremental()
        except exceptions.TableNotFoundError:
            return None
        except (exceptions.DeltaError, OSError) as error:
            self._tables.pop(uri, None)
            raise _translated(error, uri) from None
        return self._tables[uri]

    def _create(self, uri: str, groups: Sequence[Records]) -> Any:
        """Made empty, so that the first rows, too, are a commit that another's can be in conflict with."""
        from deltalake import DeltaTable

        if not self.config.auto_create:
            raise UserError(f"there is no Delta table {_shown(uri)}", hint="create it, or set auto.create=true")
        schema = self._rows(None, groups, {}).schema
        missing = [name for name in self.config.partition_by if name not in schema.names]
        if missing:
            raise UserError(f"partition.by: the records have no field {', '.join(missing)}",
                            hint=f"they have {', '.join(schema.names)}")
        if "://" not in uri:
            Path(uri).mkdir(parents=True, exist_ok=True)
        self._tables[uri] = DeltaTable.create(uri, schema, mode="ignore", storage_options=self._options(),
                                              partition_by=list(self.config.partition_by) or None)
        return self._tables[uri]

    def _stored(self, table: Any, ends: Mapping[Place, int]) -> dict[Place, int]:
        found = {place: table.transaction_version(self._app(place)) for place in ends}
        return {place: -1 if at is None else at for place, at in found.items()}

    def _offsets_only(self, table: Any, news: Mapping[Place, int]) -> None:
        table.create_write_transaction([], "append", table.schema(), commit_properties=self._commit(news))
        table.update_incremental()

    def _commit(self, news: Mapping[Place, int]) -> Any:
        from deltalake import CommitProperties, Transaction

        marks = [Transaction(app_id=self._app(place), version=at) for place, at in sorted(news.items())]
        return CommitProperties(app_transactions=marks)

    def _app(self, place: Place) -> str:
        return f"{self.name}/{place[0]}/{place[1]}"

    def _uri(self, topic: str) -> str:
        text = self.config.table.replace("${topic}", topic)
        return text if "://" in text else str(self.project / text)

    def _options(self) -> dict[str, str] | None:
        return json.loads(self.config.storage_options.get_secret_value()) or None


def _fitted(records: Records, rows: pa.RecordBatch, target: Sequence[pa.Field], reasons: dict[int, str]) -> Any:
    """The rows in these columns; why some do not fit, by place in the poll."""
    columns = []
    for field in target:
        at = rows.schema.get_field_index(field.name)
        column = pa.nulls(len(rows), field.type) if at < 0 else rows.column(at)
        try:
            column = column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            for bad, why in _unfit(column, field.type, 0):
                reasons.setdefault(int(records.index[bad]), f"{field.name}: {why}")
            return None
        if not field.nullable and column.null_count:
            null = np.flatnonzero(pc.is_null(column).to_numpy(zero_copy_only=False))
            reasons |= dict.fromkeys(records.index[null].tolist(), f"{field.name}: null, and the column is NOT NULL")
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(target))


def _unfit(column: pa.Array, kind: pa.DataType, first: int) -> list[tuple[int, str]]:
    """(position, why) of the values that are none of the type, found by halves."""
    try:
        column.cast(kind)
        return []
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        if len(column) == 1:
            return [(first, str(error))]
    half = len(column) // 2
    return _unfit(column[:half], kind, first) + _unfit(column[half:], kind, first + half)


def _widest(name: str, schemas: Sequence[pa.Schema]) -> pa.DataType:
    """The type of a column that several structures have: what holds all their values, or the first one's."""
    fields = [pa.schema([pa.field(name, stored_as(schema.field(name).type))]) for schema in schemas
              if name in schema.names]
    try:
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowTypeError:
        return fields[0].field(0).type


def stored_as(kind: pa.DataType) -> pa.DataType:
    """The type a new column of a Delta table has: every field may be null, times of the day are text."""
    is_ = pa.types
    if is_.is_struct(kind):
        return pa.struct([pa.field(field.name, stored_as(field.type)) for field in kind])
    if is_.is_map(kind):
        return pa.map_(stored_as(kind.key_type), stored_as(kind.item_type))
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind):
        return pa.list_(stored_as(kind.value_type))
    if is_.is_dictionary(kind):
        return stored_as(kind.value_type)
    if is_.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if is_.is_time(kind) or is_.is_null(kind) or (is_.is_decimal(kind) and kind.precision > 38):
        return pa.string()
    other = {"uint8": pa.int16(), "uint16": pa.int32(), "uint32": pa.int64(), "uint64": pa.decimal128(20, 0),
             "halffloat": pa.float32(), "date64[ms]": pa.date32()}
    return pa.binary() if is_.is_fixed_size_binary(kind) else other.get(str(kind), kind)


def _shown(uri: str) -> str:
    return uri.removeprefix("file://")


def _translated(error: Exception, uri: str) -> Retriable | UserError:
    """An object store that does not answer is an OSError; what Delta refuses is not worth another try."""
    plain = re.sub(r"\x1b\[\d*m", "", str(error)).replace("↳", "").split()
    said = f"{_shown(uri)}: {' '.join(plain)[:500] or type(error).__name__}"
    return Retriable(said, retry_after_s=RETRY_AFTER_S) if isinstance(error, OSError) else UserError(said)


SINK = DeltalakeSink
"""What `headrace connect` runs for `connector.class: deltalake`."""
