"""Our codec is held to the reference `avro` package: of generated schemas, records and damage both say the same."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.codec import AvroSchema, Decoded, Decoder, Encoder, parse
from tests.contract.avro_cases import (
    FRAME,
    bare,
    evolved,
    listed,
    reference_read,
    reference_schema,
    reference_write,
    same,
    schemas,
    values,
)

pytestmark = pytest.mark.contract
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
BOUNDED = settings(max_examples=250, deadline=None, suppress_health_check=SLOW)
STRICTER = ("corrupt: a number is out of the range of its type", "corrupt: a block's size is not the size of its items",
            "corrupt: more than 1,000 items that take no bytes")
"""What we refuse and the reference does not, see docs/codec.md: Arrow cannot hold it, or it is no honest encoding."""


def decode(schema: AvroSchema, payloads: list[bytes]) -> Decoded:
    return Decoder(schema, lambda number: schema).decode(payloads)


@BOUNDED
@given(st.data())
def test_what_the_reference_writes_we_read_and_what_we_write_it_reads(data: st.DataObject) -> None:
    written = data.draw(schemas)
    schema, reference = parse(json.dumps(written)), reference_schema(written)
    rows = data.draw(st.lists(values(schema.type), min_size=1, max_size=6))
    payloads = [reference_write(reference, row) for row in rows]
    theirs = [reference_read(reference, p) for p in payloads]

    found = decode(schema, payloads)
    assert found.rejects == []
    assert found.index is None
    found.rows.validate(full=True)
    ours = listed(found.rows)
    assert found.rows.num_rows == len(rows)
    assert all(same(schema.type, t, o) for t, o in zip(theirs, ours, strict=True)), (theirs, ours)

    back = Encoder(schema, schema.arrow, 7).encode(found.rows)
    again = [reference_read(reference, p) for p in back]
    assert all(same(schema.type, t, o) for t, o in zip(again, ours, strict=True)), (again, ours)
    for at in range(len(rows)):  # a slice writes the same bytes as the whole
        assert Encoder(schema, schema.arrow, 7).encode(found.rows.slice(at, 1)) == [back[at]]


@st.composite
def damaged(draw: Any, payload: bytes) -> bytes:
    """A payload with a bit turned, its end cut, or bytes put in or after it. The frame stays whole."""
    body = bytearray(payload[len(FRAME):])
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["flip", "cut", "append", "insert", "byte"]))
        at = draw(st.integers(0, max(len(body) - 1, 0)))
        if kind == "flip" and body:
            body[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and body:
            body[at] = draw(st.sampled_from([0, 1, 2, 3, 0x7F, 0x80, 0xFF]))
        elif kind == "cut":
            del body[at:]
        elif kind == "append":
            body += draw(st.binary(min_size=1, max_size=12))
        else:
            body[at:at] = draw(st.binary(min_size=1, max_size=12))
    return FRAME + bytes(body)


def attempt(reference: Any, payload: bytes) -> tuple[Any, Exception | None]:
    """What the reference reads, or why it does not."""
    try:
        return reference_read(reference, payload), None
    except Exception as error:
        return None, error


@BOUNDED
@given(st.data())
def test_of_damaged_records_both_refuse_the_same_and_the_neighbours_live(data: st.DataObject) -> None:
    written = data.draw(schemas)
    schema, reference = parse(json.dumps(written)), reference_schema(written)
    rows = data.draw(st.lists(values(schema.type), min_size=1, max_size=5))
    whole = [reference_write(reference, row) for row in rows]
    mended = data.draw(st.lists(st.sampled_from(range(len(rows))), min_size=1, max_size=3, unique=True))
    payloads = [data.draw(damaged(p)) if i in mended else p for i, p in enumerate(whole)]

    found = decode(schema, payloads)
    found.rows.validate(full=True)
    refused = dict(found.rejects)
    kept = list(range(len(rows))) if found.index is None else found.index.tolist()
    assert sorted([*kept, *refused]) == list(range(len(rows)))
    ours = dict(zip(kept, listed(found.rows), strict=True))
    for i, payload in enumerate(payloads):
        theirs, error = attempt(reference, payload)
        if error:
            assert i in refused, f"the reference refuses it: {error!r}; we read {ours[i]}"
        elif i in refused:
            assert refused[i] in STRICTER, f"the reference reads {theirs}; we say {refused[i]}"
            assert i in mended
        else:
            assert same(schema.type, theirs, ours[i]), (theirs, ours[i])


@BOUNDED
@given(st.data())
def test_a_damaged_record_is_judged_alike_alone_and_in_company(data: st.DataObject) -> None:
    written = data.draw(schemas)
    schema, reference = parse(json.dumps(written)), reference_schema(written)
    payload = data.draw(damaged(reference_write(reference, data.draw(values(schema.type)))))
    other = reference_write(reference, data.draw(values(schema.type)))
    alone = decode(schema, [payload])
    company = decode(schema, [other, payload, other])
    ids = [[why.partition(":")[0] for _, why in found.rejects] for found in (alone, company)]
    assert ids[0] == ids[1]  # which byte is called wrong may differ: past its end a record is read into its neighbour
    assert len(company.rows) == 2 + len(alone.rows)


@BOUNDED
@given(st.data())
def test_records_of_an_older_schema_are_resolved_as_by_fastavro(data: st.DataObject) -> None:
    """By fastavro, since the reference package does not promote within nested arrays, and knows no aliases."""
    written = bare(data.draw(schemas))
    wanted = data.draw(evolved(written))
    writer, reader = parse(json.dumps(written)), parse(json.dumps(wanted))
    rows = data.draw(st.lists(values(writer.type), min_size=1, max_size=4))
    payloads = [reference_write(reference_schema(written), row) for row in rows]
    found = Decoder(reader, lambda number: writer).decode(payloads)
    assert found.rejects == []
    assert found.rows.schema == reader.arrow
    found.rows.validate(full=True)
    for payload, ours in zip(payloads, listed(found.rows), strict=True):
        theirs = fastavro.schemaless_reader(io.BytesIO(payload[len(FRAME):]), written, wanted)
        assert same(reader.type, theirs, ours), (theirs, ours)
