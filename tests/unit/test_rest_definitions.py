"""Definitions and their checks, in the words of Kafka's ConfigDef (the real one is asked in tests/external)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BeforeValidator, Field, SecretStr

from headrace.config import Config
from headrace.connect import plugins
from headrace.connect.definitions import checked, groups_of, keys_of, of_model, parsed
from headrace.connect.plugins import Refused
from headrace.secrets import HIDDEN
from tests.unit.restkit import lines

pytestmark = pytest.mark.unit


class Some(Config):
    """All kinds of fields."""

    must: str = Field(description="a")
    many: Annotated[tuple[str, ...], BeforeValidator(str)] = Field(("x", "y"), alias="so.many", description="b")
    one: Literal["p", "q"] | None = Field(None, description="c")
    number: int = Field(3, description="d")
    ratio: float | None = Field(None, description="e")
    on: bool = Field(True, description="f")
    pin: SecretStr | None = Field(None, description="g")
    password: str = Field("", description="h")


def test_of_a_pydantic_model() -> None:
    told = [key.told() for key in of_model(Some)]
    assert [(t["name"], t["type"], t["required"], t["default_value"], t["importance"]) for t in told] == [
        ("must", "STRING", True, None, "HIGH"), ("so.many", "LIST", False, "x,y", "MEDIUM"),
        ("one", "STRING", False, None, "MEDIUM"), ("number", "LONG", False, "3", "MEDIUM"),
        ("ratio", "DOUBLE", False, None, "MEDIUM"), ("on", "BOOLEAN", False, "true", "MEDIUM"),
        ("pin", "PASSWORD", False, None, "MEDIUM"), ("password", "PASSWORD", False, HIDDEN, "MEDIUM")]
    assert [t["documentation"] for t in told] == list("abcdefgh")
    assert [t["order"] for t in told] == [t["order_in_group"] for t in told] == list(range(1, 9))
    assert told[1]["display_name"] == "So many"


def test_values_are_told() -> None:
    values = checked(of_model(Some), {"must": " a ", "so.many": "p , q", "one": "z", "number": "x", "on": "TRUE",
                                      "pin": "1234"})
    assert {n: (v.value, v.errors) for n, v in values.items()} == {
        "must": ("a", []), "so.many": ("p,q", []),
        "one": ("z", ["Invalid value z for configuration one: String must be one of: p, q"]),
        "number": (None, ["Invalid value x for configuration number: Not a number of type LONG"]),
        "ratio": (None, []), "on": ("true", []), "pin": (HIDDEN, []), "password": (HIDDEN, [])}
    assert values["one"].recommended == ("p", "q")


@pytest.mark.parametrize(("kind", "text", "value"), [
    ("INT", " 2 ", 2), ("INT", "+5", 5), ("INT", "-2147483648", -(2**31)), ("BOOLEAN", "False", False),
    ("LIST", "", []), ("LIST", "a,,b", ["a", "", "b"]), ("DOUBLE", "1.5", 1.5),
    ("STRING", " x ", "x"), ("STRING", None, None)])
def test_parsed(kind: str, text: str | None, value: object) -> None:
    assert parsed("k", text, kind) == value


@pytest.mark.parametrize(("kind", "text"), [
    ("INT", "1.5"), ("INT", ""), ("INT", "2147483648"), ("SHORT", "32768"), ("LONG", "9" * 19),
    ("BOOLEAN", "yes"), ("BOOLEAN", ""), ("DOUBLE", "x")])
def test_not_parsed(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"^Invalid value .* for configuration k: "):
        parsed("k", text, kind)


@pytest.mark.parametrize("kind", ["source", "sink"])
def test_javas_classes_have_javas_keys_and_no_others(kind: str) -> None:
    keys = keys_of(Some, kind, "1", java=True)
    names = [key.name for key in keys]
    assert names[:4] == ["name", "connector.class", "connector.plugin.version", "tasks.max"]
    assert names[-1] == ("batch.size" if kind == "source" else "file")
    assert "batch.records" not in names
    assert {"must", "batch.records"} <= {key.name for key in keys_of(Some, kind, "1")}
    assert groups_of(keys)[:4] == ["Common", "Transforms", "Predicates", "Error Handling"]


def test_an_invalid_config_is_refused_with_every_error(tmp_path: Path) -> None:
    config = {**lines(tmp_path), "name": "n", "tasks.max": "0", "errors.tolerance": "some"}
    verdict = plugins.validated(config, tmp_path, "g")
    with pytest.raises(Refused) as refused:
        verdict.demand()
    assert refused.value.status == 400
    assert refused.value.message.split("\n") == [
        "Connector configuration is invalid and contains the following 2 error(s):",
        "Invalid value 0 for configuration tasks.max: Value must be at least 1",
        "Invalid value some for configuration errors.tolerance: String must be one of: none, all",
        "You can also find the above list of errors at the endpoint "
        "`/connector-plugins/{connectorType}/config/validate`"]
    told = verdict.told()
    assert told["error_count"] == 2
    assert [c["value"]["name"] for c in told["configs"] if c["value"]["errors"]] == ["tasks.max", "errors.tolerance"]


def test_a_right_config_has_a_spec(tmp_path: Path) -> None:
    spec = plugins.validated({**lines(tmp_path), "name": "n"}, tmp_path, "g").demand()
    assert (spec.name, spec.kind, spec.java) == ("n", "source", True)


def test_our_own_problems_are_told_beside(tmp_path: Path) -> None:
    verdict = plugins.validated({"connector.class": "file", "name": "n", "topic": "t", "fiel": "x"}, tmp_path, "g")
    wrong = {value.name: value.errors for value in verdict.values if value.errors}
    assert "Missing required configuration" in wrong["file"][0]
    assert "did you mean “file”" in wrong["fiel"][0]
    assert verdict.told()["configs"][0]["definition"] is None  # those of no definition come first, as with Kafka


@pytest.mark.parametrize(("config", "status", "message"), [
    ({}, 400, "contains no connector type"), ({"connector.class": None}, 400, "contains no connector type"),
    ({"connector.class": "Nope"}, 400,
     "Failed to find any class that implements Connector and which name matches Nope, available connectors are: "),
    ({"connector.class": "quarantine"}, 400, "Failed to find any class"),
    ({"connector.class": "io.debezium.connector.mysql.MySqlConnector"}, 400, "Failed to find any class")])
def test_no_class_no_verdict(tmp_path: Path, config: dict[str, str | None], status: int, message: str) -> None:
    with pytest.raises(Refused) as refused:
        plugins.validated({"password": "hunter22", **config}, tmp_path, "g")
    assert refused.value.status == status
    assert message in refused.value.message
    assert "hunter22" not in refused.value.message


def test_plugins(tmp_path: Path) -> None:
    listed = plugins.listed(tmp_path, connectors_only=True)
    assert {"class": "org.apache.kafka.connect.file.FileStreamSourceConnector", "type": "source"}.items() <= listed[
        -1].items()
    assert any(one["class"] == "headrace.connectors.file.FileSource" for one in listed)
    defined = plugins.defined("file", tmp_path)
    assert defined[0]["name"] not in ("name", "connector.class")  # the class's own come first
    assert len({key["name"] for key in defined}) == len(defined)
    with pytest.raises(Refused, match="Unknown plugin Nope"):
        plugins.defined("Nope", tmp_path)
