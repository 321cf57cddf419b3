"""What the PostgreSQL source is told."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from headrace.config import TOPIC_NAME, Config, Names

Overlap = Annotated[int | None, BeforeValidator(lambda v: None if v == "all" else v)]


class PostgresSourceConfig(Config):
    """A source of class `postgres`."""

    connection: SecretStr = Field(description="Where: postgresql://user:password@host:5432/database, or a libpq DSN. "
                                  "A secret; ${env:NAME} keeps it out of the file. It need only read.")
    topic: str = Field(pattern=TOPIC_NAME, description="The topic to write.")
    table: str | None = Field(None, pattern=r"^[^.]+(\.[^.]+)?$", description="The table to read, perhaps with its "
                              "schema.")
    query: str | None = Field(None, min_length=1, description="Or: a SELECT whose rows are read. With a column xmin, "
                              "of the table that its rows are about, late rows are not missed.")
    column: str | None = Field(None, min_length=1, description="The column that grows: integers, or times. A query "
                               "needs one; a table's rows come in its order, where it is never null.")
    key_columns: Names = Field((), alias="key.columns", description="What tells rows apart, with commas between. Left "
                               "out: the table's primary key; of a query, the column alone.")
    overlap: Overlap = Field(
        None, ge=0, description="How far behind the largest value of the column rows may still turn up: a number, or "
        "seconds where it is a time. So much is read again, by the column's index, and no row comes twice. Left out, "
        "or `all`: any row may; the whole table is read whenever something was written.")
    interval_ms: int = Field(5000, alias="interval.ms", ge=10, description="From one reading to the next, in "
                             "milliseconds.")

    @model_validator(mode="after")
    def _together(self) -> PostgresSourceConfig:
        if (self.table is None) == (self.query is None):
            raise ValueError("table: is missing; “table” or “query” says what to read" if self.table is None else
                             "query: there is a “table”, too; take one")
        if self.query is not None and self.column is None:
            raise ValueError("column: is missing: how far is the query read? by a column that grows")
        if self.overlap is not None and self.column is None:
            raise ValueError("overlap: of what? say “column”")
        return self
