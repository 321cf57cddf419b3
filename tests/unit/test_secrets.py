"""Secrets: looked up where files refer to them, and in nothing that a process says; one is planted in every place."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import lint as linting
from headrace import logs, settings
from headrace import plan as planning
from headrace.cli.common import dump, table
from headrace.errors import ConfigError, UserError
from headrace.loop.dispatch.webhook import Webhook, WebhookConfig
from headrace.secrets import HIDDEN, KNOWN, Scrubber, resolved, scrubbed
from tests.unit import flowkit, loopkit

pytestmark = pytest.mark.unit

CANARY = "can\"ary/7 ünder-the_mill"


def test_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys.properties").write_text("# comment\ntasks = 3\nplain=in-\\\n  a-file\n")
    (tmp_path / "keys.json").write_text('{"plain": "in-json"}')
    (tmp_path / "in-a-folder").write_text("of-the-folder\n")
    monkeypatch.setenv("A_SECRET", "in-the-environment")
    assert resolved("a ${env:A_SECRET} b") == "a in-the-environment b"
    assert resolved(f"${{file:{tmp_path}/keys.properties:plain}}") == "in-a-file"
    assert resolved(f"${{file:{tmp_path}/keys.json:plain}}") == "in-json"
    assert resolved(f"${{dir:{tmp_path}:in-a-folder}}") == "of-the-folder"
    assert resolved("${topic}-${other:x}") == "${topic}-${other:x}"
    assert KNOWN.text("in-the-environment, in-a-file, in-json, of-the-folder") == ", ".join([HIDDEN] * 4)
    for text, why in (("${env:NO_SUCH}", "there is no environment variable NO_SUCH"),
                      ("${dir:/x:../y}", "no file name"),
                      (f"${{file:{tmp_path}/keys.properties:x}}", "has no key “x”"),
                      ("${file:x}", "write ${file:/path"),
                      ("${file:/no/such:x}", "cannot be read")):
        with pytest.raises(UserError, match=why.replace("$", r"\$").replace("{", r"\{")):
            resolved(text)


@given(st.text(min_size=4, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_scrubbed_texts_have_no_secret(secret: str, before: str, after: str) -> None:
    scrubber = Scrubber()
    scrubber.learn([secret])
    if secret in HIDDEN or any(secret in text for text in (before + HIDDEN, HIDDEN + after, before + after)):
        return
    assert secret not in scrubber.text(before + secret + after)
    assert scrubber.data({"a": [before, {secret: secret}], "n": 1}) == {"a": [before, {HIDDEN: HIDDEN}], "n": 1}


def test_short_secrets_do_not_blot_out_a_text() -> None:
    scrubber = Scrubber()
    scrubber.learn(["a", "abcd", "abcdef"])
    assert scrubber.text("a abcdefg") == "a [hidden]g"


def test_a_key_of_several_lines_is_known_by_its_lines() -> None:
    KNOWN.learn(["-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nQ==\n-----END PRIVATE KEY-----\n"])
    assert KNOWN.text("it reads: MIIEvQIBADANBgkqhkiG9w0B") == f"it reads: {HIDDEN}"


@pytest.mark.parametrize("secret", [CANARY, "hun\"t'er\n2-of-2"])
def test_log_lines_have_no_secret(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the message, in what is interpolated, in fields of any shape, in a chain of exceptions."""
    out = io.StringIO()
    KNOWN.learn([secret])
    handler = logging.StreamHandler(scrubbed(out))
    handler.setFormatter(logs.JsonFormatter())
    logger = logging.Logger("x")
    logger.addHandler(handler)
    try:
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise ValueError(f"it was {secret}") from error
    except ValueError:
        more = {"config": {"p": [secret]}, "text": str({"p": secret})}
        logger.exception("bad: %s and %r", secret, secret, extra=more)
    line = out.getvalue()
    told = json.loads(line)
    assert told["message"] == f"bad: {HIDDEN} and '{HIDDEN}'"
    assert not {"ary/7", "ünder", "hun", "2-of-2"} & {part for part in ("ary/7", "ünder", "hun", "2-of-2")
                                                     if part in line or part in told["error"]}
    assert line.count(HIDDEN) >= 6


def test_the_repr_of_settings_has_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILL_PASSWORD", CANARY)
    monkeypatch.setenv("HEADRACE_REGISTRY", "http://me:registry-pass@h/")
    (tmp_path / "headrace.toml").write_text(
        '[kafka]\n"bootstrap.servers" = "b:9092"\n'
        '"sasl.username" = "miller"\n"sasl.password" = "${env:MILL_PASSWORD}"\n'
        '[registry]\n"basic.auth.user.info" = "me:written-out"\n'
        '[connect]\nurl = "http://c"\npassword = "connect-pass"\n[connect.java]\npassword = "java-pass"\n'
        '[mlflow]\nuri = "http://me:mlflow-pass@m/"\n')
    made = settings.load(tmp_path)
    assert made.client()["sasl.password"] == CANARY
    told = repr(made)
    for secret in (CANARY, "written-out", "connect-pass", "java-pass", "mlflow-pass", "registry-pass"):
        assert secret not in told
        assert KNOWN.text(f"<{secret}>") == f"<{HIDDEN}>"
    assert "miller" in told
    assert "http://me:[hidden]@h/" in told


def test_a_reference_to_nothing_is_an_error_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text(
        '[registry]\nurl = "http://r"\n\n[kafka]\n"a.b" = "x"\n"sasl.password" = "${env:NO_SUCH_MILL}"\n'
        'x = "${file:/no/such:y}"\n')
    with pytest.raises(ConfigError) as error:
        settings.load(tmp_path)
    assert [(f.line, f.message.partition(":")[0]) for f in error.value.findings] == [
        (6, "[kafka] sasl.password"), (7, "[kafka] x")]
    assert "no environment variable NO_SUCH_MILL" in str(error.value)


def test_lint_warns_of_secrets_written_into_headrace_toml(tmp_path: Path) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text('[kafka]\n"sasl.password" = "abcd"\n"ssl.key.location" = "key.pem"\n[registry]\n'
                    'url = "http://me:abcd@r/"\n[connect]\npassword = "${env:NOT_HERE}"\npassword_env = "X"\n'
                    '[connect.java]\npassword = "${vault:x}"\n')
    found = linting.lint([file], tmp_path)
    assert [(f.line, f.severity) for f in found] == [(2, "warning"), (5, "warning"), (10, "warning")]
    assert "[kafka] sasl.password: a secret that whoever sees this file can read" in found[0].message
    assert "write \"${env:NAME}\"" in found[0].message
    assert "is no reference" in found[2].message
    assert "abcd" not in "".join(map(str, found))
    assert linting.files([], tmp_path) == [file]


MODEL = """models:
  delay:
    learn: {target: "x > 1", numeric: [distance], time: scheduled_at, known_at: scheduled_at}
    train:
      to: webhook
      with:
        url: http://h/x
        headers: {Authorization: VALUE}
"""


@pytest.mark.parametrize(("value", "bad"), [("Bearer abcdef", True), ("\"Bearer ${env:TOKEN}\"", False)])
def test_a_secret_written_into_a_flow_is_an_error(tmp_path: Path, value: str, bad: bool) -> None:
    path = flowkit.write(tmp_path)
    path.write_text(path.read_text() + MODEL.replace("VALUE", value))
    line = path.read_text().count("\n")
    said = [f for f in planning.lint(path) if "secret written out" in f.message]
    assert [(f.line, f.severity) for f in said] == ([(line, "error")] if bad else [])
    assert "abcdef" not in "".join(map(str, said))


def test_a_password_in_a_url_of_a_flow_is_an_error_and_not_shown(tmp_path: Path) -> None:
    path = flowkit.write(tmp_path)
    written = path.read_text().replace("partitions: 3", 'partitions: "http://me:abcdef@h/"')
    path.write_text(written + MODEL.replace("VALUE", "x").replace("http://h/x", "ftp://me:abcdef@h/x"))
    found = planning.lint(path)
    for key in ("url", "partitions"):
        assert any(f"“{key}” has a secret written out" in f.message for f in found)
    assert any("“partitions”: " in f.message and "http://me:[hidden]@h/" in f.message for f in found)
    assert "abcdef" not in "".join(map(str, found))


def test_a_webhook_sends_what_its_headers_refer_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY_TOKEN", "tok-en-123")
    hook = Webhook(WebhookConfig(url="http://127.0.0.1:1/", headers={"Authorization": "Bearer ${env:PROXY_TOKEN}"}),
                   project=tmp_path)
    sent = hook._signed("${env:PROXY_TOKEN}", b"")
    assert sent["Authorization"] == "Bearer tok-en-123"
    assert sent["webhook-id"] == "${env:PROXY_TOKEN}"  # an id is another's word: it refers to nothing


def test_what_is_printed_as_json_and_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    KNOWN.learn([CANARY])
    dump({"why": f"it said {CANARY}", "n": 1})
    table("", ["a"], [[CANARY]])
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[0]) == {"why": f"it said {HIDDEN}", "n": 1}
    assert "ünder" not in out
    assert out.count(HIDDEN) == 2


PROGRAM = """
import sys, threading
from headrace import cli, logs
from headrace.errors import UserError
import logging

def build():
    def run():
        from headrace.settings import load
        secret = load().client()["sasl.password"]
        logs.set_up("info")
        logging.getLogger("headrace.x").warning("it is %s", secret)
        thread = threading.Thread(target=lambda: {}[secret])
        thread.start()
        thread.join()
        if "user" in sys.argv:
            raise UserError(f"no good: {secret}", hint=secret)
        from rich.console import Console
        try:
            raise ValueError(secret)
        except ValueError:
            Console(stderr=True, width=200).print_exception(show_locals=True)
        raise RuntimeError(secret)
    return run

cli.build = build
cli.main()
"""


@pytest.mark.parametrize(("how", "code"), [("user", 2), ("crash", 1)])
def test_nothing_a_process_says_has_a_secret(tmp_path: Path, how: str, code: int) -> None:
    """A log line, a thread's end, the command's error, Rich's traceback with local variables, Python's own."""
    (tmp_path / "headrace.toml").write_text('[kafka]\n"bootstrap.servers" = "b:1"\n"sasl.password" = "${env:MILL}"\n')
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], cwd=tmp_path, capture_output=True, text=True,
                          check=False, env={**os.environ, "MILL": CANARY})
    assert done.returncode == code, done.stderr
    assert done.stderr.count(HIDDEN) >= 4
    assert "ary/7" not in done.stderr + done.stdout
    assert "ünder" not in done.stderr + done.stdout


def test_the_reason_of_a_result_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.loop.train import failure_of

    KNOWN.learn([CANARY])
    asked = loopkit.request()
    assert failure_of(asked, UserError(f"no: {CANARY}")).reason == f"no: {HIDDEN}"
