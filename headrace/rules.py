"""Rules of a flow that are simple questions to its parts; `plan.py` asks them and says where in the file it stands."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from headrace import catalog
from headrace.control import Verdict
from headrace.errors import UserError
from headrace.marked import Place, nearest
from headrace.secrets import REFERENCE, in_url, is_secret
from headrace.topics import TopicPlan

if TYPE_CHECKING:
    from headrace.flow import FlowSpec
    from headrace.plan import Edge, SinkPlan, SourcePlan, StepPlan

DRIFT = "drift"
"""A source's output of verdicts on writers' schemas that are new: `from: source.drift`."""
RAW = "bytes"
"""In a flow's tests: `{bytes: <hex>}` is a payload as it is on the wire."""
REASONS = "reasons"
"""In a flow's tests: the ids of the reasons a record was held back for, beside its fields."""
KEY_KINDS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary, pa.types.is_integer,
             pa.types.is_decimal, pa.types.is_binary)


def given(spec: FlowSpec, source: str, rows: pa.Schema) -> Mapping[str, pa.Schema]:
    """The shapes a source gives by relationship; `drift` only where it is read: nobody has to say where it goes."""
    read = [*(s.reads for s in spec.steps.values()), *(s.reads for s in spec.sinks.values())]
    wanted = any(f"{source}.{DRIFT}" in written for written in read)
    return {"success": rows, **({DRIFT: Verdict.schema().arrow} if wanted else {})}


def topics(sources: Sequence[SourcePlan], sinks: Sequence[SinkPlan]) -> Iterator[TopicPlan]:
    """The sources first. A sink has as many partitions as the first source where it does not say."""
    partitions = next((s.config.partitions for s in sources if s.config.partitions), 1)
    for source in sources:
        yield TopicPlan(source.config.topic, source.config.partitions or partitions, source.config.topic_config())
    for sink in sinks:
        yield TopicPlan(sink.name, sink.config.partitions or partitions, sink.config.topic_config())


def key(column: str, rows: pa.Schema) -> str | None:
    """What is wrong with `column` as the key of `rows`."""
    if column not in rows.names:
        return f"the key “{column}” is no column of the rows{nearest(column, rows.names)}"
    held = rows.field(column).type
    if any(is_kind(held) for is_kind in KEY_KINDS):
        return None
    return f"the key “{column}” is {held}: a key is text, bytes or a whole or decimal number"


def untaught(steps: Sequence[StepPlan]) -> Iterator[str]:
    """Steps that ask for training on rows that no suite has passed: bad data never triggers training on itself.

    Such a step must read, near or far, the main output of a `validate`, and no other output of one.
    """
    by_name = {s.name: s for s in steps}
    for step in steps:
        if not getattr(step.processor, "needs_validated", False):
            continue
        if not all(_taught(edge, by_name) for edge in step.inputs):
            yield step.name


def _taught(edge: Edge, steps: Mapping[str, StepPlan], passed: bool = False) -> bool:
    """Whether what comes over an edge has been passed by a suite on every way from the sources."""
    above = steps.get(edge.step)
    if above is None:
        return passed
    if above.kind == "validate":
        if edge.relationship != above.processor.main:
            return False
        passed = True
    return all(_taught(each, steps, passed) for each in above.inputs)


def others(spec: FlowSpec, sources: Sequence[SourcePlan], steps: Sequence[StepPlan],
           sinks: Sequence[SinkPlan]) -> Iterator[tuple[Place, str]]:
    """What the rules here have to say of a flow."""
    for step in untaught(steps):
        yield ("steps", step), (f"{step} asks for training on rows that no suite has passed: put a `validate` step "
                                "above it, and read its success output")
    yield from payloads(steps, sinks)
    yield from dead_letters(spec)
    yield from retries(steps)
    yield from tests(spec, sources, sinks)


def payloads(steps: Sequence[StepPlan], sinks: Sequence[SinkPlan]) -> Iterator[tuple[Place, str]]:
    """Quarantines that are given rows which never came over the wire as they are: they write payloads as they came."""
    by_name = {s.name: s for s in steps}
    for sink in sinks:
        for edge in sink.inputs if sink.kind == "quarantine" else ():
            if (maker := _maker(edge, by_name)) is not None:
                yield ("sinks", sink.name, "from"), (
                    f"{edge} has rows that {maker} makes: a quarantine keeps what came from a topic, byte for byte. "
                    "Give them to a sink of their own, e.g. `<topic>: {from: " + str(edge) + ", kafka: {}}`")


def _maker(edge: Edge, steps: Mapping[str, StepPlan]) -> str | None:
    """The step, at this edge or above it, that makes rows of its own."""
    above = steps.get(edge.step)
    if above is None or above.processor.own_rows:
        return above.name if above else edge.step if edge.relationship == DRIFT else None
    return next(filter(None, (_maker(each, steps) for each in above.inputs)), None)


def retries(steps: Sequence[StepPlan]) -> Iterator[tuple[Place, str]]:
    """Steps whose rows cannot be tried again one by one, and relationships that they do not have."""
    by_name = {s.name: s for s in steps}
    for step in steps:
        place: Place = ("steps", step.name, "retry")
        if step.retry is None:
            continue
        for name in step.retry.on:
            if name not in step.outputs:
                yield (*place, "on"), f"{step.name} has no output “{name}”{nearest(name, step.outputs)}"
            elif name == step.processor.main:
                yield (*place, "on"), f"“{name}” is what {step.name} has done: there is nothing to try again"
        if step.processor.stateful or step.processor.own_rows or step.processor.inputs != (1, 1):
            yield place, (f"a {step.kind} step cannot be tried again row by row: it keeps rows, makes some of its own, "
                          "or reads several outputs")
        elif maker := _maker(step.inputs[0], by_name):
            yield place, f"{step.name} has rows that {maker} makes: only rows of a source can be tried again one by one"


def dead_letters(spec: FlowSpec) -> Iterator[tuple[Place, str]]:
    """A dead-letter topic that is something else already."""
    read = [source.config.get("topic") for source in spec.origins.values()]
    if spec.dead_letters in spec.sinks:
        yield ("dead_letter",), (f"“{spec.dead_letters}” is a sink of the flow already: dead letters have a topic of "
                                 "their own, wider than any other")
    elif spec.dead_letters in read:
        yield ("dead_letter",), f"the flow would read what it writes: “{spec.dead_letters}” is its source"


def tests(spec: FlowSpec, sources: Sequence[SourcePlan], sinks: Sequence[SinkPlan]) -> Iterator[tuple[Place, str]]:
    """Fields and sinks that the flow's tests name and that are not there; whether they pass is `headrace test`'s."""
    if len(sources) < len(spec.origins):
        return
    shapes = {source.name: source.schema.arrow.names for source in sources}
    given = [name for source in sources for name in source.schema.arrow.names]
    held = {s.name: [*given, REASONS] if s.schema is None else s.schema.arrow.names for s in sinks}
    held[spec.dead_letters] = [*given, REASONS]
    for at, test in enumerate(spec.tests):
        for n, record in enumerate(test.given):
            where: Place = ("tests", at, "given", n)
            if spec.sources and (record is None or len(record) != 1 or next(iter(record)) not in shapes):
                yield where, f"must be `<source>: <record>`, of one of {', '.join(shapes)}"
                continue
            name, fields = next(iter(record.items())) if spec.sources and record else (sources[0].name, record)
            if fields is not None and set(fields) != {RAW}:
                yield from _fields(fields, shapes[name], where, f"the records of {name}" if spec.sources else
                                   "the source's records")
        for name, wanted in test.expect.items():
            place: Place = ("tests", at, "expect", name)
            if name not in (*spec.sinks, spec.dead_letters) and name not in spec.broken:
                yield place, f"there is no sink “{name}”{nearest(name, spec.sinks)}"
            for n, record in enumerate(wanted if isinstance(wanted, list) and name in held else ()):
                yield from _fields(record, held[name], (*place, n), f"the records of {name}")


def _fields(record: Iterable[str], known: Sequence[str], place: Place, of: str) -> Iterator[tuple[Place, str]]:
    for name in record:
        if name not in known:
            yield (*place, name), f"“{name}” is no field of {of}{nearest(name, known)}"


def literal_secrets(spec: FlowSpec, project: Path) -> Iterator[tuple[Place, str]]:
    """Secrets that the file writes out, for all who read it: passwords in URLs, and values of keys that are secret by
    their name, of a dispatcher (`with`) and of a step whose config declares them."""
    parts = {"source": spec.source.config if spec.source else {},
             "sources": {name: source.config for name, source in spec.sources.items()},
             "sinks": {name: {sink.kind: sink.config} for name, sink in spec.sinks.items()},
             "steps": {name: {step.kind: step.config} for name, step in spec.steps.items()}, "models": spec.models}
    for place, text in _texts(parts, ()):
        key = str(place[-1])
        match place:
            case ("steps", _, kind, declared) if kind != "dispatch":
                named = is_secret(key) and declared in _declared(str(kind), project)
            case ("models", _, "train", "with", *_) | ("steps", _, "dispatch", "with", *_):
                named = is_secret(key) and len(place) != 5  # `secret` of kubernetes names one
            case _:
                named = False
        if "env" in place and named:
            yield place, f"“{key}” is a secret written out: put it into a Secret of the cluster, named in `env_from`"
        elif not REFERENCE.search(text) and (named or in_url(text)):
            yield place, f"“{key}” has a secret written out, for all who read this file: refer to it, " \
                         "e.g. ${env:NAME} or ${file:/path:key}"


def _declared(kind: str, project: Path) -> Collection[str]:
    """The settings that a processor declares; of one that is not there, none."""
    try:
        return catalog.processor(kind, project).Config.model_fields
    except UserError:
        return ()


def _texts(data: object, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(data, str):
        yield place, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _texts(value, (*place, key))
    elif isinstance(data, list | tuple):
        for at, value in enumerate(data):
            yield from _texts(value, (*place, at))


def difference(one: pa.Schema, other: pa.Schema) -> str:
    """The columns in which two shapes differ, in words."""
    left, right = ({f.name: str(f.type) for f in s} for s in (one, other))
    names = [n for n in dict.fromkeys([*left, *right]) if left.get(n) != right.get(n)]
    said = [f"{n} ({left.get(n, 'absent')}, {right.get(n, 'absent')})" for n in names[:5]]
    return ", ".join(said) or "the same names and types in another order, or other nullability"


def avro_name(topic: str) -> str:
    """A topic's name as the full name of an Avro record."""
    parts = ["".join(c if c.isalnum() else "_" for c in part) for part in topic.split(".") if part]
    return ".".join(part if part[0].isalpha() or part[0] == "_" else f"_{part}" for part in parts)
