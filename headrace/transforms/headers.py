"""DropHeaders, InsertHeader, HeaderFrom: what stands beside a record rather than in it."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from headrace.records import Column, Records, Shape
from headrace.records.records import Header
from headrace.transforms.base import (
    HIGH,
    MEDIUM,
    NULL_DOC,
    Bad,
    Names,
    Refuse,
    Refused,
    Sided,
    Switch,
    Text,
    Transform,
    TransformConfig,
    distinct,
    named,
)
from headrace.transforms.fields import renamed, required, settled
from headrace.transforms.literals import parse


class DropHeadersConfig(TransformConfig):
    """What to drop."""

    headers: Annotated[Names, AfterValidator(distinct), AfterValidator(named)] = Field(
        description="The names of the headers to remove.", json_schema_extra=HIGH)


class DropHeaders(Transform[DropHeadersConfig]):
    """Removes headers by name, every one of a name."""

    Config = DropHeadersConfig

    def apply(self, records: Records, refuse: Refuse) -> list[Records]:
        if records.headers is None:
            return [records]
        unwanted = frozenset(self.config.headers)
        return [records.but(headers=[[each for each in some if each[0] not in unwanted] for some in records.headers])]


def _literal(text: str) -> str:
    parse(text)
    return text


class InsertHeaderConfig(TransformConfig):
    """What to insert."""

    header: Text = Field(description="The header's name.", json_schema_extra=HIGH)
    value: Annotated[Text, AfterValidator(_literal)] = Field(
        alias="value.literal", description="Its value, as one would write it: 1, 2.5, true, null, 2026-01-31, "
        "[1, 2], {\"a\": 1}, any text.", json_schema_extra=HIGH)


class InsertHeader(Transform[InsertHeaderConfig]):
    """Adds the same header to every record, behind those it has."""

    Config = InsertHeaderConfig

    @cached_property
    def made(self) -> Header:
        value, shape = parse(self.config.value)
        return self.config.header, value, shape

    def apply(self, records: Records, refuse: Refuse) -> list[Records]:
        if records.headers is None:
            return [records.but(headers=[(self.made,)] * len(records))]
        return [records.but(headers=[(*some, self.made) for some in records.headers])]


class HeaderFromConfig(TransformConfig):
    """What to move or copy."""

    fields: Annotated[Names, AfterValidator(named)] = Field(
        description="The fields whose values become headers.", json_schema_extra=HIGH)
    headers: Annotated[Names, AfterValidator(named)] = Field(
        description="The names of the headers, in the order of the fields.", json_schema_extra=HIGH)
    operation: Annotated[Literal["move", "copy"], BeforeValidator(
        lambda given: given.strip() if isinstance(given, str) else given)] = Field(
        description="move: the fields are taken out of the key or value. copy: they stay.", json_schema_extra=HIGH)
    replace_null: Switch = Field(True, alias="replace.null.with.default", description=NULL_DOC,
                                 json_schema_extra=MEDIUM)

    @model_validator(mode="after")
    def _check(self) -> HeaderFromConfig:
        if len(self.fields) != len(self.headers):
            raise ValueError(f"headers: has {len(self.headers)} names, `fields` has {len(self.fields)}: each field "
                             "needs its header")
        return self


class HeaderFrom(Sided[HeaderFromConfig]):
    """Moves or copies fields to headers."""

    Config = HeaderFromConfig
    nulls = "refuse"
    purpose = "making headers"

    def work(self, records: Records, column: Column, bad: Bad) -> Records:
        fields, shape, n = required(column, self.purpose), column.shape, len(column)
        given = fields
        if shape is not None:
            for name in self.config.fields:
                if name not in fields:
                    raise Refused(f"there is no field “{name}”")
            given = {name: self._readable(name, fields[name], bad) for name in dict.fromkeys(self.config.fields)}
        made: list[list[Header]] = [
            [(header, each, None if each is None and at.shape is None else at.shape) for each in at.values.to_pylist()]
            for header, at in ((header, given.get(name, Column.nothing(n)))
                               for name, header in zip(self.config.fields, self.config.headers, strict=True))]
        before: Any = records.headers or [()] * n
        headers = [(*some, *new) for some, new in zip(before, zip(*made, strict=True), strict=True)]
        if self.config.operation == "move":
            fields = {name: each for name, each in fields.items() if name not in self.config.fields}
            if shape is not None:
                fields = settled(fields, self.config.replace_null, bad)
            column = renamed(fields, shape, n)
        return self.put(records, column).but(headers=headers)

    def _readable(self, name: str, column: Column, bad: Bad) -> Column:
        made = settled({name: column}, self.config.replace_null, bad)[name]
        assert isinstance(made.shape, Shape)
        return made


