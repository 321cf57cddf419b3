"""The trainer on real Kafka ranges: from an event to registered versions, once, whatever happens to it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace import codec
from headrace.batch import Span
from headrace.control import Retrain, RetrainResult, digest, to_ranges
from headrace.errors import UserError
from headrace.loop.data import POSITION, Data, merged, overlap, read
from headrace.loop.models import ModelStore, open_registry
from headrace.loop.train import main, parts_of, spec_of, train
from headrace.loop.training import ModelSpec
from headrace.registry import Registry
from headrace.settings import Settings
from tests.integration.held import encode, write

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

Topic = Callable[..., str]
ROOT = Path(__file__).resolve().parents[2]
AT = datetime(2013, 3, 1, tzinfo=UTC)
AT_MS = int(AT.timestamp() * 1000)
PARTITIONS, ROWS, DAY_MS = 2, 3_000, 86_400_000
FIELDS: list[dict[str, Any]] = [
    {"name": "distance", "type": "double"}, {"name": "carrier", "type": ["null", "string"]},
    {"name": "late", "type": ["null", "boolean"]}, {"name": "arrived_at", "type": {"type": "long",
                                                                                  "logicalType": "timestamp-millis"}}]
SCHEMA = codec.parse(json.dumps({"type": "record", "name": "Labelled", "fields": FIELDS}))
NEWER = codec.parse(json.dumps({"type": "record", "name": "Labelled", "fields": [
    *FIELDS, {"name": "hour", "type": "int", "default": 12}]}))
SPEC = {"target": "late", "numeric": ["distance"], "categorical": ["carrier"], "time": "arrived_at",
        "known_at": "arrived_at", "candidates": ["all", "weighted"], "params": {"min_samples_leaf": 20}}


def flights(n: int, seed: int = 7, **more: Any) -> list[dict[str, Any]]:
    """Flights whose lateness hangs on distance and carrier; a twentieth have no label."""
    chance = np.random.default_rng(seed)
    distance, carrier = chance.normal(1000, 400, n), chance.choice(["AA", "B6", "UA"], n)
    late = (distance + 500 * (carrier == "B6") + chance.normal(0, 200, n)) > 1200
    return [{"distance": float(distance[i]), "carrier": str(carrier[i]), "late": None if i % 20 == 3 else bool(late[i]),
             "arrived_at": AT_MS - 1_000 * (n - i), **more} for i in range(n)]


def moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def filled(settings: Settings, topic: Topic, rows: list[dict[str, Any]] | None = None) -> str:
    """A topic of labelled flights, in turn over its partitions."""
    name = topic("labelled", PARTITIONS, retention_ms=-1)
    values = [{**row, "arrived_at": moment(row["arrived_at"])} for row in rows or flights(ROWS)]
    write(settings, name, encode(settings, name, values, SCHEMA), partitions=PARTITIONS)
    return name


def request(topic: str, *, cause: int = 1, rows: int = ROWS, **more: Any) -> Retrain:
    """Train on the first two thirds of each partition, hold out the rest."""
    each = rows // PARTITIONS
    cut = 2 * each // 3
    train_on = [Span(topic, p, 0, cut - 1) for p in range(PARTITIONS)]
    apart = [Span(topic, p, cut, each - 1) for p in range(PARTITIONS)]
    said: dict[str, Any] = {
        "id": digest(topic, cause), "at": AT, "flow": "learn", "step": "policy", "topic": topic, "partition": 0,
        "window": cause, "offset_first": 0, "offset_last": cut - 1, "window_start": None, "window_end": None,
        "measure": "volume", "condition": None, "rows": rows, "matched": rows, "observed": 1.0, "threshold": 1.0,
        "model": "flight-delay", "reason": "a test", "ranges": to_ranges(train_on), "holdout": to_ranges(apart),
        "champion": None, "spec": json.dumps(SPEC)}
    return Retrain(**{**said, **more})


def start(settings: Settings, asked: Retrain, **env: str) -> subprocess.Popen[str]:
    """The trainer as a process of its own."""
    file = settings.project / f"{asked.id[:12]}.json"
    file.write_text(asked.to_json())
    return subprocess.Popen(
        [sys.executable, "-m", "headrace.loop.train", "--request", str(file), "--result", str(result_file(settings)),
         "--project", str(settings.project)], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **env})


def result_file(settings: Settings) -> Path:
    return settings.project / "result.json"


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a trainer printed last, after it ended well."""
    out, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def runs(store: ModelStore, trigger: str) -> list[Any]:
    experiment = store.client.get_experiment_by_name("flight-delay")
    if experiment is None:
        return []
    return list(store.client.search_runs([experiment.experiment_id], f"tags.trigger_id = '{trigger}'"))


@pytest.fixture
def store(project: Settings, stores: Path) -> ModelStore:
    """The project's own embedded store, copied from an empty one: its tables take seconds to make."""
    shutil.copytree(stores / ".headrace", project.project / ".headrace")
    return open_registry(None, project.project)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    open_registry(None, folder)
    return folder


def test_from_an_event_to_a_registered_version(project: Settings, store: ModelStore, topic: Topic) -> None:
    """The process as a dispatcher starts it."""
    (project.project / "requirements.lock").write_text("scikit-learn==1.9.1\n")
    asked = request(filled(project, topic))
    said = finished(start(project, asked, HEADRACE_IMAGE_DIGEST="sha256:abc", HEADRACE_GIT_COMMIT="0123abcd"))
    assert said == json.loads(result_file(project).read_text())
    kind = said.pop("kind")
    result = RetrainResult(**{**said, **{name: datetime.fromisoformat(said[name]) for name in ("at", "asked_at")}})
    assert (kind, result.status, result.trigger, result.champion) == ("result", "succeeded", asked.id, None)
    assert result.id == digest(asked.id, "succeeded")
    assert result.asked_at == AT
    assert (result.candidates, result.version) == ({"all": "1", "weighted": "2"}, "1")
    assert (result.ranges, result.holdout) == (asked.ranges, asked.holdout)
    assert result.metrics["all.auc"] > 0.8
    assert (result.image_digest, result.git_commit) == ("sha256:abc", "0123abcd")
    assert result.lock_digest == hashlib.sha256(b"scikit-learn==1.9.1\n").hexdigest()
    assert (result.cpu_s or 0) > 0.1
    assert (result.peak_bytes or 0) > 50_000_000
    RetrainResult.schema()  # the result is a record of its topic
    pa.RecordBatch.from_pylist([result.to_record()], schema=RetrainResult.schema().arrow)

    loaded = store.load("flight-delay", "1")
    assert loaded.features == ("carrier", "distance")
    rows = 2 * (2 * ROWS // PARTITIONS // 3)
    assert sum(loaded.reference["drift"]["carrier"]["counts"]) == loaded.reference["rows"] == rows
    assert loaded.reference["baseline"]["auc"] == result.metrics["all.auc"]
    assert len(loaded.reference["calibration"]["scores"]) > 3
    logged = store.logged(asked.id, "flight-delay")
    assert logged is not None
    data = read(project, asked.spans())
    assert logged.facts["data_digest"] == result.data_digest == data.digest
    assert logged.facts["schema_ids"] == list(data.schema_ids)
    assert logged.facts["rows"] == data.rows.num_rows == rows
    assert logged.spec == ModelSpec.model_validate({"name": "flight-delay", **SPEC}).model_dump(mode="json")


def test_again_it_is_the_same(project: Settings, store: ModelStore, topic: Topic) -> None:
    """The same request a second time gives the same result and nothing new; the same data in another request gives
    a model that predicts the same, bit by bit."""
    asked = request(filled(project, topic))
    first = train(asked, project)
    assert train(asked, project) == first
    other = train(request(str(asked.topic), cause=2), project)
    assert (other.candidates, other.data_digest) == ({"all": "3", "weighted": "4"}, first.data_digest)
    one, two = (store.logged(each.trigger, "flight-delay") for each in (first, other))
    assert one is not None
    assert two is not None
    assert one.facts["predictions"] == two.facts["predictions"]
    rows = read(project, asked.spans()).rows
    np.testing.assert_array_equal(store.load("flight-delay", "1").predict(rows),
                                  store.load("flight-delay", "3").predict(rows))


def test_a_planted_leak_is_refused(project: Settings, store: ModelStore, topic: Topic) -> None:
    """Two labels that arrived after the request, one among the rows to train on, one in the holdout."""
    rows = flights(ROWS)
    rows[100]["arrived_at"] = AT_MS + 1
    asked = request(filled(project, topic, rows))
    process = start(project, asked)
    out, told = process.communicate(timeout=120)
    assert process.returncode == 2
    assert f"{asked.topic}/0@50" in told
    said = json.loads(out.splitlines()[-1])
    assert (said["status"], said["id"]) == ("refused", digest(asked.id, "refused"))
    assert f"{asked.topic}/0@50" in said["reason"]
    assert runs(store, asked.id) == []
    train(replace(asked, at=moment(AT_MS + 1)), project)  # a millisecond later it was known

    rows = flights(ROWS)
    rows[ROWS - 1]["arrived_at"] = AT_MS + 1
    asked = request(filled(project, topic, rows))
    with pytest.raises(UserError, match=f"{asked.topic}/1@{ROWS // 2 - 1}"):
        train(asked, project)


def test_the_holdout_is_not_trained_on(project: Settings, store: ModelStore, topic: Topic) -> None:
    asked = request(filled(project, topic))
    both = replace(asked, holdout=[*asked.holdout, {"topic": asked.topic, "partition": 0, "offset_first": 7,
                                                    "offset_last": 9}])
    with pytest.raises(UserError, match=rf"{asked.topic}/0@7-9 are in both"):
        train(both, project)


def test_days_held_out_after_the_champion(project: Settings, store: ModelStore, topic: Topic) -> None:
    """A request without ranges for a holdout: whole days are held out as the spec says, and none that the champion
    was trained on."""
    rows = flights(ROWS)
    for i, row in enumerate(rows):
        row["arrived_at"] = AT_MS - (ROWS - i) * 60 * DAY_MS // ROWS  # sixty days up to the request
    name = filled(project, topic, rows)
    first = train(request(name, holdout=[], ranges=[{"topic": name, "partition": p, "offset_first": 0,
                                                     "offset_last": ROWS // 4 - 1} for p in range(PARTITIONS)],
                          at=moment(AT_MS - 30 * DAY_MS)), project)
    asked = request(name, cause=2, holdout=[], champion=first.version, ranges=[
        {"topic": name, "partition": p, "offset_first": 0, "offset_last": ROWS // 2 - 1} for p in range(PARTITIONS)])
    parts = parts_of(asked, spec_of(asked), project, store)
    days = {at // DAY_MS for at in parts.held["arrived_at"].cast(pa.int64()).to_pylist()}
    assert days == {day for day in range(AT_MS // DAY_MS - 28, AT_MS // DAY_MS) if day % 4 == 0}
    assert min(parts.held["arrived_at"].to_pylist()) > moment(AT_MS - 30 * DAY_MS)
    assert not days & {at // DAY_MS for at in parts.train["arrived_at"].cast(pa.int64()).to_pylist()}
    assert parts.train.num_rows + parts.held.num_rows == sum(row["late"] is not None for row in rows)
    second = train(asked, project)
    assert second.metrics["all.labels"] == parts.held.num_rows
    assert second.holdout == []


@pytest.mark.parametrize(("spec", "what"), [
    ("{", "does not declare a model"), ('{"target": "late"}', "does not declare a model"),
    (json.dumps({**SPEC, "name": "another"}), "its spec declares another"),
    (json.dumps({**SPEC, "numeric": ["distance", "nowhere"]}), "lack the features nowhere"),
    (json.dumps({**SPEC, "target": "distance > 5"}), "made of distance")])
def test_a_wrong_spec(project: Settings, store: ModelStore, topic: Topic, spec: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        train(replace(request(filled(project, topic, flights(300)), rows=300), spec=spec), project)


def test_killed_again_and_again(project: Settings, store: ModelStore, topic: Topic) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    print(f"seed {seed}")
    asked = request(filled(project, topic))
    states: list[str] = []
    for at in range(5):
        trainer = start(project, asked)
        assert trainer.stderr is not None
        if at:  # near its end, where it matters most; the first anywhere
            next(line for line in trainer.stderr if line.startswith("fitted"))
            time.sleep(chance.uniform(0.0, 1.0))
        else:
            time.sleep(chance.uniform(0.0, 3.0))
        trainer.send_signal(signal.SIGKILL)
        trainer.communicate()
        states.append("/".join(run.info.status for run in runs(store, asked.id)) or "none")
    said = finished(start(project, asked))
    print(f"after each kill: {states}")
    found = runs(store, asked.id)
    assert [(run.info.run_id, run.info.status) for run in found] == [(said["mlflow_run"], "FINISHED")], f"seed {seed}"
    mine = [each for each in store.versions("flight-delay") if each.trigger == asked.id]
    assert {str(each.candidate): each.version for each in mine} == said["candidates"], f"seed {seed}"
    assert len(mine) == 2


def test_twice_at_once(project: Settings, store: ModelStore, topic: Topic) -> None:
    asked = request(filled(project, topic))
    one, two = [finished(each) for each in [start(project, asked), start(project, asked)]]
    assert one == two
    assert len(runs(store, asked.id)) == 1
    assert len(store.versions("flight-delay")) == 2


@pytest.mark.parametrize(("text", "what"), [
    ("{", "no retrain request"), ('{"id": "x"}', "no retrain request"), (None, "cannot be read")])
def test_a_wrong_request(project: Settings, capsys: pytest.CaptureFixture[str], text: str | None, what: str) -> None:
    file = project.project / "request.json"
    if text is not None:
        file.write_text(text)
    assert main(["--request", str(file), "--result", str(result_file(project)), "--project", str(project.project)]) == 2
    assert what in capsys.readouterr().err
    assert not result_file(project).exists()


def test_no_broker(project: Settings, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_BOOTSTRAP", "127.0.0.1:9")
    file = project.project / "request.json"
    file.write_text(request("nothing").to_json())
    assert main(["--request", str(file), "--result", str(result_file(project)), "--project", str(project.project)]) == 3
    assert json.loads(result_file(project).read_text())["status"] == "failed"


# What the trainer reads


def offsets(data: Data) -> list[tuple[int, int]]:
    return list(zip(data.rows["__partition"].to_pylist(), data.rows["__offset"].to_pylist(), strict=True))


def test_exactly_the_ranges(project: Settings, topic: Topic) -> None:
    name = filled(project, topic, flights(200))
    spans = [Span(name, 1, 90, 99), Span(name, 0, 5, 5), Span(name, 0, 10, 19), Span(name, 0, 15, 24)]
    data = read(project, spans)
    assert offsets(data) == [(0, n) for n in (5, *range(10, 25))] + [(1, n) for n in range(90, 100)]
    assert set(data.rows["__topic"].to_pylist()) == {name}
    assert (data.rows.column_names[-3:], data.gaps) == (list(POSITION), 0)
    assert data.spans == (Span(name, 0, 5, 5), Span(name, 0, 10, 24), Span(name, 1, 90, 99))
    whole = read(project, [Span(name, p, 0, 99) for p in (0, 1)]).rows
    assert data.rows.slice(0, 1).equals(whole.slice(5, 1))
    assert whole["distance"].to_pylist() == [row["distance"] for p in (0, 1) for row in flights(200)[p::2]]


def test_the_digest_is_of_the_records(project: Settings, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of how they were read; and another payload, or another offset, gives another one."""
    rows = flights(400)
    name = filled(project, topic, rows)
    spans = [Span(name, 0, 0, 99), Span(name, 1, 0, 99)]
    first = read(project, spans).digest
    monkeypatch.setattr("headrace.loop.data.BATCH_RECORDS", 7)
    pieces = [Span(name, 1, 40, 99), Span(name, 0, 0, 30), Span(name, 0, 31, 99), Span(name, 1, 0, 60)]
    again = read(project, pieces)
    assert again.digest == first
    assert again.rows.num_rows == 200
    assert read(project, [Span(name, 0, 0, 99), Span(name, 1, 1, 100)]).digest != first
    assert read(project, [Span(name, 0, 0, 99), Span(name, 1, 0, 98)]).digest != first


def test_transactions(project: Settings, topic: Topic) -> None:
    """Markers and aborted records are gaps; also where the range ends in them, and where the log does."""
    name = topic("labelled", 1)
    values = encode(project, name, [{**row, "arrived_at": AT} for row in flights(30)], SCHEMA)
    producer = Producer(project.client(transactional_id=name))
    producer.init_transactions(20)
    for first, commit in ((0, True), (10, False), (20, True)):  # offsets 0-9, 10 marker, 11-20, 21 marker, 22-31, 32
        producer.begin_transaction()
        for value in values[first:first + 10]:
            producer.produce(name, value)
        producer.flush(60)  # an abort forgets what was not sent
        (producer.commit_transaction if commit else producer.abort_transaction)(20)
    data = read(project, [Span(name, 0, 0, 32)])
    assert (offsets(data), data.gaps) == ([(0, n) for n in (*range(10), *range(22, 32))], 13)
    assert (offsets(read(project, [Span(name, 0, 5, 15)]))) == [(0, n) for n in range(5, 10)]
    with pytest.raises(UserError, match=rf"no record is left in {name}/0@11-20"):
        read(project, [Span(name, 0, 11, 20)])


def test_what_is_not_there(project: Settings, topic: Topic) -> None:
    name = filled(project, topic, flights(200))
    with pytest.raises(UserError, match=rf"{name}/0@90-100: {name}/0 ends before offset 100"):
        read(project, [Span(name, 0, 90, 100)])
    with pytest.raises(UserError, match="has partitions 0 to 1"):
        read(project, [Span(name, 2, 0, 1)])
    admin = AdminClient(project.client())
    for done in admin.delete_records([TopicPartition(name, 0, 40)]).values():
        done.result(60)
    with pytest.raises(UserError, match=rf"{name}/0@39-50: these records are not there any more; it begins at .* 40"):
        read(project, [Span(name, 0, 39, 50)])
    assert read(project, [Span(name, 0, 40, 50)]).rows.num_rows == 11


def test_what_cannot_be_decoded_is_named(project: Settings, topic: Topic) -> None:
    name = topic("labelled", 1)
    values: list[bytes | None] = list(encode(project, name, [{**row, "arrived_at": AT} for row in flights(20)], SCHEMA))
    values[3], values[7], values[11] = None, b"text", (values[11] or b"")[:9]
    write(project, name, values)
    with pytest.raises(UserError, match=rf"3 records cannot be trained on: {name}/0@3.*{name}/0@7.*{name}/0@11"):
        read(project, [Span(name, 0, 0, 19)])
    assert read(project, [Span(name, 0, 12, 19)]).rows.num_rows == 8


def test_records_of_two_schemas(project: Settings, topic: Topic) -> None:
    """Older records are read as the newer schema says."""
    name = topic("labelled", 1)
    old = encode(project, name, [{**row, "arrived_at": AT} for row in flights(5)], SCHEMA)
    new = encode(project, name, [{**row, "arrived_at": AT} for row in flights(5, hour=7)], NEWER)
    write(project, name, [*old, *new])
    data = read(project, [Span(name, 0, 0, 9)])
    assert data.rows["hour"].to_pylist() == [12] * 5 + [7] * 5
    registry = Registry(project.registry_client())
    assert data.schema_ids == tuple(sorted(registry.register(f"{name}-value", each) for each in (SCHEMA, NEWER)))


def test_spans_as_sets() -> None:
    spans = [Span("t", 0, 5, 9), Span("t", 0, 0, 4), Span("t", 1, 7, 7), Span("s", 0, 1, 2), Span("t", 0, 20, 30)]
    assert merged(spans) == [Span("s", 0, 1, 2), Span("t", 0, 0, 9), Span("t", 0, 20, 30), Span("t", 1, 7, 7)]
    assert overlap(spans, [Span("t", 0, 8, 22), Span("t", 1, 0, 6), Span("u", 0, 0, 9)]) == [
        Span("t", 0, 8, 9), Span("t", 0, 20, 22)]
    with pytest.raises(UserError, match="no range"):
        merged([Span("t", 0, 5, 4)])


def test_who_listens_is_told_of_the_run(project: Settings, store: ModelStore, topic: Topic) -> None:
    """OPENLINEAGE_URL: START and COMPLETE of one run, with the offsets read and the version made."""
    heard: list[dict[str, Any]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        asked = request(filled(project, topic))
        told = finished(start(project, asked, OPENLINEAGE_URL=f"http://127.0.0.1:{server.server_port}"))
        server.shutdown()
        thread.join()
    assert [event["eventType"] for event in heard] == ["START", "COMPLETE"]
    assert len({event["run"]["runId"] for event in heard}) == 1
    assert asked.topic in json.dumps(heard[0]["inputs"])
    assert told["version"] in json.dumps(heard[1]["outputs"])
