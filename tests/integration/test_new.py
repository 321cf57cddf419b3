"""`headrace new`, then every command its README names, in order, against a real broker and registry."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.settings import Settings

pytestmark = pytest.mark.integration
ROWS = 500


def headrace(folder: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "headrace", *arguments], cwd=folder, env=dict(os.environ), text=True,
                          capture_output=True, timeout=120)
    assert done.returncode == 0, f"headrace {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_new_project_runs_as_its_readme_says(project: Settings, topic_name: str) -> None:
    """The CSV's last record breaks the contract that was made of the others."""
    folder = project.project / "p"
    csv = project.project / "trips.csv"
    lines = ["who,km", *(f"{'ab'[i % 2]},{i % 9}" for i in range(ROWS))]
    csv.write_text("\n".join(lines) + "\n")
    headrace(project.project, "new", str(folder), "--from", str(csv), "--name", topic_name)
    csv.write_text("\n".join([*lines, "nobody,-1"]) + "\n")
    told = {}
    commands = re.findall(r"^    headrace (.*?)(?: {2,}#.*)?$", (folder / "README.md").read_text(), re.M)
    assert len(commands) == 10
    for command in commands:
        if command not in ("up", "down"):  # a broker is running
            told[command.split()[0]] = headrace(folder, *shlex.split(command))
    shown = [json.loads(line) for line in told["consume"].splitlines()]
    assert [set(record["value"]) for record in shown] == [{"who", "km"}] * 5
    everything = ("--from-beginning", "--until-end", "--json")
    (held,) = headrace(folder, "consume", f"{topic_name}.quarantine", *everything).splitlines()
    assert json.loads(held)["value"] == {"who": "nobody", "km": -1}
    assert "who_in_set" in headrace(folder, "quarantine", "list", f"{topic_name}.quarantine", "--json")
    assert len(headrace(folder, "consume", f"{topic_name}.valid", *everything).splitlines()) == ROWS


@pytest.fixture
def topic_name() -> str:
    return f"trips_{os.urandom(4).hex()}"
