"""The flights as polars has them: the batches, and the whole."""

from __future__ import annotations

import contracts_suite as ten
import polars as pl


def frames() -> tuple[list[pl.DataFrame], pl.DataFrame]:
    whole = pl.read_ipc(ten.file()).rechunk()
    return [part.rechunk() for part in whole.iter_slices(ten.ROWS[0])], whole
