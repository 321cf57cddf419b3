"""What a training's container runs: the trainer, and then its result where its runner looks for it.

    python -m headrace.loop.dispatch.inpod --request FILE|JSON --result FILE [--bytes-max N] [--seconds-max N]
                                           [--mlflow URI] [--bootstrap SERVERS] [--registry URL]

A pod's termination message may have 4,096 bytes, and its file can neither be replaced nor renamed to, so the trainer
writes beside it. What does not fit is left out from the least of it on: it all stands in MLflow, under `mlflow_run`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BYTES_MAX = 4096
LEAVE_OUT = ("spec", "ranges", "holdout", "metrics")
"""In this order, when a result is too long; then the longest first, and of the essential at last."""
ESSENTIAL = ("mlflow_run", "version", "candidates", "data_digest", "status", "reason")
ADDRESSES = {"mlflow": "MLFLOW_TRACKING_URI", "bootstrap": "HEADRACE_BOOTSTRAP", "registry": "HEADRACE_REGISTRY"}
"""Option → what the trainer's environment calls it."""
TIMED_OUT = 3
"""headrace's exit code for what another try may mend."""


def shortened(result: Mapping[str, Any], bytes_max: int) -> str:
    """The result as JSON of at most `bytes_max` bytes; `left_out` names what had to go."""
    kept = dict(result)
    left_out: list[str] = []

    def text() -> str:
        return json.dumps({**kept, "left_out": left_out} if left_out else kept, separators=(",", ":"))

    longest_first = sorted(kept, key=lambda key: -len(json.dumps(kept[key])))
    for key in (*LEAVE_OUT, *(k for k in longest_first if k not in ESSENTIAL), *longest_first):
        if len(text().encode()) <= bytes_max:
            break
        if kept.pop(key, None) is not None:
            left_out.append(key)
    return text()


def _run(command: Sequence[str], environment: Mapping[str, str], seconds_max: float | None) -> int:
    """The command's exit code. SIGTERM goes on to it: as a container's first process we would not die of it."""
    process = subprocess.Popen(command, env=environment)
    before = signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    try:
        return process.wait(seconds_max)
    except subprocess.TimeoutExpired:
        print(f"headrace: the training took more than {seconds_max:g} s and was ended", file=sys.stderr)
        return TIMED_OUT
    finally:
        process.kill()
        process.wait()
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trainer; its exit code."""
    parser = argparse.ArgumentParser(description="Train in a container.")
    parser.add_argument("--request", required=True, help="A file with the retrain request, or its JSON itself.")
    parser.add_argument("--result", required=True, help="Where its result goes, JSON.")
    parser.add_argument("--bytes-max", type=int, default=BYTES_MAX, help="What the result may have; 0: no limit.")
    parser.add_argument("--seconds-max", type=float, default=0, help="The trainer is ended after this; 0: never.")
    for name, variable in ADDRESSES.items():
        parser.add_argument(f"--{name}", default="", help=f"{variable}; when empty, as it is in the environment.")
    parser.add_argument("--module", default="headrace.loop.train", help="The trainer.")
    asked = parser.parse_args(arguments)
    told = {variable: where for name, variable in ADDRESSES.items() if (where := getattr(asked, name))}
    with tempfile.TemporaryDirectory() as folder:
        request, whole = Path(asked.request), Path(folder) / "result.json"
        if asked.request.lstrip().startswith("{"):
            request = Path(folder) / "request.json"
            request.write_text(asked.request, encoding="utf-8")
        command = [sys.executable, "-m", asked.module, "--request", str(request), "--result", str(whole)]
        code = _run(command, {**os.environ, **told}, asked.seconds_max or None)
        if whole.is_file():
            result = json.loads(whole.read_text(encoding="utf-8"))
            target = Path(asked.result)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("w", encoding="utf-8") as out:
                out.write(shortened(result, asked.bytes_max or sys.maxsize))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
