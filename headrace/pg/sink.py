"""The PostgreSQL sink: inserts, upserts and deletes by COPY, exactly once.

One put is one transaction, in this order:
1. the offsets of its partitions are locked in the table `headrace_offsets`: what another task, or this one before its
   connection was lost, has stored already is left out of the put;
2. tables are made, or given columns, where they may be;
3. rows go by COPY into a temporary table, and from there into theirs by one statement (plain inserts: at once);
4. the new offsets are written, and all of it is committed.
So a put that is repeated does nothing, and two tasks that both believe a partition to be theirs store each record once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, SecretStr, model_validator

from headrace.config import Config, Names
from headrace.connector import RecordsRefused
from headrace.errors import Retriable
from headrace.files.places import Place, beyond
from headrace.pg import offsets
from headrace.pg.common import RETRY_AFTER_S, connect, of_the_row, quoted, reason, translated
from headrace.pg.rows import KeyFrom, Layout, Rows, column_list, copy_text, rounds, wanted
from headrace.pg.table import Table, fitting, look

if TYPE_CHECKING:
    from headrace.records import Records

REFUSED_MAX = 500
"""Rows named in one RecordsRefused; the rest of a poll is tried again without them."""
CHANGED = ("42P01", "42703")
"""SQLSTATE of a table that is not what it was when we looked."""


class PostgresSinkConfig(Config):
    """A sink of class `postgres`. Keys are the JDBC sink's where it has them."""

    connection: SecretStr = Field(description="Where: postgresql://user:password@host:5432/database, or a libpq DSN. "
                                  "A secret; ${env:NAME} keeps it out of the file.")
    table: str = Field("${topic}", pattern=r"^[^.]+(\.[^.]+)?$", description="The table, perhaps with its schema; "
                       "`${topic}` is the topic's name, with `.` and `-` as `_`.")
    insert_mode: Literal["insert", "upsert"] = Field(
        "insert", alias="insert.mode", description="`insert`: every record is a row; `upsert`: the last record of each "
        "key is its row, which needs a primary key or unique index of just those columns.")
    pk_mode: KeyFrom | None = Field(
        None, alias="pk.mode", description="Where the key is: `record_key`, `record_value`, or `none`. Left out: in "
        "the value where pk.fields is given, else for upsert in the record's key; with deletes always there.")
    pk_fields: Names = Field((), alias="pk.fields", description="The key's fields, with commas between; for a key that "
                             "is no record, the one column that takes it. Left out: all fields of the record's key.")
    delete_enabled: bool = Field(False, alias="delete.enabled", description="true: a record without a value deletes "
                                 "the row of its key. Needs insert.mode=upsert.")
    auto_create: bool = Field(False, alias="auto.create", description="true: make a table that is absent, in the shape "
                              "of the records.")
    auto_evolve: bool = Field(False, alias="auto.evolve", description="true: give a table the columns it lacks; they "
                              "are null in the rows it has.")

    @model_validator(mode="after")
    def _together(self) -> PostgresSinkConfig:
        if self.delete_enabled and self.insert_mode != "upsert":
            raise ValueError("delete.enabled: only with insert.mode=upsert")
        if self.delete_enabled and self.key_from != "record_key":
            raise ValueError("delete.enabled: a record without a value has only its key: pk.mode=record_key")
        if self.insert_mode == "upsert" and self.key_from == "none":
            raise ValueError("pk.mode: upsert needs a key: record_key or record_value")
        if self.key_from == "record_value" and not self.pk_fields:
            raise ValueError("pk.fields: which fields of the value are the key?")
        return self

    @property
    def key_from(self) -> KeyFrom:
        if self.pk_mode is not None:
            return self.pk_mode
        if self.pk_fields and not self.delete_enabled:
            return "record_value"
        return "record_key" if self.insert_mode == "upsert" else "none"


class PostgresSink:
    """Records → rows. One thread uses it, after `open`. A lost connection is made anew by the next call."""

    Config: ClassVar[type[Config]] = PostgresSinkConfig
    exactly_once: ClassVar[bool] = True

    def __init__(self, config: PostgresSinkConfig, *, project: Path, name: str) -> None:
        self.config, self.name = config, name
        self.layout = Layout(config.table, config.key_from, config.pk_fields, config.delete_enabled)
        self._connection: Any = None
        self._tables: dict[tuple[str, ...], Table] = {}
        """As they looked when we last asked, or changed them ourselves."""

    def open(self, partitions: Collection[Place]) -> Mapping[Place, int]:
        """Where the database says each of them goes on."""
        found = self._transaction(lambda cursor: offsets.read(cursor, self.name), "reading the offsets")
        return {place: at for place, at in found.items() if place in set(partitions)}

    def put(self, records: Sequence[Records], ends: Mapping[Place, int]) -> None:
        """One transaction; see the module's docstring."""
        self._put(records, ends, again=bool(self._tables))

    def _put(self, records: Sequence[Records], ends: Mapping[Place, int], *, again: bool) -> None:
        """`again`: a table may not be what we remember, which is worth another look."""
        import psycopg

        tried: list[Rows] = []
        try:
            self._transaction(lambda cursor: self._store(cursor, records, ends, tried), "writing", raw=True)
        except psycopg.Error as error:
            self._tables = {}
            if again and error.sqlstate in CHANGED:
                return self._put(records, ends, again=False)
            if of_the_row(error):
                raise RecordsRefused(self._blame(tried, error)) from None
            into = ".".join(tried[-1].table) if tried else "the offsets"
            raise translated(error, f"writing to {into}") from error
        except BaseException:
            self._tables = {}
            raise

    def alter(self, positions: Mapping[Place, int | None]) -> None:
        """Go on elsewhere at the next `open`: at an offset; None is where Kafka's committed offset says."""
        self._transaction(lambda cursor: offsets.change(cursor, self.name, positions), "changing the offsets")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- one transaction

    def _transaction(self, work: Callable[[Any], Any], doing: str, *, raw: bool = False) -> Any:
        """`work` within a transaction. A connection that fails is given up. With `raw` psycopg's errors come as they
        are."""
        import psycopg

        if self._connection is None or self._connection.closed:
            self._connection = connect(self.config.connection, name=self.name)
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                return work(cursor)
        except psycopg.Error as error:
            if self._connection.closed or self._connection.broken or error.sqlstate is None:
                self.close()
            if raw:
                raise
            raise translated(error, doing) from error

    def _store(self, cursor: Any, records: Sequence[Records], ends: Mapping[Place, int], tried: list[Rows]) -> None:
        """`tried` takes what is written, in order, for whoever has to look for the row that does not fit."""
        stored = offsets.lock(cursor, self.name, ends)
        groups: list[Rows] = []
        reasons: dict[int, str] = {}
        for each in records:
            fresh = beyond(each, stored, ends)
            if len(fresh):
                made, refused = self.layout.rows(fresh)
                groups += made
                reasons |= refused
        if reasons:
            raise RecordsRefused(reasons)
        used: set[str] = set()
        for rows in rounds(self._prepare(cursor, groups)):
            tried.append(rows)
            self._write(cursor, rows, used)
        offsets.write(cursor, self.name, ends)

    def _prepare(self, cursor: Any, groups: Sequence[Rows]) -> list[Rows]:
        """The tables of all rows, before the first of them: whoever changes a table waits for all who read it. Gives
        the rows back, without what has nowhere to go and is nothing: deletes from a table that is not there yet, nulls
        in a column that is not."""
        ready = []
        for name in dict.fromkeys(rows.table for rows in groups):
            mine = [rows for rows in groups if rows.table == name]
            known = self._tables.get(name) or look(cursor, name)
            if known is None and self.config.auto_create and all(rows.delete for rows in mine):
                continue
            mine = [rows.without_nulls(known) for rows in mine]
            self._tables[name] = fitting(cursor, name, wanted(mine), mine[0].key, known=known,
                                         may_create=self.config.auto_create, may_evolve=self.config.auto_evolve)
            ready += mine
        return ready

    def _write(self, cursor: Any, rows: Rows, used: set[str]) -> None:
        """`used` are the temporary tables that have rows of this transaction."""
        table = self._tables[rows.table]
        fields = rows.columns.schema.names
        names = [table.named(name) or name for name in fields]
        types = {field: table.columns[name].type for field, name in zip(fields, names, strict=True)}
        target = quoted(*rows.table)
        if self.config.insert_mode == "insert":
            _copy(cursor, f"{target} ({column_list(names)})", copy_text(rows, types, numbered=False))
            return
        columns = ", ".join(f"{quoted(name)} {table.columns[name].type}" + " NOT NULL" * table.columns[name].required
                            for name in names)
        passing = quoted("headrace_" + hashlib.sha256(f"{target}{columns}".encode()).hexdigest()[:16])
        cursor.execute(f"CREATE TEMP TABLE IF NOT EXISTS {passing} (headrace_at bigint, {columns}) "
                       "ON COMMIT DELETE ROWS")
        if passing in used:
            cursor.execute(f"TRUNCATE pg_temp.{passing}")
        used.add(passing)
        _copy(cursor, f"pg_temp.{passing} (headrace_at, {column_list(names)})", copy_text(rows, types, numbered=True))
        key = [table.named(name) or name for name in rows.key]
        cursor.execute((_delete if rows.delete else _upsert)(target, f"pg_temp.{passing}", names, key))

    # -- which row it was

    def _blame(self, tried: Sequence[Rows], error: Exception) -> dict[int, str]:
        """Reasons by place: all is written again, piece by piece, each piece that fails in halves; then taken back."""
        import psycopg

        reasons: dict[int, str] = {}

        def search(cursor: Any) -> None:
            used: set[str] = set()
            for rows in self._prepare(cursor, tried):
                self._search(cursor, rows, used, reasons)
            raise psycopg.Rollback

        self._transaction(search, "looking for the row that does not fit")
        self._tables = {}
        if not reasons:
            raise Retriable(f"PostgreSQL refused rows, and takes them now: {error}", retry_after_s=RETRY_AFTER_S)
        return reasons

    def _search(self, cursor: Any, rows: Rows, used: set[str], reasons: dict[int, str]) -> None:
        """What of the rows fits is written, for what comes behind to be seen beside it (a unique key, say)."""
        import psycopg

        waiting = [rows]
        while waiting and len(reasons) < REFUSED_MAX:
            piece = waiting.pop()
            try:
                with cursor.connection.transaction():  # a savepoint
                    self._write(cursor, piece, used)
            except psycopg.Error as error:
                if not of_the_row(error):
                    raise
                if len(piece) == 1:
                    reasons[int(piece.index[0])] = reason(error)
                    continue
                parts = [piece.take(span) for span in _spans(len(piece), error.diag.context)]
                waiting += [part for part in reversed(parts) if len(part)]


def _spans(n: int, context: str | None) -> tuple[slice, ...]:
    """How to cut n rows in pieces: around the line that COPY names (a guess: texts may have line ends), else in two."""
    line = re.search(r"\bline (\d+)", context or "")
    at = int(line[1]) - 1 if line else n
    return (slice(0, at), slice(at, at + 1), slice(at + 1, n)) if at < n else (slice(0, n // 2), slice(n // 2, n))


def _copy(cursor: Any, target: str, text: bytes) -> None:
    with cursor.copy(f"COPY {target} FROM STDIN (FORMAT csv)") as copy:
        copy.write(text)


def _upsert(target: str, passing: str, names: Sequence[str], key: Sequence[str]) -> str:
    """The last of each key, in the order of the keys: two tasks on one table then wait, and do not deadlock."""
    keys, all_of = column_list(key), column_list(names)
    others = [name for name in names if name not in key]
    sets = ", ".join(f"{quoted(name)} = EXCLUDED.{quoted(name)}" for name in others)
    then = f"UPDATE SET {sets}" if others else "NOTHING"
    return (f"INSERT INTO {target} ({all_of}) SELECT DISTINCT ON ({keys}) {all_of} FROM {passing} "
            f"ORDER BY {keys}, headrace_at DESC ON CONFLICT ({keys}) DO {then}")


def _delete(target: str, passing: str, names: Sequence[str], key: Sequence[str]) -> str:
    same = " AND ".join(f"had.{quoted(name)} = gone.{quoted(name)}" for name in key)
    return f"DELETE FROM {target} AS had USING {passing} AS gone WHERE {same}"
