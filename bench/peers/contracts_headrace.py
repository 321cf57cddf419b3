"""The suite of ten by headrace: compiled once; which rows are good, and how many break what, of each record batch."""

from __future__ import annotations

import contracts_suite as ten
import pyarrow as pa

from headrace import __version__
from headrace.contracts import compile_suite, parse

table = pa.ipc.open_file(ten.file()).read_all()
contract = compile_suite(parse(ten.suite(), "ten.expectations.json"), table.schema)


def check(rows: pa.RecordBatch) -> dict[str, int]:
    report = contract.check(rows)
    assert len(report.row_mask) == rows.num_rows
    return report.counts


ten.tell("headrace", __version__, table.to_batches(), table.combine_chunks().to_batches()[0], check)
