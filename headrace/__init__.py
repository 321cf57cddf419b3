"""headrace: streams of events, checked and shaped, to the models that live on them.

What a user's own processor needs stands here; each name is loaded when it is first used, so that importing headrace
costs nothing. `tests/unit/test_public.py` freezes the list.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Batch": "batch", "Span": "batch", "Config": "config", "Context": "processor", "Processor": "processor",
    "HeadraceError": "errors", "Retriable": "errors", "UserError": "errors",
}
__all__ = ["Batch", "Config", "Context", "HeadraceError", "Processor", "Retriable", "Span", "UserError", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"headrace.{_HOME[name]}"), name)
    raise AttributeError(f"module “headrace” has no attribute “{name}”")
