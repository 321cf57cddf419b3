"""The Kubeflow pipeline, compiled by the real kfp SDK and run by kfp.local, in an environment of its own.

kfp.local runs Python components as processes; the containers themselves have seen no Kubeflow (docs/kubeflow.md). The
claim is made in a real MLflow store.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.loop.dispatch.kubeflow import OWN_PIPELINE
from tests.contract.test_k8s_strict import request
from tests.external.environments import environment

pytestmark = [pytest.mark.external, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
SOURCE = OWN_PIPELINE.with_suffix(".py")
TRAINER = """
import argparse, json, pathlib
asked = argparse.ArgumentParser()
asked.add_argument("--request"); asked.add_argument("--result")
asked = asked.parse_args()
told = json.loads(pathlib.Path(asked.request).read_text())
with open("trained.txt", "a") as log:
    log.write(told["id"] + "\\n")
pathlib.Path(asked.result).write_text(json.dumps({"trigger": told["id"], "version": "7"}))
"""


@pytest.fixture(scope="module")
def kfp() -> Path:
    """The SDK's interpreter; installed once, in the cache."""
    return environment("kfp", HERE / "kfp.lock") / "bin" / "python"


def run(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(python), str(HERE / "kfp_run.py"), *map(str, arguments)], text=True,
                          capture_output=True, timeout=300, check=False)


def test_the_compiled_pipeline_is_the_source_compiled(kfp: Path, tmp_path: Path) -> None:
    made = run(kfp, "compile", SOURCE, tmp_path / "again.yaml")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "again.yaml").read_text() == OWN_PIPELINE.read_text()


def test_the_sdk_reads_it(kfp: Path) -> None:
    read = run(kfp, "check", OWN_PIPELINE)
    assert read.returncode == 0, read.stderr
    assert json.loads(read.stdout) == {**dict.fromkeys(
        ("trigger", "request", "mlflow", "bootstrap", "registry", "cpu", "memory"), "String"), "seconds_max": "Integer"}


def test_a_trigger_is_trained_once(kfp: Path, tmp_path: Path) -> None:
    """Two runs of one trigger: the first claims and trains, the second fails at its claim and trains nothing; the
    first again, as Kubeflow would retry it, may."""
    from headrace.loop.models import open_registry

    open_registry(None, tmp_path)
    (tmp_path / "toy_trainer.py").write_text(TRAINER)
    wrapper = tmp_path / "python"  # an interpreter that finds the trainer, whatever environment kfp gives it
    wrapper.write_text(f'#!/bin/sh\ncd {tmp_path}\nexec env PYTHONPATH={tmp_path} {sys.executable} -W ignore "$@"\n')
    wrapper.chmod(0o755)
    arguments = {"python": str(wrapper), "trigger": "ab" * 32, "request": request().to_json(), "trainer": "toy_trainer",
                 "mlflow": f"sqlite:///{next(tmp_path.rglob('mlflow.db'))}", "seconds_max": 60}
    outcomes = []
    for owner in ("run-1", "run-2", "run-1"):
        (tmp_path / "arguments.json").write_text(json.dumps({**arguments, "owner": owner}))
        done = run(kfp, "run", SOURCE, tmp_path / "arguments.json")
        output = next((line for line in done.stdout.splitlines() if line.startswith("OUTPUT ")), done.stderr)
        outcomes.append((done.returncode, output))
    result = (0, 'OUTPUT {"trigger":"' + "ab" * 32 + '","version":"7"}')
    assert [outcomes[0], outcomes[2]] == [result, result], outcomes
    assert outcomes[1][0] == 1
    assert (tmp_path / "trained.txt").read_text().split() == ["ab" * 32] * 2
