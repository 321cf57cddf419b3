"""How to log in to Kafka, as a Java client is told it, from librdkafka's properties."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.errors import UserError

MODULES = {"PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
           "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
           "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule"}


def java_client(kafka: Mapping[str, Any]) -> dict[str, str]:
    """Properties of a Java client that logs in as one with these librdkafka properties does; nothing for plain text.

    Raises UserError for a SASL mechanism it cannot say.
    """
    protocol = str(kafka.get("security.protocol", "plaintext")).upper()
    if protocol == "PLAINTEXT":
        return {}
    told = {"security.protocol": protocol}
    if protocol.startswith("SASL"):
        told |= {"sasl.mechanism": _mechanism(kafka), "sasl.jaas.config": jaas(kafka)}
    if protocol.endswith("SSL"):
        if "ssl.ca.location" in kafka:
            told |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(kafka["ssl.ca.location"])}
        if "ssl.certificate.location" in kafka:
            told |= {"ssl.keystore.type": "PEM",
                     "ssl.keystore.certificate.chain": Path(kafka["ssl.certificate.location"]).read_text(),
                     "ssl.keystore.key": Path(kafka["ssl.key.location"]).read_text()}
        told |= {key: str(kafka[key]) for key in ("ssl.key.password", "ssl.endpoint.identification.algorithm")
                 if key in kafka}
    return told


def jaas(kafka: Mapping[str, Any]) -> str:
    """The line that names a login module, with user and password."""
    module = MODULES[_mechanism(kafka)]
    user, password = (str(kafka.get(f"sasl.{key}", "")).replace("\\", "\\\\").replace('"', '\\"')
                      for key in ("username", "password"))
    return f'{module} required username="{user}" password="{password}";'


def _mechanism(kafka: Mapping[str, Any]) -> str:
    mechanism = str(kafka.get("sasl.mechanism", kafka.get("sasl.mechanisms", "GSSAPI"))).upper()
    if mechanism not in MODULES:
        raise UserError(f"Kafka's own programs are not told how to log in by {mechanism}",
                        hint=f"{', '.join(MODULES)} are passed on to them")
    return mechanism


def properties(told: Mapping[str, str]) -> str:
    """A file of properties as Java reads it."""
    return "".join(f"{key}={escaped(value)}\n" for key, value in told.items())


def escaped(value: str) -> str:
    """As java.util.Properties reads it: a backslash starts an escape; anything not ASCII is written as one."""
    told = value.replace("\\", "\\\\").replace("\n", "\\n")
    return re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], told)
