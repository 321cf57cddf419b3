"""`headrace connect`: connectors from Kafka Connect's configuration files, run here; or a worker with its REST API."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.common import Json, dump, say, table

LISTEN, GROUP = "127.0.0.1:8083", "headrace-connect"


def _stopped() -> threading.Event:
    """Set by SIGTERM and Ctrl-C."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def register(app: typer.Typer) -> None:
    @app.command()
    def connect(
        files: Annotated[list[Path] | None, typer.Argument(
            help="Connector configurations: JSON or properties. Left out: a worker that is told its connectors by the "
            "REST API, and goes on with them when it is started again.")] = None,
        drain: Annotated[bool, typer.Option("--drain", help="End where what is read ends now: files with tail=true, "
                                                            "topics.")] = False,
        reset: Annotated[bool, typer.Option("--reset", help="Forget where the connectors were: begin anew.")] = False,
        check: Annotated[bool, typer.Option("--check", help="Only look whether the files are right.")] = False,
        listen: Annotated[str | None, typer.Option(
            help="Where the REST API listens, host:port. Left out: 127.0.0.1:8083 without files, nowhere with them.",
            show_default=False)] = None,
        group: Annotated[str, typer.Option(help="Workers of one name follow one another; without files.")] = GROUP,
        log: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
        json: bool = Json,
    ) -> None:
        """Run connectors: from files to their end, or as a worker with Kafka Connect's REST API.

        SIGTERM and Ctrl-C finish the batch in hand. Started again, each goes on where it was. Logs are JSON on stderr.
        """
        from headrace import logs, settings
        from headrace.connect.config import examine
        from headrace.errors import ConfigError, UserError

        here = settings.load()
        files = files or []
        if not files and (drain or reset or check):
            raise UserError("--drain, --reset and --check are of connectors' files, and none is named",
                            hint="headrace connect connectors/*.json, or headrace connectors for those of a worker")
        if listen is not None and (drain or reset):
            raise UserError("--listen makes a worker that goes on until it is stopped, without --drain and --reset")
        looked = [examine(path, here.project) for path in files]
        findings = [one for _, found in looked for one in found]
        if findings:  # a Java class too: it runs elsewhere
            raise ConfigError(findings)
        if check:
            say(f"{len(files)} connector configuration{'s are' if len(files) > 1 else ' is'} right")
            return
        logs.set_up(log)
        if listen is not None or not files:
            from headrace.connect.server import serve

            listen = listen or LISTEN
            say(f"Connect's REST API is at http://{listen}; Ctrl-C ends it")
            serve(here, files=files, listen=listen, group=group, stop=_stopped())
            return
        from headrace.connect.standalone import run, summary

        connectors = [made for made, _ in looked if made is not None]
        for one in connectors:
            if one.state != "RUNNING":
                say(f"{one.name} is {one.state} by its file: not started")
        running = [one.spec for one in connectors if one.state == "RUNNING" and one.spec is not None]
        done = run(running, here, _stopped(), drain=drain, reset=reset)
        if json:
            for line in summary(done):
                dump(line)
        else:
            table("", ("connector", "topic", "records", "rejected", "seconds"),
                  [(d.connector, d.topic, d.records, d.rejected, d.seconds) for d in done])
