"""`headrace schemas drift`: which writers' schemas stand in a topic, what changed between them, and what it does."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.common import Json, dump, say, table

if TYPE_CHECKING:
    from headrace.codec import AvroSchema
    from headrace.plan import Plan, SourcePlan
    from headrace.registry import Registry
    from headrace.schemadrift import Drift
    from headrace.schemadrift.topic import Standing


@dataclass
class Writer:
    """A schema of the topic. `schema` is None where the registry has none, or none that is Avro: `problem` says so."""

    id: int
    schema: AvroSchema | None
    problem: str = ""
    subject: str | None = None
    version: int | None = None
    unreadable: dict[str, list[str]] = field(default_factory=dict)
    """Flow → why it cannot read records of this schema; [] where it can."""


def drift(topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic to look at.")],
          flow: Annotated[str | None, typer.Option(metavar="FLOW", help="A flow that reads it: its name in flows/, or "
                                                   "a file. Default: every flow of the project that reads it.")] = None,
          records: Annotated[int, typer.Option(min=1, help="Offsets to look at, at the beginning and at the end of "
                                               "each partition.")] = 2_000,
          json: bool = Json) -> None:
    """Which schemas the records of a topic were written with, what changed from one to the next, and what that does to
    the flows that read it: their schema, their contract, their steps.

    Of long partitions only the beginning and the end are looked at: shares are of what was looked at, and a schema that
    first shows behind the gap may stand in it already (“≤”).
    """
    from headrace import settings
    from headrace.schemadrift.topic import standing

    here = settings.load()
    readers = _readers(here.project, topic, flow)
    found = standing(here, topic, records)
    writers = _writers(here, topic, found, readers)
    known = [writer for writer in writers if writer.schema is not None]
    steps = [(one, other, _drifts(one, other, readers)) for one, other in pairwise(known)]
    if json:
        dump(_as_json(topic, found, writers, steps, readers))
    else:
        _print(topic, found, writers, steps, readers)


def _readers(project: Path, topic: str, flow: str | None) -> list[tuple[Plan, SourcePlan]]:
    """The flows that read the topic, with the source that does. Raises UserError, ConfigError for the one named."""
    from headrace import plan
    from headrace.errors import ConfigError, UserError

    files = sorted((project / "flows").glob("*.y*ml"))
    if flow is not None:
        files = [Path(flow)] if Path(flow).is_file() else [f for f in files if f.stem == flow]
        if not files:
            raise UserError(f"there is no flow “{flow}” in {project / 'flows'}", hint="name one of its files")
    found = []
    for file in files:
        try:
            planned = plan.load(file, project)
        except ConfigError as error:
            if flow is not None:
                raise
            say(f"{file}: passed over, since it does not lint: {error.what.splitlines()[0]}")
            continue
        found += [(planned, source) for source in planned.sources if source.config.topic == topic]
    if flow is not None and not found:
        raise UserError(f"{files[0]} does not read {topic}", hint=f"it reads {', '.join(_reads(files[0], project))}")
    return found


def _reads(file: Path, project: Path) -> list[str]:
    from headrace import plan

    return [source.config.topic for source in plan.load(file, project).sources]


def _writers(here: Any, topic: str, found: Standing, readers: list[tuple[Plan, SourcePlan]]) -> list[Writer]:
    """The schemas in the order of the subject's versions; those registered elsewhere after them, by id: an id is given
    once for a text, whatever the subject, and says nothing of order."""
    from headrace.codec import UnknownSchema
    from headrace.errors import SchemaError
    from headrace.registry import Registry
    from headrace.schemadrift.effects import unreadable

    registry: Registry = Registry(here.registry_client())
    out = []
    for schema_id in sorted(found.schemas):
        try:
            one = Writer(schema_id, registry.schema(schema_id))
        except (UnknownSchema, SchemaError) as error:
            out.append(Writer(schema_id, None, error.what))
            continue
        known = registry.versions(schema_id)
        own = [each for each in known if each[0] == f"{topic}-value"]
        one.subject, one.version = next(iter(own or known), (None, None))
        assert one.schema is not None
        one.unreadable = {plan.flow: list(unreadable(source.schema, one.schema)) for plan, source in readers}
        out.append(one)
    return sorted(out, key=lambda w: (w.subject != f"{topic}-value", w.version or 0, w.id))


def _drifts(one: Writer, other: Writer, readers: list[tuple[Plan, SourcePlan]]) -> dict[str, Drift]:
    """Flow → what changes; under "" the changes alone, where no flow reads the topic."""
    from headrace.schemadrift import effects
    from headrace.schemadrift.watch import judged

    assert one.schema is not None
    assert other.schema is not None
    if not readers:
        return {"": effects(one.schema, other.schema, None)}
    return {plan.flow: judged(plan, source, one.schema, other.schema) for plan, source in readers}


Steps = list[tuple[Writer, Writer, "dict[str, Drift]"]]


def _as_json(topic: str, found: Standing, writers: list[Writer], steps: Steps,
             readers: list[tuple[Plan, SourcePlan]]) -> dict[str, Any]:
    return {
        "topic": topic, "records": found.records, "unframed": found.unframed, "nulls": found.nulls,
        "gaps": {str(p): list(gap) for p, gap in found.gaps.items()}, "flows": [plan.flow for plan, _ in readers],
        "schemas": [{
            "id": w.id, "subject": w.subject, "version": w.version, "name": w.schema and str(w.schema),
            "problem": w.problem or None, "records": found.schemas[w.id].records,
            "share": found.schemas[w.id].records / found.records, "unreadable": w.unreadable,
            "first": {str(p): {"offset": at, "exact": found.exact(p, at)}
                      for p, at in sorted(found.schemas[w.id].first.items())},
            "last": {str(p): at for p, at in sorted(found.schemas[w.id].last.items())}} for w in writers],
        "drift": [{"from": one.id, "to": other.id, "flow": flow or None, **drift.as_json()}
                  for one, other, drifts in steps for flow, drift in drifts.items()]}


def _print(topic: str, found: Standing, writers: list[Writer], steps: Steps,
           readers: list[tuple[Plan, SourcePlan]]) -> None:
    if not writers:
        say(f"{topic}: no record with a schema id among the {found.records:,} looked at")
    else:
        table(f"{topic}: {found.records:,} records looked at",
              ("id", "version", "schema", "share", "first seen", *(plan.flow for plan, _ in readers)),
              [(w.id, "–" if w.version is None else f"{w.version}", w.problem or str(w.schema),
                f"{found.schemas[w.id].records / found.records:.1%}", _first(w.id, found),
                *("–" if w.schema is None else "cannot read it" if w.unreadable[plan.flow] else "reads it"
                  for plan, _ in readers)) for w in writers])
    for n, what in ((found.nulls, "no value"), (found.unframed, "no schema id")):
        if n:
            say(f"{n:,} have {what}")
    for one, other, drifts in steps:
        for flow, drift in drifts.items():
            print(f"\n{one.id} → {other.id}" + (f", for {flow}: {drift.severity}" if flow else ""))
            print("\n".join(f"  {text}" for text in drift.texts))
    if writers and not readers:
        say(f"no flow of this project reads {topic}: nothing is said of effects")


def _first(schema_id: int, found: Standing, shown: int = 8) -> str:
    """`partition@offset`, with ≤ where it may be earlier."""
    places = [f"{p}@{'' if found.exact(p, at) else '≤'}{at}" for p, at in
              sorted(found.schemas[schema_id].first.items())]
    return " ".join(places[:shown]) + (f" and {len(places) - shown} more" if len(places) > shown else "")
