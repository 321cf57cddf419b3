"""COPY … TO STDOUT, read as it comes and without waiting long, and its CSV as Arrow columns."""

from __future__ import annotations

import io
import select
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from headrace.batch import Index

SHOWN_CHARS = 80


class CopyOut:
    """A COPY under way. libpq gives a row at a time; what is not read yet waits in the server."""

    def __init__(self, connection: Any, statement: bytes) -> None:
        from psycopg import pq
        from psycopg.errors import error_from_result

        self.connection, self.ended = connection, False
        result = connection.pgconn.exec_(statement)
        if result.status != pq.ExecStatus.COPY_OUT:
            raise error_from_result(result)

    def read(self, rows_max: int, wait_s: float) -> list[bytes]:
        """Up to so many rows, each with its line end; fewer when no more come for so long, or it has `ended`."""
        from psycopg import OperationalError

        pgconn = self.connection.pgconn
        get, rows = pgconn.get_copy_data, list[bytes]()
        end = time.monotonic() + wait_s
        while len(rows) < rows_max:
            size, data = get(1)
            if size > 0:
                rows.append(bytes(data))
            elif size == 0:
                left = end - time.monotonic()
                if left <= 0 or not select.select([pgconn.socket], [], [], left)[0]:
                    break
                pgconn.consume_input()
            elif size == -1:
                self._end(pgconn)
                break
            else:
                raise OperationalError(pgconn.error_message.decode(errors="replace"))
        return rows

    def _end(self, pgconn: Any) -> None:
        from psycopg import pq
        from psycopg.errors import error_from_result

        while (result := pgconn.get_result()) is not None:
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise error_from_result(result)
        self.ended = True


def rows_of(raws: Sequence[bytes], schema: pa.Schema) -> tuple[pa.RecordBatch, Index | None, dict[int, list[str]]]:
    """Lines of COPY's CSV as rows; which lines they are (None for all), and by line why the others are none."""
    if not raws:
        return pa.RecordBatch.from_pylist([], schema=schema), None, {}
    block = b"".join(raws)
    plain = {each.name: each.type if _at_once(each.type) else pa.string() for each in schema}
    try:
        columns = _parsed(block, plain)
    except pa.ArrowInvalid:  # a value that Arrow has none for: infinity, NaN in a numeric, the year 10000
        columns = _parsed(block, dict.fromkeys(plain, pa.string()))
    reasons: dict[int, list[str]] = {}
    arrays = []
    for each in schema:
        values, faults = typed(columns[each.name], each.type)
        arrays.append(values)
        for row, why in faults.items():
            reasons.setdefault(row, []).append(f"{each.name}: {why}")
    rows = pa.RecordBatch.from_arrays(arrays, schema=schema)
    if not reasons:
        return rows, None, {}
    kept = np.setdiff1d(np.arange(len(raws)), list(reasons))
    return rows.take(pa.array(kept)), kept, reasons


def _at_once(kind: pa.DataType) -> bool:
    """Whether the CSV parser reads PostgreSQL's text of it."""
    is_ = pa.types
    return bool(is_.is_integer(kind) or is_.is_boolean(kind) or is_.is_floating(kind) or is_.is_decimal(kind)
                or is_.is_timestamp(kind) or is_.is_date(kind) or is_.is_string(kind))


def _parsed(block: bytes, types: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
    table = pa.csv.read_csv(
        io.BytesIO(block), pa.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=list(types)),
        pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        pa.csv.ConvertOptions(column_types=dict(types), strings_can_be_null=True, quoted_strings_can_be_null=False,
                              null_values=[""], true_values=["t"], false_values=["f"]))
    return {name: pa.concat_arrays(table.column(name).chunks) for name in types}


def typed(values: pa.Array, kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """Texts as values of a type, and what is wrong with those that are none. What has the type already is as it is."""
    if values.type == kind:
        return values, {}
    try:
        return _cast(values, kind), {}
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
        pass
    made, faults = [], {}
    for at in range(len(values)):
        try:
            made.append(_cast(values[at:at + 1], kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
            made.append(pa.nulls(1, kind))
            faults[at] = f"“{str(values[at])[:SHOWN_CHARS]}” is more than Arrow's {kind} holds"
    return pa.concat_arrays(made), faults


def _cast(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_list(kind):
        return _lists(texts, kind)
    prepare = next((do for test, do in _PREPARE if test(kind)), None)
    return pc.cast(texts if prepare is None else prepare(texts), kind)


def _lists(texts: pa.Array, kind: pa.ListType) -> pa.Array:
    """JSON lists of texts."""
    there = texts.drop_null()
    if not len(there):
        return pa.nulls(len(texts), kind)
    lines = pc.binary_join_element_wise('{"v":', there, "}", "")
    block = "\n".join(lines.to_pylist()).encode()
    found = pa.json.read_json(
        io.BytesIO(block), pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
        pa.json.ParseOptions(explicit_schema=pa.schema([("v", pa.list_(pa.string()))]))).column("v")
    lists = pa.concat_arrays(found.chunks)
    items, faults = typed(lists.flatten(), kind.value_type)
    if faults:
        raise ValueError(next(iter(faults.values())))
    made = pa.ListArray.from_arrays(lists.offsets, items, type=kind)
    if not texts.null_count:
        return made
    valid = texts.is_valid().to_numpy(zero_copy_only=False)
    return made.take(pa.array(np.cumsum(valid) - 1, mask=~valid))


def _bytes(texts: pa.Array) -> pa.Array:
    """The text is \\x and hex digits."""
    return pa.array([None if text is None else bytes.fromhex(text[2:]) for text in texts.to_pylist()], pa.binary())


def _real(texts: pa.Array) -> pa.Array:
    return pc.replace_substring(texts, "Infinity", "inf")


def _boolean(texts: pa.Array) -> pa.Array:
    return pc.equal(pc.utf8_slice_codeunits(texts, 0, 1), "t")


def _time(texts: pa.Array) -> pa.Array:
    """Arrow reads times of day only behind a day."""
    return pc.cast(pc.binary_join_element_wise("1970-01-01", texts, " "), pa.timestamp("us"))


_PREPARE: Sequence[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]]] = (
    (pa.types.is_binary, _bytes), (pa.types.is_floating, _real), (pa.types.is_boolean, _boolean),
    (pa.types.is_time, _time))
