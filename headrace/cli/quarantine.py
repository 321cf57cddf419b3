"""`headrace quarantine list | show | replay`: what flows held back, and how to send it on its way again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.common import Json, dump, say, table

if TYPE_CHECKING:
    from headrace.quarantine import Held, Replayed
    from headrace.settings import Settings

Topic = Annotated[str, typer.Argument(help="A quarantine topic, e.g. flights.departures.quarantine.")]
Reason = Annotated[str | None, typer.Option(metavar="ID", help="Only records with this reason, e.g. an expectation's "
                                                               "id.")]
At = Annotated[str | None, typer.Option("--offset", metavar="P@O", help="Only the record at this partition and offset "
                                                                        "of the quarantine, e.g. 3@1042.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Look at what flows held back, mend it, send it again.")
    group.command("list")(list_)
    group.command()(show)
    group.command()(replay)
    app.add_typer(group, name="quarantine")


def list_(topic: Annotated[str | None, typer.Argument(help="Default: every quarantine.")] = None,
          json: bool = Json) -> None:
    """How much is held back, by reason, step and flow, and how much of it was sent again.

    Quarantines are the quarantine sinks and dead letters of this project's flows, and every topic whose name ends in
    `.quarantine` or `.dead-letter`.
    """
    from headrace import quarantine, settings
    from headrace.quarantine import Markers
    from headrace.topics import existing

    here = settings.load()
    there = existing(here)
    names = _known([topic], here, there) if topic else quarantine.topics(here, there)
    found = [quarantine.summary(here, name, Markers(here, name).refresh()) for name in names]
    if json:
        dump({"topics": {s.topic: s.as_json() for s in found}})
        return
    if not found:
        say("there is no quarantine topic yet")
        return
    for s in found:
        rows = [(kind, name, n) for kind in ("reason", "step", "flow")
                for name, n in getattr(s, f"by_{kind}").most_common()]
        print(f"{s.topic}: {s.records:,} held back, {s.replayed:,} of them sent again"
              + (f"; held from {s.oldest} to {s.newest}" if s.oldest else ""))
        if rows:
            table("", ("by", "", "records"), rows)


def _known(names: list[str], here: Settings, there: Any) -> list[str]:
    from headrace import quarantine
    from headrace.errors import UserError
    from headrace.marked import nearest

    for name in names:
        if name not in there:
            raise UserError(f"there is no topic {name}{nearest(name, quarantine.topics(here, there))}")
    return names


def _position(text: str | None) -> tuple[int, int] | None:
    from headrace.peek import parse_position

    return parse_position(f"q/{text}")[1:] if text else None


def show(topic: Topic, n: Annotated[int, typer.Option("-n", min=1, help="The newest N.")] = 10, reason: Reason = None,
         offset: At = None, show_pii: Annotated[bool, typer.Option("--show-pii", help="Show personal data, too: fields "
                                                                   "that their schema tags.")] = False,
         json: bool = Json) -> None:
    """The records themselves, newest last: decoded where that is possible, else in hex; why, where from, when."""
    from heapq import nlargest

    from headrace import settings
    from headrace.payloads import Reader
    from headrace.quarantine import Markers, Mend
    from headrace.quarantine.read import every, one
    from headrace.registry import Registry
    from headrace.topics import existing

    here = settings.load()
    _known([topic], here, existing(here))
    position, mend = _position(offset), Mend(reason=reason)
    asked = ((r for r in [one(here, topic, *position)] if r) if position else
             (r for batch in every(here, topic) for r in batch))
    records = nlargest(n, filter(mend.selects, asked), key=lambda r: (r.time or "", r.at))[::-1]
    contents = Reader(Registry(here.registry_client()).schema, show_pii=show_pii).records([r.value for r in records])
    done = Markers(here, topic).refresh()
    for record, content in zip(records, contents, strict=True):
        facts = _facts(record, content, (record.at.partition, record.at.offset_first) in done)
        if json:
            dump(facts)
        else:
            _print(facts)
    if not records:
        say(f"nothing to show in {topic}" + (f" with reason {reason}" if reason else ""))


def _facts(record: Held, content: dict[str, Any] | str, sent_again: bool) -> dict[str, Any]:
    from headrace.peek import show_key
    from headrace.trace import stamp

    readable = isinstance(content, dict)
    return {"at": str(record.at), "source": str(record.source) if record.source else None, "flow": record.flow,
            "step": record.step, "reasons": list(record.reasons), "time": record.time,
            "timestamp": stamp(record.timestamp_ms), "key": show_key(record.key), "sent_again": sent_again,
            "record": content if readable else None, "unreadable": None if readable else content,
            "hex": None if readable or record.value is None else record.value.hex()}


def _print(facts: dict[str, Any]) -> None:
    """One record for a person: a heading, then its facts, then its content."""
    import json

    from rich.console import Console
    from rich.text import Text

    out = Console(highlight=False, soft_wrap=True)
    out.print(Text.assemble((facts["at"], "bold"), f"  from {facts['source'] or 'unknown'}",
                            "  sent again" if facts["sent_again"] else ""))
    out.print(Text(f"  {facts['flow']}/{facts['step']}  held {facts['time']}, written {facts['timestamp']}, "
                   f"key {facts['key']}", "dim"))
    for reason in facts["reasons"]:
        out.print(Text(f"  {reason}", "yellow"))
    if facts["record"] is not None:
        out.print(Text(f"  {json.dumps(facts['record'], ensure_ascii=False)}"))
    else:
        out.print(Text(f"  {facts['unreadable']}\n  {facts['hex'] or 'no payload'}"))


def replay(topic: Topic,
           where: Annotated[str | None, typer.Option(metavar="EXPR", help="Only records for which this SQL expression "
                                                                          "is true.")] = None,
           sets: Annotated[list[str] | None, typer.Option("--set", metavar="COL=EXPR", help="Change a column; can be "
                                                          "given several times.")] = None,
           reason: Reason = None, offset: At = None,
           schema: Annotated[Path | None, typer.Option(help="An .avsc to read and send the records with. Default: the "
                                                            "schema each was written with.")] = None,
           raw: Annotated[bool, typer.Option("--raw", help="Send what cannot be decoded too, byte for byte.")] = False,
           dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent; send nothing.")] = False,
           batch: Annotated[int, typer.Option(min=1, max=100_000, hidden=True)] = 5_000, json: bool = Json) -> None:
    """Send records to the topic and partition they came from again, as they are or mended. Each is sent once, ever.

    Whatever interrupts it, run it again: a marker in the same Kafka transaction says what was sent.
    """
    from headrace import codec, quarantine, settings
    from headrace.quarantine import Mend

    mend = Mend(where, _assignments(sets or []), reason, _position(offset), codec.load(schema) if schema else None, raw)

    def told(so_far: Replayed) -> None:
        if not json:
            say(f"{so_far.read:,} read, {sum(so_far.sent.values()):,} {'would be ' * dry_run}sent")

    done = quarantine.replay(settings.load(), topic, mend, dry_run=dry_run, batch_max=batch, told=told)
    if json:
        dump(done.as_json())
    else:
        _report(done)


def _assignments(written: list[str]) -> dict[str, str]:
    from headrace.errors import UserError

    out: dict[str, str] = {}
    for text in written:
        column, equals, expression = text.partition("=")
        if not (equals and column.strip() and expression.strip()):
            raise UserError(f"--set {text}: write COLUMN=EXPRESSION", hint="e.g. --set \"tailnum=upper(tailnum)\"")
        if column.strip() in out:
            raise UserError(f"--set {column.strip()} is given twice")
        out[column.strip()] = expression.strip()
    return out


def _report(done: Replayed) -> None:
    import json

    would = "would be " if done.dry_run else ""
    for example in done.examples if done.dry_run else ():
        print(f"{example['at']} → {example['source'].rpartition('@')[0]}")
        for label in ("before", "after"):
            print(f"  {label:6} {json.dumps(example[label], ensure_ascii=False)}")
    for target, n in done.sent.items():
        print(f"{n:,} {would}sent to {target}")
    if done.already:
        print(f"{done.already:,} were sent before, and are not sent again")
    for why, n in done.skipped.items():
        print(f"{n:,} skipped: {why}")
    for at, reason in done.left:
        print(f"  {at}: {reason}")
    if not done.sent:
        print(f"nothing {would}sent")
