"""What a flow means: a frozen graph whose schemas are checked step by step before anything connects.

    spec ── examine ──► Plan        the worker, the tests and the graph are made of it
                   └──► findings    all at once, each at its line; what depends on a broken step is passed over
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from headrace import catalog, codec, flow, rules
from headrace.codec import AvroSchema
from headrace.config import Config
from headrace.connector import KafkaSinkConfig, KafkaSourceConfig, QuarantineConfig, TopicConfig
from headrace.errors import ConfigError, Finding, UserError
from headrace.flow import SOURCE, FlowSpec, SinkSpec
from headrace.marked import Place, closest, nearest
from headrace.processor import Processor
from headrace.resources import content
from headrace.settings import find_project
from headrace.topics import TopicPlan

SINKS: Mapping[str, type[TopicConfig]] = {"kafka": KafkaSinkConfig, "quarantine": QuarantineConfig}


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """An output: of a step by relationship, or of the source, whose relationships are `success` and `reject`."""

    step: str
    relationship: str

    def __str__(self) -> str:
        return self.step if self == ROWS else f"{self.step}.{self.relationship}"


ROWS = Edge(SOURCE, "success")
REJECTS = Edge(SOURCE, "reject")


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A step: its processor with its config, unopened; the output it reads; the shape of each of its own."""

    name: str
    processor: Processor
    kind: str
    input: Edge
    outputs: Mapping[str, pa.Schema]
    line: int


@dataclass(frozen=True, slots=True)
class SinkPlan:
    """A sink: the outputs it takes, in the order written. `schema` is that of its records, None for a quarantine,
    which writes the source's payloads as they came."""

    name: str
    kind: str
    config: Any
    inputs: tuple[Edge, ...]
    schema: AvroSchema | None
    rows: pa.Schema


@dataclass(frozen=True, slots=True)
class SourcePlan:
    kind: str
    config: KafkaSourceConfig
    schema: AvroSchema


@dataclass(frozen=True, slots=True)
class Plan:
    """A flow whose every schema fits. Steps stand in an order in which each comes after what it reads.

    `rejects` is the sink that takes what the source cannot decode, None when it is dropped; such records are not among
    that sink's `inputs`. `drop` are the outputs that go nowhere. `notes` are lint's warnings and remarks.
    """

    flow: str
    owner: str | None
    path: Path
    project: Path
    source: SourcePlan
    steps: tuple[StepPlan, ...]
    sinks: tuple[SinkPlan, ...]
    rejects: str | None
    topics: tuple[TopicPlan, ...]
    drop: tuple[Edge, ...]
    spec: FlowSpec
    notes: tuple[Finding, ...] = ()

    def step(self, name: str) -> StepPlan:
        return next(s for s in self.steps if s.name == name)

    def sink(self, name: str) -> SinkPlan:
        return next(s for s in self.sinks if s.name == name)


def load(path: Path, project: Path | None = None) -> Plan:
    """The plan of the flow in `path`. Raises ConfigError with every error in it."""
    made, findings = _examine_file(path, project)
    return _or_raise(made, findings)


def plan(spec: FlowSpec, project: Path) -> Plan:
    """The plan of a flow that was read. Raises ConfigError with every error in it."""
    made, findings = examine(spec, project)
    return _or_raise(made, findings)


def lint(path: Path, project: Path | None = None) -> list[Finding]:
    """Everything there is to say about a flow file: errors, warnings and remarks, by line."""
    return sorted(_examine_file(path, project)[1])


def _examine_file(path: Path, project: Path | None) -> tuple[Plan | None, list[Finding]]:
    spec, findings = flow.examine(path)
    if spec is None:
        return None, findings
    made, more = examine(spec, project or find_project(path.parent))
    return made, [*findings, *more]


def _or_raise(made: Plan | None, findings: list[Finding]) -> Plan:
    errors = sorted(f for f in findings if f.severity == "error")
    if made is None or errors:
        raise ConfigError(errors)
    return made


def examine(spec: FlowSpec, project: Path) -> tuple[Plan | None, list[Finding]]:
    """The plan, if it can be made, and all that lint has to say. Connects to nothing; reads schemas, suites, code."""
    check = _Check(spec, project)
    source = check.source()
    check.wire()
    steps = check.steps(source)
    sinks = check.sinks(source)
    rejects = check.rejects()
    check.connected()
    for step in rules.untaught(steps):
        check.found(("steps", step), f"{step} asks for training on rows that no suite has passed: put a `validate` "
                    "step above it, and read its success output")
    for place, message in rules.tests(spec, source, sinks):
        check.found(place, message)
    if not spec.owner:
        check.found((), "the flow names no `owner`: whom to ask when it stands still", "warning")
    findings = sorted(set(check.findings))
    if source is None or any(f.severity == "error" for f in findings) or spec.broken:
        return None, findings
    assert len(steps) == len(spec.steps), "a step without a plan has a finding"
    assert len(sinks) == len(spec.sinks), "a sink without a plan has a finding"
    made = Plan(
        flow=spec.flow, owner=spec.owner, path=spec.path, project=project, source=source, steps=tuple(steps),
        sinks=tuple(sinks), rejects=rejects, topics=tuple(_topics(source, sinks)),
        drop=tuple(check.dropped), spec=spec, notes=tuple(findings))
    return made, findings


def _topics(source: SourcePlan, sinks: list[SinkPlan]) -> Iterator[TopicPlan]:
    """The source first. A sink has as many partitions as the source where it does not say."""
    partitions = source.config.partitions or 1
    yield TopicPlan(source.config.topic, partitions, source.config.topic_config())
    for sink in sinks:
        yield TopicPlan(sink.name, sink.config.partitions or partitions, sink.config.topic_config())


def schema_file(project: Path, name: str) -> Path:
    """schemas/<name>.avsc of the project, or headrace's own. Raises UserError with the schemas there are."""
    folders = [project / "schemas", *([content("schemas")] if name.startswith("control/") else [])]
    for folder in folders:
        found = (folder / f"{name}.avsc").resolve()
        if found.is_file() and found.is_relative_to(folder.resolve()):
            return found
    known = [str(p.relative_to(folders[0]).with_suffix("")) for p in folders[0].glob("**/*.avsc")]
    raise UserError(f"there is no schema “{name}” ({folders[0] / name}.avsc){nearest(name, known)}")


class _Check:
    """One flow under examination. A part that fails leaves None where its schema would be, and what reads it is passed
    over, so that one mistake is one finding."""

    def __init__(self, spec: FlowSpec, project: Path) -> None:
        self.spec = spec
        self.project = project
        self.findings: list[Finding] = []
        self.outputs: dict[str, Mapping[str, pa.Schema] | None] = dict.fromkeys((*spec.steps, *spec.broken))
        self.reads: dict[str, Edge | None] = {}
        self.mains: dict[str, str] = {}
        self.built: dict[str, Processor] = {}
        self.taken: dict[Edge, str] = {}
        self.dropped: list[Edge] = []
        self.meant: set[str | None] = set()  # steps that a wrong reference was probably to

    def found(self, place: Place, message: str, severity: str = "error") -> None:
        self.findings.append(self.spec.finding(place, message, severity))

    # the source

    def source(self) -> SourcePlan | None:
        kind = self.spec.source.kind
        place: Place = ("source", kind)
        self.outputs[SOURCE] = None
        if kind != "kafka":
            self.found(place, f"a flow cannot read from “{kind}”: its source is kafka, and `headrace connect` brings "
                       "records there from elsewhere")
            return None
        config = self.config(KafkaSourceConfig, self.spec.source.config, place)
        if config is None:  # its records' shape may be known all the same, and with it what becomes of them
            name = self.spec.source.config.get("schema")
            shape = self.schema(name, (*place, "schema")) if isinstance(name, str) else None
            self.outputs[SOURCE] = {ROWS.relationship: shape.arrow} if shape else None
            return None
        if not flow.TOPIC.fullmatch(config.topic):
            self.found((*place, "topic"), f"“{config.topic}” {flow.TOPIC_RULE}")
        schema = self.schema(config.schema_name, (*place, "schema"))
        if schema is None:
            return None
        self.outputs[SOURCE] = {ROWS.relationship: schema.arrow}
        if config.key is not None and config.key not in schema.arrow.names:
            self.found((*place, "key"), f"the key “{config.key}” is no field of {schema.name}"
                       f"{nearest(config.key, schema.arrow.names)}")
        return SourcePlan(kind, config, schema)

    def config(self, model: type[Config], written: Mapping[str, Any], place: Place) -> Any:
        try:
            return model.model_validate(written)
        except ValidationError as error:
            self.findings += flow.explain(error, model, self.spec._marked, place)
            return None

    def schema(self, name: str, place: Place) -> AvroSchema | None:
        try:
            return codec.load(schema_file(self.project, name))
        except UserError as error:
            self.found(place, str(error))
            return None

    # the steps

    def wire(self) -> None:
        """What each step reads, by name; processors are built on the way, since each names its own main output."""
        for name, step in self.spec.steps.items():
            place: Place = ("steps", name)
            try:
                kind = catalog.processor(step.kind, self.project)
            except UserError as error:
                self.found((*place, step.kind), str(error))
            else:
                self.mains[name] = kind.main
                config = self.config(kind.Config, step.config, (*place, step.kind))
                try:
                    if config is not None:
                        self.built[name] = kind(config, project=self.project)
                except UserError as error:
                    self.found(place, str(error))
        previous = SOURCE
        for name, step in self.spec.steps.items():  # only now, since a step may read a later one
            self.reads[name] = edge = self.edge(step.reads or previous, ("steps", name, "from"))
            previous = name
            if edge is not None:
                self.taken.setdefault(edge, name)

    def edge(self, written: str, place: Place) -> Edge | None:
        """`step` or `step.relationship` as an edge, if there is such a step."""
        step, _, relationship = written.partition(".")
        if step == SOURCE:
            if relationship not in ("", *(e.relationship for e in (ROWS, REJECTS))):
                self.found(place, f"the source has no output “{relationship}”; it has `source` and `source.reject`")
                return None
            return Edge(SOURCE, relationship or ROWS.relationship)
        if step not in self.outputs:
            known = [*self.spec.steps, SOURCE]
            self.meant.add(closest(step, known))
            self.found(place, f"there is no step “{step}”{nearest(step, known)}")
            return None
        if not relationship and step not in self.mains:
            return None
        return Edge(step, relationship or self.mains[step])

    def rows(self, edge: Edge | None, place: Place) -> pa.Schema | None:
        """The shape of what comes over an edge; None, with a finding where it is the edge's fault, when unknown."""
        outputs = None if edge is None else self.outputs.get(edge.step)
        if edge is None or outputs is None:
            return None
        if edge == REJECTS:
            self.found(place, "`source.reject` is payloads that could not be read: only a quarantine can take them")
            return None
        if edge.relationship in outputs:
            return outputs[edge.relationship]
        there = [f"{edge.step}.{relationship}" for relationship in outputs]
        self.meant.add(edge.step)
        self.found(place, f"“{edge.step}” has no output “{edge.relationship}”{nearest(str(edge), there)}")
        return None

    def steps(self, source: SourcePlan | None) -> list[StepPlan]:
        order = TopologicalSorter({name: [edge.step] for name, edge in self.reads.items() if edge})
        try:
            names = [n for n in order.static_order() if n in self.reads]
        except CycleError as error:
            ring = [n for n in error.args[1] if n in self.reads]
            first = min(ring, key=list(self.reads).index)
            self.found(("steps", first, "from"), f"these steps read each other in a ring: {' ← '.join(ring)}")
            return []
        planned = (self.step(name) for name in names)
        return [step for step in planned if step]

    def step(self, name: str) -> StepPlan | None:
        edge = self.reads[name]
        rows = self.rows(edge, ("steps", name, "from"))
        processor = self.built.get(name)
        if edge is None or rows is None or processor is None:
            return None
        try:
            outputs = dict(processor.outputs(rows))
            for note in processor.notes(rows):
                self.found(("steps", name), f"{name}: {note}", "info")
        except UserError as error:
            self.found(("steps", name), f"{name}: {error}")
            return None
        self.outputs[name] = outputs
        return StepPlan(name, processor, self.spec.steps[name].kind, edge, outputs, self.spec.line("steps", name))

    # the sinks

    def sinks(self, source: SourcePlan | None) -> list[SinkPlan]:
        planned = [self.sink(name, sink, source) for name, sink in self.spec.sinks.items()]
        there = catalog.names("connectors", self.project)
        external = [n for n, s in self.spec.sinks.items() if s.kind not in SINKS and s.kind in there]
        if external and len(external) < len(self.spec.sinks):
            self.found(("sinks", external[0]), f"“{external[0]}” is outside Kafka and must be the flow's only sink: a "
                       "transaction cannot span two systems")
        folded: dict[str, str] = {}
        for name in self.spec.sinks:
            if (other := folded.setdefault(name.replace(".", "_"), name)) != name:
                self.found(("sinks", name), f"Kafka refuses “{name}” beside “{other}”: its metrics would confuse them")
        return [sink for sink in planned if sink]

    def sink(self, name: str, sink: SinkSpec, source: SourcePlan | None) -> SinkPlan | None:
        place: Place = ("sinks", name)
        edges = [self.edge(written, (*place, "from")) for written in sink.reads]
        inputs = tuple(dict.fromkeys(e for e in edges if e is not None))
        for edge in inputs:
            self.taken.setdefault(edge, name)
        if sink.kind not in SINKS:
            self.found((*place, sink.kind), f"there is no sink “{sink.kind}” for a flow{nearest(sink.kind, SINKS)}")
            return None
        config = self.config(SINKS[sink.kind], sink.config, (*place, sink.kind))
        if source and source.config.topic == name:
            self.found(place, f"the flow would read what it writes: “{name}” is its source")
        if sink.kind == "kafka" and not sink.reads:
            self.found(place, "the sink says not what it takes: add `from: <step>`")
        quarantine = sink.kind == "quarantine"
        usual = tuple(e for e in inputs if not (quarantine and e == REJECTS))
        shapes = [s for s in (self.rows(edge, (*place, "from")) for edge in usual) if s is not None]
        if config is None or source is None or len(shapes) < len(usual) or len(inputs) < len(sink.reads):
            return None
        if quarantine:
            return SinkPlan(name, sink.kind, config, usual, None, shapes[0] if shapes else source.schema.arrow)
        return self.kafka(name, config, usual, shapes)

    def kafka(self, name: str, config: KafkaSinkConfig, inputs: tuple[Edge, ...],
              shapes: list[pa.Schema]) -> SinkPlan | None:
        place: Place = ("sinks", name)
        if not shapes:
            return None
        rows = shapes[0]
        for edge, shape in zip(inputs[1:], shapes[1:], strict=True):
            if not shape.equals(rows):
                said = rules.difference(rows, shape)
                self.found((*place, "from"), f"{inputs[0]} and {edge} have different columns: {said}")
                return None
        if config.key is not None and (problem := rules.key(config.key, rows)):
            self.found((*place, "kafka", "key"), problem)
        if config.schema_name is None:
            try:
                return SinkPlan(name, "kafka", config, inputs, codec.from_arrow(rows, name=rules.avro_name(name)), rows)
            except UserError as error:
                self.found(place, f"no schema can be made of its rows: {error}")
                return None
        schema = self.schema(config.schema_name, (*place, "kafka", "schema"))
        if schema is None:
            return None
        problems = codec.assignable(rows, schema)
        for problem in problems:
            self.found(place, f"its rows do not fit {config.schema_name}: {problem}")
        return None if problems else SinkPlan(name, "kafka", config, inputs, schema, rows)

    # the whole

    def rejects(self) -> str | None:
        """The sink for what is no record of the source: the one that names it, else the flow's only quarantine."""
        quarantines = [n for n, s in self.spec.sinks.items() if s.kind == "quarantine"]
        named = [n for n in quarantines if str(REJECTS) in self.spec.sinks[n].reads]
        if str(REJECTS) in self.spec.drop:
            return None
        if len(named) > 1:
            self.found(("sinks", named[1]), f"`source.reject` goes to “{named[0]}” already; a record is held back once")
        elif not named and len(quarantines) > 1:
            self.found(("sinks", quarantines[0]), "which quarantine takes records that cannot be read? Add "
                       f"`source.reject` to the `from` of one of {', '.join(quarantines)}")
        elif not quarantines and not self.spec.broken:
            self.found(("sinks",), "records that cannot be read have nowhere to go: add a quarantine sink, e.g. "
                       "`<topic>.quarantine: {quarantine: {}}`, or drop them: `drop: [source.reject]`")
        if not quarantines:
            return None
        home = (named or quarantines)[0]
        self.taken.setdefault(REJECTS, home)
        return home

    def connected(self) -> None:
        """NiFi's rule: every output is connected or dropped, never both."""
        for at, written in enumerate(self.spec.drop):
            edge = self.edge(written, ("drop", at))
            known = edge is not None and (edge == REJECTS or self.rows(edge, ("drop", at)) is not None)
            if edge is None or not known:
                continue
            if edge in self.taken:
                self.found(("drop", at), f"{edge} is dropped, and goes to “{self.taken[edge]}” too")
            self.dropped.append(edge)
        for step, outputs in self.outputs.items():
            for relationship in outputs or ():
                edge = Edge(step, relationship)
                if edge in self.taken or edge in self.dropped or step in self.meant or self.spec.broken:
                    continue
                place: Place = ("source",) if step == SOURCE else ("steps", step)
                self.found(place, f"{edge} goes nowhere: give it to a step or a sink, or say `drop: [{edge}]`")
