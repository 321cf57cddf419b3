"""Avro schema and Great Expectations suite ↔ TFX's schema.pbtxt.

    boolean                        INT, bool_domain          presence      not null: min_fraction 1; ["null", T]: 0
    int, long                      INT                       record        STRUCT, struct_domain
    date, timestamp-*              INT, time_domain          array of T    as T, value_count {min: 0}
    float, double                  FLOAT
    string, bytes, fixed, enum     BYTES; an enum's symbols are its string_domain

    expect_column_values_to_be_in_set      string_domain, and distribution_constraints of its `mostly`
    expect_column_values_to_be_between     int_domain, float_domain
    expect_column_values_to_not_be_null    presence

What TFX has no word for (int or long, a name, a regex, an expectation's id) stands as a tag in `annotation`, which TFX
carries along and passes over, so that what comes back is what went out. On the way back the message has the last word:
a tag that contradicts it (because someone changed the domain) is dropped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from headrace.codec.types import LOGICAL
from headrace.contracts import Expectation, Suite
from headrace.errors import SchemaError
from headrace.tfx import proto, to_text

Message = Any
"""A message of tensorflow-metadata; it has no types for mypy."""
Json = dict[str, Any]

TAG_TYPE, TAG_FIELD, TAG_RECORD, TAG_NULLABLE = "avro.type=", "avro.field=", "avro.record=", "avro.nullable"
TAG_SYMBOLS = "avro.symbols="
TAG_SUITE, TAG_TOLD, TAG_UNTOLD = "gx.suite=", "gx.told=", "gx.untold="
"""Expectations are told by a feature's presence or domain, or they are untold and only carried along."""
KINDS = {"boolean": "INT", "int": "INT", "long": "INT", "float": "FLOAT", "double": "FLOAT", "string": "BYTES",
         "bytes": "BYTES", "fixed": "BYTES", "enum": "BYTES", "record": "STRUCT"}
"""Avro type → FeatureType."""
TIMES = {"date": "UNIX_DAYS", "timestamp-millis": "UNIX_MILLISECONDS", "timestamp-micros": "UNIX_MICROSECONDS",
         "timestamp-nanos": "UNIX_NANOSECONDS"}
"""Logical type → the time_domain's integer_format."""
SET, BETWEEN, NOT_NULL = (f"expect_column_values_to_{name}" for name in ("be_in_set", "be_between", "not_be_null"))


# Out


def to_tfx(avro: Json, suite: Suite | None = None) -> tuple[Message, list[str]]:
    """(schema_pb2.Schema, what of the suite TFX cannot check) of an Avro record's JSON and its suite.

    Raises SchemaError naming the field that TFX has no feature for (maps, general unions, lists of lists) and
    MissingExtra.
    """
    if avro.get("type") != "record":
        raise SchemaError("only a record has features", hint="the topic's schema is no record")
    made = proto("schema").Schema()
    _annotate(made, {TAG_RECORD: _without(avro, "type", "fields", "doc")}, avro.get("doc"))
    named: dict[str, Any] = {}
    for field in avro["fields"]:
        _feature(made.feature.add(), field, named, field["name"])
    untold: list[str] = []
    if suite is not None:
        _annotate(made, {TAG_SUITE: {"name": suite.name}})
        features = {f.name: f for f in made.feature}
        for at, e in enumerate(suite.expectations):
            mine = features.get(e.columns[0]) if len(e.columns) == 1 else None
            why = "it is not of one column of the schema" if mine is None else _constrain(mine, e)
            _annotate(made if mine is None else mine, {TAG_UNTOLD if why else TAG_TOLD: {"at": at, **_written(e)}})
            untold += [f"{e.id}: {why}"] if why else []
    return made, untold


def to_pbtxt(avro: Json, suite: Suite | None = None) -> tuple[str, list[str]]:
    """As to_tfx, the schema as text."""
    made, untold = to_tfx(avro, suite)
    return to_text(made), untold


def _feature(made: Message, field: Json, named: dict[str, Any], path: str) -> None:
    """One field into one feature, with tags for what its natural reading would not give back."""
    core, nullable, many = _core(field["type"], path)
    shape = _resolved(core, named, path)
    kind = KINDS[shape["type"]]
    made.name = field["name"]
    made.type = proto("schema").FeatureType.Value(kind)
    made.presence.min_fraction = 0.0 if nullable else 1.0
    if not nullable:
        made.presence.min_count = 1
    if many:
        made.value_count.min = 0
    elif nullable or kind == "STRUCT":
        made.value_count.min = made.value_count.max = 1
    else:
        made.shape.dim.add(size=1)
    _domain(made, shape, named, path)
    _annotate(made, {}, field.get("doc"))
    if core != _natural(made):
        _annotate(made, {TAG_TYPE: core if isinstance(core, str) else _without(core, "fields", "symbols")})
    extras = _without(field, "name", "type", "doc")
    if extras != ({"default": None} if nullable else {}):
        _annotate(made, {TAG_FIELD: extras})


def _domain(made: Message, shape: Json, named: dict[str, Any], path: str) -> None:
    if shape["type"] == "boolean":
        made.bool_domain.SetInParent()
    elif shape["type"] == "enum":
        made.string_domain.value.extend(shape["symbols"])
        _annotate(made, {TAG_SYMBOLS: shape["symbols"]})
    elif logical := _timed(shape):
        domain = made.time_domain
        domain.integer_format = domain.IntegerTimeFormat.Value(TIMES[logical])
    elif shape["type"] == "record":
        made.struct_domain.SetInParent()
        for field in shape["fields"]:
            _feature(made.struct_domain.feature.add(), field, named, f"{path}.{field['name']}")


def _core(written: Any, path: str) -> tuple[Any, bool, bool]:
    """(the type itself, whether it may be null, whether it is a list) of a field's type. Raises SchemaError."""
    nullable = isinstance(written, list) and len(written) == 2 and written[0] == "null"
    if nullable:
        written = written[1]
    many = isinstance(written, dict) and written.get("type") == "array"
    if many:
        written = written["items"]
    inner = written.get("type") if isinstance(written, dict) else written
    if isinstance(written, list) or inner in ("array", "map", "null") or not isinstance(inner, str):
        what = "a union" if isinstance(written, list) else f"a type {inner if isinstance(inner, str) else 'in a type'}"
        raise SchemaError(f"{path}: TFX has no feature for {what}{' in a list' if many else ''}",
                          hint="T, [\"null\", T] and arrays of T have one, for a plain, named or logical T; `select` "
                               "and `derive` make a topic of such fields")
    return written, nullable, many


def _resolved(core: Any, named: dict[str, Any], path: str) -> Json:
    """The type as an object; a name is looked up among the types defined before. Raises SchemaError."""
    shape: Json = {"type": core} if isinstance(core, str) else core
    if shape["type"] not in KINDS:
        found = named.get(shape["type"].rpartition(".")[2])
        if found is None:
            raise SchemaError(f"{path}: “{shape['type']}” is not defined in this schema")
        return dict(found)
    if "name" in shape:
        named[shape["name"].rpartition(".")[2]] = shape
    return shape


def _timed(shape: Any) -> str | None:
    """The logical type, if it is one that a time_domain says."""
    logical = shape.get("logicalType") if isinstance(shape, dict) else None
    return logical if logical in TIMES and (shape["type"], logical) in LOGICAL else None


def _constrain(made: Message, e: Expectation) -> str | None:
    """Sets the domain that says what an expectation says; or why TFX cannot say it."""
    known = ("column", "mostly", "value_set", "min_value", "max_value")
    further = sorted(k for k, v in e.kwargs.items() if k not in known and v not in (None, False))
    if e.severity != "critical":
        return f"it is of severity {e.severity}, and what TFX checks is critical"
    if e.type not in (SET, BETWEEN, NOT_NULL):
        return f"TFX has no word for {e.type}"
    if further:
        return f"TFX has no word for {', '.join(further)}"
    if e.type == NOT_NULL:
        if made.presence.min_fraction == 0:
            _annotate(made, {TAG_NULLABLE: None})
        made.presence.min_fraction = max(made.presence.min_fraction, e.mostly)
        return None
    if made.WhichOneof("domain_info"):
        return f"the feature has a {made.WhichOneof('domain_info')} already"
    why = (_set_domain if e.type == SET else _range_domain)(made, e)
    if why is None and e.mostly < 1:
        made.distribution_constraints.min_domain_mass = e.mostly
    return why


def _set_domain(made: Message, e: Expectation) -> str | None:
    values = e.kwargs.get("value_set") or []
    if _kind(made) != "BYTES" or not values or not all(isinstance(v, str) for v in values):
        return "TFX knows sets of texts only"
    made.string_domain.value.extend(values)
    return None


def _range_domain(made: Message, e: Expectation) -> str | None:
    low, high = e.kwargs.get("min_value"), e.kwargs.get("max_value")
    kind = _kind(made)
    numbers = [v for v in (low, high) if v is not None]
    if kind not in ("INT", "FLOAT") or not all(type(v) in (int, float) for v in numbers):
        return "TFX knows ranges of numbers only"
    if kind == "INT" and not all(float(v).is_integer() and abs(v) < 2**63 for v in numbers):
        return "a range of whole numbers has whole ends, in TFX"
    if e.mostly < 1:
        return "TFX knows no `mostly` for ranges"
    domain = made.int_domain if kind == "INT" else made.float_domain
    domain.SetInParent()
    for name, value in (("min", low), ("max", high)):
        if value is not None:
            setattr(domain, name, int(value) if kind == "INT" else float(value))
    return None


# Back


def from_tfx(made: Message, name: str = "Imported") -> tuple[Json, Json]:
    """(the Avro record's JSON, the suite's JSON) of a schema_pb2.Schema, whoever made it; `name` is the record's where
    none is tagged. Raises SchemaError (sparse and weighted features, names Avro does not take)."""
    for kind in ("sparse_feature", "weighted_feature"):
        if getattr(made, kind):
            raise SchemaError(f"{getattr(made, kind)[0].name}: a {kind} has no Avro field",
                              hint="its parts are features, too: delete it from the file")
    record = next(_tags(made, TAG_RECORD), {"name": name})
    suite = next(_tags(made, TAG_SUITE), {"name": name.rpartition(".")[2].lower()})
    shared = {d.name: d for d in made.string_domain}
    avro = {"type": "record", **record, **_doc(made), "fields": [_field(f, record["name"]) for f in made.feature]}
    told = [e for f in made.feature for e in _expectations(f, shared)] + list(_tags(made, TAG_UNTOLD))
    in_order = sorted(told, key=lambda e: e.get("at", math.inf))  # as in the suite, and what is new last
    return avro, {**suite, "expectations": [_without(e, "at") for e in in_order]}


def from_pbtxt(text: str, file: str = "<schema>", name: str = "Imported") -> tuple[Json, Json]:
    """As from_tfx, of a schema's text. Raises SchemaError with line and column of what is no schema."""
    from google.protobuf import text_format

    try:
        made = text_format.Parse(text, proto("schema").Schema())
    except text_format.ParseError as error:
        raise SchemaError(f"{file}: not a TFX schema: {error}", hint="it is the text form of "
                          "tensorflow.metadata.v0.Schema, as SchemaGen writes it") from error
    return from_tfx(made, name)


def _field(made: Message, owner: str) -> Json:
    from headrace.codec.schema import NAME

    if not NAME.fullmatch(made.name):
        raise SchemaError(f"feature “{made.name}” has no Avro name", hint="letters, digits and _, no digit first")
    core = next(_tags(made, TAG_TYPE), None)
    natural = _natural(made, owner)
    if core is None or not _agrees(core, natural, made):
        core = natural
    elif isinstance(core, dict) and core.get("type") == "record":
        core = {**core, "fields": natural["fields"]}
    elif isinstance(core, dict) and core.get("type") == "enum":
        core = {**core, "symbols": next(_tags(made, TAG_SYMBOLS), list(made.string_domain.value))}
    nullable = made.presence.min_fraction < 1 or TAG_NULLABLE in made.annotation.tag
    many = _many(made)
    written = {"type": "array", "items": core} if many else core
    extras = next(_tags(made, TAG_FIELD), {"default": None} if nullable else {})
    return {"name": made.name, "type": ["null", written] if nullable else written, **_doc(made), **extras}


def _many(made: Message) -> bool:
    """Whether a feature is a list. One that says nothing of its values is not. Raises SchemaError."""
    match made.WhichOneof("shape_type"):
        case "value_counts":
            raise SchemaError(f"{made.name}: a feature of lists in lists has no Avro field")
        case "value_count":
            return bool(made.value_count.max != 1)
        case "shape":
            return any(dim.size != 1 for dim in made.shape.dim)
    return False


def _natural(made: Message, owner: str = "") -> Any:
    """The Avro type a feature reads as without tags."""
    domain = made.WhichOneof("domain_info")
    match _kind(made):
        case "INT":
            if domain == "time_domain":
                logical = {v: k for k, v in TIMES.items()}.get(
                    made.time_domain.IntegerTimeFormat.Name(made.time_domain.integer_format))
                return {"type": "int" if logical == "date" else "long", "logicalType": logical} if logical else "long"
            return "boolean" if domain == "bool_domain" else "long"
        case "FLOAT":
            return "double"
        case "STRUCT":
            name = f"{owner.rpartition('.')[2]}_{made.name}"
            return {"type": "record", "name": name, "fields": [_field(f, name) for f in made.struct_domain.feature]}
    return "string"


def _agrees(core: Any, natural: Any, made: Message) -> bool:
    """Whether a tagged type is still one of the feature's: the kind, and the domain where Avro's type has one."""
    inner = core if isinstance(core, str) else core.get("type")
    if inner not in KINDS:
        return True  # a name of a type defined before
    domain = made.WhichOneof("domain_info")
    return (KINDS[inner] == _kind(made) and (_timed(core) is not None) == (domain == "time_domain")
            and (inner == "boolean") == (domain == "bool_domain")
            and (inner == "record") == (isinstance(natural, dict) and natural["type"] == "record"))


def _expectations(made: Message, shared: Mapping[str, Message]) -> Iterator[Json]:
    """The tagged expectations that the domains still tell, those that they never told, and what else they tell."""
    implied = {e["type"]: e for e in _implied(made, shared)}
    for e in _tags(made, TAG_TOLD):
        probe = proto("schema").Feature(name=made.name, type=made.type)
        _constrain(probe, Expectation("", e["type"], e["kwargs"], "critical", ""))
        if probe.presence.min_fraction <= made.presence.min_fraction if e["type"] == NOT_NULL else \
                (_bounds(probe, shared), _mass(probe)) == (_bounds(made, shared), _mass(made)):
            implied.pop(e["type"], None)
            yield e
    yield from _tags(made, TAG_UNTOLD)
    yield from implied.values()


def _mass(made: Message) -> float:
    """How much of a feature must lie in its domain."""
    return float(made.distribution_constraints.min_domain_mass) if made.HasField("distribution_constraints") else 1.0


def _bounds(made: Message, shared: Mapping[str, Message]) -> Any:
    """A domain as a value: the texts, or (min, max)."""
    domain = made.WhichOneof("domain_info")
    if domain == "domain":
        return list(shared[made.domain].value) if made.domain in shared else None
    if domain == "string_domain":
        return list(made.string_domain.value)
    if domain in ("int_domain", "float_domain"):
        held = getattr(made, domain)
        ends = [getattr(held, end) if held.HasField(end) else None for end in ("min", "max")]
        return tuple(float(f"{v:.7g}") if isinstance(v, float) else v for v in ends)  # a FloatDomain has 32 bits
    return None


def _implied(made: Message, shared: Mapping[str, Message]) -> Iterator[Json]:
    """What a feature's domain says, as expectations. An enum says it itself; presence of 1 is the Avro type's."""
    bounds = _bounds(made, shared)
    symbols = next(_tags(made, TAG_SYMBOLS), None)
    mostly = {"mostly": _mass(made)} if _mass(made) < 1 else {}
    if isinstance(bounds, list) and bounds and bounds != symbols:
        yield {"type": SET, "kwargs": {"column": made.name, "value_set": bounds, **mostly}}
    elif isinstance(bounds, tuple) and bounds != (None, None):
        ends = {n: v for n, v in zip(("min_value", "max_value"), bounds, strict=True) if v is not None}
        yield {"type": BETWEEN, "kwargs": {"column": made.name, **ends, **mostly}}
    share = made.presence.min_fraction
    if 0 < share < 1 or (share == 1 and TAG_NULLABLE in made.annotation.tag):
        yield {"type": NOT_NULL, "kwargs": {"column": made.name, **({"mostly": share} if share < 1 else {})}}


# Tags


def _annotate(made: Message, tags: Mapping[str, Any], doc: str | None = None) -> None:
    made.annotation.tag.extend(tag if value is None else tag + json.dumps(value, ensure_ascii=False)
                               for tag, value in tags.items())
    if doc is not None:
        made.annotation.comment.append(doc)
    if not made.annotation.ByteSize():
        made.ClearField("annotation")


def _tags(made: Message, prefix: str) -> Iterator[Any]:
    """The values of the tags of one kind; one that is no JSON is somebody else's."""
    for tag in made.annotation.tag:
        if tag.startswith(prefix):
            try:
                yield json.loads(tag[len(prefix):])
            except ValueError:
                continue


def _written(e: Expectation) -> Json:
    return {"id": e.id, "type": e.type, "kwargs": dict(e.kwargs), "severity": e.severity, "meta": dict(e.meta)}


def _doc(made: Message) -> Json:
    return {"doc": "\n".join(made.annotation.comment)} if made.annotation.comment else {}


def _kind(made: Message) -> str:
    return str(proto("schema").FeatureType.Name(made.type))


def _without(held: Mapping[str, Any], *keys: str) -> Json:
    return {k: v for k, v in held.items() if k not in keys}
