"""`headrace schemas check | push | diff` and the registry client, against a real registry."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from headrace.cli import build
from headrace.codec import UnknownSchema, parse
from headrace.errors import RegistryError, UserError
from headrace.registry import Registry
from headrace.settings import Settings

pytestmark = pytest.mark.integration


def record(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": list(fields)}


A, B = {"name": "a", "type": "int"}, {"name": "b", "type": ["null", "string"], "default": None}


class Shop:
    """A project whose flow reads `topic` with schema `r` and writes `out` with `s`."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.folder = settings, settings.project
        self.topic, self.out = (f"{n}.{uuid.uuid4().hex[:10]}" for n in ("in", "out"))
        self.write("r", record(A))
        self.write("s", record(A))
        (self.folder / "flows" / "f.yaml").write_text(
            f"flow: f\nsource:\n  kafka: {{topic: {self.topic}, schema: r}}\nsteps: {{}}\n"
            f"sinks:\n  {self.out}: {{kafka: {{schema: s}}}}\n")
        self.registry = Registry(settings.registry_client())

    def write(self, name: str, schema: Any) -> Path:
        file = self.folder / "schemas" / f"{name}.avsc"
        file.write_text(schema if isinstance(schema, str) else json.dumps(schema))
        return file

    def run(self, *args: str) -> Result:
        return CliRunner().invoke(build(), ["schemas", *args], catch_exceptions=True)

    def json(self, *args: str) -> Any:
        return json.loads(self.run(*args, "--json").stdout)


@pytest.fixture
def shop(project: Settings, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(project.project)
    return Shop(project)


def test_schemas_are_pushed_under_the_topics_of_the_flows_and_read_back(shop: Shop) -> None:
    told = shop.json("push")
    assert {p["subject"]: p["schema"] for p in told["pushed"]} == {f"{shop.topic}-value": "r", f"{shop.out}-value": "s"}
    for pushed in told["pushed"]:
        latest = shop.registry.latest(pushed["subject"])
        assert latest is not None
        assert latest[:2] == (pushed["id"], 1)
        assert latest[2] == shop.registry.schema(pushed["id"]) == parse(json.dumps(record(A)))
    again = shop.json("push")["pushed"]
    assert [p["was"] for p in again] == ["same", "same"]
    assert [p["id"] for p in again] == [p["id"] for p in told["pushed"]]


def test_check_tells_how_each_schema_stands(shop: Shop) -> None:
    assert {s["name"]: [x["state"] for x in s["subjects"].values()] for s in shop.json("check")["schemas"]} == {
        "r": ["new"], "s": ["new"]}
    shop.run("push")
    shop.write("r", record(A, B))
    shop.write("s", record(B))
    told = shop.json("check")
    assert told["ok"]
    assert [next(iter(s["subjects"].values()))["state"] for s in told["schemas"]] == ["changed", "changed"]
    shop.write("r", record({"name": "a", "type": "string"}))
    run = shop.run("check")
    assert run.exit_code == 1
    assert "a: reader type: string not compatible with writer type: int" in run.stderr


def test_if_one_schema_is_wrong_none_is_pushed(shop: Shop) -> None:
    shop.run("push")
    shop.write("r", record(A, B))
    shop.write("s", record({"name": "a", "type": "string"}))
    run = shop.run("push")
    assert run.exit_code == 1
    assert "nothing was pushed" in run.stderr
    latest = shop.registry.latest(f"{shop.topic}-value")
    assert latest is not None
    assert latest[1] == 1
    shop.write("s", "{")
    assert shop.run("push", "--force").exit_code == 1
    assert shop.run("push", "r").exit_code == 0
    latest = shop.registry.latest(f"{shop.topic}-value")
    assert latest is not None
    assert latest[1] == 2


def test_the_subjects_own_rule_holds_and_force_does_not_break_it(shop: Shop) -> None:
    shop.run("push")
    subject = f"{shop.topic}-value"
    shop.registry.client.set_compatibility(subject, "FULL")
    shop.write("r", record(A, {"name": "c", "type": "int", "default": 1}))
    assert shop.run("check", "r").exit_code == 0
    shop.write("r", record())  # a reader of version 1 would miss a
    run = shop.run("check", "r")
    assert run.exit_code == 1
    assert "readers of version 1 could not go on: a: not in the writer's schema" in run.stderr
    forced = shop.run("push", "r", "--force")
    assert isinstance(forced.exception, UserError)
    assert f"the registry refuses the schema for {subject}" in str(forced.exception)


def test_a_schema_of_no_flow_wants_a_subject(shop: Shop) -> None:
    shop.write("lone", record(B))
    run = shop.run("push", "lone")
    assert isinstance(run.exception, UserError)
    assert "no flow says which topic lone belongs to" in str(run.exception)
    subject = f"lone.{uuid.uuid4().hex[:8]}-value"
    assert shop.json("push", "lone", "--subject", subject)["pushed"][0]["subject"] == subject
    assert shop.registry.latest(subject) is not None
    everything = shop.run("push")
    assert everything.exit_code == 0
    assert "lone: not pushed" in everything.stderr
    assert isinstance(shop.run("push", "--subject", subject).exception, UserError)


def test_diff_goes_field_by_field(shop: Shop) -> None:
    assert shop.json("diff", "r")["schemas"][0]["version"] is None
    shop.run("push")
    assert shop.json("diff", "r")["schemas"][0]["same"]
    shop.write("r", record({"name": "a", "type": "string"}, B))
    told = shop.json("diff", "r")["schemas"][0]
    assert told["changes"] == [
        {"field": "a", "registry": "int", "file": "string", "change": "changed"},
        {"field": "b", "registry": None, "file": "[null, string] = null", "change": "added"}]
    assert told["unreadable"] == ["a: reader type: string not compatible with writer type: int"]
    assert "in the registry" in shop.run("diff", "r").stdout


def test_without_a_registry_check_says_so_and_push_ends(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_REGISTRY", "http://127.0.0.1:1")
    run = shop.run("check")
    assert run.exit_code == 0
    assert "checked offline: no answer from the schema registry at http://127.0.0.1:1" in run.stderr
    assert isinstance(shop.run("push").exception, RegistryError)
    assert shop.run("check", "--offline").stderr == ""


def test_check_against_older_files(shop: Shop, tmp_path: Path) -> None:
    older = tmp_path / "older"
    older.mkdir()
    (older / "r.avsc").write_text(json.dumps(record({"name": "a", "type": "string"})))
    run = shop.run("check", "--offline", "--against", str(older))
    assert run.exit_code == 1
    assert "a: reader type: int not compatible with writer type: string" in run.stderr
    assert shop.run("check", "--offline", "--against", str(older / "r.avsc"), "s").exit_code == 1
    assert isinstance(shop.run("check", "--against", str(tmp_path / "gone")).exception, UserError)


def test_an_id_nobody_has_and_a_schema_with_a_reference(shop: Shop) -> None:
    from confluent_kafka.schema_registry import Schema, SchemaReference

    with pytest.raises(UnknownSchema):
        shop.registry.schema(2_000_000_000)
    inner, outer = f"{shop.topic}-inner", f"{shop.topic}-outer"
    shop.registry.register(inner, parse('{"type": "enum", "name": "x.E", "symbols": ["A"]}'))
    text = '{"type": "record", "name": "O", "fields": [{"name": "e", "type": "x.E"}]}'
    number = shop.registry.client.register_schema(
        outer, Schema(text, "AVRO", [SchemaReference("x.E", inner, 1)]))
    assert shop.registry.schema(number).arrow.names == ["e"]
