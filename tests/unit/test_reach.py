"""What an error of Kafka's asks to check, and which errors waiting does not mend."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from headrace.errors import BrokerError
from headrace.reach import ADVICE, Trouble, advice, metadata, refuses
from headrace.settings import Settings

pytestmark = pytest.mark.unit

HERE = Settings(Path(), "broker:9093", None, kafka={"sasl.username": "flows", "sasl.password": "canary",
                                                    "sasl.mechanism": "SCRAM-SHA-512", "ssl.ca.location": "/ca.pem"})


@pytest.mark.parametrize("code", ADVICE)
def test_every_refusal_names_who_or_what_and_no_password(code: int) -> None:
    said = advice(HERE, KafkaError(code))
    assert "“flows”" in said or "/ca.pem" in said
    assert "canary" not in said + repr(HERE)
    assert "{" not in said
    assert refuses(KafkaError(code))


def test_others_are_waited_for() -> None:
    for error in (KafkaError(KafkaError._TRANSPORT), KafkaError(KafkaError._ALL_BROKERS_DOWN),
                  KafkaError(KafkaError._SSL, "SSL handshake failed: Disconnected")):
        assert not refuses(error)
    assert "headrace status" in advice(HERE, KafkaError(KafkaError._TRANSPORT))


class Client:
    """One that does not answer, and hears `heard` when it is polled."""

    def __init__(self, trouble: Trouble, heard: KafkaError | None) -> None:
        self.trouble, self.heard = trouble, heard

    def list_topics(self, timeout: float) -> Any:
        time.sleep(min(timeout, 0.01))
        raise KafkaException(KafkaError(KafkaError._TRANSPORT, "no answer"))

    def poll(self, timeout: float) -> None:
        if self.heard:
            self.trouble(self.heard)


def test_a_refused_login_is_raised_before_the_time_out_and_a_silent_broker_at_it() -> None:
    refused, silent = Trouble(), Trouble()
    with pytest.raises(BrokerError, match="refuses: wrong password") as told:
        metadata(Client(refused, KafkaError(KafkaError._AUTHENTICATION, "wrong password")), HERE, refused, 1e9)
    assert "user “flows” by SCRAM-SHA-512" in str(told.value.hint)
    with pytest.raises(BrokerError, match="does not answer: no answer"):
        metadata(Client(silent, None), HERE, silent, 0.05)
