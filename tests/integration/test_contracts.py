"""`headrace contracts suggest TOPIC` and `contracts report` with the real broker and registry: the demo's flights, and
what else is there; verdicts on windows from their topic."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from headrace import codec
from headrace.cli import build
from headrace.contractctl.sample import from_topic
from headrace.contracts import compile_suite, load
from headrace.demo.data import flights
from headrace.errors import HeadraceError
from headrace.registry import Registry
from headrace.settings import Settings
from tests.integration.held import write
from tests.unit.test_contracts_page import Page
from tests.unit.test_contracts_report import GOOD, event

pytestmark = pytest.mark.integration

ROWS = 5_000
AVSC = Path(__file__).parents[2] / "schemas/departure.avsc"
Run = Callable[..., Result]


@pytest.fixture
def run(project: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    (project.project / "schemas/departure.avsc").write_text(AVSC.read_text())
    monkeypatch.chdir(project.project)

    def go(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(build(), list(words), env={"COLUMNS": "200"})
        said = result.exception.exit_code if isinstance(result.exception, HeadraceError) else result.exit_code
        assert said == code, (result.output, result.exception)
        return result

    return go


@pytest.fixture
def departures(run: Run, project: Settings, topic: Callable[..., str]) -> str:
    """A topic of three partitions with 5,000 departures, two tombstones, and a record that is none."""
    name = topic("departures", partitions=3)
    pq.write_table(pa.Table.from_batches([flights().departures.slice(0, ROWS)]), project.project / "d.parquet")
    run("produce", name, "--schema", "departure", "--file", "d.parquet", "--key", "tailnum", "--timestamp",
        "scheduled_at")
    write(project, name, [None, None, b"hello"], partitions=3)
    return name


def test_a_topic(run: Run, project: Settings, departures: str) -> None:
    result = run("contracts", "suggest", departures, "--out", "departure")
    said = " ".join(result.stderr.split())
    for line in ("passed over, since they have no value: 2 tombstones", "1 record could not be read, and not learnt",
                 f" {departures}/", "all of which hold on the 5,000 rows of topic departures.",
                 "read as flights.Departure", "wrote schemas/departure.expectations.json"):
        assert line in said
    suite = load(project.project / "schemas/departure.expectations.json")
    ours = {e.id: dict(e.kwargs) for e in suite.expectations}
    assert {"flight_id_unique", "origin_known", "tailnum_form", "distance_plausible"} <= ours.keys()
    written = flights().departures.slice(0, ROWS)
    assert compile_suite(suite, codec.load(AVSC).arrow).check(written.cast(codec.load(AVSC).arrow)).success
    summary = json.loads(run("contracts", "suggest", departures, "--json").stdout)
    assert (summary["rows"], summary["tombstones"], summary["unread_count"]) == (ROWS, 2, 1)
    assert summary["suite"] == departures
    assert {e["id"]: e["kwargs"] for e in summary["data"]["expectations"]} == ours
    run("contracts", "check", "d.parquet", "--suite", "departure", "--schema", "departure")
    error = run("contracts", "suggest", departures + "x", code=2).exception
    assert f"there is no topic {departures}x" in str(error)
    assert "nor a file" in str(error)


def test_the_last_records_in_the_order_of_time(project: Settings, departures: str) -> None:
    whole = from_topic(project, departures, None, rows_max=100_000)
    ids = whole.rows["flight_id"].to_pylist()
    when = whole.rows["scheduled_at"].to_pylist()
    assert sorted(ids) == list(range(1, ROWS + 1))
    assert when == sorted(when)
    told: list[tuple[float, int]] = []
    part = from_topic(project, departures, None, rows_max=600, progress=lambda share, n: told.append((share, n)))
    assert 590 <= part.rows.num_rows <= 600
    assert part.rows.num_rows + part.tombstones + part.unread_count == told[-1][1] == 600
    assert told[-1][0] == 1
    assert min(part.rows["flight_id"].to_pylist()) > ROWS * 0.7


def test_rows_are_read_as_the_newest_schema_or_the_one_named(run: Run, project: Settings, departures: str) -> None:
    written = json.loads(AVSC.read_text())
    newer = {**written, "fields": [*written["fields"], {"name": "gate", "type": ["null", "string"], "default": None}]}
    Registry(project.registry_client()).register(f"{departures}-value", codec.parse(json.dumps(newer)))
    assert from_topic(project, departures, None, rows_max=100).rows.schema.names[-1] == "gate"
    assert from_topic(project, departures, codec.load(AVSC), rows_max=100).rows.schema.names[-1] == "distance"
    result = run("contracts", "suggest", departures, "--schema", "departure", "--json")
    summary: dict[str, Any] = json.loads(result.stdout)
    assert (summary["suite"], summary["read_as"]) == ("departure", "flights.Departure")


def test_a_topic_that_the_registry_does_not_know_by_name(project: Settings, departures: str,
                                                         topic: Callable[..., str], run: Run) -> None:
    bare = topic("bare")
    error = run("contracts", "suggest", bare, code=2).exception
    assert f"the registry has no {bare}-value, and there is no record" in str(error)
    write(project, bare, [b"hello"])
    assert "none of them names a schema" in str(run("contracts", "suggest", bare, code=2).exception)
    found = Registry(project.registry_client()).latest(f"{departures}-value")
    assert found is not None
    number, _, shape = found
    some = flights().departures.slice(0, 300).cast(shape.arrow)
    write(project, bare, codec.Encoder(shape, shape.arrow, number).encode(some))
    seen = from_topic(project, bare, None, rows_max=1_000)
    assert (seen.rows.num_rows, seen.unread_count, seen.schema) == (300, 1, "flights.Departure")
    assert from_topic(project, bare, None, rows_max=1).rows.to_pylist() == some.slice(299).to_pylist()


def test_pages_of_the_windows_that_were_judged(run: Run, project: Settings) -> None:
    control = f"c{uuid.uuid4().hex[:8]}"
    missing = run("contracts", "report", "--json", "--control", control, code=2).exception
    assert f"there is no topic {control}.verdicts, and so no verdict on a window" in str(missing)
    events = [event(0), event(1, [*GOOD, ("D1", 100)]), event(2, flow="b", topic="late"), event(3, about="drift"),
              event(0)]
    bare = [{k: v for k, v in json.loads(each.to_json()).items() if k != "kind"} for each in events]
    (project.project / "events.jsonl").write_text("".join(json.dumps(each) + "\n" for each in bare))
    run("produce", f"{control}.verdicts", "--schema", "control/verdicts", "--file", "events.jsonl")
    write(project, f"{control}.verdicts", [b"hello"])
    result = run("contracts", "report", "--out", "report", "--gx", "gx", "--control", control)
    assert f"passed over: {control}.verdicts/0@5: " in result.stderr
    assert "wrote report/index.html: 3 windows, 1 fails" in result.stderr
    assert "wrote 3 validation results below gx" in result.stderr
    index = Page((project.project / "report/index.html").read_text())
    assert [row[1:3] + row[4:6] for row in index.rows[1:]] == [
        ["b/hourlytrip", "late/0", "holds", "0"], ["trips/hourlytrip", "trips/0", "fails", "1"],
        ["trips/hourlytrip", "trips/0", "holds", "0"]]
    assert len(list((project.project / "report").iterdir())) == 4
    assert len(list((project.project / "gx").rglob("*.json"))) == 3
    lines = run("contracts", "report", "--json", "--flow", "trips", "--last", "1", "--control", control).stdout
    (one,) = map(json.loads, lines.splitlines())
    assert (one["window"], one["detail"]["statistics"]["unsuccessful_expectations"]) == (1, 1)
    error = run("contracts", "report", "--json", "--topic", "lat", "--control", control, code=2).exception
    assert "no window was judged of topic “lat”; did you mean “late”?" in str(error)
    assert "where to?" in str(run("contracts", "report", code=2).exception)
