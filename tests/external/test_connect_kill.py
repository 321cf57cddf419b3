"""CSV → Kafka → PostgreSQL: the worker is killed ten times, and the table is the file. Plain inserts, and no key: a
record that came twice would be seen twice."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from headrace.settings import Settings
from tests.external.postgres import Postgres
from tests.faults.connectkill import expected, torment, write

pytestmark = [pytest.mark.external, pytest.mark.timeout(400)]


def test_the_table_is_the_file(project: Settings, topic: Callable[..., str], pg: Postgres,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    name, seed = topic(partitions=3), random.randrange(1 << 30)
    monkeypatch.setenv("WHERE_THE_TABLE_IS", pg.dsn)
    files = write(project, name, {"connector.class": "postgres", "connection": "${env:WHERE_THE_TABLE_IS}",
                                  "table": "readings_of_the_file"})
    pg.sql("CREATE TABLE readings_of_the_file (n bigint, sensor text, level double precision)")

    def count() -> int:
        return int(str(pg.sql("SELECT count(*) FROM readings_of_the_file")[0][0]))

    seen = torment(project, files, count, seed)
    print(f"seed {seed}: rows at the kills: {seen}")
    assert pg.sql("SELECT n, sensor, level FROM readings_of_the_file ORDER BY n") == expected(), f"seed {seed}"
    pg.sql("DROP TABLE readings_of_the_file")
