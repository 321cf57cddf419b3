"""Flows before they run: lint, test, graph, new, and what they can be made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from headrace.cli.common import Json, dump, say, table

MARKS = {"error": ("red", "✗"), "warning": ("yellow", "!"), "info": ("cyan", "·")}


def known_flows(incomplete: str) -> list[str]:
    """Shell completion: the flows of the project one stands in."""
    folder = next((p / "flows" for p in (Path.cwd(), *Path.cwd().parents) if (p / "flows").is_dir()), Path("flows"))
    return sorted(p.stem for p in folder.glob("*.y*ml") if p.stem.startswith(incomplete))


def relative(path: Path) -> Path:
    """A path as a person would write it: relative to where they stand, if it is below."""
    full = path.resolve()
    return full.relative_to(Path.cwd()) if full.is_relative_to(Path.cwd()) else path


def lint(paths: list[Path] = typer.Argument(None, help="Files or folders; by default all of the project's."),  # noqa: B008
         as_json: bool = Json) -> None:
    """Check flows, schemas, suites and connector files: all findings, with lines. Exit 1 if there is an error."""
    from headrace import lint as linting
    from headrace.settings import find_project

    first = paths[0] if paths else Path.cwd()
    project = find_project(first if first.is_dir() else first.parent)
    files = [relative(p) for p in linting.files(paths or [], project)]
    findings = linting.lint(files, project)
    tally = {severity: sum(f.severity == severity for f in findings) for severity in MARKS}
    if as_json:
        dump({"files": len(files), "errors": tally["error"], "warnings": tally["warning"], "findings": [
            {"file": f.file, "line": f.line, "severity": f.severity, "message": f.message} for f in findings]})
    else:
        for found in findings:
            colour, mark = MARKS[found.severity]
            where = f"{found.file}:{found.line}" if found.line else found.file
            typer.echo(f"{typer.style(mark, fg=colour)} {typer.style(where, bold=True)}: {found.message}")
        say(f"{len(files)} files, {tally['error']} errors, {tally['warning']} warnings" if files
            else f"nothing to lint in {project}")
    if tally["error"]:
        raise typer.Exit(1)


def run_tests(path: str = typer.Argument(None, help="A flow's file or name, or a folder; by default all flows.",
                                         autocompletion=known_flows), as_json: bool = Json) -> None:
    """Run the flows' own tests, without a broker. Exit 1 if one fails."""
    from headrace import flow, flowtest
    from headrace.settings import find_project

    folder = Path(path) if path and Path(path).is_dir() else None
    project = find_project(folder)
    inside = folder if folder and not (folder / "flows").is_dir() else project / "flows"
    files = [flow.find(path, project)] if path and not folder else sorted(inside.glob("*.y*ml"))
    results = [result for file in files for result in flowtest.run(relative(file))]
    for result in results if not as_json else ():
        mark = typer.style("✓", fg="green") if result.passed else typer.style("✗", fg="red")
        typer.echo(f"{mark} {result.flow}: {result.test}")
        for problem in result.problems:
            typer.echo(f"    {result.file}:{result.line}: {problem}")
    failed = sum(not r.passed for r in results)
    if as_json:
        dump({"tests": len(results), "failed": failed, "results": [
            {"flow": r.flow, "test": r.test, "file": r.file, "line": r.line, "passed": r.passed,
             "problems": r.problems} for r in results]})
    else:
        say(f"{len(results)} tests of {len(files)} flows, {failed} failed" if results
            else f"no tests in {', '.join(map(str, files)) or inside}")
    if failed:
        raise typer.Exit(1)


def graph(name: str = typer.Argument(help="A flow's file or name.", metavar="FLOW", autocompletion=known_flows),
          svg: Path = typer.Option(None, "--svg", help="Write a picture to this file; - is stdout."),  # noqa: B008
          mermaid: bool = typer.Option(False, "--mermaid", help="Print Mermaid text, as without options.")) -> None:
    """Draw a flow: Mermaid text, or an SVG picture."""
    from headrace import flow, plan
    from headrace import graph as drawing
    from headrace.settings import find_project

    made = plan.load(relative(flow.find(name, find_project())))
    if svg and str(svg) != "-":
        svg.write_text(drawing.svg(made), encoding="utf-8")
        say(f"wrote {svg}")
    elif svg:
        typer.echo(drawing.svg(made), nl=False)
    if mermaid or not svg:
        typer.echo(drawing.mermaid(made), nl=False)


def new(folder: Path = typer.Argument(help="The project's folder; made if it is absent.", metavar="DIR"),  # noqa: B008
        data: Path = typer.Option(None, "--from", help="A CSV file whose records the project is for."),  # noqa: B008
        name: str = typer.Option(None, "--name", help="What a record is called; by default the file's name.")) -> None:
    """Start a project: schema, suite, flow, connector file and a passing test. Overwrites nothing."""
    from headrace import scaffold

    for path in scaffold.make(folder, data, name):
        typer.echo(path)
    say(f"\nnext:\n  cd {folder}\n  headrace lint\n  headrace test\nand then as {folder / 'README.md'} says")


def processors(name: str = typer.Argument(None, help="One of them, in full."), as_json: bool = Json) -> None:
    """List the processors a flow can name, and their settings."""
    from headrace import catalog, reference
    from headrace.settings import find_project

    project = find_project()
    found = [reference.processor(n, project) for n in ([name] if name else catalog.names("processors", project))]
    if as_json:
        for one in found:
            dump(one)
    elif name:
        typer.echo(f"{name}: {found[0]['summary']}\n{found[0]['outputs']}\n")
        table("settings", ["name", "type", "default", "meaning"], [
            [f["name"], f["type"], "required" if f["required"] else _default(f["default"]), f["description"]]
            for f in found[0]["fields"]])
    else:
        table("processors", ["name", "what it does"], [[f["name"], f["summary"]] for f in found])


def _default(value: Any) -> str:
    return "" if value is None else str(value)


def flow_schema() -> None:
    """Print the JSON Schema of flow files, for editors."""
    import json

    from headrace import reference
    from headrace.settings import find_project

    typer.echo(json.dumps(reference.flow_schema(find_project()), indent=2, ensure_ascii=False, default=str))


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    for command in (lint, graph, new, processors):
        app.command()(command)
    app.command("test")(run_tests)
    app.command("flow-schema")(flow_schema)
