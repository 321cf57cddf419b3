"""The audit chain: every kind of tampering is seen, and where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import codec
from headrace.batch import Span
from headrace.loop import audit
from headrace.loop.audit import GENESIS, Flaw, entry, hash_of, verify
from headrace.resources import content

pytestmark = pytest.mark.unit
Chain = list[dict[str, Any]]


def chain(n: int = 8) -> Chain:
    made: Chain = []
    for seq in range(n):
        event = {"why": "später", "window": seq, "auc": 0.7}
        made.append(entry(made[-1]["hash"] if made else GENESIS, seq, 1_385_000_000_123 + seq, "departures/policy",
                          "trigger", "flight-delay", event, Span("v", 0, seq, seq)))
    return made


def kinds(flaws: list[Flaw]) -> list[tuple[int, str]]:
    return [(f.seq, f.kind) for f in flaws]


def forged(record: dict[str, Any], **other: Any) -> dict[str, Any]:
    """Changed by someone who knows how hashes are made."""
    changed = record | other
    return changed | {"hash": hash_of(changed)}


def test_a_sound_chain_has_no_flaws() -> None:
    made = chain()
    assert verify(made) == verify([]) == []
    assert verify(made, anchor=made[-1]["hash"]) == verify(made, anchor=made[3]["hash"]) == []
    assert verify(made[3:], first=3, previous=made[2]["hash"]) == []


def test_the_hash_is_that_of_the_documented_json() -> None:
    one = chain(1)[0]
    text = ('{"action":"trigger","actor":"departures/policy","at":1385000000123,"event":"{\\"auc\\":0.7,\\"why\\":'
            '\\"später\\",\\"window\\":0}","offset":0,"partition":0,"previous":"' + GENESIS
            + '","seq":0,"subject":"flight-delay","topic":"v"}')
    assert one["hash"] == hashlib.sha256(text.encode()).hexdigest()


TAMPERED: list[tuple[str, Callable[[Chain], Chain], list[tuple[int, str]]]] = [
    ("changed", lambda c: [*c[:3], c[3] | {"actor": "nobody"}, *c[4:]], [(3, "changed")]),
    ("changed and hashed anew", lambda c: [*c[:3], forged(c[3], actor="nobody"), *c[4:]], [(4, "unlinked")]),
    ("hash changed", lambda c: [*c[:3], c[3] | {"hash": "f" * 64}, *c[4:]], [(3, "changed"), (4, "unlinked")]),
    ("removed", lambda c: c[:3] + c[4:], [(3, "removed")]),
    ("removed, renumbered", lambda c: c[:3] + [r | {"seq": r["seq"] - 1} for r in c[4:]],
     [(3, "changed"), (3, "unlinked"), (4, "changed"), (5, "changed"), (6, "changed")]),
    ("first removed", lambda c: c[1:], [(0, "removed")]),
    ("truncated in the middle", lambda c: c[:2] + c[6:], [(2, "removed")]),
    ("swapped", lambda c: [*c[:3], c[4], c[3], *c[5:]], [(3, "reordered")]),
    ("reversed", lambda c: c[::-1], [(n, "reordered") for n in range(6, -1, -1)]),
    ("doubled", lambda c: [*c[:4], c[3], *c[4:]], [(3, "inserted")]),
    ("inserted", lambda c: [*c[:4], forged(c[4], previous=c[3]["hash"], actor="x"), *c[4:]],
     [(4, "inserted"), (5, "unlinked")]),
    ("inserted, renumbered", lambda c: [*c[:4], forged(c[4], actor="x"), *(forged(r, seq=r["seq"] + 1) for r in c[4:])],
     [(5, "unlinked"), (6, "unlinked"), (7, "unlinked"), (8, "unlinked")]),
    ("another chain's beginning", lambda c: [forged(c[0], previous="e" * 64), *c[1:]],
     [(0, "unlinked"), (1, "unlinked")]),
]


@pytest.mark.parametrize(("tamper", "found"), [t[1:] for t in TAMPERED], ids=[t[0] for t in TAMPERED])
def test_tampering_is_found_where_it_is(tamper: Callable[[Chain], Chain], found: list[tuple[int, str]]) -> None:
    assert kinds(verify(tamper(chain()))) == found


def test_a_cut_tail_is_seen_by_an_anchor_only() -> None:
    made = chain()
    assert verify(made[:5]) == []
    assert kinds(verify(made[:5], anchor=made[-1]["hash"])) == [(5, "cut")]
    rewritten = chain()[:3]
    rewritten.append(forged(made[3], actor="x"))
    assert verify(rewritten) == []
    assert kinds(verify(rewritten, anchor=made[3]["hash"])) == [(4, "cut")]


@given(st.data())
def test_whatever_is_changed_is_seen(data: st.DataObject) -> None:
    made = chain()
    at = data.draw(st.integers(0, len(made) - 1))
    field = data.draw(st.sampled_from(sorted(made[at])))
    old = made[at][field]
    if isinstance(old, str):
        new: Any = data.draw(st.text().filter(lambda s: s != old))
    elif isinstance(old, int):
        new = data.draw(st.integers(-2**40, 2**40).filter(lambda n: n != old))
    else:
        new = old.replace(year=data.draw(st.integers(1970, 2100).filter(lambda y: y != old.year)))
    made[at] = made[at] | {field: new}
    assert verify(made)


@given(st.permutations(range(8)), st.integers(0, 8))
def test_any_other_order_and_any_gap_is_seen(order: list[int], kept: int) -> None:
    made = chain()
    shown = [made[n] for n in order[:kept]]
    assert (verify(shown) == []) == (shown == made[:kept])


def test_a_number_out_of_this_world_costs_nothing() -> None:
    made = chain()
    assert kinds(verify([*made[:2], forged(made[2], seq=2**62)])) == [(2, "removed")]


def test_an_event_that_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        entry(GENESIS, 0, 0, "a", "b", "c", {"auc": float("nan")}, Span("t", 0, 0, 0))


def test_entries_survive_avro() -> None:
    """What is read back from the topic verifies, and the schema has a field for all that is hashed."""
    schema = codec.load(content(audit.AVSC))
    assert set(schema.arrow.names) == {*audit.HASHED, "hash"}
    made = chain()
    rows = pa.RecordBatch.from_pylist(made, schema=schema.arrow)
    values = codec.Encoder(schema, rows.schema, 1).encode(rows)
    back = codec.Decoder(schema, lambda number: schema).decode(list(values)).rows.to_pylist()
    assert verify(back, anchor=made[-1]["hash"]) == []
    assert json.loads(back[3]["event"]) == {"why": "später", "window": 3, "auc": 0.7}
    assert kinds(verify([*back[:2], back[2] | {"event": "{}"}, *back[3:]])) == [(2, "changed")]
