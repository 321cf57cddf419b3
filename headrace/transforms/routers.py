"""RegexRouter, TimestampRouter: another topic, by the topic's name or the record's time."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, Field, model_validator

from headrace.records import Records
from headrace.transforms.base import HIGH, Refuse, Text, Transform, TransformConfig, some
from headrace.transforms.dates import format_ms, tokens
from headrace.transforms.javaregex import compiled, template


class RegexRouterConfig(TransformConfig):
    """From which topics to which."""

    regex: Text = Field(description="The topics to rename: a regular expression of Java's that the whole name "
                        "matches.", json_schema_extra=HIGH)
    replacement: Text = Field(description="The new name; $1, ${name} stand for groups of the expression.",
                              json_schema_extra=HIGH)

    @model_validator(mode="after")
    def _check(self) -> RegexRouterConfig:
        try:
            regex = compiled(self.regex)
        except ValueError as error:
            raise ValueError(f"regex: “{self.regex}”: {error}") from None
        try:
            template(self.replacement, regex)
        except ValueError as error:
            raise ValueError(f"replacement: “{self.replacement}”: {error}") from None
        return self


class RegexRouter(Transform[RegexRouterConfig]):
    """Renames topics that match; the first place that matches is replaced."""

    Config = RegexRouterConfig

    def apply(self, records: Records, refuse: Refuse) -> list[Records]:
        regex = compiled(self.config.regex)
        if not regex.fullmatch(records.topic):
            return [records]
        made = template(self.config.replacement, regex)
        return [records.but(topic=regex.sub(lambda found: "".join(
            each if isinstance(each, str) else found[each] or "" for each in made), records.topic, count=1))]


def _pattern(text: str) -> str:
    try:
        tokens(text)
    except ValueError as error:
        raise ValueError(f"“{text}”: {error}") from None
    return text


class TimestampRouterConfig(TransformConfig):
    """How the topic is named."""

    topic_format: Text = Field("${topic}-${timestamp}", alias="topic.format", description="The new topic's name; "
                               "${topic} and ${timestamp} stand for the old one and the record's time.",
                               json_schema_extra=HIGH)
    timestamp_format: Annotated[Text, AfterValidator(_pattern)] = Field(
        "yyyyMMdd", alias="timestamp.format", description="The pattern of the time, as Java's SimpleDateFormat has "
        "it, in UTC and English.", json_schema_extra=HIGH)


class TimestampRouter(Transform[TimestampRouterConfig]):
    """Routes by time: as many topics as there are different times in the pattern."""

    Config = TimestampRouterConfig

    @cached_property
    def per_day(self) -> bool:
        """Whether the pattern says nothing shorter than a day."""
        return not any(token.letter and token.letter in "aHkKhmsS" for token in tokens(self.config.timestamp_format))

    def apply(self, records: Records, refuse: Refuse) -> list[Records]:
        timeless = records.timestamps_ms < 0
        if timeless.any():
            refuse(records.index[timeless].tolist(), "the record has no time to name a topic by")
            if timeless.all():
                return []
            records = some(records, ~timeless)
        times = records.timestamps_ms
        if self.per_day:
            times = times // 86_400_000 * 86_400_000
        different, which = np.unique(times, return_inverse=True)
        written = format_ms(self.config.timestamp_format, pa.array(different)).dictionary_encode()
        topics, of_time = written.dictionary.to_pylist(), np.asarray(written.indices)
        which = of_time[which]
        return [some(records, which == at).but(topic=self._named(records.topic, topic))
                for at, topic in enumerate(topics)]

    def _named(self, topic: str, time: str) -> str:
        return self.config.topic_format.replace("${topic}", topic).replace("${timestamp}", time)
