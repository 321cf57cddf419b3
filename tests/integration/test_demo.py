"""The demo itself, on a part of the year, twice in the same project; the whole year runs in CI (`make demo`)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace import codec
from headrace.contracts import compile_suite, load
from headrace.demo import data, verify
from headrace.demo.acts import QUICK_LAST
from headrace.demo.folder import Staged, new_run
from headrace.settings import Settings
from headrace.topics import ensure, existing

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"


KEYS = ["flows", "events", "kills", "lost", "doubled", "lag", "seconds", "records_per_second"]
POLICIES = ["static", "last_two_months", "cumulative", "gated"]


def left_running(project: Settings) -> list[list[str]]:
    """The command lines of processes that know the project's folder."""
    return [p.cmdline() for p in psutil.process_iter(["cmdline"])
            if str(project.project) in " ".join(p.info["cmdline"] or ())]


def demo(project: Settings, *options: str) -> tuple[dict[str, Any], str]:
    """(what it printed as JSON, stderr) of `headrace demo --quick`, which must end well and leave no process."""
    command = [sys.executable, "-m", "headrace", "demo", "--quick", "--json", *options]
    done = subprocess.run(command, cwd=project.project, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert left_running(project) == []
    return json.loads(done.stdout), done.stderr


def fresh(project: Settings) -> Path:
    """Where the demo keeps its runs. A folder without flows of its own: headrace's are used."""
    for folder in ("flows", "schemas"):
        (project.project / folder).rmdir()
    return project.project / ".headrace" / "demo"


def test_twice(project: Settings) -> None:
    home = fresh(project)
    flights = data.flights(last=QUICK_LAST)
    first, said = demo(project, "--svg", str(project.project / "picture.svg"))
    topics_first = set(json.loads(next(home.glob("*/run.json")).read_text())["topics"])
    made = {topic for topic in existing(project) if next(home.glob("*/run.json")).parent.name in topic}
    assert made == topics_first & set(existing(project)), "topics that the next run would not delete"
    report = (home / "report.html").read_text()
    assert report.count("<svg") == 6
    assert "http" not in report, "the report needs something from elsewhere"
    assert report.count("<details>") == len(first["loop"]["asked"])
    the_loop(first["loop"], said)
    second, _ = demo(project, "--no-loop")
    assert list(first) == [*KEYS, "loop"]
    assert list(second) == KEYS
    for summary in (first, second):
        assert summary["events"] == {"alert": 1}
        assert (summary["kills"], summary["lost"], summary["doubled"], summary["lag"]) == (2, 0, 0, 0)
        assert summary["records_per_second"] > 0
        assert summary["flows"] == {"departures": expected(flights, "departures"),
                                    "arrivals": expected(flights, "arrivals")}
    assert json.loads((home / "summary.json").read_text()) == second
    assert (home / "report.html").read_text().count("<svg") == 4
    assert said.count("ALERT 08 February: 472 of 930") == 1
    picture = (project.project / "picture.svg").read_text().replace("&#160;", " ")
    assert "kill -9" in picture
    assert "blessed version" in picture
    assert len(list(home.glob("*/run.json"))) == 1
    assert not topics_first & set(existing(project)), "the second run deletes the topics of the first"


def the_loop(told: dict[str, Any], said: str) -> None:
    """Up to the middle of April: the first model, and one retraining. The same on every machine."""
    assert list(told["mean_auc"]) == list(told["monthly_auc"]) == list(told["retrains"]) == POLICIES
    assert {month for each in told["monthly_auc"].values() for month in each} == {"3", "4"}
    assert told["retrains"] == {"static": 0, "last_two_months": 1, "cumulative": 1, "gated": 1}
    assert told["triggers"] == 1 == told["switches"] + told["rejections"]
    assert [(each["at"], each["rule"], each["outcome"]) for each in told["asked"]] == [
        ("2013-03-01", "asked", "blessed"), ("2013-03-29", "opportunity", "blessed")]
    assert [each["since"] for each in told["in_charge"]] == ["2013-03-01", "2013-03-29"]
    assert told["mean_auc"]["gated"] > 0.65
    march = {name: each["3"] for name, each in told["monthly_auc"].items()}
    assert march["static"] == march["cumulative"] == march["last_two_months"] != march["gated"]
    for word in ("TRIGGER 29 March, opportunity", "BLESSED version", "SWITCH 01 March: version 1 is in charge"):
        assert word in said


def test_whatever_runs_ends_with_it(project: Settings) -> None:
    """Ctrl-C while a model is trained: flows, parts of the loop, the training and the baselines are gone."""
    home = fresh(project)
    command = [sys.executable, "-m", "headrace", "demo", "--quick"]
    process = subprocess.Popen(command, cwd=project.project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True, start_new_session=True)  # so that the signal reaches nobody else
    try:
        assert process.stderr is not None
        assert any("TRIGGER 01 March" in line for line in process.stderr)
        until = time.monotonic() + 60
        while not any("headrace.loop.train" in each for each in chain.from_iterable(left_running(project))):
            assert time.monotonic() < until, "no training runs"
            time.sleep(0.1)
        assert len(left_running(project)) >= 9, "three flows, four parts, the training and its supervisor"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode not in (0, None)
    finally:
        process.kill()
        process.communicate()
    assert left_running(project) == []
    assert list(home.glob("*/.headrace/runs/*/exit.json")), "the training was told to end"


def expected(flights: data.Flights, stream: str) -> dict[str, object]:
    """What the summary must say of a flow, by the contract alone: no Kafka, one batch."""
    name = stream.removesuffix("s")
    schema = codec.load(SCHEMAS / f"{name}.avsc").arrow
    contract = compile_suite(load(SCHEMAS / f"{name}.expectations.json"), schema)
    report = contract.check(getattr(flights, stream).cast(schema))
    valid = report.row_mask.true_count
    return {"records_in": len(flights), "valid": valid, "quarantined": len(flights) - valid, "rejected": 0,
            "by_expectation": {id_: n for id_, n in report.counts.items() if n}}


@pytest.fixture
def staged(project: Settings, topic: object) -> Staged:
    """The arrivals flow with topics that exist, and 100 records in its source."""
    from confluent_kafka import Producer

    for folder in ("flows", "schemas"):
        (project.project / folder).rmdir()
    with new_run(project.project) as run:
        made = run.stage("arrivals", "speed", source=f".{run.name}", sinks=f".{run.name}")
    ensure(project, made.plan.topics)
    producer = Producer(project.client())
    for _ in range(100):
        producer.produce(made.source, b"x")
    assert producer.flush(30) == 0
    return made


@pytest.mark.parametrize(("offsets", "lost", "doubled", "strangers"), [
    (range(100), 0, 0, 0),
    ([*range(40), *range(41, 100)], 1, 0, 0),
    ([*range(100), 7, 7], 0, 2, 0),
    ([*range(100), 100], 0, 0, 1),
    ([], 100, 0, 0)])
def test_the_counting_sees_what_is_wrong(project: Settings, staged: Staged, offsets: list[int], lost: int, doubled: int,
                                         strangers: int) -> None:
    """Verify the verifier: outputs written here by hand, with faults in them."""
    from confluent_kafka import Producer

    producer = Producer(project.client())
    held = [("headrace.step", b"check"), ("headrace.reasons", b'["departed: it is null"]')]
    topics = chain([staged.outputs[0], staged.quarantine], repeat(staged.outputs[1]))
    for topic, offset in zip(topics, offsets, strict=False):
        place = (0).to_bytes(4, "big") + offset.to_bytes(8, "big") + staged.source.encode()
        producer.produce(topic, b"y", headers=[("headrace.src", place), *(held if "quarantine" in topic else [])])
    assert producer.flush(30) == 0
    found = verify.tally(project, staged)
    assert (found.records_in, found.lost, found.doubled, found.strangers) == (100, lost, doubled, strangers)
    assert found.whole == (lost == doubled == strangers == 0)
    assert found.by_expectation == Counter({"departed": 1} if len(offsets) else {})
    assert found.quarantined == bool(len(offsets))
    assert found.valid == max(0, len(offsets) - 1)


def test_an_aborted_output_does_not_count(project: Settings, staged: Staged) -> None:
    """The reader is a read_committed one: what a killed worker wrote in an open transaction is no output."""
    from confluent_kafka import Producer

    producer = Producer(project.client(transactional_id=f"aborts.{staged.source}"))
    producer.init_transactions(30)
    for end in (producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        for offset in range(100):
            place = (0).to_bytes(4, "big") + offset.to_bytes(8, "big") + staged.source.encode()
            producer.produce(staged.outputs[0], b"y", headers=[("headrace.src", place)])
        producer.flush(30)
        end(30)
    found = verify.tally(project, staged)
    assert found.whole
    assert found.valid == 100
