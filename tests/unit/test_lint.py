"""Lint: one mistake is one finding, at its line, with what to do; and the command that prints them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from headrace import lint as linting
from headrace import marked, reference
from headrace import plan as planning
from headrace.cli import build
from tests.unit import flowkit

pytestmark = pytest.mark.unit


def errors(path: Path) -> list[tuple[int, str]]:
    return [(f.line, f.message) for f in planning.lint(path) if f.severity == "error"]


def test_a_right_flow_has_no_finding_but_remarks(tmp_path: Path) -> None:
    assert [f for f in planning.lint(flowkit.write(tmp_path)) if f.severity != "info"] == []


ONE_MISTAKE = [  # (what is written, what instead, the line, what is said)
    ("schema: departure,", "schema: departur,", 4, "did you mean “departure”?"),
    ("schema: departure,", "schema: ../departure,", 4, "there is no schema “../departure”"),
    ("topic: flights.departures,", "topic: flights/departures,", 4, "is no topic name"),
    ("partitions: 3", "partitons: 3", 4, "unknown key “partitons”; did you mean “partitions”?"),
    ("partitions: 3", "partitions: many", 4, "“partitions”: "),
    ("kafka: {topic: flights.dep", "kafak: {topic: flights.dep", 4, "its source is kafka"),
    ("key: tailnum}\nsteps", "key: tailnmu}\nsteps", 4, "did you mean “tailnum”?"),
    ("check:  {validate", "check:  {valdate", 6, "there is no processor “valdate”; did you mean “validate”?"),
    ("suite: departure", "suit: departure", 6, "unknown key “suit”; did you mean “suite”?"),
    ("suite: departure", "suite: arrival", 6, "arrival"),
    ("distance > 2000", "distnace > 2000", 7, "distnace"),
    ("from: enrich, route", "from: enrcih, route", 8, "there is no step “enrcih”; did you mean “enrich”?"),
    ("from: split.far", "from: split.fra", 11, "“split” has no output “fra”; did you mean “split.far”?"),
    ("from: enrich, route", "from: split, route", 8, "in a ring: split ← split"),
    ("from: enrich, kafka: {key: tailnum, compact", "kafka: {key: tailnum, compact", 10, "says not what it takes"),
    ("{key: tailnum, compact", "{key: tail, compact", 10, "the key “tail” is no column of the rows"),
    ("{key: tailnum, compact", "{key: long_haul, compact", 10, "is bool: a key is text"),
    ("{key: tailnum, compact", "{schema: absent, compact", 10, "there is no schema “absent”"),
    ("flights.far: {from: split.far, kafka", "flights.far: {from: split.far, kafak", 11, "did you mean “kafka”?"),
    ("flights.far: {from: split.far,", "flights_checked: {from: split.far,", 11, "its metrics would confuse them"),
    ("flights.far: {from: split.far,", "flights.departures: {from: split.far,", 11, "would read what it writes"),
    ("from: split.far", "from: [split.far, source.reject]", 11, "only a quarantine can take them"),
    ("from: split.far", "from: [split.far, source]", 11, "have different columns: long_haul (bool, absent)"),
    ("from: split.far", "from: [split.far, source.rejects]", 11, "the source has no output “rejects”"),
    ("drop: [split.unmatched]", "", 8, "split.unmatched goes nowhere: give it to a step or a sink, or say `drop:"),
    ("drop: [split.unmatched]", "drop: [split.unmatched, split.far]", 13, "split.far is dropped, and goes to"),
    ("drop: [split.unmatched]", "drop: [split.unmatched, split.near]", 13, "has no output “near”"),
    ("drop: [split.unmatched]", "drop: [split.unmatched, splat.near]", 13, "did you mean “split”?"),
    ("flow: departures", "flow: my departures", 1, "a flow cannot be called “my departures”"),
]


@pytest.mark.parametrize(("written", "instead", "line", "said"), ONE_MISTAKE, ids=[i for _, i, _, _ in ONE_MISTAKE])
def test_one_mistake_is_one_finding(tmp_path: Path, written: str, instead: str, line: int, said: str) -> None:
    assert written in flowkit.FLOW
    told = errors(flowkit.write(tmp_path, flowkit.FLOW.replace(written, instead)))
    missing_too = instead == "suit: departure"  # the key that is wrong is the one that is missing
    assert len(told) == 1 + missing_too, told
    assert told[0][0] == line
    assert said in told[0][1]


def test_mistakes_are_told_all_at_once_and_none_for_what_depends_on_them(tmp_path: Path) -> None:
    flow = flowkit.FLOW.replace("departur}", "x").replace("distance > 2000", "distnace > 2000").replace(
        "from: split.far", "from: split.far, bogus: {}").replace("retention_ms: -1", "retention_ms: -2")
    assert [line for line, _ in errors(flowkit.write(tmp_path, flow))] == [4, 7, 11]


def test_rows_must_fit_the_schema_of_their_sink(tmp_path: Path) -> None:
    path = flowkit.write(tmp_path, flowkit.FLOW.replace("flights.far: {from: split.far, kafka: {}}",
                                                        "flights.far: {from: split.far, kafka: {schema: scored}}"))
    (tmp_path / "schemas" / "scored.avsc").write_text(json.dumps({"type": "record", "name": "scored", "fields": [
        {"name": "flight", "type": "string"}, {"name": "p_late", "type": "double"}]}))
    told = errors(path)
    assert {line for line, _ in told} == {11}
    assert any("p_late" in message for _, message in told)
    assert any("flight" in message for _, message in told)


def test_a_schema_that_cannot_be_read_is_told_once(tmp_path: Path) -> None:
    assert [line for line, _ in errors(flowkit.write(tmp_path, schema="{"))] == [4]
    assert [line for line, _ in errors(flowkit.write(tmp_path, schema='{"type": "recrod", "name": "x"}'))] == [4]


REJECTS = """\
flow: f
owner: o
source: {kafka: {topic: t, schema: departure}}
sinks:
  copied: {from: source, kafka: {}}
"""


@pytest.mark.parametrize(("more", "said"), [
    ("", "records that cannot be read have nowhere to go"),
    ("  q: {quarantine: {}}\n", None),
    ("  q: {quarantine: {}}\n  r: {quarantine: {}}\n", "which quarantine takes records that cannot be read?"),
    ("  q: {from: source.reject, quarantine: {}}\n  r: {quarantine: {}}\n", None),
    ("  q: {from: source.reject, quarantine: {}}\n  r: {from: source.reject, quarantine: {}}\n", "goes to “q” already"),
    ("drop: [source.reject]\n", None),
    ("  q: {from: source.reject, quarantine: {}}\ndrop: [source.reject]\n", "is dropped, and goes to “q” too"),
])
def test_what_cannot_be_read_has_one_home(tmp_path: Path, more: str, said: str | None) -> None:
    told = errors(flowkit.write(tmp_path, REJECTS + more))
    assert (len(told), said is None or said in told[0][1]) == (said is not None, True), told


TRIGGER = """\
flow: f
owner: o
source: {kafka: {topic: t, schema: departure}}
steps:
  check: {validate: {suite: departure}}
  label: {from: SOURCE, filter: {where: "distance > 0"}}
  learn: {trigger: {measure: volume, window: {records: 100}, threshold: 10, emit: {retrain: {model: delay}}}}
sinks:
  headrace.retrain: {from: learn, kafka: {}}
  good: {from: check, kafka: {}}
  q: {from: check.failure, quarantine: {}}
drop: [label.unmatched]
"""


@pytest.mark.parametrize(("above", "fine"), [("check", True), ("source", False), ("check.failure", False)])
def test_bad_data_never_asks_for_training(tmp_path: Path, above: str, fine: bool) -> None:
    told = [m for _, m in errors(flowkit.write(tmp_path, TRIGGER.replace("SOURCE", above)))]
    assert [m for m in told if "no suite has passed" not in m] == []
    assert bool(told) is not fine


def test_tests_speak_of_fields_and_sinks_there_are(tmp_path: Path) -> None:
    told = errors(flowkit.write(tmp_path, flowkit.FLOW + """\
tests:
  - name: t
    given: [{flight: 1, tailnmu: x}, {bytes: "00"}, null]
    expect: {flights.quarantined: 1, flights.far: [{flihgt: 1}], flights.quarantine: [{reasons: x, flight: 1}]}
"""))
    assert [line for line, _ in told] == [16, 17, 17]
    assert "did you mean “tailnum”?" in told[0][1]


def test_two_flows_of_one_name_are_told(tmp_path: Path) -> None:
    flowkit.write(tmp_path)
    flowkit.write(tmp_path, name="other")
    told = [f for f in linting.lint(linting.files([], tmp_path), tmp_path) if f.severity == "error"]
    assert [(Path(f.file).name, f.line) for f in told] == [("other.yaml", 1)]


def test_other_files_are_linted_by_what_they_are(tmp_path: Path) -> None:
    flowkit.write(tmp_path)
    files = {
        "schemas/broken.avsc": '{"type": "record",\n "name": }', "schemas/odd.avsc": '{"type": "recrod", "name": "x"}',
        "schemas/departure.expectations.json": json.dumps({"name": "d", "expectations": [
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "absent"}}]}),
        "connectors/a.json": '{"name": "a",\n "connector.class": "fiel",\n "tasks.max": 1}',
        "connectors/b.json": '{"name": "b", "config": {"name": "c", "topic": "t"}}',
        "connectors/c.json": '{"name": "c", "connector.class": "org.example.Sink"}', "connectors/d.json": "[]",
    }
    (tmp_path / "connectors").mkdir()
    for path, text in files.items():
        (tmp_path / path).write_text(text)
    told = [(Path(f.file).name, f.line, f.message) for f in linting.lint([tmp_path / path for path in files], tmp_path)
            if f.severity == "error"]
    assert [(name, line) for name, line, _ in told] == [
        ("a.json", 2), ("a.json", 3), ("b.json", 0), ("b.json", 1), ("d.json", 1),
        ("broken.avsc", 2), ("departure.expectations.json", 0), ("odd.avsc", 0)]
    assert "did you mean “file”?" in told[0][2]
    assert "absent" in told[6][2]


def test_the_command_prints_findings_and_exits_1_for_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flowkit.write(tmp_path)
    run = CliRunner().invoke(build(), ["lint"])
    assert (run.exit_code, "0 errors" in run.stderr) == (0, True), run.output
    monkeypatch.chdir("/")  # a path says which project is meant
    assert CliRunner().invoke(build(), ["lint", str(tmp_path / "flows" / "departures.yaml")]).exit_code == 0
    monkeypatch.chdir(tmp_path)
    flowkit.write(tmp_path, flowkit.FLOW.replace("suite: departure", "suit: departure"))
    run = CliRunner().invoke(build(), ["lint", "flows/departures.yaml"])
    assert run.exit_code == 1
    assert "flows/departures.yaml:6: unknown key “suit”; did you mean “suite”?" in run.stdout
    told = json.loads(CliRunner().invoke(build(), ["lint", "--json"]).stdout)
    assert (told["files"], told["errors"]) == (3, 2)
    assert told["findings"][0] == {"file": "flows/departures.yaml", "line": 6, "severity": "error",
                                   "message": "unknown key “suit”; did you mean “suite”?"}


def test_the_schema_for_editors_agrees_with_lint(tmp_path: Path) -> None:
    """What lint takes is valid by the JSON Schema, and a key that lint refuses is not."""
    validator = jsonschema.Draft202012Validator(reference.flow_schema(tmp_path))
    jsonschema.Draft202012Validator.check_schema(validator.schema)
    right = flowkit.FLOW + "tests: [{name: t, given: [{flight: 1}, null], expect: {flights.far: 1}}]\n"
    assert list(validator.iter_errors(marked.parse(right, "f").data)) == []
    for written, instead in (("suite: departure", "suit: departure"), ("check:  {validate", "check:  {valdate"),
                             ("owner:", "ownr:"), ("partitions: 3", "partitions: many"), ("quarantine: {}", "x: {}"),
                             ("from: enrich, route", "from: {enrich: 1}, route"), ("flow: departures", "")):
        assert written in right
        assert list(validator.iter_errors(marked.parse(right.replace(written, instead), "f").data)), instead
