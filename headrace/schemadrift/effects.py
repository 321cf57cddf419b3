"""What a new writer's schema does to a flow: to what it reads, to its contract, to its steps. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping

import pyarrow as pa

from headrace.codec import AvroSchema
from headrace.codec.compat import problems
from headrace.codec.decode import Compiler, Incompatible, same_name
from headrace.codec.types import MISSING, Field, Type, default_array
from headrace.contracts.suite import Suite
from headrace.schemadrift import verdicts
from headrace.schemadrift.diff import Change, as_read, diff, flat, label, leaves, value
from headrace.schemadrift.drift import Changed, Drift, Effect

LOSSES = {("int", "float"): "beyond 2^24 they are rounded", ("long", "float"): "beyond 2^24 they are rounded",
          ("long", "double"): "beyond 2^53 they are rounded"}
"""(written, read): what a promotion costs."""


def effects(old: AvroSchema, new: AvroSchema, reader: AvroSchema | None, suite: Suite | None = None,
            used: Collection[str] | None = None, *, lost: str = "go to the quarantine") -> Drift:
    """What changes for a flow that reads with `reader` when records of `new` come after those of `old`.

    `suite` has the expectations on the reader's columns. `used` are the columns that the flow uses, None for all; as a
    mapping it says who: {"tailnum": ("step check", "topic flights.long")}. `lost` is what becomes of records that
    cannot be read. Without a reader there is only the diff.
    """
    judge = None if reader is None else _Judge(old, new, reader, suite, used, lost)
    found = [Changed(change, () if judge is None else tuple(judge.of(change))) for change in diff(old, new, reader)]
    return Drift(str(old), str(new), () if judge is None else judge.problems, tuple(found))


def touched(old: AvroSchema, new: AvroSchema, reader: AvroSchema) -> set[str]:
    """The reader's columns in which something changes."""
    was, now = as_read(old.type, reader.type), as_read(new.type, reader.type)
    paths = {path for change in diff(old, new, reader) for path in (change.path, change.old)}
    return {side[path][0].partition(".")[0] for side in (was, now) for path in paths if path in side}


def unreadable(reader: AvroSchema, writer: AvroSchema) -> tuple[str, ...]:
    """Why no record of `writer` can be read; () when they can, or those at least that carry nothing unreadable."""
    fields = {f.name: f.type for f in writer.type.fields}
    read = as_read(writer.type, reader.type)
    tops = [(fields[path], mine.type) for path, (_, mine) in read.items() if path in fields]
    lost = any(_reading(one, other, "")[0] for one, other in [(writer.type, reader.type), *tops])
    return tuple(problems(reader, writer)) if lost else ()


class _Judge:
    """One pair of writers' schemas against one reader."""

    def __init__(self, old: AvroSchema, new: AvroSchema, reader: AvroSchema, suite: Suite | None,
                 used: Collection[str] | None, lost: str) -> None:
        self.suite, self.used, self.lost = suite, used, lost
        self.before, self.after = flat(old.type), flat(new.type)
        self.was, self.now = as_read(old.type, reader.type), as_read(new.type, reader.type)
        self.filled = {there for there, _ in self.now.values()}
        self.columns = reader.arrow
        self.problems = unreadable(reader, new)

    def of(self, change: Change) -> list[Effect]:
        """Its effects; exactly one of kind none where there are no others."""
        at = self.was.get(change.path) if change.kind == "removed" else self.now.get(change.path)
        if change.kind == "name":
            found = [self._lost(p) for p in self.problems if p.startswith("the record")]
        elif change.kind == "renamed":
            found = list(self._renamed(change))
        elif at is None:
            found = [Effect("none", "the flow's schema has no such field")]
        else:
            found = list(getattr(self, f"_{'type' if change.kind == 'promoted' else change.kind}")(change, *at))
        lost = [e for e in found if e.kind == "quarantine"]
        if self.problems:
            return lost or [Effect("none", "none of its records is read")]
        if at is not None and not self._matters(at[0]) and any(e.kind != "none" for e in found):
            return lost or [Effect("none", f"nothing in the flow uses {at[0]}")]
        return found or [Effect("none", "it is read as before")]

    # What became of a field: the change, where the reader has it, the reader's field

    def _added(self, change: Change, there: str, field: Field) -> Iterator[Effect]:
        before = "the default " + json.dumps(field.default) if field.default is not MISSING else "missing"
        yield from self._type(change, there, field, f"its values are read from now on, where it was {before}")

    def _removed(self, change: Change, there: str, field: Field) -> Iterator[Effect]:
        if there in self.filled:
            return
        if field.default is MISSING:
            yield self._lost(f"{there} is not in them, and has no default")
            return
        yield Effect("default", f"every record is read with its default {json.dumps(field.default)}", "warning")
        constant = None if "." in there else default_array(field.type, field.default)
        yield from self._after(there, f"its default {json.dumps(field.default)}", constant)

    def _renamed(self, change: Change) -> Iterator[Effect]:
        was, now = self.was.get(change.old or ""), self.now.get(change.path)
        if was is None and now is None:
            yield Effect("none", "the flow's schema has no such field")
        elif was is not None and now is not None and was[0] == now[0]:
            yield Effect("none", f"it is read as {now[0]}, by its alias" if now[0] != change.path else
                         "it is read under its new name")
        elif was is not None and was[0] not in self.filled:
            for effect in self._removed(change, *was):
                hint = f" (the alias “{change.path.rpartition('.')[2]}” in the flow's schema would find it)"
                named = effect.kind in ("quarantine", "default")
                yield Effect(effect.kind, effect.text + (hint if named else ""), effect.severity, effect.name)
        elif now is not None:
            yield from self._added(change, *now)

    def _type(self, change: Change, there: str, field: Field, text: str | None = None) -> Iterator[Effect]:
        """`text`: the field was not read before; else whether null came or went is another change."""
        written, read = value(self.after[change.path].type), value(field.type)
        error, some = _reading(self.after[change.path].type if text else written, field.type, there)
        old = _reading(self.before[change.path].type, field.type, there)[1] if change.path in self.before else ()
        if error:
            yield self._lost(error)
            return
        yield from (self._lost(why, some=True) for why in [*_risks(written, read, there), *some] if why not in old)
        if written.kind != read.kind and "union" not in (written.kind, read.kind):
            loss = LOSSES.get((written.kind, read.kind))
            yield Effect("promoted", f"{label(written)} is read as {label(read)}" + (f", and {loss}" if loss else ""),
                         "warning" if loss else "info")
        elif label(written) != label(read):
            yield Effect("read", f"{label(written)} is read as {label(read)}")
        elif text is None:
            yield Effect("read", f"it is read as {label(read)}, as it is written")
        if text is not None:
            yield Effect("read", text)
        yield from self._after(there, "its values" if text else f"what is written as {label(written)}")

    def _nullable(self, change: Change, there: str, field: Field) -> Iterator[Effect]:
        if not field.type.nullable:
            yield self._lost(f"{there} is null, and the flow's schema does not allow it", some=True)
            return
        yield Effect("nulls", "null may come", "warning")
        if self.suite and "." not in there:
            yield from verdicts.of_nulls(self.suite, there)
        yield from self._users(there)

    def _required(self, change: Change, there: str, field: Field) -> Iterator[Effect]:
        if self.suite and "." not in there:
            yield from verdicts.of_no_nulls(self.suite, there)

    def _default(self, change: Change, there: str, field: Field) -> Iterator[Effect]:
        yield Effect("none", "a writer's default is not used in reading")

    def _symbols(self, change: Change, there: str, field: Field) -> Iterator[Effect]:
        if not change.come:
            return
        theirs = next(t for t in leaves(self.after[change.path].type) if change.come[0] in t.symbols)
        mine = [t for t in leaves(field.type) if t.kind == "enum"]
        enum = next((t for t in mine if same_name(theirs, t)), mine[0] if mine else Type("enum"))
        known = [s for s in change.come if s in enum.symbols]
        lost = [s for s in change.come if s not in enum.symbols]
        if lost and enum.default is None:
            yield self._lost(f"{there} is {' or '.join(lost)}, which the flow's schema does not know", some=True)
        elif lost:
            yield Effect("default", f"{', '.join(lost)} is read as the default {enum.default}", "warning")
            known.append(str(enum.default))
        if known:
            plain = "." not in there and field.type.arrow == pa.string()
            yield Effect("read", f"{', '.join(known)} may come")
            yield from self._after(there, ", ".join(known), pa.array(known) if plain else None, some=True)

    # What comes of that

    def _after(self, there: str, what: str, values: pa.Array | None = None, some: bool = False) -> Iterator[Effect]:
        """Expectations and users of a field that now has `what`. `values` are all it can be, or with `some` all that
        is new; None when that is not known."""
        column = there.partition(".")[0]
        if self.suite:
            yield from verdicts.of_values(self.suite, self.columns.field(column), what, values, some)
        yield from self._users(there)

    def _users(self, there: str) -> Iterator[Effect]:
        column = there.partition(".")[0]
        for who in self.used.get(column, ()) if isinstance(self.used, Mapping) else ():
            yield Effect("use", f"{who} uses it", name=who)

    def _matters(self, there: str) -> bool:
        column = there.partition(".")[0]
        judged = self.suite is not None and any(column in e.columns for e in self.suite.expectations)
        return self.used is None or column in self.used or judged

    def _lost(self, why: str, some: bool = False) -> Effect:
        if some or not self.problems:
            return Effect("quarantine", f"some records cannot be read ({why}), and {self.lost}", "critical")
        return Effect("quarantine", f"no record can be read ({why}): all {self.lost}", "critical")


def _risks(written: Type, read: Type, there: str) -> Iterator[str]:
    """Values that a reading which resolves cannot take all the same."""
    if written.logical == read.logical == "decimal" and written.precision > read.precision:
        yield f"{there} has more than {read.precision} digits"
    if (written.kind, read.kind) == ("bytes", "string"):
        yield f"{there} is no UTF-8"


def _reading(writer: Type, reader: Type, path: str) -> tuple[str | None, list[str]]:
    """(why no value can be read, or None; why some cannot). Where a union is written, each branch is a case."""
    if writer.kind == "union" and all(_reading(branch, reader, path)[0] for branch in writer.branches):
        return f"{path}: written as {writer.label}, read as {reader.label}", []
    compiler = Compiler()
    try:
        compiler.read(writer, reader, path)
    except Incompatible as error:
        return str(error), []
    return None, [text.removeprefix("incompatible_schema: ") for text in compiler.texts]
