"""One model's standing: who is in charge since when, each switch that made it so, and what waits for a word."""

from __future__ import annotations

from typing import Any

from headrace.control import Switch, Verdict
from headrace.loopview.history import History, Placed, topic_of
from headrace.payloads import plain

Data = dict[str, Any]


def standing(history: History, model: str) -> Data:
    """{"in_charge": {"version", "epoch", "since", "reason", "by", "trigger"} or None, "challenger": the same with
    `mode` and `share`, or None, "previous": what a rollback goes back to, "epoch": the last switch's, "waiting"}."""
    champion: Placed[Switch] | None = None
    challenger: Placed[Switch] | None = None
    version: str | None = None
    previous: str | None = None
    last = -1
    for each in switches(history, model):
        switch, last = each.event, each.offset
        if switch.mode == "full":
            if version != switch.to:
                previous = version or switch.previous
            champion, version, challenger = each, switch.to, None
        else:
            version = version or switch.previous  # its own switch may be compacted away
            challenger = each if switch.mode in ("canary", "shadow") else None
    told = _told(champion) if champion else {"epoch": None, "since": None, "reason": None, "by": None, "trigger": None}
    return {"in_charge": {"version": version, **told} if version else None,
            "challenger": {"version": challenger.event.to, **_told(challenger), "mode": challenger.event.mode,
                           "share": challenger.event.share} if challenger else None,
            "previous": previous, "epoch": last if last >= 0 else None, "waiting": waiting(history, model)}


def _told(each: Placed[Switch]) -> Data:
    switch = each.event
    return {"epoch": each.offset, "since": plain(switch.at), "reason": switch.reason, "by": switch.by,
            "trigger": switch.trigger}


def switches(history: History, model: str) -> list[Placed[Switch]]:
    return [each for each in history.switches if each.event.model == model]


def switch_data(each: Placed[Switch]) -> Data:
    """A switch as a line of its model's history."""
    switch = each.event
    return {"epoch": each.offset, "at": plain(switch.at), "version": switch.to, "mode": switch.mode,
            "share": switch.share if switch.mode == "canary" else None, "previous": switch.previous,
            "reason": switch.reason, "by": switch.by, "trigger": switch.trigger, "verdict": switch.verdict,
            "said_by": f"{switch.flow}/{switch.step}", "place": str(each.at)}


def waiting(history: History, model: str) -> list[Data]:
    """Blessed versions that no switch has taken up: [{"version", "trigger", "since", "verdict", "reasons"}]. They wait
    for an approval, where one is required, or else for the switch step to come to them."""
    blessed = {each.event.version: each for each in history.verdicts if each.event.about == "gate"
               and each.event.ok and each.event.model == model and each.event.version}
    return [{"version": version, "trigger": each.event.trigger, "since": plain(each.event.at),
             "verdict": each.event.id, "reasons": list(each.event.reasons)}
            for version, each in blessed.items() if not taken_up(history, each)]


def taken_up(history: History, gate: Placed[Verdict]) -> bool:
    """Whether a switch to the blessed version came after its blessing."""
    return any(each.event.to == gate.event.version and follows(history, each, gate)
               for each in switches(history, str(gate.event.model)))


def follows(history: History, switch: Placed[Switch], verdict: Placed[Verdict]) -> bool:
    """Whether a switch was made on this verdict or a later one: it names the record that caused it."""
    made = switch.event
    if made.topic == topic_of(history.control, Verdict):
        return made.offset_last >= verdict.offset
    return made.at >= verdict.event.at
