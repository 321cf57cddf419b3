"""The pipeline that trains on Kubeflow: claim the trigger, then train. Its compiled form stands beside it.

    python retrain_pipeline.py [IMAGE [FILE]]      compile it; needs the kfp SDK, in an environment of its own

Parameters: `trigger` and `request` (a Retrain event as JSON), `mlflow` (where triggers are claimed and models
registered), `bootstrap` and `registry` (Kafka and the schema registry), `cpu`, `memory`, `seconds_max`. Two runs of one
trigger may be created; the one that claims second fails at once, and trains nothing. A retry of the run's own step
claims for the same run, and goes on.

`local()` is the same pipeline for `kfp.local`, which runs Python components only, without containers.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def,valid-type"
# No `from __future__ import annotations` here: kfp reads the annotations as types.
import sys
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

IMAGE = "headrace:0.1.0"
"""Stands in the compiled file for the image to train in, which the dispatcher sets."""
CLAIM, TRAIN = "headrace.loop.dispatch.claim", "headrace.loop.dispatch.inpod"


def pipeline(image: str = IMAGE) -> Any:
    """The pipeline, of containers of `image`."""

    @dsl.container_component
    def claim(trigger: str, owner: str, mlflow: str):
        return dsl.ContainerSpec(image=image, command=["python", "-m", CLAIM], args=[
            "--trigger", trigger, "--owner", owner, "--tracking-uri", mlflow])

    @dsl.container_component
    def train(request: str, mlflow: str, bootstrap: str, registry: str, seconds_max: int,
              result: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image=image, command=["python", "-m", TRAIN], args=[
            "--request", request, "--result", result, "--bytes-max", "0", "--seconds-max", seconds_max,
            "--mlflow", mlflow, "--bootstrap", bootstrap, "--registry", registry])

    @dsl.pipeline(name="headrace-retrain", description="Train a model for one retrain event of headrace, once.")
    def retrain(trigger: str, request: str, mlflow: str, bootstrap: str = "", registry: str = "", cpu: str = "1",
                memory: str = "2048Mi", seconds_max: int = 3600):
        claimed = claim(trigger=trigger, owner=dsl.PIPELINE_JOB_ID_PLACEHOLDER, mlflow=mlflow)
        claimed.set_caching_options(False).set_cpu_limit("500m").set_memory_limit("1024Mi")
        trained = train(request=request, mlflow=mlflow, bootstrap=bootstrap, registry=registry,
                        seconds_max=seconds_max)
        trained.after(claimed).set_caching_options(False).set_retry(2)
        trained.set_cpu_request(cpu).set_cpu_limit(cpu).set_memory_request(memory).set_memory_limit(memory)

    return retrain


def local() -> Any:
    """The same steps as Python components, for kfp.local's SubprocessRunner: `python` is one that has headrace."""

    @dsl.component(base_image=IMAGE, install_kfp_package=False)
    def claim(python: str, module: str, trigger: str, owner: str, mlflow: str):
        import subprocess

        subprocess.run([python, "-m", module, "--trigger", trigger, "--owner", owner, "--tracking-uri", mlflow],
                       check=True)

    @dsl.component(base_image=IMAGE, install_kfp_package=False)
    def train(python: str, module: str, trainer: str, request: str, mlflow: str,
              seconds_max: int) -> str:  # the result, JSON
        import pathlib
        import subprocess
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            result = pathlib.Path(folder) / "result.json"
            subprocess.run([python, "-m", module, "--request", request, "--result", str(result), "--bytes-max", "0",
                            "--seconds-max", str(seconds_max), "--mlflow", mlflow, "--module", trainer], check=True)
            return result.read_text()

    @dsl.pipeline(name="headrace-retrain-local")
    def retrain(python: str, trigger: str, request: str, mlflow: str, owner: str, seconds_max: int = 3600,
                trainer: str = "headrace.loop.train") -> str:
        claimed = claim(python=python, module=CLAIM, trigger=trigger, owner=owner, mlflow=mlflow)
        trained = train(python=python, module=TRAIN, trainer=trainer, request=request, mlflow=mlflow,
                        seconds_max=seconds_max)
        trained.after(claimed)
        result: str = trained.output
        return result

    return retrain


def main(arguments: list[str]) -> None:
    image, file = [*arguments, *(IMAGE, str(Path(__file__).with_suffix(".yaml")))[len(arguments):]]
    compiler.Compiler().compile(pipeline(image), file)


if __name__ == "__main__":
    main(sys.argv[1:])
