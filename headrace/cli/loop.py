"""`headrace loop`: what keeps the models of a flow right, run and explained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    from headrace.cli import loop_view

    loop = typer.Typer(no_args_is_help=True, help="Keep a flow's models right: run the loop, see and explain it.")
    app.add_typer(loop, name="loop")
    loop_view.register_into(loop)

    @loop.command()
    def run(
        flow: Annotated[str, typer.Argument(help="A flow file that declares `models`, or its name in flows/.")],
        part: Annotated[list[str] | None, typer.Option(help="Only this part: decide, dispatch, gate, audit. Can be "
                                                            "repeated; all, each in a process, if left out.")] = None,
        drain: Annotated[bool, typer.Option("--drain", help="Process what is there now, commit, exit 0.")] = False,
        http: Annotated[int | None, typer.Option(help="Serve /metrics, /health and /ready on this port; each part on "
                                                      "the next one.")] = None,
        http_host: Annotated[str, typer.Option(help="The address to serve on.")] = "127.0.0.1",
        instance: Annotated[str | None, typer.Option(help="A stable name for this instance.")] = None,
        child: Annotated[bool, typer.Option(hidden=True)] = False,
        log: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    ) -> None:
        """Run the loop of a flow: decide on verdicts, dispatch trainings, judge challengers, switch, keep the books.

        Each part is a flow of its own with the guarantees of any other; a part that dies is started again.
        """
        from headrace import logs, settings
        from headrace.flow import find
        from headrace.governed import PARTS
        from headrace.lean import leave_pandas_out

        leave_pandas_out()
        logs.set_up(log)
        here = settings.load()
        path = find(flow, here.project).resolve()
        wanted = part or list(PARTS)
        if unknown := sorted(set(wanted) - set(PARTS)):
            raise typer.BadParameter(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
        if len(wanted) == 1:
            _one(path, wanted[0], here, instance, drain, http, http_host, child)
        else:
            _all(path, wanted, here, instance, drain, http, http_host, log)


def _one(path: Path, part: str, here: object, instance: str | None, drain: bool, http: int | None, http_host: str,
         child: bool) -> None:
    from headrace import governed
    from headrace.app import host
    from headrace.cli.run import die_with_parent
    from headrace.flow import load
    from headrace.instance import claim
    from headrace.plan import plan
    from headrace.settings import Settings
    from headrace.worker import Worker

    assert isinstance(here, Settings)
    if child:
        die_with_parent()
    spec = load(path)
    made = plan(governed.part(spec, part), here.project)
    group = governed.group(spec, part)
    with claim(here.state, group, instance) as name:
        worker = Worker(made, here, instance=name, drain=drain, batch_max=1_000, group=group)
        host(worker, here.state, http_port=http, http_host=http_host)


def _all(path: Path, parts: list[str], here: object, instance: str | None, drain: bool, http: int | None,
         http_host: str, log: str) -> None:
    from headrace import governed
    from headrace.flow import load
    from headrace.plan import plan
    from headrace.settings import Settings
    from headrace.supervisor import python_command, supervise
    from headrace.topics import ensure

    assert isinstance(here, Settings)
    spec = load(path)
    commands = {}
    for at, part in enumerate(parts):
        ensure(here, plan(governed.part(spec, part), here.project).topics)
        port = [] if http is None else ["--http", str(http + at), "--http-host", http_host]
        commands[part] = python_command("loop", "run", str(path), "--part", part, "--child", "--log", log,
                                        *(["--drain"] if drain else []),
                                        *(["--instance", instance] if instance else []), *port)
    if code := supervise(commands):
        raise typer.Exit(code)
