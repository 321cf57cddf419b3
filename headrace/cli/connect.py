"""`headrace connect`: connectors from Kafka Connect's configuration files, run here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.common import Json, dump, say, table


def register(app: typer.Typer) -> None:
    @app.command()
    def connect(
        files: Annotated[list[Path], typer.Argument(help="Connector configurations: JSON or properties.")],
        drain: Annotated[bool, typer.Option("--drain", help="End where the files end now, even those with "
                                                            "tail=true.")] = False,
        reset: Annotated[bool, typer.Option("--reset", help="Forget where the connectors were: begin anew.")] = False,
        check: Annotated[bool, typer.Option("--check", help="Only look whether the files are right.")] = False,
        log: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
        json: bool = Json,
    ) -> None:
        """Run connectors: each record of their sources exactly once in its topic.

        SIGTERM and Ctrl-C finish the batch in hand. Started again, each goes on where it was. Logs are JSON on stderr.
        """
        import signal
        import threading

        from headrace import logs, settings
        from headrace.connect.config import examine
        from headrace.errors import ConfigError

        here = settings.load()
        looked = [examine(path, here.project) for path in files]
        findings = [one for _, found in looked for one in found]
        if findings:
            raise ConfigError(findings)
        if check:
            say(f"{len(files)} connector configuration{'s are' if len(files) > 1 else ' is'} right")
            return
        from headrace.connect.standalone import run, summary

        logs.set_up(log)
        connectors = [made for made, _ in looked if made is not None]
        for one in connectors:
            if one.state != "RUNNING":
                say(f"{one.name} is {one.state} by its file: not started")
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        done = run([one for one in connectors if one.state == "RUNNING"], here, stop, drain=drain, reset=reset)
        if json:
            for line in summary(done):
                dump(line)
        else:
            table("", ("connector", "topic", "records", "rejected", "seconds"),
                  [(d.connector, d.topic, d.records, d.rejected, d.seconds) for d in done])
