"""`headrace k8s`: a flow's manifests for Kubernetes, and manifests checked without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.common import Json, dump, say


def render(
    flow: Annotated[str, typer.Argument(metavar="FLOW", help="A flow's file or name.")],
    image: Annotated[str, typer.Option(help="The image, by digest: name@sha256:….")],
    out: Annotated[str, typer.Option(help="A folder to write <flow>.yaml to; - is stdout.")] = "-",
    namespace: Annotated[str | None, typer.Option(help="Left out: whichever one applies it to.")] = None,
    bootstrap: Annotated[str, typer.Option(help="Kafka, as the pods see it.")] = "kafka:9092",
    registry: Annotated[str, typer.Option(help="The schema registry, as the pods see it.")] = "http://registry:8081",
    mlflow: Annotated[str | None, typer.Option(help="MLflow, as the pods see it.")] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Workers; with KEDA, at least.")] = 1,
    replicas_max: Annotated[int | None, typer.Option(min=1, help="Workers at most; left out: one a partition.")] = None,
    cpu: Annotated[float, typer.Option(min=0.05, help="Cores of each pod.")] = 1.0,
    memory_mb: Annotated[int, typer.Option(min=256, help="MiB of each pod.")] = 1024,
    scratch_mb: Annotated[int, typer.Option(min=16, help="MiB of scratch (.headrace) of each pod.")] = 1024,
    stateful: Annotated[bool, typer.Option("--stateful", help="A StatefulSet: pods keep their names, so a restarted one"
                                           " takes over its transactions at once.")] = False,
    loop: Annotated[bool, typer.Option("--loop", help="And the loop of the flow, one replica.")] = False,
    loop_memory_mb: Annotated[int, typer.Option(min=256, help="MiB of the loop, all its parts together.")] = 3072,
    may_cancel: Annotated[bool, typer.Option("--may-cancel", help="The loop may delete Jobs.")] = False,
    in_image: Annotated[bool, typer.Option("--in-image", help="The flow's files are in the image's /project.")] = False,
    secret: Annotated[str | None, typer.Option(help="A Secret with the key headrace.toml: passwords, TLS.")] = None,
    keda: Annotated[bool, typer.Option("--keda/--no-keda", help="Scale on consumer lag.")] = True,
    keda_trigger: Annotated[str, typer.Option(help="kafka or apache-kafka.")] = "kafka",
    lag_threshold: Annotated[int, typer.Option(min=1, help="Records behind, for each worker.")] = 50_000,
    network_policy: Annotated[bool, typer.Option("--network-policy", help="And a NetworkPolicy.")] = False,
    allow_tags: Annotated[bool, typer.Option("--allow-tags", help="Take an image by its tag.")] = False,
    as_json: bool = Json,
) -> None:
    """Render a flow's manifests: deterministic, checked before they are written, nothing is sent anywhere."""
    from headrace import flow as flows
    from headrace import k8s, plan
    from headrace.errors import ConfigError
    from headrace.loop.dispatch.base import Resources
    from headrace.settings import find_project

    made = plan.load(flows.find(flow, find_project()))
    objects = k8s.manifests(made, k8s.Options(
        image=image, allow_tags=allow_tags, namespace=namespace, bootstrap=bootstrap, registry=registry,
        mlflow=mlflow, replicas=replicas, replicas_max=replicas_max, resources=Resources(cpu=cpu, memory_mb=memory_mb),
        scratch_mb=scratch_mb, stateful=stateful, loop=loop,
        loop_memory_mb=loop_memory_mb, may_cancel=may_cancel, in_image=in_image, secret=secret,
        keda=keda, keda_trigger=keda_trigger, lag_threshold=lag_threshold, network_policy=network_policy))
    text = k8s.dump(objects)
    name = f"{objects[0]['metadata']['name']}.yaml"
    if errors := [f for f in k8s.check(text, name) if f.severity == "error"]:
        raise ConfigError(errors)
    if as_json:
        for each in objects:
            dump(each)
    elif out == "-":
        typer.echo(text, nl=False)
    if out != "-":
        file = Path(out) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        say(f"wrote {file}: {', '.join(each['kind'] for each in objects)}")


def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="YAML files of manifests.")],
    as_json: bool = Json,
) -> None:
    """Check manifests: unknown fields, types, Pod Security `restricted`, sense. Exit 1 if there is an error."""
    from headrace import k8s
    from headrace.errors import UserError

    findings = []
    for file in files:
        try:
            findings += k8s.check(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file} cannot be read: {error}") from error
    errors = sum(f.severity == "error" for f in findings)
    if as_json:
        dump({"files": len(files), "errors": errors, "warnings": len(findings) - errors, "findings": [
            {"file": f.file, "line": f.line, "severity": f.severity, "message": f.message} for f in findings]})
    else:
        for found in findings:
            typer.echo(str(found))
        say(f"{len(files)} files, {errors} errors, {len(findings) - errors} warnings")
    if errors:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Manifests of a flow for Kubernetes: render, check.")
    group.command()(render)
    group.command()(check)
    app.add_typer(group, name="k8s")
