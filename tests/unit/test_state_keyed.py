"""Keyed state against a plain dict, in any order of changes, commits, aborts, expiry and crashes; on both bottoms."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from headrace.errors import UserError
from headrace.state import KeyedState
from headrace.state.bottom import STALE_S, Bottom, Memory, Rocks, successor
from headrace.state.keyed import Changes, with_index

pytestmark = pytest.mark.unit
KEYS = st.one_of(st.sampled_from([b"", b"a", b"a\xff", b"a\xff\xff", b"b", b"\0", b"\0x"]), st.binary(max_size=3))
STEPS = st.sampled_from(["s", "s2"])
Held = dict[tuple[str, bytes], tuple[bytes, int]]
"""(step, key) → (value, when it expires; 0 is never)"""


class Machine(RuleBasedStateMachine):
    """The model is three dicts; the changelog is what `pending` gave with each transaction that was committed."""

    def bottom(self) -> Bottom:
        return Memory()

    @initialize()
    def begin(self) -> None:
        self.state = KeyedState()
        self.at = self.bottom()
        self.state.assign(0, self.at)
        self.committed: Held = {}
        self.sealed: Held | None = None
        self.now: Held = {}
        self.changelog: list[Changes] = []
        self.sealing: Changes = {}
        self.offset = 0

    @rule(step=STEPS, keys=st.lists(KEYS, max_size=4, unique=True), value=st.binary(max_size=2), when=st.integers(0, 9))
    def put(self, step: str, keys: list[bytes], value: bytes, when: int) -> None:
        expire = [when + n for n in range(len(keys))] if when else None
        self.state.view(0, step).put(keys, [value] * len(keys), expire)
        for n, key in enumerate(keys):
            self.now[step, key] = (value, when + n if when else 0)

    @rule(step=STEPS, keys=st.lists(KEYS, max_size=3))
    def delete(self, step: str, keys: list[bytes]) -> None:
        self.state.view(0, step).delete(keys)
        for key in keys:
            self.now.pop((step, key), None)

    @rule(step=STEPS, now=st.integers(-1, 12))
    def expire(self, step: str, now: int) -> None:
        due = [at for at, (_, when) in self.now.items() if at[0] == step and 0 < when <= now]
        gone = self.state.view(0, step).due(now)
        assert sorted(gone) == sorted((key, self.now[s, key][0]) for s, key in due)
        assert [self.now[step, key][1] for key, _ in gone] == sorted(self.now[at][1] for at in due)
        for at in due:
            del self.now[at]

    @rule(step=STEPS, keys=st.lists(KEYS, max_size=5))
    def get(self, step: str, keys: list[bytes]) -> None:
        wanted = [self.now[step, key][0] if (step, key) in self.now else None for key in keys]
        assert self.state.view(0, step).get(keys) == wanted

    @rule(step=STEPS, prefix=KEYS, start=KEYS, end=st.one_of(st.none(), KEYS))
    def scan(self, step: str, prefix: bytes, start: bytes, end: bytes | None) -> None:
        wanted = [(key, value) for (s, key), (value, _) in sorted(self.now.items())
                  if s == step and key.startswith(prefix) and key >= prefix + start
                  and (end is None or key < prefix + end)]
        got = list(self.state.view(0, step).scan(prefix, start, end))
        if end is not None:  # prefix + end may lie beyond the prefix
            got = [(key, value) for key, value in got if key.startswith(prefix)]
        assert got == wanted

    @precondition(lambda self: self.sealed is None)
    @rule()
    def seal(self) -> None:
        self.sealing = dict(self.state.pending().get(0, {}))
        self.state.seal()
        self.sealed = dict(self.now)

    @precondition(lambda self: self.sealed is not None)
    @rule(known=st.booleans())
    def commit(self, known: bool) -> None:
        self.changelog.append(self.sealing)
        self.offset += len(self.sealing)
        self.state.commit({0: self.offset} if known else {})
        assert self.sealed is not None
        self.committed, self.sealed = self.sealed, None

    @rule()
    def undo(self) -> None:
        self.state.undo()
        self.now = dict(self.committed if self.sealed is None else self.sealed)

    @rule()
    def drop(self) -> None:
        self.state.drop()
        self.now, self.sealed = dict(self.committed), None

    @rule()
    def nothing_pending_is_nothing_changed(self) -> None:
        if not self.state.changed():
            assert self.now == (self.committed if self.sealed is None else self.sealed)

    @rule(step=STEPS)
    def restored_from_the_changelog(self, step: str) -> None:
        """Whoever reads the changelog has what is committed, and it expires as it does here."""
        other: Bottom = Memory()
        for changes in self.changelog:
            for key, value in changes.items():
                other.apply(with_index(key, value), None)
        state = KeyedState()
        state.assign(0, other)
        mine = {key: held for (s, key), held in self.committed.items() if s == step}
        assert dict(state.view(0, step).scan()) == {key: value for key, (value, _) in mine.items()}
        for now in range(1, 20):
            assert sorted(state.view(0, step).due(now)) == sorted(
                (key, value) for key, (value, when) in mine.items() if when == now)

    def teardown(self) -> None:
        if hasattr(self, "state"):
            self.state.close()


class OnRocks(Machine):
    """The same with a folder, and with a worker that comes back to it."""

    def bottom(self) -> Bottom:
        if not hasattr(self, "folder"):
            self.folder = Path(tempfile.mkdtemp(prefix="headrace-state-"))
        return Rocks(self.folder / "0")

    @rule()
    def stopped_and_started(self) -> None:
        before = self.at.next_offset()
        self.state.close()
        self.state = KeyedState()
        self.at = self.bottom()
        assert self.at.next_offset() == before
        self.state.assign(0, self.at)
        self.now, self.sealed = dict(self.committed), None

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(getattr(self, "folder", "/nonexistent"), ignore_errors=True)


TestMemory = Machine.TestCase
TestRocks = OnRocks.TestCase
TestMemory.settings = settings(max_examples=80, stateful_step_count=40)
TestRocks.settings = settings(max_examples=12, stateful_step_count=40)


@pytest.fixture(params=[Memory, Rocks])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bottom]:
    made: Bottom = Memory() if request.param is Memory else Rocks(tmp_path / "0")
    yield made
    made.close()


def test_a_bottom_sorts_deletes_and_begins_anew(held: Bottom) -> None:
    held.apply({b"b": b"2", b"a": b"1", b"\xff\xff": b"3", b"": b"0"}, 7)
    assert list(held.scan(b"", None)) == [(b"", b"0"), (b"a", b"1"), (b"b", b"2"), (b"\xff\xff", b"3")]
    assert list(held.scan(b"a", b"b")) == [(b"a", b"1")]
    held.apply({b"a": None, b"never": None}, None)
    assert held.get([b"a", b"b", b"a"]) == [None, b"2", None]
    assert held.next_offset() == 7
    assert held.size_bytes() > 0
    held.clear()
    assert (list(held.scan(b"", None)), held.next_offset()) == ([], 0)


def test_partitions_and_steps_are_apart_and_forgotten() -> None:
    state = KeyedState()
    for number in (0, 1):
        state.assign(number, Memory())
    state.view(0, "s").put([b"k"], [b"0"])
    state.view(1, "s").put([b"k"], [b"1"])
    assert state.view(0, "s2").get([b"k"]) == [None]
    assert {number: list(changes.values()) for number, changes in state.pending().items()} == {
        0: [bytes(8) + b"0"], 1: [bytes(8) + b"1"]}
    state.forget([0])
    assert state.partitions() == [1]
    with pytest.raises(KeyError):
        state.view(0, "s")


def test_a_partition_that_outgrows_its_bound_stops_the_flow() -> None:
    state = KeyedState(bytes_max=1_000)
    state.assign(3, Memory())
    state.view(3, "s").put([b"k"], [bytes(2_000)])
    state.seal()
    state.commit({})
    with pytest.raises(UserError, match=r"partition 3 takes 2,\d+ bytes"):
        state.check()


def test_a_copy_that_is_torn_or_too_old_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Rocks(tmp_path / "0")
    copy.apply({b"k": b"v"}, 5)
    copy.close()
    with monkeypatch.context() as later:
        now = time.time()
        later.setattr(time, "time", lambda: now + STALE_S + 1)
        old = Rocks(tmp_path / "0")
        assert (old.next_offset(), old.get([b"k"])) == (0, [None])
        old.apply({b"k": b"v"}, 5)
        old.close()
    (tmp_path / "0" / "CURRENT").write_text("nonsense\n")
    torn = Rocks(tmp_path / "0")
    assert (torn.next_offset(), torn.get([b"k"])) == (0, [None])
    torn.close()


@pytest.mark.parametrize(("prefix", "after"), [(b"a", b"b"), (b"a\xff", b"b"), (b"\xff", None), (b"", None)])
def test_successor(prefix: bytes, after: bytes | None) -> None:
    assert successor(prefix) == after


def test_a_partition_that_begins_anew_has_nothing_and_tells_the_changelog() -> None:
    held = KeyedState()
    bottom = Memory()
    held.assign(3, bottom)
    held.view(3, "step").put([b"old", b"kept"], [b"1", b"2"], [5, 6])
    held.seal()
    held.commit({3: 7})
    held.begin_anew([3])
    assert held.view(3, "step").get([b"old", b"kept"]) == [None, None]
    held.view(3, "step").put([b"kept"], [b"new"])
    held.undo()  # an abort: what is to be told stays to be told
    held.view(3, "step").put([b"kept"], [b"new"])
    told = held.pending()[3]
    assert {key: value if value is None else value[8:] for key, value in told.items()} == {
        b"step\0vold": None, b"step\0vkept": b"new"}
    held.seal()
    held.drop()
    assert b"step\0vold" in held.pending()[3]
    held.seal()
    held.commit({3: 9})
    assert held.pending() == {}
    assert held.view(3, "step").get([b"old"]) == [None]
