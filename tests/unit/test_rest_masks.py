"""Secrets in configurations: what is hidden, and that nothing is lost by hiding."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connect.masks import (
    HIDDEN,
    Scrubber,
    ScrubbingFormatter,
    is_secret,
    masked,
    secrets_of,
    shown,
    unmasked,
)
from headrace.errors import UserError
from headrace.logs import JsonFormatter

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("key", [
    "password", "connection.password", "aws.secret.access.key", "ssl.keystore.passphrase", "http.api.key", "authToken",
    "value.converter.basic.auth.user.info", "producer.override.sasl.jaas.config", "client.private-key", "db.pwd",
    "http.header.Authorization"])
def test_secret_by_name(key: str) -> None:
    assert is_secret(key)
    assert shown(key, "hunter22") == HIDDEN


@pytest.mark.parametrize("key", ["key.converter", "topic", "tasks.max", "file", "primary.key", "transforms.a.type"])
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


@given(st.text(min_size=4, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_scrubbed_texts_have_no_secret(secret: str, before: str, after: str) -> None:
    scrubber = Scrubber()
    scrubber.learn([secret])
    if secret in HIDDEN or any(secret in text for text in (before + HIDDEN, HIDDEN + after, before + after)):
        return
    assert secret not in scrubber.text(before + secret + after)
    assert scrubber.data({"a": [before, {secret: secret}], "n": 1}) == {"a": [before, {HIDDEN: HIDDEN}], "n": 1}


def test_log_lines_have_no_secret() -> None:
    secret = "hun\"t'er\n2-of-2"
    scrubber = Scrubber()
    scrubber.learn([secret])
    formatter = ScrubbingFormatter(JsonFormatter(), scrubber)
    try:
        raise ValueError(secret)
    except ValueError:
        record = logging.getLogger("x").makeRecord(
            "x", logging.ERROR, "f", 1, "bad: %s and %r", (secret, secret), sys.exc_info(), extra={
                "config": {"p": secret}, "text": str({"p": secret})})
    line = formatter.format(record)
    assert "hun" not in line
    assert "2-of-2" not in json.loads(line)["error"]
    assert line.count(HIDDEN) >= 5
    json.loads(line)
