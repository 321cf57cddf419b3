"""The pager's memory in its file, and how headrace's Kafka settings become Faust's."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import faust
import pytest

from headrace.control import Alert
from headrace.errors import BrokerError, UserError
from headrace.faust import app, credentials
from headrace.pager import Pager, main
from headrace.settings import Settings
from tests.unit.test_control import RECORD

pytestmark = pytest.mark.unit


def act(pager: Pager, *ids: str) -> None:
    for one in ids:
        asyncio.run(pager(Alert.from_record({**RECORD, "id": one})))


def written(out: Path) -> list[str]:
    return [line.split('"id": "')[1].split('"')[0] for line in out.read_text().splitlines()]


def test_an_event_is_written_once_across_restarts(tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    act(Pager(out, []), "a", "b", "a")
    act(Pager(out, []), "b", "c")
    assert written(out) == ["a", "b", "c"]


@pytest.mark.parametrize("whole", [0, 1, 2])
def test_a_line_cut_short_by_a_crash_is_written_again(tmp_path: Path, whole: int) -> None:
    out = tmp_path / "events.jsonl"
    act(Pager(out, []), "ä", "b", "c")
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    out.write_text("".join(lines[:whole]) + lines[whole][:-1], encoding="utf-8")
    act(Pager(out, []), "ä", "b", "c")
    assert written(out) == ["ä", "b", "c"]


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "notes.txt"
    out.write_text("dear diary\n")
    with pytest.raises(UserError, match="is no file of events"):
        Pager(out, [])
    assert out.read_text() == "dear diary\n"


def test_the_command_gets_the_event_and_must_succeed(tmp_path: Path) -> None:
    out, told = tmp_path / "events.jsonl", tmp_path / "told"
    program = f"import os, sys; open({str(told)!r}, 'a').write(os.environ['HEADRACE_EVENT_ID'] + sys.stdin.read())"
    act(Pager(out, [sys.executable, "-c", program]), "a")
    assert told.read_text() == "a" + out.read_text().rstrip("\n")
    with pytest.raises(OSError, match="ended with 3"):
        act(Pager(out, [sys.executable, "-c", "raise SystemExit(3)"]), "b")
    assert written(out) == ["a"]


def test_an_unknown_kind_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--events", "alert,alarm"])
    assert "no such kind of event: alarm" in capsys.readouterr().err


@pytest.mark.parametrize(("properties", "kind", "said"), [
    ({}, None, {}),
    ({"security.protocol": "SSL"}, faust.SSLCredentials, {}),
    ({"security.protocol": "sasl_plaintext", "sasl.username": "u", "sasl.password": "p"}, faust.SASLCredentials,
     {"username": "u", "password": "p", "protocol": "SASL_PLAINTEXT", "mechanism": "PLAIN"}),
    ({"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "u", "sasl.password": "p"},
     faust.SASLCredentials, {"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-512"}),
])
def test_credentials(properties: dict[str, str], kind: Any, said: dict[str, str]) -> None:
    made = credentials(properties)
    assert type(made) is (kind or type(None))
    assert {name: getattr(getattr(made, name), "value", getattr(made, name)) for name in said} == said


def test_what_faust_cannot_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot log in to Kafka by GSSAPI"):
        credentials({"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI"})
    with pytest.raises(BrokerError, match="no Kafka broker is known"):
        app("x", Settings(tmp_path, None, None))


def test_an_app_has_the_projects_brokers(tmp_path: Path) -> None:
    made = app("on-call", Settings(tmp_path, "one:9092, two:9093", None), web_enabled=True)
    assert [str(url) for url in made.conf.broker] == ["kafka://one:9092", "kafka://two:9093"]
    assert made.conf.web_enabled, "an option of one's own wins"
    assert made.conf.processing_guarantee.value == "at_least_once"
