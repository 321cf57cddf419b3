"""A flow file as it is written: YAML to `FlowSpec`, with every finding at its line. What it means is `plan.py`'s."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, field_validator, model_validator

from headrace import marked
from headrace.config import Config
from headrace.errors import ConfigError, Finding, UserError
from headrace.marked import Marked, Place, nearest
from headrace.secrets import shown

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
NAME_RULE = "a name is a letter, then letters, digits, “_” or “-”"
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
TOPIC_RULE = "is no topic name: 1 to 249 letters, digits, “.”, “_”, “-”"
SOURCE = "source"
"""The source's name where steps and sinks say `from`: `source` is its records, `source.reject` what is no record."""


def one_component(written: Any, what: str, also: tuple[str, ...] = ()) -> dict[str, Any]:
    """`{<component>: {config}, from: …}` as `{"kind", "config", **also}`. Raises ValueError with what is expected."""
    if not isinstance(written, Mapping):
        raise ValueError(f"must be a mapping of one {what} to its settings, e.g. {{{what}: {{…}}}}")
    if "kind" in written and "config" in written:  # built in Python rather than read
        return dict(written)
    kinds = [key for key in written if key not in also]
    if len(kinds) != 1:
        found = f"these are {len(kinds)}: {', '.join(kinds)}" if kinds else "there is none"
        raise ValueError(f"must name one {what}; {found}")
    config = written[kinds[0]]
    if not isinstance(config, Mapping | None):
        raise ValueError(f"the settings of “{kinds[0]}” must be a mapping; {{}} if it has none")
    return {"kind": kinds[0], "config": dict(config or {}), **{key: written[key] for key in also if key in written}}


class SourceSpec(Config):
    """Where records come from."""

    kind: str = Field(description="The connector, e.g. kafka.")
    config: dict[str, Any] = Field(description="Its settings.")

    @model_validator(mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        return one_component(value, "source")


class RetrySpec(Config):
    """Trying again what a step could not do. The batch waits meanwhile, and what is behind it."""

    times: int = Field(default=5, ge=1, le=1_000, description="How often, after the first attempt; then it leaves by "
                       "the relationship.")
    wait_s: float = Field(default=1.0, gt=0, le=60, description="Seconds before the first time; each time twice as "
                          "many.")
    wait_max_s: float = Field(default=30.0, gt=0, le=60, description="Seconds between two times, at most.")
    on: tuple[str, ...] = Field(("failure",), min_length=1, description="The relationships whose rows are tried again. "
                                "Under `failure` comes what the step asks a pause for, too.")


class StepSpec(Config):
    """One processor at work."""

    kind: str = Field(description="The processor.")
    config: dict[str, Any] = Field(description="Its settings.")
    reads: tuple[str, ...] = Field(
        (), alias="from", description="The output it reads, `step` (its main output) or `step.relationship`; a list of "
        "them for a processor that reads several. Left out: the previous step's main output; for the first, the "
        "source.")
    retry: RetrySpec | None = Field(None, description="Whether, how often and when to try again what it could not do.")

    @model_validator(mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        return one_component(value, "processor", ("from", "retry"))

    @field_validator("reads", mode="before")
    @classmethod
    def _many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class SinkSpec(Config):
    """Where rows go. Its key in the file is the topic's name."""

    kind: str = Field(description="The connector: kafka or quarantine.")
    config: dict[str, Any] = Field(description="Its settings.")
    reads: tuple[str, ...] = Field(
        (), alias="from", description="The output it takes, or a list of outputs of equal shape.")

    @model_validator(mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        return one_component(value, "sink", ("from",))

    @field_validator("reads", mode="before")
    @classmethod
    def _many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class StateSpec(Config):
    """Bounds on what the flow's steps remember."""

    bytes_max: int = Field(default=8 << 30, ge=1 << 20, description="Bytes of keyed state a partition may hold; "
                           "beyond it the worker stops and says so.")


class PoisonSpec(Config):
    """How many records may break a step before the step is what is broken, and the worker stops."""

    records_max: int = Field(default=10, ge=0, description="So many, beyond the share; 0 with a share of 0 stops at "
                             "the first.")
    share_max: float = Field(default=0.01, ge=0, lt=1, description="This share of all records read.")


class TestSpec(Config):
    """What the flow must do with given records; run without a broker by `headrace test`."""

    name: str = Field(description="What is shown to be true, in words.")
    given: list[dict[str, Any] | None] = Field(
        description="Records for the source, in order. A field left out is its default, else null. `bytes: <hex>` "
        "alone is a raw payload, null a record without a value. Of a flow with `sources` each is `<source>: <record>`.")
    expect: dict[str, int | list[dict[str, Any]]] = Field(
        min_length=1, description="For each sink named: how many records it gets, or the records in order, of which "
        "only the fields written are compared.")

    @field_validator("expect", mode="before")
    @classmethod
    def _counts(cls, value: Any) -> Any:
        for sink, wanted in value.items() if isinstance(value, dict) else ():
            count = isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 0
            if not count and not isinstance(wanted, list):
                raise ValueError(f"“{sink}” must have a count or a list of records")
        return value


class FlowSpec(Config):
    """A flow file."""

    flow: str = Field(description="The flow's name: its consumer group and transactional ids are made of it.")
    description: str = Field("", description="What it is for, in a sentence or two.")
    owner: str | None = Field(None, description="Who is asked when it stands still.")
    source: SourceSpec | None = Field(None, description="Where its records come from.")
    sources: dict[str, SourceSpec] = Field(
        default_factory=dict, description="Where they come from when that is several topics: by the name that steps "
        "say in `from`. Records of one key meet when the topics have equally many partitions.")
    steps: dict[str, StepSpec] = Field(default_factory=dict, description="What is done with them, by name, in order.")
    sinks: dict[str, SinkSpec] = Field(min_length=1, description="Where they go, by topic.")
    state: StateSpec = Field(default_factory=lambda: StateSpec(), description="Bounds on what steps remember.")
    dead_letter: str | None = Field(
        None, description="The topic of what cannot be processed: records that break a step, or whose result is too "
        "large for its topic. Left out: <flow>.dead-letter.")
    poison: PoisonSpec = Field(default_factory=lambda: PoisonSpec(), description="How many records may break a step.")
    drop: tuple[str, ...] = Field((), description="Outputs that go nowhere, said aloud: `step.relationship`.")
    models: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Models that are kept right by `headrace loop run`, by name: learn, policy, "
        "gate, rollout, train.")
    control: str = Field("headrace", pattern=r"^[A-Za-z0-9._-]{1,200}$", description="What the names of the control "
                         "topics begin with: <control>.verdicts, .retrain, .retrain.results, .models, .audit.")
    privacy: Literal["remark", "strict"] = Field(
        "remark", description="What lint makes of personal data (`headrace.pii`) that leaves to a sink in clear: a "
        "remark, or with strict an error. A sink with `pii_accepted` is passed over.")
    tests: list[TestSpec] = Field(default_factory=list, description="What the flow must do with given records.")

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.source is None) == (not self.sources):
            raise ValueError("a flow has a `source`, or `sources` by name")
        return self

    @property
    def dead_letters(self) -> str:
        """The dead-letter topic."""
        return self.dead_letter or f"{self.flow}.dead-letter"

    @property
    def origins(self) -> dict[str, SourceSpec]:
        """The sources by name; a single one is called “source”."""
        return self.sources or ({SOURCE: self.source} if self.source else {})

    _marked: Marked = PrivateAttr(default_factory=lambda: Marked("", None))
    _broken: frozenset[str] = PrivateAttr(default=frozenset())

    @property
    def path(self) -> Path:
        return Path(self._marked.file)

    @property
    def broken(self) -> frozenset[str]:
        """Steps and sinks that were left out because they could not be read; what refers to them is not a finding."""
        return self._broken

    def line(self, *place: str | int) -> int:
        """The line of what stands at `place` in the file, or of the nearest thing above it."""
        return self._marked.line(*place)

    def finding(self, place: Place, message: str, severity: str = "error") -> Finding:
        return self._marked.finding(place, message, severity)


def load(path: Path) -> FlowSpec:
    """The flow in `path`. Raises ConfigError with everything that is wrong with it as it is written."""
    spec, findings = examine(path)
    if spec is None or findings:
        raise ConfigError(sorted(findings))
    return spec


def examine(path: Path) -> tuple[FlowSpec | None, list[Finding]]:
    """As much of the flow as can be read, and what is wrong with the rest, so that lint can go on to what it means."""
    try:
        source = marked.read(path)
    except ConfigError as error:
        return None, list(error.findings)
    findings = list(source.findings)
    if not isinstance(source.data, dict):
        return None, [*findings, source.finding((), "must be a mapping, beginning with `flow: <name>`")]
    data, broken = source.data, set[str]()
    for _ in range(3):  # unknown keys first, then broken entries; what remains is read or is not a flow
        try:
            spec = FlowSpec.model_validate(data)
        except ValidationError as error:
            findings += explain(error, FlowSpec, source)
            data, names = _pruned(data, error)
            broken |= names
        else:
            spec._marked, spec._broken = source, frozenset(broken)
            return spec, _names(spec, findings)
    return None, list(dict.fromkeys(findings))


def _names(spec: FlowSpec, findings: list[Finding]) -> list[Finding]:
    """Names that a step or a topic cannot have."""
    out = list(findings)
    if not NAME.fullmatch(spec.flow) and "flow" not in spec.broken:
        out.append(spec.finding(("flow",), f"a flow cannot be called “{spec.flow}”: {NAME_RULE}"))
    for name in spec.sources:
        if not NAME.fullmatch(name):
            out.append(spec.finding(("sources", name), f"a source cannot be called “{name}”: {NAME_RULE}"))
    for step in spec.steps:
        if step in (SOURCE, *spec.sources) or not NAME.fullmatch(step):
            why = "that is the source's name" if step in (SOURCE, *spec.sources) else NAME_RULE
            out.append(spec.finding(("steps", step), f"a step cannot be called “{step}”: {why}"))
    for sink in spec.sinks:
        if not TOPIC.fullmatch(sink) or sink in (".", ".."):
            out.append(spec.finding(("sinks", sink), f"“{sink}” {TOPIC_RULE}"))
        elif sink.startswith("__"):
            out.append(spec.finding(("sinks", sink), f"“{sink}”: topics that begin with “__” are Kafka's own"))
    if (spec.dead_letter or NAME.fullmatch(spec.flow)) and not TOPIC.fullmatch(spec.dead_letters):
        out.append(spec.finding(("dead_letter",), f"“{spec.dead_letters}” {TOPIC_RULE}"))
    return out


def _pruned(data: dict[str, Any], error: ValidationError) -> tuple[dict[str, Any], set[str]]:
    """The data without what failed: the unknown key, else the whole step, sink or test; and the names of those lost."""
    out, lost = dict(data), set[str]()
    for problem in error.errors():
        match problem["loc"]:
            case (str(top),) if problem["type"] == "extra_forbidden":
                out.pop(top, None)
            case ("steps" | "sinks" | "sources" as top, str(name), *_) if isinstance(out.get(top), dict):
                out[top] = {key: value for key, value in out[top].items() if key != name}
                lost.add(name)
            case ("tests", *_):
                out.pop("tests", None)  # an index would shift under the others
            case ("drop" | "owner" | "description" | "dead_letter" | "poison" as top, *_):
                out.pop(top, None)
            case ("flow",):
                out["flow"] = "flow"
                lost.add("flow")
    return out, lost


def explain(error: ValidationError, model: type[BaseModel], source: Marked, at: Place = ()) -> list[Finding]:
    """A pydantic error as findings, each at its line, unknown keys with the nearest that is known.

    `at` is where in the file the data given to `model` stands.
    """
    out = []
    for problem in error.errors(include_url=False):
        loc = problem["loc"]
        name = loc[-1] if loc else ""
        if problem["type"] == "extra_forbidden":
            known = _fields(model, loc[:-1])
            message = f"unknown key “{name}”{nearest(str(name), known)}"
        elif problem["type"] == "missing":
            message = f"“{name}” is missing"
            loc = loc[:-1]
        elif problem["type"] == "value_error":
            message = _upto(loc) + str(problem["ctx"]["error"])
        else:
            text = problem["msg"][0].lower() + problem["msg"][1:]
            message = f"{_upto(loc)}{text}, and is {_short(shown(str(name), problem['input']))}"
        out.append(source.finding((*at, *loc), message))
    return list(dict.fromkeys(out))


def _upto(loc: tuple[str | int, ...]) -> str:
    named = [part for part in loc if isinstance(part, str)]
    return f"“{named[-1]}”: " if named else ""


def _short(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _fields(model: Any, loc: tuple[str | int, ...]) -> list[str]:
    """The keys that the model at `loc` below `model` knows, as they are written."""
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel):
            found = [f for name, f in model.model_fields.items() if part in (name, f.alias)]
            model = found[0].annotation if found else None
        else:  # an index of a list, a key of a mapping
            model = _inner_model(model)
    model = _inner_model(model)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _inner_model(annotation: Any) -> Any:
    """The model inside `X | None`, `list[X]`, `dict[str, X]`, or the annotation itself."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_inner_model(arg) for arg in get_args(annotation)]
    models = [m for m in inner if isinstance(m, type) and issubclass(m, BaseModel)]
    return models[0] if models else annotation


def find(name: str, project: Path) -> Path:
    """The file of a flow given as a path or by its name. Raises UserError with the flows there are."""
    asked = Path(name)
    if asked.suffix in (".yaml", ".yml") or asked.is_file():
        if not asked.is_file():
            raise UserError(f"there is no flow file {name}")
        return asked
    for suffix in (".yaml", ".yml"):
        candidate = project / "flows" / f"{name}{suffix}"
        if candidate.is_file():
            return candidate
    raise UserError(f"there is no flow “{name}” in {project / 'flows'}{nearest(name, names(project))}")


def names(project: Path) -> list[str]:
    """The flows of a project, by the names of their files."""
    return sorted(p.stem for p in (project / "flows").glob("*.y*ml"))
