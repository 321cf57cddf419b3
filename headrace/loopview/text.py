"""Status and explanation as text. They take the plain data, so what is printed is what --json gives, put in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from headrace.errors import UserError

Data = Mapping[str, Any]
SHOWN_MAX = 6
"""Measures of a verdict on its line; the rest are counted."""
FIRST = ("auc", "log_loss", "brier", "calibration_error")
SHORT = 16


def status_text(data: Data) -> str:
    """What `status` found, a paragraph a model."""
    lines = [f"topics {data['control']}.*"]
    lines += [f"  not there: {', '.join(data['absent'])}"] if data["absent"] else []
    lines += [f"  {len(data['unreadable'])} records cannot be read, the first: {data['unreadable'][0]}"] \
        if data["unreadable"] else []
    lines += [] if data["models"] else ["  nothing was said of any model yet"]
    for model, told in data["models"].items():
        lines += ["", model, *_indented(_model(model, told))]
    return "\n".join(lines)


def _model(model: str, told: Data) -> Iterator[str]:
    yield f"in charge   {in_charge(told['in_charge'])}"
    if told["challenger"]:
        yield f"challenger  {challenger(told['challenger'])}"
    requests = told["requests"]
    for name, title in (("waiting", "waiting"), ("running", "running"), ("to_judge", "to judge"),
                        ("failed", "failed")):
        for each in requests[name][-3:]:
            how = f", {each['dispatcher']} run {each['run'] or 'not known'}" if each["status"] == "started" else ""
            why = each["why"] if name == "failed" else each["reason"]
            yield f"{title:<11} {short(each['trigger'])} of {moment(each['at'])}{how}{': ' + why if why else ''}"
        if len(requests[name]) > 3:
            yield f"{'':11} {len(requests[name]) - 3} {title} before these"
    for each in told["waiting"]:
        yield (f"blessed     version {each['version']} since {moment(each['since'])}, not switched to: if it waits "
               f"for an approval, `headrace models approve {model} {each['version']}`")
    if told["gate"]:
        gate = told["gate"]
        yield (f"last gate   {'blessed' if gate['ok'] else 'NOT blessed'} version {gate['version'] or 'none'} "
               f"{moment(gate['at'])}: {'; '.join(gate['reasons']) or 'no reason was given'}")
    for about, verdict in told["verdicts"].items():
        yield f"{about:<11} {_verdict_line(verdict)}"
    n = told["retrains"]
    yield (f"retrains    {n['asked']} asked for, {n['trained']} trained, {n['blessed']} blessed, "
           f"{n['rejected']} rejected, {n['failed']} failed")


def in_charge(told: Data | None) -> str:
    """Who serves, since when and why."""
    if told is None:
        return "no version yet: the model topic has no switch"
    if told["epoch"] is None:
        return f"version {told['version']}; the switch that put it there is no longer in the topic"
    by = f" by {told['by']}" if told["by"] else ""
    return f"version {told['version']} since {moment(told['since'])}{by}, epoch {told['epoch']}: {told['reason']}"


def challenger(told: Data) -> str:
    share = f" for {told['share']:.0%} of the keys" if told["mode"] == "canary" else ""
    return f"version {told['version']}, {told['mode']}{share} since {moment(told['since'])}, epoch {told['epoch']}"


def explain_text(data: Data) -> str:
    """What `explain` found, from cause to outcome."""
    asked = data["asked"]
    lines = [f"{data['model']}: trigger {data['trigger']}"]
    if asked:
        lines += [f"  asked for by {asked['by']} as of {moment(asked['at'])} ({asked['place']})",
                  f"  {asked['rule']}: {asked['reason']}",
                  f"  in charge then: {'version ' + asked['champion'] if asked['champion'] else 'no version'}"]
    sections: list[tuple[str, Iterable[str]]] = [
        ("why", _why(data["causes"])), ("data", _trained_on(data["data"])), ("run", _run(data["run"])),
        ("gate", _gate(data["gate"])), ("switch", _switches(data)), ("since then", _since(data["since"])),
        ("not known", (f"- {each}" for each in data["not_known"]))]
    for title, body in sections:
        told = list(body)
        lines += ["", title, *_indented(told)] if told else []
    return "\n".join(lines)


def _why(causes: Sequence[Data]) -> Iterator[str]:
    for each in causes:
        if each["place"] is None:
            yield f"a verdict that is not in its topic: {each['id']}"
            continue
        yield f"{each['about']:<11} {_verdict_line(each, reasons=False)}"
        offsets = (f"{each['topic']}/{each['partition']}@{each['offset_first']}-{each['offset_last']}, "
                   if each["topic"] else "")
        rows = "" if each["by"] else f"{each['rows']:,} rows, {each['labels']:,} labels "
        yield f"{'':11} {offsets}{rows}({each['place']})"
        yield from (f"{'':11} {reason}" for reason in each["reasons"])


def _trained_on(data: Data) -> Iterator[str]:
    for each in data["ranges"]:
        yield f"{_range(each)}  {each['offset_last'] - each['offset_first'] + 1:,} offsets"
    if len(data["ranges"]) > 1:
        yield f"{data['offsets']:,} offsets in all"
    if data["holdout"]:
        yield f"held out: {', '.join(map(_range, data['holdout']))}"
    if data["digest"]:
        yield f"digest of what was read: {data['digest']}"


def _range(each: Data) -> str:
    return f"{each['topic']}/{each['partition']}@{each['offset_first']}-{each['offset_last']}"


def _run(run: Data | None) -> Iterator[str]:
    if run is None:
        yield "no dispatcher has answered yet"
        return
    tries = f", {run['attempts']} attempts" if run["attempts"] > 1 else ""
    yield f"{run['status']}, by {run['dispatcher']}, run {run['run'] or 'not known'}{tries}"
    times = [f"{what} {moment(run[name])}" for what, name in (("started", "started_at"), ("ended", "ended_at"))
             if run[name]]
    yield from [", ".join(times)] if times else []
    if run["why"]:
        yield run["why"]
    if run["mlflow_run"]:
        yield f"MLflow run {run['mlflow_run']}"
    if run["versions"]:
        yield "registered " + ", ".join(f"{name} as version {version}" for name, version in run["versions"].items())
    code = [f"{what} {run[name]}" for what, name in (("commit", "git_commit"), ("lock file", "lock_digest"),
                                                    ("image", "image_digest")) if run[name]]
    yield from [f"code: {', '.join(code)}"] if code else []
    cost = [f"{run['cpu_s']:,.1f} CPU seconds"] if run["cpu_s"] is not None else []
    cost += [f"{run['peak_bytes'] / 2**20:,.0f} MiB at the peak"] if run["peak_bytes"] is not None else []
    yield from [f"cost: {', '.join(cost)}"] if cost else []


def _gate(gate: Data | None) -> Iterator[str]:
    if gate is None:
        return
    against = f"held against version {gate['champion']}" if gate["champion"] else "held against no champion"
    which = f" ({gate['candidate']})" if gate["candidate"] else ""
    yield (f"{'BLESSED' if gate['blessed'] else 'NOT BLESSED'}: version {gate['version'] or 'none'}{which}, {against}, "
           f"by {gate['by']} ({gate['place']})")
    yield from gate["reasons"]
    whole = {who: {name: value for name, value in measures.items() if "=" not in name}
             for who, measures in gate["compared"].items()}
    columns = sorted({name for measures in whole.values() for name in measures}, key=_rank)
    if columns:
        yield from _grid([["", *columns], *([who, *(number(measures.get(name)) for name in columns)]
                                            for who, measures in whole.items())])
    slices = [(who, name.partition(".")[2], value) for who, measures in gate["compared"].items()
              for name, value in measures.items() if "=" in name]
    if slices:
        who, worst, value = min(slices, key=lambda each: each[2])
        yield f"{len(slices)} slices; the least change is {value:+.4f}, of {who} where {worst}"


def _switches(data: Data) -> Iterator[str]:
    for each in data["switches"]:
        yield switch_line(each)
    if data["no_switch"]:
        yield f"none: {data['no_switch']}"


def switch_line(each: Data) -> str:
    """One switch: its epoch, what it did, who and why."""
    share = f" for {each['share']:.0%} of the keys" if each["share"] is not None else ""
    what = {"full": f"version {each['version']} in charge", "canary": f"version {each['version']} as a canary{share}",
            "shadow": f"version {each['version']} as a shadow", "off": f"version {each['version']} off"}
    instead = f", before it {each['previous']}" if each["previous"] and each["mode"] == "full" else ""
    by = f" by {each['by']}" if each["by"] else ""
    return (f"epoch {each['epoch']}: {what.get(each['mode'], each['mode'])}{instead}, {moment(each['at'])}{by}: "
            f"{each['reason'] or 'no reason was given'}")


def _since(since: Data | None) -> Iterator[str]:
    if since is None:
        return
    if not since["verdicts"]:
        yield "no verdict on its performance yet"
    for each in since["verdicts"]:
        yield f"{each['about']:<11} {_verdict_line(each)}"
    yield from (f"then {switch_line(each)}" for each in since["switches"])
    now = since["in_charge"]
    yield f"in charge now: version {now['version']}" if now else "in charge now: no version"


def _verdict_line(each: Data, *, reasons: bool = True) -> str:
    window = (f"{moment(each['window_start'])} to {moment(each['window_end'])}" if each["window_start"]
              and each["window_end"] else moment(each["at"]))
    version = f", version {each['version']}" if each["version"] else ""
    told = measures_text(each["measures"])
    why = "; ".join(each["reasons"]) if reasons else ""
    found = f"by {each['by']}" if each["by"] else "ok" if each["ok"] else "NOT ok"
    return (f"{window}  {found}{version}{': ' + told if told else ''}"
            f"{'  ' + why if why else ''}")


def measures_text(measures: Mapping[str, float]) -> str:
    """The measures that are looked at first, then others by name; at most SHOWN_MAX."""
    names = sorted(measures, key=_rank)
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(f"{name} {number(measures[name])}" for name in names[:SHOWN_MAX]) + more


def _rank(name: str) -> tuple[int, str]:
    return FIRST.index(name) if name in FIRST else len(FIRST), name


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4g}"


def _grid(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) if at == 0 else cell.rjust(width)
                        for at, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def moment(text: str | None) -> str:
    """A time of ISO 8601 in UTC, to the minute where there are no seconds."""
    if not text:
        return "a time not known"
    day, _, clock = text.partition("T")
    clock = clock.partition("+")[0].partition(".")[0].removesuffix("Z")
    return day if clock in ("", "00:00:00") else f"{day} {clock.removesuffix(':00')}"


def instant(text: str) -> datetime:
    """A time of ISO 8601; without a zone it is UTC. Raises UserError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"“{text}” is no time", hint="write ISO 8601, e.g. 2013-07-01T00:00:00Z") from error
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def short(trigger: str) -> str:
    """An id as far as one needs to read it; it can be given like that."""
    return trigger if len(trigger) <= SHORT else trigger[:SHORT]
