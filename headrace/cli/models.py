"""`headrace models`: which versions there are, who is in charge, why; and a person's word on it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.common import Json, dump, say, table
from headrace.cli.loop_view import Control

if TYPE_CHECKING:
    from headrace.control import Verdict
    from headrace.loop.models import ModelStore, Version
    from headrace.loopview import History
    from headrace.settings import Settings

Model = Annotated[str, typer.Argument(help="The model's name in the model registry.")]
Reason = Annotated[str, typer.Option("--reason", help="Why: it stands in the audit log.")]
By = Annotated[str | None, typer.Option("--by", help="Who says so. Default: the login name.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Models and their versions: who is in charge, why, and who should "
                                                   "be.")
    for name, command in (("list", list_), ("show", show), ("history", history), ("compare", compare),
                          ("promote", promote), ("rollback", rollback), ("approve", approve), ("retrain", retrain)):
        group.command(name)(command)
    app.add_typer(group, name="models")


def list_(control: Control = "headrace", json: bool = Json) -> None:
    """All models, of the model registry and of the model topic: the version in charge, since when, what waits."""
    from headrace.loopview.standing import standing

    _, store, told = _open(control)
    registered = store.models()
    rows = [{"model": name, "versions": len(store.versions(name)) if name in registered else 0,
             "registered": name in registered, **standing(told, name)}
            for name in sorted({*registered, *told.models()})]
    if json:
        dump({"control": control, "models": rows})
        return
    if not rows:
        say("there is no model yet: neither in the model registry nor in the control topics")
        return
    from headrace.loopview.text import moment

    table("", ("model", "versions", "in charge", "epoch", "since", "beside it", "waiting"), [
        (row["model"], row["versions"], at["version"] if (at := row["in_charge"]) else None,
         str(at["epoch"]) if at and at["epoch"] is not None else None, moment(at["since"]) if at else None,
         f"{row['challenger']['version']} ({row['challenger']['mode']})" if row["challenger"] else None,
         ", ".join(each["version"] for each in row["waiting"]) or None) for row in rows])


def show(model: Model, version: Annotated[str | None, typer.Argument(help="A version or an alias. Left out: all "
                                                                          "versions.")] = None,
         card: Annotated[bool, typer.Option("--card", help="The model card, in Markdown; of the version in charge, if "
                                                           "none is named.")] = False,
         control: Control = "headrace", json: bool = Json) -> None:
    """A model's versions; or of one version its facts, its metrics and what the gate said."""
    from headrace.loop.card import card as facts_of
    from headrace.loop.card import markdown
    from headrace.loopview.card import facts
    from headrace.loopview.standing import standing

    _, store, told = _open(control)
    at = standing(told, model)
    if version is None and card:
        version = _in_charge(model, at)
    if version is None:
        _show_all(model, store.versions(model), at, json)
        return
    found = _found(store, model, version)
    known = facts(found, store.facts(model, found.version), told)
    made = facts_of(known)
    if json:
        dump({"model": model, "version": found.version, "aliases": list(found.aliases), "card": made})
    elif card:
        print(markdown(known), end="")
    else:
        _print_card(found, made)


def _show_all(model: str, versions: Sequence[Version], at: dict[str, Any], json: bool) -> None:
    if json:
        dump({"model": model, **at, "versions": [_as_json(each) for each in versions]})
        return
    from headrace.loopview.text import challenger, in_charge, measures_text, moment

    print(f"{model}: {in_charge(at['in_charge'])}")
    if at["challenger"]:
        print(f"beside it: {challenger(at['challenger'])}")
    for each in at["waiting"]:
        print(f"blessed and not switched to: version {each['version']} since {moment(each['since'])}")
    table("", ("version", "aliases", "candidate", "trigger", "made", "metrics"), [
        (each.version, ", ".join(each.aliases) or None, each.candidate, (each.trigger or "")[:16] or None,
         moment(each.at.isoformat()), measures_text(each.metrics) or None) for each in versions])


def _as_json(version: Version) -> dict[str, Any]:
    from dataclasses import asdict

    from headrace.payloads import plain

    told: dict[str, Any] = plain(asdict(version))
    return told


def _print_card(found: Version, made: dict[str, Any]) -> None:
    """The card's sections for a terminal: a fact a line."""
    print(f"{found.model} version {found.version}" + (f"  ({', '.join(found.aliases)})" if found.aliases else ""))
    for section, held in made.items():
        if section == "not_known":
            continue
        print(f"\n{section}")
        for name, value in held.items():
            if isinstance(value, dict | list):
                print(f"  {name}:" + ("" if value else " none"))
                told = value.items() if isinstance(value, dict) else ((None, each) for each in value)
                for key, each in told:
                    print(f"    {each}" if key is None else f"    {key}: {each}")
            else:
                print(f"  {name}: {value}")
    if made["not_known"]:
        print(f"\nnot known: {', '.join(made['not_known'])}")


def history(model: Model, control: Control = "headrace", json: bool = Json) -> None:
    """Every switch of a model, in order: epoch, version, mode, why, who, and the trigger it came of.

    What is compacted away in the model topic is taken from the audit log.
    """
    from headrace import settings
    from headrace.loopview import read
    from headrace.loopview.standing import switch_data, switches
    from headrace.loopview.text import moment

    told = read(settings.load(), control)
    rows = [switch_data(each) for each in switches(told, model)]
    if json:
        dump({"model": model, "switches": rows})
        return
    if not rows:
        say(f"no version of {model} was ever switched to, as {control}.models has it; it has "
            + (", ".join(sorted({each.event.model for each in told.switches})) or "no switch at all"))
        return
    table("", ("epoch", "at", "version", "mode", "by", "trigger", "reason"), [
        (str(row["epoch"]), moment(row["at"]), row["version"],
         row["mode"] + (f" {row['share']:.0%}" if row["share"] is not None else ""), row["by"] or row["said_by"],
         (row["trigger"] or "")[:16] or None, row["reason"]) for row in rows])
    if rows[0]["previous"]:
        say(f"before epoch {rows[0]['epoch']} version {rows[0]['previous']} was in charge: that switch is no longer "
            "in the model topic, nor in an audit log")


def compare(model: Model, one: Annotated[str, typer.Argument(metavar="A", help="A version or an alias.")],
            other: Annotated[str, typer.Argument(metavar="B", help="Another.")], json: bool = Json) -> None:
    """Two versions beside each other: their metrics, and the facts in which they differ.

    Metrics of different trainings are of different held-out rows: which is better, the gate says.
    """
    from headrace import settings
    from headrace.loop.models import open_registry

    here = settings.load()
    store = open_registry(here.mlflow_uri, here.project)
    pair = [_found(store, model, each) for each in (one, other)]
    found = store.compare(model, *(each.version for each in pair))
    if json:
        dump({"model": model, "versions": [each.version for each in pair], **found})
        return
    from headrace.loopview.text import number

    titles = [f"version {each.version}" for each in pair]
    table("metrics", ("", *titles), [(name, *map(number, values)) for name, values in found["metrics"].items()])
    table("facts that differ", ("", *titles), [(name, *map(_brief, values)) for name, values in found["facts"].items()])
    if pair[0].trigger != pair[1].trigger:
        say("they come of different trainings: the metrics are of different rows")


def _brief(value: Any) -> str:
    text = str(value)
    return "–" if value is None else text if len(text) <= 60 else text[:59] + "…"


def promote(model: Model, version: Annotated[str, typer.Argument(help="The version, or an alias.")], reason: Reason,
            by: By = None, yes: Yes = False, control: Control = "headrace", json: bool = Json) -> None:
    """Put a version in charge, whatever the gate said."""
    from headrace.loopview.standing import standing
    from headrace.loopview.word import word

    here, store, told = _open(control)
    number, at = _found(store, model, version).version, standing(told, model)
    now = at["in_charge"]
    if now and now["version"] == number and not at["challenger"]:
        _nothing(f"version {number} of {model} is in charge already, since epoch {now['epoch']}: nothing was written",
                 json)
        return
    instead = f" instead of version {now['version']}" if now else ", the first one"
    _speak(here, control, word("promote", model, number, reason, _who(by)),
           f"version {number} of {model} will take over from all running flows{instead}", yes, json)


def rollback(model: Model, reason: Reason,
             to: Annotated[str | None, typer.Option("--to", metavar="VERSION", help="Default: the version before.")]
             = None, by: By = None, yes: Yes = False, control: Control = "headrace", json: bool = Json) -> None:
    """Put the version before in charge again."""
    from headrace.errors import UserError
    from headrace.loopview.standing import standing
    from headrace.loopview.word import word

    here, store, told = _open(control)
    at = standing(told, model)
    target = to or at["previous"]
    if target is None:
        raise UserError(f"{model} has no version to go back to: {control}.models names none before the one in charge",
                        hint="say which with --to; `headrace models show " + model + "` has them")
    number = _found(store, model, target).version
    now = at["in_charge"]
    if now and now["version"] == number:
        _nothing(f"version {number} of {model} is in charge already, since epoch {now['epoch']}: nothing was written",
                 json)
        return
    instead = f" instead of version {now['version']}" if now else ""
    _speak(here, control, word("rollback", model, number if to else None, reason, _who(by)),
           f"version {number} of {model} will take over again{instead}", yes, json)


def approve(model: Model, what: Annotated[str, typer.Argument(metavar="VERSION|TRIGGER", help="The blessed version "
                                                              "that waits, or the trigger it came of.")],
            reason: Reason, by: By = None, yes: Yes = False, control: Control = "headrace", json: bool = Json) -> None:
    """Let a blessed version that waits take over, as the flow says: at once, as a canary or as a shadow."""
    from headrace.loopview.word import find_waiting, word

    here, store, told = _open(control)
    waits = find_waiting(told, model, what)
    number = _found(store, model, str(waits["version"])).version
    _speak(here, control, word("approve", model, number, reason, _who(by), trigger=waits["trigger"]),
           f"version {number} of {model} will take over as its flow says (blessed: "
           f"{'; '.join(waits['reasons']) or 'no reason was given'})", yes, json)


def retrain(model: Model, reason: Reason,
            at: Annotated[str | None, typer.Option(metavar="ISO", help="As of which event time, e.g. "
                                                   "2013-07-01T00:00:00Z; default: now.")] = None,
            by: By = None, yes: Yes = False, control: Control = "headrace", json: bool = Json) -> None:
    """Ask for a training, though nothing that is measured asks for one. The gate judges it like any other."""
    from headrace import settings
    from headrace.loopview import read
    from headrace.loopview.text import instant
    from headrace.loopview.word import word

    here = settings.load()
    known = read(here, control).models()
    unknown = "" if model in known else f". Nothing was said of it so far in {control}.*: is its name right?"
    what = (f"the policy that governs {model} will ask for a training{f' as of {at}' if at else ''}, unless one is "
            f"under way or no window of its data was weighed yet{unknown}")
    _speak(here, control, word("retrain", model, None, reason, _who(by), at=instant(at) if at else None), what, yes,
           json)


def _open(control: str) -> tuple[Settings, ModelStore, History]:
    """The model registry and the control topics."""
    from headrace import settings
    from headrace.loop.models import open_registry
    from headrace.loopview import read

    here = settings.load()
    return here, open_registry(here.mlflow_uri, here.project), read(here, control)


def _in_charge(model: str, at: dict[str, Any]) -> str:
    from headrace.errors import UserError

    if at["in_charge"] is None:
        raise UserError(f"no version of {model} is in charge yet", hint=f"name one: `headrace models show {model}` "
                                                                        "has them")
    return str(at["in_charge"]["version"])


def _found(store: ModelStore, model: str, version: str) -> Version:
    """A version by its number or an alias. Raises NoSuchModel with what there is."""
    from headrace.loop.models import NoSuchModel
    from headrace.marked import nearest

    models = store.models()
    if model not in models:
        raise NoSuchModel(f"there is no model {model} in the model registry{nearest(model, models)}",
                          hint=f"there is {', '.join(models)}" if models else "it is empty: nothing was trained yet")
    versions = store.versions(model)
    found = next((each for each in versions if version == each.version or version in each.aliases), None)
    if found is None:
        there = [each.version + (f" ({', '.join(each.aliases)})" if each.aliases else "") for each in versions[:20]]
        raise NoSuchModel(f"{model} has no version “{version}”", hint=f"there is {', '.join(there)}" if there else
                          "it has none at all")
    return found


def _who(by: str | None) -> str:
    """Who speaks. Raises UserError when there is no login name."""
    import getpass

    from headrace.errors import UserError

    try:
        return by or getpass.getuser()
    except (KeyError, OSError) as error:
        raise UserError("who says so is not known: this process has no login name", hint="say it with --by") from error


def _nothing(what: str, json: bool) -> None:
    if json:
        dump({"written": False, "why": what})
    else:
        print(what)


def _speak(here: Settings, control: str, verdict: Verdict, what: str, yes: bool, json: bool) -> None:
    """Ask, where someone can answer; write the verdict; say what comes of it and where to see it."""
    from headrace.loopview.word import write
    from headrace.payloads import plain

    if not yes and sys.stdin.isatty():
        say(f"{what}.\nBecause: {verdict.reasons[0]}; by {verdict.by}")
        typer.confirm("Write it?", abort=True, err=True)
    place = write(here, control, verdict)
    if json:
        dump({"written": True, "place": str(place), "what": what, "verdict": plain(_fields(verdict))})
        return
    option = "" if control == "headrace" else f" --control {control}"
    see = "headrace loop status" if verdict.about == "retrain" else f"headrace models history {verdict.model}"
    print(f"{verdict.about}: written to {place}, by {verdict.by}.\n{what[0].upper()}{what[1:]}, once the flow that "
          f"governs it has read this.\nSee it happen: {see}{option}")


def _fields(verdict: Verdict) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(verdict)
