"""What a flow can name, told from the configs: tables for people, the JSON Schema for editors."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from headrace import catalog
from headrace.connector import KafkaSinkConfig, KafkaSourceConfig, QuarantineConfig
from headrace.flow import FlowSpec, SinkSpec, SourceSpec, StepSpec

SOURCES: dict[str, type[BaseModel]] = {"kafka": KafkaSourceConfig}
SINKS: dict[str, type[BaseModel]] = {"kafka": KafkaSinkConfig, "quarantine": QuarantineConfig}


def processor(name: str, project: Path) -> dict[str, Any]:
    """A processor: `{"name", "summary", "main", "fields": [{"name", "type", …}]}`.

    Raises UserError when there is none of that name.
    """
    found = catalog.processor(name, project)
    module = inspect.getmodule(found)
    does = _first(inspect.getdoc(module)) if module else ""
    return {"name": name, "summary": does.removeprefix("`").removeprefix(name).lstrip("`: ") or _first(found.__doc__),
            "outputs": _first(found.__doc__), "main": found.main, "fields": fields(found.Config)}


def _first(text: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split())


def fields(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The keys a config takes, as they are written in YAML."""
    out = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        default = None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
        out.append({"name": field.alias or name, "type": _type_name(kind), "required": field.is_required(),
                    "default": default, "description": field.description or ""})
    if model.model_config.get("extra") == "allow":  # names of the user's own, e.g. derive's columns
        of = model.__annotations__.get("__pydantic_extra__", "dict[str, str]").removesuffix("]").rpartition(", ")[2]
        out.append({"name": "<name>", "type": of, "required": False, "default": None,
                    "description": _first(model.__doc__)})
    return out


def _type_name(kind: Any) -> str:
    text = kind.__name__ if inspect.isclass(kind) and not getattr(kind, "__args__", ()) else str(kind)
    for noise in ("typing.", "collections.abc.", "headrace.config.", "pydantic.types."):
        text = text.replace(noise, "")
    return re.sub(r"headrace\.\w+\.\w+\.", "", text)


def flow_schema(project: Path) -> dict[str, Any]:
    """The JSON Schema of a flow file, with the config of every processor `project` can name."""
    steps: dict[str, type[BaseModel]] = {n: catalog.processor(n, project).Config
                                         for n in catalog.names("processors", project)}
    models: list[type[BaseModel]] = [FlowSpec, *steps.values(), *SOURCES.values(), *SINKS.values()]
    unique = list(dict.fromkeys(models))
    refs, whole = models_json_schema([(m, "validation") for m in unique], by_alias=True)
    of = {model: refs[(model, "validation")] for model in unique}
    definitions = whole["$defs"]
    top = definitions.pop(of[FlowSpec]["$ref"].rpartition("/")[2])
    one = {"type": "string"}
    several = {"anyOf": [one, {"type": "array", "items": one}]}
    for spec, kinds, reads in ((SourceSpec, SOURCES, None), (StepSpec, steps, several), (SinkSpec, SINKS, several)):
        definitions[spec.__name__] = _one_of(spec, kinds, of, reads)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, "$defs": definitions}


def _one_of(spec: type[BaseModel], kinds: dict[str, type[BaseModel]], of: dict[Any, Any],
            reads: dict[str, Any] | None) -> dict[str, Any]:
    """An object with one component's name as a key, and `from` where it reads."""
    properties: dict[str, Any] = {}
    for kind, model in kinds.items():
        text = _first(model.__doc__)
        optional = not any(field.is_required() for field in model.model_fields.values())
        body = {"anyOf": [of[model], {"type": "null"}]} if optional else of[model]
        properties[kind] = {**body, "description": text}
    if reads is not None:
        properties["from"] = {**reads, "description": spec.model_fields["reads"].description}
    if "retry" in spec.model_fields:
        properties["retry"] = {"$ref": "#/$defs/RetrySpec", "description": spec.model_fields["retry"].description}
    return {"type": "object", "description": inspect.getdoc(spec) or "", "properties": properties,
            "additionalProperties": False, "oneOf": [{"required": [kind]} for kind in kinds]}
