"""Chains of transforms: what a config declares, what is wrong with it, and what becomes of records."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.records import Column, Records, Shape, arrow_of, shape_of
from headrace.records.records import one
from headrace.records.shape import DATE, TIMESTAMP
from headrace.transforms import PREDICATES, TRANSFORMS, Chain, chain_of, definitions, predicate_class, transform_class

pytestmark = pytest.mark.unit
JAVA = "org.apache.kafka.connect.transforms."


def config(**stages: Mapping[str, str] | str) -> dict[str, str]:
    """`mask={"type": …}` becomes `transforms=mask`, `transforms.mask.type=…`."""
    return {"transforms": ",".join(stages), **{f"transforms.{alias}.{key}": value for alias, keys in stages.items()
                                               if isinstance(keys, Mapping) for key, value in keys.items()}}


def chain(**stages: Mapping[str, str]) -> Chain:
    made, problems = chain_of(config(**stages))
    assert not problems
    return made


def records(rows: list[Any], shape: Shape | None = None, **more: Any) -> Records:
    kind = None if shape is None else arrow_of(shape)
    return one("t", Column(pa.array(rows, kind), shape)).but(**more)


def values(found: list[Records]) -> list[Any]:
    return [value for part in found for value in part.value.values.to_pylist()]


ROW = Shape("struct", name="Row", version=3, doc="a row", fields=(
    ("id", Shape("int64")), ("card", Shape("string", optional=True)), ("n", Shape("int32", default=7))))


# What a config declares


def test_names_in_java_and_short() -> None:
    for name in TRANSFORMS:
        assert transform_class(name) == transform_class(name.removeprefix(JAVA))
        cls, key = TRANSFORMS[name]
        assert name.endswith("$Key") == key
        assert name.startswith(JAVA + cls.__name__)
    for name in PREDICATES:
        assert predicate_class(name) is predicate_class(name.rpartition(".")[2])
    assert len(TRANSFORMS) == 26
    assert len(PREDICATES) == 3


def test_every_key_is_defined() -> None:
    for cls, told in [*((cls, definitions(cls)) for cls, _ in TRANSFORMS.values()),
                      *((cls, definitions(cls)) for cls in PREDICATES.values())]:
        for each in told:
            assert each.documentation, (cls, each)
            assert each.importance in ("HIGH", "MEDIUM", "LOW"), (cls, each)
            assert each.type in ("STRING", "LIST", "BOOLEAN", "INT"), (cls, each)
            assert each.default is None or not each.required, (cls, each)
    by_name = {each.name: each for each in definitions(transform_class("SetSchemaMetadata$Key")[0])}
    assert by_name["schema.version"].type == "INT"
    assert by_name["replace.null.with.default"].default == "true"


def test_no_transforms() -> None:
    made, problems = chain_of({"name": "x", "transforms": " "})
    assert (made, problems) == (Chain.empty, [])
    assert not made
    given = [records([1])]
    assert made.apply(given) == (given, [])


@pytest.mark.parametrize(("given", "key", "told"), [
    ({"mask": {"type": "MaskField$Value"}}, "transforms.mask.fields",
     "transforms.mask.fields: is missing: The fields to mask."),
    ({"mask": {"type": "MaskFeld$Value", "fields": "a"}}, "transforms.mask.type",
     "transforms.mask.type: there is no transform “MaskFeld$Value” here; did you mean “MaskField$Value”?"),
    ({"mask": {"type": "MaskField", "fields": "a"}}, "transforms.mask.type",
     "transforms.mask.type: MaskField is for the key or for the value: say MaskField$Key or MaskField$Value"),
    ({"mask": {}}, "transforms.mask.type",
     "transforms.mask.type: is missing: the transform's class, such as MaskField$Value"),
    ({"mask": {"type": "MaskField$Value", "fields": "a", "replacment": "x"}}, "transforms.mask.replacment",
     "transforms.mask.replacment: there is no such key; did you mean “replacement”?"),
    ({"r": {"type": "ReplaceField$Value", "blacklist": "a"}}, "transforms.r.blacklist",
     "transforms.r.blacklist: there is no such key; it is called “exclude” now"),
    ({"c": {"type": "Cast$Value", "spec": "a:int23"}}, "transforms.c.spec",
     "transforms.c.spec: “int23” is no type to cast to; did you mean “int32”?"),
    ({"t": {"type": "TimestampConverter$Value", "target.type": "string", "format": "yyyyT"}}, "transforms.t.format",
     "transforms.t.format: “yyyyT”: the letter “T” means nothing in a SimpleDateFormat pattern; put letters that stand "
     "for themselves between single quotes"),
    ({"t": {"type": "TimestampConverter$Value", "target.type": "unix", "format": "YYYY-ww"}}, "transforms.t.format",
     "transforms.t.format: “YYYY-ww”: the letter “w” can be written, and not read"),
    ({"t": {"type": "TimestampConverter$Value", "target.type": "Unix"}}, "transforms.t.target.type",
     "transforms.t.target.type: “Unix” is not one of 'string', 'unix', 'Date', 'Time' or 'Timestamp'"),
    ({"i": {"type": "InsertField$Value", "static.field": "a"}}, "transforms.i.static.value",
     "transforms.i.static.value: is missing; it is what static.field is filled with"),
    ({"r": {"type": "RegexRouter", "regex": "(a)", "replacement": "$2"}}, "transforms.r.replacement",
     "transforms.r.replacement: “$2”: the expression has 1 groups, and no group 2"),
    ({"r": {"type": "RegexRouter", "regex": r"\p{IsGreek}", "replacement": "x"}}, "transforms.r.regex",
     r"transforms.r.regex: “\p{IsGreek}”: the class “\p{IsGreek}” is not supported here"),
    ({"f": {"type": "Filter", "predicate": "p"}}, "transforms.f.predicate",
     "transforms.f.predicate: there is no predicate “p” in `predicates`"),
    ({"f": {"type": "Filter", "negate": "true"}}, "transforms.f.negate",
     "transforms.f.negate: there is nothing to negate: transforms.f.predicate is missing"),
    ({"d": {"type": "io.debezium.transforms.ExtractNewRecordState"}}, "transforms.d.type", None)])
def test_problems_in_words(given: dict[str, dict[str, str]], key: str, told: str | None) -> None:
    made, problems = chain_of(config(**given))
    assert [each for each, _ in problems] == [key]
    assert not made
    if told is not None:
        assert problems == [(key, told)]
    else:
        assert "Java's own classes run in a Kafka Connect cluster" in problems[0][1]


def test_all_problems_at_once() -> None:
    _, problems = chain_of({
        "transforms": "a,a,,b", "transforms.a.type": "Cast$Value", "transforms.b.type": "Filter",
        "transforms.b.predicate": "gone", "predicates": "there,bad", "predicates.there.type": "HasHeaderKey",
        "predicates.bad.type": "Tombstone", "transforms.unused.type": "whatever"})
    assert [key for key, _ in problems] == ["predicates.there.name", "predicates.bad.type", "transforms", "transforms",
                                            "transforms.a.spec", "transforms.b.predicate"]


def test_the_version_of_a_plugin_is_let_be() -> None:
    assert chain(f={"type": "Filter", "plugin.version": "4.3.1"})


# What becomes of records


def test_mask_insert_replace() -> None:
    given = records([{"id": 1, "card": "4711", "n": 5}, {"id": 2, "card": None, "n": 6}], ROW,
                    timestamps_ms=np.array([1000, -1]))
    made, failures = chain(
        m={"type": "MaskField$Value", "fields": "card,n", "replacement": "42"},
        i={"type": "InsertField$Value", "timestamp.field": "at", "topic.field": "from!", "partition.field": "part"},
        r={"type": "ReplaceField$Value", "exclude": "n", "renames": "card:masked"}).apply([given])
    assert failures == []
    assert values(made) == [
        {"id": 1, "masked": "42", "at": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), "from": "t", "part": None},
        {"id": 2, "masked": None, "at": None, "from": "t", "part": None}]
    shape = made[0].value.shape
    assert shape is not None
    assert (shape.name, shape.version, shape.doc) == ("Row", 3, "a row")
    assert dict(shape.fields)["at"] == Shape("int64", optional=True, name=TIMESTAMP, version=1)
    assert dict(shape.fields)["from"] == Shape("string")
    assert made[0].value.values.type == arrow_of(shape)
    assert given.value.values.to_pylist()[0]["card"] == "4711", "what it was given is not changed"


def test_only_the_bad_records_fail() -> None:
    shape = Shape("struct", fields=(("n", Shape("string", optional=True)),))
    given = records([{"n": "1"}, {"n": "x"}, {"n": None}, {"n": "300"}], shape, index=np.array([3, 5, 8, 9]))
    made, failures = chain(c={"type": "Cast$Value", "spec": "n:int8"}).apply([given])
    assert values(made) == [{"n": 1}, {"n": None}]
    assert made[0].index.tolist() == [3, 8]
    assert [(each.index, each.stage, each.by) for each in failures] == [
        (5, "TRANSFORMATION", JAVA + "Cast$Value"), (9, "TRANSFORMATION", JAVA + "Cast$Value")]
    assert failures[0].reason == "the field “n” is “x”, which is no int8"


def test_tombstones_pass_with_their_old_shape() -> None:
    shape = ROW.but(optional=True)
    given = records([None, {"id": 1, "card": "x", "n": 1}, None], shape)
    made, failures = chain(r={"type": "ReplaceField$Value", "include": "id"}).apply([given])
    assert failures == []
    assert [(part.index.tolist(), part.value.shape) for part in made] == [
        ([0, 2], shape), ([1], Shape("struct", name="Row", version=3, doc="a row", fields=(("id", Shape("int64")),)))]


def test_masking_a_tombstone_fails() -> None:
    made, failures = chain(m={"type": "MaskField$Value", "fields": "a"}).apply([records([None, {"a": 1}])])
    assert values(made) == [{"a": 0}]
    assert [(each.index, each.reason) for each in failures] == [
        (0, "there is no value for masking fields: it is null")]


def test_a_required_field_without_value_is_refused_at_once() -> None:
    """Java lets it pass, and fails when the record is converted."""
    given = records([{"id": 1, "card": "x", "n": 1}], ROW)
    made, failures = chain(i={"type": "InsertField$Value", "timestamp.field": "at!"}).apply([given])
    assert made == []
    assert failures[0].reason == "the record has no timestamp for the required field “at”"


def test_defaults_in_place_of_null() -> None:
    shape = Shape("struct", fields=(("a", Shape("int32", optional=True, default=5)),))
    given = records([{"a": None}, {"a": 1}], shape)
    for told, first in (("true", 5), ("false", None)):
        made, _ = chain(i={"type": "InsertField$Value", "topic.field": "t", "replace.null.with.default": told}
                        ).apply([given])
        assert values(made) == [{"a": first, "t": "t"}, {"a": 1, "t": "t"}]


def test_the_default_of_a_struct_is_converted_too() -> None:
    shape = Shape("struct", default={"at": 86_400_000}, fields=(("at", Shape("int64")),))
    made, failures = chain(t={"type": "TimestampConverter$Value", "field": "at", "target.type": "Date"}).apply(
        [records([{"at": 0}], shape)])
    assert failures == []
    assert made[0].value.shape == Shape("struct", default={"at": date(1970, 1, 2)}, fields=(
        ("at", Shape("int32", name=DATE, version=1)),))


def test_schemaless_times_and_texts() -> None:
    given = records([{"day": "2024-02-29 12:13:14", "x": 1}, {"day": None, "x": 2}, {"day": "soon", "x": 3}])
    made, failures = chain(t={"type": "TimestampConverter$Value", "field": "day", "format": "yyyy-MM-dd HH:mm:ss",
                              "target.type": "Timestamp"}).apply([given])
    assert values(made) == [{"day": datetime(2024, 2, 29, 12, 13, 14, tzinfo=UTC), "x": 1}, {"day": None, "x": 2}]
    assert failures[0].reason == "the field “day”: “soon” does not match the pattern yyyy-MM-dd HH:mm:ss at “soon”"
    made, failures = chain(t={"type": "TimestampConverter$Value", "field": "x", "unix.precision": "seconds",
                              "target.type": "Time"}).apply([given])
    assert [each["x"] for each in values(made)] == [time(0, 0, 1), time(0, 0, 2), time(0, 0, 3)]


def test_records_of_two_days_go_to_two_topics() -> None:
    given = records([{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}],
                    timestamps_ms=np.array([1_709_211_600_123, 1_709_300_000_000, 1_709_211_600_124, -1]))
    made, failures = chain(r={"type": "TimestampRouter"}).apply([given])
    assert [(part.topic, part.index.tolist()) for part in made] == [("t-20240229", [0, 2]), ("t-20240301", [1])]
    assert [each.index for each in failures] == [3]


@pytest.mark.parametrize(("negate", "left"), [("false", [1, 2]), ("true", [0])])
def test_predicates(negate: str, left: list[int]) -> None:
    given = records([{"a": 1}, {"a": 2}, {"a": 3}], headers=[[("drop", "1", Shape("string"))], [], []])
    made, problems = chain_of({
        **config(f={"type": "Filter", "predicate": "marked", "negate": negate}), "predicates": "marked",
        "predicates.marked.type": "HasHeaderKey", "predicates.marked.name": "drop"})
    assert problems == []
    found, failures = made.apply([given])
    assert [place for part in found for place in part.index.tolist()] == left
    assert failures == []


def test_the_rest_of_a_predicate_goes_on_as_it_is() -> None:
    given = records([{"a": 1}, None, {"a": 3}])
    made, problems = chain_of({
        **config(h={"type": "HoistField$Value", "field": "line", "predicate": "p", "negate": "true"},
                 i={"type": "InsertHeader", "header": "h", "value.literal": "1"}),
        "predicates": "p", "predicates.p.type": "RecordIsTombstone"})
    assert problems == []
    found, _ = made.apply([given])
    assert [(part.index.tolist(), part.value.values.to_pylist()) for part in found] == [
        ([0, 2], [{"line": {"a": 1}}, {"line": {"a": 3}}]), ([1], [None])]
    assert all(headers == [("h", 1, Shape("int8"))] for part in found for headers in map(list, part.headers or []))


def test_flatten_parts_what_comes_out_differently() -> None:
    given = records([{"a": {"b": {"c": 1}}}, {"a": None}, {"a": {"b": None}}, {"a": {"b": {"c": None}}}])
    made, _ = chain(f={"type": "Flatten$Value", "delimiter": "_"}).apply([given])
    assert [(part.index.tolist(), part.value.values.to_pylist()) for part in made] == [
        ([0, 3], [{"a_b_c": 1}, {"a_b_c": None}]), ([1], [{"a": None}]), ([2], [{"a_b": None}])]


def test_header_from_moves_and_copies() -> None:
    given = records([{"id": 1, "card": "x", "n": 1}, {"id": 2, "card": None, "n": 2}], ROW)
    for operation, fields in (("move", ["n"]), ("copy", ["id", "card", "n"])):
        made, failures = chain(h={"type": "HeaderFrom$Value", "fields": "card,id", "headers": "c,i",
                                  "operation": operation}).apply([given])
        assert failures == []
        assert [name for name, _ in (made[0].value.shape or ROW).fields] == fields
        assert [list(each) for each in made[0].headers or []] == [
            [("c", "x", Shape("string", optional=True)), ("i", 1, Shape("int64"))],
            [("c", None, Shape("string", optional=True)), ("i", 2, Shape("int64"))]]


def test_key_of_a_field() -> None:
    given = records([{"id": 1, "card": "x", "n": 1}, {"id": 2, "card": "y", "n": 2}], ROW)
    made, _ = chain(k={"type": "ValueToKey", "fields": "id"}, e={"type": "ExtractField$Key", "field": "id"}
                    ).apply([given])
    assert made[0].key == Column(pa.array([1, 2]), Shape("int64"))


def test_nested_fields_by_path() -> None:
    given = records([{"a.b": {"c": 1}}, {"a.b": None}])
    for path, found in (("`a.b`.c", [1, None]), ("a.b", [None, None])):
        made, _ = chain(e={"type": "ExtractField$Value", "field": path, "field.syntax.version": "V2"}).apply([given])
        assert values(made) == found


def test_what_sources_give_is_taken_as_it_is() -> None:
    """Dictionaries, large texts and microseconds, as Polars and Parquet have them."""
    rows = pa.RecordBatch.from_pydict({
        "d": pa.array(["x", "y"]).dictionary_encode(), "l": pa.array(["1", "2"], pa.large_string()),
        "t": pa.array([1_709_211_600_123_456, None], pa.timestamp("us"))})
    given = one("t", Column.of_rows(rows))
    made, failures = chain(c={"type": "Cast$Value", "spec": "l:int32"}, m={"type": "MaskField$Value", "fields": "d"},
                           u={"type": "TimestampConverter$Value", "field": "t", "target.type": "unix"}).apply([given])
    assert failures == []
    assert values(made) == [{"d": "", "l": 1, "t": 1_709_211_600_123}, {"d": "", "l": 2, "t": None}]
    shape = made[0].value.shape
    assert shape is not None
    assert shape_of(made[0].value.values.type, optional=False) == shape


def test_empty_records_and_empty_structs() -> None:
    nothing = records([]).but(value=Column(pa.array([], pa.struct([("a", pa.int64())]))))
    assert chain(f={"type": "Flatten$Value"}).apply([nothing]) == ([], [])
    made, failures = chain(r={"type": "ReplaceField$Value", "exclude": "a"},
                           i={"type": "InsertField$Value", "topic.field": "t"}).apply([records([{"a": 1}, {"a": 2}])])
    assert (values(made), failures) == ([{"t": "t"}, {"t": "t"}], [])


def test_order_is_kept_over_groups() -> None:
    first, second = records([{"a": 1}], index=np.array([1])), records([{"b": 1}], index=np.array([0]))
    made, _ = chain(h={"type": "HoistField$Value", "field": "x"}).apply([first, second])
    assert [part.index.tolist() for part in made] == [[0], [1]]
