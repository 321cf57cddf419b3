"""`producer.override.*` and `consumer.override.*`: properties of a Java client, as librdkafka has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from headrace.connect.spec import Spec
from headrace.errors import UserError
from headrace.secrets import KNOWN
from headrace.settings import Settings

JAVA_ONLY = frozenset({
    "key.serializer", "value.serializer", "key.deserializer", "value.deserializer", "interceptor.classes",
    "metric.reporters", "metrics.num.samples", "metrics.recording.level", "metrics.sample.window.ms", "buffer.memory",
    "max.block.ms", "max.request.size", "default.api.timeout.ms", "enable.metrics.push", "max.poll.records",
    "receive.buffer.bytes", "send.buffer.bytes", "exclude.internal.topics", "security.providers",
    "config.providers", "partitioner.class", "partitioner.ignore.keys", "auto.include.jmx.reporter",
    "sasl.login.class", "sasl.login.callback.handler.class", "sasl.client.callback.handler.class"})
"""What librdkafka has nothing for, or we do otherwise; passed over."""
RENAMED: Mapping[str, str] = {"session.timeout": "session.timeout.ms", "fetch.max.wait.ms": "fetch.wait.max.ms",
                              "max.partition.fetch.bytes": "fetch.message.max.bytes",
                              "ssl.truststore.location": "ssl.ca.location", "metadata.max.age.ms":
                              "topic.metadata.refresh.interval.ms"}
OURS = frozenset({"transactional.id", "enable.idempotence", "enable.auto.commit", "enable.partition.eof",
                  "auto.offset.reset", "group.id", "partition.assignment.strategy", "bootstrap.servers"})
"""What is not the user's to say: exactly-once rests on it; or it is read elsewhere."""
_LOGIN = re.compile(r'\b(username|password)\s*=\s*(?:"([^"]*)"|\'([^\']*)\'|([^\s;]+))')


def librdkafka(spec: Spec, client: str) -> dict[str, str]:
    """The properties for a client, "producer" or "consumer"."""
    out: dict[str, str] = {}
    for key, value in spec.under(f"{client}.override.").items():
        if key == "sasl.jaas.config":
            out |= {f"sasl.{name}": a or b or c for name, a, b, c in _LOGIN.findall(value)}
        elif key not in JAVA_ONLY and key not in OURS:
            out[RENAMED.get(key, key)] = value
    return out


def elsewhere(spec: Spec, settings: Settings, client: str) -> Settings:
    """The settings, of another cluster where the override names one."""
    bootstrap = spec.keys.get(f"{client}.override.bootstrap.servers")
    return replace(settings, bootstrap=bootstrap) if bootstrap else settings


def refused(spec: Spec, client: str, error: object) -> UserError:
    """The error for properties that librdkafka does not take."""
    return UserError(KNOWN.text(f"connector {spec.name}: {client}.override: {error}"),
                     hint="the properties are librdkafka's; most have the names of Java's")
