"""The PostgreSQL source: the rows of a table or a query, as they are inserted and updated, each version once.

How no row is lost, though rows become visible in another order than their ids and times say: a column that grows cannot
tell. (One transaction takes id 5, another one takes id 6 and commits; who reads now and goes on behind 6 never sees 5.)
So what is new is told by a row's transaction, the system column xmin, and not by the column. `pg_snapshot_xmin` is the
oldest transaction that still runs; all before it are settled: each of their rows is visible now, or never will be.
A *window* is the rows of the transactions from one such horizon up to the next. Every transaction is in one window, and
is settled when that window is read: so no row is missed and none comes twice, whatever order they commit in, savepoints
and prepared transactions included. Rows that are visible, but not settled yet, wait for their window: a transaction
that stays open, anywhere on the server, holds back all that began after it. A horizon counts once the server's log is
on its disk up to there: else a crash could give a transaction's number, which we have passed, to another one.

Within a window rows are read by one COPY in the order of the column and the key, or of the key alone where the column
may be null; the position says behind which row to go on, so that a kill, a lost connection or a statement that ran too
long costs nothing. Nothing in the database is locked, and a snapshot is held for STATEMENT_S at most.

What it costs: xmin has no index, so every window that is not empty reads the whole table, unless `overlap` says how far
behind the largest value of the column a row may still turn up: then only that much is read, by the column's index; a
row that turns up farther behind is missed. That is the one assumption there is, and it is the user's to make.

What it cannot do: rows that are deleted leave no trace (that is for logical replication); of versions that follow each
other between two windows the last one comes. Whatever writes rows anew (a restored dump, ALTER TABLE … TYPE) brings
them again. A row that was frozen 2^32 transactions ago may come again once: `overlap` prevents that, too. After a
failover that lost transactions, begin anew.
A query has the same guarantee where it gives a column xmin (of the table whose rows it is about). Else it goes by the
column alone: rows that turn up behind the largest value are missed.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pyarrow as pa

from headrace.connector import Pulled
from headrace.errors import HeadraceError, UserError
from headrace.pg.common import connect, quoted, translated
from headrace.pg.copied import CopyOut, rows_of
from headrace.pg.describe import Table, describe
from headrace.pg.reading import PostgresSourceConfig
from headrace.records import Column
from headrace.records.records import one

T = TypeVar("T")
WAIT_S = 0.5
FLUSHED_S = 0.05
STATEMENT_S = 600
IDLE_XIDS_MAX = 100_000_000
"""So far the stored horizon may be behind: xmin has 32 bits, of which half can be compared."""
XID_MASK = (1 << 32) - 1
HORIZON = """SELECT pg_snapshot_xmin(pg_current_snapshot())::text,
             CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_current_wal_insert_lsn() - '0/0'::pg_lsn END,
             current_setting('wal_block_size')::int"""
FLUSHED = """SELECT pg_is_in_recovery() OR pg_current_wal_flush_lsn() - '0/0'::pg_lsn >= %s"""
PAGE_HEADER_MAX = 40


@dataclass(frozen=True, slots=True)
class Place:
    """Where it stands. Before `xid` everything is read; within the window up to `to`, behind `after`."""

    xid: int | None = None
    to: int | None = None
    after: tuple[str, ...] = ()
    high: str | None = None
    """The largest value of the column in the windows before this one, as text."""

    @classmethod
    def of(cls, position: Mapping[str, Any] | None) -> Place:
        if position is None:
            return cls()
        return cls(position.get("xid"), position.get("to"), tuple(position.get("after", ())), position.get("high"))

    def json(self) -> dict[str, Any]:
        given = {"xid": self.xid, "to": self.to, "after": list(self.after), "high": self.high}
        return {name: value for name, value in given.items() if value not in (None, [])}


class PostgresSource:
    """One thread uses it."""

    Config: ClassVar[type[PostgresSourceConfig]] = PostgresSourceConfig

    def __init__(self, config: PostgresSourceConfig, *, project: Path) -> None:
        self.config = config
        self.ended = False
        self.partition = {"table": config.table} if config.table else {"query": config.topic}
        self._connection: Any = None
        self._copy: CopyOut | None = None

    def open(self, stored: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> None:
        """Raises UserError (no such table, no key), Retriable while the database is away."""
        self._place = Place.of(stored(self.partition))
        self._stored_xid = self._place.xid
        self._due = 0.0
        self._guarded(self._connected)

    def pull(self, records_max: int) -> Pulled | None:
        """Between two readings, and while a horizon is not settled, None. Raises Retriable while the database is away:
        the next pull takes another connection, and goes on."""
        return self._guarded(lambda: self._pull(records_max))

    def _guarded(self, do: Callable[[], T]) -> T:
        """Translates the client's errors, and lets go of the connection: the next pull goes on with another one."""
        try:
            return do()
        except Exception as error:
            self.close()
            self._due = 0.0
            if isinstance(error, HeadraceError):
                raise
            from psycopg import Error

            if not isinstance(error, Error):
                raise
            raise translated(error, f"reading {self.config.table or 'the query'}") from error

    def _connected(self) -> None:
        if self._connection is None:
            self._connection = connect(self.config.connection, name=self.config.topic, autocommit=True)
            self._connection.execute(f"SET statement_timeout='{STATEMENT_S}s'; SET bytea_output='hex'; "
                                     "SET default_transaction_read_only=on; SET extra_float_digits=1")
        self._table = describe(self._connection, self.config)

    def _pull(self, records_max: int) -> Pulled | None:
        if self._copy is None:
            wait_s = self._due - time.monotonic()
            if wait_s > 0:
                time.sleep(min(wait_s, WAIT_S))
            if wait_s > WAIT_S or not self._begin():
                return None
        assert self._copy is not None
        raws = self._copy.read(records_max, WAIT_S)
        if self._copy.ended:
            self._copy = None
            return self._last(raws)
        return self._piece(raws, self._after(raws)) if raws else None

    # ---- windows

    def _begin(self) -> bool:
        """Begins to read the next window, or the rest of one; False when nothing was written since the last."""
        self._connected()
        self._due = time.monotonic() + self.config.interval_ms / 1e3
        place = self._place
        if self._table.by_xid and place.to is None:
            horizon = self._horizon()
            if horizon is None:
                return False
            if place.xid is not None and horizon < place.xid:
                raise UserError(f"the database is at transaction {horizon:,}, and was read up to {place.xid:,}",
                                hint="was it restored, or is it another one? --reset begins anew")
            if horizon == place.xid:
                return False
            self._place = place = Place(place.xid, horizon, (), place.high)
        self._high = place.high
        self._copy = CopyOut(self._connection, self._statement(place))
        return True

    def _horizon(self) -> int | None:
        """All transactions before it are settled, for good; None when the server's log is not on its disk yet."""
        text, inserted, page = self._connection.execute(HORIZON).fetchone()
        if inserted % page <= PAGE_HEADER_MAX:  # the next record's place; the last one ended before the page's header
            inserted -= inserted % page
        end = time.monotonic() + WAIT_S
        while not self._connection.execute(FLUSHED, [inserted]).fetchone()[0]:
            if time.monotonic() > end:
                self._due = 0.0
                return None
            time.sleep(FLUSHED_S)
        return int(text)

    def _statement(self, place: Place) -> bytes:
        from psycopg import sql

        table = self._table
        conditions = [*self._window(place), *self._near(place)]
        if place.after:
            values = [f"{sql.Literal(text).as_string(self._connection)}::{table.kinds[name]}"
                      for name, text in zip(table.order, place.after, strict=True)]
            conditions.append(f"({', '.join(map(quoted, table.order))}) > ({', '.join(values)})")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return (f"COPY (SELECT {', '.join(table.selected)} FROM {table.source}{where} ORDER BY "
                f"{', '.join(map(quoted, table.order))}) TO STDOUT (FORMAT csv)").encode()

    def _window(self, place: Place) -> list[str]:
        """Which transactions. Their numbers are compared on the circle of 32 bits that xmin has."""
        if not self._table.by_xid:
            return []
        number, to = "xmin::text::bigint", place.to
        if place.xid is not None:
            assert to is not None
            return [f"(({to - 1} - {number}) & {XID_MASK}) < {to - place.xid}"]
        unsettled = f"pg_snapshot_xmax(pg_current_snapshot())::text::bigint - {to}"
        return [f"(({number} - {to}) & {XID_MASK}) >= {unsettled}"]

    def _near(self, place: Place) -> list[str]:
        """How far behind the largest value rows are looked for."""
        from psycopg import sql

        column, overlap = self.config.column, self.config.overlap
        if overlap is None or place.high is None or column is None:
            return []
        kind = self._table.kinds[column]
        back = f"{overlap}" if self._table.counts else f"interval '{overlap} s'"
        near = f"{quoted(column)} >= {sql.Literal(place.high).as_string(self._connection)}::{kind} - {back}"
        return [near if column in self._table.required else f"({near} OR {quoted(column)} IS NULL)"]

    def _after(self, raws: Sequence[bytes]) -> Place:
        place = self._place
        return Place(place.xid, place.to, self._keys(raws[-1]), place.high)

    def _last(self, raws: Sequence[bytes]) -> Pulled | None:
        """What came at the end of a window, and the place behind it."""
        place = self._place
        if not self._table.by_xid:
            return self._piece(raws, self._after(raws)) if raws else None
        begun = bool(place.after)
        made = self._piece(raws, place)
        self._place = Place(place.to, high=self._high)
        if len(made) or begun or (place.to or 0) - (self._stored_xid or 0) > IDLE_XIDS_MAX:
            self._stored_xid = place.to
            return Pulled(made.partition, self._place.json(), made.records, made.where, made.raw, made.failures)
        return None

    # ---- rows

    def _keys(self, raw: bytes) -> tuple[str, ...]:
        """The cells of a row that the order is by."""
        cells = next(csv.reader(io.StringIO(raw.decode(), newline="")))
        return tuple(cells[self._table.names.index(name)] for name in self._table.order)

    def _piece(self, raws: Sequence[bytes], place: Place) -> Pulled:
        table: Table = self._table
        rows, kept, reasons = rows_of(raws, table.schema)
        for name in table.order:
            if rows.column(name).null_count:
                raise UserError(f"{table.shown}: {name} is null in some rows, and they are read in its order",
                                hint=f"add WHERE {name} IS NOT NULL to the query" if self.config.query else
                                "take other key.columns")
        if self.config.overlap is not None and self.config.column and len(rows):
            self._rise(rows.column(self.config.column))
        self._place = place
        labels = [f"{name}=" for name in table.order]

        def at(i: int) -> int:
            return i if kept is None else int(kept[i])

        def named(i: int) -> str:
            return f"{table.shown} {', '.join(map(str.__add__, labels, self._keys(raws[i])))}"

        failures = [(named(i), raws[i].rstrip(b"\n"), why) for i, why in sorted(reasons.items())]
        value = Column.of_rows(rows, name=table.avro_name)
        return Pulled(self.partition, place.json(), [one(self.config.topic, value)] if len(rows) else [],
                      lambda i: named(at(i)), lambda i: raws[at(i)].rstrip(b"\n"), failures)

    def _rise(self, values: pa.Array) -> None:
        """Keeps the largest value of the column."""
        import pyarrow.compute as pc

        most = pc.max(values)
        before = pa.scalar(self._high, pa.string()).cast(values.type)
        found = pc.max(pa.array([most.as_py(), before.as_py()], values.type))
        self._high = found.cast(pa.string()).as_py()

    def committed(self, pulled: Pulled) -> None:
        """Nobody waits for it."""

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._copy = None

