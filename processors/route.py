"""route: sends each record to the first of several outputs whose expression holds."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict, model_validator

from headrace.batch import Batch
from headrace.config import Config
from headrace.errors import ExpressionError
from headrace.expressions import Expressions, compile_many
from headrace.processor import Context, Processor

_TAKEN = {"unmatched", "success", "failure"}


class RouteConfig(Config):
    """Output → SQL expression, in order: a record leaves by the first whose expression is true."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, str]

    @model_validator(mode="after")
    def _names(self) -> RouteConfig:
        if not self.__pydantic_extra__:
            raise ValueError("route needs at least one output, e.g. {late: \"dep_delay > 15\"}")
        for name in self.__pydantic_extra__:
            if name in _TAKEN or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
                raise ValueError(f"“{name}” cannot name an output: it is a word of letters, digits, - and _, and "
                                 f"none of {', '.join(sorted(_TAKEN))}")
        return self


class Route(Processor):
    """Outputs: each name of the config, and `unmatched` for records for which no expression is true (false or null,
    a failed CAST among them). A step that reads from a route says which output: `from: split.late`."""

    Config = RouteConfig
    main = "unmatched"
    _routes: Expressions

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        texts = self.config.__pydantic_extra__
        self._routes = compile_many(texts, schema)
        for field in self._routes.fields:
            if not pa.types.is_boolean(field.type):
                raise ExpressionError(f"“{field.name}”, “{texts[field.name]}”, is {field.type}, and not true or false",
                                      hint="compare it with something, e.g. `… > 0` or `… IS NOT NULL`")
        return {**dict.fromkeys(texts, schema), "unmatched": schema}

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        out, left = {}, None
        for name, hit in self._routes.evaluate(batch.rows).arrays.items():
            holds = pc.fill_null(hit, False)
            mine = holds if left is None else pc.and_(holds, left)
            if mine.true_count:
                out[name] = batch.take(mine)
            left = pc.invert(holds) if left is None else pc.and_not(left, holds)
        assert left is not None
        if left.true_count:
            out["unmatched"] = batch.take(left)
        return out
