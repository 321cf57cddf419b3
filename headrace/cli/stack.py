"""`headrace up | down | status | logs`: this project's embedded Kafka, schema registry and, where asked for, Kafka
Connect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.common import Json, dump, say, table

if TYPE_CHECKING:
    from headrace.stack.jars import Progress


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(logs)


def up(connect: Annotated[bool, typer.Option("--connect", help="Also the real Kafka Connect, for connectors written "
                                             "in Java.")] = False,
       connect_plugins: Annotated[Path | None, typer.Option(
           help="The folder of your Java connectors; left out: .headrace/connect/plugins.")] = None,
       brokers: Annotated[int | None, typer.Option(
           help="How many brokers: 1, 3 or 5; from 3 on topics have three copies. Left out: as before, or 1.")] = None,
       secure: Annotated[bool, typer.Option("--secure", help="With TLS, users and rules of access, all made here. Kept "
                                            "with the data.")] = False,
       json_: bool = Json) -> None:
    """Start Kafka and the schema registry, here and in the background; data is kept in .headrace/."""
    from headrace.errors import UserError
    from headrace.settings import find_project
    from headrace.stack.connect import part
    from headrace.stack.lifecycle import up as start

    if connect_plugins and not connect_plugins.is_dir():
        raise UserError(f"there is no folder {connect_plugins}", hint="--connect-plugins takes one that has, for each "
                        "connector, its jar or a folder of its jars")
    project = find_project()
    worker = part([connect_plugins] if connect_plugins else []) if connect or connect_plugins else None
    with _ended_by_sigterm(), _download_bar() as progress:
        addresses = start(project, progress=progress, say=say, connect=worker, brokers=brokers,
                          security=secure)
    if json_:
        dump(addresses)
    else:
        _warn_of_another_cluster(project)
        say("`headrace status` shows them, `headrace down` stops them.")


def down(purge: bool = typer.Option(False, "--purge", help="Also delete the data: every topic and schema.")) -> None:
    """Stop Kafka, the schema registry and Kafka Connect."""
    from headrace.settings import find_project
    from headrace.stack.lifecycle import down as stop

    project = find_project()
    stopped = stop(project, purge=purge, say=say)
    say(f"{' and '.join(stopped)} stopped" if stopped else "nothing was running")
    if purge:
        say("the data of the stack is deleted")


def status(json_: bool = Json) -> None:
    """Show whether each part runs and answers; exit 1 unless all do."""
    from dataclasses import asdict

    from headrace.settings import find_project
    from headrace.stack.lifecycle import status as look

    project = find_project()
    parts = look(project)
    if json_:
        dump({"project": project, "parts": [asdict(part) for part in parts]})
    else:
        table(f"stack of {project}", ("part", "state", "address", "pid", "MB", "up, s"),
              [(p.name, p.state, p.address, p.pid and str(p.pid), p.rss_mb, p.up_s) for p in parts])
        _warn_of_another_cluster(project)
    for part in parts:
        if part.state == "died":
            say(part.obituary)
    if any(part.state == "died" for part in parts):
        say("`headrace up` starts again what died.")
    if any(part.state != "running" for part in parts):
        raise typer.Exit(1)


def logs(part: str = typer.Argument("", help="kafka (of several: kafka-1 …), registry or connect; all "
                                                                  "when left out."),
         lines: int = typer.Option(40, "-n", "--lines", min=1, help="How many lines of each."),
         follow: bool = typer.Option(False, "--follow", "-f", help="Go on as lines come, until Ctrl-C.")) -> None:
    """Print the end of the stack's logs."""
    from headrace.errors import UserError
    from headrace.settings import find_project
    from headrace.stack.connect import CONNECT
    from headrace.stack.lifecycle import Where, parts
    from headrace.stack.supervise import tail

    where = Where(find_project())
    found = {p.name: where.log(p) for p in (*parts(where), CONNECT)}
    if part and part not in found:
        raise UserError(f"there is no log of “{part}”", hint=f"one of: {', '.join(sorted(found))}")
    chosen = {name: log for name, log in found.items()
              if part == name or (not part and (name != CONNECT.name or log.is_file()))}
    mark = len(chosen) > 1
    at = {name: log.stat().st_size if log.is_file() else 0 for name, log in chosen.items()}
    for name, log in chosen.items():
        for line in tail(log, lines, at[name]):
            print(f"{name} | {line}" if mark else line, flush=True)
    if not any(log.is_file() for log in chosen.values()):
        say(f"no logs yet in {where.folder}: `headrace up` writes them")
    if follow:
        _follow(chosen, at, mark)


def _follow(chosen: dict[str, Path], at: dict[str, int], mark: bool) -> None:
    """Print what is appended beyond the bytes of `at`; starts over when a new run begins a new file."""
    import time

    try:
        while True:
            for name, log in chosen.items():
                size = log.stat().st_size if log.is_file() else 0
                if size < at[name]:
                    at[name] = 0
                if size > at[name]:
                    with log.open("rb") as opened:
                        opened.seek(at[name])
                        fresh = opened.read().rpartition(b"\n")[0]  # a line half written waits for its end
                    at[name] += len(fresh) + bool(fresh)
                    for line in fresh.decode(errors="replace").splitlines():
                        print(f"{name} | {line}" if mark else line, flush=True)
            time.sleep(0.25)
    except KeyboardInterrupt:
        return


def _warn_of_another_cluster(project: Path) -> None:
    """The environment and headrace.toml come before the stack: who started it should know when it is not used."""
    import json

    from headrace.settings import load
    from headrace.stack.lifecycle import Where

    note = Where(project).note
    if not note.is_file():
        return
    started, used = json.loads(note.read_text()), load(project)
    for what, ours, theirs in (("Kafka", started["bootstrap"], used.bootstrap),
                               ("the registry", started["registry"], used.registry_url)):
        if ours != theirs:
            say(f"note: commands here use {what} at {theirs} (from the environment or headrace.toml), not {ours}")


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """A SIGTERM ends a start as Ctrl-C does: with what was started stopped again."""
    import signal
    import sys

    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _download_bar() -> Iterator[Progress]:
    """A bar on a terminal; elsewhere a line every tenth. Nothing at all when the cache has everything."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    bar = Progress(TextColumn("Kafka and the registry, once"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                   TimeRemainingColumn(), console=console, disable=not console.is_terminal)
    task = bar.add_task("download", total=None, start=True)
    said = -1

    def on_bytes(done: int, total: int) -> None:
        nonlocal said
        if not bar.disable:
            if not bar.live.is_started:
                bar.start()
            bar.update(task, completed=done, total=total)
            if done == total:
                bar.stop()
        elif done * 10 // total > said:
            said = done * 10 // total
            say(f"downloading Kafka and the registry, once: {done >> 20} of {total >> 20} MB")

    try:
        yield on_bytes
    finally:
        bar.stop()
