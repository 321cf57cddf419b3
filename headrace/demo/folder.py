"""A run's own folder: a project with copies of the demo's flows, whose topics and groups bear the run's name.

    .headrace/demo/<run>/flows/<act>/*.yaml    the flows, renamed: see `stage`
    .headrace/demo/<run>/schemas/              as in the project
    .headrace/demo/<run>/.headrace/            state, models and trainings of the loop
    .headrace/demo/<run>/headrace.toml         as in the project, if it has one: the cluster's properties
    .headrace/demo/<run>/logs/                 of the workers, JSON
    .headrace/demo/<run>/run.json              the topics it made, so that the next run can delete them

Fresh names rather than deleted topics: on a cluster of the user's own, `flights.departures` may be somebody else's.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import UserError
from headrace.resources import content

if TYPE_CHECKING:
    from headrace.plan import Plan, SinkPlan
    from headrace.settings import Settings

FLOWS = ("departures", "arrivals")
DELETE_S = 30.0
SHARED = frozenset({"headrace.alerts"})
"""Where applications listen for events; the story raises its own there."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A flow as one act runs it."""

    act: str
    flow: str
    group: str
    plan: Plan

    @property
    def source(self) -> str:
        return self.plan.source.config.topic

    @property
    def path(self) -> Path:
        return self.plan.path

    @property
    def quarantine(self) -> str:
        return next(sink.name for sink in self.plan.sinks if sink.kind == "quarantine")

    @property
    def outputs(self) -> list[str]:
        """The topics with the records that passed; each source record is in one of them, or in the quarantine."""
        return [sink.name for sink in self.plan.sinks if sink.kind == "kafka" and not self._events(sink)]

    @property
    def alerts(self) -> list[str]:
        """The topics with the events it raises."""
        return [sink.name for sink in self.plan.sinks if self._events(sink)]

    def _events(self, sink: SinkPlan) -> bool:
        steps = {step.name: step.kind for step in self.plan.steps}
        return any(steps.get(edge.step) == "trigger" for edge in sink.inputs)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the demo: its name, and its folder."""

    name: str
    folder: Path

    @property
    def mlflow_uri(self) -> str:
        """The run's own model registry, whichever the project has: a trigger's id comes of its cause, so that a second
        run would find the models of the first."""
        return f"sqlite:///{self.folder.resolve()}/.headrace/mlflow/mlflow.db"

    def stage(self, flow: str, act: str, *, source: str, sinks: str, keep: frozenset[str] = frozenset()) -> Staged:
        """The flow, with `source` put behind its source topic's name and `sinks` behind those of its sinks."""
        from ruamel.yaml import YAML

        from headrace.plan import load

        yaml = YAML()
        yaml.width = 120
        written = yaml.load((self.folder / "flows" / f"{flow}.yaml").read_text())
        written["source"]["kafka"]["topic"] += source

        def renamed(topic: str) -> str:
            return topic if topic in keep else topic + sinks

        written["sinks"] = {renamed(topic): sink for topic, sink in written["sinks"].items()}
        written["dead_letter"] = f"{flow}.dead-letter{sinks}"
        for test in written.get("tests", ()):
            test["expect"] = {renamed(topic): expected for topic, expected in test["expect"].items()}
        path = self.folder / "flows" / act / f"{flow}.yaml"
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as opened:
            yaml.dump(written, opened)
        return Staged(act, flow, f"headrace.{flow}.{self.name}.{act}", load(path, self.folder))

    def remember(self, staged: Sequence[Staged], settings: Settings, more: Sequence[str] = ()) -> None:
        """Note the topics this run makes."""
        topics = {*(topic.name for each in staged for topic in each.plan.topics), *more} - SHARED
        note = {"bootstrap": settings.bootstrap, "topics": sorted(topics)}
        (self.folder / "run.json").write_text(json.dumps(note, indent=1))


@contextmanager
def new_run(project: Path) -> Iterator[Run]:
    """A fresh run of `project`, alone in it. Its flows are the project's, else headrace's own. Raises UserError."""
    home = project / ".headrace" / "demo"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another demo is running in {project}", hint="wait for its end, or run in another folder"
                            ) from error
        name = secrets.token_hex(2)
        folder = home / name
        own = (project / "flows" / "departures.yaml").is_file()
        for part in ("flows", "schemas"):
            shutil.copytree(content(part), folder / part)
            if own and (project / part).is_dir():
                shutil.copytree(project / part, folder / part, dirs_exist_ok=True)
        if (project / "headrace.toml").is_file():
            shutil.copy(project / "headrace.toml", folder)
        (folder / "logs").mkdir()
        yield Run(name, folder)


def forget_older(project: Path, settings: Settings, keep: Run) -> int:
    """Delete the topics and folders of earlier runs on this cluster; how many runs they were."""
    older = [path for path in (project / ".headrace" / "demo").iterdir() if path.is_dir() and path != keep.folder]
    notes = {path: _note(path) for path in older}
    mine = {path: note["topics"] for path, note in notes.items() if note["bootstrap"] in (settings.bootstrap, None)}
    if not mine:
        return 0
    from headrace.topics import admin, existing

    there = set(existing(settings))
    gone = [topic for topics in mine.values() for topic in topics if topic in there]
    if gone:
        client = admin(settings)  # kept in a name: without its client a future never comes
        for done in client.delete_topics(gone).values():
            done.exception(DELETE_S)  # somebody else may have deleted it
    for path in mine:
        shutil.rmtree(path)
    return len(mine)


def _note(run: Path) -> dict[str, Any]:
    """What a run remembered; one that ended before it made a topic remembered nothing."""
    file = run / "run.json"
    return json.loads(file.read_text()) if file.is_file() else {"bootstrap": None, "topics": []}
