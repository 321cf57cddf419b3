"""May a reader of one schema read what was written with another? Decided by the reference `avro` package, offline.

Records are taken apart field by field here, so that each reason names its field; the verdict on a field is the
package's. What its checker does not look at, the scale of decimals, is added from our own resolution.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

from headrace.codec.decode import Compiler, Incompatible
from headrace.codec.schema import AvroSchema


def problems(reader: AvroSchema, writer: AvroSchema) -> list[str]:
    """Why `reader` cannot read records of `writer`, a line for each field; [] when it can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of logical types that the package does not know
        found = list(dict.fromkeys(_differences(_parsed(reader), _parsed(writer), "")))
    if found:
        return found
    try:
        Compiler().read(writer.type, reader.type)
    except Incompatible as error:
        return [str(error)]
    return []


def _parsed(schema: AvroSchema) -> Any:
    import avro.schema

    return avro.schema.make_avsc_object(_bare(schema.json), avro.name.Names())


def _bare(written: Any) -> Any:
    """Without logical types, which change no byte; defaults are data, and stay."""
    if isinstance(written, list):
        return [_bare(w) for w in written]
    if not isinstance(written, dict):
        return written
    return {k: v if k == "default" else _bare(v) for k, v in written.items() if k not in ("logicalType", "precision")}


def _differences(reader: Any, writer: Any, path: str) -> Iterator[str]:
    from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType, lookup_writer_field

    verdict = ReaderWriterCompatibilityChecker().get_compatibility(reader, writer)
    if verdict.compatibility is SchemaCompatibilityType.compatible:
        return
    if reader.type != "record" or writer.type != "record":
        yield f"{path or 'the record'}: {_why(verdict)}"
        return
    named = ReaderWriterCompatibilityChecker().get_compatibility(_hollow(reader), _hollow(writer))
    if named.compatibility is not SchemaCompatibilityType.compatible:
        yield (f"{path or 'the record'}: record {writer.fullname} is not {reader.fullname}; "
               "an alias in the reader would make it so")
    for field in reader.fields:
        here = f"{path}.{field.name}" if path else field.name
        written = lookup_writer_field(writer, field)
        if written is not None:
            yield from _differences(field.type, written.type, here)
        elif not field.has_default:
            yield f"{here}: not in the writer's schema, and without a default"


def _hollow(record: Any) -> Any:
    """A record's name and aliases alone."""
    import avro.schema

    props = {k: v for k, v in record.props.items() if k in ("name", "namespace", "aliases")}
    return avro.schema.make_avsc_object({**json.loads(json.dumps(props)), "type": "record", "fields": []},
                                        avro.name.Names())


WORDS = {"missing_enum_symbols": "symbols that the reader lacks, and it has no default: ",
         "name_mismatch": "another name: ", "fixed_size_mismatch": "another size: "}


def _why(verdict: Any) -> str:
    kinds = [WORDS.get(str(k.value), "") for k in verdict.incompatibilities]
    return (kinds[0] if kinds else "") + "; ".join(sorted(verdict.messages))
