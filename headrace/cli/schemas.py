"""`headrace schemas check | push | diff`: schemas/*.avsc against Avro, Arrow, their own past and the registry.

`headrace schemas drift` stands in drift.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.common import Json, dump, say, table
from headrace.cli.drift import drift

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.codec import AvroSchema
    from headrace.registry import Registry
    from headrace.settings import Settings

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Schemas by the names flows use, e.g. "
                                                                             "departure. Default: all.")]
Subject = Annotated[str | None, typer.Option(help="The registry's subject, for one schema. Default: TOPIC-value of "
                                                  "every topic whose flow names the schema.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Check schemas, compare them with the registry's, and push them.")
    group.command()(check)
    group.command()(push)
    group.command()(diff)
    group.command()(drift)
    app.add_typer(group, name="schemas")


@dataclass
class Checked:
    """A schema file and what is wrong with it; by subject, how it stands to the registry's latest version."""

    name: str
    file: Path
    schema: AvroSchema | None = None
    problems: list[str] = field(default_factory=list)
    subjects: dict[str, Standing | None] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        return self.problems + [f"{name}: {p}" for name, s in self.subjects.items() if s for p in s.problems]

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "file": str(self.file), "ok": not self.wrong, "problems": self.problems,
                "subjects": {n: s and {"state": s.state, "id": s.id, "version": s.version, "problems": s.problems}
                             for n, s in self.subjects.items()}}


@dataclass
class Standing:
    """new | same | changed | incompatible; id and version of the latest one there is."""

    state: str
    id: int | None = None
    version: int | None = None
    problems: list[str] = field(default_factory=list)


def check(names: Names = None, subject: Subject = None,
          against: Annotated[Path | None, typer.Option(metavar="FILE|DIR", help="What to be compatible with: an older "
                                                       "file, or a folder with older files.")] = None,
          offline: Annotated[bool, typer.Option("--offline", help="Do not ask the registry.")] = False,
          json: bool = Json) -> None:
    """Whether each schema reads, fits Arrow, and may follow its latest version in the registry. Exit 1 when not.

    Without a rule of its own a subject is held to BACKWARD: what is in the topic stays readable.
    """
    from headrace import settings
    from headrace.registry import RegistryUnreachable

    here = settings.load()
    found = _read(here, names, subject)
    if against is not None:
        _against(found, against)
    asked: str | None = None
    if not offline and not here.registry_url:
        say("checked offline: no registry is known")
    elif not offline:
        try:
            asked = _ask(found, _registry(here))
        except RegistryUnreachable as error:
            for one in found:
                one.subjects = dict.fromkeys(one.subjects)
            say(f"checked offline: {error.what}")
    if json:
        dump({"ok": not any(one.wrong for one in found), "registry": asked, "schemas": [c.as_json() for c in found]})
    else:
        _report(found)
    if any(one.wrong for one in found):
        raise typer.Exit(1)


def push(names: Names = None, subject: Subject = None,
         force: Annotated[bool, typer.Option("--force", help="Push what is incompatible, too, if the registry takes "
                                             "it.")] = False, json: bool = Json) -> None:
    """Register schemas under TOPIC-value. All are checked first: if one is wrong, none is pushed."""
    from headrace import settings
    from headrace.errors import UserError

    here = settings.load()
    found = _read(here, names, subject)
    homeless = [one.name for one in found if not one.subjects]
    if homeless and (names or len(homeless) == len(found)):
        raise UserError(f"no flow says which topic {', '.join(homeless) or 'any schema'} belongs to",
                        hint="name it in a flow (kafka: {topic: …, schema: …}), or give --subject TOPIC-value")
    registry = _registry(here)
    _ask(found, registry)
    if any(one.problems if force else one.wrong for one in found):
        _report(found)
        say("nothing was pushed")
        raise typer.Exit(1)
    pushed: list[dict[str, Any]] = []
    for one in found:
        for name, standing in one.subjects.items():
            assert one.schema is not None
            assert standing is not None
            number = registry.register(name, one.schema)
            pushed.append({"schema": one.name, "subject": name, "id": number, "was": standing.state})
    if json:
        dump({"registry": registry.url, "pushed": pushed})
    else:
        table(f"in {registry.url}", ("schema", "subject", "id", ""),
              [(p["schema"], p["subject"], str(p["id"]), "was there" if p["was"] == "same" else p["was"])
               for p in pushed])
    for name in homeless:
        say(f"{name}: not pushed, no flow says which topic it belongs to")


def diff(names: Names = None, subject: Subject = None, json: bool = Json) -> None:
    """Field by field, what the file changes in the registry's latest version."""
    from headrace import settings
    from headrace.codec.compat import problems

    here = settings.load()
    registry = _registry(here)
    told: list[dict[str, Any]] = []
    for one in _read(here, names, subject):
        for name in one.subjects:
            latest = registry.latest(name)
            if one.schema is None:
                raise typer.BadParameter("; ".join(one.problems))
            changes = _changes(latest[2] if latest else None, one.schema)
            told.append({"schema": one.name, "subject": name, "version": latest and latest[1], "changes": changes,
                         "same": latest is not None and latest[2] == one.schema,
                         "unreadable": problems(one.schema, latest[2]) if latest else []})
    if json:
        dump({"registry": registry.url, "schemas": told})
        return
    for entry in told:
        title = f"{entry['schema']} → {entry['subject']}"
        if entry["version"] is None:
            say(f"{title}: not in the registry yet")
        elif entry["changes"]:
            table(f"{title}, version {entry['version']}", ("field", "", "in the registry", "in the file"),
                  [(c["field"], c["change"], c["registry"], c["file"]) for c in entry["changes"]])
        else:
            say(f"{title}, version {entry['version']}: {'the same' if entry['same'] else 'other texts or orders only'}")
        for why in entry["unreadable"]:
            say(f"  breaks version {entry['version']}'s records: {why}")


# What there is


def _read(here: Settings, names: list[str] | None, subject: str | None) -> list[Checked]:
    """The schema files, parsed, with their subjects; those of headrace itself only where a flow uses them."""
    from headrace import codec
    from headrace.errors import SchemaError, UserError
    from headrace.plan import schema_file

    folder = here.project / "schemas"
    uses = _uses(here.project)
    every = sorted(str(p.relative_to(folder).with_suffix("")) for p in folder.glob("**/*.avsc"))
    wanted = names or sorted({*every, *(n for n in uses if n.startswith("control/"))})
    if subject and len(wanted) != 1:
        raise UserError("--subject wants exactly one schema", hint=f"name one of {', '.join(every) or 'none there is'}")
    if not wanted:
        raise UserError(f"there is no schema in {folder}", hint="`headrace new DIR` starts a project with one")
    found: list[Checked] = []
    for name in wanted:
        one = Checked(name, schema_file(here.project, name))
        one.subjects = dict.fromkeys([subject] if subject else sorted(f"{t}-value" for t in uses.get(name, ())))
        try:
            one.schema = codec.load(one.file)
            _ = one.schema.arrow
        except SchemaError as error:
            one.problems.append(str(error))
        found.append(one)
    return found


def _uses(project: Path) -> dict[str, set[str]]:
    """Schema name → topics, from the flows: `kafka: {topic, schema}` of sources, `TOPIC: {kafka: {schema}}` of sinks.

    Flows that do not lint are read as far as they go; to say what is wrong with them is lint's.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    uses: dict[str, set[str]] = {}

    def note(topic: Any, connector: Any) -> None:
        kafka = connector.get("kafka") if isinstance(connector, dict) else None
        name = kafka.get("schema") if isinstance(kafka, dict) else None
        topic = kafka.get("topic", topic) if isinstance(kafka, dict) else topic
        if isinstance(name, str) and isinstance(topic, str):
            uses.setdefault(name, set()).add(topic)

    for file in sorted((project / "flows").glob("*.y*ml")):
        try:
            flow = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
        except (YAMLError, OSError, UnicodeDecodeError):
            continue
        if isinstance(flow, dict):
            note(None, flow.get("source"))
            sinks = flow.get("sinks")
            for topic, sink in (sinks.items() if isinstance(sinks, dict) else ()):
                note(topic, sink)
    return uses


def _registry(here: Settings) -> Registry:
    from headrace.registry import Registry

    return Registry(here.registry_client())


# How it stands


def _ask(found: Iterable[Checked], registry: Registry) -> str:
    """Fill in how each schema stands to its subjects; the registry's address. Raises RegistryError."""
    for one in found:
        for name in one.subjects:
            latest = registry.latest(name)
            if one.schema is None:
                one.subjects[name] = Standing("unreadable", *(latest or ())[:2])
            elif latest is None:
                one.subjects[name] = Standing("new")
            elif latest[2] == one.schema:
                one.subjects[name] = Standing("same", latest[0], latest[1])
            else:
                why = registry.compatible(name, one.schema)
                one.subjects[name] = Standing("incompatible" if why else "changed", latest[0], latest[1], why)
    return registry.url


def _against(found: list[Checked], older: Path) -> None:
    """Check against older files: the problems go to the schemas."""
    from headrace import codec
    from headrace.codec.compat import problems
    from headrace.errors import UserError

    if older.is_dir():
        pairs = [(one, older / f"{one.name}.avsc") for one in found if (older / f"{one.name}.avsc").is_file()]
    elif older.is_file():
        pairs = [(one, older) for one in found if len(found) == 1 or one.file.name == older.name]
    else:
        raise UserError(f"there is no {older} to compare with")
    if not pairs:
        raise UserError(f"{older} has no older version of {', '.join(one.name for one in found)}",
                        hint="files are matched by name; with one schema named, any file will do")
    for one, file in pairs:
        if one.schema is not None:
            why = problems(one.schema, codec.load(file))
            one.problems += [f"records of {file} could not be read: {p}" for p in why]


def _report(found: list[Checked]) -> None:
    def line(one: Checked) -> str:
        standing = ", ".join(f"{n} ({s.state})" if s else n for n, s in one.subjects.items())
        return standing or "no topic"

    table("schemas", ("schema", "topics", ""), [(one.name, line(one), "wrong" if one.wrong else "ok") for one in found])
    for one in found:
        for why in one.wrong:
            say(f"{one.file}: {why}" if not why.startswith(str(one.file)) else why)


# Field by field


def _changes(old: AvroSchema | None, new: AvroSchema) -> list[dict[str, Any]]:
    """Fields that were added, removed, or have another type or default."""
    from headrace.schemadrift.diff import flat, said

    before, after = ({path: said(one) for path, one in flat(s.type).items()} if s else {} for s in (old, new))
    return [{"field": name, "registry": before.get(name), "file": after.get(name),
             "change": "added" if name not in before else "removed" if name not in after else "changed"}
            for name in [*before, *(n for n in after if n not in before)] if before.get(name) != after.get(name)]
