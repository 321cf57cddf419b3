"""What every transform is made of: its config, the side it works on, and how it says which records it cannot take."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, ConfigDict

from headrace.config import Config
from headrace.errors import SchemaError
from headrace.records import Column, Records, Shape, arrow_of
from headrace.transforms.numbers import SPACE

HIGH, MEDIUM, LOW = tuple[dict[str, Any], ...]({"importance": each} for each in ("HIGH", "MEDIUM", "LOW"))
"""`Field(json_schema_extra=…)`: Kafka Connect's importance of a key."""
PACKAGE = "org.apache.kafka.connect.transforms."
Refuse = Callable[[Sequence[int], str], None]
"""(places in the poll, why): these records go no further."""


class TransformConfig(Config):
    """The keys of one transform or predicate, by their dotted names. All values come as text."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=False)


def _text(given: Any) -> Any:
    return given.strip(SPACE) if isinstance(given, str) else given


def _list(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    text = given.strip(SPACE)
    return tuple(re.split(r"\s*,\s*", text, flags=re.ASCII)) if text else ()


def _whole(given: Any) -> Any:
    if isinstance(given, str):
        if not re.fullmatch(r"[+-]?[0-9]+", given.strip()) or not -2**31 <= int(given) < 2**31:
            raise ValueError(f"“{given}” is no whole number of 32 bits")
        return int(given)
    return given


def _switch(given: Any) -> Any:
    if isinstance(given, str):
        if given.strip().lower() not in ("true", "false"):
            raise ValueError(f"“{given}” is neither true nor false")
        return given.strip().lower() == "true"
    return given


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, once each, as Kafka Connect takes them since 4.2. Raises ValueError for an empty one."""
    if "" in names:
        raise ValueError("there is an empty name in the list")
    return tuple(dict.fromkeys(names))


def named(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names: one at least. Raises ValueError."""
    if not names:
        raise ValueError("is empty: name one field at least")
    return names


Text = Annotated[str, BeforeValidator(_text)]
Names = Annotated[tuple[str, ...], BeforeValidator(_list)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Whole = Annotated[int, BeforeValidator(_whole)]
NULL_DOC = ("Whether a field that is null and has a default value is given that value. When false, it stays null.")


class Refused(Exception):
    """None of these records can be taken; the message says why."""


class Bad(dict[int, str]):
    """Which of n rows cannot be taken, and why; the first reason counts."""

    def add(self, mask: Any, reason: str | Callable[[int], str]) -> None:
        """Mark where `mask` (Arrow or numpy booleans; null counts as false) is true."""
        found = np.asarray(mask.fill_null(False)) if isinstance(mask, pa.Array) else mask
        for at in np.flatnonzero(found).tolist():
            self.setdefault(at, reason if isinstance(reason, str) else reason(at))


C = TypeVar("C", bound=TransformConfig)


class Transform(ABC, Generic[C]):
    """Records to records. Holds no state; a record it is given is never changed in place."""

    Config: ClassVar[type[TransformConfig]]
    sided: ClassVar[bool] = False
    """Whether it comes as `$Key` and `$Value`."""

    def __init__(self, config: C, *, key: bool = False) -> None:
        self.config = config
        self.key = key

    @property
    def java(self) -> str:
        """Kafka Connect's name of this class."""
        return PACKAGE + type(self).__name__ + (("$Key" if self.key else "$Value") if self.sided else "")

    @abstractmethod
    def apply(self, records: Records, refuse: Refuse) -> list[Records]:
        """Records of one structure, as one or several such. Those refused, or dropped, are in none of them."""


class Sided(Transform[C]):
    """A transform of the key or of the value."""

    sided = True
    nulls: ClassVar[Literal["pass", "refuse", "work"]] = "pass"
    """What becomes of records whose key (or value) is null: they pass as they are, are refused, or are worked on."""
    purpose: ClassVar[str] = ""

    def parts(self, records: Records) -> Sequence[Records]:
        """The records, parted so that those of one part come out with one structure."""
        return (records,)

    @abstractmethod
    def work(self, records: Records, column: Column, bad: Bad) -> Records:
        """The records with their column changed, all of them; rows marked in `bad` are taken out by the caller.
        Raises Refused when none can be taken."""

    def side(self, records: Records) -> Column:
        """The column to work on, of its shape's Arrow type where all of it is null."""
        column = records.key if self.key else records.value
        if column.shape is not None and pa.types.is_null(column.values.type):
            return Column(pa.nulls(len(column), arrow_of(column.shape)), column.shape)
        return column

    def put(self, records: Records, column: Column) -> Records:
        return records.but(key=column) if self.key else records.but(value=column)

    def apply(self, records: Records, refuse: Refuse) -> list[Records]:
        out: list[Records] = []
        missing = self.side(records).values.null_count
        if missing and self.nulls == "pass":
            mask = np.asarray(self.side(records).values.is_null())
            out.append(some(records, mask))
            if missing == len(records):
                return out
            records = some(records, ~mask)
        for part in self.parts(records):
            out += self._worked(part, refuse)
        return out

    def _worked(self, records: Records, refuse: Refuse) -> list[Records]:
        bad, column = Bad(), self.side(records)
        if self.nulls == "refuse" and column.values.null_count:
            what = "key" if self.key else "value"
            bad.add(column.values.is_null(), f"there is no {what} for {self.purpose}: it is null")
        try:
            made = self.work(records, column, bad)
        except (Refused, SchemaError) as error:
            for at, reason in bad.items():
                refuse([int(records.index[at])], reason)
            refuse([place for at, place in enumerate(records.index.tolist()) if at not in bad], str(error))
            return []
        if not bad:
            return [made]
        for at, reason in bad.items():
            refuse([int(records.index[at])], reason)
        kept = np.ones(len(records), np.bool_)
        kept[list(bad)] = False
        return [made.take(np.flatnonzero(kept))] if kept.any() else []


def some(records: Records, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Records:
    """The records where `mask` is true; the very same where it is true for all."""
    return records if mask.all() else records.take(np.flatnonzero(mask))


def split(records: Records, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[Records, ...]:
    """Those where `mask` is true, and the others; what is empty is left out."""
    if mask.all() or not mask.any():
        return (records,)
    return records.take(np.flatnonzero(mask)), records.take(np.flatnonzero(~mask))


def logical(kind: str, name: str, *, optional: bool = False) -> Shape:
    """Connect's own logical types, as its builders make them."""
    return Shape(kind, optional=optional, name=name, version=1)
