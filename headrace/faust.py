"""For your own Faust apps: topics of Avro records and of typed control events, for listeners of low rate.

    app = headrace.faust.app("on-call")

    @headrace.faust.listener(app, Alert)
    async def page(alert: Alert) -> None: ...

Delivery is at least once: an event is acknowledged when its handler has returned, and comes again if the process ends
before. Only committed records are read. For more than some thousand records a second, or exactly once, write a flow:
Faust's own Kafka client is slower and, in its exactly-once mode, repeats records after a kill (docs/decisions).
Do not install `faust[ckafka]`: it swaps key and value.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import faust
import pyarrow as pa
from faust.exceptions import ValueDecodeError
from faust.transport.drivers import aiokafka as driver

from headrace.codec import AvroSchema, Decoder, Encoder
from headrace.control import ControlEvent
from headrace.errors import EnvironmentFault, UserError
from headrace.registry import Registry
from headrace.settings import Settings, load

log = logging.getLogger("headrace.faust")
Event = TypeVar("Event", bound=ControlEvent)
Handler = Callable[[Event], Awaitable[None]]
RETRY_FIRST_S, RETRY_MAX_S = 1.0, 60.0


class _Thread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer, which reads records of transactions that were aborted, made to read committed ones only."""

    __module__ = driver.__name__  # Faust's services log under their module's name; these are Faust's, not ours

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        assert hasattr(consumer, "_isolation_level"), "aiokafka has changed; its consumer would read aborted records"
        consumer._isolation_level = "read_committed"
        return consumer


class _Consumer(driver.Consumer):  # type: ignore[misc]
    __module__ = driver.__name__

    def _new_consumer_thread(self) -> Any:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class _Transport(driver.Transport):  # type: ignore[misc]
    Consumer = _Consumer


def app(name: str, settings: Settings | None = None, **options: Any) -> faust.App:
    """A Faust app, and consumer group, called `name` on the project's Kafka; `options` are any of `faust.App`.

    It begins with the earliest record, creates no topics, and keeps its files in `.headrace/faust`.
    Raises BrokerError when no broker is known, UserError for a SASL mechanism that Faust has not.
    """
    found = settings or load()
    client = found.client()
    options = {"store": "memory://", "web_enabled": False, "topic_allow_declare": False, "topic_disable_leader": True,
               "consumer_auto_offset_reset": "earliest", "stream_wait_empty": False, "broker_commit_interval": 0.5,
               "broker_session_timeout": 10.0, "broker_credentials": credentials(client),
               "datadir": str(found.state / "faust" / name), **options}
    (found.state / "faust").mkdir(parents=True, exist_ok=True)  # Faust makes the last folder only
    broker = ";".join(f"kafka://{address.strip()}" for address in client["bootstrap.servers"].split(","))
    made = faust.App(name, broker=broker, **options)
    read_committed(made)
    return made


def read_committed(app: faust.App) -> None:
    """Make a Faust app of your own pass over the records of aborted transactions. Call it before the app starts."""
    app.transport = _Transport(app.conf.broker_consumer, app)


def credentials(kafka: Mapping[str, Any]) -> Any:
    """Faust's credentials from librdkafka's properties; None for plain text. Raises UserError."""
    protocol = str(kafka.get("security.protocol", "plaintext")).upper()
    if protocol == "PLAINTEXT":
        return None
    context = ssl.create_default_context(cafile=kafka.get("ssl.ca.location")) if protocol.endswith("SSL") else None
    if context and "ssl.certificate.location" in kafka:
        context.load_cert_chain(kafka["ssl.certificate.location"], kafka.get("ssl.key.location"),
                                kafka.get("ssl.key.password"))
    if protocol == "SSL":
        return faust.SSLCredentials(context)
    mechanism = str(kafka.get("sasl.mechanism", kafka.get("sasl.mechanisms", "PLAIN"))).upper()
    if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        raise UserError(f"a Faust app cannot log in to Kafka by {mechanism}",
                        hint="PLAIN and SCRAM work; for others give faust.App your own broker_credentials")
    return faust.SASLCredentials(username=kafka.get("sasl.username"), password=kafka.get("sasl.password"),
                                 ssl_context=context, mechanism=mechanism)


class Avro(faust.Schema):  # type: ignore[misc]
    """Faust's (de)serialiser for a topic of Avro records in the registry's framing. Keys stay bytes.

    A record becomes a dict as `schema` says, or what `build` makes of that dict; one without a value becomes None.
    While the registry does not answer the topic waits; a payload that is no record raises Faust's ValueDecodeError.
    """

    def __init__(self, schema: AvroSchema, settings: Settings, subject: str | None = None,
                 build: Callable[[dict[str, Any]], Any] = lambda record: record) -> None:
        super().__init__(key_type=bytes, key_serializer="raw", value_serializer="raw")
        self._schema, self._subject, self._build = schema, subject, build
        self._registry = Registry(settings.registry_client())
        self._decoder = Decoder(schema, self._registry.schema)
        self._encoder: Encoder | None = None

    def read(self, payload: bytes | None) -> Any:
        """One payload. Raises ValueDecodeError with the reason, RegistryError (an EnvironmentFault)."""
        if payload is None:
            return None
        decoded = self._decoder.decode([payload])
        if decoded.rejects:
            raise ValueDecodeError(decoded.rejects[0][1])
        return self._build(decoded.rows.to_pylist()[0])

    def write(self, record: Mapping[str, Any]) -> bytes:
        """One record's payload; the schema is registered under the subject. Raises ValueError, RegistryError."""
        if self._encoder is None:
            assert self._subject is not None, "a topic to send to has a subject"
            self._encoder = Encoder(self._schema, self._schema.arrow,
                                    self._registry.register(self._subject, self._schema))
        rows = pa.RecordBatch.from_pylist([dict(record)], schema=self._schema.arrow)
        values, _, failed = self._encoder.encode_checked(rows)
        if failed:
            raise ValueError(f"no {self._schema.name}: {failed[0][1]}")
        payload: bytes = values[0]
        return payload

    def compile(self, app: Any, *, on_key_decode_error: Any = None, on_value_decode_error: Any = None,
                default_propagate: bool = False) -> Any:
        """Faust's hook: the function that makes an event of a message."""
        async def decode(message: Any, *, propagate: bool = default_propagate) -> Any:
            try:
                value = await _insist(lambda: asyncio.to_thread(self.read, message.value), EnvironmentFault,
                                      _place(message))
            except ValueDecodeError as error:
                if propagate or on_value_decode_error is None:
                    raise
                await on_value_decode_error(error, message)
                return None
            return app.create_event(message.key, value, message.headers, message)

        return decode

    def dumps_value(self, app: Any, value: Any, *, serializer: Any = None, headers: Any) -> tuple[Any, Any]:
        """Faust's hook: the payload of what is sent."""
        return (value if value is None or isinstance(value, bytes) else self.write(value)), headers


class _Topic(faust.Topic):  # type: ignore[misc]
    """A topic on which one bad payload does not stop the listener: it is logged with its place and passed over."""

    async def on_value_decode_error(self, exc: Exception, message: Any) -> None:
        log.error("passed over a payload that is no record: %s", exc, extra=_place(message))


def topic(app: faust.App, name: str, of: type[ControlEvent] | AvroSchema, settings: Settings | None = None) -> Any:
    """A Faust topic of typed control events (`of` is Alert, Retrain or Switch) or of dicts, for agents and `send`.

    Raises RegistryError when no registry is known.
    """
    schema, build = (of, dict) if isinstance(of, AvroSchema) else (of.schema(), of.from_record)
    return _Topic(app, topics=[name], schema=Avro(schema, settings or load(), f"{name}-value", build))


def listener(app: faust.App, event: type[Event], *, home: str | None = None, settings: Settings | None = None
             ) -> Callable[[Handler[Event]], Any]:
    """Decorate `async def handler(event)`: it is called with each event on `event.home` (or the topic `home`), in order
    within a partition, and called again after a growing pause for as long as it raises. Returns the Faust agent.
    """
    source = topic(app, home or event.home, event, settings)

    def register(handler: Handler[Event]) -> Any:
        async def agent(stream: Any) -> None:
            async for received in stream.noack().events():
                if received.value is not None:
                    await _insist(lambda value=received.value: handler(value),  # type: ignore[misc]
                                  Exception, _place(received.message))
                await stream.ack(received)

        return app.agent(source, name=f"{handler.__module__}.{handler.__qualname__}.{event.kind}")(agent)

    return register


async def _insist(call: Callable[[], Awaitable[Any]], on: type[Exception], place: Mapping[str, Any]) -> Any:
    """The result of `call`, tried again after a growing pause while it raises `on`."""
    pause_s = RETRY_FIRST_S
    while True:
        try:
            return await call()
        except on as error:
            log.warning("tried again in %.0f s: %s", pause_s, error or repr(error), extra=dict(place))
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, RETRY_MAX_S)


def _place(message: Any) -> dict[str, Any]:
    return {"topic": message.topic, "partition": message.partition, "offset": message.offset}
