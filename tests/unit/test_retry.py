"""`retry`: what a step could not do is tried again, row by row and in order, before it leaves."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import flowtest, poison
from headrace import plan as planning
from headrace.errors import ConfigError, Retriable, UserError
from headrace.flow import PoisonSpec
from headrace.pipeline import Outputs, Pipeline
from headrace.plan import Plan
from headrace.retry import Again
from headrace.state import State
from tests.unit import flowkit
from tests.unit.test_poison import offsets

pytestmark = pytest.mark.unit

SERVICE = '''
from collections import Counter

import pyarrow as pa

from headrace import Config, Processor, Retriable


class ServiceConfig(Config):
    pass


class Service(Processor):
    """Fails each row so often as its distance says; is away altogether while `away` is above 0."""
    Config = ServiceConfig

    def outputs(self, schema):
        return {"success": schema, "failure": schema}

    def open(self, ctx):
        self.calls, self.away = Counter(), 0

    def process(self, batch, ctx):
        if self.away:
            self.away -= 1
            raise Retriable("the service is away", retry_after_s=9)
        failing = []
        for flight, distance in zip(*(batch.rows.column(c).to_pylist() for c in ("flight", "distance"))):
            self.calls[flight] += 1
            failing.append(self.calls[flight] <= (distance or 0))
            if flight == 99:
                ctx.state(("in", 0))["n"] = 1
        mask = pa.array(failing)
        failed = batch.take(mask)
        reasons = pa.array([["refused: 503"]] * len(failed), pa.list_(pa.string()))
        import pyarrow.compute as pc
        return {"success": batch.take(pc.invert(mask)), "failure": failed.with_reasons(reasons)}
'''
FLOW = """\
flow: departures
owner: tests
source:
  kafka: {topic: in, schema: departure}
steps:
  ask: {service: {}, retry: {times: 3, wait_s: 0.5, wait_max_s: 1.5}}
sinks:
  out: {from: ask, kafka: {}}
  held: {from: ask.failure, quarantine: {}}
"""


@cache
def project(flow: str = FLOW) -> Plan:
    folder = Path(mkdtemp())
    (folder / "processors").mkdir()
    (folder / "processors/service.py").write_text(SERVICE)
    return planning.load(flowkit.write(folder, flow))


def world() -> tuple[Pipeline, Any]:
    plan = project()
    state = State(1 << 30)
    pipeline = Pipeline(plan, writers=lambda schema_id: plan.source.schema, sink_ids={"out": 7},
                        state=lambda step, at: state.small.of(at, step), store=state.view, partitions=lambda: [0])
    pipeline.open()
    return pipeline, plan.steps[0].processor


def until_done(pipeline: Pipeline, distances: list[float], **more: Any) -> tuple[Outputs, list[float]]:
    """What becomes of the batch, and the waits on its way."""
    waits = []
    while True:
        given: list[Any] = [{"flight": n, "distance": d} for n, d in enumerate(distances)]
        try:
            out = poison.run(pipeline, flowtest.records(pipeline.plan, given), State(1), poison.Budget(PoisonSpec()))
        except Again as error:
            waits.append(error.retry_after_s)
        else:
            pipeline.settled()
            return out, waits


@settings(max_examples=60)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_each_row_is_tried_until_it_is_done_or_its_tries_are_used(distances: list[float]) -> None:
    pipeline, service = world()
    out, waits = until_done(pipeline, distances)
    done = [n for n, d in enumerate(distances) if d <= 3]
    assert offsets(out.sinks.get("out")) == done
    assert offsets(out.sinks.get("held")) == [n for n in range(len(distances)) if n not in done]
    assert service.calls == Counter({n: 1 + min(int(d), 3) for n, d in enumerate(distances)})
    assert waits == [0.5, 1.0, 1.5][:int(max(distances))]
    assert out.counts.get(("ask", "retried", "rows"), 0) == sum(d > 0 for d in distances)


def test_a_service_that_is_away_is_asked_again_and_then_given_up() -> None:
    pipeline, service = world()
    service.away = 3
    out, waits = until_done(pipeline, [0.0, 0.0])
    assert (offsets(out.sinks["out"]), waits) == ([0, 1], [0.5, 1.0, 1.5])
    service.away = 4
    out, waits = until_done(pipeline, [0.0, 0.0])
    assert (offsets(out.sinks["held"]), waits) == ([0, 1], [0.5, 1.0, 1.5])
    assert b"unavailable: the service is away" in dict(out.sinks["held"].headers[0])["headrace.reasons"]  # type: ignore[operator]
    assert "out" not in out.sinks


def test_another_batch_begins_anew() -> None:
    pipeline, service = world()
    messages = flowtest.records(pipeline.plan, [{"flight": 1, "distance": 2}, {"flight": 2, "distance": 0}])
    with pytest.raises(Again):
        pipeline.run(messages)
    with pytest.raises(Again):
        pipeline.run(messages[:1])  # as after a rebalance
    assert service.calls == {1: 2, 2: 1}
    assert offsets(pipeline.run(messages[:1]).sinks["out"]) == [0]


def test_a_step_that_is_tried_again_keeps_no_state() -> None:
    pipeline, _ = world()
    with pytest.raises(UserError, match="ask keeps state"):
        pipeline.run(flowtest.records(pipeline.plan, [{"flight": 99}]))


def test_without_failure_among_them_a_pause_is_a_pause() -> None:
    plan = project(FLOW.replace("wait_max_s: 1.5", "on: [failure]"))
    assert plan.steps[0].retry is not None
    pipeline, service = world()
    service.away = 1
    with pytest.raises(Retriable, match="1 rows are tried again, 1 of 3"):
        pipeline.run(flowtest.records(plan, [{"flight": 1}]))


def test_a_flows_tests_do_not_wait(tmp_path: Path) -> None:
    (tmp_path / "processors").mkdir()
    (tmp_path / "processors/service.py").write_text(SERVICE)
    test = ("tests:\n  - name: tries\n    given: [{flight: 1, distance: 3}, {flight: 2, distance: 4}]\n"
            "    expect: {out: [{flight: 1}], held: [{flight: 2, reasons: refused}]}\n")
    (result,) = flowtest.run(flowkit.write(tmp_path, FLOW.replace("wait_s: 0.5, wait_max_s: 1.5", "wait_s: 60") + test))
    assert result.problems == ()


@pytest.mark.parametrize(("written", "said"), [
    ("service: {}, retry: {times: 0}", "“times”"),
    ("service: {}, retry: {wait: 1}", "unknown key “wait”"),
    ("service: {}, retry: {wait_s: 90}", "“wait_s”"),
    ("service: {}, retry: {on: [failed]}", "ask has no output “failed”; did you mean “failure”"),
    ("service: {}, retry: {on: [success]}", "“success” is what ask has done"),
    ("dedupe: {key: [flight], within: 1h, on: at}, retry: {}", "a dedupe step cannot be tried again row by row"),
])
def test_lint(written: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        project(FLOW.replace("service: {}, retry: {times: 3, wait_s: 0.5, wait_max_s: 1.5}", written))
