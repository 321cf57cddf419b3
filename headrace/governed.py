"""A flow's `models:` as flows of their own: what decides, dispatches, judges, switches and keeps the books.

    decide     verdicts            → requests to retrain, switches          one for each flow with models
    dispatch   requests            → runs somewhere, results                one for each flow with models
    gate       results             → verdicts                               one for each flow with models
    audit      all of these        → the audit log; MLflow's aliases        one for all flows

The control plane is made of the same parts as the data plane, so it has the same guarantees. `headrace loop run` runs
these flows; nothing about them is special.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from headrace.config import Config
from headrace.errors import ConfigError, Finding, UserError
from headrace.flow import FlowSpec, explain

PARTS = ("decide", "dispatch", "gate", "audit")
TOPICS = {"verdicts": "control/verdicts", "retrain": "control/retrain", "retrain.results": "control/results",
          "models": "control/models", "audit": "control/audit"}
"""Each control topic, below the flow's `control` prefix, and its schema. All have one partition: their order counts."""


class ModelConfig(Config):
    """A model that a flow keeps right."""

    learn: dict[str, Any] = Field(description="What it is: target, features, times, candidates, holdout.")
    policy: dict[str, Any] = Field(default_factory=dict, description="When it is retrained: k of n windows, cool-down, "
                                   "budget, labels needed.")
    gate: dict[str, Any] = Field(default_factory=dict, description="What a challenger must show.")
    rollout: dict[str, Any] = Field(default_factory=dict, description="How a blessed version takes over: approval, "
                                    "canary or shadow, automatic rollback.")
    train: dict[str, Any] = Field(default_factory=dict, description="Who trains it, with which resources: `to`, "
                                  "`with`, `resources`, `queue`.")
    priority: int = Field(0, description="Of its requests, where several models wait: higher goes first.")


def models(spec: FlowSpec) -> tuple[dict[str, ModelConfig], list[Finding]]:
    """The models declared, and what is wrong with how they are."""
    from pydantic import ValidationError

    found, findings = {}, []
    for name, written in spec.models.items():
        try:
            found[name] = ModelConfig.model_validate(written)
        except ValidationError as error:
            findings += explain(error, ModelConfig, spec._marked, ("models", name))
    return found, findings


def part(spec: FlowSpec, name: str) -> FlowSpec:
    """One of PARTS as a flow. Raises ConfigError for models that are not declared as they must be, UserError for a
    flow without any."""
    declared, findings = models(spec)
    if findings:
        raise ConfigError(sorted(findings))
    if not declared:
        raise UserError(f"the flow {spec.flow} declares no `models`, so there is no loop to run")
    made = {"decide": _decide, "dispatch": _dispatch, "gate": _gate, "audit": _audit}[name](spec, declared)
    unread = [f"{source}.reject" for source in made.get("sources", {"source": None})]
    made["sinks"][_topic(spec, "quarantine")] = {"from": unread, "quarantine": {"partitions": 1, "retention_ms": -1}}
    flow = FlowSpec.model_validate({
        "flow": "audit" if name == "audit" else f"{spec.flow}-{name}", "owner": spec.owner,
        "dead_letter": _topic(spec, "dead-letter"), **made})
    flow._marked = spec._marked
    return flow


def group(spec: FlowSpec, name: str) -> str:
    """The consumer group of a part."""
    return f"{spec.control}.{'audit' if name == 'audit' else f'{spec.flow}-{name}'}"


def examine(spec: FlowSpec, project: Path) -> Iterator[Finding]:
    """What is wrong with the models of a flow: of each part that would run."""
    from headrace import plan

    declared, findings = models(spec)
    yield from findings
    yield from _beside(spec, declared)
    if findings or not declared:
        return
    for name in PARTS:
        for finding in plan.examine(part(spec, name), project)[1]:
            if finding.severity == "error":
                yield spec.finding(("models",), f"{name}: {finding.message}")


def _beside(spec: FlowSpec, declared: Mapping[str, ModelConfig]) -> Iterator[Finding]:
    """Triggers that would act on a governed model past its policy and its switch."""
    for name, step in spec.steps.items():
        emit = step.config.get("emit") if step.kind == "trigger" else None
        for kind in ("retrain", "switch") if isinstance(emit, Mapping) else ():
            said = emit.get(kind) if emit else None
            if isinstance(said, Mapping) and said.get("model") in declared:
                yield spec.finding(("steps", name), f"{name} raises a {kind} of {said['model']}, which `models` "
                                   "governs: its policy and its rollout would not know. Raise an alert, or let a "
                                   "`monitor` judge")


def _topic(spec: FlowSpec, name: str) -> str:
    return f"{spec.control}.{name}"


def _source(spec: FlowSpec, name: str) -> dict[str, Any]:
    """A control topic as a source."""
    return {"kafka": {"topic": _topic(spec, name), "schema": TOPICS[name], **_shape(name)}}


def _sink(spec: FlowSpec, name: str, reads: str | list[str]) -> dict[str, Any]:
    return {_topic(spec, name): {"from": reads, "kafka": {"schema": TOPICS[name], **_shape(name)}}}


def _shape(name: str) -> dict[str, Any]:
    return {"partitions": 1, "retention_ms": -1, **({"compact": True} if name == "models" else {})}


def _decide(spec: FlowSpec, declared: Mapping[str, ModelConfig]) -> dict[str, Any]:
    governed = {name: {"learn": model.learn, "policy": model.policy, "rollout": model.rollout,
                       "priority": model.priority}
                for name, model in declared.items()}
    rollouts = {name: model.rollout for name, model in declared.items()}
    return {"source": _source(spec, "verdicts"),
            "steps": {"decide": {"decide": {"models": governed}},
                      "switch": {"from": "source", "switch": {"models": rollouts}}},
            "sinks": {**_sink(spec, "retrain", "decide"), **_sink(spec, "models", "switch")}}


def _dispatch(spec: FlowSpec, declared: Mapping[str, ModelConfig]) -> dict[str, Any]:
    alike: dict[str, list[str]] = {}  # models trained by the same share a queue, and with it their priorities
    for name, model in declared.items():
        alike.setdefault(json.dumps(model.train, sort_keys=True, default=str), []).append(name)
    # Named by a model, not by a number: a step's state is found by its name, and in it what is queued and runs.
    steps = {f"dispatch-{re.sub('[^A-Za-z0-9_-]', '-', names[0])}": {
        "from": "source", "dispatch": {**declared[names[0]].train, "models": names}} for names in alike.values()}
    return {"source": _source(spec, "retrain"), "steps": steps, "sinks": _sink(spec, "retrain.results", list(steps))}


def _gate(spec: FlowSpec, declared: Mapping[str, ModelConfig]) -> dict[str, Any]:
    return {"source": _source(spec, "retrain.results"),
            "steps": {"gate": {"gate": {"models": {name: model.gate for name, model in declared.items()}}}},
            "sinks": _sink(spec, "verdicts", "gate")}


def _audit(spec: FlowSpec, declared: Mapping[str, ModelConfig]) -> dict[str, Any]:
    return {"sources": {"verdicts": _source(spec, "verdicts"), "requests": _source(spec, "retrain"),
                        "results": _source(spec, "retrain.results"), "switches": _source(spec, "models")},
            "steps": {"publish": {"from": "switches", "publish": {}},
                      "record": {"from": ["verdicts", "requests", "results", "publish"], "record": {}}},
            "sinks": _sink(spec, "audit", "record")}
