"""The loop's commands for people, on real topics and an MLflow: what they show, what they write, who obeys."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import typer
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner, Result

from headrace import codec
from headrace.cli import audit, loop_view, models
from headrace.control import ControlEvent, Retrain, RetrainResult, Switch, Verdict, digest
from headrace.errors import UserError
from headrace.loop.audit import AVSC
from headrace.loop.models import NoSuchModel, open_registry
from headrace.loopview import log, read, topic_of
from headrace.registry import Registry
from headrace.resources import content
from headrace.settings import Settings
from headrace.topics import TopicPlan, ensure, existing
from tests.conftest import Stack
from tests.unit import loopkit
from tests.unit.loopkit import MODEL, TRIGGER, gate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

FLOW = """
flow: {control}
owner: tests
control: {control}
source: {{kafka: {{topic: {control}.labelled, schema: labelled}}}}
steps:
  keep: {{filter: {{where: "late"}}}}
sinks:
  {control}.late: {{kafka: {{}}}}
models:
  flight-delay:
    learn: {{target: late, numeric: [distance], time: arrived_at, known_at: arrived_at}}
    rollout: {{approval: required}}
"""
LABELLED = {"type": "record", "name": "Labelled", "fields": [
    {"name": "late", "type": ["null", "boolean"]}, {"name": "distance", "type": "double"},
    {"name": "arrived_at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}


@pytest.fixture(scope="module")
def here(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A project whose MLflow has two trainings of the model: versions 1 and 2."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    project = tmp_path_factory.mktemp("models")
    for folder in ("flows", "schemas"):
        (project / folder).mkdir()
    (project / "headrace.toml").write_text(f'[kafka]\n"bootstrap.servers" = "{stack.bootstrap}"\n'
                                           f'[registry]\nurl = "{stack.registry}"\n')
    (project / "schemas/labelled.avsc").write_text(json.dumps(LABELLED))
    rows = pa.table({"distance": np.linspace(0, 1, 40)})
    fitted = make_pipeline(LogisticRegression()).fit(rows.to_pandas(), rows["distance"].to_numpy() > 0.4)
    store = open_registry(None, project)
    for trigger, auc in (("first", 0.7), (TRIGGER, 0.72)):
        store.log_run(trigger, MODEL, spec={"target": "late"}, metrics={"all.auc": auc}, models={"all": fitted},
                      facts={"data_digest": f"d-{trigger}", "rows": 40, "git_commit": "c0ffee", "reason": "why"},
                      references={"all": {}}, example=rows.slice(0, 5))
    return Settings(project, stack.bootstrap, stack.registry)


@pytest.fixture
def control(here: Settings) -> Iterator[str]:
    """A prefix of this test's own, with its topics; they are deleted when the test ends."""
    prefix = f"t{uuid.uuid4().hex[:10]}"
    names = [topic_of(prefix, kind) for kind in (Verdict, Retrain, RetrainResult, Switch)] + [log.topic_of(prefix)]
    ensure(here, [TopicPlan(name, 1, {"retention.ms": "-1"}) for name in names])
    yield prefix
    mine = [name for name in existing(here) if name.startswith(prefix) or f".{prefix}" in name]
    admin = AdminClient(here.client())  # kept: its answers are lost with it
    for done in admin.delete_topics(mine).values():
        done.exception(30)


def app() -> typer.Typer:
    made, loop = typer.Typer(), typer.Typer()
    models.register(made)
    audit.register(made)
    made.add_typer(loop, name="loop")
    loop_view.register_into(loop)
    return made


def run(here: Settings, *arguments: str) -> Result:
    with chdir(here.project):
        return CliRunner().invoke(app(), list(arguments), env={"COLUMNS": "250"})


def ok(here: Settings, *arguments: str) -> str:
    done = run(here, *arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def told(here: Settings, *arguments: str) -> Any:
    return json.loads(ok(here, *arguments, "--json"))


def values(here: Settings, topic: str, schema: codec.AvroSchema, rows: Sequence[dict[str, Any]]) -> list[bytes]:
    number = Registry(here.registry_client()).register(f"{topic}-value", schema)
    return codec.Encoder(schema, schema.arrow, number).encode(pa.RecordBatch.from_pylist(list(rows),
                                                                                         schema=schema.arrow))


def send(here: Settings, topic: str, payloads: Sequence[bytes]) -> None:
    producer = Producer(here.client(enable_idempotence=True))
    for payload in payloads:
        producer.produce(topic, payload, MODEL.encode())
    assert producer.flush(60) == 0


def say(here: Settings, control: str, *events: ControlEvent) -> None:
    """Events onto their topics, as steps write them."""
    for event in events:
        row = {name: list(value.items()) if isinstance(value, dict) else value
               for name, value in event.to_record().items()}
        send(here, topic_of(control, type(event)), values(here, topic_of(control, type(event)), event.schema(), [row]))


def part(here: Settings, control: str, name: str) -> None:
    """One part of the real loop, over what is there."""
    (here.project / f"flows/{control}.yaml").write_text(FLOW.format(control=control))
    done = subprocess.run([sys.executable, "-m", "headrace", "loop", "run", control, "--part", name, "--drain"],
                          cwd=here.project, text=True, capture_output=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr


def test_the_loop_obeys_a_person(here: Settings, control: str) -> None:
    """promote, approve, rollback: each is heard by the real switch step, stands in the history and in the audit log;
    and the history is whole though the model topic has lost its beginning."""
    at = ("--control", control)
    assert told(here, "models", "list", *at)["models"][0]["in_charge"] is None
    text = ok(here, "models", "promote", MODEL, "1", "--reason", "the first one", "--by", "ada", *at)
    assert f"promote: written to {control}.verdicts/0@0, by ada." in text
    assert f"headrace models history {MODEL} --control {control}" in text
    say(here, control, gate(4, ok=True, version="2"))
    part(here, control, "decide")
    [row] = told(here, "models", "list", *at)["models"]
    assert (row["in_charge"]["version"], row["in_charge"]["by"]) == ("1", "ada")
    assert [each["version"] for each in row["waiting"]] == ["2"]
    assert "waits for an approval" in ok(here, "loop", "status", *at)

    again = told(here, "models", "promote", MODEL, "1", "--reason", "again", *at)
    assert not again["written"]
    assert "in charge already" in again["why"]
    said = told(here, "models", "approve", MODEL, TRIGGER[:10], "--reason", "looks right", "--by", "bob", *at)
    assert (said["verdict"]["version"], said["verdict"]["trigger"]) == ("2", TRIGGER)
    part(here, control, "decide")
    told(here, "models", "rollback", MODEL, "--reason", "it does not", "--by", "eve", *at)
    part(here, control, "decide")
    part(here, control, "audit")
    seen = told(here, "models", "history", MODEL, *at)["switches"]
    assert [(each["version"], each["mode"], each["by"], each["previous"], each["trigger"]) for each in seen] == [
        ("1", "full", "ada", None, None), ("2", "full", "bob", "1", TRIGGER), ("1", "full", "eve", "2", None)]
    assert seen[2]["reason"] == "rolled back by eve: it does not"
    assert sorted(each["epoch"] for each in seen) == [each["epoch"] for each in seen]
    assert [each.aliases for each in open_registry(None, here.project).versions(MODEL)] == [(), ("champion",)]

    past = TopicPartition(topic_of(control, Switch), 0, seen[1]["epoch"] + 1)
    admin = AdminClient(here.client())
    [cut] = admin.delete_records([past]).values()
    cut.result(60)
    assert len(read(here, control).switches) == 3
    assert told(here, "models", "history", MODEL, *at)["switches"] == seen, "the audit log has them"
    table = ok(here, "models", "history", MODEL, *at)
    assert all(each["reason"] in table for each in seen)

    listed = [json.loads(line) for line in ok(here, "audit", "list", *at, "--json").splitlines()]
    assert [(each["actor"], each["action"]) for each in listed if each["actor"] in ("ada", "bob", "eve")
            and not each["action"].startswith("switch")] == [("ada", "promote"), ("bob", "approve"),
                                                             ("eve", "rollback")]
    assert len([each for each in listed if each["action"] == "switch full"]) == 3
    assert len(ok(here, "audit", "list", *at, "--tail", "2", "--json").splitlines()) == 2
    assert ok(here, "audit", "list", *at, "--model", "another") == ""
    assert "looks right" in ok(here, "audit", "list", *at, "--model", MODEL)


def test_a_changed_audit_log_is_found(here: Settings, control: str) -> None:
    """Whole; then a log with one entry changed; then one whose end is cut off, which only the anchor shows."""
    at = ("--control", control)
    say(here, control, *(replace(loopkit.FIRST, id=digest(n)) for n in range(4)))
    part(here, control, "audit")
    whole = told(here, "audit", "verify", *at)
    assert (whole["ok"], whole["entries"], whole["flaws"]) == (True, 4, [])
    text = ok(here, "audit", "verify", *at, "--anchor", whole["anchor"])
    assert "4 entries, unbroken; the anchor" in text
    assert f"anchor to keep elsewhere: {whole['anchor']}" in text

    entries = list(log.entries(here, control).entries)
    schema = codec.load(content(AVSC))
    for n, (forged, flaws) in enumerate([
            ([entries[0], {**entries[1], "actor": "mallory"}, *entries[2:]], [(1, "changed")]),
            ([entries[0], *entries[2:]], [(1, "removed")]),
            (entries[:3], [(3, "cut")])]):
        copy = f"{control}{n}"
        ensure(here, [TopicPlan(log.topic_of(copy), 1)])
        send(here, log.topic_of(copy), values(here, log.topic_of(copy), schema, forged))
        done = run(here, "audit", "verify", "--control", copy, "--anchor", whole["anchor"], "--json")
        assert done.exit_code == 1
        assert [(each["seq"], each["kind"]) for each in json.loads(done.stdout)["flaws"]] == flaws
        shown = run(here, "audit", "verify", "--control", copy, "--anchor", whole["anchor"])
        assert shown.exit_code == 1
        assert f"entry {flaws[0][0]}: {flaws[0][1]}" in shown.stdout
        assert "NOT as they were written" in shown.stdout
    switch = {**entries[0], "topic": f"{control}0.models", "action": "switch full", "event": '{"to": "7"}'}
    send(here, log.topic_of(f"{control}0"), [b"no entry", *values(here, log.topic_of(f"{control}0"), schema, [switch])])
    assert "records cannot be read, the first: " in ok(here, "loop", "status", "--control", f"{control}0")
    kinds = [each["kind"] for each in json.loads(run(here, "audit", "verify", "--control", f"{control}0",
                                                     "--json").stdout)["flaws"]]
    assert kinds == ["unreadable", "changed", "inserted", "changed"]
    with pytest.raises(UserError, match="is no hash of this log"):
        raise run(here, "audit", "verify", *at, "--anchor", "abc").exception or AssertionError
    with pytest.raises(UserError, match="no topic"):
        raise run(here, "audit", "verify", "--control", "nowhere").exception or AssertionError


def test_a_retraining_is_explained(here: Settings, control: str) -> None:
    """The same events as in the unit tests, by way of Kafka: the same explanation, but for where they stand."""
    at = ("--control", control)
    base = loopkit.whole()
    say(here, control, *(each.event for each in base.verdicts), *(each.event for each in base.requests),
        *(each.event for each in base.results),
        *(replace(each.event, topic=f"{control}.verdicts", offset_first=each.event.offset_first // 2,
                  offset_last=each.event.offset_last // 2) for each in base.switches))
    found = told(here, "loop", "explain", TRIGGER[:8], *at)
    assert found["trigger"] == TRIGGER
    assert [each["place"] for each in found["causes"]] == [f"{control}.verdicts/0@1", f"{control}.verdicts/0@2"]
    assert found["data"]["digest"] == "d" * 64
    assert found["switches"][0]["epoch"] == 1
    assert [each["measures"]["auc"] for each in found["since"]["verdicts"]] == [0.731]
    assert found["not_known"] == []
    assert told(here, "loop", "explain", "--model", MODEL, *at) == found
    text = ok(here, "loop", "explain", *at)
    assert "epoch 1: version 7 in charge, before it 1" in text
    with pytest.raises(UserError, match=f"no trigger begins with “0000” in {control}.retrain"):
        raise run(here, "loop", "explain", "0000", *at).exception or AssertionError

    status = told(here, "loop", "status", *at)
    assert status["models"][MODEL]["in_charge"]["version"] == "7"
    assert (status["absent"], status["unreadable"]) == ([], [])
    send(here, topic_of(control, Verdict), [b"no event"])
    assert f"1 records cannot be read, the first: {control}.verdicts/0@5" in ok(here, "loop", "status", *at)


def test_versions_are_shown_and_compared(here: Settings, control: str) -> None:
    at = ("--control", control)
    say(here, control, gate(4, ok=False, version="2"))
    shown = told(here, "models", "show", MODEL, *at)
    assert [(each["version"], each["trigger"], each["metrics"]) for each in shown["versions"]] == [
        ("2", TRIGGER, {"auc": 0.72}), ("1", "first", {"auc": 0.7})]
    card = told(here, "models", "show", MODEL, "2", *at)["card"]
    assert card["gate"]["decision"] == "not blessed"
    assert card["data"] == {"rows": 40, "digest": f"d-{TRIGGER}"}
    assert "cpu_s" in card["not_known"]
    page = ok(here, "models", "show", MODEL, "1", "--card", *at)
    assert page.startswith("# Model card: flight-delay, version 1\n")
    assert "- Decision\n" in page.split("## Not known")[1], "the gate said nothing of it"
    assert "git_commit: c0ffee" in ok(here, "models", "show", MODEL, "1", *at)
    found = told(here, "models", "compare", MODEL, "1", "2")
    assert found["metrics"] == {"auc": [0.7, 0.72]}
    assert found["facts"] == {"data_digest": ["d-first", f"d-{TRIGGER}"]}
    assert "d-first" in ok(here, "models", "compare", MODEL, "1", "2")
    with pytest.raises(UserError, match="no version of flight-delay is in charge yet"):
        raise run(here, "models", "show", MODEL, "--card", *at).exception or AssertionError


def test_what_cannot_be_is_refused_before_anything_is_written(here: Settings, control: str) -> None:
    at = ("--control", control)
    wrong: list[tuple[tuple[str, ...], type[UserError], str]] = [
        (("promote", MODEL, "99"), NoSuchModel, r"(?s)no version “99”.*there is 2.*, 1"),
        (("promote", "flight-dely", "1"), NoSuchModel, "did you mean “flight-delay”"),
        (("rollback", MODEL), UserError, "no version to go back to"),
        (("rollback", MODEL, "--to", "99"), NoSuchModel, "no version “99”"),
        (("approve", MODEL, "2"), UserError, "nothing of flight-delay that is called “2” waits"),
        (("retrain", MODEL, "--at", "tomorrow"), UserError, "“tomorrow” is no time")]
    for arguments, kind, why in wrong:
        with pytest.raises(kind, match=why):
            raise run(here, "models", *arguments, "--reason", "why", *at).exception or AssertionError
    assert read(here, control).verdicts == ()
    with pytest.raises(UserError, match=r"there is no topic nowhere\.verdicts"):
        raise run(here, "models", "promote", MODEL, "1", "--reason", "x", "--control",
                  "nowhere").exception or AssertionError
    assert run(here, "models", "promote", MODEL, "1", *at).exit_code == 2, "no word without a reason"


def test_a_retraining_is_asked_for(here: Settings, control: str) -> None:
    at = ("--control", control)
    said = told(here, "models", "retrain", MODEL, "--reason", "new airport", "--by", "ada", "--at", "2013-07-01", *at)
    assert "Nothing was said of it so far" in said["what"]
    again = told(here, "models", "retrain", MODEL, "--reason", "new airport", "--by", "ada", "--at", "2013-07-01", *at)
    assert said["verdict"]["id"] == again["verdict"]["id"]
    [placed] = read(here, control).verdicts
    word = placed.event
    assert (word.about, word.model, word.version, word.by, word.ok, list(word.reasons)) == (
        "retrain", MODEL, None, "ada", True, ["new airport"])
    assert word.at.isoformat() == "2013-07-01T00:00:00+00:00"


def test_on_a_terminal_it_asks(here: Settings, control: str) -> None:
    """A no writes nothing, a yes does."""
    code = ("import typer; from headrace.cli import models; app = typer.Typer(); models.register(app); "
            f"app(['models', 'retrain', '{MODEL}', '--reason', 'why', '--by', 'ada', '--control', '{control}'])")
    for answer, ends, written in (("n", 1, 0), ("y", 0, 1)):
        ours, theirs = pty.openpty()
        with subprocess.Popen([sys.executable, "-c", code], cwd=here.project, stdin=theirs, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            os.close(theirs)
            os.write(ours, f"{answer}\n".encode())
            _, asked = process.communicate(timeout=60)
        os.close(ours)
        assert process.returncode == ends, asked
        assert "Because: why; by ada" in asked
        assert "Write it? [y/N]" in asked
        assert len(read(here, control).verdicts) == written
