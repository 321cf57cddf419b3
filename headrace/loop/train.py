"""The trainer: a retrain request becomes registered versions of its model, once.

    python -m headrace.loop.train --request FILE --result FILE [--project DIR]

It reads exactly the records that the request names, refuses those that were not known at its time, fits each candidate,
measures them on the holdout for information (the gate judges), and logs data digest, ranges, schema ids, code,
environment and cost with the run: whoever has the request can repeat it bit by bit. Killed at any moment and run again,
run twice, or twice at once, there is one MLflow run and one version a candidate.

The result, as JSON, goes to FILE and is the last line of stdout; progress goes to stderr.
Exit codes: 0 done (now or before); 2 the request is wrong; 3 the environment is: try again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.control import Retrain, RetrainResult, digest, to_ranges, to_spans
from headrace.errors import HeadraceError, UserError
from headrace.loop.data import Data, overlap, read
from headrace.loop.dispatch.base import request_from_json
from headrace.loop.models import Logged, ModelStore, open_registry
from headrace.loop.models.client import locked
from headrace.secrets import KNOWN, scrubbed
from headrace.settings import Settings, find_project, load

if TYPE_CHECKING:
    from headrace.loop.training import ModelSpec

LOCK_FILES = ("requirements.lock", "uv.lock")
PACKAGES = ("headrace", "scikit-learn", "numpy", "pandas", "pyarrow", "mlflow", "skops")
EXAMPLE_ROWS = 20
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """A request's rows: to train on, and held out. `data` and `holdout` are what was read; without ranges of its own
    for a holdout (`holdout` is None) the held-out days are among the rows of `data`."""

    train: pa.Table
    held: pa.Table
    data: Data
    holdout: Data | None


def train(request: Retrain, settings: Settings, say: Say = lambda line: None) -> RetrainResult:
    """What `request` asks for, done or found done. Raises UserError when it is wrong, EnvironmentFault when it cannot
    be done now."""
    from headrace.loop import training

    spec = spec_of(request)
    store = open_registry(settings.mlflow_uri, settings.project)
    with locked(store.folder / f"train-{digest(request.id)[:16]}.lock"):  # here, nobody trains it beside us
        logged = store.logged(request.id, request.model)
        if logged is not None:
            say(f"trained before: MLflow run {logged.mlflow_run}")
            return result_of(request, logged)
        parts = parts_of(request, spec, settings, store, say)
        pipelines: dict[str, Any] = {}
        for candidate in spec.candidates:
            began = time.perf_counter()
            pipelines[candidate] = training.fit(spec, parts.train, candidate, _ms(request.at))
            say(f"fitted {candidate} in {time.perf_counter() - began:.1f} s")
        held = parts.held if parts.held.num_rows else parts.train
        predicted = {name: training.predict(pipeline, held) for name, pipeline in pipelines.items()}
        references = _references(spec, parts, predicted)
        metrics = {f"{name}.{measure}": value for name, found in references.items()
                   for measure, value in found["baseline"].items()}
        facts = _facts(request, parts, settings.project) | {
            "predictions": {name: hashlib.sha256(made.astype("<f8").tobytes()).hexdigest()
                            for name, made in predicted.items()}}
        logged = store.log_run(request.id, request.model, spec=spec.model_dump(mode="json"), metrics=metrics,
                               facts=facts, models=pipelines, references=references,
                               example=parts.train.select(list(spec.features)).slice(0, EXAMPLE_ROWS))
        say(f"registered {', '.join(f'{name} as version {v}' for name, v in logged.candidates.items())}")
        return result_of(request, logged)


def spec_of(request: Retrain) -> ModelSpec:
    """The declaration in a request. Raises UserError."""
    from headrace.loop.training import ModelSpec

    try:
        spec = ModelSpec.model_validate({"name": request.model, **json.loads(request.spec)})
    except ValueError as error:  # pydantic's and json's own
        raise UserError(f"the request's spec does not declare a model: {error}") from error
    if spec.name != request.model:
        raise UserError(f"the request is for {request.model}, and its spec declares {spec.name}")
    return spec


def parts_of(request: Retrain, spec: ModelSpec, settings: Settings, store: ModelStore,
             say: Say = lambda line: None) -> Parts:
    """The request's rows, read and divided: the same ones for the trainer and for the gate.

    Where the request names holdout ranges, those are held out; else the days that the spec says, after those that the
    champion was trained on. Raises UserError (LeakError for a label of after the request), BrokerError, RegistryError.
    """
    from headrace.loop import training
    from headrace.loop.leak import check_known

    spans, apart, as_of_ms = request.spans(), to_spans(request.holdout), _ms(request.at)
    if both := overlap(spans, apart):
        raise UserError(f"the holdout would be trained on: {', '.join(map(str, both[:5]))} are in both",
                        hint="ranges and holdout of a request must not share offsets")
    data, holdout = read(settings, spans), read(settings, apart) if apart else None
    for what, found in (("to train on", data), ("held out", holdout)):
        if found is not None:
            say(f"{found.rows.num_rows:,} records {what}, digest {found.digest[:12]}…, {found.gaps:,} gaps")
            check_known(found.rows, spec.known_at, as_of_ms, ~np.isnan(training.labels(spec, found.rows)))
    if holdout is not None:
        return Parts(data.rows, holdout.rows, data, holdout)
    champion = store.facts(request.model, request.champion) if request.champion else None
    since_ms = _ms(datetime.fromisoformat(champion.facts["as_of"])) if champion else None
    mine, held = training.split(spec, data.rows, as_of_ms, since_ms)
    say(f"of these {int(mine.sum()):,} labelled ones to train on, {int(held.sum()):,} held out")
    return Parts(data.rows.filter(pa.array(mine)), data.rows.filter(pa.array(held)), data, None)


def result_of(request: Retrain, logged: Logged) -> RetrainResult:
    """The event that says so: the same however often it is asked."""
    facts = logged.facts
    return RetrainResult(
        id=digest(request.id, "succeeded"), at=datetime.fromtimestamp(logged.at_ms / 1000, UTC), trigger=request.id,
        model=request.model, status="succeeded", dispatcher="local", mlflow_run=logged.mlflow_run,
        version=next(iter(logged.candidates.values())), candidates=dict(logged.candidates), champion=request.champion,
        metrics=dict(logged.metrics), spec=request.spec, data_digest=facts["data_digest"], cpu_s=facts["cpu_s"],
        peak_bytes=facts["peak_bytes"], git_commit=facts["git_commit"], lock_digest=facts["lock_digest"],
        image_digest=facts["image_digest"], ranges=facts["ranges"], holdout=facts["holdout"], asked_at=request.at)


def failure_of(request: Retrain, error: HeadraceError) -> RetrainResult:
    """The event for a request that is wrong (refused), or that cannot be met now (failed)."""
    status = "refused" if isinstance(error, UserError) else "failed"
    return RetrainResult(id=digest(request.id, status), at=datetime.now(UTC), trigger=request.id, model=request.model,
                         status=status, dispatcher="local", champion=request.champion, ranges=request.ranges,
                         holdout=request.holdout, spec=request.spec, reason=KNOWN.text(str(error)), asked_at=request.at)


def _references(spec: ModelSpec, parts: Parts, predicted: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Candidate → what its later inputs and predictions are held against: `drift` and `rows` of the training data, and
    of the held-out rows `baseline` (measures) and `calibration`; these are empty where there are none."""
    from headrace.loop import drift, measures, training

    inputs = drift.reference(parts.train, numeric=spec.numeric, categorical=spec.categorical)
    labels = training.labels(spec, parts.held)
    known = ~np.isnan(labels)
    out: dict[str, dict[str, Any]] = {}
    for name, scores in predicted.items():
        out[name] = {"rows": parts.train.num_rows, "drift": inputs, "baseline": {}, "calibration": None}
        if known.any():
            found = measures.all_of(labels[known], scores[known])
            out[name] |= {"baseline": {measure: float(value) for measure, value in found.items()
                                       if np.isfinite(value)},
                          "calibration": measures.calibration(labels[known], scores[known])}
    return out


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _facts(request: Retrain, parts: Parts, project: Path) -> dict[str, Any]:
    """What it takes to repeat the run, and what it cost, as JSON values."""
    data, holdout, used = parts.data, parts.holdout, resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "data_digest": data.digest, "ranges": to_ranges(data.spans), "schema_ids": list(data.schema_ids),
        "records": data.rows.num_rows, "gaps": data.gaps, "rows": parts.train.num_rows,
        "holdout": to_ranges(holdout.spans) if holdout else [], "holdout_digest": holdout.digest if holdout else None,
        "holdout_rows": parts.held.num_rows,
        "flow": request.flow, "step": request.step, "reason": request.reason, "champion": request.champion,
        "as_of": request.at.isoformat(), "causes": list(request.causes),
        "git_commit": _git_commit(project), "lock_digest": _lock_digest(project),
        "image_digest": os.environ.get("HEADRACE_IMAGE_DIGEST"),
        "python": platform.python_version(), "packages": {name: _installed(name) for name in PACKAGES},
        "cpu_s": round(used.ru_utime + used.ru_stime, 3), "peak_bytes": used.ru_maxrss * unit}


def _git_commit(project: Path) -> str | None:
    """The commit, with “-dirty” when files differ from it. An image without git says it in HEADRACE_GIT_COMMIT."""
    if said := os.environ.get("HEADRACE_GIT_COMMIT"):
        return said
    try:
        found = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], cwd=project,
                               capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _lock_digest(project: Path) -> str | None:
    file = next((project / name for name in LOCK_FILES if (project / name).is_file()), None)
    return None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()


def _installed(name: str) -> str | None:
    try:
        return installed(name)
    except PackageNotFoundError:
        return None


def _write(file: Path, text: str) -> None:
    """All of it, or what was there before."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    with part.open("w", encoding="utf-8") as out:
        out.write(text + "\n")
        out.flush()
        os.fsync(out.fileno())
    part.replace(file)


def main(arguments: Sequence[str] | None = None) -> int:
    """See the top. The exit code."""
    parser = argparse.ArgumentParser(prog="python -m headrace.loop.train", description="Train what a request asks for.")
    parser.add_argument("--request", type=Path, required=True, help="a Retrain event, as its to_json() writes it")
    parser.add_argument("--result", type=Path, required=True, help="where the RetrainResult goes, as JSON")
    parser.add_argument("--project", type=Path, help="the project's folder (default: the nearest from here)")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("headrace").setLevel(logging.INFO)
    request, settings = None, None
    try:
        request = request_from_json(_text(asked.request))
        settings = load(asked.project or find_project())
        _tell("START", request, settings)
        result = train(request, settings, lambda line: print(line, file=sys.stderr))
        code = 0
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)
        code = 2 if isinstance(error, UserError) else 3
        if request is None:
            return code
        result = failure_of(request, error)
    _tell("FAIL" if code else "COMPLETE", request, settings, result)
    text = result.to_json()
    _write(asked.result, text)
    print(text, flush=True)
    return code


def _tell(state: str, request: Retrain, settings: Settings | None, result: RetrainResult | None = None) -> None:
    """The run as an OpenLineage event, where OPENLINEAGE_URL names somebody who listens. A listener that does not
    answer is logged: no training fails by it."""
    from headrace.loop.lineage import run_event, send

    url = os.environ.get("OPENLINEAGE_URL")
    if not url or settings is None:
        return
    tags = {} if result is None else {name: value for name, value in (
        ("data_digest", result.data_digest), ("git_commit", result.git_commit), ("lock_digest", result.lock_digest))
        if value}
    model = (request.model, result.version) if result is not None and result.version else None
    try:
        send(run_event(state, trigger=request.id, at_ms=round(time.time() * 1000), job=f"train {request.model}",
                       inputs=request.spans(), kafka=settings.bootstrap or "", model=model, tags=tags,
                       error=result.reason if state == "FAIL" and result else None), url)
    except HeadraceError as error:
        logging.getLogger(__name__).warning("lineage not told: %s", error)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: the request cannot be read: {error}") from error


if __name__ == "__main__":
    sys.stderr = scrubbed(sys.stderr)
    sys.exit(main())
