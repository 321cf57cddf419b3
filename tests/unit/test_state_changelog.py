"""The changelog: what batches write to it brings another worker's copy to the same state, whatever compaction keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UserError
from headrace.state import KeyedState, changelog
from headrace.state.bottom import Memory
from headrace.state.keyed import with_index
from headrace.state.look import Entry, Size, sizes

pytestmark = pytest.mark.unit
CHANGES = st.lists(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"\0", b"x"]),
                                      st.one_of(st.none(), st.binary(max_size=2)), st.integers(0, 5)), max_size=4),
                   max_size=6)


@given(CHANGES, st.data())
def test_any_compaction_restores_the_same(transactions: list[list[tuple[bytes, bytes | None, int]]],
                                          data: st.DataObject) -> None:
    """Compaction takes any entry that a later one of its key stands behind."""
    state = KeyedState()
    state.assign(2, Memory())
    log: list[tuple[bytes, bytes | None]] = []
    for changes in transactions:
        view = state.view(2, "s")
        for key, value, when in changes:
            if value is None:
                view.delete([key])
            else:
                view.put([key], [value], [when] if when else None)
        for part in changelog.outgoing("g", state.pending(), 7):
            assert (part.topic, part.partition, set(part.timestamps_ms)) == ("g.state", 2, {7})
            log += zip((key or b"" for key in part.keys), part.values, strict=True)
        state.seal()
        state.commit({})
    kept = [(key, value) for at, (key, value) in enumerate(log)
            if all(later != key for later, _ in log[at + 1:]) or data.draw(st.booleans())]
    other, again = Memory(), KeyedState()
    for key, value in kept:
        other.apply(with_index(key, value), None)
    again.assign(2, other)
    for now in range(7):
        assert list(again.view(2, "s").scan()) == list(state.view(2, "s").scan())
        assert sorted(again.view(2, "s").due(now)) == sorted(state.view(2, "s").due(now))


def test_nothing_changed_writes_nothing() -> None:
    state = KeyedState()
    state.assign(0, Memory())
    assert changelog.outgoing("g", state.pending(), 0) == []


def test_the_topic_is_compacted_and_kept() -> None:
    plan = changelog.topic_plan("headrace.f", 5)
    assert (plan.name, plan.partitions) == ("headrace.f.state", 5)
    assert plan.config["cleanup.policy"] == "compact"
    assert plan.config["retention.ms"] == "-1"


def test_sources_of_a_stateful_flow_have_equally_many_partitions() -> None:
    assert changelog.shared({"a": 4, "b": 4}) == 4
    with pytest.raises(UserError, match="a 4, b 3"):
        changelog.shared({"a": 4, "b": 3})


def test_sizes_by_step_and_partition() -> None:
    found = [Entry(0, "s", b"a", 10, 0), Entry(0, "s", b"b", 5, 9), Entry(1, "s/rest", b"a", 1, 0)]
    assert sizes(iter(found)) == {("s", 0): Size(2, 15), ("s/rest", 1): Size(1, 1)}
    assert [entry.named("s") for entry in found] == [True, True, True]
