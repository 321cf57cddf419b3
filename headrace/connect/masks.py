"""Configurations as people see them, secrets hidden (headrace/secrets.py); kept when what was shown is sent back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headrace.errors import UserError
from headrace.secrets import HIDDEN, is_secret, shown, within


def masked(config: Mapping[str, Any], typed: Iterable[str] = ()) -> dict[str, Any]:
    """A configuration to show."""
    return {key: shown(key, value, typed) for key, value in config.items()}


def unmasked(config: Mapping[str, Any], kept: Mapping[str, Any] | None, typed: Iterable[str] = ()) -> dict[str, Any]:
    """A configuration that was sent, with the secrets of `kept` where their masks were sent back.

    Raises UserError for a mask that hides nothing: it would be stored as the secret.
    """
    restored = {}
    for key, value in config.items():
        if isinstance(value, str) and HIDDEN in value:
            before = (kept or {}).get(key)
            if before is not None and shown(key, before, typed) == value:
                value = before
            elif is_secret(key, typed) or within(value):
                raise UserError(f"{key}: {HIDDEN} stands for a secret that was not given before: send the secret")
        restored[key] = value
    return restored
