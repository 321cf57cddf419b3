"""`publish`: makes MLflow's alias follow the model topic."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import ClassVar

import pyarrow as pa
from pydantic import Field

from headrace.batch import Batch
from headrace.config import Config
from headrace.control import Switch
from headrace.loop.steps import events_of, registry
from headrace.processor import Context, Processor

log = logging.getLogger("headrace.publish")


class PublishConfig(Config):
    """The aliases."""

    champion: str = Field("champion", description="The alias of the version that is in charge.")
    challenger: str = Field("challenger", description="The alias of a canary's or shadow's version.")


class Publish(Processor):
    """Switches in, the same switches out once MLflow's alias says what they say.

    The alias is a copy for people and tools: the topic is the authority. A repeat changes nothing, and an older switch
    never overwrites a newer one, since the alias carries the switch's offset. Waits while MLflow does not answer.
    """

    Config: ClassVar[type[Config]] = PublishConfig

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        return {"success": schema}

    def open(self, ctx: Context) -> None:
        self._store = registry(ctx)

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        """Raises Retriable while MLflow does not answer."""
        from headrace.loop.models import NoSuchModel

        config: PublishConfig = self.config
        if ctx.settings is None:
            return {"success": batch}
        for switch, at in events_of(batch, Switch):
            alias = config.champion if switch.mode in ("full", "off") else config.challenger
            if switch.mode == "off":
                continue
            try:
                moved = self._store().set_alias(switch.model, alias, switch.to, at.offset_last)
                ctx.count("publish", "moved" if moved else "older", 1)
            except NoSuchModel as error:  # the switch stands; there is only nothing to show it by
                ctx.count("publish", "unknown", 1)
                log.warning("no such version", extra={"model": switch.model, "version": switch.to, "at": str(at),
                                                      "reason": str(error)})
        return {"success": batch}
