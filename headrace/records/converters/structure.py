"""Schemaless values in columns: records of one structure together, so that "absent" and "null" stay apart.

A structure says the fields of every object and the JSON type of every value. Null fits any: {"a": null} shares a column
with {"a": 1}, whose a is null. Items of a list need not be alike: a list of different things is a list of an Arrow
dense union, one member for each kind of item. So every JSON value has a column, and comes out of it as it went in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.batch import Index
from headrace.records.converters.text import scatter, together

MEMBERS_MAX = 127
"""Kinds of items that a list may have: the members of an Arrow union."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A structure. `name`: null, bool, int, float, str, list, object or either; `parts`: the item of a list, the values
    of an object, the members of an either; `names`: of an object's fields."""

    name: str
    parts: tuple[Kind, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def arrow(self) -> pa.DataType:
        match self.name:
            case "list":
                return pa.list_(self.parts[0].arrow)
            case "object":
                return pa.struct([pa.field(name, part.arrow) for name, part in
                                  zip(self.names, self.parts, strict=True)])
            case "either":
                return pa.dense_union([pa.field(f"{at}", part.arrow) for at, part in enumerate(self.parts)])
        return ARROW[self.name]

    @property
    def mixed(self) -> bool:
        """Whether there is a list of different things in it."""
        return self.name == "either" or any(part.mixed for part in self.parts)


NULL = Kind("null")
ARROW = {"null": pa.null(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "str": pa.string()}
SCALARS = {type(None): NULL, bool: Kind("bool"), int: Kind("int"), float: Kind("float"), str: Kind("str")}


def kind_of(value: Any, known: dict[Any, Kind]) -> Kind:
    """The structure of a parsed JSON value. Equal structures are the same object, as long as `known` is."""
    type_ = type(value)
    if type_ is dict:
        types = tuple(map(type, value.values()))
        if dict not in types and list not in types:  # a flat object is told by the types of its fields
            flat = (*value, *types)
            if flat not in known:
                known[flat] = Kind("object", tuple(map(SCALARS.__getitem__, types)), tuple(value))
            return known[flat]
        parts = tuple([kind_of(each, known) for each in value.values()])
        return known.setdefault((*value, *map(id, parts)), Kind("object", parts, tuple(value)))
    if type_ is list:
        kinds = tuple({id(kind): kind for kind in [kind_of(each, known) for each in value]}.values())
        place = (list, *map(id, kinds))
        if place not in known:
            item = NULL
            for each in kinds:
                item = _either(item, each)
            known[place] = Kind("list", (item,))
        return known[place]
    return SCALARS[type_]


def merged(one: Kind, other: Kind) -> Kind | None:
    """The structure that both are of; None where there is none."""
    if one == other or other == NULL:
        return one
    if one == NULL:
        return other
    if one.name != other.name:
        return None
    if one.name == "list":
        return Kind("list", (_either(one.parts[0], other.parts[0]),))
    if one.name != "object" or set(one.names) != set(other.names):
        return None
    by_name = dict(zip(other.names, other.parts, strict=True))
    parts = tuple(merged(part, by_name[name]) for name, part in zip(one.names, one.parts, strict=True))
    return None if None in parts else Kind("object", tuple(part for part in parts if part), one.names)


def _either(one: Kind, other: Kind) -> Kind:
    """The kind of items that are of the one or of the other."""
    members = list(one.parts) if one.name == "either" else [one]
    for each in other.parts if other.name == "either" else (other,):
        for at, member in enumerate(members):
            both = merged(member, each)
            if both is not None:
                members[at] = both
                break
        else:
            members.append(each)
    return members[0] if len(members) == 1 else Kind("either", tuple(members))


def grouped(values: Sequence[Any]) -> list[tuple[Index, Kind]]:
    """(positions, structure): the values that share a column, in the order of their first."""
    known: dict[Any, Kind] = {}
    kinds = [kind_of(value, known) for value in values]
    groups: list[Kind] = []
    home: dict[int, int] = {}
    for kind in {id(kind): kind for kind in kinds}.values():
        for at, group in enumerate(groups):
            both = merged(group, kind)
            if both is not None:
                groups[at], home[id(kind)] = both, at
                break
        else:
            home[id(kind)] = len(groups)
            groups.append(kind)
    if len(groups) == 1:
        return [(np.arange(len(values)), groups[0])]
    place = np.fromiter((home[id(kind)] for kind in kinds), np.int64, len(kinds))
    return [(np.flatnonzero(place == at), group) for at, group in enumerate(groups)]


def column(values: Sequence[Any], kind: Kind) -> pa.Array:
    """Values of one structure as a column."""
    if not kind.mixed:
        return pa.array(values, kind.arrow)
    if kind.name == "either":
        return _union(values, kind)
    there = np.flatnonzero(np.fromiter((each is not None for each in values), np.bool_, len(values)))
    if len(there) < len(values):
        return scatter([(there, column([values[at] for at in there.tolist()], kind))], len(values))
    if kind.name == "list":
        counts = np.fromiter(map(len, values), np.int64, len(values))
        return together(column([each for one in values for each in one], kind.parts[0]), counts)
    return pa.StructArray.from_arrays([column([value[name] for value in values], part)
                                       for name, part in zip(kind.names, kind.parts, strict=True)],
                                      fields=list(kind.arrow))


def _union(values: Sequence[Any], kind: Kind) -> pa.Array:
    """Items of different kinds. An item that fits several members (null does) goes to the first."""
    known: dict[Any, Kind] = {}
    home: dict[int, int] = {}
    codes, offsets = np.zeros(len(values), np.int8), np.zeros(len(values), np.int32)
    members: list[list[Any]] = [[] for _ in kind.parts]
    for at, value in enumerate(values):
        one = kind_of(value, known)
        if id(one) not in home:
            home[id(one)] = next(code for code, part in enumerate(kind.parts) if merged(part, one) == part)
        code = home[id(one)]
        codes[at], offsets[at] = code, len(members[code])
        members[code].append(value)
    return pa.UnionArray.from_dense(pa.array(codes), pa.array(offsets),
                                    [column(each, part) for each, part in zip(members, kind.parts, strict=True)],
                                    [f"{at}" for at in range(len(members))])
