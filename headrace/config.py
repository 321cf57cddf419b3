"""The base of every component's config. Declared once; parsing, lint, docs and the JSON Schema derive from it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

TOPIC_NAME = r"^[A-Za-z0-9._-]{1,249}$"
"""The pattern of what Kafka takes for a topic's name."""
Names = Annotated[tuple[str, ...], BeforeValidator(
    lambda v: tuple(filter(None, map(str.strip, v.split(",")))) if isinstance(v, str) else v)]
"""“a, b” as ("a", "b"), where a list is written as text; empty ones are left out."""


class Config(BaseModel):
    """Frozen; unknown keys fail; every field carries a description and, where it has one, its unit in the name.

    `tests/unit/test_config.py` holds every subclass to that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
