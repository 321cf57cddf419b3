"""select: keeps, drops, renames and casts columns."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from headrace.batch import Batch
from headrace.config import Config
from headrace.errors import SchemaError
from headrace.expressions import Expressions, compile_many
from headrace.processor import Context, Origin, Processor

_TYPES: Mapping[str, tuple[str, pa.DataType]] = {
    "boolean": ("BOOLEAN", pa.bool_()), "int": ("INTEGER", pa.int32()), "long": ("BIGINT", pa.int64()),
    "float": ("REAL", pa.float32()), "double": ("DOUBLE", pa.float64()), "string": ("VARCHAR", pa.string()),
    "date": ("DATE", pa.date32()),
    "timestamp-millis": ("TIMESTAMPTZ", pa.timestamp("ms", "UTC")),
    "timestamp-micros": ("TIMESTAMPTZ", pa.timestamp("us", "UTC")),
    "local-timestamp-millis": ("TIMESTAMP", pa.timestamp("ms")),
    "local-timestamp-micros": ("TIMESTAMP", pa.timestamp("us"))}
"""Avro's name → its name in an expression, and its Arrow type."""
_DECIMAL = re.compile(r"decimal\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)")


def _type(name: str) -> tuple[str, pa.DataType] | None:
    sized = _DECIMAL.fullmatch(name)
    if sized is None:
        return _TYPES.get(name)
    precision, scale = int(sized[1]), int(sized[2])
    if not 0 <= scale <= precision <= 38 or precision == 0:
        return None
    return f"DECIMAL({precision}, {scale})", pa.decimal128(precision, scale)


class SelectConfig(Config):
    keep: list[str] | None = Field(None, description="The columns to keep, in this order; all others go.")
    drop: list[str] = Field([], description="The columns to leave out; all others stay, in their order.")
    rename: dict[str, str] = Field({}, description="Column → its new name.")
    cast: dict[str, str] = Field({}, description="Column (by its old name) → an Avro type: boolean, int, long, float, "
                                                 "double, string, date, timestamp-millis, timestamp-micros, "
                                                 "local-timestamp-millis, local-timestamp-micros, decimal(p, s).")

    @field_validator("cast")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        for column, name in value.items():
            if _type(name) is None:
                raise ValueError(f"“{name}”, for {column}, is not a type: there are {', '.join(_TYPES)}, decimal(p, s)")
        return value

    @field_validator("rename")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value.values():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"“{name}” cannot name a column: Avro takes letters, digits and _, no digit first")
        return value

    @model_validator(mode="after")
    def _something(self) -> SelectConfig:
        if self.keep is not None and self.drop:
            raise ValueError("say what to keep or what to drop, not both")
        if self.keep is None and not (self.drop or self.rename or self.cast):
            raise ValueError("select needs one of keep, drop, rename, cast")
        if self.keep is not None and len(set(self.keep)) < len(self.keep):
            raise ValueError("a column is kept twice")
        return self


class Select(Processor):
    """Outputs: `success`; and, where there is a cast, `failure`: the records as they came whose value does not fit
    the new type, with the reasons."""

    Config = SelectConfig
    _columns: list[str]
    _casts: Expressions | None
    _schema: pa.Schema

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        config: SelectConfig = self.config
        for column in (*(config.keep or ()), *config.drop, *config.rename, *config.cast):
            if column not in schema.names:
                raise SchemaError(f"select names the column “{column}”, which is not there",
                                  hint=f"there are {', '.join(schema.names)}")
        self._columns = [c for c in schema.names if c not in config.drop] if config.keep is None else config.keep
        for column in (*config.rename, *config.cast):
            if column not in self._columns:
                raise SchemaError(f"select renames or casts the column “{column}” and does not keep it",
                                  hint="keep it, or leave the cast out")
        cast = {column: _type(name) for column, name in config.cast.items()}
        texts = {c: f"""CAST("{c.replace('"', '""')}" AS {t[0]})""" for c, t in cast.items() if t is not None}
        self._casts = compile_many(texts, schema) if texts else None
        nullable = {f.name: f.nullable for f in self._casts.fields} if self._casts else {}
        fields = []
        for column in self._columns:
            field, to = schema.field(column), cast.get(column)
            if to is not None:
                field = pa.field(column, to[1], nullable[column])
            fields.append(field.with_name(config.rename.get(column, column)))
        names = [f.name for f in fields]
        if len(set(names)) < len(names):
            raise SchemaError(f"select gives two columns one name: {sorted({n for n in names if names.count(n) > 1})}",
                              hint="rename one of them otherwise, or drop it")
        self._schema = pa.schema(fields, metadata=schema.metadata)
        fails = self._casts is not None and self._casts.casts
        return {"success": self._schema, "failure": schema} if fails else {"success": self._schema}

    def origins(self, relationship: str) -> Mapping[str, Origin] | None:
        renamed = self.config.rename
        return None if relationship == "failure" else {
            renamed.get(name, name): Origin((name,), copy=True) for name in self._columns}

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        made = self._casts.evaluate(batch.rows) if self._casts else None
        arrays = []
        for column, field in zip(self._columns, self._schema, strict=True):
            array = made.arrays[column] if made and column in made.arrays else batch.rows.column(column)
            arrays.append(array if array.type == field.type else pc.cast(array, field.type, safe=False))
        whole = batch.with_rows(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        if made is None or made.failed is None:
            return {"success": whole}
        return {"success": whole.take(pc.invert(made.failed)),
                "failure": batch.take(made.failed).with_reasons(made.reasons())}
