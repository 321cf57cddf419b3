"""The base of every component's config. Declared once; parsing, lint, docs and the JSON Schema derive from it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen; unknown keys fail; every field carries a description and, where it has one, its unit in the name.

    `tests/unit/test_config.py` holds every subclass to that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
