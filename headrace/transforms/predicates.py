"""TopicNameMatches, HasHeaderKey, RecordIsTombstone: for which records a transform is meant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Generic

import numpy as np
from pydantic import AfterValidator, Field

from headrace.records import Records
from headrace.transforms.base import MEDIUM, PACKAGE, C, Text, TransformConfig
from headrace.transforms.javaregex import compiled

Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Predicate(ABC, Generic[C]):
    """A question to records."""

    Config: ClassVar[type[TransformConfig]]

    def __init__(self, config: C) -> None:
        self.config = config

    @property
    def java(self) -> str:
        """Kafka Connect's name of this class."""
        return f"{PACKAGE}predicates.{type(self).__name__}"

    @abstractmethod
    def test(self, records: Records) -> Mask:
        """The answer for each record."""


def _some(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


def _regex(text: str) -> str:
    try:
        compiled(_some(text))
    except ValueError as error:
        raise ValueError(f"“{text}”: {error}") from None
    return text


class TopicNameMatchesConfig(TransformConfig):
    """Which topics."""

    pattern: Annotated[Text, AfterValidator(_regex)] = Field(
        description="A regular expression of Java's that the topic's whole name matches.", json_schema_extra=MEDIUM)


class TopicNameMatches(Predicate[TopicNameMatchesConfig]):
    """Whether the topic's name matches."""

    Config = TopicNameMatchesConfig

    def test(self, records: Records) -> Mask:
        return np.full(len(records), compiled(self.config.pattern).fullmatch(records.topic) is not None)


class HasHeaderKeyConfig(TransformConfig):
    """Which header."""

    name: Annotated[Text, AfterValidator(_some)] = Field(description="The header's name.", json_schema_extra=MEDIUM)


class HasHeaderKey(Predicate[HasHeaderKeyConfig]):
    """Whether the record has a header of that name, one at least."""

    Config = HasHeaderKeyConfig

    def test(self, records: Records) -> Mask:
        if records.headers is None:
            return np.zeros(len(records), np.bool_)
        name = self.config.name
        return np.array([any(each[0] == name for each in some) for some in records.headers], np.bool_)


class RecordIsTombstoneConfig(TransformConfig):
    """Nothing to say."""


class RecordIsTombstone(Predicate[RecordIsTombstoneConfig]):
    """Whether the record's value is null."""

    Config = RecordIsTombstoneConfig

    def test(self, records: Records) -> Mask:
        return np.asarray(records.value.values.is_null())
