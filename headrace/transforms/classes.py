"""The transforms and predicates there are: by their Java names and short ones, with the definitions of their keys."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.marked import nearest
from headrace.transforms.base import PACKAGE, Transform, TransformConfig
from headrace.transforms.cast import Cast
from headrace.transforms.extract_field import ExtractField
from headrace.transforms.filter import Filter
from headrace.transforms.flatten import Flatten
from headrace.transforms.headers import DropHeaders, HeaderFrom, InsertHeader
from headrace.transforms.hoist_field import HoistField
from headrace.transforms.insert_field import InsertField
from headrace.transforms.mask_field import MaskField
from headrace.transforms.predicates import HasHeaderKey, Predicate, RecordIsTombstone, TopicNameMatches
from headrace.transforms.replace_field import ReplaceField
from headrace.transforms.routers import RegexRouter, TimestampRouter
from headrace.transforms.set_schema_metadata import SetSchemaMetadata
from headrace.transforms.timestamp_converter import TimestampConverter
from headrace.transforms.value_to_key import ValueToKey

_ALL: tuple[type[Transform[Any]], ...] = (
    Cast, DropHeaders, ExtractField, Filter, Flatten, HeaderFrom, HoistField, InsertField, InsertHeader, MaskField,
    RegexRouter, ReplaceField, SetSchemaMetadata, TimestampConverter, TimestampRouter, ValueToKey)
TRANSFORMS: Mapping[str, tuple[type[Transform[Any]], bool]] = {
    PACKAGE + each.__name__ + side: (each, side == "$Key")
    for each in _ALL for side in (("$Key", "$Value") if each.sided else ("",))}
"""Java name → (class, whether it works on the key)."""
PREDICATES: Mapping[str, type[Predicate[Any]]] = {
    f"{PACKAGE}predicates.{each.__name__}": each for each in (HasHeaderKey, RecordIsTombstone, TopicNameMatches)}
"""Java name → class."""
TYPES: Mapping[Any, str] = {bool: "BOOLEAN", int: "INT", str: "STRING", tuple: "LIST"}


@dataclass(frozen=True, slots=True)
class Definition:
    """One key, as Kafka Connect's REST API tells it. `default` is text; None is none, or null."""

    name: str
    type: str
    required: bool
    default: str | None
    importance: str
    documentation: str


def transform_class(name: str) -> tuple[type[Transform[Any]], bool]:
    """(class, whether it works on the key) of `MaskField$Value`, or of the full Java name. Raises ValueError."""
    if not name:
        raise ValueError("is missing: the transform's class, such as MaskField$Value")
    full = name if "." in name else PACKAGE + name
    if full in TRANSFORMS:
        return TRANSFORMS[full]
    if full + "$Value" in TRANSFORMS:
        raise ValueError(f"{name} is for the key or for the value: say {name}$Key or {name}$Value")
    raise ValueError(_unknown("transform", name, [each.removeprefix(PACKAGE) for each in TRANSFORMS]))


def predicate_class(name: str) -> type[Predicate[Any]]:
    """The class of `HasHeaderKey`, or of the full Java name. Raises ValueError."""
    if not name:
        raise ValueError("is missing: the predicate's class, such as RecordIsTombstone")
    full = name if "." in name else f"{PACKAGE}predicates.{name}"
    if full in PREDICATES:
        return PREDICATES[full]
    raise ValueError(_unknown("predicate", name, [each.rpartition(".")[2] for each in PREDICATES]))


def _unknown(what: str, name: str, known: list[str]) -> str:
    foreign = "." in name and not name.startswith(PACKAGE)
    return (f"there is no {what} “{name}” here" + nearest(name.rpartition(".")[2], known)
            + ("; Java's own classes run in a Kafka Connect cluster" if foreign else ""))


def definitions(cls: type[Transform[Any]] | type[Predicate[Any]]) -> list[Definition]:
    """The keys of a transform or predicate, in the order they are declared."""
    return [_definition(field.alias or name, field) for name, field in _model(cls).model_fields.items()]


def _model(cls: Any) -> type[TransformConfig]:
    return typing.cast(type[TransformConfig], cls.Config)


def _kind(annotation: Any) -> type:
    """The plain type of a field: of `Annotated[int, …] | None`, int; of literals, str."""
    origin = typing.get_origin(annotation)
    if origin is None or origin is tuple:
        return tuple if origin is tuple else typing.cast(type, annotation)
    first = typing.get_args(annotation)[0]
    return str if origin is typing.Literal else _kind(first)


def _definition(name: str, field: Any) -> Definition:
    kind = _kind(field.annotation)
    default: Any = None if field.is_required() else field.default
    if default is not None:
        default = ",".join(default) if kind is tuple else str(default).lower() if kind is bool else str(default)
    return Definition(name, TYPES[kind], field.is_required(), default,
                      field.json_schema_extra["importance"], field.description or "")
