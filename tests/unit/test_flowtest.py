"""A flow's own tests: real codec, processors and sinks; what they catch, and how they say it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace import flowtest
from headrace.cli import build
from tests.unit import flowkit

pytestmark = pytest.mark.unit


def problems(folder: Path, given: str, expect: str, flow: str = flowkit.FLOW) -> tuple[str, ...]:
    path = flowkit.write(folder, f"{flow}tests:\n  - name: t\n    given: {given}\n    expect: {expect}\n")
    (result,) = flowtest.run(path)
    assert (result.test, result.line) == ("t", flow.count("\n") + 2)
    return result.problems


GOOD = "{flight: 1, tailnum: N1, distance: 2500, at: 2013-01-01T05:00:00Z}"
BAD = "{flight: 2, distance: 9000}"


@pytest.mark.parametrize("expect", [
    "{flights.checked: 1, flights.far: 1, flights.quarantine: 1}",
    "{flights.far: [{flight: 1, carrier: UA, long_haul: true, distance: 2500, at: 2013-01-01T06:00:00+01:00}]}",
    "{flights.quarantine: [{flight: 2, tailnum: null, reasons: [tailnum_known, far_enough]}]}",
])
def test_what_holds_passes(tmp_path: Path, expect: str) -> None:
    assert problems(tmp_path, f"[{GOOD}, {BAD}]", expect) == ()


@pytest.mark.parametrize(("expect", "said"), [
    ("{flights.checked: 2}", "flights.checked: 1 record, 2 expected (held back: tailnum_known, far_enough)"),
    ("{flights.far: [{flight: 7}]}", "flights.far: record 1: flight is 1, 7 expected"),
    ("{flights.far: [{long_haul: false}]}", "long_haul is True, False expected"),
    ("{flights.far: []}", "flights.far: 1 record, 0 expected"),
    ("{flights.far: [{at: 2013-01-01T05:00:01Z}]}", "at is "),
    ("{flights.quarantine: [{reasons: far_enough}]}", "reasons is ['tailnum_known', 'far_enough'], ['far_enough'] exp"),
])
def test_what_does_not_hold_is_told(tmp_path: Path, expect: str, said: str) -> None:
    (told,) = problems(tmp_path, f"[{GOOD}, {BAD}]", expect)
    assert said in told


def test_payloads_that_are_no_records_are_held_back(tmp_path: Path) -> None:
    given = '[{bytes: "00000000010204"}, {bytes: ""}, {bytes: "ff"}, {bytes: "000000000902"}, null]'
    assert problems(tmp_path, given, "{flights.quarantine: 5, flights.checked: 0}") == ()
    dropping = flowkit.FLOW.replace("partitions: 3,", "partitions: 3, tombstones: drop,")
    assert problems(tmp_path, given, "{flights.quarantine: 4}", dropping) == ()


@pytest.mark.parametrize(("given", "said"), [
    ("[{tailnum: x}]", "given record 1: “flight” has no value, and may not be null"),
    ("[{flight: many}]", "given record 1: “flight” cannot be 'many'"),
    ("[{flight: 1}, {flight: 99999999999}]", "given record 2: “flight” cannot be 99999999999"),
    ("[{flight: 1, at: yesterday}]", "“at” cannot be 'yesterday'"),
    ("[{bytes: xyz}]", "`bytes` is not hexadecimal"),
])
def test_a_value_no_field_can_hold_is_told(tmp_path: Path, given: str, said: str) -> None:
    (told,) = problems(tmp_path, given, "{flights.checked: 1}")
    assert said in told


def test_one_test_does_not_reach_another(tmp_path: Path) -> None:
    """A trigger's window must be empty at the start of each test: one late flight twice is not two of them."""
    flow = """\
flow: f
owner: o
source: {kafka: {topic: t, schema: departure}}
steps:
  many: {trigger: {measure: count, when: "flight = 1", window: {records: 3}, threshold: 2, emit: {alert: {message: m}}}}
sinks:
  headrace.alerts: {from: many, kafka: {}}
drop: [source.reject]
tests:
"""
    for flights, fires in (([1], 0), ([1, 2, 2, 2, 2, 2], 0), ([1, 1, 2, 2, 2, 2], 1)):
        given = ", ".join(f"{{flight: {n}}}" for n in flights)
        flow += f"  - {{name: t, given: [{given}], expect: {{headrace.alerts: {fires}}}}}\n"
    assert [r.problems for r in flowtest.run(flowkit.write(tmp_path, flow))] == [(), (), ()]


def test_the_command_exits_1_when_a_test_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flowkit.write(tmp_path, flowkit.FLOW + f"tests:\n  - {{name: holds, given: [{GOOD}], expect: {{flights.far: 1}}}}\n"
                                           f"  - {{name: does not, given: [{BAD}], expect: {{flights.far: 1}}}}\n")
    for args in (["test"], ["test", "departures"], ["test", "flows"], ["test", "."]):
        run = CliRunner().invoke(build(), args)
        assert run.exit_code == 1, run.output
        assert "✓ departures: holds\n✗ departures: does not\n    flows/departures.yaml:16: flights.far: 0" in run.stdout
    told = json.loads(CliRunner().invoke(build(), ["test", "--json"]).stdout)
    assert (told["tests"], told["failed"], [r["passed"] for r in told["results"]]) == (2, 1, [True, False])


def test_the_documentations_examples_lint_and_pass(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "flows.md").read_text()
    example, _, more = re.findall(r"```yaml\n(.*?)```", page, re.S)
    path = flowkit.write(tmp_path, example + more.removeprefix("tests:\n"))
    far = {**flowkit.SCHEMA, "name": "departure_far", "fields": [
        *flowkit.SCHEMA["fields"], {"name": "long_haul", "type": ["null", "boolean"], "default": None}]}
    (tmp_path / "schemas" / "departure_far.avsc").write_text(json.dumps(far))
    assert [r.problems for r in flowtest.run(path)] == [(), (), ()]
