"""What a worker does not import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.lean import numbers_of

pytestmark = pytest.mark.unit
A_FLOW = """
import sys
from pathlib import Path

from headrace.lean import leave_pandas_out

leave_pandas_out()
from headrace import plan
from headrace.pipeline import Pipeline

planned = plan.load(Path("bench/project/flows/standard.yaml"), Path("bench/project"))
Pipeline(planned, writers=lambda id: planned.source.schema, sink_ids={sink.name: 1 for sink in planned.sinks})
print("pandas" in sys.modules)
"""


def test_pandas_is_left_out() -> None:
    done = subprocess.run([sys.executable, "-c", A_FLOW], text=True, capture_output=True, check=True, timeout=60,
                          cwd=Path(__file__).parents[2])
    assert done.stdout == "False\n"


@pytest.mark.parametrize("arrow", [pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.uint64(), pa.float16(),
                                   pa.float32(), pa.float64()], ids=str)
def test_numbers(arrow: pa.DataType) -> None:
    assert numbers_of(arrow) == arrow.to_pandas_dtype()
