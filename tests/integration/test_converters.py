"""AvroConverter against a real registry: what is registered, what it refuses, and what waits."""

from __future__ import annotations

import uuid

import pyarrow as pa
import pytest
from confluent_kafka.schema_registry import ConfigCompatibilityLevel, ServerConfig

from headrace.errors import RegistryError, Retriable
from headrace.records import Column
from headrace.records.converters import converter_of
from headrace.registry import Registry
from tests.conftest import Stack

pytestmark = pytest.mark.integration


def column(**values: pa.Array) -> Column:
    return Column.of_rows(pa.RecordBatch.from_pydict(values), name="shop.Sale")


def test_a_schema_is_registered_once_and_found_by_id(stack: Stack) -> None:
    topic = f"converters-{uuid.uuid4().hex[:8]}"
    config = {"schema.registry.url": stack.registry}
    first = column(id=pa.array([1, 2]), name=pa.array(["a", None]))
    payloads, reasons = converter_of("avro", config, False, None).encode(topic, first)
    assert reasons == {}
    assert payloads == converter_of("avro", config, False, None).encode(topic, first)[0]
    (_, read), = converter_of("avro", {}, False, Registry({"url": stack.registry})).decode(topic, payloads)[0]
    assert read.values.to_pylist() == first.values.to_pylist()
    assert read.shape is not None
    assert read.shape.name == "shop.Sale"
    latest = Registry({"url": stack.registry}).latest(f"{topic}-value")
    assert latest is not None
    assert latest[0] == int.from_bytes((payloads[0] or b"")[1:5], "big")


def test_what_the_registry_refuses_fails_its_records(stack: Stack) -> None:
    topic = f"converters-{uuid.uuid4().hex[:8]}"
    registry = Registry({"url": stack.registry})
    subject = f"{topic}-value"
    converter = converter_of("avro", {}, False, registry)
    assert converter.encode(topic, column(id=pa.array([1])))[1] == {}
    registry.client.set_config(subject, ServerConfig(compatibility=ConfigCompatibilityLevel.BACKWARD))
    payloads, reasons = converter.encode(topic, column(id=pa.array(["x", "y"])))
    assert payloads == [None, None]
    assert set(reasons) == {0, 1}
    assert subject in reasons[0]
    assert converter.encode(topic, column(id=pa.array([1]), more=pa.array(["x"])))[1] == {}


def test_without_registration_the_latest_version_is_written(stack: Stack) -> None:
    topic = f"converters-{uuid.uuid4().hex[:8]}"
    registry = Registry({"url": stack.registry})
    reader = converter_of("avro", {"auto.register.schemas": "false"}, False, registry)
    assert "auto.register.schemas is off" in reader.encode(topic, column(id=pa.array([1])))[1][0]
    converter_of("avro", {}, False, registry).encode(topic, column(id=pa.array([1]), more=pa.array(["x"])))
    payloads, reasons = reader.encode(topic, column(id=pa.array([2])))
    assert reasons == {}
    (_, read), = reader.decode(topic, payloads)[0]
    assert read.values.to_pylist() == [{"id": 2, "more": None}]


def test_a_registry_that_is_away_makes_records_wait() -> None:
    converter = converter_of("avro", {"schema.registry.url": "http://127.0.0.1:9"}, False, None)
    with pytest.raises((Retriable, RegistryError)):
        converter.encode("t", column(id=pa.array([1])))
    with pytest.raises((Retriable, RegistryError)):
        converter.decode("t", [b"\0\0\0\0\1\2"])
