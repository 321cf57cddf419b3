"""`join`: pairs the rows of two streams that have one key and lie close in time, e.g. predictions and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from headrace import keying
from headrace.batch import Batch, gather
from headrace.config import Config
from headrace.eventtime import Bools, Duration, Ints, by_number, check_time, event_times
from headrace.joining.kept import Shelf
from headrace.joining.pairs import lateness, one_to_one, within
from headrace.joining.side import Marks, Part, Side, Space, give_up, space_of
from headrace.joining.taking import Take, comparable, taken
from headrace.keying import Keys
from headrace.processor import Context, Origin, Processor
from headrace.state import View

LEFT, RIGHT = 0, 1
NAMES = ("left", "right")
UNMATCHED = ("unmatched", "unmatched_right")
LATE = ("late", "late_right")
Out = dict[str, list[Batch]]
MS_MAX = 1 << 56
"""Times beyond, two million years from now, are taken for no time."""


class SidesConfig(Config):
    """A column, or a list of columns, of each side."""

    left: str | tuple[str, ...] = Field(description="Of the first output in `from`.")
    right: str | tuple[str, ...] = Field(description="Of the second.")


class TimesConfig(Config):
    """The column with the event time of each side."""

    left: str = Field(description="Of the first output in `from`.")
    right: str = Field(description="Of the second.")


class JoinConfig(Config):
    """Which rows belong together, how long they wait for each other, and what a pair has."""

    on: str | tuple[str, ...] | SidesConfig = Field(
        description="The column, or columns, in which a pair is equal: one name for both sides, or {left: …, "
        "right: …}. Both topics must be keyed by it.")
    time: str | TimesConfig = Field(
        description="The column with the event time: a timestamp, a date, or a long of milliseconds since 1970; or "
        "{left: …, right: …}.")
    within: Duration = Field(description="How long after the left row the right row may be, e.g. 48h.")
    before: Duration = Field(0, description="How long before the left row the right row may be.")
    late: Duration = Field(0, description="How far behind the latest time of its own side and partition a row may come "
                           "and still be joined; rows wait that much longer.")
    kind: Literal["inner", "left"] = Field(
        "inner", description="inner: a left row without a partner leaves by `unmatched`. left: it leaves by `success`, "
        "with nulls for the right columns.")
    take: Take = Field(
        None, description="What a pair has of the right row: a list of columns, or {new name: column}. Left out: all, "
        "without the key where it has the same name on both sides.")
    suffix: str | None = Field(
        None, description="Added to the names of right columns that the left row has too, e.g. _right.",
        pattern="^[A-Za-z0-9_]+$")
    expect_one: bool = Field(False, description="A row has at most one partner, the first to come, and is forgotten as "
                             "soon as it has it: for keys that are ids.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        left, right = self.columns()
        if not left or len(left) != len(right):
            raise ValueError("`on` names as many columns of the left side as of the right, at least one of each")
        if isinstance(self.take, dict) and self.suffix:
            raise ValueError("`suffix` renames columns that `take` names already")
        return self

    def columns(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The key's columns of the left and of the right side."""
        said = (self.on.left, self.on.right) if isinstance(self.on, SidesConfig) else (self.on, self.on)
        left, right = ((one,) if isinstance(one, str) else one for one in said)
        return left, right

    def times(self) -> tuple[str, str]:
        return (self.time, self.time) if isinstance(self.time, str) else (self.time.left, self.time.right)


class Join(Processor):
    """Outputs: `success`, the pairs; `unmatched` (for `kind: inner`) and `unmatched_right`, rows that no partner can
    come for any more, or without key or time; `late` and `late_right`, rows that came too late to be joined.

    A pair has the key, the timestamp and the lineage of the record that completed it. Which rows are paired depends on
    the two streams alone: not on how they interleave, nor on where batches end.
    """

    Config: ClassVar[type[Config]] = JoinConfig
    inputs: ClassVar[tuple[int, int]] = (2, 2)
    stateful: ClassVar[bool] = True
    own_rows: ClassVar[bool] = True

    def outputs_of(self, schemas: Sequence[pa.Schema]) -> Mapping[str, pa.Schema]:
        """Raises SchemaError: columns that are not there, cannot be compared, or clash."""
        config: JoinConfig = self.config
        columns, times = config.columns(), config.times()
        for name, key, time, schema in zip(NAMES, columns, times, schemas, strict=True):
            keying.check(key, schema, f"on, {name}")
            check_time(time, schema, what=f"join's {name} time")
        comparable(columns[LEFT], schemas[LEFT], columns[RIGHT], schemas[RIGHT])
        reach = config.within, config.before
        self._parts = [Part(at, NAMES[at], Keys(columns[at], schemas[at]), times[at], reach[at], Shelf(schemas[at]))
                       for at in (LEFT, RIGHT)]
        self._left = schemas[LEFT]
        same = [right for left, right in zip(*columns, strict=True) if left == right]
        self._taken = taken(config.take, config.suffix, schemas[LEFT].names, schemas[RIGHT].names, same)
        nullable = config.kind == "left"
        fields = [schemas[RIGHT].field(c).with_name(name) for name, c in self._taken.items()]
        self._pair = pa.schema([*schemas[LEFT], *(f.with_nullable(f.nullable or nullable) for f in fields)],
                               metadata=schemas[LEFT].metadata)
        out = {"success": self._pair, "unmatched": schemas[LEFT], "unmatched_right": schemas[RIGHT],
               "late": schemas[LEFT], "late_right": schemas[RIGHT]}
        if nullable:
            del out["unmatched"]
        return out

    def origins(self, relationship: str) -> Mapping[str, Origin] | None:
        if relationship != "success":
            return None
        return {**{name: Origin((name,), copy=True, input=LEFT) for name in self._left.names},
                **{name: Origin((column,), copy=True, input=RIGHT) for name, column in self._taken.items()}}

    def notes(self, schema: pa.Schema) -> list[str]:
        left, right = self.config.columns()
        said = ", ".join(left) if left == right else f"{', '.join(left)} and {', '.join(right)}"
        return [f"rows meet only in partitions of one number: both topics must be keyed by {said}, and have equally "
                "many partitions"]

    # a batch

    def process_many(self, batches: Sequence[Batch | None], ctx: Context) -> Mapping[str, Batch]:
        late: int = self.config.late
        views: dict[int, View] = {}
        for batch in batches:
            if batch is not None:
                topic = batch.meta.topics()[0]
                for number in np.unique(batch.meta.partitions()).tolist():
                    views.setdefault(number, ctx.store((topic, number)))
        marks = {number: Marks.read(view) for number, view in views.items()}
        out: Out = {}
        sides = [self._arrive(part, batch, marks, out) for part, batch in zip(self._parts, batches, strict=True)]
        space = space_of(sides, views)
        if space.keys:
            self._match(sides[LEFT], sides[RIGHT], space, out)
        for side in sides:
            at = side.part.at
            limits = np.zeros(len(space.keys), np.int64)
            for number, mark in marks.items():
                limits[space.partitions == number] = mark.limit(at, late)
            if len(side.which):
                for lost in side.settle(limits, self.config.expect_one, space):
                    self._unmatched(at, lost, out)
            for number, view in views.items():
                waited = give_up(side.part, number, view, marks[number], late)
                if waited is not None:
                    self._unmatched(at, waited, out)
        for number, view in views.items():
            marks[number].write(view)
        for name, parts in out.items():
            ctx.count("join", name, sum(map(len, parts)))
        return {name: gather(parts) for name, parts in out.items()}

    def _arrive(self, part: Part, batch: Batch | None, marks: Mapping[int, Marks], out: Out) -> Side:
        """The rows of a side that can be joined; the others leave here. Watermarks move on."""
        if batch is None:
            return Side(part)
        timed, ms = event_times(batch.rows.column(part.time))
        keyed = timed & (np.abs(ms) < MS_MAX)
        for column in part.keys.columns:
            keyed &= batch.rows.column(column).is_valid().to_numpy(zero_copy_only=False)
        late: Bools = np.zeros(len(batch), np.bool_)
        for number, index in by_number(batch.meta, keyed):
            latest = marks[number].latest
            late[index], latest[part.at] = lateness(ms[index], latest[part.at], self.config.late)
        if not keyed.all():
            self._unmatched(part.at, batch.take(pa.array(~keyed)), out)
        if late.any():
            out.setdefault(LATE[part.at], []).append(batch.take(pa.array(late)))
        joins = keyed & ~late
        return Side(part, batch.take(pa.array(joins)), ms[joins]) if joins.any() else Side(part)

    def _unmatched(self, at: int, batch: Batch, out: Out) -> None:
        if not len(batch):
            return
        if at == RIGHT or self.config.kind == "inner":
            out.setdefault(UNMATCHED[at], []).append(batch)
            return
        nulls = [pa.nulls(len(batch), f.type) for f in list(self._pair)[len(self._left):]]
        rows = pa.RecordBatch.from_arrays([*batch.rows.columns, *nulls], schema=self._pair)
        out.setdefault("success", []).append(batch.with_rows(rows))

    def _match(self, left: Side, right: Side, space: Space, out: Out) -> None:
        """New rows against what is kept of the other side, and what is new there."""
        config: JoinConfig = self.config
        wanted = np.unique(right.which), np.unique(left.which)
        for side, asked in zip((left, right), wanted, strict=True):
            side.fetch(asked, space)
        reach = config.before, config.within
        m, n = left.n_old, right.n_old
        i, j = within(left.which, left.ms, right.which[n:], right.ms[n:], *reach)
        i2, j2 = within(left.which[m:], left.ms[m:], right.which[:n], right.ms[:n], *reach)
        i, j = np.concatenate([i, i2 + m]), np.concatenate([j + n, j2])
        if config.expect_one:
            order = np.lexsort((j, i))
            i, j = i[order], j[order]
            keep = one_to_one(i, j)
            i, j = i[keep], j[keep]
        left.matched[i], right.matched[j] = True, True
        by_right = j >= n  # the right row completed the pair; where both are new, it counts as the later
        for completer, index, mine in ((right, j - n, by_right), (left, i - m, ~by_right)):
            at = np.flatnonzero(mine)
            if len(at):
                assert completer.new is not None, "a pair is completed by a new row"
                at = at[np.argsort(index[at], kind="stable")]  # in the order of the records that completed them
                columns = [*_picked(left, self._left.names, i[at]), *_picked(right, list(self._taken.values()), j[at])]
                rows = pa.RecordBatch.from_arrays(columns, schema=self._pair)
                out.setdefault("success", []).append(Batch(rows, completer.new.meta.take(index[at])))


def _picked(side: Side, names: Sequence[str], index: Ints) -> Iterator[pa.Array]:
    """Columns of the rows in hand, old and new."""
    old = side.part.shelf.columns(side.old)
    chosen = pa.array(index)
    for name in names:
        parts = [rows.column(name) for rows in (old, side.new.rows if side.new else None) if rows]
        yield (parts[0] if len(parts) == 1 else pa.concat_arrays(parts)).take(chosen)
