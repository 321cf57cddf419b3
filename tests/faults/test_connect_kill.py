"""CSV → Kafka → Delta: the worker is killed ten times, and the table is the file."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from headrace.settings import Settings
from tests.faults.connectkill import expected, torment, write

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


def test_the_delta_table_is_the_file(project: Settings, topic: Callable[..., str]) -> None:
    from deltalake import DeltaTable

    name, folder, seed = topic(partitions=3), project.project / "table", random.randrange(1 << 30)
    files = write(project, name, {"connector.class": "deltalake", "table": str(folder)})

    def count() -> int:
        if not DeltaTable.is_deltatable(str(folder)):
            return 0
        return int(DeltaTable(str(folder)).to_pyarrow_dataset().count_rows())

    seen = torment(project, files, count, seed)
    print(f"seed {seed}: rows at the kills: {seen}")
    rows = DeltaTable(str(folder)).to_pyarrow_table(columns=["n", "sensor", "level"])
    found = sorted(zip(*(rows.column(name).to_pylist() for name in ("n", "sensor", "level")), strict=True))
    assert found == expected(), f"seed {seed}"
