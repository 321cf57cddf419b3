"""What one writer's schema changes in another's, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from headrace.codec import AvroSchema
from headrace.codec.decode import PROMOTIONS, same_name, slots_of
from headrace.codec.types import MISSING, Field, Type


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that changed of one field.

    `path` is the field's in the new schema, of a removed one in the old; "" is the record itself. `kind` is

        added, removed      `new` or `old` is its type and default
        renamed             from `old` to `new`, by an alias of the writer's or the reader's
        promoted, type      another type; promoted when Avro reads the old as the new (int → long)
        nullable, required  null came to be allowed; or no longer is
        default             the default as JSON, None where there is none
        symbols             an enum's; `come` are those that are new
        name                the record's own
    """

    path: str
    kind: str
    old: str | None = None
    new: str | None = None
    come: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """For people."""
        said = {"added": f"added, {self.new}", "removed": f"removed, was {self.old}",
                "renamed": f"renamed from {self.old}", "nullable": "may be null now", "required": "is never null now",
                "default": f"default {self.old or 'none'} → {self.new or 'none'}",
                "symbols": f"symbols {self.old} → {self.new}"}.get(self.kind, f"{self.old} → {self.new}")
        return f"{self.path or 'the record'}: {said}"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "come": list(self.come)}


def diff(old: AvroSchema, new: AvroSchema, reader: AvroSchema | None = None) -> list[Change]:
    """The changes from `old` to `new`, in the order of the fields; [] where only texts or orders differ.

    With `reader`, two names that its aliases make one field are a renamed field.
    """
    before, after = flat(old.type), flat(new.type)
    home = _homes(old, new, reader)
    out = []
    if old.name != new.name:
        out.append(Change("", "name", old.name or "no record", new.name or "no record"))
    for path, field in before.items():
        at = home[path]
        if at is None:
            if home.get(_parent(path), "") is not None:
                out.append(Change(path, "removed", old=said(field)))
            continue
        if _last(at) != _last(path):
            out.append(Change(at, "renamed", path, at))
        out += _aspects(at, field, after[at])
    kept = set(home.values())
    out += [Change(path, "added", new=said(field)) for path, field in after.items()
            if path not in kept and (not _parent(path) or _parent(path) in kept)]
    return out


def flat(type_: Type, path: str = "") -> dict[str, Field]:
    """Path → field, of a record and of the records within it, each after the one it is in."""
    found: dict[str, Field] = {}
    for one in type_.fields:
        here = f"{path}{one.name}"
        found.setdefault(here, one)
        for inner in _records(one.type):
            for deeper, field in flat(inner, f"{here}.").items():
                found.setdefault(deeper, field)
    return found


def said(field: Field) -> str:
    """A field's type, with an enum's symbols, and default."""
    return label(field.type) + ("" if field.default is MISSING else f" = {json.dumps(field.default)}")


def label(type_: Type) -> str:
    """A type for people, with what its own label leaves out."""
    inner = "".join(f" {{{', '.join(t.symbols)}}}" for t in leaves(type_) if t.kind == "enum")
    return _bare(type_) + inner


def leaves(type_: Type) -> Iterator[Type]:
    """This type and those within it, but not within a record."""
    yield type_
    if type_.kind != "record":
        for child in type_.children:
            yield from leaves(child)


def value(type_: Type) -> Type:
    """The type without null."""
    some = type_.some
    return type_ if type_.kind != "union" or not some else some[0] if len(some) == 1 else Type("union", branches=some)


def as_read(writer: Type, reader: Type, path: str = "", onto: str = "") -> dict[str, tuple[str, Field]]:
    """The writer's path → path and field of the reader, for those that a reader's field takes its values from."""
    found: dict[str, tuple[str, Field]] = {}
    for field, slot in zip(writer.fields, slots_of(writer, reader), strict=True):
        if slot is None:
            continue
        mine = reader.fields[slot]
        here, there = f"{path}{field.name}", f"{onto}{mine.name}"
        found[here] = (there, mine)
        theirs = list(_records(mine.type))
        for inner in _records(field.type):
            match = next((r for r in theirs if same_name(inner, r)), theirs[0] if theirs else None)
            if match is not None:
                found |= {k: v for k, v in as_read(inner, match, f"{here}.", f"{there}.").items() if k not in found}
    return found


def _bare(type_: Type) -> str:
    """The label of a type; of a fixed with its size."""
    sizes = ", ".join(f"{t.size} bytes" for t in leaves(type_) if t.kind == "fixed")
    return f"{type_.label} of {sizes}" if sizes else type_.label


def _records(type_: Type) -> Iterator[Type]:
    """The records that a field of this type holds, itself, as items or as branches."""
    return (t for t in leaves(type_) if t.kind == "record")


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _homes(old: AvroSchema, new: AvroSchema, reader: AvroSchema | None) -> dict[str, str | None]:
    """Where each field of the old schema is in the new one; None: nowhere."""
    before, after = flat(old.type), flat(new.type)
    was, becomes = (as_read(s.type, reader.type) if reader else {} for s in (old, new))
    home: dict[str, str | None] = {}
    for path in before:
        above = home.get(_parent(path), _parent(path))
        if above is None:
            home[path] = None
            continue
        same = f"{above}.{_last(path)}" if above else path
        beside = [p for p in after if _parent(p) == above and p not in before]
        known = [p for p in beside if _last(path) in after[p].aliases
                 or (path in was and p in becomes and was[path][0] == becomes[p][0])]
        home[path] = same if same in after else next(iter(known), None)
    return home


def _aspects(path: str, old: Field, new: Field) -> Iterator[Change]:
    one, other = value(old.type), value(new.type)
    if _bare(one) != _bare(other):
        plain = one.logical is None and other.logical is None
        kind = "promoted" if plain and other.kind in PROMOTIONS.get(one.kind, ()) else "type"
        yield Change(path, kind, label(one), label(other))
    elif set(mine := _symbols(one)) != set(theirs := _symbols(other)):
        yield Change(path, "symbols", ", ".join(mine), ", ".join(theirs), tuple(s for s in theirs if s not in mine))
    if old.type.nullable != new.type.nullable:
        yield Change(path, "nullable" if new.type.nullable else "required", label(old.type), label(new.type))
    was, becomes = (None if f.default is MISSING else json.dumps(f.default) for f in (old, new))
    if was != becomes:
        yield Change(path, "default", was, becomes)


def _symbols(type_: Type) -> list[str]:
    return [symbol for t in leaves(type_) if t.kind == "enum" for symbol in t.symbols]
