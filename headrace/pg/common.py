"""What the PostgreSQL source and sink share: the connection, its errors in our words, identifiers, types."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import SecretStr

from headrace.errors import MissingExtra, Retriable, SchemaError, UserError

if TYPE_CHECKING:
    from psycopg import Connection, Error

CONNECT_TIMEOUT_S = 10
RETRY_AFTER_S = 1.0
LOCK_TIMEOUT_S = 30
"""Longer than any put: who waits longer waits for one that is stopped, and may try again."""
SILENCE: dict[str, Any] = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
                           "tcp_user_timeout": 30_000}
"""A server that is cut off is noticed within half a minute."""
SESSION = (f"SET TimeZone='UTC'; SET DateStyle='ISO, YMD'; SET IntervalStyle='iso_8601'; SET lock_timeout='"
           f"{LOCK_TIMEOUT_S}s'; SET idle_in_transaction_session_timeout='{2 * LOCK_TIMEOUT_S}s'")
REFUSED = re.compile(r"authentication failed|no password supplied|pg_hba\.conf|does not exist|permission denied|"
                     r"is not permitted to log in|certificate|does not support SSL|not known", re.IGNORECASE)
"""What libpq says of a connection that no waiting mends. (It gives no code for these.)"""
RETRIABLE = ("08", "40", "53", "55", "57", "58")
"""SQLSTATE classes: connection, serialization and deadlock, resources, not in that state, operator, system."""
OF_THE_ROW = ("22", "23", "54", "P0")
"""SQLSTATE classes: data, integrity, too large for an index, raised by a trigger."""


def connect(connection: SecretStr, *, name: str, autocommit: bool = False) -> Connection[Any]:
    """A connection whose session speaks UTC, ISO and UTF-8. `name` is the connector's, seen in pg_stat_activity.

    Raises MissingExtra, UserError (no such database, wrong password, no DSN), Retriable when the server is away. No
    text of ours has the DSN in it: it holds the password.
    """
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise MissingExtra("postgres", "PostgreSQL") from error
    try:
        given = conninfo_to_dict(connection.get_secret_value())
    except psycopg.ProgrammingError:
        raise UserError("connection: neither a URL nor a DSN that PostgreSQL reads",
                        hint="postgresql://user:password@host:5432/database") from None
    settled = {"connect_timeout": CONNECT_TIMEOUT_S, **SILENCE, "application_name": f"headrace {name}"[:63], **given,
               "client_encoding": "utf8"}
    where = f"PostgreSQL at {given.get('host', 'localhost')}:{given.get('port', 5432)}"
    try:
        made: Connection[Any] = psycopg.connect(**settled, autocommit=True)
        made.execute(SESSION.encode())
        made.autocommit = autocommit
    except psycopg.Error as error:
        said = _first_line(error)
        if REFUSED.search(said):
            raise UserError(f"{where} does not let us in: {said}",
                            hint="are user, password and database of `connection` right?") from None
        raise Retriable(f"{where} does not answer: {said}", retry_after_s=RETRY_AFTER_S) from None
    return made


def of_the_row(error: Error) -> bool:
    """Whether an error is of the data sent, which another try will not mend."""
    return (error.sqlstate or "").startswith(OF_THE_ROW)


def translated(error: Error, doing: str) -> Retriable | UserError:
    """What to raise for an error that is not of the rows. `doing`: "writing to flights"."""
    import psycopg

    said = f"PostgreSQL, {doing}: {_first_line(error)}"
    lost = error.sqlstate is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    if lost or (error.sqlstate or "").startswith(RETRIABLE):
        return Retriable(said, retry_after_s=RETRY_AFTER_S)
    return UserError(said, hint=error.diag.message_hint)


def reason(error: Error) -> str:
    """Why a row is refused, for people: the message, and the column or constraint where it is of one."""
    where = error.diag.column_name or error.diag.constraint_name
    detail = error.diag.message_detail if error.diag.constraint_name else None
    said = error.diag.message_primary or _first_line(error)
    named = f"{where}: " if where and where not in said else ""
    return f"{named}{said}" + (f" ({detail})" if detail else "")


def _first_line(error: Error) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).strip()


def quoted(*names: str) -> str:
    """An identifier, of as many parts as are given: quoted("public", 'a"b') is "public"."a""b"."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def table_name(template: str, topic: str) -> tuple[str, ...]:
    """A table's name, perhaps with its schema: `${topic}` is the topic with `.` and `-` as `_`."""
    plain = topic.replace(".", "_").replace("-", "_")
    return tuple(part.replace("${topic}", plain) for part in template.split("."))


_FIXED = {
    "bool": "boolean", "int8": "smallint", "int16": "smallint", "int32": "integer", "int64": "bigint",
    "uint8": "smallint", "uint16": "integer", "uint32": "bigint", "uint64": "numeric(20,0)", "halffloat": "real",
    "float": "real", "double": "double precision", "string": "text", "large_string": "text", "string_view": "text",
    "binary": "bytea", "large_binary": "bytea", "binary_view": "bytea", "null": "text",
}


def pg_of(kind: pa.DataType) -> str:
    """PostgreSQL's type for an Arrow type; lists, structs and maps are jsonb. Raises SchemaError."""
    is_ = pa.types
    if str(kind) in _FIXED:
        return _FIXED[str(kind)]
    if is_.is_decimal(kind):
        return f"numeric({kind.precision},{kind.scale})"
    if is_.is_timestamp(kind):
        return "timestamp with time zone" if kind.tz else "timestamp without time zone"
    if is_.is_dictionary(kind):
        return pg_of(kind.value_type)
    for test, name in ((is_.is_date, "date"), (is_.is_time, "time without time zone"), (is_.is_nested, "jsonb"),
                       (is_.is_fixed_size_binary, "bytea")):
        if test(kind):
            return name
    raise SchemaError(f"PostgreSQL has no type for Arrow's {kind}")


_ARROW: dict[str, pa.DataType] = {
    "boolean": pa.bool_(), "smallint": pa.int16(), "integer": pa.int32(), "bigint": pa.int64(), "real": pa.float32(),
    "double precision": pa.float64(), "bytea": pa.binary(), "date": pa.date32(), "oid": pa.int64(),
    "time without time zone": pa.time64("us"), "timestamp without time zone": pa.timestamp("us"),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
}
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")
DIGITS_MAX = 38


def arrow_of_pg(name: str) -> pa.DataType:
    """The Arrow type for PostgreSQL's, written as `format_type` gives it: "numeric(10,2)", "integer[]".

    What has no type of its own is text: PostgreSQL's own way to write it, e.g. of uuid, jsonb, intervals, enums, and
    of a numeric without a scale, which no Arrow type holds exactly.
    """
    if name.endswith("[]"):
        return pa.list_(arrow_of_pg(name[:-2]))
    digits = _NUMERIC.fullmatch(name)
    if digits is not None and int(digits[1]) <= DIGITS_MAX:
        return pa.decimal128(int(digits[1]), int(digits[2]))
    bare = re.sub(r"\(\d+\)", "", name)  # "timestamp(3) with time zone"
    return _ARROW.get(bare, pa.string())
