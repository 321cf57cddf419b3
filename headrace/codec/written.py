"""The schema an Avro container file was written with, for whoever reads it without one of their own."""

from __future__ import annotations

from pathlib import Path

import fastavro

from headrace.codec.schema import AvroSchema, parse
from headrace.errors import UserError


def written_with(path: Path) -> AvroSchema:
    """The writer's schema of a container. Raises UserError (no container), SchemaError (no schema for Arrow)."""
    with path.open("rb") as stream:
        try:
            text = fastavro.block_reader(stream).metadata["avro.schema"]
        except (ValueError, EOFError, KeyError, StopIteration, TypeError) as error:
            raise UserError(f"{path} is not an Avro container file: {error}") from error
    return parse(text, where=str(path))
