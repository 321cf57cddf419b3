"""The classes that run here, as Kafka Connect tells of its plugins; what is right and wrong with a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace import __version__
from headrace.connect import chains, definitions
from headrace.connect.definitions import Key, Value
from headrace.connect.spec import JAVA, Class, Spec, class_of, runnable, spec_of
from headrace.errors import HeadraceError
from headrace.marked import nearest
from headrace.transforms import PREDICATES, TRANSFORMS

INVALID = "Connector configuration is invalid and contains the following {} error(s):"
ELSEWHERE = ("You can also find the above list of errors at the endpoint "
             "`/connector-plugins/{connectorType}/config/validate`")


class Refused(Exception):
    """A request that cannot be served: the answer's status and text, both Kafka Connect's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def invalid(errors: list[str]) -> Refused:
    """The refusal of a configuration with these errors."""
    return Refused(400, "\n".join([INVALID.format(len(errors)), *errors, ELSEWHERE]))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a configuration says, key by key. `spec` is there when nothing is wrong."""

    name: str
    keys: Mapping[str, Key]
    values: list[Value]
    spec: Spec | None

    @property
    def errors(self) -> list[str]:
        return [error for value in self.values for error in value.errors]

    def told(self) -> dict[str, Any]:
        keys = self.keys
        return {"name": self.name, "error_count": len(self.errors), "groups": definitions.groups_of(keys.values()),
                "configs": [{"definition": keys[value.name].told() if value.name in keys else None,
                             "value": value.told()} for value in self.values]}

    def demand(self) -> Spec:
        """The spec. Raises Refused with every error."""
        if self.spec is not None:
            return self.spec
        raise invalid(self.errors)


def listed(project: Path, *, connectors_only: bool) -> list[dict[str, str]]:
    """GET /connector-plugins: sinks, sources; and with `connectors_only` False what records pass on their way."""
    named = [*JAVA, *(noun + kind for noun in runnable(project) for kind in ("Sink", "Source"))]
    made = [one for one in (_class(name, {}, project) for name in named) if one is not None]
    found = [{"class": one.name, "type": one.kind, "version": __version__}
             for one in sorted(made, key=lambda one: (one.kind, one.name))]
    if not connectors_only:
        found += [{"class": name, "type": kind, "version": __version__} for kind, name in _on_the_way()]
    return found


def _on_the_way() -> list[tuple[str, str]]:
    """(kind, class) of transforms, predicates and converters."""
    return [*(("transformation", name) for name in TRANSFORMS), *(("predicate", name) for name in PREDICATES),
            *(("converter", name) for name in definitions.CONVERTERS),
            *(("header_converter", name) for name in definitions.HEADER_CONVERTERS)]


def _class(name: str, config: Mapping[str, str], project: Path) -> Class | None:
    """What a name stands for; None for nothing that runs here."""
    try:
        return class_of(name, config, project)
    except HeadraceError:
        return None


def defined(name: str, project: Path) -> list[dict[str, Any]]:
    """GET /connector-plugins/{name}/config: the class's own keys, then the shared ones. Raises Refused."""
    made = _class(name, {}, project)
    if made is None:
        raise Refused(404, f"Unknown plugin {name}.")
    shared = {key.name for key in definitions.shared_keys(made.kind, __version__, java=made.java)}
    keys = keys_of(made)
    return [key.told() for key in (*(k for k in keys if k.name not in shared), *(k for k in keys if k.name in shared))]


def keys_of(made: Class) -> list[Key]:
    return definitions.keys_of(made.cls.Config, made.kind, __version__, java=made.java)


def validated(config: Mapping[str, str | None], project: Path, group: str) -> Verdict:
    """Every key of a configuration, looked at. Raises Refused where there is no telling: no class, or none of ours."""
    named = config.get("connector.class")
    if named is None:
        raise Refused(400, f"Connector config {_java_map(config)} contains no connector type")
    given = {key: value for key, value in config.items() if value is not None}
    made = _class(named, given, project)
    if made is None:
        there = runnable(project)
        raise Refused(400, f"Failed to find any class that implements Connector and which name matches {named}, "
                      f"available connectors are: {', '.join(there)}{nearest(named, there)}")
    keys, values = _checked(made, config)
    if made.kind == "sink":
        definitions.check_topics(config, values)
        _check_group(config, values, group)
    spec, problems = spec_of(given, project)
    wrong = {name for name, value in values.items() if value.errors} | (set(config) - set(given))
    for one in problems:
        if not _said(one.key, wrong):
            values.setdefault(one.key, Value(one.key, given.get(one.key), [])).errors.append(one.message)
    for key, value in config.items():
        if value is None:
            values.setdefault(key, Value(key, None, [])).errors.append(
                "Null value can not be supplied as the configuration value.")
    ordered = sorted(values.values(), key=lambda value: value.name in keys)  # stable: those of no definition first
    right = spec is not None and not any(value.errors for value in ordered)
    return Verdict(named, keys, ordered, spec if right else None)


def _said(key: str, wrong: set[str]) -> bool:
    """Whether what is wrong with a key is told already: of it, of a part of it, or of the class it belongs to."""
    alias = ".".join(key.split(".")[:2])
    return key in wrong or f"{alias}.type" in wrong or any(name.startswith(f"{key}.") for name in wrong)


def _checked(made: Class, config: Mapping[str, str | None]) -> tuple[dict[str, Key], dict[str, Value]]:
    """The definitions and what the configuration says for them: the class's, its transforms', its converters'."""
    staged, known = chains.resolved(config, __version__)
    shared = chains.of_worker(definitions.shared_keys(made.kind, __version__, java=made.java), known, __version__,
                              java=made.java)
    named = {key.name for key in shared}
    own = [key for key in keys_of(made) if key.name not in named]
    parts = [([*shared, *staged, *own], known), *chains.converter_keys(config)]
    keys: dict[str, Key] = {}
    values: dict[str, Value] = {}
    for part, says in parts:
        keys |= {key.name: key for key in part}
        values |= definitions.checked(part, says)
    return keys, values


def _check_group(config: Mapping[str, str | None], values: dict[str, Value], group: str) -> None:
    key = "consumer.override.group.id"
    overridden = config.get(key)
    if overridden is not None:
        values[key] = Value(key, overridden, [])
        if overridden == group:
            values[key].errors.append(f"Consumer group {overridden} conflicts with Connect worker group {group}")
    elif f"connect-{config.get('name')}" == group:
        values["name"].errors.append(f"Consumer group for sink connector named {config['name']} conflicts with Connect "
                                     f"worker group {group}")


def _java_map(config: Mapping[str, str | None]) -> str:
    """As Java shows a map, without a single value: who knows what they are, when no class is named?"""
    return "{" + ", ".join(f"{key}={value}" if key == "name" else f"{key}=…" for key, value in config.items()) + "}"


def same_plugin(asked: str, config: Mapping[str, str | None], project: Path) -> bool:
    """Whether `connector.class` of a configuration is the class asked for in the path: by Kafka's rule (the end of the
    name), or because both name the same class."""
    named = config.get("connector.class")
    if named is None or _simple(named).endswith(_simple(asked)):
        return True
    given = {key: value for key, value in config.items() if value is not None}
    one, other = _class(named, given, project), _class(asked, given, project)
    return one is not None and other is not None and one.name == other.name


def _simple(name: str) -> str:
    return name.removesuffix("Connector") or name
