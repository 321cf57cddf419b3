"""Payloads whose writers are not known beforehand, as rows: each is read with the schema it names."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa

from headrace import codec
from headrace.batch import Index
from headrace.codec import AvroSchema, Decoder
from headrace.codec.decoder import HEADER_BYTES
from headrace.codec.types import Type
from headrace.errors import UserError
from headrace.secrets import HIDDEN


@dataclass(frozen=True, slots=True)
class Written:
    """The payloads of one writer: `rows[i]` is payload `index[i]`. `id` is the schema's in the registry."""

    id: int
    schema: AvroSchema
    index: Index
    rows: pa.RecordBatch


def schema_id(value: bytes | None) -> int | None:
    """The registry id in a payload's frame; None where there is no frame."""
    if value is None or len(value) < HEADER_BYTES or value[0] != 0:
        return None
    return int.from_bytes(value[1:HEADER_BYTES], "big")


class Reader:
    """Decodes payloads of any writer; keeps the decoders. `writers(id)` gives a schema, as `Registry.schema` does.
    `records` are for people: personal data (`headrace.pii`) is hidden in them unless `show_pii`."""

    def __init__(self, writers: Callable[[int], AvroSchema], *, show_pii: bool = False) -> None:
        self.writers = writers
        self.show_pii = show_pii
        self._decoders: dict[int | None, Decoder | str] = {
            None: Decoder(codec.parse('"null"'), writers)}  # of what has no frame: it says what is wrong

    def _decoder(self, number: int | None) -> Decoder | str:
        """What reads the payloads of this schema as they were written, or why nothing can. Raises RegistryError."""
        if number not in self._decoders:
            assert number is not None
            try:
                self._decoders[number] = Decoder(self.writers(number), self.writers)
            except UserError as error:
                self._decoders[number] = f"unknown_schema: {error.what}"
        return self._decoders[number]

    def read(self, values: Sequence[bytes | None]) -> tuple[list[Written], dict[int, str]]:
        """The rows by writer, and for each payload that cannot be read its reason. Raises RegistryError."""
        by_id: dict[int | None, list[int]] = {}
        for at, value in enumerate(values):
            by_id.setdefault(schema_id(value), []).append(at)
        found: list[Written] = []
        failed: dict[int, str] = {}
        for number, places in by_id.items():
            decoder = self._decoder(number)
            if isinstance(decoder, str):
                failed |= dict.fromkeys(places, decoder)
                continue
            decoded = decoder.decode([values[at] for at in places])
            failed |= {places[i]: why for i, why in decoded.rejects}
            index = np.array(places, dtype=np.int64)
            if decoded.index is not None:
                index = index[decoded.index]
            if len(index):
                found.append(Written(number or 0, decoder.reader, index, decoded.rows))
        return found, failed

    def records(self, values: Sequence[bytes | None]) -> list[dict[str, Any] | str]:
        """Each payload as a record of plain values, or the reason why it cannot be read."""
        found, failed = self.read(values)
        out: list[dict[str, Any] | str] = [failed.get(at, "") for at in range(len(values))]
        for written in found:
            for at, record in zip(written.index.tolist(), written.rows.to_pylist(), strict=True):
                shown = {name: plain(value) for name, value in record.items()}
                out[at] = shown if self.show_pii or not written.schema.pii else without_pii(written.schema.type, shown)
        return out


def without_pii(type_: Type, value: Any) -> Any:
    """A value of this type as people see it, with `[hidden]` for each field that its schema tags as personal data."""
    if value is None:
        return None
    if type_.kind == "union":
        some = dict(zip(type_.members, type_.some, strict=True))
        return without_pii(type_.some[0], value) if len(some) == 1 else {
            name: without_pii(some[name], inner) for name, inner in value.items()}
    if type_.kind == "array":
        return [without_pii(type_.item, one) for one in value]
    if type_.kind == "map":
        return [[key, without_pii(type_.item, one)] for key, one in _pairs(value)]
    if type_.kind != "record" or not isinstance(value, dict):
        return value
    out = dict(value)
    for one in type_.fields:
        if out.get(one.name) is not None:
            out[one.name] = HIDDEN if one.pii else without_pii(one.type, out[one.name])
    return out


def _pairs(value: Any) -> Any:
    """A map's entries: Arrow gives them as pairs, JSON as an object."""
    return value.items() if isinstance(value, dict) else value


def plain(value: Any) -> Any:
    """A value of an Arrow row as JSON has it: times in ISO 8601, decimals as text, bytes in base64."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
