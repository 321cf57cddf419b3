"""Runs in the kfp SDK's own environment, for test_kubeflow_local.py: compile the pipeline, or run it by kfp.local.

    kfp_run.py compile PIPELINE.py OUT.yaml
    kfp_run.py check FILE.yaml                   read as the SDK reads pipelines; prints its inputs, JSON
    kfp_run.py run PIPELINE.py ARGUMENTS.json    prints the run's output; exit 1 when the run fails
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType


def load(file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("retrain_pipeline", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(verb: str, file: str, *rest: str) -> None:
    if verb == "compile":
        load(file).main([load(file).IMAGE, rest[0]])
    elif verb == "check":
        from kfp import components

        read = components.load_component_from_file(file)
        print(json.dumps({name: each.type for name, each in read.component_spec.inputs.items()}))
    else:
        from kfp import local

        os.chdir(Path(rest[0]).parent)
        pipeline = load(file).local()
        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(Path(rest[0]).parent / "outputs"))
        print("OUTPUT " + str(pipeline(**json.loads(Path(rest[0]).read_text())).output))


if __name__ == "__main__":
    main(*sys.argv[1:])
