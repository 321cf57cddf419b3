"""mask: protects personal data: fields by name, or by the tag that their schema gives them (`headrace.pii`).

    redact      a text in its place                                any type; becomes a string
    hash        SHA-256 of the value's text or bytes               becomes a string
    tokenise    HMAC-SHA-256 of it, with a key                     becomes a string; equal values give equal tokens
    partial     all but the first and last characters become *     strings
    null        nothing in its place                               any type, which stays

Null stays null. A path goes into records by `.` and into lists by `[]`: `customer.email`, `contacts[].phone`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from headrace.batch import Batch
from headrace.config import Config, Names
from headrace.errors import SchemaError, UserError
from headrace.marked import nearest
from headrace.processor import Context, Processor
from headrace.secrets import REFERENCE, resolved

KEY_BYTES_MIN = 16
TEST_KEY = b"headrace test key"
"""In `headrace test`, where there is no cluster: tokens in flows' tests are the same everywhere."""
DIGEST_BYTES = 32
STEP = re.compile(r"\[\]|\{\}|[^.\[\]{}]+")
Verb = Callable[[pa.Array], pa.Array]


class MaskConfig(Config):
    """Which fields, and how they are protected."""

    fields: Names = Field((), description="Fields by path, e.g. [email, customer.name, contacts[].phone].")
    tags: Names = Field((), description="All fields that their schema tags so, as far as the flow knows, e.g. [email]. "
                        "A field that comes to be tagged is masked from then on.")
    how: Literal["redact", "hash", "tokenise", "partial", "null"] = Field(
        description="redact: `text` in its place. hash: SHA-256, which whoever can guess the value can verify. "
        "tokenise: HMAC-SHA-256 with `key`. partial: `first` and `last` characters stay. null: nothing.")
    key: str | None = Field(None, description="Of tokenise: a reference to the key, `${env:NAME}`, `${file:/path:key}` "
                            "or `${dir:/path:file}`; at least 16 bytes.")
    encoding: Literal["base64url", "hex"] = Field("base64url", description="Of hash and tokenise: 43 characters or 64.")
    text: str = Field("[redacted]", description="Of redact: what stands in the field's place.")
    first: int = Field(0, ge=0, description="Of partial: how many characters stay in front.")
    last: int = Field(0, ge=0, description="Of partial: how many characters stay at the end.")

    @field_validator("how", mode="before")
    @classmethod
    def _null(cls, value: Any) -> Any:
        return "null" if value is None else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not (self.fields or self.tags):
            raise ValueError("mask needs `fields`, or `tags`")
        if (self.how == "tokenise") != (self.key is not None):
            raise ValueError("tokenise needs a `key`" if self.key is None else f"{self.how} has no `key`")
        if self.key is not None and not REFERENCE.fullmatch(self.key):
            raise ValueError("`key` must be a reference, e.g. ${env:PII_KEY}: a flow is for all to read")
        if (self.how == "partial") != bool(self.first or self.last):
            raise ValueError("partial needs `first` or `last`, and only partial has them: which characters stay")
        return self


class Mask(Processor):
    """Outputs: `success`, the rows with the fields masked."""

    Config: ClassVar[type[Config]] = MaskConfig
    _schema: pa.Schema
    _paths: Mapping[str, list[str]]
    _key = TEST_KEY

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        """Raises SchemaError: fields and tags that are not there, or cannot be masked so."""
        config: MaskConfig = self.config
        for tag in config.tags:
            if tag not in self.tagged.values():
                raise SchemaError(f"no field that comes in is tagged “{tag}”{nearest(tag, self.tagged.values())}",
                                  hint="tag it in its schema: \"headrace.pii\": \"…\" beside the field's name")
        chosen = dict.fromkeys((*config.fields, *(p for p, tag in self.tagged.items() if tag in config.tags)))
        self._paths = {path: STEP.findall(path) for path in chosen}
        for path, steps in self._paths.items():
            if any(other != path and steps[:len(them)] == them for other, them in self._paths.items()):
                raise SchemaError(f"mask names {path} and what it is within", hint="name one of them")
        fields = list(schema)
        for path, steps in self._paths.items():
            at = schema.get_field_index(steps[0]) if steps else -1
            if at < 0:
                raise SchemaError(f"mask names “{path}”, and there is no such column{nearest(path, schema.names)}")
            fields[at] = self._masked_field(fields[at], steps[1:], path)
        self._schema = pa.schema(fields, metadata=schema.metadata)
        return {"success": self._schema}

    def protects(self) -> Mapping[str, str]:
        return dict.fromkeys(self._paths, self.config.how)

    def notes(self, schema: pa.Schema) -> list[str]:
        return [f"masks {', '.join(self._paths)} ({self.config.how})"] if self.config.tags else []

    def open(self, ctx: Context) -> None:
        """Raises UserError for a key that is not there or too short."""
        if self.config.key is not None and ctx.settings is not None:
            self._key = resolved(self.config.key).encode()
            if len(self._key) < KEY_BYTES_MIN:
                raise UserError(f"{ctx.step}: {self.config.key} has {len(self._key)} bytes, and a key needs "
                                f"{KEY_BYTES_MIN}", hint="make one, e.g. `openssl rand -base64 32`")

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        arrays, verb = list(batch.rows.columns), self._verb()
        for steps in self._paths.values():
            at = self._schema.get_field_index(steps[0])
            arrays[at] = _masked(arrays[at], steps[1:], verb, self._schema.field(at).type)
        return {"success": batch.with_rows(pa.RecordBatch.from_arrays(arrays, schema=self._schema))}

    def _masked_field(self, field: pa.Field, steps: list[str], path: str) -> pa.Field:
        """The field as it comes out. Raises SchemaError."""
        if not steps:
            return self._leaf(field, path)
        if steps[0] == "{}" or pa.types.is_map(field.type):
            raise SchemaError(f"mask cannot reach {path}: it is within a map", hint="mask the map as a whole: redact, "
                                                                                    "null")
        if pa.types.is_struct(field.type):
            names = [inner.name for inner in field.type]
            if steps[0] not in names:
                raise SchemaError(f"mask names “{path}”, and {field.name} has no “{steps[0]}”"
                                  f"{nearest(steps[0], names)}")
            return field.with_type(pa.struct([self._masked_field(inner, steps[1:], path) if inner.name == steps[0]
                                              else inner for inner in field.type]))
        if steps[0] == "[]" and (pa.types.is_list(field.type) or pa.types.is_large_list(field.type)):
            make = pa.list_ if pa.types.is_list(field.type) else pa.large_list
            return field.with_type(make(self._masked_field(field.type.value_field, steps[1:], path)))
        raise SchemaError(f"mask names “{path}”, and {field.name} is {field.type}",
                          hint="a path goes into records by “.” and into lists by “[]”")

    def _leaf(self, field: pa.Field, path: str) -> pa.Field:
        how = self.config.how
        if how == "null":
            return field.with_nullable(True)
        inner = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        text = pa.types.is_string(inner) or pa.types.is_large_string(inner)
        if how == "partial" and not text:
            raise SchemaError(f"{path} is {field.type}: partial is for strings", hint="tokenise, redact or null it")
        if how in ("hash", "tokenise") and (pa.types.is_nested(inner) or pa.types.is_null(inner)):
            raise SchemaError(f"{path} is {field.type}: {how} is for single values",
                              hint=f"name the fields in it, e.g. {path}.…; or redact or null the whole")
        if how in ("hash", "tokenise") and pa.types.is_boolean(inner):
            raise SchemaError(f"{path} is boolean: each {how} of two tells which it is", hint="redact or null it")
        return pa.field(field.name, pa.string(), field.nullable)

    def _verb(self) -> Verb:
        config: MaskConfig = self.config
        match config.how:
            case "redact":
                return lambda array: pc.if_else(array.is_valid(), pa.scalar(config.text), pa.scalar(None, pa.string()))
            case "null":
                return lambda array: pa.nulls(len(array), array.type)
            case "partial":
                return lambda array: _partial(array, config.first, config.last)
            case "hash":
                return lambda array: _digested(array, config.encoding, None)
            case _:
                return lambda array: _digested(array, config.encoding, self._key)


def _masked(array: pa.Array, steps: list[str], verb: Verb, to: pa.DataType) -> pa.Array:
    """The array with what the steps lead to masked; `to` is its type then. A step before may have made large strings
    of strings."""
    if not steps:
        return _as(verb(array), to)
    if pa.types.is_struct(to):
        children = [_masked(array.field(at), steps[1:], verb, inner.type) if inner.name == steps[0] else
                    _as(array.field(at), inner.type) for at, inner in enumerate(to)]
        return pa.StructArray.from_arrays(children, fields=list(to), mask=array.is_null())
    values = _masked(array.flatten(), steps[1:], verb, to.value_type)  # of lists that are not null
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    wide = pa.types.is_large_list(to)
    kind = pa.LargeListArray if wide else pa.ListArray
    return kind.from_arrays(pa.array(offsets, pa.int64() if wide else pa.int32()), values, type=to,
                            mask=array.is_null())


def _as(array: pa.Array, to: pa.DataType) -> pa.Array:
    return array if array.type == to else array.cast(to)


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _partial(array: pa.Array, first: int, last: int) -> pa.Array:
    """Characters that stay at both ends, stars between; of a text that would stay whole only stars."""
    texts = _plain(array).cast(pa.string())
    length = pc.utf8_length(texts)
    stars = pc.binary_repeat(pa.scalar("*"), length)
    parts = [pc.utf8_slice_codeunits(texts, 0, first), pc.utf8_slice_codeunits(stars, first, stop=None)]
    if last:
        parts = [parts[0], pc.utf8_slice_codeunits(stars, first, stop=-last), pc.utf8_slice_codeunits(texts, -last)]
    return pc.if_else(pc.less_equal(length, first + last), stars, pc.binary_join_element_wise(*parts, ""))


def _digested(array: pa.Array, encoding: str, key: bytes | None) -> pa.Array:
    """SHA-256, by HMAC where there is a key, of each value's bytes: of text in UTF-8, of numbers and times as Arrow
    writes them in text. Each distinct value is digested once."""
    coded = _plain(array).dictionary_encode()
    distinct, binary = coded.dictionary, pa.binary()
    if not (pa.types.is_binary(distinct.type) or pa.types.is_large_binary(distinct.type)
            or pa.types.is_fixed_size_binary(distinct.type)):
        distinct = distinct.cast(pa.string())
    values = distinct.cast(binary).to_pylist()
    if key is None:
        digests = b"".join([hashlib.sha256(value).digest() for value in values])
    else:
        digests = b"".join(map(hmac.digest, repeat(key), values, repeat("sha256")))
    return _texts(digests, encoding).take(coded.indices)


def _texts(digests: bytes, encoding: str) -> pa.Array:
    """Digests that stand one behind the other, each as a text."""
    n = len(digests) // DIGEST_BYTES
    if encoding == "hex":
        width, data = 2 * DIGEST_BYTES, digests.hex().encode()
    else:  # filled up to a multiple of three bytes each, so that all are encoded at once; “=” is left out
        padded = np.zeros((n, DIGEST_BYTES + 1), np.uint8)
        padded[:, :DIGEST_BYTES] = np.frombuffer(digests, np.uint8).reshape(n, DIGEST_BYTES)
        width = 43
        whole = np.frombuffer(base64.urlsafe_b64encode(padded.tobytes()), np.uint8)
        data = whole.reshape(n, 44)[:, :width].tobytes()
    offsets = np.arange(n + 1, dtype=np.int32) * width
    return pa.Array.from_buffers(pa.string(), n, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
