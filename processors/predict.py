"""`predict`: what a registered model says of each row, by the version in charge at that moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from headrace.batch import Batch
from headrace.config import Config
from headrace.errors import Retriable, SchemaError, UserError
from headrace.loop.serving import Server, Serving
from headrace.loop.split import assign
from headrace.loop.steps import registry
from headrace.marked import nearest
from headrace.processor import Context, Processor

if TYPE_CHECKING:
    from headrace.loop.models import Loaded

HEARD, SHADOW = "success", "shadow"


class PredictConfig(Config):
    """Which model, and what its columns are called."""

    model: str = Field(description="The model's name in the model registry.", min_length=1)
    as_: str = Field("prediction", alias="as", description="The column that takes the probability, a double.")
    version_as: str = Field("model_version", description="The column that takes the version that made it.")
    arm_as: str | None = Field(None, description="A column that says whether the row was the champion's or the "
                               "challenger's, for an A/B test; none, if left out.")
    missing: Literal["wait", "null"] = Field(
        "wait", description="While no version is in charge: wait for one, or let the rows pass with null.")
    swap: Literal["when_ready", "at_once"] = Field(
        "when_ready", description="when_ready: the version before goes on until the next is loaded. at_once: every "
        "record read after a switch is committed gets the new one, at the price of waiting for it.")
    key: str | None = Field(None, description="The column by which a canary's rows are picked, always the same ones. "
                            "Left out: the record's key.")
    shadow: bool = Field(False, description=f"Whether to give the output `{SHADOW}`: the rows as a shadowing version "
                         "would have them.")


class Predict(Processor):
    """Rows, each with its prediction and the version that made it.

    Follows the model topic; a version is loaded and warmed beside the stream and swapped in between two batches. A
    version that reads a column the rows lack, or of another kind, is not swapped in.
    """

    Config: ClassVar[type[Config]] = PredictConfig

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        """The input's columns and two more. Raises SchemaError for a clash, or a `key` that is not there."""
        config: PredictConfig = self.config
        added = [pa.field(config.as_, pa.float64()), pa.field(config.version_as, pa.string()),
                 *([pa.field(config.arm_as, pa.string())] if config.arm_as else [])]
        for name in (field.name for field in added):
            if name in schema.names:
                raise SchemaError(f"the rows have a column “{name}” already", hint="call it otherwise with `as` or "
                                                                                   "`version_as`")
        if config.key is not None:
            if config.key not in schema.names:
                raise SchemaError(f"the key “{config.key}” is no column of the rows{nearest(config.key, schema.names)}")
            assign(pa.nulls(0, schema.field(config.key).type), config.model, {"champion": 1.0})  # its type can be a key
        self._rows = schema
        self._shape = pa.schema([*schema, *added], metadata=schema.metadata)
        return {HEARD: self._shape, **({SHADOW: self._shape} if config.shadow else {})}

    def notes(self, schema: pa.Schema) -> list[str]:
        return [f"follows the topic <control>.models for the version of {self.config.model} in charge"]

    def open(self, ctx: Context) -> None:
        """Raises Retriable while the model topic cannot be read; one that is absent is created."""
        from headrace.topics import TopicPlan, ensure

        config: PredictConfig = self.config
        settings = ctx.settings
        self._server: Server | None = None
        if settings is None:
            return
        self._topic = f"{ctx.control}.models"
        ensure(settings, [TopicPlan(self._topic, 1, {"cleanup.policy": "compact", "retention.ms": "-1"})])
        self._server = Server(settings, config.model, topic=self._topic, check=self._check,
                              store=registry(ctx)).start()
        self._server.settled()

    def _check(self, loaded: Loaded) -> None:
        names = self._rows.names
        if missing := [name for name in loaded.features if name not in names]:
            raise UserError(f"it reads {', '.join(missing)}, which the rows lack", hint=f"the rows have "
                                                                                         f"{', '.join(names)}")
        kinds = pa.schema([self._rows.field(name) for name in loaded.features])
        try:
            loaded.predict(pa.RecordBatch.from_arrays([_plain(each.type) for each in kinds], schema=kinds))
        except (pa.ArrowException, TypeError, ValueError) as error:  # of columns of another kind than it was trained on
            raise UserError(f"it cannot read such rows: {str(error).splitlines()[0]}", hint=(
                "they have " + ", ".join(f"{each.name}: {each.type}" for each in kinds))) from error

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        """Raises Retriable while no version is in charge (`missing: wait`), or the one wanted is not there yet
        (`swap: at_once`)."""
        config: PredictConfig = self.config
        if self._server is None:
            serving = Serving()
        else:
            serving = self._server.settled() if config.swap == "at_once" else self._server.now()
        champion, challenger = serving.champion, serving.challenger
        if champion is None:
            if config.missing == "wait" and self._server is not None:
                raise Retriable(f"no version of {config.model} is in charge yet: {self._topic} has no switch of it",
                                retry_after_s=1.0, hint=f"headrace models promote {config.model} VERSION")
            ctx.count("predict", "without_model", len(batch))
            empty = pa.nulls(len(batch), pa.float64())
            return {HEARD: self._with(batch, empty, pa.nulls(len(batch), pa.string()), None)}
        scores = pa.array(champion.predict(batch.rows))
        versions = pa.repeat(pa.scalar(champion.version), len(batch))
        if challenger is None:
            return {HEARD: self._with(batch, scores, versions, "champion")}
        if serving.deployment.mode == "shadow":
            out = {HEARD: self._with(batch, scores, versions, "champion")}
            if config.shadow:
                beside = pa.repeat(pa.scalar(challenger.version), len(batch))
                out[SHADOW] = self._with(batch, pa.array(challenger.predict(batch.rows)), beside, "challenger")
            return out
        picked = self._canary(batch, serving)
        if picked.any():
            index = np.flatnonzero(picked)
            made = np.array(scores)
            made[index] = challenger.predict(batch.rows.take(pa.array(index)))
            scores = pa.array(made)
            versions = pc.if_else(pa.array(picked), challenger.version, versions)
        arms = pc.if_else(pa.array(picked), "challenger", "champion")
        return {HEARD: self._with(batch, scores, versions, arms)}

    def _canary(self, batch: Batch, serving: Serving) -> Any:
        """Which rows the challenger has: sticky by key, dealt anew for each challenger. A mask a row."""
        config: PredictConfig = self.config
        share = serving.deployment.share
        keys = batch.rows.column(config.key) if config.key else pa.array(batch.meta.keys(), pa.binary())
        arms = assign(keys, f"{config.model}/{serving.deployment.challenger}",
                      {"champion": 1.0 - share, "challenger": share})
        return pc.fill_null(pc.equal(arms, "challenger"), False).to_numpy(zero_copy_only=False)

    def _with(self, batch: Batch, scores: pa.Array, versions: pa.Array, arms: Any) -> Batch:
        columns = [*batch.rows.columns, scores, versions]
        if self.config.arm_as:
            columns.append(arms if isinstance(arms, pa.Array) else
                           pa.repeat(pa.scalar(arms, pa.string()), len(batch)))
        return batch.with_rows(pa.RecordBatch.from_arrays(columns, schema=self._shape))

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


def _plain(kind: pa.DataType) -> pa.Array:
    """One value of a type, an unremarkable one: 0, or an empty text; null where there is no such thing."""
    try:
        return pa.array([""] if pa.types.is_string(kind) or pa.types.is_dictionary(kind) else [0]).cast(kind)
    except pa.ArrowException:
        return pa.nulls(1, kind)
