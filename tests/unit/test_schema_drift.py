"""Schema drift: what changed between two writers' schemas, what it does to a flow, and that a flow tells of it once."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace import plan
from headrace.codec import AvroSchema, Decoder, Encoder, UnknownSchema, parse
from headrace.codec.compat import problems
from headrace.contracts import Suite
from headrace.contracts import parse as parse_suite
from headrace.control import Verdict
from headrace.errors import ConfigError, SchemaError
from headrace.pipeline import Outputs, Pipeline
from headrace.schemadrift import Drift, diff, effects
from headrace.schemadrift.uses import uses
from headrace.schemadrift.watch import KEPT, judged
from headrace.state import StateStore
from headrace.testing import Record
from tests.unit import flowkit

pytestmark = pytest.mark.unit
CLASS = {"type": "enum", "name": "C", "symbols": ["A", "B"]}


def rec(*fields: Any, name: str = "R") -> AvroSchema:
    return parse(json.dumps({"type": "record", "name": name, "fields": list(fields)}))


def f(name: str, type_: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, **more}


def null(type_: Any) -> list[Any]:
    return ["null", type_]


def suite(*expectations: tuple[str, str, dict[str, Any], str]) -> Suite:
    return parse_suite({"expectations": [{"id": i, "type": f"expect_column_{t}", "kwargs": k, "severity": s}
                                         for i, t, k, s in expectations]}, "x.expectations.json")


GIVEN = suite(("given", "values_to_not_be_null", {"column": "a"}, "critical"))


def told(drift: Drift) -> list[tuple[str, str, list[str]]]:
    return [(c.change.path, c.change.kind, [e.kind for e in c.effects]) for c in drift.changes]


# The diff

CHANGES: list[tuple[Any, Any, list[tuple[str, str, str | None, str | None]]]] = [
    ([f("a", "int")], [f("a", "int")], []),
    ([f("a", "int")], [f("a", "int", doc="x")], []),
    ([f("a", "int"), f("b", "int")], [f("b", "int"), f("a", "int")], []),
    ([f("a", "int")], [f("a", "int"), f("b", null("string"), default=None)],
     [("b", "added", None, "[null, string] = null")]),
    ([f("a", "int"), f("b", CLASS)], [f("a", "int")], [("b", "removed", "enum C {A, B}", None)]),
    ([f("a", "int")], [f("a", "long")], [("a", "promoted", "int", "long")]),
    ([f("a", "long")], [f("a", "int")], [("a", "type", "long", "int")]),
    ([f("a", "int")], [f("a", {"type": "int", "logicalType": "date"})], [("a", "type", "int", "int (date)")]),
    ([f("a", {"type": "fixed", "name": "F", "size": 4})], [f("a", {"type": "fixed", "name": "F", "size": 8})],
     [("a", "type", "fixed F of 4 bytes", "fixed F of 8 bytes")]),
    ([f("a", "int")], [f("a", null("int"))], [("a", "nullable", "int", "[null, int]")]),
    ([f("a", null("int"))], [f("a", "long")], [("a", "promoted", "int", "long"),
                                               ("a", "required", "[null, int]", "long")]),
    ([f("a", null("int"))], [f("a", ["int", "null"])], []),
    ([f("a", "int")], [f("a", "int", default=1)], [("a", "default", None, "1")]),
    ([f("a", "int", default=1)], [f("a", "int")], [("a", "default", "1", None)]),
    ([f("a", "boolean", default=True)], [f("a", "boolean", default=False)], [("a", "default", "true", "false")]),
    ([f("a", CLASS)], [f("a", {**CLASS, "symbols": ["B", "A"]})], []),
    ([f("a", CLASS)], [f("a", {**CLASS, "symbols": ["B", "Z"]})], [("a", "symbols", "A, B", "B, Z")]),
    ([f("a", {"type": "array", "items": CLASS})],
     [f("a", {"type": "array", "items": {**CLASS, "symbols": ["A"]}})], [("a", "symbols", "A, B", "A")]),
    ([f("a", "int")], [f("b", "int", aliases=["a"])], [("b", "renamed", "a", "b")]),
    ([f("a", "int")], [f("b", "long", aliases=["a"])], [("b", "renamed", "a", "b"), ("b", "promoted", "int", "long")]),
    ([f("a", "int"), f("b", "int")], [f("b", "int", aliases=["a"])], [("a", "removed", "int", None)]),
    ([f("a", "int")], [f("b", "int")], [("a", "removed", "int", None), ("b", "added", None, "int")]),
]


@pytest.mark.parametrize(("old", "new", "wanted"), CHANGES)
def test_what_changed_field_by_field(old: Any, new: Any, wanted: Any) -> None:
    found = diff(rec(*old), rec(*new))
    assert [(c.path, c.kind, c.old, c.new) for c in found] == wanted
    held: Callable[[Any], Any] = lambda fields: f("in", null({"type": "record", "name": "I", "fields": fields}))  # noqa: E731
    inner = diff(rec(held(old)), rec(held(new)))
    assert [(c.path, c.kind) for c in inner] == [(f"in.{path}", kind) for path, kind, *_ in wanted]


def test_what_is_within_an_added_or_removed_record_is_not_told_again() -> None:
    deep = f("in", {"type": "record", "name": "I", "fields": [f("a", "int"), f("b", "int")]})
    assert [(c.path, c.kind) for c in diff(rec(f("x", "int"), deep), rec(f("x", "int")))] == [("in", "removed")]
    assert [(c.path, c.kind) for c in diff(rec(f("x", "int")), rec(f("x", "int"), deep))] == [("in", "added")]


def test_a_field_that_the_readers_alias_finds_is_renamed_and_so_is_a_record() -> None:
    old, new = rec(f("town", "string")), rec(f("city", "string"))
    assert [c.kind for c in diff(old, new, rec(f("place", "string", aliases=["town", "city"])))] == ["renamed"]
    assert [c.kind for c in diff(old, rec(f("town", "string"), name="S"))] == ["name"]


# The effects

READER = [f("a", null("string"), default=None), f("n", "double", default=5), f("c", CLASS, default="A"),
          f("must", "int"), f("at", {"type": "long", "logicalType": "timestamp-millis"}, default=0),
          f("d", {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1}, default="\u0001")]
WRITER = [f("a", "string"), f("n", "double"), f("c", CLASS), f("must", "int"), READER[4], READER[5], f("x", "int")]


def after(name: str, *made: Any, suite: Suite | None = None, used: Any = None) -> Drift:
    """The drift where the field `name` gives way to others."""
    new = [g for g in WRITER if g["name"] != name]
    return effects(rec(*WRITER), rec(*new, *made), rec(*READER), suite, used)


@pytest.mark.parametrize(("name", "made", "severity", "kinds", "said"), [
    ("x", [], "info", ["none"], "the flow's schema has no such field"),
    ("x", [f("x", "string")], "info", ["none"], "the flow's schema has no such field"),
    ("a", [], "warning", ["default"], "every record is read with its default null"),
    ("a", [f("a", null("string"))], "warning", ["nulls"], "null may come"),
    ("a", [f("a", "string", default="x")], "info", ["none"], "a writer's default is not used in reading"),
    ("a", [f("a", "bytes")], "critical", ["quarantine", "promoted"], "a is no UTF-8"),
    ("n", [f("n", "int")], "info", ["promoted"], "int is read as double"),
    ("n", [f("n", "long")], "warning", ["promoted"], "beyond 2^53"),
    ("n", [f("n", null("double"))], "critical", ["quarantine"], "n is null, and the flow's schema does not allow it"),
    ("n", [f("n", ["double", "string"])], "critical", ["quarantine", "read"], "written as string, read as double"),
    ("n", [f("n", "string")], "critical", ["quarantine"], "no record can be read (n: written as string, read as d"),
    ("c", [f("c", {**CLASS, "symbols": ["A"]})], "info", ["none"], "it is read as before"),
    ("c", [f("c", {**CLASS, "symbols": ["A", "B", "Z"]})], "critical", ["quarantine"], "c is Z"),
    ("must", [], "critical", ["quarantine"], "must is not in them, and has no default"),
    ("must", [f("must", "long")], "critical", ["quarantine"], "written as long, read as int"),
    ("at", [f("at", {"type": "long", "logicalType": "timestamp-micros"}, default=0)], "info", ["read"],
     "is read as long (timest"),
    ("d", [f("d", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 1}, default="\u0001")],
     "critical",
     ["quarantine", "read"], "more than 4 digits"),
    ("d", [f("d", {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, default="\u0001")],
     "critical", ["quarantine"], "decimal of scale 2, read with scale 1"),
])
def test_what_a_change_does_to_what_is_read(name: str, made: list[Any], severity: str, kinds: list[str],
                                            said: str) -> None:
    drift = after(name, *made)
    assert drift.severity == severity
    [changed] = drift.changes
    assert [e.kind for e in changed.effects] == kinds
    assert said in changed.text
    assert drift.texts[-1].startswith(f"{name}: ")
    assert json.loads(json.dumps(drift.as_json()))["changes"][0]["effects"][0]["kind"] == kinds[0]


def test_a_field_that_comes_is_read_where_it_was_the_default() -> None:
    old = [g for g in WRITER if g["name"] != "n"]
    drift = effects(rec(*old), rec(*WRITER), rec(*READER), suite(
        ("big", "values_to_be_between", {"column": "n", "min_value": 1}, "critical")), {"n": ("step far (filter)",)})
    assert drift.texts == ["n: added, double: its values are read from now on, where it was the default 5; "
                           "expectation big on n now sees its values; step far (filter) uses it"]


@pytest.mark.parametrize(("reader", "kinds", "said"), [
    ([f("b", "string", aliases=["a"])], ["none"], "it is read under its new name"),
    ([f("z", "string", aliases=["a", "b"])], ["none"], "it is read as z, by its alias"),
    ([f("a", "string")], ["quarantine"], "the alias “b” in the flow's schema would find it"),
    ([f("a", "string", default="")], ["default"], "the alias “b” in the flow's schema would find it"),
    ([f("b", "string", default="")], ["read"], "its values are read from now on"),
    ([f("c", "string", default="")], ["none"], "the flow's schema has no such field"),
])
def test_what_a_new_name_does(reader: list[Any], kinds: list[str], said: str) -> None:
    drift = effects(rec(f("a", "string")), rec(f("b", "string", aliases=["a"])), rec(*reader))
    assert told(drift) == [("b", "renamed", kinds)]
    assert said in drift.changes[0].text


@pytest.mark.parametrize(("name", "made", "expectation", "said", "severity"), [
    ("a", [], ("values_to_not_be_null", {}, "critical"), "fails for every record, and holds it back", "critical"),
    ("a", [], ("values_to_not_be_null", {}, "warning"), "fails for every record, which is counted", "warning"),
    ("a", [], ("values_to_be_in_set", {"value_set": ["x"]}, "critical"), "judges nothing now", "warning"),
    ("a", [], ("values_to_be_null", {}, "critical"), "holds for its default null", "warning"),
    ("a", [], ("values_to_be_unique", {}, "critical"), "now sees its default null", "warning"),
    ("a", [f("a", null("string"))], ("values_to_not_be_null", {}, "critical"), "can fail now", "warning"),
    ("a", [f("a", null("string"))], ("proportion_of_non_null_values_to_be_between", {}, "critical"), "now sees nulls",
     "warning"),
    ("n", [], ("values_to_be_between", {"min_value": 5, "max_value": 6}, "critical"), "holds for its default 5",
     "warning"),
    ("n", [], ("values_to_be_between", {"min_value": 5, "strict_min": True}, "critical"), "fails for every record",
     "critical"),
    ("n", [], ("values_to_be_in_set", {"value_set": [4.0, 6.0]}, "info"), "which is counted", "warning"),
    ("n", [], ("mean_to_be_between", {"min_value": 6}, "critical"), "now sees its default 5", "warning"),
    ("n", [], ("values_to_be_between", {"min_value": 6, "row_condition": 'col("n") > 9',
                                        "condition_parser": "great_expectations"}, "critical"), "now sees", "warning"),
    ("n", [f("n", "int")], ("values_to_be_between", {"min_value": 6}, "critical"), "now sees what is written as int",
     "warning"),
    ("at", [], ("values_to_be_between", {"min_value": "1970-01-02T00:00:00Z"}, "critical"), "fails for every record",
     "critical"),
    ("c", [], ("values_to_be_in_set", {"value_set": ["B"]}, "critical"), "fails for every record", "critical"),
])
def test_what_a_change_does_to_an_expectation(name: str, made: list[Any], expectation: Any, said: str,
                                              severity: str) -> None:
    kind, kwargs, held = expectation
    drift = after(name, *made, suite=suite(("e", kind, {"column": name, **kwargs}, held)))
    [effect] = [e for e in drift.changes[0].effects if e.kind == "expectation"]
    assert effect.name == "e"
    assert effect.text.startswith(f"expectation e on {name} ")
    assert said in effect.text
    assert drift.severity == severity


def test_nulls_do_not_touch_what_passes_over_them_and_end_what_is_about_them() -> None:
    between = suite(("e", "value_lengths_to_be_between", {"column": "a", "min_value": 1}, "critical"))
    assert told(after("a", f("a", null("string")), suite=between)) == [("a", "nullable", ["nulls"])]
    back = effects(rec(f("a", null("string"))), rec(f("a", "string")), rec(f("a", null("string"))), GIVEN)
    assert back.texts == ["a: is never null now: expectation given on a can no longer fail"]


def test_a_symbol_is_held_against_the_set() -> None:
    reader = rec(f("c", {**CLASS, "symbols": ["A", "B", "Z", "other"], "default": "other"}))
    drift = effects(rec(f("c", CLASS)), rec(f("c", {**CLASS, "symbols": ["A", "B", "Z", "new"]})), reader, suite(
        ("known", "values_to_be_in_set", {"column": "c", "value_set": ["A", "B", "Z"]}, "critical")))
    assert drift.texts == ["c: symbols A, B → A, B, Z, new: new is read as the default other; Z, other may come; "
                           "expectation known on c fails for other"]


def test_what_nothing_uses_is_of_no_effect_unless_it_costs_the_record() -> None:
    assert told(after("n", used=["a"])) == [("n", "removed", ["none"])]
    assert told(after("must", used=["a"])) == [("must", "removed", ["quarantine"])]
    assert told(after("n", used=["n"])) == [("n", "removed", ["default"])]
    assert told(after("n", used={"n": ("step x", "topic y")})) == [("n", "removed", ["default", "use", "use"])]


def test_where_nothing_can_be_read_nothing_else_matters() -> None:
    drift = effects(rec(*WRITER), rec(f("n", "string")), rec(*READER), GIVEN, {"a": ("step x",)})
    assert drift.severity == "critical"
    assert [p.partition(":")[0] for p in drift.problems] == ["n", "must"]
    assert {e.kind for c in drift.changes for e in c.effects} == {"none", "quarantine"}
    nameless = effects(rec(f("a", "string")), rec(f("a", "string"), name="S"), rec(f("a", "string")))
    assert told(nameless) == [("", "name", ["quarantine"])]


def test_within_a_record_that_may_be_null_only_those_that_have_it_are_lost() -> None:
    def held(*fields: Any) -> AvroSchema:
        return rec(f("in", null({"type": "record", "name": "I", "fields": list(fields)})))

    drift = effects(held(f("a", "int")), held(f("b", "int")), held(f("a", "int")))
    assert drift.problems == ()
    assert "some records cannot be read (in.a is not in them" in drift.texts[0]


TYPES: list[Any] = ["int", "long", "float", "double", "string", "bytes", "boolean", CLASS,
                    {**CLASS, "symbols": ["B", "D"]}, {"type": "array", "items": "int"},
                    {"type": "long", "logicalType": "timestamp-millis"}]
DEFAULTS: dict[str, Any] = {"int": 1, "long": 1, "float": 1.5, "double": 1.5, "string": "s", "bytes": "s",
                            "boolean": True, "enum": "B", "array": []}
VALUES: dict[str, Sequence[Any]] = {"int": (0, -5), "long": (7, -9), "float": (0.5, 2.0), "double": (0.25, 3.0),
                                    "string": ("x", "yy"), "bytes": (b"x", b"\xff"), "boolean": (True, False),
                                    "array": ([], [1, 2])}


def generated(rng: random.Random) -> list[dict[str, Any]]:
    out = []
    for name in rng.sample("abcdef", rng.randint(1, 6)):
        type_ = rng.choice(TYPES)
        kind = type_ if isinstance(type_, str) else type_["type"]
        more = {"default": DEFAULTS[kind]} if rng.random() < 0.5 else {}
        if rng.random() < 0.3:
            type_, more = null(type_), {"default": None} if more else {}
        out.append(f(name, type_, **more))
    return out


def named_once(fields: list[dict[str, Any]]) -> AvroSchema:
    """Enums under a name each, since a name stands for one definition; they match by the name without namespace."""
    def own(type_: Any, name: str) -> Any:
        if isinstance(type_, list):
            return ["null", own(type_[1], name)]
        return {**type_, "namespace": name} if isinstance(type_, dict) and type_["type"] == "enum" else type_

    return rec(*({**g, "type": own(g["type"], g["name"])} for g in fields))


def test_what_is_foretold_of_reading_is_what_the_decoder_does() -> None:
    """Generated triples of schemas, records of every branch and symbol: a quarantine is foretold where there is one."""
    rng = random.Random(9)
    lost_all = lost_some = 0
    for _ in range(400):
        fields = generated(rng)
        changed = [g for g in generated(rng) if rng.random() < 0.4]
        new = [*(g for g in fields if rng.random() < 0.9 and g["name"] not in {c["name"] for c in changed}), *changed]
        if not new:
            continue
        reader, old, writer = named_once(fields), named_once(fields), named_once(new)
        drift = effects(old, writer, reader)
        assert not drift.problems or problems(reader, writer)
        rows = pa.RecordBatch.from_arrays([_column(t.type) for t in writer.type.fields], schema=writer.arrow)
        decoded = Decoder(reader, {1: writer}.__getitem__).decode(Encoder(writer, writer.arrow, 1).encode(rows))
        foretold = any(e.kind == "quarantine" for c in drift.changes for e in c.effects)
        assert foretold == bool(decoded.rejects), (fields, new, drift.texts, decoded.rejects[:3])
        assert not drift.problems or len(decoded.rejects) == rows.num_rows, (fields, new, drift.problems)
        assert drift.problems or not any("schema 1: " in why for _, why in decoded.rejects), (fields, new)
        lost_all += bool(drift.problems)
        lost_some += foretold and not drift.problems
    assert (lost_all > 50, lost_some > 10) == (True, True)


def _column(type_: Any) -> pa.Array:
    """Twelve rows with every symbol, and null where there may be one."""
    inner = next((t for t in (type_, *type_.some) if t.kind != "union"), type_)
    kind = [*inner.symbols] if inner.kind == "enum" else [*VALUES[inner.kind]]
    values = [*kind, *([None] if type_.nullable else [])] * 12
    if inner.logical:
        return pa.array(values[:12], pa.int64()).cast(type_.arrow)
    return pa.array(values[:12], type_.arrow)


# Who uses a column

WIDE = """\
flow: wide
owner: me
source: {kafka: {topic: t, schema: departure, partitions: 2}}
steps:
  name:   {derive: {who: "carrier || '-' || CAST(flight AS VARCHAR)"}}
  check:  {validate: {suite: departure}}
  far:    {filter: {where: "distance > 100"}}
  few:    {select: {keep: [who, flight]}}
sinks:
  t.few:  {from: few, kafka: {}}
  t.held: {from: [check.failure, source.reject], quarantine: {}}
drop: [far.unmatched]
"""


def test_who_uses_a_column_is_asked_of_the_steps_themselves(tmp_path: Path) -> None:
    text = WIDE
    made = plan.load(flowkit.write(tmp_path, text, "wide"))
    found = uses(made, "source", ["flight", "carrier", "tailnum", "distance", "at"])
    assert found.used == {"flight": ("step name (derive)", "step few (select)", "topic t.few"),
                          "carrier": ("step name (derive)",), "distance": ("step far (filter)",)}
    assert found.suite is not None
    assert [e.id for e in found.suite.expectations] == ["tailnum_known", "far_enough"]
    assert uses(made, "source", ["at"]).suite is None


def test_an_expectation_on_what_a_step_made_is_not_the_sources(tmp_path: Path) -> None:
    own = json.dumps({"expectations": [{"id": "who_given", "type": "expect_column_values_to_not_be_null",
                                        "kwargs": {"column": "who"}}]})
    made = plan.load(flowkit.write(tmp_path, WIDE, "wide", suite=own))
    assert uses(made, "source", ["carrier", "flight"]).suite is None


def test_the_plan_is_not_touched_and_a_flow_without_a_quarantine_drops(tmp_path: Path) -> None:
    text = WIDE.replace("from: [check.failure, source.reject], quarantine: {}", "from: check.failure, kafka: {}") \
        .replace("[far.unmatched]", "[far.unmatched, source.reject]")
    made = plan.load(flowkit.write(tmp_path, text, "wide"))
    suite_before, outputs = made.step("check").processor.suite, made.step("name").outputs  # type: ignore[attr-defined]
    schema = parse(json.dumps(flowkit.SCHEMA))
    fewer = {**flowkit.SCHEMA, "fields": flowkit.SCHEMA["fields"][1:]}
    drift = judged(made, made.source, schema, parse(json.dumps(fewer)))
    assert "all are dropped" in drift.texts[-1]
    assert made.step("check").processor.suite is suite_before  # type: ignore[attr-defined]
    assert made.step("name").outputs == outputs


TWO = """\
flow: two
owner: me
sources:
  left:  {kafka: {topic: l, schema: departure, partitions: 2}}
  right: {kafka: {topic: r, schema: departure, partitions: 2}}
steps:
  pair:
    from: [left, right]
    join: {on: flight, time: at, within: 1h, take: {far: distance}}
sinks:
  pairs:  {from: pair, kafka: {}}
  drifts: {from: [left.drift, right.drift], kafka: {schema: control/verdicts}}
  held:   {quarantine: {}}
drop: [pair.unmatched, pair.unmatched_right, pair.late, pair.late_right]
"""


def test_of_several_sources_each_is_its_own(tmp_path: Path) -> None:
    made = plan.load(flowkit.write(tmp_path, TWO, "two"))
    assert uses(made, "left", ["carrier", "distance", "at"]).used == {
        "carrier": ("topic pairs",), "distance": ("topic pairs",), "at": ("step pair (join)", "topic pairs")}
    assert uses(made, "right", ["carrier", "distance"]).used == {"distance": ("step pair (join)", "topic pairs")}


# A flow that sees one

DRIFTING = """\
flow: departures
owner: flight-ops
source: {kafka: {topic: t, schema: departure, partitions: 3}}
steps:
  check: {validate: {suite: departure}}
  bad:   {from: source.drift, filter: {where: "NOT ok"}}
sinks:
  t.checked:         {from: check, kafka: {}}
  headrace.verdicts: {from: source.drift, kafka: {schema: control/verdicts, partitions: 1}}
  t.alarm:           {from: bad, kafka: {}}
  t.quarantine:      {from: [check.failure, source.reject], quarantine: {}}
drop: [bad.unmatched]
"""


def departures(*without: str, **types: Any) -> AvroSchema:
    fields = [{**g, "type": types.get(g["name"], g["type"])} for g in flowkit.SCHEMA["fields"]
              if g["name"] not in without]
    return parse(json.dumps({**flowkit.SCHEMA, "fields": fields}))


class Run:
    """A flow's pipeline with its small state, as a worker drives it."""

    def __init__(self, folder: Path, flow: str = DRIFTING) -> None:
        self.plan = plan.load(flowkit.write(folder, flow))
        self.writers: dict[int, AvroSchema] = {1: departures(), 2: departures("tailnum"), 3: departures("flight"),
                                               4: departures(distance=null("int"))}
        self.state = StateStore()
        self.offsets: dict[int, int] = {}
        self.restart()

    def restart(self) -> None:
        """Another worker, with the state that was committed."""
        ids = {sink.name: 100 + at for at, sink in enumerate(self.plan.sinks)}
        self.pipeline = Pipeline(self.plan, writers=self.schema, sink_ids=ids, partitions=lambda: [0, 1, 2],
                                 state=lambda step, partition: self.state.of(partition, step))
        self.pipeline.open()

    def schema(self, schema_id: int) -> AvroSchema:
        if schema_id == 66:
            raise SchemaError("schema 66: a JSON schema; headrace reads Avro")
        if schema_id not in self.writers:
            raise UnknownSchema(schema_id)
        return self.writers[schema_id]

    def feed(self, *records: tuple[int, int], commit: bool = True) -> Outputs:
        """Records by (partition, schema id)."""
        before = dict(self.offsets)
        messages = []
        for partition, schema_id in records:
            offset = self.offsets[partition] = self.offsets.get(partition, -1) + 1
            messages.append(Record(self.payload(schema_id), "t", partition, offset, timestamp_ms=1_000 + offset))
        out = self.pipeline.run(messages)
        if commit:
            self.state.seal()
            self.state.commit()
        else:
            self.state.drop()
            self.offsets = before
        return out

    def payload(self, schema_id: int) -> bytes:
        schema = self.writers.get(schema_id, self.writers[1])
        values = {"flight": 1, "carrier": "UA", "tailnum": "N1", "distance": 5.0, "at": None}
        row = {k: v for k, v in values.items() if k in schema.arrow.names}
        encoded: bytes = Encoder(schema, schema.arrow, schema_id).encode(
            pa.RecordBatch.from_pylist([row], schema=schema.arrow))[0]
        return encoded


def seen(out: Outputs) -> list[tuple[int, int, str]]:
    return [(s.before, s.schema_id, str(s.at)) for s in out.sightings]


def test_a_new_schema_is_told_of_once_and_the_first_is_none(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert seen(run.feed((0, 1), (1, 1), (0, 1))) == []
    out = run.feed((0, 1), (0, 2), (0, 2), (0, 1))
    assert seen(out) == [(1, 2, "t/0@3")]
    assert out.counts[("source", "new_schema", "critical")] == 1
    assert len(out.sinks["headrace.verdicts"]) == len(out.sinks["t.alarm"]) == 1
    assert out.sinks["headrace.verdicts"].keys == [b"departures/source"]
    assert seen(run.feed((0, 2), (0, 1))) == []
    run.restart()
    assert seen(run.feed((0, 2), (0, 1), (1, 2))) == [], "the worker has told of it, from another partition"
    both = run.feed((2, 4), (0, 3), (2, 3))
    assert seen(both) == [(2, 4, "t/2@0"), (2, 3, "t/0@10")]
    assert run.state.metadata(("t", 2), "n") == '{"n":"n","s":{"source":{"schemas":[4,3]}}}'


def test_what_the_event_says(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.feed((0, 1))
    [value] = run.feed((0, 2)).sinks["headrace.verdicts"].values
    assert value is not None
    [row] = Decoder(Verdict.schema(), lambda _: Verdict.schema()).decode([value]).rows.to_pylist()
    event = Verdict.from_record(row)
    assert (event.about, event.flow, event.step, event.owner, event.ok) == (
        "schema", "departures", "source", "flight-ops", False)
    assert (event.topic, event.partition, event.offset_first, event.offset_last, event.model) == ("t", 0, 1, 1, None)
    assert event.at.timestamp() == 1.001
    assert event.measures == {"schema_id": 2.0, "schema_id_before": 1.0, "changes": 1.0}
    assert event.reasons == [
        "tailnum: removed, was [null, string] = null: every record is read with its default null; expectation "
        "tailnum_known on tailnum fails for every record, and holds it back; topic t.checked uses it"]


def test_what_was_aborted_is_told_again_with_the_same_id(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.feed((0, 1))
    first, again = run.feed((1, 2), (0, 2), commit=False), run.feed((0, 2), (1, 2))
    assert seen(first) == [(1, 2, "t/1@0")]
    assert seen(again) == [(1, 2, "t/0@1")], "in whichever partition it is seen first"
    assert len({s.event("f", "source", "").id for out in (first, again) for s in out.sightings}) == 1
    assert seen(run.feed((0, 2), (1, 2), (2, 2))) == []


def test_an_id_of_nobody_is_a_reject_and_not_a_schema(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert seen(run.feed((0, 99), (0, 1))) == []
    out = run.feed((0, 99), (0, 1))
    assert seen(out) == []
    assert out.counts[("source", "reject", "unknown_schema")] == 1
    run.writers[99] = departures(tailnum=null("bytes"))
    assert seen(run.feed((0, 1), (0, 99))) == [(1, 99, "t/0@5")]


def test_a_schema_that_is_no_avro_and_one_that_came_after_a_lost_one(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.feed((0, 4))
    del run.writers[4]
    [sighting] = run.feed((0, 66)).sightings
    assert sighting.drift.texts == ["none of its records can be read: schema 66: a JSON schema; headrace reads Avro"]
    [sighting] = run.feed((0, 1)).sightings
    assert sighting.drift.texts == ["the record: schema 66, which the registry does not give → departure"]


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for schema_id in range(10, 40):
        run.writers[schema_id] = departures()
        assert len(run.feed((0, schema_id)).sightings) == (schema_id > 10)
    assert len(run.state.of(("t", 0), "source")["schemas"]) == KEPT


def test_rejects_and_payloads_without_a_schema_do_not_disturb(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.feed((1, 1))
    messages = [Record(b"", "t", 0, 0), Record(None, "t", 0, 1), Record(run.payload(2), "t", 0, 2),
                Record(b"\0\0\0\0", "t", 1, 1), Record(run.payload(1), "t", 1, 2)]
    assert seen(run.pipeline.run(messages)) == [(1, 2, "t/0@2")]


def test_drift_goes_nowhere_by_itself_and_never_to_a_quarantine(tmp_path: Path) -> None:
    quiet = Run(tmp_path / "a", flowkit.FLOW.replace("flights.departures", "t"))
    quiet.feed((0, 1))
    assert len(quiet.feed((0, 2)).sightings) == 1
    wrong = DRIFTING.replace("check.failure, source.reject", "check.failure, source.reject, source.drift")
    with pytest.raises(ConfigError, match=r"source\.drift has rows that source makes"):
        plan.load(flowkit.write(tmp_path / "b", wrong))
    with pytest.raises(ConfigError, match=r"no output “drifts”; it has `source`, `source\.reject` and `source\.drift`"):
        plan.load(flowkit.write(tmp_path / "c", DRIFTING.replace("source.drift, kafka", "source.drifts, kafka")))
