"""Keys and logins of a secure stack, and how Java clients are told them."""

from __future__ import annotations

import json
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from headrace import settings
from headrace.errors import ConfigError, UserError
from headrace.stack import secure
from headrace.stack.javaclient import escaped, java_client, properties
from headrace.stack.part import HOST

pytestmark = pytest.mark.unit


def test_keys_and_logins_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "stack" / "secure"
    secure.make(folder)
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(files) == {"ca.pem", "server.pem", *(f"{user}.json" for user in secure.USERS)}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)} == {0o700}
    assert len({secure.login(folder, user)["sasl.password"] for user in secure.USERS}) == len(secure.USERS)
    secure.make(folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == files
    moved = tmp_path / "elsewhere"
    folder.parent.rename(moved)
    secure.make(moved / "secure")
    assert secure.login(moved / "secure", "worker") == {
        **json.loads(files["worker.json"]), "ssl.ca.location": str(moved / "secure" / "ca.pem")}


def test_the_certificate_is_of_this_machine_and_the_authority_signs_no_more(tmp_path: Path) -> None:
    secure.make(tmp_path / "secure")
    authority, server = (x509.load_pem_x509_certificate((tmp_path / "secure" / name).read_bytes())
                         for name in ("ca.pem", "server.pem"))
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == [HOST]
    assert "PRIVATE KEY" not in (tmp_path / "secure" / "ca.pem").read_text()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "secure" / "server.pem")


def test_the_users_for_kafkas_storage_are_in_a_file_and_then_nowhere(tmp_path: Path) -> None:
    secure.make(tmp_path / "secure")
    password = secure.login(tmp_path / "secure", "reader")["sasl.password"]
    with secure.format_arguments(tmp_path / "secure") as arguments:
        assert len(arguments) == 1
        file = Path(arguments[0].removeprefix("@"))
        assert f"name=reader,password={password}" in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not file.exists()
    assert secure.hidden(tmp_path / "secure", f"cannot parse {password}!") == "cannot parse [hidden]!"


def test_java_is_told_what_librdkafka_is() -> None:
    assert java_client({}) == java_client({"security.protocol": "plaintext"}) == {}
    assert java_client({"security.protocol": "sasl_ssl", "ssl.ca.location": "/ca.pem", "sasl.mechanism": "PLAIN",
                        "sasl.username": "me", "sasl.password": 'a"b\\c', "linger.ms": 5}) == {
        "security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "ssl.truststore.type": "PEM",
        "ssl.truststore.location": "/ca.pem", "sasl.jaas.config":
        'org.apache.kafka.common.security.plain.PlainLoginModule required username="me" password="a\\"b\\\\c";'}
    with pytest.raises(UserError, match="GSSAPI"):
        java_client({"security.protocol": "SASL_SSL"})


def test_a_file_of_properties_as_java_reads_it() -> None:
    assert escaped("/home/zoë/a\\b 日😀") == "/home/zo\\u00eb/a\\\\b \\u65e5\\ud83d\\ude00"
    assert properties({"a": "two\nlines", "b": "\\x"}) == "a=two\\nlines\nb=\\\\x\n"


def test_settings_take_a_login_from_note_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADRACE_BOOTSTRAP", "HEADRACE_LOGIN"):
        monkeypatch.delenv(name, raising=False)
    for user in ("worker", "admin"):
        (tmp_path / f"{user}.json").write_text(json.dumps({"sasl.username": user, "sasl.password": "canary"}))
    (tmp_path / ".headrace").mkdir()
    (tmp_path / ".headrace/stack.json").write_text(json.dumps(
        {"bootstrap": "127.0.0.1:1", "login": str(tmp_path / "worker.json")}))
    found = settings.load(tmp_path)
    assert (found.client()["sasl.username"], found.login) == ("worker", str(tmp_path / "worker.json"))
    assert "canary" not in repr(found)
    (tmp_path / "headrace.toml").write_text('[kafka]\n"sasl.username" = "of.toml"\n')
    assert settings.load(tmp_path).client()["sasl.username"] == "of.toml"
    monkeypatch.setenv("HEADRACE_LOGIN", str(tmp_path / "admin.json"))
    assert settings.load(tmp_path).client()["sasl.username"] == "admin"
    monkeypatch.delenv("HEADRACE_LOGIN")
    monkeypatch.setenv("HEADRACE_BOOTSTRAP", "elsewhere:9092")
    found = settings.load(tmp_path)
    assert ("sasl.password" in found.kafka, found.login) == (False, None)
    (tmp_path / "torn.json").write_text('{"sasl.password": "canary')
    monkeypatch.setenv("HEADRACE_LOGIN", str(tmp_path / "torn.json"))
    with pytest.raises(ConfigError, match="it is no JSON") as wrong:
        settings.load(tmp_path)
    assert "canary" not in str(wrong.value)
