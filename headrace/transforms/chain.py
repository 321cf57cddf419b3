"""A chain of transforms as a config declares it, and what it makes of records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ValidationError

from headrace.marked import nearest
from headrace.records import Failure, Records
from headrace.transforms.base import Transform, TransformConfig, some
from headrace.transforms.classes import predicate_class, transform_class
from headrace.transforms.predicates import Predicate

STAGE = "TRANSFORMATION"
Problems = list[tuple[str, str]]
"""(full key, what is wrong with it)"""
LITERALS = {"literal_error": "“{given}” is not one of {expected}", "missing": "is missing: {description}"}
RENAMED = {"blacklist": "exclude", "whitelist": "include"}
"""Keys that Kafka Connect had until 3.9."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A transform, and the records it is for."""

    alias: str
    transform: Transform[Any]
    predicate: Predicate[Any] | None = None
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """Transforms in their order. It holds no state, and may be used for any records."""

    stages: tuple[Stage, ...] = ()
    empty: ClassVar[Chain]

    def __bool__(self) -> bool:
        return bool(self.stages)

    def apply(self, records: Sequence[Records]) -> tuple[list[Records], list[Failure]]:
        """What becomes of the records, by topic and structure, and which could not be taken. Every record keeps its
        `index`; those that are in neither were dropped."""
        failures: list[Failure] = []
        held = [each for each in records if len(each)]
        for stage in self.stages:
            by = stage.transform.java

            def refuse(places: Sequence[int], reason: str, by: str = by) -> None:
                failures.extend(Failure(index, STAGE, by, reason) for index in places)

            held = [made for each in held for made in _staged(stage, each, refuse) if len(made)]
        return sorted(held, key=lambda each: int(each.index[0])), sorted(failures, key=lambda each: each.index)


Chain.empty = Chain()


def _staged(stage: Stage, records: Records, refuse: Any) -> list[Records]:
    if stage.predicate is None:
        return stage.transform.apply(records, refuse)
    meant = stage.predicate.test(records) ^ stage.negate
    if not meant.any():
        return [records]
    rest = [] if meant.all() else [some(records, ~meant)]
    return stage.transform.apply(some(records, meant), refuse) + rest


def chain_of(config: Mapping[str, str]) -> tuple[Chain, Problems]:
    """The chain that `transforms=a,b` and `transforms.a.type` … declare, and all that is wrong. Keys of aliases that
    `transforms` and `predicates` do not name are left alone, as Kafka Connect does. Stages with problems are not in
    the chain."""
    problems: Problems = []
    predicates: dict[str, Predicate[Any] | None] = {}
    for alias in _aliases(config, "predicates", problems):
        predicates[alias] = _predicate(config, f"predicates.{alias}.", problems)
    stages = [_stage(config, alias, predicates, problems) for alias in _aliases(config, "transforms", problems)]
    return Chain(tuple(stage for stage in stages if stage is not None)), problems


def _aliases(config: Mapping[str, str], key: str, problems: Problems) -> list[str]:
    text = config.get(key) or ""
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    if "" in names:
        problems.append((key, f"{key}: there is an empty name in “{text}”"))
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        problems.append((key, f"{key}: “{name}” is in the list twice"))
    return [name for name in dict.fromkeys(names) if name]


def _predicate(config: Mapping[str, str], prefix: str, problems: Problems) -> Predicate[Any] | None:
    keys = _keys(config, prefix)
    try:
        cls = predicate_class(keys.pop("type", "").strip())
    except ValueError as error:
        problems.append((prefix + "type", f"{prefix}type: {error}"))
        return None
    made = config_of(cls.Config, keys, prefix, problems)
    return None if made is None else cls(made)


def _stage(config: Mapping[str, str], alias: str, predicates: Mapping[str, Predicate[Any] | None], problems: Problems
           ) -> Stage | None:
    prefix = f"transforms.{alias}."
    keys, before = _keys(config, prefix), len(problems)
    wanted, negated = keys.pop("predicate", None), keys.pop("negate", None)
    if wanted is not None and wanted.strip() not in predicates:
        problems.append((prefix + "predicate", f"{prefix}predicate: there is no predicate “{wanted}” in `predicates`"
                         + nearest(wanted, predicates)))
    if negated is not None and wanted is None:
        problems.append((prefix + "negate", f"{prefix}negate: there is nothing to negate: {prefix}predicate is "
                         "missing"))
    if negated is not None and negated.strip().lower() not in ("true", "false"):
        problems.append((prefix + "negate", f"{prefix}negate: “{negated}” is neither true nor false"))
    try:
        cls, key = transform_class(keys.pop("type", "").strip())
    except ValueError as error:
        problems.append((prefix + "type", f"{prefix}type: {error}"))
        return None
    made = config_of(cls.Config, keys, prefix, problems)
    if made is None or len(problems) > before:
        return None
    predicate = None if wanted is None else predicates[wanted.strip()]
    if wanted is not None and predicate is None:
        return None  # what is wrong with the predicate is told already
    return Stage(alias, cls(made, key=key), predicate, (negated or "").strip().lower() == "true")


def _keys(config: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The keys below a prefix, without it. `plugin.version` picks among versions; there is one here."""
    return {name.removeprefix(prefix): value for name, value in config.items()
            if name.startswith(prefix) and name != prefix + "plugin.version"}


def config_of(model: type[TransformConfig], keys: Mapping[str, str], prefix: str, problems: Problems
              ) -> TransformConfig | None:
    """The config of a transform or predicate; None where something is wrong with it."""
    known = {field.alias or name: field for name, field in model.model_fields.items()}
    for name in keys:
        if name not in known:
            hint = f"; it is called “{RENAMED[name]}” now" if RENAMED.get(name) in known else nearest(name, known)
            problems.append((prefix + name, f"{prefix}{name}: there is no such key{hint}"))
    try:
        return model.model_validate({name: value for name, value in keys.items() if name in known})
    except ValidationError as error:
        for each in error.errors():
            name, text = str(each["loc"][0]) if each["loc"] else "", str(each["msg"]).removeprefix("Value error, ")
            if not name:  # of keys together: the text begins with the key
                name, _, text = text.partition(": ")
            told = LITERALS.get(each["type"])
            if told:
                text = told.format_map({"given": each["input"], "description": known[name].description,
                                        **each.get("ctx", {})})
            problems.append((prefix + name, f"{prefix}{name}: {text}"))
        return None
