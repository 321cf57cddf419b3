"""`dedupe`: of records with the same key that come close together, the first goes on."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from headrace.batch import Batch
from headrace.config import Config
from headrace.eventtime import Bools, Duration, Ints, by_number, check_time, event_times
from headrace.keying import Keys, check
from headrace.processor import Context, Processor
from headrace.state import View

NEVER = -(1 << 62)
SWEEPS = 64
"""So many times while the window passes, what has left it is removed."""


class DedupeConfig(Config):
    """What makes two records the same, and for how long."""

    key: list[str] | None = Field(
        None, min_length=1, description="The columns that make the key; null is a value like others. Left out: the "
        "record's own key.")
    within: Duration | None = Field(
        None, description="A record is a duplicate if one of its key went on whose event time is less than this before "
        "its own, or is after it.")
    on: str | None = Field(
        None, description="The column with the event time: a timestamp, a date, or a long of milliseconds since 1970.")
    late: Duration | None = Field(
        None, description="How far behind the latest event time seen a record may come and still be judged; beyond, it "
        "leaves by `late`. At most `within`, which it is if left out. Keys are kept for `within` and `late` together.")
    within_records: int | None = Field(
        None, ge=1, description="In place of `within`: so many offsets of the partition, of which other records and "
        "transaction markers take some.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.within is None) == (self.within_records is None):
            raise ValueError("say `within: <duration>` with `on: <column>`, or `within_records: <n>`")
        if self.within is not None and not self.on:
            raise ValueError("`within` needs `on`, the column with the event time")
        if self.within_records is not None and (self.on or self.late is not None):
            raise ValueError("`on` and `late` belong to `within`")
        if self.within == 0:
            raise ValueError("`within` must be above zero")
        if self.within is not None and self.late is not None and self.late > self.within:
            raise ValueError("`late` may be at most `within`: what is judged must be compared with what is kept")
        return self

    @property
    def span(self) -> int:
        return self.within or self.within_records or 0

    @property
    def slack(self) -> int:
        """How far behind the latest position a record is judged."""
        return self.span if self.late is None else self.late


class Dedupe(Processor):
    """Outputs: `success`, the first record of a key; `duplicate`, those that came after it within the window; with
    event times `late`, records too far behind to be judged, which may be either. `failure` is there where the record's
    own key is used, or the event time can be null: records that lack the one or the other.

    The first is the first by offset, and the window begins with its position; a record after it begins the next one.
    Exact: as long as the window, whatever the batches, aborts and restarts.
    """

    Config: ClassVar[type[Config]] = DedupeConfig
    stateful: ClassVar[bool] = True

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        """Raises SchemaError for `key` and `on`."""
        config: DedupeConfig = self.config
        self._keys: Keys | None = None
        if config.key is not None:
            check(config.key, schema, "key")
            self._keys = Keys(config.key, schema)
        names = ["success", "duplicate"]
        if config.on is not None:
            check_time(config.on, schema, what="window")
            names.append("late")
        if config.key is None or (config.on is not None and schema.field(config.on).nullable):
            names.append("failure")
        of = f"{config.key} {config.on} {[str(schema.field(name).type) for name in config.key or ()]}"
        self._version = hashlib.sha256(of.encode()).digest()[:4]
        return dict.fromkeys(names, schema)

    def notes(self, schema: pa.Schema) -> list[str]:
        return ["finds duplicates within a source partition: records of one key must be in one partition, as they are "
                "in a topic that is keyed by it"]

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        config: DedupeConfig = self.config
        keys: list[Any] = self._keys.of(batch.rows) if self._keys else batch.meta.keys()
        good, positions = np.ones(len(batch), bool), batch.meta.offsets()
        if config.on is not None:
            good, positions = event_times(batch.rows.column(config.on))
        timed = good
        if self._keys is None:
            good = good & np.fromiter(map(None.__ne__, keys), object, len(keys)).astype(bool)
        passed, late = np.zeros(len(batch), bool), np.zeros(len(batch), bool)
        for number, index in by_number(batch.meta, good):
            store = ctx.store((batch.meta.topics()[int(index[0])], number))
            mine = list(map(keys.__getitem__, index.tolist())) if len(index) < len(keys) else keys
            passed[index], late[index] = self._partition(store, mine, positions[index])
        found = {"success": passed, "duplicate": good & ~passed & ~late, "late": late, "failure": ~good}
        for name in ("duplicate", "late"):
            ctx.count("dedupe", name, int(np.count_nonzero(found[name])))
        out = {name: batch.take(pa.array(mask)) for name, mask in found.items() if mask.any()}
        if "failure" in out:
            why = np.where(timed[~good], "no_key: the record has no key", f"no_time: {config.on} is null")
            out["failure"] = out["failure"].with_reasons(pa.array([[text] for text in why.tolist()]))
        return out

    def _partition(self, store: View, keys: list[bytes], positions: Ints) -> tuple[Bools, Bools]:
        """(which go on, which are late) of one partition's records, in order of their offsets."""
        config: DedupeConfig = self.config
        memory = self._version + b"m"
        held = store.get([memory])[0]
        before, swept = struct.unpack(">qq", held) if held else (int(positions[0]), 0)
        highest = np.maximum(np.maximum.accumulate(positions), before)
        late = positions < highest - config.slack
        chosen = np.flatnonzero(~late)
        mine = keys if len(chosen) == len(keys) else list(map(keys.__getitem__, chosen.tolist()))
        passed = np.zeros(len(keys), bool)
        passed[chosen] = self._judge(store, mine, positions[chosen])
        after = int(highest[-1])
        if after > swept + config.span // SWEEPS:
            store.due(after, swept)
            swept = after
        store.put([memory], [struct.pack(">qq", after, swept)])
        return passed, late

    def _judge(self, store: View, keys: list[bytes], positions: Ints) -> Bools:
        """Which go on. One look into the state, and one entry more for each key of which a record does."""
        config: DedupeConfig = self.config
        encoded = pa.array(keys, pa.binary()).dictionary_encode()
        which = encoded.indices.to_numpy().astype(np.int64)
        distinct = list(map((self._version + b"k").__add__, encoded.dictionary.to_pylist()))
        seen = _positions(store.get(distinct))
        first = np.zeros(len(distinct), np.int64)
        first[which[::-1]] = np.arange(len(keys) - 1, -1, -1)  # of repeated indices the last assignment stands
        passed = np.zeros(len(keys), bool)
        begun = positions[first] >= seen + config.span
        passed[first[begun]] = True
        seen[begun] = positions[first[begun]]
        again = np.ones(len(keys), bool)
        again[first] = False
        beyond = np.flatnonzero(again & (positions >= seen[which] + config.span))
        for row in beyond.tolist():  # mostly none: those of a next window in the same batch
            if positions[row] >= seen[which[row]] + config.span:
                passed[row], seen[which[row]], begun[which[row]] = True, positions[row], True
        fresh = np.flatnonzero(begun)
        until = np.maximum(seen[fresh] + config.span + config.slack, 1)
        store.put(list(map(distinct.__getitem__, fresh.tolist())), _packed(seen[fresh]), until.tolist())
        return passed


def _positions(held: list[bytes | None]) -> Ints:
    """What `_packed` made; NEVER where there is none."""
    nothing = NEVER.to_bytes(8, "big", signed=True)
    return np.frombuffer(b"".join([value or nothing for value in held]), ">i8").astype(np.int64)


def _packed(positions: Ints) -> list[bytes]:
    packed: list[bytes] = positions.astype(">i8").view("V8").tolist()
    return packed
