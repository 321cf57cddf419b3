"""Where headrace's own files are: `schemas/` and `flows/`, beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path


def content(path: str) -> Path:
    """A file of ours, e.g. `content("schemas/control/alerts.avsc")`. A missing one is a broken installation."""
    package = Path(__file__).resolve().parent
    for folder in (package / "content", package.parent):
        if (folder / path).exists():
            return folder / path
    raise AssertionError(f"headrace's own {path} is not installed; is this a whole checkout or wheel?")
