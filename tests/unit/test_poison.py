"""Records that break a step: only they leave, everything else is as if they had never come."""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import flowtest, poison
from headrace import plan as planning
from headrace.batch import Outgoing, read_lineage
from headrace.connectors.quarantine import REASONS, STEP
from headrace.errors import ConfigError, EnvironmentFault, Retriable, UserError
from headrace.flow import PoisonSpec
from headrace.pipeline import Outputs, Pipeline
from headrace.plan import Plan
from headrace.state import State
from headrace.state.bottom import Memory
from tests.unit import flowkit

pytestmark = pytest.mark.unit

BRITTLE = '''
from headrace.config import Config
from headrace.processor import Processor


class BrittleConfig(Config):
    pass


class Brittle(Processor):
    """Counts what it lets through, in small and in keyed state, and breaks on negative distances, after it counted."""
    Config = BrittleConfig
    stateful = True

    def outputs(self, schema):
        return {"success": schema}

    def process(self, batch, ctx):
        at = (batch.meta.topics()[0], int(batch.meta.partitions()[0]))
        small, view = ctx.state(at), ctx.store(at)
        for distance in batch.rows.column("distance").to_pylist():
            small["n"] = small.get("n", 0) + 1
            key = str(distance).encode()
            (before,) = view.get([key])
            view.put([key], [b"%d" % (int(before or b"0") + 1)])
            ctx.count("seen", "all", 1)
            if distance is not None and distance < 0:
                raise ERROR(f"sqrt of {distance}")
        return {"success": batch}
'''
FLOW = """\
flow: departures
owner: tests
source:
  kafka: {topic: in, schema: departure}
steps:
  root: {brittle: {}}
sinks:
  out: {from: root, kafka: {}}
  held: {quarantine: {}}
"""


@cache
def project(error: str = "ValueError", more: str = "") -> Plan:
    import tempfile

    folder = Path(tempfile.mkdtemp())
    (folder / "processors").mkdir()
    (folder / "processors/brittle.py").write_text(BRITTLE.replace("ERROR", error))
    return planning.load(flowkit.write(folder, FLOW + more))


class World:
    """A plan at work, with real state, batch after batch."""

    def __init__(self, plan: Plan, **spec: Any) -> None:
        self.plan, self.state = plan, State(1 << 30)
        self.state.assign({}, {0: Memory()})
        self.budget = poison.Budget(PoisonSpec(**spec))
        self.pipeline = Pipeline(plan, writers=lambda schema_id: plan.source.schema, sink_ids={"out": 7},
                                 state=lambda step, at: self.state.small.of(at, step), store=self.state.view,
                                 partitions=lambda: [0])
        self.pipeline.open()

    def run(self, distances: Collection[float]) -> Outputs:
        given = [{"flight": n, "distance": d} for n, d in enumerate(distances)]
        out = poison.run(self.pipeline, flowtest.records(self.plan, given), self.state, self.budget)
        self.state.seal()
        self.state.commit({})
        return out

    def remembered(self) -> tuple[Any, ...]:
        return (dict(self.state.small.of(("in", 0), "root")), list(self.state.view("root", ("in", 0)).scan()))


def offsets(sent: Outgoing | None) -> list[int]:
    spans = [] if sent is None else [read_lineage(headers) for headers in sent.headers]
    return [span.offset_first for span in spans if span]


@settings(max_examples=60)
@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, -1.0]), min_size=1, max_size=40))
def test_everything_is_as_if_the_culprits_had_never_come(distances: list[float]) -> None:
    world, ideal = World(project(), records_max=100), World(project())
    out = world.run(distances)
    good = [n for n, d in enumerate(distances) if d > 0]
    bad = [n for n, d in enumerate(distances) if d < 0]
    assert offsets(out.sinks.get("out")) == good
    assert offsets(out.sinks.get("departures.dead-letter")) == bad
    assert (out.records_in, [(s.offset_first, s.offset_last) for s in out.spans]) == (
        len(distances), [(0, len(distances) - 1)])
    if good:
        ideal.run([distances[n] for n in good])
        assert out.counts.get(("root", "seen", "all")) == len(good)
    assert world.remembered() == ideal.remembered()


def test_a_dead_letter_is_what_came_with_its_reason() -> None:
    plan = project()
    out = World(plan).run([1, -4, 2])
    dead = out.sinks["departures.dead-letter"]
    assert list(dead.values) == [flowtest.records(plan, [{"flight": 0}, {"flight": 1, "distance": -4}])[1].value()]
    headers = dict(dead.headers[0])
    assert headers[STEP] == b"root"
    assert json.loads(headers[REASONS] or b"") == ["poison: ValueError in root: sqrt of -4.0"]
    assert out.counts["root", "dead_letter", "poison"] == 1


def test_one_culprit_costs_a_logarithm() -> None:
    world = World(project())
    runs = []
    run = world.pipeline.run
    world.pipeline.run = lambda messages: (runs.append(len(messages)), run(messages))[1]  # type: ignore[method-assign]
    world.run([*[1.0] * 700, -1.0, *[1.0] * 323])
    assert len(runs) == 1 + 2 * 10
    assert sum(runs) < 4 * 1024


def test_a_step_that_breaks_too_often_stops_and_leaves_nothing() -> None:
    world = World(project(), records_max=3, share_max=0.1)
    world.run([1.0] * 20)
    with pytest.raises(UserError, match=r"root breaks: 8 of the first .* and 7 may be; .*ValueError in root: sqrt"):
        world.run([-1.0] * 40)
    for _ in range(3):  # one at a time it may break three times
        assert offsets(world.run([-1.0]).sinks["departures.dead-letter"]) == [0]
    with pytest.raises(UserError, match="poison"):
        world.run([-1.0])
    world.run([1.0] * 30)  # what passes gives it credit
    assert offsets(world.run([-1.0]).sinks["departures.dead-letter"]) == [0]
    with pytest.raises(UserError, match="poison"):
        World(project(), records_max=0, share_max=0).run([1, -1])


@pytest.mark.parametrize("error", ["OSError", "MemoryError", "ImportError", "KeyboardInterrupt", "SystemExit"])
def test_what_is_no_records_fault_is_no_poison(error: str) -> None:
    with pytest.raises(eval(error), match="sqrt"):
        World(project(error)).run([1, -1, 1])


@pytest.mark.parametrize(("made", "kind"), [
    ("(lambda said: __import__('headrace.errors').errors.Retriable(said, retry_after_s=1))", Retriable),
    ("__import__('headrace.errors').errors.EnvironmentFault", EnvironmentFault),
    ("__import__('headrace.errors').errors.UserError", UserError)])
def test_our_own_errors_are_no_poison(made: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="sqrt of -1"):
        World(project(made)).run([1, -1, 1])


def test_a_panic_in_rust_is_poison() -> None:
    out = World(project("type('PanicException', (BaseException,), {})")).run([1, -1, 1])
    assert offsets(out.sinks["departures.dead-letter"]) == [1]


def test_a_flows_tests_know_its_dead_letters(tmp_path: Path) -> None:
    (tmp_path / "processors").mkdir()
    (tmp_path / "processors/brittle.py").write_text(BRITTLE.replace("ERROR", "ValueError"))
    test = ("tests:\n  - name: a root\n    given: [{flight: 1, distance: -1}, {flight: 2, distance: 4}]\n"
            "    expect: {out: 1, departures.dead-letter: [{flight: 1, reasons: poison}]}\n")
    (result,) = flowtest.run(flowkit.write(tmp_path, FLOW + test))
    assert result.problems == ()


@pytest.mark.parametrize(("more", "said"), [
    ("dead_letter: held\n", "“held” is a sink of the flow already"),
    ("dead_letter: in\n", "the flow would read what it writes"),
    ("dead_letter: 'a b'\n", "is no topic name"),
    ("poison: {share_max: 2}\n", "“share_max”"),
    ("poison: {records: 2}\n", "unknown key “records”"),
])
def test_lint(more: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        project("ValueError", more)


@pytest.mark.parametrize(("wide", "dead"), [(200_000, 1), (1_000_000, 0)])
def test_what_a_quarantine_cannot_take_is_a_dead_letter(tmp_path: Path, wide: int, dead: int) -> None:
    """Both what a step holds back and what is no record."""
    plan = planning.load(flowkit.write(tmp_path))
    pipeline = Pipeline(plan, writers=lambda schema_id: plan.source.schema, sink_ids={
        "flights.checked": 7, "flights.far": 8}, bytes_max={"flights.quarantine": wide})
    pipeline.open()
    given: list[Any] = [{"flight": 0, "distance": 5}, {"flight": 1, "carrier": "x" * 180_000},
                        {"bytes": "ff" * 180_000}, {"bytes": "ff"}, {"flight": 4, "tailnum": "N", "distance": 9}]
    out = pipeline.run(flowtest.records(plan, given))
    large = out.sinks.get("departures.dead-letter")
    assert sorted(offsets(large)) == [1, 2] * dead
    assert sorted(offsets(out.sinks["flights.quarantine"])) == [n for n in range(4) if n not in [1, 2] * dead]
    assert offsets(out.sinks["flights.checked"]) == [4]
    for headers in large.headers if large else ():
        first, why = json.loads(dict(headers)[REASONS] or b"")[:2]
        assert first == "oversized: too large for flights.quarantine"
        assert why.startswith(("tailnum_known", "wrong_magic"))


def test_what_no_topic_can_take_stops_the_flow(tmp_path: Path) -> None:
    plan = planning.load(flowkit.write(tmp_path))
    pipeline = Pipeline(plan, writers=lambda schema_id: plan.source.schema, sink_ids={
        "flights.checked": 7, "flights.far": 8}, bytes_max=dict.fromkeys(
            ("flights.checked", "flights.quarantine", "departures.dead-letter"), 100_000))
    pipeline.open()
    given = [{"flight": 1, "tailnum": "N1", "distance": 5, "carrier": "x" * 180_000}]
    with pytest.raises(UserError, match=r"flights.departures/0@0 cannot be processed \(oversized: 180,0.*too large for "
                                        "departures.dead-letter"):
        pipeline.run(flowtest.records(plan, given))
