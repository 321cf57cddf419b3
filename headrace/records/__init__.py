"""Records between connectors and Kafka, in columns: what Kafka Connect calls connect data, as Arrow arrays.

    shape.py      Kafka Connect's schema of a value (`Shape`), to and from Arrow types
    records.py    `Column` and `Records`: n records of one topic and one structure
    converters/   bytes ↔ columns: Avro (registry framing), JSON, string, bytes
"""

from headrace.records.records import Column, Failure, Records
from headrace.records.shape import Shape, arrow_of, shape_of

__all__ = ["Column", "Failure", "Records", "Shape", "arrow_of", "shape_of"]
