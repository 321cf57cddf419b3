"""One retraining, from the verdicts that caused it to what followed: what was said, and what is not known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from headrace.control import Retrain, RetrainResult, Switch, Verdict
from headrace.errors import UserError
from headrace.loopview.history import CONTROL, History, Placed, read, topic_of
from headrace.loopview.standing import follows, standing, switch_data, switches
from headrace.loopview.status import FINAL, answers
from headrace.payloads import plain
from headrace.settings import Settings

Data = dict[str, Any]
NAMED_MAX = 5
RUN_FACTS = ("run", "mlflow_run", "git_commit", "lock_digest", "image_digest", "cpu_s", "peak_bytes")
FOLLOWING = ("performance", "estimate")


def explain(settings: Settings, control: str = CONTROL, trigger: str | None = None, model: str | None = None) -> Data:
    """What is known of a trigger: its id, a prefix of it that no other has, or, left out, the last (of `model`).

    {"trigger", "model", "asked", "causes", "data", "run", "gate", "switches", "no_switch", "since", "not_known"}.
    Raises UserError when there is no such trigger, BrokerError, RegistryError.
    """
    history = read(settings, control)
    return explained(history, find(history, trigger, model))


def find(history: History, text: str | None = None, model: str | None = None) -> str:
    """The whole id of a trigger. Raises UserError with those there are."""
    known = {each.event.id: each.event.model for each in history.requests}
    for each in history.results:
        known.setdefault(each.event.trigger, each.event.model)
    mine = [trigger for trigger, of in known.items() if model in (None, of)]
    if text is None and mine:
        return mine[-1]
    found = [trigger for trigger in mine if text and trigger.startswith(text)]
    if text in found or len(found) == 1:
        return str(text) if text in found else found[0]
    whose = f" of {model}" if model else ""
    topic = topic_of(history.control, Retrain)
    if found:
        raise UserError(f"{len(found)} triggers{whose} begin with “{text}”: {_some(found)}", hint="write more of it")
    what = f"no trigger{whose} begins with “{text}”" if text else f"nothing was ever to be retrained{whose}"
    raise UserError(f"{what} in {topic}", hint=f"there is {_some(mine[::-1])}" if mine else
                    "`headrace loop status` shows what the loop has seen; --control names another loop")


def _some(triggers: Sequence[str]) -> str:
    more = f" and {len(triggers) - NAMED_MAX} more" if len(triggers) > NAMED_MAX else ""
    return ", ".join(each[:16] + "…" for each in triggers[:NAMED_MAX]) + more


def explained(history: History, trigger: str) -> Data:
    """The same of what was read already."""
    request = next((each for each in history.requests if each.event.id == trigger), None)
    results = [each for each in history.results if each.event.trigger == trigger]
    last = answers(history).get(trigger)
    gate = _last(each for each in history.verdicts if each.event.about == "gate" and each.event.trigger == trigger)
    model = request.event.model if request else results[0].event.model
    made = _switches(history, model, trigger, gate, last)
    told = {"control": history.control, "trigger": trigger, "model": model, "asked": _asked(request),
            "causes": _causes(history, request), "data": _data(request, last), "run": _run(results, last),
            "gate": _gate(gate, last), "switches": [switch_data(each) for each in made],
            "no_switch": None if made else _no_switch(history, trigger, model, last, gate),
            "since": _since(history, model, made)}
    return {**told, "not_known": _not_known(told)}


def _last(found: Iterable[Any]) -> Any:
    return next(iter(list(found)[::-1]), None)


def _asked(request: Placed[Retrain] | None) -> Data | None:
    if request is None:
        return None
    event = request.event
    return {"at": plain(event.at), "by": f"{event.flow}/{event.step}", "rule": event.measure, "reason": event.reason,
            "champion": event.champion, "priority": event.priority, "place": str(request.at)}


def _causes(history: History, request: Placed[Retrain] | None) -> list[Data]:
    """The verdicts, as they were said; of one that is not there its id with `place` None."""
    found = []
    for cause in request.event.causes if request else ():
        verdict = history.verdict(cause)
        found.append(verdict.as_json() if verdict else {"id": cause, "place": None})
    return found


def _data(request: Placed[Retrain] | None, last: Placed[RetrainResult] | None) -> Data:
    """What was to be trained on; `digest` is of what the run read."""
    result = last.event if last else None
    if request is not None and request.event.ranges:
        ranges, holdout = request.event.ranges, request.event.holdout
    elif request is not None:
        span = request.event.spans()[0]
        ranges = [{"topic": span.topic, "partition": span.partition, "offset_first": span.offset_first,
                   "offset_last": span.offset_last}]
        holdout = request.event.holdout
    else:
        ranges, holdout = (result.ranges, result.holdout) if result else ((), ())
    return {"ranges": [dict(each) for each in ranges], "holdout": [dict(each) for each in holdout],
            "offsets": sum(each["offset_last"] - each["offset_first"] + 1 for each in ranges),
            "digest": result.data_digest if result else None}


def _run(results: Sequence[Placed[RetrainResult]], last: Placed[RetrainResult] | None) -> Data | None:
    """How it was trained. Of several answers the last one that knows a fact has it."""
    if last is None:
        return None
    told: Data = {name: _last(value for each in results if (value := getattr(each.event, name)) is not None)
                  for name in RUN_FACTS}
    begun = next((each for each in results if each.event.status == "started"), None)
    result = last.event
    return {"status": result.status, "dispatcher": result.dispatcher, **told, "attempts": result.attempts,
            "started_at": plain(begun.event.at) if begun else None,
            "ended_at": plain(result.at) if result.status in FINAL else None, "version": result.version,
            "versions": dict(result.candidates), "metrics": dict(result.metrics), "why": result.reason or None,
            "places": [str(each.at) for each in results]}


def _gate(gate: Placed[Verdict] | None, last: Placed[RetrainResult] | None) -> Data | None:
    """What was decided. `compared` is who → measure → value: the champion first, then each candidate."""
    if gate is None:
        return None
    verdict = gate.event
    names = {version: name for name, version in last.event.candidates.items()} if last else {}
    compared: dict[str, dict[str, float]] = {}
    for name, value in verdict.measures.items():
        who, dot, measure = name.partition(".")
        compared.setdefault(who if dot else "", {})[measure if dot else who] = value
    ordered = sorted(compared, key=lambda who: (who != "champion", who))
    return {"blessed": verdict.ok, "version": verdict.version, "candidate": names.get(verdict.version or ""),
            "champion": verdict.champion, "reasons": list(verdict.reasons), "rows": verdict.rows,
            "labels": verdict.labels, "compared": {who: compared[who] for who in ordered}, "at": plain(verdict.at),
            "by": f"{verdict.flow}/{verdict.step}", "verdict": verdict.id, "place": str(gate.at)}


def _switches(history: History, model: str, trigger: str, gate: Placed[Verdict] | None,
              last: Placed[RetrainResult] | None) -> list[Placed[Switch]]:
    """Those that this trigger led to: they name it, or they are about a version that it made."""
    versions = {*(last.event.candidates.values() if last else ()), *([gate.event.version] if gate else [])}
    return [each for each in switches(history, model) if each.event.trigger == trigger or each.event.to in versions]


def _no_switch(history: History, trigger: str, model: str, last: Placed[RetrainResult] | None,
               gate: Placed[Verdict] | None) -> str:
    """Why no version of it serves."""
    failed = _last(each for each in history.verdicts if each.event.about == "failed"
                   and each.event.trigger == trigger)
    if gate is not None and not gate.event.ok:
        return "the gate did not bless it"
    if gate is not None:
        return (f"blessed, and not switched to yet: it waits for `headrace models approve {model} "
                f"{gate.event.version}`, where an approval is required, or the switch step has not come to it")
    if last is not None and last.event.status in ("failed", "refused"):
        return f"the training {'failed' if last.event.status == 'failed' else 'was refused'}: {last.event.reason}"
    if failed is not None:
        return f"the training came to nothing: {'; '.join(failed.event.reasons) or 'no reason was given'}"
    if last is None:
        return "no dispatcher has answered the request yet"
    return "the training runs" if last.event.status == "started" else "trained; the gate has not judged it yet"


def _since(history: History, model: str, made: Sequence[Placed[Switch]]) -> Data | None:
    """What followed the first switch: verdicts on its version, other switches of the model, who is in charge now."""
    if not made:
        return None
    first, versions = made[0], {each.event.to for each in made}
    verdicts = [each.as_json() for each in history.verdicts
                if each.event.model == model and each.event.about in FOLLOWING and each.event.version in versions
                and not follows(history, first, each)]
    later = [switch_data(each) for each in switches(history, model) if each.offset > first.offset and each not in made]
    return {"verdicts": verdicts, "switches": later, "in_charge": standing(history, model)["in_charge"]}


def _not_known(told: Data) -> list[str]:
    """What should be there at this point and is not, in words."""
    run, found = told["run"], []
    if told["asked"] is None:
        found.append("who asked for it, and why: the request itself is not in its topic")
    elif not told["causes"]:
        found.append("which verdicts led to it: the request names none")
    found += [f"the verdict {each['id'][:16]}…, which the request names as a cause: it is not in its topic"
              for each in told["causes"] if each["place"] is None]
    if run is not None and run["status"] == "succeeded":
        titles = {"run": "the run's id with the dispatcher", "mlflow_run": "the MLflow run",
                  "git_commit": "the code's commit", "lock_digest": "the digest of the lock file",
                  "cpu_s": "the processor time used", "peak_bytes": "the peak memory"}
        found += [title for name, title in titles.items() if run[name] is None]
        found += ["the digest of the data"] if told["data"]["digest"] is None else []
    if told["gate"] is not None and told["gate"]["champion"] is None:
        found.append("how it compares with a champion: there was none to hold it against")
    return found
