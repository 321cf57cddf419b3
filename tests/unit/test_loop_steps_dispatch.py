"""`dispatch` and `gate` by themselves: what becomes of a request, whatever the other side says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.batch import Batch, Frames, Meta, Span
from headrace.control import Retrain, RetrainResult, Verdict, digest
from headrace.errors import Retriable
from headrace.loop.dispatch import Refused, Resources, Status
from headrace.loop.steps import Said, batch_of, events_of, shape
from headrace.processor import Context
from headrace.processors.dispatch import Dispatch
from headrace.processors.gate import Gate
from headrace.state import KeyedState
from headrace.state.bottom import Memory
from headrace.testing import Record

pytestmark = pytest.mark.unit
AT = datetime(2026, 1, 1, tzinfo=UTC)
QUEUE = {"backoff_s": 1, "attempts_max": 3}


class Side:
    """The other side: what it is to answer, and what it was asked."""

    name = "scripted"

    def __init__(self) -> None:
        self.answers: list[Status | Exception] = []
        self.usual: Status | Exception = Status("running", "r")
        self.cancelling: Exception | None = None
        self.asked: list[tuple[str, str]] = []

    def _answer(self) -> Status:
        answer = self.answers.pop(0) if self.answers else self.usual
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit(self, request: Retrain, resources: Resources) -> Status:
        self.asked.append(("submit", request.id))
        return self._answer()

    def poll(self, trigger: str, run: str | None) -> Status:
        self.asked.append(("poll", trigger))
        return self._answer()

    def cancel(self, trigger: str, run: str | None) -> None:
        self.asked.append(("cancel", trigger))
        if self.cancelling:
            raise self.cancelling


class Driven:
    """The step with its state; every call is committed, unless it is said to be lost."""

    def __init__(self, **config: Any) -> None:
        self.step = Dispatch(Dispatch.Config.model_validate({"queue": QUEUE, **config}), project=Path())
        self.step.outputs(shape(Retrain))
        self.side = Side()
        self.step._dispatcher = self.side
        self.now_ms, self.offset = 0, 0
        self.state = KeyedState()
        self.state.assign(0, Memory())
        self.partitions = [0]
        self.ctx = Context("f", "s", Path(), store=lambda at: self.state.view(at[1], "s"),
                           partitions=lambda: self.partitions, now_ms=lambda: self.now_ms)

    def _done(self, out: Any, lost: bool = False) -> list[RetrainResult]:
        said = [event for batch in out.values() for event, _ in events_of(batch, RetrainResult)]
        if lost:
            self.state.undo()
            return said
        self.state.seal()
        self.state.commit({})
        return said

    def ask(self, *names: str, **more: Any) -> list[RetrainResult]:
        asked = [request(name, **more) for name in names]
        frames = [Record(b"", "headrace.retrain", 0, self.offset + n) for n in range(len(asked))]
        self.offset += len(asked)
        rows = batch_of([Said(each, b"", Span("", 0, 0, 0)) for each in asked], shape(Retrain)).rows
        return self._done(self.step.process(Batch(rows, Meta(Frames(frames))), self.ctx))

    def tick(self, *, after_s: float = 1.0, lost: bool = False) -> list[tuple[str, str, str]]:
        """(trigger, status, reason) of what a tick says."""
        self.now_ms += int(after_s * 1000)
        return [(each.trigger, each.status, each.reason) for each in self._done(self.step.tick(self.ctx), lost)]

    def until(self, status: str, ticks: int = 20, after_s: float = 1.0) -> tuple[str, str, str]:
        for _ in range(ticks):
            for each in self.tick(after_s=after_s):
                if each[1] == status:
                    return each
        raise AssertionError(f"{status} was not said in {ticks} ticks; asked: {self.side.asked}")


def request(name: str = "a", **more: Any) -> Retrain:
    told: dict[str, Any] = {"model": f"m-{name}", "reason": "why", "priority": 0, **more}
    return Retrain(id=name, at=AT, flow="f", step="s", topic="t", partition=0, window=0, offset_first=0, offset_last=9,
                   window_start=None, window_end=None, measure="asked", condition=None, rows=1, matched=1, observed=1.0,
                   threshold=0.0, champion="4", **told)


def test_from_a_request_to_its_result() -> None:
    d = Driven()
    assert d.ask("a", "a") == []
    assert d.tick() == [], "a claim leaves once it is committed"
    assert d.side.asked == []
    assert d.tick() == [("a", "started", "")]
    assert d.tick() == []
    told = {"version": "7", "candidates": {"all": "7"}, "metrics": {"all.auc": 0.7}, "cpu_s": 1.5,
            "run": "not theirs to say", "strange": object()}
    d.side.usual = Status("succeeded", "r", "", told)
    [result] = d._done(d.step.tick(_later(d)))
    assert (result.id, result.status, result.version, result.run) == (digest("a", "succeeded"), "succeeded", "7", "r")
    assert (dict(result.candidates), result.champion, result.asked_at, result.cpu_s) == ({"all": "7"}, "4", AT, 1.5)
    asked = len(d.side.asked)
    assert d.ask("a") == []
    assert [d.tick() for _ in range(4)] == [[]] * 4
    assert len(d.side.asked) == asked, "a late repeat is no second run"
    assert not [key for key, _ in d.state.view(0, "s").scan(b"request")], "it is forgotten"


def _later(d: Driven) -> Context:
    d.now_ms += 1_000
    return d.ctx


def test_a_crash_after_the_hand_over_hands_it_over_again() -> None:
    d = Driven()
    d.ask("a")
    d.tick()
    assert d.tick(lost=True) == [("a", "started", "")]
    assert d.tick() == [("a", "started", "")], "said once in what is committed"
    assert d.side.asked == [("submit", "a")] * 2


def test_over_at_once() -> None:
    d = Driven()
    d.side.usual = Status("failed", "r", "no data")
    d.ask("a")
    d.tick()
    assert d.tick() == [("a", "started", ""), ("a", "failed", "no data")]


def test_what_cannot_be_known_is_tried_again_and_given_up() -> None:
    d = Driven(breaker={"failures_max": 99})
    d.side.usual = Retriable("no answer", retry_after_s=0.1)
    d.side.cancelling = Retriable("no answer here either", retry_after_s=0.1)
    d.ask("a")
    trigger, status, reason = d.until("failed")
    assert (trigger, status) == ("a", "failed")
    assert "given up after 3 attempts: no answer" in reason
    assert d.side.asked == [("submit", "a")] * 3 + [("cancel", "a")]


def test_refused() -> None:
    d = Driven()
    d.side.usual = Refused("there are no GPUs here")
    d.ask("a", "b")
    assert d.until("refused")[:2] == ("a", "refused")
    assert d.until("refused")[:2] == ("b", "refused"), "the slot is free again"


def test_an_unknown_run_is_handed_over_again() -> None:
    d = Driven()
    d.ask("a")
    d.until("started")
    d.side.answers = [Status("unknown"), Status("running", "r2"), Status("succeeded", "r2", "", {})]
    said = [each for _ in range(8) for each in d.tick(after_s=2.0)]
    assert said == [("a", "succeeded", "")], "and its start is not said twice"
    assert [what for what, _ in d.side.asked] == ["submit", "poll", "submit", "poll"]


@pytest.mark.parametrize("trouble", [Retriable("away", retry_after_s=0.5), Refused("the password is wrong")])
def test_trouble_while_it_runs_is_waited_out(trouble: Exception) -> None:
    """Whatever it is, the run is there; a step that raised here would take the whole loop down."""
    d = Driven(breaker={"failures_max": 99})
    d.ask("a")
    d.until("started")
    d.side.usual = trouble
    assert [d.tick(after_s=10.0) for _ in range(9)] == [[]] * 9
    d.side.usual = Status("succeeded", "r", "", {})
    assert d.until("succeeded", after_s=10.0)[0] == "a"


@pytest.mark.parametrize("cancelling", [None, Retriable("away", retry_after_s=1.0), Refused("no right to")])
def test_a_run_without_an_end_is_given_up(cancelling: Exception | None) -> None:
    d = Driven(queue={**QUEUE, "running_s_max": 60})
    d.side.cancelling = cancelling
    d.ask("a")
    d.until("started")
    assert d.until("failed", after_s=30)[2] == "no end after 60 s"
    assert d.side.asked[-1] == ("cancel", "a")


def test_the_breaker_leaves_what_is_down_alone() -> None:
    d = Driven(breaker={"failures_max": 2, "open_s": 30}, queue={**QUEUE, "attempts_max": 50})
    d.side.usual = Retriable("down", retry_after_s=0.0)
    d.ask("a")
    for _ in range(25):
        d.tick()
    assert len(d.side.asked) == 2
    d.side.usual = Status("running", "r")
    assert d.until("started", ticks=40)[0] == "a"


def test_a_full_queue_turns_the_least_away() -> None:
    d = Driven(queue={**QUEUE, "waiting_max": 1})
    assert d.ask("a", priority=5) == []
    [refused] = d.ask("b")
    assert (refused.trigger, refused.status) == ("b", "refused")
    assert "the queue is full" in refused.reason
    [refused] = d.ask("c", priority=9)
    assert refused.trigger == "a"
    assert d.ask("b") == [], "it was answered"


def test_only_its_own_models_and_partitions() -> None:
    d = Driven(models=["m-a"])
    d.ask("a", "b")
    d.partitions = []
    assert d.tick() == []
    d.partitions = [0]
    d.until("started")
    for _ in range(5):
        d.tick()
    assert {trigger for _, trigger in d.side.asked} == {"a"}


@pytest.mark.parametrize(("told", "what"), [
    ({"version": 7}, "version is 7, and not string"), ({"cpu_s": "much"}, "cpu_s is 'much', and not double"),
    ({"candidates": ["7"]}, "candidates is"), ({"metrics": {"auc": "good"}}, "metrics is"),
    ({"peak_bytes": 1 << 80}, "peak_bytes is")])
def test_a_result_in_another_form_fails_the_run_and_not_the_step(told: dict[str, Any], what: str) -> None:
    d = Driven()
    d.side.usual = Status("succeeded", "r", "", {"data_digest": "d", **told})
    d.ask("a")
    reason = d.until("failed")[2]
    assert what in reason


def gating() -> Callable[..., list[Verdict]]:
    step = Gate(Gate.Config.model_validate({"models": {"m": {}}}), project=Path())
    step.outputs(shape(RetrainResult))
    ctx = Context("f", "s", Path())
    step.open(ctx)

    def run(**more: Any) -> list[Verdict]:
        result = RetrainResult(**{"id": "i", "at": AT, "trigger": "t", "model": "m", "status": "failed",
                                  "dispatcher": "local", "champion": "3", "asked_at": AT, "reason": "nan", **more})
        rows = batch_of([Said(result, b"", Span("", 0, 0, 0))], shape(RetrainResult)).rows
        batch = Batch(rows, Meta(Frames([Record(b"", "headrace.retrain.results", 0, 5)])))
        out = step.process(batch, ctx)
        assert all(each.rows.schema.equals(shape(Verdict)) for each in out.values())
        return [event for each in out.values() for event, _ in events_of(each, Verdict)]

    return run


def test_the_gate_says_what_failed_and_passes_over_the_rest() -> None:
    run = gating()
    assert run(status="started") == []
    assert run(model="another") == []
    for status in ("failed", "refused"):
        [said] = run(status=status)
        assert (said.about, said.ok, said.trigger, said.champion, said.at) == ("failed", False, "t", "3", AT)
        assert said.reasons == [f"{status}: nan"]
        assert run(status=status) == [said], "the same result, the same verdict"


def test_dispatch_reads_requests_only() -> None:
    with pytest.raises(Exception, match=r"no events of headrace\.retrain:"):
        Dispatch(Dispatch.Config.model_validate({}), project=Path()).outputs(pa.schema([("x", pa.int8())]))
