"""Small state: what a transaction changed counts when it commits, and only then."""

from __future__ import annotations

import json

import pytest

from headrace.errors import UserError
from headrace.state import METADATA_CHARS_MAX, StateStore, read_metadata

pytestmark = pytest.mark.unit
AT = ("t", 0)


def test_a_batch_over_a_batch_under_way() -> None:
    store = StateStore()
    store.restore(AT, {"watch": {"k": 1}})
    store.of(AT, "watch")["k"] = 2
    assert read_metadata(store.metadata(AT, "n1")) == ("n1", {"watch": {"k": 2}})
    store.seal()
    store.of(AT, "watch")["k"] = 3
    store.undo()
    assert store.of(AT, "watch")["k"] == 2
    store.of(AT, "watch")["k"] = 4
    store.commit()
    assert store.of(AT, "watch")["k"] == 4
    store.seal()
    store.drop()
    assert store.of(AT, "watch")["k"] == 2


def test_metadata_is_bounded_and_foreign_metadata_is_no_state() -> None:
    store = StateStore()
    store.of(AT, "watch")["long"] = "x" * METADATA_CHARS_MAX
    with pytest.raises(UserError, match="watch 41"):
        store.metadata(AT, "n")
    for foreign in (None, "", "somebody else's", "[1]", json.dumps({"s": 3})):
        assert read_metadata(foreign) == (None, {})


def test_forgotten_with_the_partition() -> None:
    store = StateStore()
    store.restore(AT, {"watch": {"k": 1}})
    store.forget([AT])
    assert store.of(AT, "watch") == {}
