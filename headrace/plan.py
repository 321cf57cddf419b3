"""What a flow means: a frozen graph whose schemas are checked step by step before anything connects.

    spec ── examine ──► Plan        the worker, the tests and the graph are made of it
                   └──► findings    all at once, each at its line; what depends on a broken step is passed over
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from headrace import catalog, codec, flow, rules
from headrace.codec import AvroSchema
from headrace.config import Config
from headrace.connector import DEAD_LETTERS, KafkaSinkConfig, KafkaSourceConfig, QuarantineConfig, TopicConfig
from headrace.errors import ConfigError, Finding, UserError
from headrace.flow import SOURCE, FlowSpec, RetrySpec, SinkSpec, SourceSpec
from headrace.marked import Place, closest, nearest
from headrace.privacy import arrivals, lineage
from headrace.processor import Processor
from headrace.resources import content
from headrace.settings import find_project
from headrace.topics import TopicPlan

SINKS: Mapping[str, type[TopicConfig]] = {"kafka": KafkaSinkConfig, "quarantine": QuarantineConfig}


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """An output: of a step by relationship, or of the source, whose relationships are `success`, `reject` and, where
    something reads it, `drift`."""

    step: str
    relationship: str

    def __str__(self) -> str:
        return self.step if self == ROWS else f"{self.step}.{self.relationship}"


ROWS = Edge(SOURCE, "success")
REJECTS = Edge(SOURCE, "reject")
DRIFT = rules.DRIFT


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A step: its processor with its config, unopened; the outputs it reads; the shape of each of its own."""

    name: str
    processor: Processor
    kind: str
    inputs: tuple[Edge, ...]
    outputs: Mapping[str, pa.Schema]
    line: int
    retry: RetrySpec | None = None


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
    """A source; a flow's only one is called “source”."""

    name: str
    kind: str
    config: KafkaSourceConfig
    schema: AvroSchema


@dataclass(frozen=True, slots=True)
class Plan:
    """A flow whose every schema fits. Steps stand in an order in which each comes after what it reads.

    `rejects` is the sink that takes what a source cannot decode, None when it is dropped; such records are not among
    that sink's `inputs`. `drop` goes nowhere; `notes` is lint's; `traces` is the personal data in each output.
    """

    flow: str
    owner: str | None
    path: Path
    project: Path
    sources: tuple[SourcePlan, ...]
    steps: tuple[StepPlan, ...]
    sinks: tuple[SinkPlan, ...]
    dead_letter: SinkPlan
    rejects: str | None
    topics: tuple[TopicPlan, ...]
    drop: tuple[Edge, ...]
    spec: FlowSpec
    notes: tuple[Finding, ...] = ()
    traces: Mapping[Edge, lineage.Traces] = field(default_factory=dict)

    @property
    def source(self) -> SourcePlan:
        """The only one, or the first."""
        return self.sources[0]

    def step(self, name: str) -> StepPlan:
        return next(s for s in self.steps if s.name == name)

    def sink(self, name: str) -> SinkPlan:
        return next(s for s in (*self.sinks, self.dead_letter) if s.name == name)


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
    project = project or find_project(path.parent)
    made, more = examine(spec, project)
    return made, [*findings, *more, *(spec.finding(*found) for found in rules.literal_secrets(spec, project))]


def _or_raise(made: Plan | None, findings: list[Finding]) -> Plan:
    errors = sorted(f for f in findings if f.severity == "error")
    if made is None or errors:
        raise ConfigError(errors)
    return made


def examine(spec: FlowSpec, project: Path) -> tuple[Plan | None, list[Finding]]:
    """The plan, if it can be made, and all that lint has to say. Connects to nothing; reads schemas, suites, code."""
    check = _Check(spec, project)
    sources = check.sources()
    check.wire()
    steps = check.steps()
    sinks = check.sinks(sources)
    rejects = check.rejects()
    check.connected()
    for place, message in rules.others(spec, sources, steps, sinks):
        check.found(place, message)
    for place, message in arrivals.remarks(list(arrivals.arrivals(sources, steps, sinks, check.traces, rejects))):
        check.found(place, message, "error" if spec.privacy == "strict" else "info")
    if spec.models:
        from headrace import governed  # which plans the flows that the models stand for

        check.findings += governed.examine(spec, project)
    if not spec.owner:
        check.found((), "the flow names no `owner`: whom to ask when it stands still", "warning")
    findings = sorted(set(check.findings))
    if len(sources) < len(spec.origins) or any(f.severity == "error" for f in findings) or spec.broken:
        return None, findings
    assert len(steps) == len(spec.steps), "a step without a plan has a finding"
    assert len(sinks) == len(spec.sinks), "a sink without a plan has a finding"
    dead = SinkPlan(spec.dead_letters, "dead_letter", DEAD_LETTERS, (), None, sources[0].schema.arrow)
    return Plan(
        flow=spec.flow, owner=spec.owner, path=spec.path, project=project, sources=tuple(sources), steps=tuple(steps),
        sinks=tuple(sinks), dead_letter=dead, rejects=rejects, topics=tuple(rules.topics(sources, [*sinks, dead])),
        drop=tuple(check.dropped), spec=spec, notes=tuple(findings), traces=check.traces), findings


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
        self.reads: dict[str, tuple[Edge, ...] | None] = {}
        self.mains: dict[str, str] = {}
        self.built: dict[str, Processor] = {}
        self.taken: dict[Edge, str] = {}
        self.dropped: list[Edge] = []
        self.traces: dict[Edge, lineage.Traces] = {}
        self.meant: set[str | None] = set()  # steps that a wrong reference was probably to

    def found(self, place: Place, message: str, severity: str = "error") -> None:
        self.findings.append(self.spec.finding(place, message, severity))

    # the sources

    def sources(self) -> list[SourcePlan]:
        planned = []
        topics: dict[str, str] = {}
        for name, spec in self.spec.origins.items():
            place: Place = ("sources", name, spec.kind) if self.spec.sources else ("source", spec.kind)
            found = self.source(name, spec, place)
            if found is None:
                continue
            if (other := topics.setdefault(found.config.topic, name)) != name:
                self.found(place, f"“{other}” reads {found.config.topic} already; steps may both say `from: {other}`")
            planned.append(found)
        counts = {s.config.topic: s.config.partitions for s in planned if s.config.partitions}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{topic} {n}" for topic, n in counts.items())
            self.found(("sources",), f"sources need equally many partitions, for their records to meet: {said}")
        return planned

    def source(self, name: str, spec: SourceSpec, place: Place) -> SourcePlan | None:
        kind = spec.kind
        self.outputs[name] = None
        if kind != "kafka":
            self.found(place, f"a flow cannot read from “{kind}”: its source is kafka, and `headrace connect` brings "
                       "records there from elsewhere")
            return None
        config = self.config(KafkaSourceConfig, spec.config, place)
        if config is None:  # its records' shape may be known all the same, and with it what becomes of them
            said = spec.config.get("schema")
            shape = self.schema(said, (*place, "schema")) if isinstance(said, str) else None
            self.outputs[name] = rules.given(self.spec, name, shape.arrow) if shape else None
            return None
        if not flow.TOPIC.fullmatch(config.topic):
            self.found((*place, "topic"), f"“{config.topic}” {flow.TOPIC_RULE}")
        schema = self.schema(config.schema_name, (*place, "schema"))
        if schema is None:
            return None
        self.outputs[name] = rules.given(self.spec, name, schema.arrow)
        self.traces[Edge(name, ROWS.relationship)] = lineage.of_source(name, config.topic, schema)
        if config.key is not None and config.key not in schema.arrow.names:
            self.found((*place, "key"), f"the key “{config.key}” is no field of {schema.name}"
                       f"{nearest(config.key, schema.arrow.names)}")
        return SourcePlan(name, kind, config, schema)

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
        previous = "" if self.spec.sources else SOURCE
        for name, step in self.spec.steps.items():  # only now, since a step may read a later one
            self.reads[name] = self.inputs(name, step.reads or (previous,))
            previous = name
            for edge in self.reads[name] or ():
                self.taken.setdefault(edge, name)

    def inputs(self, name: str, written: tuple[str, ...]) -> tuple[Edge, ...] | None:
        """The outputs a step reads; None, with a finding, when one is not there or they are too many or too few."""
        place: Place = ("steps", name, "from")
        if written == ("",):
            self.found(("steps", name), f"{name} says not which of the sources it reads: add `from: "
                       f"{next(iter(self.spec.sources))}`")
            return None
        edges = [self.edge(each, place) for each in written]
        fewest, most = self.built[name].inputs if name in self.built else (1, len(written))
        if not fewest <= len(written) <= most:
            wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            self.found(place, f"{self.spec.steps[name].kind} reads {wanted} output{'s' * (most > 1)}, and is given "
                       f"{len(written)}" + ("; give each output a step of its own" if most == 1 else ""))
            return None
        found = tuple(edge for edge in edges if edge is not None)
        return found if len(found) == len(edges) else None

    def edge(self, written: str, place: Place) -> Edge | None:
        """`step` or `step.relationship` as an edge, if there is such a step."""
        step, _, relationship = written.partition(".")
        if step in self.spec.origins:
            if relationship not in ("", ROWS.relationship, REJECTS.relationship, DRIFT):
                there = f"`{step}`, `{step}.reject` and `{step}.{DRIFT}`"
                self.found(place, f"the source has no output “{relationship}”; it has {there}")
                return None
            return Edge(step, relationship or ROWS.relationship)
        if step not in self.outputs:
            known = [*self.spec.steps, *self.spec.origins]
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
        if self.refused(edge):
            self.found(place, f"`{edge}` is payloads that could not be read: only a quarantine can take them")
            return None
        if edge.relationship in outputs:
            return outputs[edge.relationship]
        there = [f"{edge.step}.{relationship}" for relationship in outputs]
        self.meant.add(edge.step)
        self.found(place, f"“{edge.step}” has no output “{edge.relationship}”{nearest(str(edge), there)}")
        return None

    def refused(self, edge: Edge | None) -> bool:
        """Whether an edge is what a source could not decode."""
        return edge is not None and edge.step in self.spec.origins and edge.relationship == REJECTS.relationship

    def steps(self) -> list[StepPlan]:
        order = TopologicalSorter({name: [e.step for e in edges] for name, edges in self.reads.items() if edges})
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
        edges = self.reads[name]
        given = [self.rows(edge, ("steps", name, "from")) for edge in edges or ()]
        rows = [shape for shape in given if shape is not None]
        processor = self.built.get(name)
        if not edges or len(rows) < len(edges) or processor is None:
            return None
        there = [self.traces.get(edge, ()) for edge in edges]
        processor.tagged = lineage.tags(there)
        try:
            outputs = dict(processor.outputs_of(rows))
            for note in processor.notes(rows[0]):
                self.found(("steps", name), f"{name}: {note}", "info")
        except UserError as error:
            self.found(("steps", name), f"{name}: {error}")
            return None
        self.outputs[name] = outputs
        self.traces |= {Edge(name, k): v for k, v in lineage.after(processor, rows, there, outputs).items()}
        kind, retry = self.spec.steps[name].kind, self.spec.steps[name].retry
        return StepPlan(name, processor, kind, edges, outputs, self.spec.line("steps", name), retry)

    # the sinks

    def sinks(self, sources: list[SourcePlan]) -> list[SinkPlan]:
        planned = [self.sink(name, sink, sources) for name, sink in self.spec.sinks.items()]
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

    def sink(self, name: str, sink: SinkSpec, sources: list[SourcePlan]) -> SinkPlan | None:
        place: Place = ("sinks", name)
        edges = [self.edge(written, (*place, "from")) for written in sink.reads]
        inputs = tuple(dict.fromkeys(e for e in edges if e is not None))
        for edge in inputs:
            self.taken.setdefault(edge, name)
        if sink.kind not in SINKS:
            self.found((*place, sink.kind), f"there is no sink “{sink.kind}” for a flow{nearest(sink.kind, SINKS)}")
            return None
        config = self.config(SINKS[sink.kind], sink.config, (*place, sink.kind))
        if any(source.config.topic == name for source in sources):
            self.found(place, f"the flow would read what it writes: “{name}” is its source")
        if sink.kind == "kafka" and not sink.reads:
            self.found(place, "the sink says not what it takes: add `from: <step>`")
        quarantine = sink.kind == "quarantine"
        usual = tuple(e for e in inputs if not (quarantine and self.refused(e)))
        shapes = [s for s in (self.rows(edge, (*place, "from")) for edge in usual) if s is not None]
        if config is None or not sources or len(shapes) < len(usual) or len(inputs) < len(sink.reads):
            return None
        if quarantine:
            return SinkPlan(name, sink.kind, config, usual, None, shapes[0] if shapes else sources[0].schema.arrow)
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
                made = codec.from_arrow(rows, name=rules.avro_name(name),
                                        pii=lineage.tags(self.traces.get(edge, ()) for edge in inputs))
                return SinkPlan(name, "kafka", config, inputs, made, rows)
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
        """The sink for what is no record of a source: the one that names it, else the flow's only quarantine."""
        quarantines = [n for n, s in self.spec.sinks.items() if s.kind == "quarantine"]
        edges = [Edge(name, REJECTS.relationship) for name in self.spec.origins]
        written = {str(edge) for edge in edges}
        named = [n for n in quarantines if written & set(self.spec.sinks[n].reads)]
        if written <= set(self.spec.drop):
            return None
        if len(named) > 1:
            said = next(w for w in written if w in self.spec.sinks[named[1]].reads)
            self.found(("sinks", named[1]), f"`{said}` goes to “{named[0]}” already; what cannot be read is held back "
                       "in one place")
        elif not named and len(quarantines) > 1:
            self.found(("sinks", quarantines[0]), "which quarantine takes records that cannot be read? Add "
                       f"`{edges[0]}` to the `from` of one of {', '.join(quarantines)}")
        elif not quarantines and not self.spec.broken:
            said = ", ".join(map(str, edges))
            self.found(("sinks",), "records that cannot be read have nowhere to go: add a quarantine sink, e.g. "
                       f"`<topic>.quarantine: {{quarantine: {{}}}}`, or drop them: `drop: [{said}]`")
        if not quarantines:
            return None
        home = (named or quarantines)[0]
        for edge in edges:
            self.taken.setdefault(edge, home)
        return home

    def connected(self) -> None:
        """NiFi's rule: every output is connected or dropped, never both."""
        for at, written in enumerate(self.spec.drop):
            edge = self.edge(written, ("drop", at))
            known = edge is not None and (self.refused(edge) or self.rows(edge, ("drop", at)) is not None)
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
                place: Place = ("steps", step)
                if step in self.spec.origins:
                    place = ("sources", step) if self.spec.sources else ("source",)
                self.found(place, f"{edge} goes nowhere: give it to a step or a sink, or say `drop: [{edge}]`")
