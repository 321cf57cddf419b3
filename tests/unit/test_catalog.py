"""Components by name: the project's own, those of installed packages, ours; and what is said when there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from headrace import catalog, reference
from headrace.errors import UserError

pytestmark = pytest.mark.unit
OURS = {"aggregate", "decide", "dedupe", "derive", "dispatch", "filter", "gate", "join", "lookup", "mask", "monitor",
        "predict", "publish", "record", "route", "select", "switch", "trigger", "validate", "validate_window"}
SHOUT = '''
"""shout: raises its voice."""
from __future__ import annotations
from dataclasses import dataclass
from pydantic import Field
from headrace.config import Config
from headrace.processor import Processor

@dataclass
class Helper:
    at: int

class ShoutConfig(Config):
    volume: int = Field(11, description="How loud.")

class Shout(Processor):
    """Outputs: `success`."""
    Config = ShoutConfig
    def outputs(self, schema):
        return {"success": schema}
'''


def local(folder: Path, name: str, text: str) -> Path:
    (folder / "processors").mkdir(exist_ok=True)
    path = folder / "processors" / f"{name}.py"
    path.write_text(text)
    return path


def test_ours_are_found_by_the_name_of_their_file(tmp_path: Path) -> None:
    assert set(catalog.names("processors", tmp_path)) >= OURS
    assert {catalog.processor(name, tmp_path).__module__ for name in OURS} == {f"headrace.processors.{n}" for n in OURS}
    assert catalog.connector("quarantine", tmp_path).__name__ == "headrace.connectors.quarantine"


def test_in_our_own_checkout_they_are_not_loaded_a_second_time() -> None:
    checkout = Path(catalog.__file__).parents[1]
    assert catalog.processor("validate", checkout).__module__ == "headrace.processors.validate"


def test_a_projects_own_comes_first(tmp_path: Path) -> None:
    local(tmp_path, "shout", SHOUT)
    local(tmp_path, "filter", SHOUT)
    local(tmp_path, "_private", "raise SystemExit")
    assert catalog.processor("shout", tmp_path).Config.model_fields["volume"].default == 11
    assert catalog.processor("filter", tmp_path).__name__ == "Shout"
    assert set(catalog.names("processors", tmp_path)) == {*OURS, "shout"}


@pytest.mark.parametrize(("text", "said"), [
    ("1 / 0", "does not load: ZeroDivisionError"), ("def x(:", "does not load: SyntaxError"),
    ("x = 1", "must define one Processor, and defines 0"),
    (SHOUT + "\nclass Other(Shout): pass", "must define one Processor, and defines 2"),
    (SHOUT.replace("    Config = ShoutConfig\n", ""), "has no Config"),
])
def test_a_file_that_is_no_component_says_why(tmp_path: Path, text: str, said: str) -> None:
    local(tmp_path, "odd", text)
    before = set(sys.modules)
    with pytest.raises(UserError, match=said):
        catalog.processor("odd", tmp_path)
    left = {m for m in set(sys.modules) - before if m.startswith("headrace_project")}
    assert not left or "does not load" not in said


def test_an_installed_packages_component_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shouting.py").write_text(SHOUT)
    meta = tmp_path / "shouting-1.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1\n")
    (meta / "entry_points.txt").write_text("[headrace.processors]\nyell = shouting:Shout\nbroken = shouting:Absent\n"
                                           "dull = shouting:Helper\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert catalog.processor("yell", tmp_path).__name__ == "Shout"
    assert {"yell", "broken"} <= set(catalog.names("processors", tmp_path))
    with pytest.raises(UserError, match="of shouting:Absent does not load"):
        catalog.processor("broken", tmp_path)
    with pytest.raises(UserError, match="no subclass"):
        catalog.processor("dull", tmp_path)


def test_an_unknown_name_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no processor “valdate”; did you mean “validate”"):
        catalog.processor("valdate", tmp_path)
    with pytest.raises(UserError, match="there is no processor “x”; there are aggregate, decide"):
        catalog.processor("x", tmp_path)
    with pytest.raises(UserError, match="did you mean “kafka”"):
        catalog.connector("kafak", tmp_path)


def test_every_processor_can_be_told_with_every_field_described(tmp_path: Path) -> None:
    for name in catalog.names("processors", tmp_path):
        told = reference.processor(name, tmp_path)
        assert told["summary"], name
        assert not told["summary"].startswith(name), name
        assert told["fields"] or name == "record", name  # which has nothing to set
        assert all(field["description"] and field["type"] for field in told["fields"]), name
    local(tmp_path, "shout", SHOUT)
    assert reference.processor("shout", tmp_path) == {
        "name": "shout", "summary": "raises its voice.", "outputs": "Outputs: `success`.", "main": "success",
        "fields": [{"name": "volume", "type": "int", "required": False, "default": 11, "description": "How loud."}]}
