"""Reaching Kafka: whether a broker answers, and, where it does not or refuses, what there is to check.

librdkafka takes a wrong password or certificate for a broker that is away, and tries again until a time-out: only the
client's `error_cb` hears of it, once the client is polled. So the first word with a broker goes through `metadata`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from headrace.errors import BrokerError
from headrace.settings import Settings

FIRST_LOOK_S = 1.0
"""By then a refused login has been told; a broker that is merely slow is waited for, three times as long each time."""

_LOGIN = ("the broker refuses the login of user “{user}” by {mechanism}: are sasl.username, sasl.password and "
          "sasl.mechanism right ([kafka] in headrace.toml, or the file of HEADRACE_LOGIN)?")
_TLS = ("the connection is not trusted: is {ca} of the authority that signed the broker's certificate, does that bear "
        "the name in bootstrap.servers, and does the broker speak TLS at this port?")
ADVICE: Mapping[int, str] = {
    KafkaError._AUTHENTICATION: _LOGIN,
    KafkaError.SASL_AUTHENTICATION_FAILED: _LOGIN,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: _LOGIN,
    KafkaError._SSL: _TLS,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: (
        "user “{user}” may not do this with the topic: it needs an ACL for Read on sources, Write on sinks, Create on "
        "what is to be made, DescribeConfigs on all of them"),
    KafkaError.GROUP_AUTHORIZATION_FAILED: (
        "user “{user}” may not be in this consumer group: it needs an ACL for Read on the group, or on the prefix its "
        "name begins with"),
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
        "user “{user}” may not use this transactional id: it needs an ACL for Write and Describe on the prefix "
        "“headrace”"),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: (
        "user “{user}” may not do this with the cluster as a whole: it needs an ACL for the operation on the cluster, "
        "or another user is meant"),
}
"""Error code → what to check."""
_ELSE = "is it running (`headrace status`)? are the address, TLS and SASL settings right?"


def advice(settings: Settings, error: object, otherwise: str = _ELSE) -> str:
    """What to check when a broker says this: a KafkaError, or its text."""
    found = ADVICE.get(error.code()) if isinstance(error, KafkaError) else None
    if found is None:
        return otherwise
    kafka = settings.kafka
    return found.format(
        user=kafka.get("sasl.username", "ANONYMOUS"), ca=kafka.get("ssl.ca.location", "the system's trust store"),
        mechanism=kafka.get("sasl.mechanism", kafka.get("sasl.mechanisms", "no mechanism")))


def refuses(error: KafkaError) -> bool:
    """Is this a refusal that waiting does not mend? A connection that breaks off in the midst of TLS is none: the
    broker may just be stopping."""
    if error.code() == KafkaError._SSL:
        return "disconnect" not in error.str().lower()
    return error.code() in ADVICE


def unreachable(settings: Settings, error: object) -> BrokerError:
    """The error for a broker that does not answer, or refuses (a KafkaError, or its text), with what to check."""
    told = error.str() if isinstance(error, KafkaError) else error
    what = "refuses" if isinstance(error, KafkaError) and refuses(error) else "does not answer"
    return BrokerError(f"Kafka at {settings.bootstrap} {what}: {told}", hint=advice(settings, error))


class Trouble:
    """An `error_cb` that remembers: the last error, and the last that waiting does not mend."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None
        self.refusal: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        self.last = error
        if refuses(error):
            self.refusal = error


def metadata(client: Any, settings: Settings, trouble: Trouble, timeout_s: float, *topic: str) -> Any:
    """What `list_topics` says, of one topic or all. The client (whose `error_cb` is `trouble`) must not be subscribed
    or assigned yet. Raises BrokerError: at once for a login that is refused, else at the time-out."""
    end, wait_s = time.monotonic() + timeout_s, FIRST_LOOK_S
    while True:
        try:
            return client.list_topics(*topic, timeout=max(0.1, min(wait_s, end - time.monotonic())))
        except KafkaException as error:
            client.poll(0)
            if trouble.refusal or time.monotonic() >= end:
                raise unreachable(settings, trouble.refusal or trouble.last or error.args[0]) from error
            wait_s *= 3
