"""Splitting by a salted hash: the same for ever, even, sticky, and moving no more than it must."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import SchemaError, UserError
from headrace.loop.split import KEY_BYTES_MAX, assign, fnv1a, points

pytestmark = pytest.mark.unit

TAILS = pa.array([f"N{n:05d}" for n in range(100_000)])
NUMBERS = pa.array(np.arange(100_000))

GOLDEN_ARMS = ["challenger", "challenger", "challenger", "champion", "champion", "champion",
               "challenger", "champion"]
GOLDEN_POINTS = [0.361740058206546, 0.18231783002214375, 0.7977850275342078]


def by_hand(key: bytes, salt: str) -> float:
    """The same by the definitions, a byte at a time."""
    state = 0xCBF29CE484222325
    for byte in salt.encode() + b"\0" + key[:KEY_BYTES_MAX]:
        state = (state ^ byte) * 0x100000001B3 % 2**64
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        state = (state ^ state >> 33) * factor % 2**64
    return ((state ^ state >> 33) >> 11) / 2**53


@pytest.mark.parametrize(("text", "hashed"), [
    ("", 0xCBF29CE484222325), ("a", 0xAF63DC4C8601EC8C), ("foobar", 0x85944171F73967E8)])
def test_fnv1a_has_the_values_its_authors_publish(text: str, hashed: int) -> None:
    assert int(fnv1a(pa.array([text]))[0]) == hashed


def test_golden_values() -> None:
    """Whoever changes these deals every running test and canary anew."""
    keys = ["N14228", "N24211", "N619AA", "N804JB", "N668DN", "N39463", "N516JB", "N829AS"]
    assert assign(pa.array(keys), "flight-delay/7", {"champion": 0.5, "challenger": 0.5}).to_pylist() == GOLDEN_ARMS
    assert points(pa.array([1, 2, -1]), "s").tolist() == GOLDEN_POINTS


@given(st.lists(st.one_of(st.none(), st.binary(max_size=40), st.binary(min_size=1020, max_size=1030)), max_size=30),
       st.text(max_size=8), st.integers(0, 3))
def test_equals_the_definition_byte_by_byte(keys: list[bytes | None], salt: str, cut: int) -> None:
    array = pa.array(keys, pa.binary())
    for rows in (array, array.slice(cut), pa.chunked_array([array, array.slice(cut)]), array.dictionary_encode()):
        found = points(rows, salt)
        assert [None if k is None else by_hand(k, salt) for k in rows.to_pylist()] == [
            None if k is None else p for k, p in zip(rows.to_pylist(), found.tolist(), strict=True)]


@given(st.lists(st.integers(-2**31, 2**31 - 1), min_size=1, max_size=20))
def test_whole_numbers_are_eight_bytes_at_any_width(keys: list[int]) -> None:
    wide = points(pa.array(keys, pa.int64()), "s").tolist()
    assert wide == points(pa.array(keys, pa.int32()), "s").tolist()
    assert wide == [by_hand(k.to_bytes(8, "little", signed=True), "s") for k in keys]


@pytest.mark.parametrize("keys", [TAILS, NUMBERS, NUMBERS.cast(pa.string())], ids=["tails", "numbers", "texts"])
def test_keys_that_differ_little_spread_evenly(keys: pa.Array) -> None:
    """Chi-square over 100 cells: 99 expected, standard deviation 14."""
    for salt in ("a", "b", "flight-delay/7"):
        cells = np.bincount((points(keys, salt) * 100).astype(int), minlength=100)
        assert ((cells - 1000)**2 / 1000).sum() < 99 + 5 * 14


def test_salts_are_independent() -> None:
    one, other = points(TAILS, "model/7"), points(TAILS, "model/8")
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(len(TAILS))
    both = np.histogram2d(one, other, bins=10)[0]
    assert ((both - 1000)**2 / 1000).sum() < 99 + 5 * 14


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_changed_share_moves_only_what_it_must(before: float, after: float) -> None:
    old, new = (assign(NUMBERS, "s", {"champion": 1 - s, "challenger": s}) for s in (before, after))
    moved = pc.not_equal(old, new)
    assert abs(pc.mean(moved).as_py() - abs(after - before)) < 0.01
    goes_to = "challenger" if after > before else "champion"
    assert set(pc.unique(new.filter(moved)).to_pylist()) <= {goes_to}


def test_a_third_arm_takes_from_the_champion_alone() -> None:
    two = assign(TAILS, "s", {"champion": 0.9, "challenger": 0.1})
    three = assign(TAILS, "s", {"champion": 0.7, "challenger": 0.1, "shadow": 0.2})
    assert two.filter(pc.equal(two, "challenger")).equals(three.filter(pc.equal(two, "challenger")))
    more = assign(TAILS, "s", {"champion": 0.6, "challenger": 0.2, "shadow": 0.2})
    moved = pc.not_equal(three, more)
    assert set(pc.unique(three.filter(moved)).to_pylist()) == {"champion"}
    assert set(pc.unique(more.filter(moved)).to_pylist()) == {"challenger"}


def test_shares_hold_and_whole_shares_are_whole() -> None:
    arms = assign(TAILS, "s", {"champion": 0.9, "challenger": 0.1})
    assert abs(pc.mean(pc.equal(arms, "challenger")).as_py() - 0.1) < 5 * np.sqrt(0.09 / len(TAILS))
    assert set(assign(TAILS, "s", {"champion": 1.0, "challenger": 0.0}).to_pylist()) == {"champion"}
    assert set(assign(TAILS, "s", {"champion": 0.0, "challenger": 1.0}).to_pylist()) == {"challenger"}
    assert set(assign(TAILS, "s", {"champion": 1}).to_pylist()) == {"champion"}


def test_a_row_without_a_key_has_no_arm() -> None:
    arms = assign(pa.array(["a", None, "b"]), "s", {"champion": 1.0}).to_pylist()
    assert arms == ["champion", None, "champion"]
    assert assign(pa.array([], pa.string()), "s", {"champion": 1.0}).to_pylist() == []
    assert assign(pa.array([1, None]), "s", {"champion": 1.0}).to_pylist() == ["champion", None]


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 0.5, "b": 0.6}, {"a": -0.1, "b": 1.1}, {"a": float("nan")}])
def test_shares_that_are_none(shares: dict[str, float]) -> None:
    with pytest.raises(UserError, match="add up to 1"):
        assign(TAILS, "s", shares)


def test_keys_that_cannot_be() -> None:
    with pytest.raises(SchemaError, match="double"):
        assign(pa.array([1.5]), "s", {"champion": 1.0})
