"""`mask`: what comes out is what Python's hmac and hashlib say, of any type and nested; what cannot be fails lint."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.batch import Batch, Emitted, Meta, Span
from headrace.errors import SchemaError, UserError
from headrace.processor import Context
from headrace.processors.mask import TEST_KEY, Mask, MaskConfig
from headrace.settings import Settings

pytestmark = pytest.mark.unit

CONTEXT = Context("f", "mask", Path())
PHONE = pa.struct([pa.field("number", pa.string()), pa.field("kind", pa.string(), False)])
CUSTOMER = pa.struct([pa.field("name", pa.string()), pa.field("phones", pa.list_(PHONE))])


def masked(array: pa.Array, ctx: Context = CONTEXT, path: str = "x", **config: Any) -> pa.Array:
    """The array as the column x, behind the step; half of it, to have an offset, is done apart."""
    step = Mask(MaskConfig(fields=(path,), **config), project=Path())
    schema = pa.schema([pa.field("x", array.type), pa.field("n", pa.int64())])
    out = step.outputs(schema)["success"]
    step.open(ctx)
    rows = pa.record_batch([array, pa.array(range(len(array)), pa.int64())], schema=schema)
    parts = []
    for piece in (rows.slice(0, len(array) // 2), rows.slice(len(array) // 2)):
        n = len(piece)
        meta = Meta(Emitted([Span("t", 0, at, at) for at in range(n)], [None] * n, [0] * n))
        made = step.process(Batch(piece, meta), ctx)["success"].rows
        made.validate(full=True)
        assert made.schema.equals(out)
        assert made.column(1).equals(piece.column(1))
        parts.append(made.column(0))
    return pa.concat_arrays(parts)


def token(value: bytes | None, key: bytes = TEST_KEY, encoding: str = "base64url") -> str | None:
    if value is None:
        return None
    digest = hmac.new(key, value, hashlib.sha256).digest()
    return digest.hex() if encoding == "hex" else base64.urlsafe_b64encode(digest).decode().rstrip("=")


TEXTS = st.lists(st.none() | st.text(max_size=12), max_size=20)
KINDS = st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])


@hypothesis_settings(max_examples=50)
@given(TEXTS, KINDS, st.sampled_from(["base64url", "hex"]))
def test_tokens_are_hmacs(values: list[str | None], kind: pa.DataType, encoding: str) -> None:
    found = masked(pa.array(values, pa.string()).cast(kind), how="tokenise", key="${env:X}", encoding=encoding)
    assert found.to_pylist() == [token(v.encode() if v is not None else None, encoding=encoding) for v in values]


@hypothesis_settings(max_examples=30)
@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20), st.lists(st.none() | st.binary(max_size=9)))
def test_numbers_and_bytes(numbers: list[int | None], raw: list[bytes | None]) -> None:
    found = masked(pa.array(numbers, pa.int64()), how="hash", encoding="hex")
    assert found.to_pylist() == [None if n is None else hashlib.sha256(str(n).encode()).hexdigest() for n in numbers]
    found = masked(pa.array(raw, pa.binary()), how="tokenise", key="${env:X}")
    assert found.to_pylist() == [token(v) for v in raw]


@hypothesis_settings(max_examples=50)
@given(TEXTS, st.integers(0, 4), st.integers(0, 4))
def test_partial_keeps_both_ends(values: list[str | None], first: int, last: int) -> None:
    if not first + last:
        return

    def kept(text: str) -> str:
        n = len(text) - first - last
        return "*" * len(text) if n <= 0 else text[:first] + "*" * n + (text[-last:] if last else "")

    found = masked(pa.array(values, pa.string()), how="partial", first=first, last=last)
    assert found.to_pylist() == [None if v is None else kept(v) for v in values]


def test_redact_and_null() -> None:
    assert masked(pa.array([1, None, 3]), how="redact").to_pylist() == ["[redacted]", None, "[redacted]"]
    assert masked(pa.array([[1], None, []]), how="redact", text="x").to_pylist() == ["x", None, "x"]
    found = masked(pa.array([1.5, None]), how=None)
    assert found.type == pa.float64()
    assert found.null_count == 2


@pytest.mark.parametrize("make", [pa.list_, pa.large_list])
def test_nested_fields(make: Any) -> None:
    kind = pa.struct([pa.field("name", pa.string()), pa.field("phones", make(PHONE))])
    data = [{"name": "Ada", "phones": [{"number": "1", "kind": "m"}, {"number": None, "kind": "h"}]}, None,
            {"name": None, "phones": []}, {"name": "Bob", "phones": None},
            {"name": "Cy", "phones": [{"number": "1", "kind": "w"}]}]
    found = masked(pa.array(data, kind), path="x.phones[].number", how="tokenise", key="${env:X}").to_pylist()
    wanted = [one and {**one, "phones": one["phones"] and [
        {**p, "number": p["number"] and token(p["number"].encode())} for p in one["phones"]]} for one in data]
    assert found == wanted


def test_equal_values_are_digested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.processors import mask

    seen: list[bytes] = []
    real = hmac.digest
    monkeypatch.setattr(mask.hmac, "digest", lambda key, value, how: (seen.append(value), real(key, value, how))[1])
    found = masked(pa.array(["a", "b", None] * 1_000), how="tokenise", key="${env:X}")
    assert found.to_pylist()[:3] == [token(b"a"), token(b"b"), None]
    assert len(seen) == 4  # in two pieces


def test_the_key_is_looked_up_and_must_be_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ctx = Context("f", "mask", tmp_path, settings=Settings(tmp_path, None, None))
    monkeypatch.setenv("PII_KEY", "0123456789abcdef")
    found = masked(pa.array(["a"]), ctx, how="tokenise", key="${env:PII_KEY}")
    assert found.to_pylist() == [token(b"a", b"0123456789abcdef")]
    monkeypatch.setenv("PII_KEY", "short-key")
    with pytest.raises(UserError, match="has 9 bytes, and a key needs 16") as error:
        masked(pa.array(["a"]), ctx, how="tokenise", key="${env:PII_KEY}")
    assert "short-key" not in str(error.value)
    monkeypatch.delenv("PII_KEY")
    with pytest.raises(UserError, match="no environment variable PII_KEY"):
        masked(pa.array(["a"]), ctx, how="tokenise", key="${env:PII_KEY}")


@pytest.mark.parametrize(("config", "why"), [
    ({"how": "redact"}, "needs `fields`, or `tags`"), ({"fields": "x", "how": "tokenise"}, "needs a `key`"),
    ({"fields": "x", "how": "hash", "key": "${env:X}"}, "hash has no `key`"),
    ({"fields": "x", "how": "tokenise", "key": "written-out"}, "must be a reference"),
    ({"fields": "x", "how": "partial"}, "needs `first` or `last`"), ({"fields": "x", "how": "blur"}, "how")])
def test_configs_that_are_none(config: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        MaskConfig(**config)


@pytest.mark.parametrize(("path", "how", "why"), [
    ("y", "redact", "there is no such column"), ("x.nam", "redact", "did you mean “name”"),
    ("x", "hash", "for single values"), ("n.a", "redact", "n is int64"), ("x.phones.number", "redact", "into lists by"),
    ("m{}", "redact", "within a map"), ("b", "hash", "of two tells"), ("n", "partial", "partial is for strings")])
def test_what_cannot_be_masked_says_why(path: str, how: str, why: str) -> None:
    schema = pa.schema([pa.field("x", CUSTOMER), pa.field("n", pa.int64()), pa.field("b", pa.bool_()),
                        pa.field("m", pa.map_(pa.string(), pa.string()))])
    with pytest.raises(SchemaError, match=why):
        Mask(MaskConfig(fields=(path,), how=how, first=int(how == "partial")), project=Path()).outputs(schema)


def test_fields_within_each_other() -> None:
    with pytest.raises(SchemaError, match="and what it is within"):
        Mask(MaskConfig(fields="x, x.name", how="redact"), project=Path()).outputs(pa.schema([pa.field("x", CUSTOMER)]))
