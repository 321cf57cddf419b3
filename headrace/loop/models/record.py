"""One finished MLflow run, and one registered version a candidate, for each trigger.

MLflow has no unique key, so writers of the same trigger settle it among themselves, with what every store has: a run,
once made, is seen by every search after it.

    1. a finished run of the trigger ends the matter: its record is the answer
    2. a run whose writer is dead is taken away, with its versions
    3. nobody else's run is there: make one, and look again
    4. mine alone is there: write it. Others are there: the one with the least id stays, the rest withdraw and wait

Step 3 looks after it has made: of two that begin at once at least one sees the other, and the one that saw nobody is
waited for. A writer on this machine is dead when its process is; elsewhere, when its run has not been touched for
LEASE_S by our own clock. What stays open: a writer that stands still for longer than LEASE_S (a suspended machine) and
then goes on finds its run deleted and withdraws; a version it registers in that very moment is swept away by
whoever finishes the trigger after it, and lives until then.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow as pa

from headrace.loop.models import artifact
from headrace.loop.models.client import RETRY_AFTER_S, StoreUnreachable, asking, is_server

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

LEASE_S = 60.0
PATIENCE_S = 600.0
LOOK_AGAIN_S = 0.5
PARAM_CHARS_MAX = 500
RUNS_MAX = 1_000
TRIGGER, OWNER, BEAT = "trigger_id", "headrace.owner", "headrace.beat"
VERSION_TRIGGER, VERSION_CANDIDATE = "headrace.trigger", "headrace.candidate"
RECORD = "headrace.json"


@dataclass(frozen=True, slots=True)
class Logged:
    """What stands in MLflow for a trigger. `candidates` is candidate → version; `at_ms` when it was complete."""

    trigger: str
    model: str
    mlflow_run: str
    candidates: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be logged. `metrics` are named `<candidate>.<measure>`; `example` has the features as columns."""

    trigger: str
    model: str
    spec: Mapping[str, Any]
    metrics: Mapping[str, float]
    facts: Mapping[str, Any]
    pipelines: Mapping[str, Any]
    references: Mapping[str, Mapping[str, Any]]
    example: pa.Table


@dataclass(frozen=True, slots=True)
class Ledger:
    """The runs of one experiment. `artifacts` is where they go when we open the database ourselves."""

    client: MlflowClient
    uri: str
    artifacts: Path

    def find(self, model: str, trigger: str) -> Logged | None:
        """The finished record of a trigger. Raises StoreUnreachable."""
        experiment = self.client.get_experiment_by_name(model)
        done = [] if experiment is None else _finished(self._runs(experiment.experiment_id, trigger))
        return self.read(done[0].info.run_id) if done else None

    def read(self, run: str) -> Logged:
        """The record of a finished run."""
        with tempfile.TemporaryDirectory() as folder:
            return Logged(**json.loads(Path(self.client.download_artifacts(run, RECORD, folder)).read_text()))

    def write(self, draft: Draft, patience_s: float = PATIENCE_S) -> Logged:
        """The record of the draft's trigger: made now, or by whoever was first. Raises StoreUnreachable."""
        experiment = self._experiment(draft.model)
        run = self._claim(experiment, draft.trigger, patience_s)
        if _is_finished(run):
            return self.read(run.info.run_id)
        try:
            with self._beating(run.info.run_id):
                logged = self._fill(run, draft)
        except BaseException:  # a writer that lives is waited for: this one must not be
            with suppress(Exception):
                self._discard(run.info.run_id)
            raise
        self._sweep(draft.trigger, keep=run.info.run_id)
        return logged

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            where = None if is_server(self.uri) else str(self.artifacts / "artifacts")
            try:
                return str(self.client.create_experiment(name, artifact_location=where))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            raise StoreUnreachable(f"the experiment {name} was deleted in MLflow", retry_after_s=RETRY_AFTER_S,
                                   hint="restore it, or delete it for good with `mlflow gc`")
        return str(found.experiment_id)

    def _runs(self, experiment: str, trigger: str) -> list[Run]:
        """The trigger's runs, the least id first."""
        runs = self.client.search_runs([experiment], f"tags.{TRIGGER} = '{trigger}'", max_results=RUNS_MAX)
        return sorted(runs, key=lambda run: str(run.info.run_id))

    def _claim(self, experiment: str, trigger: str, patience_s: float) -> Run:
        """A run of ours to write, or the finished one. See the steps at the top."""
        mine: str | None = None
        seen: dict[str, tuple[str | None, float]] = {}
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            runs = self._runs(experiment, trigger)
            if mine not in (run.info.run_id for run in runs):
                mine = None  # we stood still for so long that another took us for dead
            done = _finished(runs)
            others = [run for run in runs if run.info.run_id != mine]
            alive = [run for run in others if not _is_finished(run) and not _is_dead(run, seen)]
            if not done:
                for run in others:
                    if run not in alive:
                        self._discard(run.info.run_id)
            if mine is not None and (done or (alive and alive[0].info.run_id < mine)):
                self._discard(mine)
                mine = None
            if done:
                return done[0]
            if mine is not None and not alive:
                return next(run for run in runs if run.info.run_id == mine)
            if mine is None and not alive:
                mine = self.client.create_run(experiment, run_name=f"retrain-{trigger[:12]}",
                                              tags={TRIGGER: trigger, OWNER: _me(), BEAT: "0"}).info.run_id
                continue
            time.sleep(LOOK_AGAIN_S)
        if mine is not None:
            self._discard(mine)
        raise StoreUnreachable(f"another process has been writing the run of trigger {trigger[:16]}… for "
                               f"{patience_s:.0f} s", retry_after_s=RETRY_AFTER_S)

    def _fill(self, run: Run, draft: Draft) -> Logged:
        from mlflow.entities import Metric, Param

        id_, at_ms = run.info.run_id, int(time.time() * 1000)
        ids = {candidate: self._keep(run, draft, candidate) for candidate in draft.pipelines}
        named = {name: ids.get(name.partition(".")[0]) for name in draft.metrics}
        self.client.log_batch(
            id_, metrics=[Metric(name, float(value), at_ms, 0, model_id=named[name])
                          for name, value in draft.metrics.items()],
            params=[Param(name, text) for name, text in _params(draft).items()])
        versions = {candidate: self._register(id_, draft, candidate, model) for candidate, model in ids.items()}
        logged = Logged(draft.trigger, draft.model, id_, {each: str(v.version) for each, v in versions.items()},
                        dict(draft.metrics), dict(draft.facts), dict(draft.spec), int(time.time() * 1000))
        self.client.log_dict(id_, asdict(logged), RECORD)
        self.client.set_terminated(id_, "FINISHED")
        return logged

    def _keep(self, run: Run, draft: Draft, candidate: str) -> str:
        """The candidate's pipeline as a logged model of the run: its id."""
        made = self.client.create_logged_model(run.info.experiment_id, name=candidate, source_run_id=run.info.run_id,
                                               tags={VERSION_TRIGGER: draft.trigger, VERSION_CANDIDATE: candidate})
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder) / "model"
            artifact.save(draft.pipelines[candidate], files, draft.example, draft.references.get(candidate, {}),
                          run_id=run.info.run_id, model_id=made.model_id, artifact_path=made.artifact_location)
            self.client.log_model_artifacts(made.model_id, str(files))
        self.client.finalize_logged_model(made.model_id, "READY")
        return str(made.model_id)

    def _register(self, run: str, draft: Draft, candidate: str, model_id: str) -> ModelVersion:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(draft.model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = self.client.get_logged_model(model_id)  # the place itself: models:/… is looked up in a global store
        return self.client.create_model_version(
            draft.model, source=made.artifact_location, run_id=run, model_id=model_id,
            tags={VERSION_TRIGGER: draft.trigger, VERSION_CANDIDATE: candidate})

    def _discard(self, run: str) -> None:
        """A run that came to nothing goes, with its versions; in this order, so that a kill leaves it to be found."""
        for version in self.client.search_model_versions(f"run_id = '{run}'"):
            self._delete_version(version)
        from mlflow.exceptions import MlflowException

        try:
            self.client.delete_run(run)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise

    def _sweep(self, trigger: str, keep: str) -> None:
        """Versions of the trigger that a stopped writer registered after its run was taken away."""
        for version in self.client.search_model_versions(f"tags.`{VERSION_TRIGGER}` = '{trigger}'"):
            if version.run_id != keep:
                self._delete_version(version)

    def _delete_version(self, version: ModelVersion) -> None:
        with asking(self.uri):
            self.client.delete_model_version(version.name, str(version.version))

    @contextmanager
    def _beating(self, run: str) -> Iterator[None]:
        """While the block runs the run is touched from time to time: others see that its writer lives."""
        ended = threading.Event()

        def beat() -> None:
            count = 0
            while not ended.wait(LEASE_S / 6):
                count += 1
                try:
                    self.client.set_tag(run, BEAT, str(count))
                except Exception:  # the writer itself meets what is wrong, and says so
                    return

        beating = threading.Thread(target=beat, name="headrace-run-beat", daemon=True)
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join()


def _is_finished(run: Run) -> bool:
    return bool(run.info.status == "FINISHED")


def _finished(runs: list[Run]) -> list[Run]:
    return [run for run in runs if _is_finished(run)]


def _is_dead(run: Run, seen: dict[str, tuple[str | None, float]]) -> bool:
    """Whether the writer of this unfinished run is gone. `seen` keeps what we saw of it, and when that was new."""
    if run.info.status in ("FAILED", "KILLED"):
        return True
    machine, _, process = run.data.tags.get(OWNER, "").rpartition("/")
    if machine == _machine():
        pid, _, born = process.partition("@")
        try:
            return f"{psutil.Process(int(pid)).create_time():.2f}" != born
        except (psutil.NoSuchProcess, ValueError):
            return True
    beat, now = run.data.tags.get(BEAT), time.monotonic()
    if seen.get(run.info.run_id, (None, 0.0))[0] != beat:
        seen[run.info.run_id] = (beat, now)
    return now - seen[run.info.run_id][1] > LEASE_S


def _me() -> str:
    """This process, so that others can tell whether it lives: its machine, its number, when it was born."""
    return f"{_machine()}/{os.getpid()}@{psutil.Process().create_time():.2f}"


def _machine() -> str:
    """What shares our process numbers: this boot of this machine, and the container's own numbering of processes."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return f"{os.uname().nodename}-{psutil.boot_time():.0f}"


def _params(draft: Draft) -> dict[str, str]:
    """What MLflow's tables show: the facts and the declaration, where they are short; the record has them whole."""
    flat = {"model": draft.model, **{f"spec.{name}": value for name, value in draft.spec.items()}, **draft.facts}
    texts = {name: value if isinstance(value, str) else json.dumps(value, default=str) for name, value in flat.items()
             if value is not None}
    return {name: text for name, text in texts.items() if len(text) <= PARAM_CHARS_MAX}
