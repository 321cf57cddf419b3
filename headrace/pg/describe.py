"""What a table or a query looks like to whoever reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace.errors import UserError
from headrace.marked import nearest
from headrace.pg.common import arrow_of_pg, quoted
from headrace.pg.reading import PostgresSourceConfig

XMIN = "xmin"
AVRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
COUNTED = ("smallint", "integer", "bigint")
TIMES = ("date", "timestamp")
KIND = "SELECT relkind::text FROM pg_class WHERE oid = to_regclass(%s)"
REQUIRED = """SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND attnotnull
              AND NOT attisdropped"""
PRIMARY = """SELECT a.attname FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
             WHERE i.indrelid = to_regclass(%s) AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place"""
TYPES = """SELECT format_type(t.oid, t.modifier) FROM unnest(%s::oid[], %s::int[]) WITH ORDINALITY
           AS t (oid, modifier, place) ORDER BY t.place"""


@dataclass(frozen=True, slots=True)
class Table:
    """A relation. `kinds` are PostgreSQL's types, as it writes them."""

    shown: str
    """For people."""
    source: str
    """What stands behind FROM."""
    kinds: Mapping[str, str]
    required: frozenset[str]
    """Columns that are never null."""
    order: tuple[str, ...]
    """What its rows are read in the order of; together they tell rows apart."""
    by_xid: bool
    """Whether rows say which transaction they are of."""
    counts: bool
    """Whether the column that grows is a number, and no time."""

    @property
    def names(self) -> Sequence[str]:
        return list(self.kinds)

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(name, arrow_of_pg(kind), nullable=name not in self.required)
                          for name, kind in self.kinds.items()])

    @property
    def selected(self) -> list[str]:
        """The columns; arrays as the JSON of their items' texts."""
        return [f"to_json({quoted(name)}::text[])::text" if kind.endswith("[]") else quoted(name)
                for name, kind in self.kinds.items()]

    @property
    def avro_name(self) -> str | None:
        """The name of its records; None where the table's is none."""
        bare = self.shown.rpartition(".")[2]
        return bare if AVRO_NAME.fullmatch(bare) else None


def describe(connection: Any, config: PostgresSourceConfig) -> Table:
    """Raises UserError: no such table or column, a type that does not grow, no key."""
    if config.table is not None:
        name = quoted(*config.table.split("."))
        kind = connection.execute(KIND, [name]).fetchone()
        if kind is None:
            raise UserError(f"there is no table {config.table}", hint="may this user see it? is its schema right?")
        if kind[0] not in ("r", "p"):
            raise UserError(f"{config.table} is no table but a view or the like, whose rows are of no transaction",
                            hint="say it as a query: SELECT * FROM …")
        source, shown = name, config.table
        required = frozenset(row[0] for row in connection.execute(REQUIRED, [name]).fetchall())
        primary = tuple(row[0] for row in connection.execute(PRIMARY, [name]).fetchall())
    else:
        assert config.query is not None
        source, shown = f"({config.query.strip().rstrip(';')}\n) AS query", config.topic
        required, primary = frozenset(), ()
    kinds = _columns(connection, source)
    by_xid = config.table is not None or kinds.pop(XMIN, None) is not None
    key = config.key_columns or primary
    if config.table is not None and not key:
        raise UserError(f"{shown} has no primary key", hint="name the columns that tell its rows apart: key.columns")
    for column in (*key, *([config.column] if config.column else ())):
        if column not in kinds:
            raise UserError(f"{shown} has no column {column}{nearest(column, list(kinds))}")
    counts = _grows(config, kinds, shown)
    if config.overlap is not None and not by_xid:
        raise UserError("overlap: rows that are read again must be known again, by their transaction",
                        hint="let the query give a column xmin, of the table that its rows are about")
    led = config.column if config.column and (config.query or config.column in required) else None
    order = tuple(dict.fromkeys([*([led] if led else []), *key]))
    return Table(shown, source, kinds, required, order, by_xid, counts)


def _grows(config: PostgresSourceConfig, kinds: Mapping[str, str], shown: str) -> bool:
    kind = kinds[config.column] if config.column else ""
    if config.overlap is not None and not kind.startswith((*COUNTED, *TIMES)):
        raise UserError(f"{shown}: {config.column} is {kind}, which cannot be counted back by {config.overlap}",
                        hint="overlap needs integers, a date or a timestamp; leave it out")
    return kind in COUNTED


def _columns(connection: Any, source: str) -> dict[str, str]:
    result = connection.execute(f"SELECT * FROM {source} LIMIT 0".encode()).pgresult
    places = range(result.nfields)
    names = [result.fname(at).decode() for at in places]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"the query gives {', '.join(twice)} twice", hint="name its columns apart: … AS …")
    types = connection.execute(TYPES, [[result.ftype(at) for at in places], [result.fmod(at) for at in places]])
    return dict(zip(names, (row[0] for row in types.fetchall()), strict=True))
