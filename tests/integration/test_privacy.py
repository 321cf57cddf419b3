"""Personal data and secrets, with a real broker and registry: masked in the sink, hidden from people, said nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from headrace.settings import Settings
from tests.unit.test_mask import token

pytestmark = pytest.mark.integration

SCHEMA = {"type": "record", "name": "order", "fields": [
    {"name": "id", "type": "long"},
    {"name": "email", "type": ["null", "string"], "default": None, "headrace.pii": "email"}]}
FLOW = """\
flow: {flow}
owner: shop
source:
  kafka: {{topic: {topic}, schema: order, key: id}}
steps:
  mask: {{mask: {{tags: [email], how: tokenise, key: "${{env:MILL_PII_KEY}}"}}}}
sinks:
  {topic}.masked: {{from: mask, kafka: {{}}}}
  {topic}.quarantine: {{quarantine: {{}}}}
"""
KEY, CANARY = "a-key-of-the-mill-0123", "canary-in-the-mill-456"


def test_masked_in_the_sink_hidden_from_people_and_no_secret_said(project: Settings, topic: Callable[..., str],
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    name, folder = topic("orders"), project.project
    (folder / "schemas" / "order.avsc").write_text(json.dumps(SCHEMA))
    (folder / "flows" / "orders.yaml").write_text(FLOW.format(topic=name, flow=name.replace(".", "-")))
    settings = (folder / "headrace.toml").read_text()
    (folder / "headrace.toml").write_text(settings.replace("[kafka]\n", '[kafka]\n"sasl.password" = "${env:CANARY}"\n'))
    monkeypatch.setenv("MILL_PII_KEY", KEY)
    monkeypatch.setenv("CANARY", CANARY)
    said = ""

    def run(*words: str, text: str = "") -> str:
        nonlocal said
        done = subprocess.run([sys.executable, "-m", "headrace", *words], cwd=folder, input=text, capture_output=True,
                              text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
        return done.stdout

    def values(of: str, *more: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in
                run("consume", of, "--from-beginning", "--until-end", "--values", *more).splitlines()]

    run("produce", name, "--schema", "order", "--key", "id", text='{"id": 1, "email": "ada@mill"}\n{"id": 2}\n')
    run("run", "flows/orders.yaml", "--drain", "--log", "debug")
    assert values(f"{name}.masked") == [{"id": 1, "email": token(b"ada@mill", KEY.encode())}, {"id": 2, "email": None}]
    assert values(name) == [{"id": 1, "email": "[hidden]"}, {"id": 2, "email": None}]  # the registry kept the tag
    assert "ada@mill" not in said
    assert values(name, "--show-pii")[0]["email"] == "ada@mill"
    kept = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    for secret in (KEY, CANARY):
        assert secret not in said
        assert secret.encode() not in kept
