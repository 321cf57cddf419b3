"""How a worker keeps its memory: what the interpreter and the C library do by default suits other work."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

M_MXFAST = 1
"""mallopt(3): the largest chunk that glibc keeps apart when it is freed, and joins to its neighbours later."""


@contextmanager
def steady() -> Iterator[None]:
    """While batches go through: no collections of what lives as long as the worker, which makes no cyclic garbage of
    its own, no fast bins, and Arrow's columns in the C library's memory too.

    Kafka's client frees tens of thousands of small chunks a batch, numpy and Arrow some large ones, and on each of
    those glibc first goes through all the small ones. Without fast bins a record costs a tenth less. And Arrow's own
    allocator gives what a batch has freed back to the kernel, which clears it, in pages of 2 MB, for the next.
    """
    collecting, pool = gc.isenabled(), pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    gc.collect()
    gc.freeze()
    gc.disable()
    _no_fast_bins()
    try:
        yield
    finally:
        pa.set_memory_pool(pool)
        if collecting:
            gc.enable()
        gc.unfreeze()


def _no_fast_bins() -> None:
    """For good: nobody says what it was before. Other C libraries than glibc have no such thing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MXFAST, 0)
