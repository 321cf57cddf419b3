"""What a worker makes of the interpreter's and the C library's memory, and what it leaves behind."""

from __future__ import annotations

import gc

import pyarrow as pa
import pytest

from headrace.memory import steady

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collector_is_as_it_was(collecting: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if collecting else gc.disable)()
        with steady():
            assert not gc.isenabled()
        assert gc.isenabled() == collecting
        assert gc.get_freeze_count() == 0
    finally:
        (gc.enable if before else gc.disable)()


def test_also_when_it_ends_in_an_error() -> None:
    assert gc.isenabled()

    def fail() -> None:
        with steady():
            raise ValueError("inner")
    with pytest.raises(ValueError, match="inner"):
        fail()
    assert gc.isenabled()


def test_arrow_has_its_own_memory_again() -> None:
    before = pa.default_memory_pool().backend_name
    with steady():
        assert pa.default_memory_pool().backend_name == "system"
    assert pa.default_memory_pool().backend_name == before
