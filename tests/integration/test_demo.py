"""The demo itself, on a part of the year, twice in the same project; the whole year, the loop in it, runs in CI
(`make demo`)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace import codec
from headrace.contracts import compile_suite, load
from headrace.demo import data
from headrace.demo.acts import QUICK_LAST
from headrace.settings import Settings
from headrace.topics import existing

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"


KEYS = ["flows", "events", "kills", "lost", "doubled", "lag", "seconds", "records_per_second"]
POLICIES = ["static", "last_two_months", "cumulative", "gated"]


def left_running(project: Settings) -> list[psutil.Process]:
    """The processes that know the project's folder."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(project.project) in " ".join(p.info["cmdline"] or ())]


def demo(project: Settings, *options: str) -> tuple[dict[str, Any], str]:
    """(what it printed as JSON, stderr) of `headrace demo --quick`, which must end well and leave no process."""
    command = [sys.executable, "-m", "headrace", "demo", "--quick", "--json", *options]
    try:
        done = subprocess.run(command, cwd=project.project, capture_output=True, text=True, timeout=500)
    except BaseException:  # it was killed with no chance to stop what it had started, which would slow all other tests
        for process in left_running(project):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        raise
    assert done.returncode == 0, done.stderr[-3000:]
    assert left_running(project) == []
    return json.loads(done.stdout), done.stderr


def fresh(project: Settings) -> Path:
    """Where the demo keeps its runs. A folder without flows of its own: headrace's are used."""
    for folder in ("flows", "schemas"):
        (project.project / folder).rmdir()
    return project.project / ".headrace" / "demo"


def test_cut_short_then_whole(project: Settings) -> None:
    home = fresh(project)
    interrupted(project)
    assert list(home.glob("*/.headrace/runs/*/exit.json")), "the training was told to end"
    topics_first = set(json.loads(next(home.glob("*/run.json")).read_text())["topics"])
    made = {topic for topic in existing(project) if next(home.glob("*/run.json")).parent.name in topic}
    assert made == topics_first & set(existing(project)), "topics that the next run would not delete"
    told, said = demo(project, "--no-loop", "--svg", str(project.project / "picture.svg"))
    assert len(list(home.glob("*/run.json"))) == 1
    assert not topics_first & set(existing(project)), "the second run deletes the topics of the first"
    assert list(told) == KEYS
    the_flows(told, said)
    assert json.loads((home / "summary.json").read_text()) == told
    assert "kill -9" in picture(project)


@pytest.mark.full
def test_with_the_loop(project: Settings) -> None:
    home = fresh(project)
    told, said = demo(project, "--svg", str(project.project / "picture.svg"))
    assert list(told) == [*KEYS, "loop"]
    the_flows(told, said)
    the_loop(told["loop"], said)
    report = (home / "report.html").read_text()
    assert report.count("<svg") == 6
    assert "http" not in report, "the report needs something from elsewhere"
    assert report.count("<details>") == len(told["loop"]["asked"])
    assert "kill -9" in picture(project)
    assert "blessed version" in picture(project)


def picture(project: Settings) -> str:
    return (project.project / "picture.svg").read_text().replace("&#160;", " ")


def the_flows(told: dict[str, Any], said: str) -> None:
    assert told["events"] == {"alert": 1}
    assert (told["kills"], told["lost"], told["doubled"], told["lag"]) == (2, 0, 0, 0)
    assert told["records_per_second"] > 0
    flights = data.flights(last=QUICK_LAST)
    assert told["flows"] == {"departures": expected(flights, "departures"), "arrivals": expected(flights, "arrivals")}
    assert said.count("ALERT 08 February: 472 of 930") == 1


def interrupted(project: Settings) -> None:
    """Ctrl-C while a model is trained: flows, parts of the loop, the training and the baselines are gone."""
    command = [sys.executable, "-m", "headrace", "demo", "--quick"]
    process = subprocess.Popen(command, cwd=project.project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True, start_new_session=True)  # so that the signal reaches nobody else
    try:
        assert process.stderr is not None
        assert any("TRIGGER 01 March" in line for line in process.stderr)
        until = time.monotonic() + 60
        while not any("headrace.loop.train" in word for p in left_running(project) for word in p.info["cmdline"]):
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


def expected(flights: data.Flights, stream: str) -> dict[str, object]:
    """What the summary must say of a flow, by the contract alone: no Kafka, one batch."""
    name = stream.removesuffix("s")
    schema = codec.load(SCHEMAS / f"{name}.avsc").arrow
    contract = compile_suite(load(SCHEMAS / f"{name}.expectations.json"), schema)
    report = contract.check(getattr(flights, stream).cast(schema))
    valid = report.row_mask.true_count
    return {"records_in": len(flights), "valid": valid, "quarantined": len(flights) - valid, "rejected": 0,
            "by_expectation": {id_: n for id_, n in report.counts.items() if n}}
