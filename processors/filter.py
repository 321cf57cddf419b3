"""filter: lets records pass for which an expression holds."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from headrace.batch import Batch
from headrace.config import Config
from headrace.errors import ExpressionError
from headrace.expressions import Expression, compile_expression
from headrace.processor import Context, Processor


class FilterConfig(Config):
    where: str = Field(description="An SQL expression that is true, false or null; only where it is true a record "
                                   "passes.", examples=["distance > 2000 AND carrier <> 'AA'"])


class Filter(Processor):
    """Outputs: `success`, where the expression is true; `unmatched`, where it is false or null."""

    Config = FilterConfig
    _where: Expression

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        self._where = compile_expression(self.config.where, schema, where="where")
        if not pa.types.is_boolean(self._where.type):
            raise ExpressionError(f"where, “{self.config.where}”, is {self._where.type}, and not true or false",
                                  hint="compare it with something, e.g. `… > 0` or `… IS NOT NULL`")
        return {"success": schema, "unmatched": schema}

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        passes = pc.fill_null(self._where.evaluate(batch.rows), False)
        if passes.false_count == 0:
            return {"success": batch}
        return {"success": batch.take(passes), "unmatched": batch.take(pc.invert(passes))}
