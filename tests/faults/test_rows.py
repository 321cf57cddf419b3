"""The short selection of the suite's rows; `make faults` does all of them at their full counts."""

from __future__ import annotations

import random

import pytest

from tests.faults.row import Row
from tests.faults.table import ROWS
from tests.faults.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
SHORT = (2, 10, 13, 16)
"""The rows that find most in the least time."""


@pytest.mark.parametrize("row", [pytest.param(row, marks=() if row.number in SHORT else pytest.mark.full)
                                 for row in ROWS], ids=[row.name for row in ROWS])
def test_row(world: World, row: Row) -> None:
    seed = random.randrange(1 << 30)
    out = row.done(world, seed, row.sized(short=True))
    print(f"seed {seed}: {out}")
    again = f"python -m tests.faults --short --rows {row.number} --seed {seed}"
    assert not out.breaches, "\n".join((*out.breaches, f"again: {again}"))
    assert out.records
    assert out.runs
