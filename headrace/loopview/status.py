"""All models of the loop, now."""

from __future__ import annotations

from collections import Counter
from typing import Any

from headrace.control import RetrainResult
from headrace.loopview.history import CONTROL, History, Placed, read
from headrace.loopview.standing import standing
from headrace.payloads import plain
from headrace.settings import Settings

Data = dict[str, Any]
FINAL = ("succeeded", "failed", "refused")


def status(settings: Settings, control: str = CONTROL) -> Data:
    """{"control", "absent": topics not there, "unreadable": […], "models": {name: see `model_status`}}.

    Raises BrokerError, RegistryError.
    """
    history = read(settings, control)
    return {"control": control, "absent": list(history.absent), "unreadable": list(history.unreadable),
            "models": {model: model_status(history, model) for model in history.models()}}


def model_status(history: History, model: str) -> Data:
    """The standing (see there), and "requests": {"waiting", "running", "to_judge", "failed"}, each a list;
    "verdicts": the last of each kind; "gate": the last one; "retrains": how many were asked for, trained, …"""
    latest = {each.event.about: each for each in history.verdicts if each.event.model == model}
    gates = {each.event.trigger: each for each in history.verdicts
             if each.event.about == "gate" and each.event.model == model}
    requests: dict[str, list[Data]] = {"waiting": [], "running": [], "to_judge": [], "failed": []}
    counts: Counter[str] = Counter()
    answered = answers(history)
    asked = {each.event.id: each for each in history.requests if each.event.model == model}
    known = {each.event.trigger for each in history.results if each.event.model == model}
    for trigger in dict.fromkeys([*asked, *sorted(known)]):
        last = answered.get(trigger)
        state = last.event.status if last else "waiting"
        counts[state] += 1
        where = {"started": "running", "refused": "failed", "succeeded": "to_judge"}.get(state, state)
        if state == "succeeded" and trigger in gates:
            continue
        request = asked[trigger].event if trigger in asked else None
        requests[where].append({"trigger": trigger, "at": plain(request.at) if request else None,
                                "reason": request.reason if request else None, **_answer(last)})
    blessed = sum(each.event.ok for trigger, each in gates.items() if trigger)
    judged = sum(1 for trigger in gates if trigger)
    gate = latest.pop("gate", None)
    return {**standing(history, model), "requests": requests,
            "verdicts": {about: each.as_json() for about, each in sorted(latest.items())},
            "gate": gate.as_json() if gate else None,
            "retrains": {"asked": len(asked), "trained": counts["succeeded"],
                         "failed": counts["failed"] + counts["refused"], "blessed": blessed,
                         "rejected": judged - blessed}}


def answers(history: History) -> dict[str, Placed[RetrainResult]]:
    """Trigger → the last that was said of it; an end is not taken back by a `started` that comes after."""
    found: dict[str, Placed[RetrainResult]] = {}
    for each in history.results:
        before = found.get(each.event.trigger)
        if before is None or before.event.status not in FINAL or each.event.status in FINAL:
            found[each.event.trigger] = each
    return found


def _answer(last: Placed[RetrainResult] | None) -> Data:
    if last is None:
        return {"status": None, "dispatcher": None, "run": None, "since": None, "why": None}
    result = last.event
    return {"status": result.status, "dispatcher": result.dispatcher, "run": result.run, "since": plain(result.at),
            "why": result.reason or None}
