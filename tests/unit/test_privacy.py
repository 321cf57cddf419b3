"""Personal data: tags kept from the schema to the sink, followed through steps, remarked by lint, reported, hidden."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from headrace import codec, flowtest
from headrace import plan as planning
from headrace.cli import build
from headrace.errors import SchemaError
from headrace.payloads import Reader
from headrace.privacy.report import report
from headrace.secrets import HIDDEN

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
ORDER = """{"type": "record", "name": "order", "fields": [
  {"name": "id", "type": "long"},
  {"name": "email", "type": ["null", "string"], "default": null, "headrace.pii": "email"},
  {"name": "amount", "type": "double"},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
  {"name": "customer", "default": null, "type": ["null", {"type": "record", "name": "customer", "fields": [
     {"name": "name", "type": "string", "headrace.pii": "name"},
     {"name": "phones", "default": [], "type": {"type": "array", "items": {"type": "record", "name": "phone",
        "fields": [{"name": "number", "type": "string", "headrace.pii": "phone"}]}}}]}]}]}"""
FLOW = """\
flow: orders
owner: shop
source:
  kafka: {topic: shop.orders, schema: order, partitions: 1, key: id}
steps:
  loud:  {derive: {loud: "upper(email)", big: "amount > 100"}}
  mask:  {mask: {tags: [email, phone], how: tokenise, key: "${env:SHOP_PII_KEY}"}}
  name:  {mask: {fields: [customer.name], how: partial, first: 1}}
  split: {route: {big: "big"}}
  day:   {from: mask, aggregate: {by: [email], window: {time: 1d, on: at}, columns: {spent: "sum(amount)"}}}
  raw:   {from: source, select: {keep: [id, email], rename: {email: mail}}}
  bare:  {from: source, select: {keep: [id]}}
sinks:
  shop.big:   {from: split.big, kafka: {}}
  shop.rest:  {from: split.unmatched, kafka: {}}
  shop.days:  {from: day, kafka: {key: email}}
  shop.raw:   {from: raw, kafka: {pii_accepted: true}}
  shop.mails: {from: raw, kafka: {key: mail}}
  shop.bare:  {from: bare, kafka: {}}
  shop.quarantine: {from: source.reject, quarantine: {}}
drop: [day.late]
tests:
  - name: what comes out is masked
    given:
      - {id: 1, email: a@b.c, amount: 120, at: "2026-01-01T00:00:00Z",
         customer: {name: Ada, phones: [{number: "1"}]}}
    expect:
      shop.big: [{id: 1, loud: A@B.C, customer: {name: "A**", phones: [{number: TOKEN}]}}]
      shop.bare: [{id: 1}]
"""


def write(folder: Path, flow: str = FLOW, schema: str = ORDER) -> Path:
    for kind in ("flows", "schemas"):
        (folder / kind).mkdir(exist_ok=True)
    (folder / "schemas" / "order.avsc").write_text(schema)
    path = folder / "flows" / "orders.yaml"
    path.write_text(flow)
    return path


def test_tags_are_kept() -> None:
    schema = codec.parse(ORDER)
    assert schema.pii == {"email": "email", "customer.name": "name", "customer.phones[].number": "phone"}
    assert codec.parse(schema.text).pii == schema.pii
    assert codec.from_arrow(schema.arrow, name="other", pii=schema.pii).pii == schema.pii
    bare = codec.parse(ORDER.replace(', "headrace.pii": "email"', ""))
    assert bare.fingerprint == schema.fingerprint  # a tag writes no other bytes


@pytest.mark.parametrize("tag", ["true", '""', '["email"]', '"two words"'])
def test_a_tag_is_a_word(tag: str) -> None:
    with pytest.raises(SchemaError, match=r"order.email: “headrace.pii” is a word"):
        codec.parse(ORDER.replace('"headrace.pii": "email"', f'"headrace.pii": {tag}'))


def test_tags_in_maps_and_unions() -> None:
    inner = '{"type": "record", "name": "NAME", "fields": [{"name": "x", "type": "string", "headrace.pii": "t"}]}'
    schema = codec.parse(
        '{"type": "record", "name": "r", "fields": [{"name": "m", "type": {"type": "map", "values": '
        + inner.replace("NAME", "a") + '}}, {"name": "u", "type": ["null", "int", ' + inner.replace("NAME", "b")
        + "]}]}")
    assert schema.pii == {"m{}.x": "t", "u.b.x": "t"}


def whereabouts(path: Path) -> dict[str, set[tuple[str, str, str]]]:
    return {one.field.path: {(a.topic, a.at, a.how) for a in one.arrives} for one in report(planning.load(path))}


def test_the_report_follows_every_field(tmp_path: Path) -> None:
    found = whereabouts(write(tmp_path))
    assert found["email"] == {
        ("shop.big", "email", "tokenise"), ("shop.rest", "email", "tokenise"),
        ("shop.big", "loud", "derived from it"), ("shop.rest", "loud", "derived from it"),
        ("shop.days", "email", "tokenise"), ("shop.days", "key", "tokenise"),
        ("shop.raw", "mail", "in clear"), ("shop.mails", "mail", "in clear"), ("shop.mails", "key", "in clear"),
        ("shop.quarantine", "payload", "in clear"), ("orders.dead-letter", "payload", "in clear"),
        ("headrace.orders.state", "state of day", "tokenise")}
    assert found["customer.name"] == {
        ("shop.big", "customer.name", "partial"), ("shop.rest", "customer.name", "partial"),
        ("shop.quarantine", "payload", "in clear"), ("orders.dead-letter", "payload", "in clear")}
    assert ("shop.big", "customer.phones[].number", "tokenise") in found["customer.phones[].number"]
    made = planning.load(tmp_path / "flows" / "orders.yaml")
    readers = {one.field.path: {r.step for r in one.read_by} for one in report(made)}
    assert readers == {"email": {"loud", "mask", "raw", "day"}, "customer.name": {"mask", "name"},
                       "customer.phones[].number": {"mask", "name"}}  # a record is read as a whole


def test_sinks_made_of_rows_keep_the_tags_of_what_is_in_clear(tmp_path: Path) -> None:
    made = planning.load(write(tmp_path))
    assert made.sink("shop.raw").schema.pii == {"mail": "email"}  # type: ignore[union-attr]
    assert made.sink("shop.big").schema.pii == {}  # type: ignore[union-attr]


def test_the_keys_of_the_source_go_along(tmp_path: Path) -> None:
    found = whereabouts(write(tmp_path, FLOW.replace("key: id}", "key: email}")))
    assert ("shop.bare", "key", "in clear") in found["email"]
    found = whereabouts(write(tmp_path, FLOW.replace(", key: id}", "}")))
    assert ("shop.bare", "key", "may contain it") in found["email"]


def test_lint_remarks_and_strict(tmp_path: Path) -> None:
    found = [f for f in planning.lint(write(tmp_path)) if "personal data" in f.message]
    assert [(f.line, f.severity) for f in found] == [(14, "info"), (15, "info"), (18, "info"), (20, "info")]
    assert "email (email) in loud" in found[0].message
    path = write(tmp_path, FLOW.replace("owner: shop", "owner: shop\nprivacy: strict"))
    assert {f.severity for f in planning.lint(path) if "personal data" in f.message} == {"error"}


def test_a_tag_that_no_field_has(tmp_path: Path) -> None:
    [found] = [f for f in planning.lint(write(tmp_path, FLOW.replace("[email, phone]", "[emial]")))
               if f.severity == "error"]
    assert (found.line, found.message.splitlines()[0]) == (
        7, "mask: no field that comes in is tagged “emial”; did you mean “email”?")


def test_the_flow_masks_in_its_own_tests(tmp_path: Path) -> None:
    from tests.unit.test_mask import token

    path = write(tmp_path, FLOW.replace("TOKEN", str(token(b"1"))))
    assert [r.problems for r in flowtest.run(path, tmp_path)] == [()]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.chdir(tmp_path)

    def told(*arguments: str) -> tuple[int, Any]:
        done = CliRunner().invoke(build(), ["privacy", "report", *arguments])
        return done.exit_code, done.stdout

    code, out = told("orders")
    assert code == 0
    assert "shop.orders: email (email)" in out
    assert "tokenise" in out
    code, out = told("orders", "--strict", "--json")
    assert code == 1
    assert json.loads(out)["in_clear"] is True
    write(tmp_path, FLOW.replace('loud: "upper(email)", ', "").replace("kafka: {key: mail}", "kafka: {key: mail, "
          "pii_accepted: true}").replace("quarantine: {}", "quarantine: {pii_accepted: true}").replace(
              "loud: A@B.C, ", ""))
    code, out = told("orders", "--strict", "--json")
    assert (code, json.loads(out)["in_clear"]) == (0, False)


def test_what_people_see_of_records_is_without_personal_data() -> None:
    schema = codec.parse(ORDER)
    record = {"id": 1, "email": "a@b.c", "amount": 1.5, "at": datetime(2026, 1, 1, tzinfo=UTC),
              "customer": {"name": "Ada", "phones": [{"number": "123"}]}}
    rows = pa.RecordBatch.from_pylist([record, {**record, "email": None, "customer": None}], schema=schema.arrow)
    payloads = codec.Encoder(schema, schema.arrow, 7).encode(rows)
    assert Reader({7: schema}.__getitem__, show_pii=True).records(payloads)[0]["email"] == "a@b.c"  # type: ignore[index]
    assert [{**one, "at": None} for one in Reader({7: schema}.__getitem__).records(payloads)] == [  # type: ignore[dict-item]
        {"id": 1, "email": HIDDEN, "amount": 1.5, "at": None,
         "customer": {"name": HIDDEN, "phones": [{"number": HIDDEN}]}},
        {"id": 1, "email": None, "amount": 1.5, "at": None, "customer": None}]


@pytest.mark.parametrize("flow", sorted((ROOT / "flows").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_flows_have_no_personal_data(flow: Path) -> None:
    assert report(planning.load(flow)) == []
