"""A small world with a loop in it: readings, predictions, late labels, windows of a day, and a change of regime.

`World` runs the real thing: three data flows by `headrace run`, and `headrace loop run`, each with its own processes.
Numbers are chosen so that a training takes seconds and a change of regime is beyond doubt.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pyarrow as pa
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from headrace import codec
from headrace.batch import Batch, Frames, Meta, Span
from headrace.control import ControlEvent, Retrain, RetrainResult, Switch, Verdict
from headrace.loop.models import ModelStore, open_registry
from headrace.loop.steps import Said, batch_of, events_of
from headrace.loopview import topic_of
from headrace.loopview.word import word
from headrace.registry import Registry
from headrace.settings import Settings
from tests.committed import committed_records

Event = TypeVar("Event", bound=ControlEvent)
Row = dict[str, Any]

T0_MS = 1_767_225_600_000  # 2026-01-01, UTC
DAY_MS, MINUTE_MS = 86_400_000, 60_000
A_DAY = 240
"""Readings a day."""
FIRST = 6
"""Days of the first regime."""
PATIENCE_S = 240.0  # on a machine that others use, MLflow alone takes half a minute to load
READING = [{"name": "id", "type": "long"}, {"name": "x", "type": "double"}, {"name": "z", "type": "double"},
           {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]
PREDICTED = [{"name": name, "type": ["null", kind]} for name, kind in (
    ("p", "double"), ("model_version", "string"), ("p_bird", "double"), ("bird_version", "string"))]
LABEL = [{"name": "known_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
         {"name": "y", "type": "boolean"}]
SCHEMAS = {"reading": READING, "scored": [*READING, *PREDICTED], "label": [READING[0], *LABEL],
           "labelled": [*READING, *PREDICTED, *LABEL]}
SCORE = """
flow: score-{u}
control: {control}
owner: tests
source:
  kafka: {{topic: {u}.readings, schema: reading, partitions: 1, retention_ms: -1, key: id}}
steps:
  score: {{predict: {{model: auto, as: p, missing: "null", key: id}}}}
  bird: {{predict: {{model: bird, as: p_bird, version_as: bird_version, missing: "null", key: id}}}}
sinks:
  {u}.scored: {{kafka: {{schema: scored, key: id, partitions: 1, retention_ms: -1}}, from: bird}}
  {u}.readings.quarantine: {{quarantine: {{}}}}
"""
MEET = """
flow: meet-{u}
control: {control}
owner: tests
sources:
  scored: {{kafka: {{topic: {u}.scored, schema: scored, partitions: 1, retention_ms: -1, key: id}}}}
  labels: {{kafka: {{topic: {u}.labels, schema: label, partitions: 1, retention_ms: -1, key: id}}}}
steps:
  meet:
    from: [scored, labels]
    join: {{on: id, time: {{left: at, right: known_at}}, within: 6h, late: 1h, take: [known_at, y]}}
sinks:
  {u}.labelled: {{from: meet, kafka: {{schema: labelled, key: id, partitions: 1, retention_ms: -1}}}}
  {u}.lost: {{from: [meet.unmatched, meet.late], kafka: {{key: id}}}}
  {u}.strays: {{from: [meet.unmatched_right, meet.late_right], kafka: {{key: id}}}}
  {u}.meet.quarantine: {{from: [scored.reject, labels.reject], quarantine: {{}}}}
"""
WATCH = """
flow: watch-{u}
control: {control}
owner: tests
source:
  kafka: {{topic: {u}.labelled, schema: labelled, partitions: 1, retention_ms: -1, key: id}}
steps:
  watch:
    monitor:
      model: auto
      window: {{time: 1d, on: known_at, late: 1h}}
      label: y
      score: p
      quality: {{bad: "x IS NULL", rows_min: 50}}
      drift: {{psi_min: 0.5, rows_min: 100}}
      performance: {{drop: 0.05, labels_min: 100}}
sinks:
  {control}.verdicts: {{from: watch, kafka: {{schema: control/verdicts, partitions: 1, retention_ms: -1}}}}
  {u}.labelled.quarantine: {{quarantine: {{}}}}
models: {models}
"""
LEARN = {"target": "y", "numeric": ["x", "z"], "time": "at", "known_at": "known_at", "recent_days": 3,
         "candidates": ["all", "recent"], "params": {"min_samples_leaf": 20, "max_iter": 10},
         "holdout": {"days": 28, "every": 2}}
POLICY = {"windows_bad": 2, "windows_seen": 3, "labels_min": 300, "labels_per_class_min": 50, "cool_down_days": 0,
          "triggers_per_day_max": 100}
GATE = {"value_min": 0.55, "rows_min": 100, "class_rows_min": 20, "resamples": 50}


def model(**parts: Mapping[str, Any]) -> dict[str, Any]:
    """A model's declaration; what is said of a part is added to it."""
    usual: dict[str, dict[str, Any]] = {"learn": LEARN, "policy": POLICY, "gate": GATE, "rollout": {}, "train": {}}
    return {name: {**held, **parts.get(name, {})} for name, held in usual.items()}


def readings(first_day: int, days: int, regime: int) -> list[Row]:
    """Whole days of readings. The second regime has other inputs, and they mean the opposite."""
    n, start = days * A_DAY, first_day * A_DAY
    chance = np.random.default_rng(first_day)
    x, z = chance.normal(4.0 * regime, 1.0, n), chance.normal(0.0, 1.0, n)
    return [{"id": start + i, "x": float(x[i]), "z": float(z[i]),
             "at": T0_MS + first_day * DAY_MS + i * DAY_MS // A_DAY} for i in range(n)]


def labels(rows: Sequence[Row], regime: int) -> list[Row]:
    """A label comes after half an hour, give or take ten minutes: so not in the order of the readings, and those of a
    day's end with the next day's."""
    chance = np.random.default_rng(rows[0]["id"] + 1)
    noise, after = chance.normal(0, 0.4, len(rows)), chance.integers(20, 40, len(rows))
    made = [{"id": row["id"], "known_at": row["at"] + int(after[i]) * MINUTE_MS,
             "y": bool((row["x"] - 4.0 * regime + 0.3 * row["z"] + noise[i] > 0) != (regime == 1))}
            for i, row in enumerate(rows)]
    heard = [each["known_at"] + int(noise[i] * 8) * MINUTE_MS for i, each in enumerate(made)]
    return [made[i] for i in np.argsort(heard, kind="stable").tolist()]


class World:
    """Its flows in a project folder, its processes, and eyes to see what they wrote."""

    def __init__(self, settings: Settings, folder: Path, models: Mapping[str, Any]) -> None:
        self.u = f"w{uuid.uuid4().hex[:8]}"
        self.control = f"headrace.{self.u}"
        self.settings = replace(settings, project=folder)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("flows", "schemas"):
            (folder / name).mkdir(exist_ok=True)
        for name, fields in SCHEMAS.items():
            (folder / f"schemas/{name}.avsc").write_text(
                json.dumps({"type": "record", "name": name.title(), "fields": fields}))
        said = {"u": self.u, "control": self.control, "models": json.dumps(models)}
        for name, text in (("score", SCORE), ("meet", MEET), ("watch", WATCH)):
            (folder / f"flows/{name}.yaml").write_text(text.format(**said))
        self._registry = Registry(settings.registry_client())
        self._ids: dict[str, int] = {}

    # processes

    def start(self, name: str, *arguments: str) -> None:
        """A headrace command; its log is <name>.log in the project."""
        where = {"HEADRACE_BOOTSTRAP": self.settings.bootstrap or "",
                 "HEADRACE_REGISTRY": self.settings.registry_url or ""}
        with (self.settings.project / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "headrace", *arguments], cwd=self.settings.project, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env={**os.environ, **where})

    def begin(self) -> None:
        """Everything: the topics, the data flows, the loop."""
        self.start("data", "run", "score", "meet", "watch")
        self.start("loop", "loop", "run", "watch")
        wanted = {f"{self.control}.{name}" for name in ("verdicts", "retrain", "retrain.results", "models", "audit")}
        wanted |= {f"{self.u}.{name}" for name in ("readings", "labels", "scored", "labelled")}
        from headrace.topics import existing

        self.until(lambda: wanted <= set(existing(self.settings)), "all topics")

    def stop(self) -> None:
        """End what is left, and forget its topics."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for process in psutil.process_iter(["cmdline"]):  # runners and trainings outlive the loop by design
            if any(str(self.settings.project) in part for part in process.info["cmdline"] or ()):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self._registry.client.__exit__(None, None, None)
        admin = AdminClient(self.settings.client())
        mine = [name for name in admin.list_topics(timeout=30).topics if self.u in name]
        for done in admin.delete_topics(mine).values():
            done.exception(30)

    def alive(self) -> None:
        for name, process in self.processes.items():
            assert process.poll() is None, f"{name} ended with {process.returncode}:\n{self.log(name)}"

    def log(self, name: str, characters: int = 3_000) -> str:
        return (self.settings.project / f"{name}.log").read_text(errors="replace")[-characters:]

    def until(self, true: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
        """What `true` gives once it is true."""
        end = time.monotonic() + seconds
        while not (found := true()):
            self.alive()
            if time.monotonic() > end:
                logs = "".join(f"\n{name}: …{self.log(name)}" for name in self.processes)
                raise AssertionError(f"{what} did not come in {seconds:g} s:{logs}")
            time.sleep(0.5)
        return found

    # writing

    def write(self, topic: str, schema: codec.AvroSchema, rows: Sequence[Row], keys: Sequence[bytes],
              transactional: str | None = None) -> None:
        """Rows to a topic, in order; in one transaction where an id is given."""
        if topic not in self._ids:
            self._ids[topic] = self._registry.register(f"{topic}-value", schema)
        batch = pa.RecordBatch.from_pylist(list(rows), schema=schema.arrow)
        values = codec.Encoder(schema, schema.arrow, self._ids[topic]).encode(batch)
        conf = {"transactional_id": transactional} if transactional else {"enable_idempotence": True}
        producer = Producer(self.settings.client(**conf))
        if transactional:
            producer.init_transactions(30)
            producer.begin_transaction()
        for key, value in zip(keys, values, strict=True):
            producer.produce(topic, value, key)
        if transactional:
            producer.commit_transaction(30)
        assert producer.flush(60) == 0

    def produce(self, name: str, rows: Sequence[Row]) -> None:
        """Rows of a data topic: readings, labels."""
        schema = codec.parse((self.settings.project / f"schemas/{name.removesuffix('s')}.avsc").read_text())
        self.write(f"{self.u}.{name}", schema, rows, [str(row["id"]).encode() for row in rows])

    def send(self, *events: Verdict | Retrain | Switch, transactional: str | None = None) -> None:
        """Control events, to where they belong."""
        kinds: dict[type[Verdict | Retrain | Switch], None] = dict.fromkeys(map(type, events))
        for kind in kinds:
            said = [Said(each, (each.model or "").encode(), Span("", 0, 0, 0)) for each in events if type(each) is kind]
            rows = batch_of(said, kind.schema().arrow).rows.to_pylist()
            self.write(topic_of(self.control, kind), kind.schema(), rows, [each.key for each in said], transactional)

    def say(self, about: str, name: str, version: str | None = None, **more: Any) -> Verdict:
        """A person's word on a model."""
        said = replace(word(about, name, version, f"{about} it", "ada"), **more)
        self.send(said)
        return said

    def live(self, first_day: int, days: int, regime: int) -> None:
        """Days go by: readings are predicted, then their labels come."""
        rows = readings(first_day, days, regime)
        before = self.count("scored")
        self.produce("readings", rows)
        self.until(lambda: self.count("scored") == before + len(rows), "predictions of all readings")
        self.produce("labels", labels(rows, regime))

    # reading

    def records(self, topic: str) -> list[Any]:
        """What a read_committed reader finds, in order."""
        return sorted(committed_records(self.settings, topic), key=lambda m: (m.partition(), m.offset()))

    def rows(self, name: str) -> list[Row]:
        """The rows of a data topic."""
        schema = codec.parse((self.settings.project / f"schemas/{name.removesuffix('s')}.avsc").read_text()) \
            if name != "scored" else codec.parse((self.settings.project / "schemas/scored.avsc").read_text())
        found = codec.Decoder(schema, self._registry.schema).decode([
            m.value() for m in self.records(f"{self.u}.{name}")])
        assert not found.rejects
        rows: list[Row] = found.rows.to_pylist()
        return rows

    def count(self, name: str) -> int:
        return len(self.records(f"{self.u}.{name}"))

    def events(self, kind: type[Event], **wanted: Any) -> list[Event]:
        """All events of a kind, each as often as it is there; those that have these values."""
        messages = self.records(topic_of(self.control, kind))
        found = codec.Decoder(kind.schema(), self._registry.schema).decode([m.value() for m in messages])
        assert not found.rejects
        if not len(found.rows):
            return []
        events = (event for event, _ in events_of(Batch(found.rows, Meta(Frames(messages))), kind))
        return [event for event in events if all(getattr(event, name) == value for name, value in wanted.items())]

    def verdicts(self, name: str, about: str) -> list[Verdict]:
        return self.events(Verdict, model=name, about=about)

    def requests(self, name: str) -> list[Retrain]:
        return self.events(Retrain, model=name)

    def results(self, trigger: str) -> list[RetrainResult]:
        return self.events(RetrainResult, trigger=trigger)

    def switches(self, name: str) -> list[Switch]:
        return self.events(Switch, model=name)

    def answered(self, trigger: str, about: str = "gate") -> Verdict:
        """The verdict on a request, once it is there."""
        found: list[Verdict] = self.until(lambda: self.events(Verdict, trigger=trigger), "a verdict on a request")
        assert [each.about for each in found] == [about], [each.reasons for each in found]
        return found[0]

    def store(self) -> ModelStore:
        return open_registry(None, self.settings.project)

    def runs(self, name: str, trigger: str) -> list[str]:
        """The status of every MLflow run of a trigger."""
        client = self.store().client
        experiment = client.get_experiment_by_name(name)
        found = client.search_runs([experiment.experiment_id], f"tags.trigger_id = '{trigger}'") if experiment else []
        return [run.info.status for run in found]

    def windows(self, of: str, to: str) -> None:
        """The windows that were judged for one model, said of another one, too."""
        said = [each for about in ("quality", "drift", "performance") for each in self.verdicts(of, about)]
        self.send(*(replace(each, id=f"{each.id}/{to}", model=to, version=None, ok=True) for each in said))


def moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


@contextlib.contextmanager
def world(settings: Settings, folder: Path, models: Mapping[str, Any]) -> Iterator[World]:
    """A world that has begun, and ends."""
    made = World(settings, folder, models)
    try:
        made.begin()
        yield made
    finally:
        made.stop()
