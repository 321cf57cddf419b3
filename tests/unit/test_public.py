"""What users build on: the public names, and a description on every field of every config."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import headrace
import headrace.connectors
import headrace.processors
from headrace.config import Config

pytestmark = pytest.mark.unit


def test_public_names_are_frozen() -> None:
    assert headrace.__all__ == ["Batch", "Config", "Context", "HeadraceError", "Processor", "Retriable", "Span",
                                "UserError", "__version__"]
    for name in headrace.__all__:
        assert getattr(headrace, name)
    with pytest.raises(AttributeError, match="Nonsense"):
        headrace.Nonsense  # noqa: B018


def test_import_is_light() -> None:
    heavy = "pyarrow", "polars", "pydantic", "confluent_kafka", "rich", "great_expectations"
    told = subprocess.run([sys.executable, "-c", f"import sys, headrace.cli as c; c.build(); print([m for m in {heavy} "
                           "if m in sys.modules])"], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def subclasses(of: type[Config]) -> set[type[Config]]:
    return {of} | {sub for direct in of.__subclasses__() for sub in subclasses(direct)}


def test_every_config_field_is_described_and_unknown_keys_fail() -> None:
    for package in (headrace.processors, headrace.connectors):
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
    importlib.import_module("headrace.flow")
    found = {c for c in subclasses(Config) - {Config} if c.__module__.startswith("headrace.")}
    assert len(found) >= 10
    for config in found:
        assert config.model_config["frozen"], config
        for name, field in config.model_fields.items():
            assert field.description, f"{config.__name__}.{name} says nothing of itself"
        if config.model_config["extra"] != "forbid":
            assert "__pydantic_extra__" in config.__annotations__, f"{config.__name__} takes anything"
