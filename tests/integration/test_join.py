"""Flows of two sources on a real broker: joined over several partitions and workers; tables that are followed."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer

from headrace import codec
from headrace.batch import read_lineage
from headrace.flowtest import run as run_tests
from headrace.settings import Settings
from tests.committed import committed_records
from tests.faults.test_kill import start, wait_for
from tests.integration.flights import LABEL, PREDICTION, labels, predictions, produce, rows_of, write_joined
from tests.integration.held import cli, encode
from tests.integration.test_worker import drain

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180),
              pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]  # of the registry's HTTP client
N = 20_000


def pairs(project: Settings, topic: str) -> Counter[tuple[int, int]]:
    return Counter((row["n"], row["m"]) for row in rows_of(project, topic))


def test_two_topics_are_joined_and_the_rest_waits(project: Settings, topic: Callable[..., str]) -> None:
    made = write_joined(project, topic)
    produce(project, made.predictions, PREDICTION, predictions(0, N))
    assert drain(project, made.name, "--batch", "3000")["records_in"] == N
    produce(project, made.labels, LABEL, labels(0, 5_000))
    assert drain(project, made.name, "--batch", "3000")["records_in"] == 4_500
    assert pairs(project, made.judged) == Counter((n, n) for n in range(5_000) if n % 10)
    # a day later the rest comes: what waited is in the changelog alone, once the copy on disk is gone
    for copy in (project.project / ".headrace/state").rglob("CURRENT"):
        copy.unlink()
    produce(project, made.labels, LABEL, labels(5_000, N))
    drain(project, made.name)
    assert pairs(project, made.judged) == Counter((n, n) for n in range(N) if n % 10)
    missed = [row["n"] for row in rows_of(project, made.unlabelled)]
    assert len(missed) == len(set(missed))
    assert set(range(0, N - 8_000, 10)) <= set(missed) <= set(range(0, N, 10))
    origins = {read_lineage(m.headers()).topic for m in committed_records(project, made.judged)}  # type: ignore[union-attr]
    assert origins == {made.labels}, "the record that completed the pair"
    keys = {m.key() for m in committed_records(project, made.unlabelled)}
    assert keys == {f"f{n}".encode() for n in missed}


def test_two_workers_take_over_from_each_other(project: Settings, topic: Callable[..., str]) -> None:
    made = write_joined(project, topic)
    produce(project, made.predictions, PREDICTION, predictions(0, N))
    first = start(project.project, made.name, "--instance", "one", "--batch", "200", "--log", "debug")
    wait_for(first, "committed")
    second = start(project.project, made.name, "--instance", "two", "--batch", "200", "--log", "debug")
    wait_for(second, "assigned")
    produce(project, made.labels, LABEL, labels(0, N // 2))
    wait_for(second, "committed")
    first.send_signal(signal.SIGTERM)
    assert first.communicate(timeout=60)
    produce(project, made.labels, LABEL, labels(N // 2, N))
    second.send_signal(signal.SIGKILL)
    second.communicate(timeout=20)
    for instance in ("one", "two"):  # the killed one is a member of the group still: its partitions wait for it
        drain(project, made.name, "--instance", instance)
    assert pairs(project, made.judged) == Counter((n, n) for n in range(N) if n % 10)


def test_the_flow_tests_itself_and_is_drawn(project: Settings, topic: Callable[..., str]) -> None:
    made = write_joined(project, topic)
    path = project.project / f"flows/{made.name}.yaml"
    assert [(r.test, r.problems) for r in run_tests(path)] == [
        ("a label meets its prediction, and one that never comes is missed", ())]
    linted = cli(project, "lint")
    assert linted.exit_code == 0, linted.output
    assert "rows meet only in partitions of one number" in linted.output
    drawn = cli(project, "graph", made.name)
    assert drawn.exit_code == 0, drawn.output
    assert "predictions --> step_joined" in drawn.output
    assert "labels --> step_joined" in drawn.output
    produce(project, made.predictions, PREDICTION, predictions(0, 100))
    produce(project, made.labels, LABEL, labels(0, 50))
    drain(project, made.name)
    produce(project, made.labels, LABEL, labels(50, 60))
    behind = json.loads(cli(project, "lag", f"headrace.{made.name}", "--json").output)
    by_topic = {name: sum(each["lag"] for each in found.values())
                for name, found in behind["groups"][f"headrace.{made.name}"]["topics"].items()}
    assert by_topic == {made.predictions: 0, made.labels: 9}


@pytest.mark.parametrize(("old", "new", "said"), [
    ("from: [predictions, labels]", "from: predictions", "join reads 2 outputs, and is given 1"),
    ("on: flight_id", "on: flight", "“flight”, which is no column"),
    ("right: arrived_at}", "right: late}", "it must be a timestamp"),
    ("schema: label, key: flight_id, partitions: 4", "schema: label, key: flight_id, partitions: 3",
     "sources need equally many partitions"),
    ("within: 2h", "within: soon", "is no duration"),
    ("from: joined.unmatched, kafka: {{}}", "from: joined.unmatched, quarantine: {{}}", "rows that joined makes"),
    ("joined.late, ", "", "joined.late goes nowhere")])
def test_lint_says_what_is_wrong(project: Settings, topic: Callable[..., str], old: str, new: str, said: str) -> None:
    from tests.integration.flights import FLOW

    assert old in FLOW
    write_joined(project, topic, flow=FLOW.replace(old, new))
    told = cli(project, "lint")
    assert told.exit_code == 1
    assert said in " ".join(told.output.split())


def test_topics_of_unequal_partitions_do_not_start(project: Settings, topic: Callable[..., str]) -> None:
    made = write_joined(project, topic)
    path = project.project / f"flows/{made.name}.yaml"
    narrow = topic("labels", partitions=2)
    path.write_text(path.read_text().replace(made.labels, narrow))
    worker = start(project.project, made.name, "--drain")
    told = worker.communicate(timeout=60)[1]
    assert worker.returncode == 2, told
    assert "as many partitions as each other" in told


PLANE = {"type": "record", "name": "plane", "fields": [
    {"name": "tailnum", "type": "string"}, {"name": "seats", "type": ["null", "int"], "default": None}]}
LOOKUP = """\
flow: seats
owner: tests
source: {{kafka: {{topic: {source}, schema: prediction, key: flight_id}}}}
steps:
  plane: {{lookup: {{topic: {planes}, schema: plane, key: tailnum, on: flight_id, missing: route,
                   sample: schemas/planes.jsonl}}}}
sinks:
  {source}.seated: {{from: plane, kafka: {{}}}}
  {source}.unknown: {{from: plane.missing, kafka: {{}}}}
  {source}.quarantine: {{quarantine: {{}}}}
tests:
  - name: a plane is looked up in the sample
    given: [{{flight_id: f9, scored_at: "2013-01-01T10:00:00Z", p_late: 0.1, n: 9}}]
    expect: {{{source}.seated: [{{n: 9, seats: 99}}]}}
"""


def planes(project: Settings, topic: str, seats: dict[str, int | None]) -> None:
    """A record a plane, a tombstone where it has no seats any more."""
    there = {name: n for name, n in seats.items() if n is not None}
    values: list[Any] = encode(project, topic, [{"tailnum": t, "seats": n} for t, n in there.items()],
                               codec.parse(json.dumps(PLANE)))
    producer = Producer(project.client(enable_idempotence=True))
    for name, value in (*zip(there, values, strict=True), *((t, None) for t, n in seats.items() if n is None)):
        producer.produce(topic, value, name)
    assert producer.flush(60) == 0


def test_a_lookup_follows_its_topic(project: Settings, topic: Callable[..., str]) -> None:
    source, table = topic("flights", partitions=2), topic("planes", partitions=3, cleanup_policy="compact")
    for schema in (PREDICTION, PLANE):
        (project.project / f"schemas/{schema['name']}.avsc").write_text(json.dumps(schema))
    (project.project / "schemas/planes.jsonl").write_text('{"tailnum": "f9", "seats": 99}\n')
    path = project.project / "flows/seats.yaml"
    path.write_text(LOOKUP.format(source=source, planes=table))
    assert [r.problems for r in run_tests(path)] == [()]
    planes(project, table, {f"f{n}": n for n in range(3_000)})
    planes(project, table, {"f1": 1_001, "f2": None})
    broken = Producer(project.client(enable_idempotence=True))
    broken.produce(table, b"no plane", "f3")
    assert broken.flush(60) == 0
    worker = start(project.project, "seats")
    wait_for(worker, "table rows passed over")
    wait_for(worker, "assigned")
    produce(project, source, PREDICTION, predictions(0, 4))
    seated, unknown = f"{source}.seated", f"{source}.unknown"

    def until(count: int) -> None:
        end = time.monotonic() + 60
        while len(committed_records(project, seated, unknown)) < count:
            assert time.monotonic() < end, f"{count} records did not come"
            time.sleep(0.2)

    until(4)
    planes(project, table, {"f0": 500, "f2": 502, "f1": None})
    time.sleep(1.0)  # the change is fetched within milliseconds; it is seen between batches
    produce(project, source, PREDICTION, predictions(0, 4))
    until(8)
    worker.send_signal(signal.SIGTERM)
    told = worker.communicate(timeout=60)[1]
    assert worker.returncode == 0, told
    got = sorted((row["n"], row["seats"]) for row in rows_of(project, seated))
    missed = sorted(row["n"] for row in rows_of(project, unknown))
    assert got == [(0, 0), (0, 500), (1, 1_001), (2, 502)]
    assert missed == [1, 2, 3, 3], "gone, not yet there, and one whose last record is no plane"
