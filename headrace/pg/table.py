"""What a PostgreSQL table looks like; made where it is absent, and given the columns it lacks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.errors import UserError
from headrace.pg.common import quoted

DDL_LOCK = 0x68656164
"""An advisory lock: two tasks that make the same table at once would stand in each other's way."""
LOOK = """
SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A column as the records have it."""

    type: str
    required: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is there: column → its type as PostgreSQL writes it, and NOT NULL or not."""

    name: tuple[str, ...]
    columns: Mapping[str, Wanted]

    def named(self, column: str) -> str | None:
        """The column a field goes to: of its name, or of its name in small letters; None when there is none."""
        return next((name for name in (column, column.lower()) if name in self.columns), None)


def look(cursor: Any, name: tuple[str, ...]) -> Table | None:
    """The table, if it is there."""
    found = cursor.execute(LOOK, [quoted(*name)]).fetchall()
    return Table(name, {column: Wanted(kind, bool(required)) for column, kind, required in found}) if found else None


def create(cursor: Any, name: tuple[str, ...], columns: Mapping[str, Wanted], key: Collection[str]) -> None:
    """CREATE TABLE, unless another task did so just now."""
    parts = [f"{quoted(column)} {of.type}{' NOT NULL' if of.required or column in key else ''}"
             for column, of in columns.items()]
    if key:
        parts.append(f"PRIMARY KEY ({', '.join(map(quoted, key))})")
    cursor.execute(f"SELECT pg_advisory_xact_lock({DDL_LOCK})")
    cursor.execute(f"CREATE TABLE IF NOT EXISTS {quoted(*name)} ({', '.join(parts)})".encode())


def add(cursor: Any, name: tuple[str, ...], columns: Mapping[str, Wanted]) -> None:
    """ALTER TABLE: what is there already has no value for a new column, so that it takes null."""
    parts = [f"ADD COLUMN IF NOT EXISTS {quoted(column)} {of.type}" for column, of in columns.items()]
    cursor.execute(f"ALTER TABLE {quoted(*name)} {', '.join(parts)}".encode())


def fitting(cursor: Any, name: tuple[str, ...], columns: Mapping[str, Wanted], key: Collection[str], *,
            known: Table | None, may_create: bool, may_evolve: bool) -> Table:
    """The table with all these columns. `known` is what it looked like before. Raises UserError where it lacks some
    and may not be changed."""
    shown = ".".join(name)
    table = known or look(cursor, name)
    if table is None:
        if not may_create:
            raise UserError(f"there is no table {shown}", hint="create it, or set auto.create=true")
        create(cursor, name, columns, key)
        table = look(cursor, name)
        assert table is not None, "a table that was just made"
    missing = {column: of for column, of in columns.items() if table.named(column) is None}
    if missing and known is not None:
        return fitting(cursor, name, columns, key, known=None, may_create=may_create, may_evolve=may_evolve)
    if missing and not may_evolve:
        raise UserError(f"table {shown} has no column {', '.join(missing)}",
                        hint="add it, set auto.evolve=true, or drop the field with the transform ReplaceField")
    if missing:
        add(cursor, name, missing)
        table = look(cursor, name)
        assert table is not None, "a table that was just altered"
    return table
