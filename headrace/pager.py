"""A listener to the control events, to run as it is or to begin your own with: a Faust worker with three agents.

    python -m headrace.pager                                  events as JSON lines on stdout
    python -m headrace.pager --out alerts.jsonl               … in a file, each once
    python -m headrace.pager --events alert --run './page'    a command for each, with the event's JSON on its stdin

Each event is acted on once: its id is remembered, in the file given with `--out` across restarts, else while this
process lives. A command that fails is run again after a growing pause, and nothing after its event is looked at before
it succeeds; one that was cut off by a crash is run again at the next start, so let it bear a repeat.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import faust

from headrace import faust as ours
from headrace import logs, topics
from headrace.control import EVENTS, RAISED, ControlEvent
from headrace.errors import HeadraceError, UserError
from headrace.secrets import scrubbed
from headrace.settings import Settings, find_project, load

IDS_MAX = 100_000


class Pager:
    """Acts on each event once, by its id: runs the command, then writes the line."""

    def __init__(self, out: Path | None, command: Sequence[str]) -> None:
        self.out, self.command = out, command
        self._seen = dict.fromkeys(_ids(out)) if out else {}

    async def __call__(self, event: ControlEvent) -> None:
        """Raises OSError when the command does not end with 0 or the file cannot be written; then nothing is done."""
        if event.id in self._seen:
            return
        line = event.to_json()
        if self.command:
            await self._run(line, event)
        self._write(line)
        self._seen[event.id] = None
        if len(self._seen) > IDS_MAX:
            del self._seen[next(iter(self._seen))]

    async def _run(self, line: str, event: ControlEvent) -> None:
        process = await asyncio.create_subprocess_exec(
            *self.command, stdin=asyncio.subprocess.PIPE, stdout=sys.stderr,
            env={**os.environ, "HEADRACE_EVENT_KIND": event.kind, "HEADRACE_EVENT_ID": event.id})
        await process.communicate(line.encode())
        if process.returncode:
            raise OSError(f"{shlex.join(self.command)} ended with {process.returncode}")

    def _write(self, line: str) -> None:
        if self.out is None:
            print(line, flush=True)
            return
        with self.out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def _ids(out: Path) -> Iterable[str]:
    """The ids in the file. A last line cut short by a crash is mended away; its event comes again."""
    if not out.exists():
        return []
    text = out.read_text(encoding="utf-8")
    whole, _, torn = text.rpartition("\n")
    if torn:
        with out.open("r+", encoding="utf-8") as file:
            file.truncate(len(whole.encode()) + 1 if whole else 0)
    try:
        return [json.loads(line)["id"] for line in whole.splitlines() if line][-IDS_MAX:]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{out} is no file of events: {error}", hint="give --out a file of its own") from error


def build(settings: Settings, kinds: Iterable[str], act: Pager, group: str) -> faust.App:
    """The Faust app: an agent for each kind of event. Topics that are absent are created, to be listened to at all."""
    app = ours.app(group, settings)
    for event in (EVENTS[kind] for kind in kinds):
        keep = {"cleanup.policy": "compact"} if event.kind == "switch" else {}
        topics.ensure(settings, [topics.TopicPlan(event.home, 1, {"retention.ms": "-1", **keep})])
        ours.listener(app, event, settings=settings)(act.__call__)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m headrace.pager", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", default=",".join(RAISED), help="kinds, with commas: %(default)s")
    parser.add_argument("--out", type=Path, help="append JSON lines to this file, instead of stdout")
    parser.add_argument("--run", default="", metavar="COMMAND", help="run this for each event, its JSON on stdin")
    parser.add_argument("--group", default="headrace-pager", help="consumer group: %(default)s")
    parser.add_argument("--project", type=Path, help="project folder, found from here if left out")
    given = parser.parse_args(arguments)
    kinds = given.events.split(",")
    if unknown := sorted(set(kinds) - set(EVENTS)):
        parser.error(f"no such kind of event: {', '.join(unknown)} (there are {', '.join(EVENTS)})")
    logs.set_up()
    try:
        app = build(load(given.project or find_project()), kinds, Pager(given.out, shlex.split(given.run)), given.group)
    except HeadraceError as error:
        print(f"pager: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    worker = faust.Worker(app, quiet=True, override_logging=False, redirect_stdouts=False, loglevel="WARN")
    worker.spinner = None  # it would write its escapes among the events
    worker.execute_from_commandline()


if __name__ == "__main__":
    sys.stderr = scrubbed(sys.stderr)
    main()
