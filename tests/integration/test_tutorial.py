"""Every command of docs/tutorial.md, as a newcomer would type them, on an embedded stack of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"


def blocks() -> list[str]:
    """The shell blocks, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", TUTORIAL.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_tutorial(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    folder, told = tmp_path, ""
    try:
        for block in blocks():
            script = f"{block}\npwd > {tmp_path}/at"
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=env,
                                  text=True, capture_output=True, timeout=240)
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
            told += done.stdout
            folder = Path((tmp_path / "at").read_text().strip())
    finally:
        subprocess.run(["headrace", "down", "--purge"], cwd=folder, env=env, capture_output=True, timeout=60)
    assert len(blocks()) >= 8
    mended = [json.loads(line) for line in told.splitlines() if line.startswith("{") and '"temperature": 9.9' in line]
    assert len(mended) == 1, told
    assert "sensor_not_null" in told
    assert "temperature_between" in told
