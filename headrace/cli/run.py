"""`headrace run`: flows, until they are told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def run(
        flows: Annotated[list[Path], typer.Argument(help="Flow files, or names of files in flows/.")],
        workers: Annotated[int, typer.Option(min=1, max=256, help="Processes for each flow.")] = 1,
        drain: Annotated[bool, typer.Option("--drain", help="Process what is there now, commit, exit 0.")] = False,
        http: Annotated[int | None, typer.Option(help="Serve /metrics, /health and /ready on this port; with several "
                                                      "processes, each on the next one.")] = None,
        http_host: Annotated[str, typer.Option(help="The address to serve on.")] = "127.0.0.1",
        instance: Annotated[str | None, typer.Option(help="A stable name for this instance, unique among all that run "
                                                          "the flow. Default: the StatefulSet pod, else kept.")] = None,
        slot: Annotated[int | None, typer.Option(hidden=True)] = None,
        group: Annotated[str | None, typer.Option(help="Consumer group. Default: headrace.<flow>.")] = None,
        batch: Annotated[int, typer.Option(min=1, max=1_000_000, help="Records in a batch, at most.")] = 40_000,
        log: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    ) -> None:
        """Run flows: each record exactly once, from its topic through the steps to the sinks.

        SIGTERM finishes the batch in hand. Logs are JSON on stderr. What fails lint does not start.
        """
        from headrace import logs, settings
        from headrace.instance import claim
        from headrace.lean import leave_pandas_out

        leave_pandas_out()
        logs.set_up(log)
        here = settings.load()
        paths = [_flow_file(given, here.project) for given in flows]
        if slot is not None:
            die_with_parent()
        if len(paths) * workers == 1 or slot is not None:
            with claim(here.state, paths[0].stem, instance) as name:
                _one(paths[0], here, name, slot or 0, drain, http, http_host, group, batch)
            return
        _many(paths, here, workers, instance, drain, http, http_host, group, batch, log)


def die_with_parent() -> None:
    """A worker never outlives the parent that watches it, however that one ends (Linux; elsewhere it does nothing)."""
    import ctypes
    import signal
    import sys

    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _flow_file(given: Path, project: Path) -> Path:
    from headrace.errors import UserError

    for candidate in (given, project / "flows" / given, project / "flows" / f"{given}.yaml"):
        if candidate.is_file():
            return candidate.resolve()
    raise UserError(f"there is no flow {given}", hint=f"looked for {given}, flows/{given} and flows/{given}.yaml")


def _one(path: Path, here: object, name: str, slot: int, drain: bool, http: int | None, http_host: str,
         group: str | None, batch: int) -> None:
    from headrace.app import host
    from headrace.flow import load
    from headrace.plan import plan
    from headrace.settings import Settings
    from headrace.worker import Worker

    assert isinstance(here, Settings)
    planned = plan(load(path), here.project)
    worker = Worker(planned, here, instance=name, slot=slot, drain=drain, batch_max=batch, group=group)
    host(worker, here.state, http_port=http, http_host=http_host)


def _many(paths: list[Path], here: object, workers: int, instance: str | None, drain: bool, http: int | None,
          http_host: str, group: str | None, batch: int, log: str) -> None:
    from contextlib import ExitStack

    from headrace.flow import load
    from headrace.instance import claim
    from headrace.plan import plan
    from headrace.settings import Settings
    from headrace.supervisor import python_command, supervise
    from headrace.worker import make_topics

    assert isinstance(here, Settings)
    with ExitStack() as held:
        commands: dict[str, list[str]] = {}
        for path in paths:
            make_topics(here, plan(load(path), here.project))
            name = held.enter_context(claim(here.state, path.stem, instance))
            for slot in range(workers):
                at = [] if http is None else ["--http", str(http + len(commands)), "--http-host", http_host]
                commands[f"{path.stem}.{slot}"] = python_command(
                    "run", str(path), "--slot", str(slot), "--instance", name, "--batch", str(batch), "--log", log,
                    *(["--drain"] if drain else []), *(["--group", group] if group else []), *at)
        code = supervise(commands)
    if code:
        raise typer.Exit(code)
