"""A person's word on a model: one verdict, written to the control topic and waited for.

    promote    this version takes over, at once
    rollback   the version before takes over again, or the one that is named
    approve    a blessed version that waits takes over
    retrain    the policy asks for a training
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from headrace import codec
from headrace.batch import Span
from headrace.control import Verdict, digest
from headrace.errors import BrokerError, UserError
from headrace.loopview.history import History, topic_of
from headrace.loopview.standing import waiting
from headrace.marked import nearest
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.topics import existing, silent

DELIVERY_S = 30.0
FLOW, STEP = "people", "models"
"""What stands as flow and step in a person's verdict."""
PREFIX_MIN = 4


def word(about: str, model: str, version: str | None, reason: str, by: str, *, at: datetime | None = None,
         trigger: str | None = None) -> Verdict:
    """The verdict. The same word at the same time by the same person has the same id.

    `at` is the event time as of which a retraining is asked for; left out, it is now.
    """
    said = at or datetime.now(UTC)
    said = said.replace(microsecond=said.microsecond // 1000 * 1000)  # Avro keeps milliseconds
    return Verdict(id=digest(model, about, version or "", said.isoformat(), by), at=said, about=about, flow=FLOW,
                   step=STEP, ok=True, owner=by, model=model, version=version, reasons=[reason], by=by,
                   trigger=trigger)


def write(settings: Settings, control: str, verdict: Verdict) -> Span:
    """Write it, wait until it is acknowledged; where it stands. It stands in Kafka at the time it was written.

    Raises UserError when there is no such topic, BrokerError, RegistryError.
    """
    from confluent_kafka import KafkaError, Message, Producer

    topic = topic_of(control, Verdict)
    there = existing(settings)
    if topic not in there:
        raise UserError(f"there is no topic {topic}{nearest(topic, there)}: nobody would read it",
                        hint="start the flow that governs the model, which makes it; with another prefix, say "
                             "--control")
    schema = Verdict.schema()
    number = Registry(settings.registry_client()).register(f"{topic}-value", schema)
    row = {**verdict.to_record(), "measures": list(verdict.measures.items())}
    rows = pa.RecordBatch.from_pylist([row], schema=schema.arrow)
    [value] = codec.Encoder(schema, schema.arrow, number).encode(rows)
    told: list[tuple[KafkaError | None, Message]] = []
    producer = Producer(settings.client(enable_idempotence=True, acks="all", linger_ms=0,
                                        message_timeout_ms=int(DELIVERY_S * 1000)), logger=silent("word"))
    producer.produce(topic, value, verdict.key(), on_delivery=lambda error, message: told.append((error, message)))
    producer.flush(DELIVERY_S + 5)
    if not told or told[0][0] is not None:
        why = told[0][0].str() if told and told[0][0] else f"no answer in {DELIVERY_S:.0f} s"
        raise BrokerError(f"the word was not delivered to {topic}: {why}",
                          hint=f"is Kafka at {settings.bootstrap} up, and may this user write there? Whether it is "
                               "there all the same, `headrace loop status` shows")
    at = int(told[0][1].offset() or 0)
    return Span(topic, int(told[0][1].partition() or 0), at, at)


def find_waiting(history: History, model: str, asked: str) -> dict[str, Any]:
    """The blessed version that waits and is meant by its number, or by its trigger's id or the beginning of that.

    Raises UserError with what waits.
    """
    there = waiting(history, model)
    found = [each for each in there if each["version"] == asked] or [
        each for each in there if len(asked) >= PREFIX_MIN and str(each["trigger"] or "").startswith(asked)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"“{asked}” is the beginning of {len(found)} triggers of {model} that wait",
                        hint="write more of it, or the version")
    those = ", ".join(f"version {each['version']} (trigger {str(each['trigger'])[:16]}…)" for each in there)
    raise UserError(f"nothing of {model} that is called “{asked}” waits for an approval",
                    hint=f"there waits {those}" if those else
                    f"nothing of it waits; `headrace models history {model}` shows what happened")
