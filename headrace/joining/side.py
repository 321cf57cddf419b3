"""One side of a join while a batch is worked on: what came, what is kept of the same keys, and what becomes of both."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from headrace.batch import Batch
from headrace.eventtime import Bools, Ints
from headrace.joining.kept import Shelf
from headrace.keying import Keys, distinct
from headrace.state import View

MARKS = b"marks"
NEVER = -(1 << 62)


@dataclass(slots=True)
class Marks:
    """What is known of one partition: the latest time of each side, and up to where each side's rows are given up.

    Milliseconds since 1970; NEVER before there is any.
    """

    latest: list[int] = field(default_factory=lambda: [NEVER, NEVER])
    reached: list[int] = field(default_factory=lambda: [NEVER, NEVER])

    @classmethod
    def read(cls, view: View) -> Marks:
        found = view.get([MARKS])[0]
        if found is None:
            return cls()
        left, right, left_reached, right_reached = struct.unpack(">4q", found)
        return cls([left, right], [left_reached, right_reached])

    def write(self, view: View) -> None:
        view.put([MARKS], [struct.pack(">4q", *self.latest, *self.reached)])

    def limit(self, at: int, late_ms: int) -> int:
        """No row still to come of the side opposite `at` has a time below this."""
        other = self.latest[1 - at]
        return NEVER if other == NEVER else other - late_ms


@dataclass(frozen=True, slots=True)
class Space:
    """The keys that a batch brings, each a number; where each is at home, and the state there."""

    keys: list[bytes]
    partitions: Ints
    views: Mapping[int, View]

    def by_partition(self, asked: Ints) -> Iterator[tuple[int, View, Ints]]:
        """(partition, its state, those of the keys asked for that are at home there)."""
        for partition, view in self.views.items():
            mine = asked[self.partitions[asked] == partition]
            if len(mine):
                yield partition, view, mine

    def names(self, keys: Ints) -> list[bytes]:
        return list(map(self.keys.__getitem__, keys.tolist()))


@dataclass(frozen=True, slots=True)
class Part:
    """What is fixed of a side. `reach` is how long after a row, in event time, its partner may still come."""

    at: int
    name: str
    keys: Keys
    time: str
    reach: int
    shelf: Shelf


class Side:
    """Rows in hand: `old` ones, which were kept, and then `new` ones. For each, in that order, the number of its key
    (`which`), its event time (`ms`) and whether it has had a partner (`matched`; `had`: before this batch)."""

    def __init__(self, part: Part, new: Batch | None = None, ms: Ints | None = None) -> None:
        self.part, self.new = part, new
        self.raw: list[bytes] = [] if new is None else part.keys.of(new.rows)
        self.ms = np.zeros(0, np.int64) if ms is None else ms
        self.which = np.zeros(len(self.ms), np.int64)
        self.matched, self.had = np.zeros((2, len(self.ms)), np.bool_)
        self.old = pa.array([], part.shelf.item)
        self.fetched = np.zeros(0, np.bool_)

    @property
    def n_old(self) -> int:
        return len(self.old)

    def fetch(self, asked: Ints, space: Space) -> None:
        """Bring in what is kept of these keys, which were not asked for before."""
        self.fetched[asked] = True
        shelf, views, entries, keys = self.part.shelf, [], list[bytes | None](), []
        for _, view, mine in space.by_partition(asked):
            views.append(view.part(self.part.name))
            entries += shelf.get(views[-1], space.names(mine))
            keys.append(mine)
        index, added = shelf.read(entries, views)
        n_old = self.n_old
        if not len(added):
            return
        self.old = pa.concat_arrays([self.old, added])
        self.which = np.insert(self.which, n_old, np.concatenate(keys)[index])
        self.ms = np.insert(self.ms, n_old, added.field("ms").to_numpy())
        before = added.field("matched").to_numpy(zero_copy_only=False)
        self.had = np.insert(self.had, n_old, before)
        self.matched = np.insert(self.matched, n_old, before)

    def settle(self, limits: Ints, forget: bool, space: Space) -> list[Batch]:
        """Rows with a partner are forgotten if `forget`; those that none can come for any more, by the `limits` of
        their keys, are given back if they never had one; the others are kept."""
        gone = self.matched if forget else np.zeros(len(self.which), np.bool_)
        stay = ~gone & (limits[self.which] <= self.ms + self.part.reach)
        staying = np.unique(self.which[self.n_old:][stay[self.n_old:]])
        unread = staying[~self.fetched[staying]]
        if len(unread):  # they are put under their keys beside what is there
            self.fetch(unread, space)
            return self.settle(limits, forget, space)
        n_old = self.n_old
        changed = np.zeros(len(space.keys), np.bool_)
        changed[staying] = True
        changed[self.which[:n_old][(~stay | (self.matched != self.had))[:n_old]]] = True
        self._keep(stay & changed[self.which], changed, space)
        lost = ~stay & ~self.matched
        return [*self._old(lost[:n_old], space), *([self.new.take(pa.array(lost[n_old:]))] if self.new else [])]

    def _old(self, chosen: Bools, space: Space) -> list[Batch]:
        if not chosen.any():
            return []
        partitions = space.partitions[self.which[:self.n_old][chosen]]
        return [self.part.shelf.batch(self.old.filter(pa.array(chosen)), partitions)]

    def _keep(self, chosen: Bools, changed: Bools, space: Space) -> None:
        """Write the entries of the keys that changed: of the rows chosen, in the order they came."""
        n_old, shelf = self.n_old, self.part.shelf
        items = [shelf.marked(self.old.filter(pa.array(chosen[:n_old])), self.matched[:n_old][chosen[:n_old]])]
        if self.new is not None and chosen[n_old:].any():
            items.append(shelf.items(self.new.take(pa.array(chosen[n_old:])), self.ms[n_old:][chosen[n_old:]],
                                     self.matched[n_old:][chosen[n_old:]]))
        which = self.which[chosen]
        order = np.argsort(which, kind="stable")
        write(self.part, which[order], pa.concat_arrays(items).take(pa.array(order)), space)
        changed[which] = False
        for _, view, bare in space.by_partition(np.flatnonzero(changed & self.fetched)):
            shelf.delete(view.part(self.part.name), space.names(bare))


def write(part: Part, which: Ints, items: pa.StructArray, space: Space) -> None:
    """Rows, those of a key together, as their keys' entries, which expire when no partner can come for one of them."""
    if not len(which):
        return
    first = np.flatnonzero(np.concatenate([[True], which[1:] != which[:-1]]))
    counts = np.diff(np.append(first, len(which)))
    expire = np.maximum(np.minimum.reduceat(items.field("ms").to_numpy(), first) + part.reach, 1)
    entries = part.shelf.encode(counts, items)
    keys = which[first]
    for partition, view in space.views.items():
        mine = np.flatnonzero(space.partitions[keys] == partition)
        if len(mine):
            part.shelf.put(view.part(part.name), space.names(keys[mine]),
                           list(map(entries.__getitem__, mine.tolist())), expire[mine].tolist())


def give_up(part: Part, partition: int, view: View, marks: Marks, late_ms: int) -> Batch | None:
    """Take out the rows of one partition that no partner can come for any more; gives those that never had one."""
    limit, since = marks.limit(part.at, late_ms), marks.reached[part.at]
    if limit <= since:
        return None
    marks.reached[part.at] = limit
    keys, which, items = part.shelf.due(view.part(part.name), limit - 1, since)
    if not len(items):
        return None
    due = limit > items.field("ms").to_numpy() + part.reach
    if not due.all():
        space = Space(keys, np.full(len(keys), partition), {partition: view})
        write(part, which[~due], items.filter(pa.array(~due)), space)
    lost = items.filter(pa.array(due & ~items.field("matched").to_numpy(zero_copy_only=False)))
    return part.shelf.batch(lost, np.full(len(lost), partition)) if len(lost) else None


def space_of(sides: list[Side], views: Mapping[int, View]) -> Space:
    """Number the keys of what is new, and make room for what is asked of them."""
    news = [side.new for side in sides if side.new is not None]
    raw = [key for side in sides for key in side.raw]
    if not raw:
        return Space([], np.zeros(0, np.int64), views)
    partitions = np.concatenate([new.meta.partitions() for new in news]).astype(np.int64)
    which, first = distinct([partitions, pa.array(raw, pa.binary())])
    begun = 0
    for side in sides:
        side.which = which[begun:begun + len(side.raw)]
        side.fetched = np.zeros(len(first), np.bool_)
        begun += len(side.raw)
    return Space(list(map(raw.__getitem__, first.tolist())), partitions[first], views)
