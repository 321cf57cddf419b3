"""Component name → class. Looked for in the project's own folder, in installed packages, then in headrace itself.

    processors/<name>.py of the user's project      one Processor subclass a file, the name in YAML is the file's
    entry points `headrace.processors`              of installed packages
    headrace.processors.<name>                      ours
The same for connectors. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from headrace.errors import UserError
from headrace.marked import nearest
from headrace.processor import Processor


def processor(name: str, project: Path) -> type[Processor]:
    """The processor called `name`. Raises UserError: unknown (with what there is), or a file that does not load."""
    found = _find("processors", name, project)
    if isinstance(found, ModuleType):
        classes = [c for c in _classes(found) if issubclass(c, Processor) and not inspect.isabstract(c)]
        if len(classes) != 1:
            raise UserError(f"{found.__file__} must define one Processor, and defines {len(classes)}")
        found = classes[0]
    if not (isinstance(found, type) and issubclass(found, Processor)):
        raise UserError(f"the processor “{name}” is {found!r}, which is no subclass of headrace.processor.Processor")
    if not hasattr(found, "Config"):
        raise UserError(f"the processor “{name}” has no Config",
                        hint="give the class a `Config`, a subclass of headrace.config.Config")
    return found


def connector(name: str, project: Path) -> Any:
    """The module (or the object of an entry point) of the connector called `name`. Raises UserError."""
    return _find("connectors", name, project)


def names(kind: str, project: Path) -> list[str]:
    """The components of `kind` (processors or connectors) that `project` can name, sorted."""
    return sorted({*_local(kind, project), *(e.name for e in entry_points(group=f"headrace.{kind}")), *_ours(kind)})


def _find(kind: str, name: str, project: Path) -> Any:
    local = _local(kind, project)
    if name in local:
        return _from_file(kind, name, local[name])
    for entry in entry_points(group=f"headrace.{kind}"):
        if entry.name == name:
            try:
                return entry.load()
            except Exception as error:
                raise UserError(f"the {kind[:-1]} “{name}” of {entry.value} does not load: {error!r}") from error
    if name in _ours(kind):
        return importlib.import_module(f"headrace.{kind}.{name}")
    raise UserError(f"there is no {kind[:-1]} “{name}”{nearest(name, names(kind, project))}")


def _folders(kind: str) -> list[Path]:
    """Where our own components of `kind` are: a link in the checkout, a sub-package in the wheel."""
    return [Path(p).resolve() for p in importlib.import_module(f"headrace.{kind}").__path__]


def _ours(kind: str) -> list[str]:
    return [m.name for m in pkgutil.iter_modules(map(str, _folders(kind))) if not m.name.startswith("_")]


def _local(kind: str, project: Path) -> dict[str, Path]:
    """The project's own components; none when the project is headrace's own checkout."""
    folder = (project / kind).resolve()
    if folder in _folders(kind):
        return {}
    return {p.stem: p for p in sorted(folder.glob("*.py")) if not p.stem.startswith("_")}


def _from_file(kind: str, name: str, path: Path) -> ModuleType:
    """Runs the file as a module of its own. It stands in sys.modules, where dataclasses and pydantic look types up."""
    label = f"headrace_project_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{kind}_{name}"
    spec = importlib.util.spec_from_file_location(label, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[label] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[label]
        raise UserError(f"{path} does not load: {type(error).__name__}: {error}") from error
    return module


def _classes(module: ModuleType) -> list[type]:
    """The classes a module defines itself, without those it imports and those it keeps to itself."""
    return [value for key, value in vars(module).items()
            if inspect.isclass(value) and value.__module__ == module.__name__ and not key.startswith("_")]
