"""`headrace connectors …`: connectors on workers of ours and on a real Kafka Connect, from files and by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.common import Json, dump, say, table

if TYPE_CHECKING:
    from headrace.connectctl.plan import Change
    from headrace.connectctl.waiting import Status
    from headrace.connectctl.workers import Worker, Workers

Url = Annotated[str | None, typer.Option(
    "--url", help="The worker. Left out: HEADRACE_CONNECT, [connect] url in headrace.toml, http://127.0.0.1:8083.")]
JavaUrl = Annotated[str | None, typer.Option(
    "--java-url", help="The Kafka Connect for connectors in Java. Left out: [connect.java] url, the stack's own.")]
Files = Annotated[list[Path] | None, typer.Argument(
    help="Connector configurations, or folders of them. Left out: connectors/ of the project.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
COLOURS = {"create": "green", "change": "yellow", "delete": "red", "unchanged": None}
SIGNS = {"create": "+", "change": "~", "delete": "-", "unchanged": "="}
COMPLETION_TIMEOUT_S = 1.0


def _complete(incomplete: str) -> list[str]:
    """Connector names, for the shell; none where nobody answers at once."""
    from headrace import settings
    from headrace.connectctl.workers import workers
    from headrace.errors import HeadraceError

    names: list[str] = []
    try:
        with workers(settings.load(), timeout_s=COMPLETION_TIMEOUT_S) as found:
            for worker in found.present:
                names += worker.client.get("connectors")
    except HeadraceError:
        pass
    return sorted(name for name in set(names) if name.startswith(incomplete))


Names = Annotated[list[str], typer.Argument(help="Connectors.", autocompletion=_complete)]
Name = Annotated[str, typer.Argument(help="The connector.", autocompletion=_complete)]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Connectors on Connect workers: ours, and a real Kafka Connect.")
    app.add_typer(group, name="connectors")
    commands: tuple[Callable[..., None], ...] = (list_, validate, plan, apply, status, restart, delete, plugins)
    for command in commands:
        group.command(command.__name__.rstrip("_"))(command)
    for verb, (path, done, text) in VERBS.items():
        group.command(verb, help=text)(_told(path, done))
    offsets = typer.Typer(no_args_is_help=True, help="Where a connector stands. To set or reset it, stop it first.")
    group.add_typer(offsets, name="offsets")
    commands = (get, set_, reset)
    for command in commands:
        offsets.command(command.__name__.rstrip("_"))(command)


def _workers(url: str | None, java_url: str | None = None) -> Workers:
    from headrace import settings
    from headrace.connectctl.workers import workers

    return workers(settings.load(), url, java_url)


def list_(url: Url = None, java_url: JavaUrl = None, json_: bool = Json) -> None:
    """List the connectors, what they are, and whether they run."""
    from headrace.connectctl.waiting import status_of

    rows: list[dict[str, Any]] = []
    with _workers(url, java_url) as found:
        for worker in found.present:
            for name, about in sorted(worker.connectors().items()):
                told = status_of(about["status"])
                running = sum(task["state"] == "RUNNING" for task in told.tasks)
                rows.append({"name": name, "class": about["info"]["config"].get("connector.class"), "type": told.kind,
                             "state": "FAILED" if told.failed else told.state, "tasks": f"{running}/{len(told.tasks)}",
                             "worker": worker.url})
    if json_:
        for row in rows:
            dump(row)
    elif rows:
        table("", tuple(rows[0]), [tuple(row.values()) for row in rows])
    else:
        say("there are no connectors")


def validate(files: Files = None, url: Url = None, java_url: JavaUrl = None, json_: bool = Json) -> None:
    """Look whether files are right: here, and by the worker that each is for. Changes nothing; exit 1 if one is not."""
    from headrace import settings
    from headrace.connectctl import files as given
    from headrace.connectctl.plan import validate as by_worker
    from headrace.errors import ConfigError

    connectors = given.load(files or [], settings.load().project)
    findings = []
    with _workers(url, java_url) as found:
        for one in connectors:
            if one.full_name is not None and not found.ours.answers:
                say(f"{one.name}: right, as far as this machine can tell; no worker answers at {found.ours.url}")
                continue
            worker = found.for_file(one)
            wrong = by_worker(one, worker)
            findings += wrong
            if not wrong and not json_:
                say(f"{one.name}: right, says {worker.url}")
    if json_:
        dump([{"file": f.file, "line": f.line, "message": f.message} for f in findings])
    if findings:
        raise typer.Exit(1) if json_ else ConfigError(findings)


def plan(files: Files = None,
         prune: Annotated[bool, typer.Option("--prune", help="Also show what no file names, to be deleted.")] = False,
         url: Url = None, java_url: JavaUrl = None, json_: bool = Json) -> None:
    """Show what `apply` would do. Changes nothing."""
    with _workers(url, java_url) as found:
        _show(_plan(files, found, prune), json_)


def apply(files: Files = None,
          prune: Annotated[bool, typer.Option("--prune", help="Also delete what no file names; asks first.")] = False,
          yes: Yes = False,
          no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until they run.")] = False,
          timeout_s: Annotated[float, typer.Option("--timeout", min=0, help="How long to wait for each, in "
                                                                            "seconds.")] = 60.0,
          url: Url = None, java_url: JavaUrl = None, json_: bool = Json) -> None:
    """Make the workers as the files say, and wait until the connectors run. Again, it changes nothing.

    Each file goes to the worker that has its class. Exit 1 if a connector fails, or does not run in time.
    """
    from headrace.connectctl.plan import apply as do
    from headrace.connectctl.plan import check
    from headrace.connectctl.waiting import wait
    from headrace.errors import ConfigError

    with _workers(url, java_url) as found:
        changes = _plan(files, found, prune)
        if not json_:
            _show(changes, False)
        doomed = [change.name for change in changes if change.action == "delete"]
        if wrong := check(changes):
            raise ConfigError(wrong)
        if doomed and not yes:
            _ask(f"delete {', '.join(doomed)}, which no file names?")
        sent = [do(change) for change in changes]
        well = True
        for change, changed in zip(changes, sent, strict=True):
            end = None
            if change.wanted is not None and not no_wait:
                end = wait(change.worker, change.name, _aim(change), timeout_s, changed=changed)
                well &= not _unwell(end, change)
            if json_:
                dump({**change.told(), **({"status": _status_json(end)} if end else {})})
            elif end is not None:
                _say_end(end, change)
    if not well:
        raise typer.Exit(1)


def _plan(files: list[Path] | None, found: Workers, prune: bool) -> list[Change]:
    from headrace import settings
    from headrace.connectctl import files as given
    from headrace.connectctl.plan import plan as compare

    return compare(given.load(files or [], settings.load().project), found, prune=prune)


def _show(changes: list[Change], json_: bool) -> None:
    """The changes, then how many there are of each."""
    for change in changes:
        if json_:
            dump(change.told())
        else:
            _print(change)
    if not json_:
        counts = {action: sum(change.action == action for change in changes) for action in SIGNS}
        say(", ".join(f"{n} {'unchanged' if action == 'unchanged' else f'to {action}'}"
                      for action, n in counts.items() if n or action != "delete"))


def _print(change: Change) -> None:
    """A diff: new keys green, old ones red, changed ones yellow. Colours on a terminal only."""
    what = change.wanted.cls if change.wanted else "no file names it"
    typer.secho(f"{SIGNS[change.action]} {change.action} {change.name}: {what}, at {change.worker.url}",
                fg=COLOURS[change.action], bold=change.action != "unchanged")
    for key, (before, after) in change.keys.items():
        if change.action == "delete":
            continue
        if before is None:
            typer.secho(f"    + {key} = {after}", fg="green")
        elif after is None:
            typer.secho(f"    - {key} = {before}", fg="red")
        else:
            typer.secho(f"    ~ {key} = {before} → {after}", fg="yellow")
    if change.unseen:
        typer.echo(f"    ? {', '.join(change.unseen)}: hidden by the worker, so not compared; `apply` sends them again")


def _aim(change: Change) -> str:
    """What it should become; one that failed before, or is just starting, should run."""
    return change.state if change.state in ("PAUSED", "STOPPED") else "RUNNING"


def _unwell(end: Status, change: Change) -> bool:
    return end.failed or not end.is_(_aim(change))


def _say_end(end: Status, change: Change) -> None:
    tasks = ", ".join(f"task {task['id']} {task['state']}" for task in end.tasks)
    said = f"{change.name}: {end.state}" + (f" ({tasks})" if tasks else "" if end.state == "STOPPED" else " (no tasks)")
    typer.secho(said, fg="red" if _unwell(end, change) else "green", err=True)
    for failure in end.failures:
        say(f"    {failure}")
    if end.failed:
        say(f"    when it is mended: `headrace connectors restart {change.name}`")


def _status_json(told: Status) -> dict[str, Any]:
    return {"name": told.name, "type": told.kind, "state": told.state, "trace": told.trace, "tasks": list(told.tasks)}


def status(names: Annotated[list[str] | None, typer.Argument(help="Connectors; all when left out.",
                                                             autocompletion=_complete)] = None,
           url: Url = None, java_url: JavaUrl = None, json_: bool = Json) -> None:
    """Show connectors and their tasks, and why any failed; exit 1 if one did."""
    from headrace.connectctl.waiting import status as look

    failed = False
    rows, failures = [], []
    with _workers(url, java_url) as found:
        asked = [(found.owner(name), name) for name in names or []] if names else [
            (worker, name) for worker in found.present for name in sorted(worker.client.get("connectors"))]
        for worker, name in asked:
            told = look(worker, name)
            failed |= told.failed
            failures += [f"{name}: {failure}" for failure in told.failures]
            tasks = ", ".join(f"{task['id']}: {task['state']}" for task in told.tasks)
            rows.append((name, told.kind, told.state, tasks or None, worker.url))
            if json_:
                dump({**_status_json(told), "worker": worker.url})
    if not json_:
        table("", ("connector", "type", "state", "tasks", "worker"), rows)
        for failure in failures:
            say(failure)
    if failed:
        raise typer.Exit(1)


VERBS = {
    "pause": ("pause", "is paused", "Pause connectors: their tasks stay, and do nothing."),
    "resume": ("resume", "goes on", "Let paused and stopped connectors go on."),
    "stop": ("stop", "is stopped", "Stop connectors: no tasks, but configuration and offsets are kept."),
}


def _told(path: str, done: str) -> Callable[..., None]:
    """A command that tells connectors to do something."""
    def command(names: Names, url: Url = None, java_url: JavaUrl = None) -> None:
        with _workers(url, java_url) as found:
            for worker, name in [(found.owner(name), name) for name in names]:
                worker.client.ask("PUT", "connectors", name, path)
                say(f"{name} {done}")

    return command


def restart(names: Names,
            tasks: Annotated[bool, typer.Option("--tasks/--no-tasks", help="Its tasks too.")] = True,
            only_failed: Annotated[bool, typer.Option("--only-failed", help="Only what has failed.")] = False,
            task: Annotated[int | None, typer.Option("--task", min=0, help="Only this task.")] = None,
            url: Url = None, java_url: JavaUrl = None) -> None:
    """Restart connectors and their tasks."""
    with _workers(url, java_url) as found:
        for worker, name in [(found.owner(name), name) for name in names]:
            if task is not None:
                worker.client.ask("POST", "connectors", name, "tasks", str(task), "restart")
            else:
                worker.client.ask("POST", "connectors", name, "restart", includeTasks=str(tasks).lower(),
                                  onlyFailed=str(only_failed).lower())
            say(f"{name} is restarted" if task is None else f"task {task} of {name} is restarted")


def delete(names: Names, yes: Yes = False, url: Url = None, java_url: JavaUrl = None) -> None:
    """Delete connectors; asks first. Where one stands outlives it: for a fresh start, stop it and reset that before."""
    with _workers(url, java_url) as found:
        owners = [(found.owner(name), name) for name in names]
        if not yes:
            _ask("delete " + ", ".join(f"{name} at {worker.url}" for worker, name in owners) + "?")
        for worker, name in owners:
            worker.client.ask("DELETE", "connectors", name)
            say(f"{name} is deleted")


def plugins(url: Url = None, java_url: JavaUrl = None, json_: bool = Json) -> None:
    """List what connectors there are to run."""
    rows: list[tuple[Any, ...]] = []
    with _workers(url, java_url) as found:
        for worker in found.present:
            rows += [(one["class"], one["type"], one.get("version"), worker.url)
                     for one in sorted(worker.plugins.values(), key=lambda one: str(one["class"]))]
    if json_:
        for row in rows:
            dump(dict(zip(("class", "type", "version", "worker"), row, strict=True)))
    else:
        table("", ("class", "type", "version", "worker"), rows)


def get(name: Name, url: Url = None, java_url: JavaUrl = None) -> None:
    """Print where a connector stands, as JSON that `set` takes."""
    with _workers(url, java_url) as found:
        print(json.dumps(found.owner(name).client.get("connectors", name, "offsets"), indent=1, ensure_ascii=False))


def set_(name: Name, file: Annotated[typer.FileText, typer.Argument(help="JSON as `get` prints it; - is standard "
                                                                         "input. A null offset forgets that place.")],
         url: Url = None, java_url: JavaUrl = None) -> None:
    """Make a stopped connector stand elsewhere."""
    from headrace.errors import UserError

    try:
        wanted = json.load(file)
    except ValueError as error:
        raise UserError(f"{file.name}: not JSON: {error}") from error
    if not (isinstance(wanted, dict) and isinstance(wanted.get("offsets"), list)):
        raise UserError(f"{file.name}: must be an object with a list “offsets”",
                        hint='as `headrace connectors offsets get` prints it: {"offsets": [{"partition": …, "offset": '
                             '…}]}')
    _move(name, "PATCH", wanted, url, java_url)


def reset(name: Name, yes: Yes = False, url: Url = None, java_url: JavaUrl = None) -> None:
    """Make a stopped connector begin anew; asks first."""
    if not yes:
        _ask(f"forget where {name} stands?")
    _move(name, "DELETE", None, url, java_url)


def _move(name: str, method: str, body: Any, url: str | None, java_url: str | None) -> None:
    from headrace.connectctl.client import Refused

    with _workers(url, java_url) as found:
        worker: Worker = found.owner(name)
        try:
            say(worker.client.ask(method, "connectors", name, "offsets", body=body)["message"])
        except Refused as refused:
            if "STOPPED" in str(refused):
                refused.hint = f"`headrace connectors stop {name}` first, `resume` afterwards"
            raise


def _ask(question: str) -> None:
    """Raises Exit unless a person says yes; where no person is, that is an error that says what to do."""
    from headrace.errors import UserError

    if not sys.stdin.isatty():
        raise UserError(f"{question} Nobody is there to answer", hint="--yes does it without asking")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)
