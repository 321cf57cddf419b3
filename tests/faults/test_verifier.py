"""Who checks the checker: with a safeguard taken out of the worker the suite finds breaches, as it must."""

from __future__ import annotations

import pytest

from tests.faults import rows_data, rows_kill
from tests.faults.row import Row, Size
from tests.faults.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
SEED = 7


def without(off: str, row: Row, world: World) -> list[str]:
    """The breaches of a row without a safeguard."""
    wrapped = Row(row.number, row.name, lambda *given: row.run(*given, off=off),  # type: ignore[call-arg]
                  row.full, row.short)
    out = wrapped.done(world, SEED, row.short)
    print(f"without {off}: {out}")
    return out.breaches


@pytest.mark.parametrize(("off", "row", "sign"), [
    ("offsets", Row(2, "kill", rows_kill.at_each_stage, Size(0), Size(2_000)), "doubled"),
    ("dedupe", Row(16, "repeated", rows_data.repeated, Size(0), Size(2_000)), "do not belong"),
    ("abort", Row(11, "oversized", rows_data.limit_lowered, Size(0), Size(4_000)), "lost"),
    pytest.param("metadata", Row(3, "zombie", rows_kill.zombies, Size(0), Size(4_000)), "doubled",
                 marks=pytest.mark.full),
])
def test_without_it_the_suite_goes_red(world: World, off: str, row: Row, sign: str) -> None:
    assert any(sign in breach for breach in without(off, row, world))
