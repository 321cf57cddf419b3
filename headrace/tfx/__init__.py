"""TensorFlow Extended's artifacts, read and written without TensorFlow: by tensorflow-metadata's messages, extra `tfx`.

    schema.py       Avro schema and suite ↔ schema.pbtxt
    statistics.py   rows → DatasetFeatureStatisticsList
    anomalies.py    broken expectations and drift → Anomalies
    blessing.py     BLESSED, INFRA_BLESSED and pushed models, as files
"""

from __future__ import annotations

from types import ModuleType


def proto(name: str) -> ModuleType:
    """A module of tensorflow-metadata's messages: schema, statistics, anomalies or path. Raises MissingExtra."""
    from importlib import import_module

    from headrace.errors import MissingExtra

    try:
        return import_module(f"tensorflow_metadata.proto.v0.{name}_pb2")
    except ImportError as missing:
        raise MissingExtra("tfx", "reading and writing what TFX reads and writes (tensorflow-metadata)") from missing


def to_text(message: object) -> str:
    """A message in text format, as TFX keeps its schemas (pbtxt)."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(message, as_utf8=True))
