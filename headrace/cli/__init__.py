"""The command line. A command group is a module; heavy imports live inside its functions, so that `--help` is quick."""

from __future__ import annotations

import importlib

import typer

GROUPS = ("stack", "schemas", "contracts", "flows", "run", "records", "lag", "quarantine", "trace", "state", "connect",
          "connectors", "loop", "models", "audit", "privacy", "k8s", "tfx", "demo")
"""Modules of this package; each has `register(app: typer.Typer) -> None`."""


def build() -> typer.Typer:
    """The whole command tree."""
    app = typer.Typer(name="headrace", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False,
                      rich_markup_mode=None,  # rich help costs 0.25 s at every --help
                      help="Streams of events, checked and shaped, to the models that live on them.")

    @app.callback(invoke_without_command=True)
    def root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
        if version:
            from headrace import __version__

            typer.echo(f"headrace {__version__}")
            raise typer.Exit

    for group in GROUPS:
        importlib.import_module(f"headrace.cli.{group}").register(app)
    return app


def main() -> None:
    """Entry point: run the command; a HeadraceError becomes its message on stderr and its exit code. Secrets that the
    process comes to know are in nothing that it writes there, tracebacks among it."""
    import sys

    from headrace.errors import HeadraceError
    from headrace.secrets import scrubbed

    sys.stderr = scrubbed(sys.stderr)
    try:
        build()()
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
