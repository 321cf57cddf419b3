"""The demo itself, on January and February, twice in the same project; the whole year runs in CI (`make demo`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from itertools import chain, repeat
from pathlib import Path

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


def demo(project: Settings, *options: str) -> tuple[dict[str, object], str]:
    """(what it printed as JSON, stderr) of `headrace demo --quick`, which must end well and leave no process."""
    command = [sys.executable, "-m", "headrace", "demo", "--quick", "--json", *options]
    done = subprocess.run(command, cwd=project.project, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    left = [p.cmdline() for p in psutil.process_iter(["cmdline"])
            if str(project.project) in " ".join(p.info["cmdline"] or ())]
    assert left == []
    return json.loads(done.stdout), done.stderr


def test_twice(project: Settings) -> None:
    for folder in ("flows", "schemas"):
        (project.project / folder).rmdir()  # a folder without flows of its own: headrace's are used
    flights = data.flights(last=QUICK_LAST)
    first, said = demo(project, "--svg", str(project.project / "picture.svg"))
    home = project.project / ".headrace" / "demo"
    topics_first = set(json.loads(next(home.glob("*/run.json")).read_text())["topics"])
    assert topics_first <= set(existing(project))
    second, _ = demo(project)
    for summary in (first, second):
        assert list(summary) == ["flows", "events", "kills", "lost", "doubled", "lag", "seconds", "records_per_second"]
        assert summary["events"] == {"alert": 1}
        assert (summary["kills"], summary["lost"], summary["doubled"], summary["lag"]) == (2, 0, 0, 0)
        assert summary["records_per_second"] > 0  # type: ignore[operator]
        assert summary["flows"] == {"departures": expected(flights, "departures"),
                                    "arrivals": expected(flights, "arrivals")}
    assert json.loads((home / "summary.json").read_text()) == second
    report = (home / "report.html").read_text()
    assert report.count("<svg") == 4
    assert "http" not in report, "the report needs something from elsewhere"
    assert said.count("ALERT 08 February: 472 of 930") == 1
    assert "kill -9" in (project.project / "picture.svg").read_text().replace("&#160;", " ")
    assert len(list(home.glob("*/run.json"))) == 1
    assert not topics_first & set(existing(project)), "the second run deletes the topics of the first"


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
