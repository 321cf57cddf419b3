"""Secrets in configurations: what is hidden, and that nothing is lost by hiding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connect.masks import masked, unmasked
from headrace.errors import UserError
from headrace.secrets import HIDDEN, is_secret, secrets_of, shown

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("key", [
    "password", "connection.password", "aws.secret.access.key", "ssl.keystore.passphrase", "http.api.key", "authToken",
    "value.converter.basic.auth.user.info", "producer.override.sasl.jaas.config", "client.private-key", "db.pwd",
    "http.header.Authorization", "ssl.key.pem"])
def test_secret_by_name(key: str) -> None:
    assert is_secret(key)
    assert shown(key, "hunter22") == HIDDEN


@pytest.mark.parametrize("key", ["key.converter", "topic", "tasks.max", "file", "primary.key", "transforms.a.type",
                                 "sasl.oauthbearer.token.endpoint.url", "ssl.key.location", "password_env",
                                 "basic.auth.credentials.source"])
def test_not_secret_by_name(key: str) -> None:
    assert not is_secret(key)
    assert shown(key, "hunter22") == "hunter22"


def test_secret_by_type() -> None:
    assert shown("pin", "hunter22") == "hunter22"
    assert shown("pin", "hunter22", {"pin"}) == HIDDEN


@pytest.mark.parametrize(("value", "told"), [
    ("postgresql://me:hunter22@db:5432/x", "postgresql://me:[hidden]@db:5432/x"),
    ("postgresql://me:hun@ter22@db/x", "postgresql://me:[hidden]@db/x"),
    ("http://:hunter22@h/", "http://:[hidden]@h/"),
    ("jdbc:postgresql://db/x?user=me&password=hunter22&ssl=true",
     "jdbc:postgresql://db/x?user=me&password=[hidden]&ssl=true"),
    ("postgresql://me:${env:PW}@db/x", "postgresql://me:${env:PW}@db/x"),
    ("http://h:8080/a@b", "http://h:8080/a@b"), ("plain text: nothing", "plain text: nothing"),
])
def test_secrets_within_a_value(value: str, told: str) -> None:
    assert shown("url", value) == told
    assert unmasked({"url": told}, {"url": value}) == {"url": value}


def test_references_are_shown() -> None:
    config = {"connection.password": "${env:PG}", "token": " ${file:/run/s:k} ", "secret": "x${env:PG}"}
    assert masked(config) == {**config, "secret": HIDDEN}
    assert secrets_of(config) == {"x${env:PG}"}


def test_a_mask_that_is_sent_back_keeps_the_value() -> None:
    kept = {"password": "hunter22", "topic": "t"}
    assert unmasked({**masked(kept), "topic": "u"}, kept) == {"password": "hunter22", "topic": "u"}
    assert unmasked({"password": "new"}, kept) == {"password": "new"}


@pytest.mark.parametrize("config", [{"password": HIDDEN}, {"url": "http://a:[hidden]@h"}])
def test_a_mask_of_nothing_is_refused(config: dict[str, str]) -> None:
    with pytest.raises(UserError, match="was not given before"):
        unmasked(config, None)
    with pytest.raises(UserError, match="was not given before"):
        unmasked(config, {"url": "http://other"})


@given(st.dictionaries(st.sampled_from(["password", "url", "topic", "api.key"]),
                       st.text() | st.from_regex(r"[a-z]+://[a-z]*:[a-z@]{4,9}@h", fullmatch=True)))
def test_nothing_is_lost_by_hiding(config: dict[str, str]) -> None:
    if not any(HIDDEN in value for value in config.values()):
        assert unmasked(masked(config), config) == config
