"""Avro ↔ Arrow. The only package that imports an Avro library: `avro` to check compatibility, `fastavro`
to split Avro files into records. Records themselves are read and written by passes of our own.

    schema.py    a schema as a value: parse, load, from_arrow
    types.py     Avro types, and the Arrow type of each
    decoder.py   Kafka values → rows and rejects; its plans are made by decode.py, its passes are wire.py and build.py
    encoder.py   rows → Kafka values; its plans are made by encode.py, its passes are wire_write.py and leaves.py
    compat.py    may a reader of this schema read that one's records?

Neither way walks records in Python: a numpy pass reads or writes the same field of all records of a batch at once.
"""

from headrace.codec.decoder import Decoded, Decoder, UnknownSchema
from headrace.codec.encoder import Encoder, assignable
from headrace.codec.schema import AvroSchema, from_arrow, load, parse

__all__ = ["AvroSchema", "Decoded", "Decoder", "Encoder", "UnknownSchema", "assignable", "from_arrow", "load", "parse"]
