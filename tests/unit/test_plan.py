"""What a flow means: the graph, the schemas along it, the topics it would create."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from headrace import plan as planning
from headrace.errors import ConfigError
from headrace.plan import ROWS, Edge
from tests.unit import flowkit

pytestmark = pytest.mark.unit


def test_a_plan_is_the_flow_with_its_schemas(tmp_path: Path) -> None:
    plan = planning.load(flowkit.write(tmp_path))
    assert (plan.flow, plan.owner, plan.project) == ("departures", "flight-ops", tmp_path)
    assert [(s.name, s.kind, s.inputs[0]) for s in plan.steps] == [
        ("check", "validate", ROWS), ("enrich", "derive", Edge("check", "success")),
        ("split", "route", Edge("enrich", "success"))]
    assert plan.step("enrich").line == 7
    assert plan.step("enrich").outputs["success"].field("long_haul").type == pa.bool_()
    assert set(plan.step("split").outputs) == {"far", "unmatched"}
    checked, far, quarantine = plan.sinks
    assert checked.schema is not None
    assert checked.schema.arrow.names == [*(f["name"] for f in flowkit.SCHEMA["fields"]), "long_haul"]
    assert checked.schema.name == "flights.checked"
    assert far.inputs == (Edge("split", "far"),)
    assert (quarantine.schema, quarantine.inputs) == (None, (Edge("check", "failure"),))
    assert plan.rejects == "flights.quarantine"
    assert plan.drop == (Edge("split", "unmatched"),)


def test_topics_are_as_declared_and_sinks_follow_the_source(tmp_path: Path) -> None:
    topics = {t.name: (t.partitions, dict(t.config)) for t in planning.load(flowkit.write(tmp_path)).topics}
    assert topics == {
        "flights.departures": (3, {"retention.ms": "-1"}), "flights.checked": (2, {"cleanup.policy": "compact"}),
        "flights.far": (3, {}), "flights.quarantine": (3, {"max.message.bytes": "10485760"}),
        "departures.dead-letter": (3, {"retention.ms": "-1", "max.message.bytes": "20971520"})}


def test_steps_stand_after_what_they_read_however_they_are_written(tmp_path: Path) -> None:
    steps = """\
  split:  {from: enrich, route: {far: "long_haul"}}
  enrich: {from: check, derive: {long_haul: "distance > 2000"}}
  check:  {from: source, validate: {suite: departure}}
"""
    lines = flowkit.FLOW.splitlines(keepends=True)
    plan = planning.load(flowkit.write(tmp_path, "".join([*lines[:5], steps, *lines[8:]])))
    assert [s.name for s in plan.steps] == ["check", "enrich", "split"]


def test_several_outputs_of_one_shape_meet_in_a_sink_and_rejects_where_they_are_sent(tmp_path: Path) -> None:
    plan = planning.load(flowkit.write(tmp_path, """\
flow: f
owner: o
source: {kafka: {topic: t, schema: departure}}
steps:
  check: {validate: {suite: departure}}
  near: {filter: {where: "distance < 100"}}
sinks:
  all: {from: [near, near.unmatched], kafka: {schema: departure}}
  bad: {from: check.failure, quarantine: {}}
  broken: {from: source.reject, quarantine: {}}
"""))
    assert plan.sink("all").inputs == (Edge("near", "success"), Edge("near", "unmatched"))
    assert (plan.rejects, plan.sink("broken").inputs) == ("broken", ())


def test_a_flow_may_have_no_steps_and_drop_its_rejects(tmp_path: Path) -> None:
    plan = planning.load(flowkit.write(tmp_path, """\
flow: copy
owner: o
source: {kafka: {topic: t, schema: departure}}
sinks: {copied: {from: source, kafka: {schema: departure}}}
drop: [source.reject]
"""))
    assert (plan.steps, plan.rejects, plan.sink("copied").inputs) == ((), None, (ROWS,))


def test_a_wrong_flow_has_no_plan(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        planning.load(flowkit.write(tmp_path, flowkit.FLOW.replace("tailnum}", "tailnmu}")))
    assert [f.line for f in caught.value.findings] == [4]


def test_the_plan_keeps_remarks_and_warnings(tmp_path: Path) -> None:
    plan = planning.load(flowkit.write(tmp_path, flowkit.FLOW.replace("owner: flight-ops\n", "")))
    assert [f.severity for f in plan.notes if "owner" in f.message] == ["warning"]
