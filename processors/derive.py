"""derive: adds columns computed from the record's own fields."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict, model_validator

from headrace.batch import Batch
from headrace.config import Config
from headrace.errors import SchemaError
from headrace.expressions import Expressions, compile_expression, compile_many
from headrace.processor import Context, Origin, Processor


class DeriveConfig(Config):
    """New column → SQL expression over the columns that come in (none sees another new one)."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, str]

    @model_validator(mode="after")
    def _names(self) -> DeriveConfig:
        if not self.__pydantic_extra__:
            raise ValueError("derive needs at least one column, e.g. {route: \"origin || '-' || dest\"}")
        for name in self.__pydantic_extra__:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"“{name}” cannot name a column: Avro takes letters, digits and _, no digit first")
        return self


class Derive(Processor):
    """Outputs: `success`, with the new columns last, in the order written; and, where an expression has a CAST,
    `failure`: the records as they came, for which a CAST failed, with the reasons."""

    Config = DeriveConfig
    _derived: Expressions
    _input: pa.Schema
    _schema: pa.Schema

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        for name in self.config.__pydantic_extra__:
            if name in schema.names:
                raise SchemaError(f"derive would replace the column “{name}” that is there already",
                                  hint="choose another name; `select` can drop the old one and rename the new one")
        self._input = schema
        self._derived = compile_many(self.config.__pydantic_extra__, schema)
        self._schema = pa.schema([*schema, *self._derived.fields], metadata=schema.metadata)
        return {"success": self._schema, "failure": schema} if self._derived.casts else {"success": self._schema}

    def origins(self, relationship: str) -> Mapping[str, Origin] | None:
        if relationship == "failure":
            return None
        rows = self._input
        made = {name: Origin(compile_expression(text, rows).columns)
                for name, text in self.config.__pydantic_extra__.items()}
        return {**{name: Origin((name,), copy=True) for name in rows.names}, **made}

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        made = self._derived.evaluate(batch.rows)
        rows = pa.RecordBatch.from_arrays([*batch.rows.columns, *made.arrays.values()], schema=self._schema)
        whole = batch.with_rows(rows)
        if made.failed is None:
            return {"success": whole}
        return {"success": whole.take(pc.invert(made.failed)),
                "failure": batch.take(made.failed).with_reasons(made.reasons())}
