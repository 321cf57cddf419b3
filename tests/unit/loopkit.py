"""What the loop says over some months, as events: a retraining from its causes to what followed, to read back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.batch import Span
from headrace.control import ControlEvent, Retrain, RetrainResult, Switch, Verdict, digest
from headrace.loopview import History, Placed, topic_of

MODEL = "flight-delay"
DAY_0 = datetime(2013, 3, 4, tzinfo=UTC)
RANGE = {"topic": "flights.labelled", "partition": 0, "offset_first": 0, "offset_last": 8_123}
TRIGGER = digest(MODEL, "opportunity", 3)


def at(week: float) -> datetime:
    return DAY_0 + timedelta(weeks=week)


def verdict(about: str, week: float, *, ok: bool = True, **more: Any) -> Verdict:
    told: dict[str, Any] = {"flow": "arrivals", "step": "watch", "model": MODEL, "topic": "flights.labelled",
                            "partition": 0, "window": int(week), "offset_first": 0, "offset_last": 99,
                            "window_start": at(week - 1), "window_end": at(week), "rows": 5_000, "labels": 4_800}
    return Verdict(id=digest(about, week, more.get("version")), at=at(week), about=about, ok=ok, **{**told, **more})


def gate(week: float, *, ok: bool, version: str, trigger: str = TRIGGER, **more: Any) -> Verdict:
    compared = {"champion.auc": 0.701, "all.auc": 0.722, "recent.auc": 0.7, "all.change": 0.021,
                "all.change.origin=JFK": -0.011, "all.change.origin=LGA": 0.03}
    return verdict("gate", week, ok=ok, version=version, trigger=trigger, champion="1", measures=compared,
                   window_start=None, window_end=None, reasons=["all: auc 0.7220, the champion 0.7010"], **more)


def request(causes: Sequence[Verdict] = (), week: float = 3, event_id: str = TRIGGER, **more: Any) -> Retrain:
    told: dict[str, Any] = {"model": MODEL, "champion": "1", "ranges": [RANGE], "causes": [each.id for each in causes],
                            "reason": "inputs were another regime in 2 of the last 3 windows; 31200 new labels"}
    return Retrain(id=event_id, at=at(week), flow="govern", step="policy", topic="v", partition=0, window=3,
                   offset_first=3, offset_last=3, window_start=None, window_end=at(week), measure="opportunity",
                   condition=None, rows=0, matched=0, observed=1.0, threshold=1.0, **{**told, **more})


def result(status: str, trigger: str = TRIGGER, **more: Any) -> RetrainResult:
    facts: dict[str, Any] = {"run": "4711"}
    if status == "succeeded":
        facts |= {"mlflow_run": "e3b0", "version": "7", "candidates": {"all": "7", "recent": "8"}, "ranges": [RANGE],
                  "data_digest": "d" * 64, "cpu_s": 12.34, "peak_bytes": 512 << 20, "git_commit": "c0ffee",
                  "lock_digest": "10c4", "metrics": {"all.auc": 0.72}, "champion": "1", "asked_at": at(3)}
    return RetrainResult(id=digest(trigger, status), at=at(100), trigger=trigger, model=MODEL, status=status,
                         dispatcher="local", **{**facts, **more})


def switch(to: str, caused: int, week: float, topic: str = "headrace.verdicts", **more: Any) -> Switch:
    """`caused` is the offset of the verdict that made it."""
    told: dict[str, Any] = {"reason": "all: auc 0.7220, the champion 0.7010", "mode": "full", "previous": None}
    return Switch(id=digest(to, caused), at=at(week), flow="govern", step="switch", topic=topic, partition=0, window=0,
                  offset_first=caused, offset_last=caused, window_start=None, window_end=None, measure="gate",
                  condition=None, rows=0, matched=0, observed=1.0, threshold=1.0, model=MODEL, to=to,
                  **{**told, **more})


CAUSES = (verdict("drift", 2, ok=False, version="1", measures={"psi.temp": 8.1}, reasons=["temp is another regime"]),
          verdict("drift", 3, ok=False, version="1", measures={"psi.temp": 8.4}, reasons=["temp still is"]))
FIRST = verdict("promote", 0, version="1", by="ada", topic=None, partition=None, window=None, offset_first=None,
                offset_last=None, window_start=None, window_end=None, rows=0, labels=0, reasons=["the first one"])
AFTER = verdict("performance", 5, version="7", measures={"auc": 0.731, "labels": 4800.0})


def history(verdicts: Sequence[Verdict] = (), requests: Sequence[Retrain] = (), results: Sequence[RetrainResult] = (),
            switches: Sequence[Switch] = (), **more: Any) -> History:
    """Each where it would stand: offsets count up by two, as transactions make them."""
    return History(verdicts=placed(verdicts), requests=placed(requests), results=placed(results),
                   switches=placed(switches), **more)


def placed(events: Sequence[Any], control: str = "headrace") -> tuple[Placed[Any], ...]:
    def span(event: ControlEvent, n: int) -> Span:
        return Span(topic_of(control, type(event)), 0, 2 * n, 2 * n)

    return tuple(Placed(event, span(event, n)) for n, event in enumerate(events))


def whole() -> History:
    """Everything went well: the first version by hand, two drifts, a training, a blessing, a switch, a good week."""
    blessed = gate(3.5, ok=True, version="7")
    return history([FIRST, *CAUSES, blessed, AFTER], [request(CAUSES)], [result("started"), result("succeeded")],
                   [switch("1", 0, 0, by="ada", reason="promoted by ada: the first one"),
                    switch("7", 6, 3.5, trigger=TRIGGER, verdict=blessed.id, previous="1")])
